#!/usr/bin/env python3
"""Reads a topic from its start to its present end and counts what a consumer of committed records gets.

    deploy/dev/python deploy/dev/read_topic.py --bootstrap HOST:PORT --topic TOPIC [--first N] [--key-fields a,b] [--json]

The protocol here is kafka-python's own: no code is shared with the worker or with librdkafka. Records of aborted and of
unfinished transactions are not read; the latter are counted as `unfinished`, control records included. A record is
`repeated` when an earlier one of the topic had its key, or its `freshet-id` header. Exit code 1 when reading stalls.
"""

import argparse
import logging
import time

import orjson
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

STALL_S = 30


def consumer(bootstrap, isolation):
    return KafkaConsumer(
        bootstrap_servers=bootstrap.split(","),
        isolation_level=isolation,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        group_id=None,
        max_partition_fetch_bytes=8 << 20,
    )


def key_of(record, fields):
    """The record's key, or the values of `fields`, from its value (an envelope's image first) or else from its key."""
    if not fields:
        return record.key
    for row in (json_of(record.value), json_of(record.key)):
        if isinstance(row, dict):
            for image in (row.get("after"), row.get("before"), row.get("data"), row):
                if isinstance(image, dict) and all(field in image for field in fields):
                    return orjson.dumps([image[field] for field in fields])
    return None


def json_of(value):
    try:
        return orjson.loads(value) if value else None
    except orjson.JSONDecodeError:
        return None


class Counts:
    def __init__(self, fields):
        self.fields = fields
        self.records = self.bytes = self.tombstones = self.null_keys = self.ids = 0
        self.keys, self.distinct_ids, self.headers = set(), set(), {}

    def add(self, record):
        self.records += 1
        self.bytes += len(record.key or b"") + len(record.value or b"")
        self.tombstones += record.value is None
        key = key_of(record, self.fields)
        if key is None:
            self.null_keys += 1
        else:
            self.keys.add(key)
        for name, value in record.headers:
            self.headers[name] = self.headers.get(name, 0) + 1
            if name == "freshet-id":
                self.ids += 1
                self.distinct_ids.add(value)

    def report(self):
        return {
            "records": self.records,
            "bytes": self.bytes,
            "tombstones": self.tombstones,
            "keys": len(self.keys),
            "repeated_keys": self.records - self.null_keys - len(self.keys),
            "null_keys": self.null_keys,
            "ids": len(self.distinct_ids),
            "repeated_ids": self.ids - len(self.distinct_ids),
            "headers": dict(sorted(self.headers.items())),
        }


def read(bootstrap, topic, fields, first_max):
    since = time.monotonic()
    reader, probe = consumer(bootstrap, "read_committed"), consumer(bootstrap, "read_uncommitted")
    numbers = reader.partitions_for_topic(topic)
    if not numbers:
        raise SystemExit(f"error: no topic `{topic}` at {bootstrap}")
    partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
    reader.assign(partitions)
    reader.seek_to_beginning()
    # For a reader of committed records the end is the first record of the oldest unfinished transaction.
    ends = reader.end_offsets(partitions)
    unfinished = sum(probe.end_offsets(partitions).values()) - sum(ends.values())

    counts, first, moved = Counts(fields), {partition: [] for partition in partitions}, time.monotonic()
    open_partitions = partitions
    while open_partitions:
        # The position also passes aborted records and the marks of transactions, which poll does not hand out.
        before = [reader.position(partition) for partition in partitions]
        for partition, records in reader.poll(timeout_ms=500, max_records=10_000).items():
            for record in records:
                if record.offset < ends[partition]:
                    counts.add(record)
                    if len(first[partition]) < first_max:
                        first[partition].append(record)
        after = [reader.position(partition) for partition in partitions]
        open_partitions = [p for p, position in zip(partitions, after) if position < ends[p]]
        if after != before:
            moved = time.monotonic()
        elif time.monotonic() - moved > STALL_S:
            raise SystemExit(f"error: nothing came for {STALL_S} s; read {counts.records} records, ends {ends}, positions {after}")
    reader.close()
    probe.close()

    report = {"topic": topic, "partitions": len(partitions), **counts.report(), "unfinished": unfinished}
    report["seconds"] = round(time.monotonic() - since, 2)
    shown = sorted((record for records in first.values() for record in records),
                   key=lambda record: (record.timestamp, record.partition, record.offset))
    return report, shown[:first_max]


def show(record):
    headers = " ".join(f"{name}={text(value)}" for name, value in record.headers)
    print(f"{record.partition}/{record.offset}  {text(record.key)}  {headers}\n    {text(record.value)}")


def text(value):
    return "null" if value is None else value.decode("utf-8", "backslashreplace")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bootstrap", required=True)
    arguments.add_argument("--topic", required=True)
    arguments.add_argument("--first", type=int, default=0, metavar="N", help="print the first N records")
    arguments.add_argument("--key-fields", default="", metavar="a,b", help="count keys by these fields of the row")
    arguments.add_argument("--json", action="store_true", help="the counts as one JSON object on the last line")
    given = arguments.parse_args()
    logging.basicConfig(level=logging.CRITICAL)   # What matters is raised.

    fields = [field for field in given.key_fields.split(",") if field]
    try:
        report, shown = read(given.bootstrap, given.topic, fields, given.first)
    except KafkaError as error:
        raise SystemExit(f"error: cannot read `{given.topic}` at {given.bootstrap}: {error}") from error
    for record in shown:
        show(record)
    if given.json:
        print(orjson.dumps(report).decode())
        return
    headers = ", ".join(f"{name} {count}" for name, count in report["headers"].items()) or "none"
    print(f"{report['topic']}: {report['records']} records in {report['partitions']} partitions, "
          f"{report['bytes'] / 1e6:.1f} MB, read in {report['seconds']} s")
    print(f"  keys        {report['keys']} distinct, {report['repeated_keys']} repeated, {report['null_keys']} without")
    print(f"  freshet-id  {report['ids']} distinct, {report['repeated_ids']} repeated")
    print(f"  tombstones  {report['tombstones']}")
    print(f"  headers     {headers}")
    print(f"  unfinished  {report['unfinished']} records behind an unfinished transaction")


if __name__ == "__main__":
    main()
