"""The exporter that teams write by hand: fetch all rows, a dict and a JSON text for each, produce.

Least repaired: `json` knows neither Decimal nor datetime, so `default=str`; the queue fills after 100 000 messages, so
`poll` when it does. At most once: what it read and did not deliver is gone.

    python_exporter.py DATABASE_URL BOOTSTRAP TOPIC ROWS
"""

import json
import sys
from datetime import datetime

import psycopg
from confluent_kafka import Producer
from psycopg.rows import dict_row

from meter import Meter

url, bootstrap, topic, rows = sys.argv[1:]
producer = Producer({"bootstrap.servers": bootstrap, "client.id": "stream-exporter"})
connection = psycopg.connect(url, row_factory=dict_row)
meter = Meter()
cursor = connection.cursor()
cursor.execute("select *, 'INSERT' as action, false as is_update from orders where id <= %s", (int(rows),))
for change in cursor.fetchall():
    message = {"timestamp": datetime.now().isoformat(), "action": change["action"], "is_update": change["is_update"],
               "data": dict(change)}
    key, value = str(change["id"]), json.dumps(message, default=str)
    while True:
        try:
            producer.produce(topic, key=key, value=value, callback=meter.delivered)
            break
        except BufferError:
            producer.poll(0.1)
    meter.sent(key, value)
producer.flush()
meter.tell()
