"""The same exporter by somebody who knows the libraries: server-side binary cursor, orjson, large batches, idempotent.

    python_tuned.py DATABASE_URL BOOTSTRAP TOPIC ROWS
"""

import sys
import time
from decimal import Decimal

import orjson
import psycopg
from confluent_kafka import Producer

from meter import Meter

AT_ONCE = 10_000


def text(value):
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value))


url, bootstrap, topic, rows = sys.argv[1:]
producer = Producer({
    "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 50, "batch.size": 1_000_000,
    "batch.num.messages": AT_ONCE, "queue.buffering.max.messages": 500_000, "queue.buffering.max.kbytes": 262_144,
    "compression.type": "lz4",
})
connection = psycopg.connect(url)
meter = Meter()
cursor = connection.cursor(name="rows", binary=True)
cursor.execute("select * from orders where id <= %s", (int(rows),))
names = [column.name for column in cursor.description]
ts_ms, source = int(time.time() * 1000), {"connector": "exporter", "schema": "public", "table": "orders"}
while batch := cursor.fetchmany(AT_ONCE):
    for row in batch:
        key = str(row[0])
        value = orjson.dumps(
            {"before": None, "after": dict(zip(names, row)), "op": "r", "ts_ms": ts_ms, "source": source}, default=text)
        while True:
            try:
                producer.produce(topic, key=key, value=value, on_delivery=meter.delivered)
                break
            except BufferError:
                producer.poll(0.05)
        meter.sent(key, value)
    producer.poll(0)
producer.flush()
meter.tell()
