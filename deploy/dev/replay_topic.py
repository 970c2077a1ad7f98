#!/usr/bin/env python3
"""Replays a topic of changes (envelope `debezium`) into a table of its own and compares that with the table at the source.

    deploy/dev/python deploy/dev/replay_topic.py --bootstrap HOST:PORT --topic TOPIC \
        --url SNOWFLAKE_URL --token TOKEN --database DATABASE --table TABLE [--key ID]

Checked on the way, in the order of each partition: a create comes where there is no row, an update's and a delete's
`before` is the row as it was, a delete is followed by a tombstone, each `freshet-id` comes once. The protocol is
kafka-python's own, and the table is read over the SQL API: no code is shared with the worker. The last line is one JSON
object; exit code 1 when anything differs.
"""

import argparse
import gzip
import json
import sys
import urllib.request
from datetime import datetime, timedelta

from kafka import TopicPartition

from read_topic import consumer

EPOCH = datetime(1970, 1, 1)


def records(bootstrap, topic):
    """All committed records, in the order of each partition."""
    reader = consumer(bootstrap, "read_committed")
    partitions = [TopicPartition(topic, number) for number in sorted(reader.partitions_for_topic(topic) or ())]
    if not partitions:
        sys.exit(f"error: no topic `{topic}` at {bootstrap}")
    reader.assign(partitions)
    reader.seek_to_beginning()
    ends = reader.end_offsets(partitions)
    while any(reader.position(partition) < ends[partition] for partition in partitions):
        for found in reader.poll(timeout_ms=500, max_records=10_000).values():
            yield from found


class Replay:
    def __init__(self, key):
        self.key, self.rows, self.ids, self.faults = key, {}, set(), []
        self.counts = {"c": 0, "u": 0, "d": 0, "r": 0, "tombstones": 0}
        self.deleted = {}

    def fault(self, record, what):
        self.faults.append(f"{record.partition}/{record.offset}: {what}")

    def add(self, record):
        headers = dict(record.headers)
        if headers["freshet-id"] in self.ids:
            self.fault(record, f"{headers['freshet-id'].decode()} came before")
        self.ids.add(headers["freshet-id"])
        key = json.dumps(json.loads(record.key, parse_int=str, parse_float=str))
        before_this = self.deleted.pop(record.partition, None)
        if record.value is None:
            self.counts["tombstones"] += 1
            if before_this != key:
                self.fault(record, "a tombstone without its delete")
            return
        if before_this is not None:
            self.fault(record, "a delete without its tombstone")
        change = json.loads(record.value, parse_int=str, parse_float=str)
        op, before, after = change["op"], change["before"], change["after"]
        self.counts[op] += 1
        known = self.rows.pop(key, None)
        if op in "cr" and known is not None:
            self.fault(record, "a create of a row that is there")
        if op in "ud" and before != known:
            self.fault(record, f"`before` of {op} is not the row as it was")
        if op == "d":
            self.deleted[record.partition] = key
        else:
            self.rows[key] = after


def table(url, token, database, name):
    """The table's rows as texts, by the SQL API."""
    headers = {"Authorization": f"Bearer {token}", "X-Snowflake-Authorization-Token-Type": "PROGRAMMATIC_ACCESS_TOKEN",
               "Accept": "application/json", "Content-Type": "application/json", "User-Agent": "replay/1"}

    def ask(path, body=None):
        data = json.dumps(body).encode() if body else None
        with urllib.request.urlopen(urllib.request.Request(url + path, data=data, headers=headers)) as answer:
            text = answer.read()
            if answer.headers.get("Content-Encoding") == "gzip":
                text = gzip.decompress(text)
            return json.loads(text)

    asked = {"statement": f"select * from {name}", "database": database, "schema": "PUBLIC",
             "warehouse": "COMPUTE_WH", "timeout": 60}
    first = ask("/api/v2/statements", asked)
    kinds = first["resultSetMetaData"]["rowType"]
    rows = list(first["data"])
    for partition in range(1, len(first["resultSetMetaData"]["partitionInfo"])):
        rows += ask(f"/api/v2/statements/{first['statementHandle']}?partition={partition}")["data"]
    return [{kind["name"]: plain(text, kind) for kind, text in zip(kinds, row)} for row in rows]


def plain(text, kind):
    """A cell as the message has it."""
    if text is None or kind["type"] != "timestamp_ntz":
        return text
    seconds, _, nanos = text.partition(".")
    return instant((EPOCH + timedelta(seconds=int(seconds))).isoformat() + "." + (nanos or "0"))


def instant(text):
    """An instant without zeros at its end."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def same(ours, theirs):
    return all(value == ours.get(name) or isinstance(value, str) and instant(ours.get(name) or "") == value
               for name, value in theirs.items()) and len(ours) == len(theirs)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bootstrap", "topic", "url", "token", "database", "table"):
        arguments.add_argument(f"--{name}", required=True)
    arguments.add_argument("--key", default="ID")
    given = arguments.parse_args()

    replay = Replay(given.key)
    for record in records(given.bootstrap, given.topic):
        replay.add(record)
    theirs = {row[given.key]: row for row in table(given.url, given.token, given.database, given.table)}
    ours = {row[given.key]: row for row in replay.rows.values()}
    missing, extra = theirs.keys() - ours.keys(), ours.keys() - theirs.keys()
    differing = [key for key in theirs.keys() & ours.keys() if not same(ours[key], theirs[key])]
    for fault in replay.faults[:10]:
        print(fault)
    for key in differing[:3]:
        print(f"row {key}: the topic has {ours[key]}, the table {theirs[key]}")
    print(json.dumps({"rows": len(theirs), "creates": replay.counts["c"] + replay.counts["r"],
                      "updates": replay.counts["u"], "deletes": replay.counts["d"],
                      "tombstones": replay.counts["tombstones"], "ids": len(replay.ids), "faults": len(replay.faults),
                      "missing": len(missing), "extra": len(extra), "differing": len(differing)}))
    sys.exit(1 if replay.faults or missing or extra or differing else 0)


if __name__ == "__main__":
    main()
