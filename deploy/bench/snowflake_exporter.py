"""The exporter that teams write by hand, over Snowflake's SQL API: every partition as Python objects, a JSON text a row.

    snowflake_exporter.py URL TOKEN BOOTSTRAP TOPIC ROWS
"""

import gzip
import json
import sys
import urllib.request
from datetime import datetime, timedelta, timezone

from confluent_kafka import Producer

from meter import Meter

url, token, bootstrap, topic, rows = sys.argv[1:]
EPOCH = datetime(1970, 1, 1)


def value(text, kind):
    """What the row type says, as a Python value."""
    if text is None:
        return None
    match kind["type"]:
        case "fixed":
            return int(text) if kind["scale"] == 0 else float(text)
        case "boolean":
            return text == "true"
        case "timestamp_ntz":
            return (EPOCH + timedelta(seconds=float(text))).isoformat()
        case "timestamp_tz":
            seconds, offset = text.split()
            zone = timezone(timedelta(minutes=int(offset) - 1440))
            return datetime.fromtimestamp(float(seconds), zone).isoformat()
        case "variant":
            return json.loads(text)
    return text


HEADERS = {
    "Authorization": f"Bearer {token}", "X-Snowflake-Authorization-Token-Type": "PROGRAMMATIC_ACCESS_TOKEN",
    "Accept": "application/json", "Accept-Encoding": "gzip", "Content-Type": "application/json",
    "User-Agent": "stream-exporter/1",
}


def ask(path, body=None):
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(urllib.request.Request(url + path, data=data, headers=HEADERS)) as answer:
        text = answer.read()
        if answer.headers.get("Content-Encoding") == "gzip":
            text = gzip.decompress(text)
        return answer.status, json.loads(text)


producer = Producer({"bootstrap.servers": bootstrap, "client.id": "stream-exporter"})
meter = Meter()
asked = {"statement": f"select *, 'INSERT' as ACTION, false as IS_UPDATE from ORDERS where ID <= {int(rows)}",
         "database": "SHOP", "schema": "PUBLIC", "warehouse": "COMPUTE_WH", "timeout": 600}
status, first = ask("/api/v2/statements", asked)
while status == 202:
    status, first = ask(first["statementStatusUrl"])
kinds = first["resultSetMetaData"]["rowType"]
for partition in range(len(first["resultSetMetaData"]["partitionInfo"])):
    if partition == 0:
        found = first["data"]
    else:
        found = ask(f"/api/v2/statements/{first['statementHandle']}?partition={partition}")[1]["data"]
    for row in found:
        change = {kind["name"]: value(text, kind) for kind, text in zip(kinds, row)}
        message = {"timestamp": datetime.now().isoformat(), "action": change.pop("ACTION"),
                   "is_update": change.pop("IS_UPDATE"), "data": change}
        key, text = str(change["ID"]), json.dumps(message)
        while True:
            try:
                producer.produce(topic, key=key, value=text, callback=meter.delivered)
                break
            except BufferError:
                producer.poll(0.1)
        meter.sent(key, text)
producer.flush()
meter.tell()
