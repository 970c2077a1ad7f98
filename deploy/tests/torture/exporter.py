"""The exporter that teams write by hand for a Snowflake Stream: SELECT * from it, publish, and move its offset with an INSERT
that inserts nothing. Least repaired: it waits for what it sent, with an idempotent producer and all replicas.

    exporter.py URL TOKEN BOOTSTRAP TOPIC STREAM

Says how many rows it found each time, a line each.
"""

import json
import sys
import time
import urllib.request
from datetime import datetime

from confluent_kafka import Producer

url, token, bootstrap, topic, stream = sys.argv[1:]
HEADERS = {
    "Authorization": f"Bearer {token}", "X-Snowflake-Authorization-Token-Type": "PROGRAMMATIC_ACCESS_TOKEN",
    "Accept": "application/json", "Content-Type": "application/json", "User-Agent": "stream-exporter/1",
}


def ask(path, body=None):
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(urllib.request.Request(url + path, data=data, headers=HEADERS)) as answer:
        return answer.status, json.load(answer)


def run(statement):
    status, found = ask("/api/v2/statements", {"statement": statement, "database": "SHOP", "schema": "PUBLIC", "warehouse": "WH"})
    while status == 202:
        time.sleep(0.05)
        status, found = ask(found["statementStatusUrl"])
    return found


def rows_of(first):
    names = [column["name"] for column in first["resultSetMetaData"]["rowType"]]
    for number in range(len(first["resultSetMetaData"]["partitionInfo"])):
        path = f"/api/v2/statements/{first['statementHandle']}?partition={number}"
        for row in first["data"] if number == 0 else ask(path)[1]["data"]:
            yield dict(zip(names, row))


producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 5})
while True:
    found = 0
    for row in rows_of(run(f'select * from "{stream}"')):
        action, is_update = row.pop("METADATA$ACTION"), row.pop("METADATA$ISUPDATE") == "true"
        row.pop("METADATA$ROW_ID")
        message = {"timestamp": datetime.now().isoformat(), "action": action, "is_update": is_update, "data": row}
        producer.produce(topic, key=json.dumps({"id": int(row["id"])}), value=json.dumps(message))
        producer.poll(0)
        found += 1
    producer.flush()
    if found:
        # Every column, so that the INSERT reads the Stream; no row, since all of them are sent.
        run(f'insert into "{stream}_offset" select * from "{stream}" where 1 = 0')
    print(found, flush=True)
    time.sleep(0.1)
