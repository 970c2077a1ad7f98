#!/usr/bin/env python3
"""Replays topics into tables and says what is wrong with them: a reader of committed records that shares no code with the
worker, nor with librdkafka.

One JSON object a line comes in, one goes out:

    {"op": "watch", "topic": T, "kind": "upserts" | "full" | "changes" | "differences" | "exported", ...}
    {"op": "read", "topic": T, "since_ms": 0}                     what came since the last time
    {"op": "compare", "topic": T, "since_ms": 0, "table": {...}}  the same, and the table that must have come of it
    {"op": "audit", "topic": T, "table": {...}}                   all of it once more from the start, by a new reader

A table is `{key: [version, payload, amount]}`. Dead letters, on `T.dlq`, stand for the rows in them. Answers count what is
`lost` (a row of the table that did not arrive, or a state in between that must have been there), `duplicated` (a
`freshet-id` again, or the same version of a row in another record) and `reordered` (an older version after a newer one).
"""

import json
import sys
import time

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

STALL_S = 30
OPEN_S = 10
FINDINGS_MAX = 8


class Topic:
    """What is known of one topic, record after record."""

    def __init__(self, name, kind, has_ids):
        self.name, self.kind, self.has_ids = name, kind, has_ids
        self.positions = {}
        self.records = self.letters = 0
        self.ids = set()
        self.versions = {}      # (generation, key) -> the last version seen
        self.table = {}         # key -> row, as a consumer would have it
        self.dead = {}          # key -> the newest row that is a dead letter: no order holds between two topics
        self.batches = {}       # full: (generation, batch) -> its rows by key, its ordinals
        self.generations = {}   # differences: key -> the generation it was seen in last
        self.pending_tombstones = {}
        self.seen = set()       # exported: what cannot come twice
        self.superseded = {}    # exported: key -> the row before the last
        self.last = (0, 0, 0)   # generation, batch, ordinal
        self.stamps = []
        self.counts = {"lost": 0, "duplicated": 0, "reordered": 0}
        self.findings = []

    def find(self, what, text):
        self.counts[what] += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(f"{what}: {text}")

    def take(self, record, is_letter):
        self.stamps.append(record.timestamp)
        if is_letter:
            self.letters += 1
        else:
            self.records += 1
        headers = {name: value.decode() for name, value in record.headers}
        identity = headers.get("freshet-id")
        if self.has_ids:
            if identity in self.ids:
                return self.find("duplicated", f"{identity} again, at {record.partition}/{record.offset}")
            self.ids.add(identity)
            place = place_of(identity)
            self.last = max(self.last, place)
        else:
            place = (0, 0, 0)
        value = parse(record.value)
        getattr(self, self.kind)(record, value, is_letter, place, identity)

    def upserts(self, record, value, is_letter, place, identity):
        key, row = row_of(value if is_letter else value["after"])
        if is_letter:
            self.dead[key] = max(row, self.dead.get(key, row))
            return
        known = self.versions.get((place[0], key), -1)
        if row[0] == known:
            self.find("duplicated", f"version {row[0]} of {key} again, as {identity}")
        elif row[0] < known:
            self.find("reordered", f"version {row[0]} of {key} after {known}, as {identity}")
        self.versions[place[0], key] = max(known, row[0])
        self.table[key] = row

    def full(self, record, value, is_letter, place, identity):
        key, row = row_of(value if is_letter else value["after"])
        rows, ordinals = self.batches.setdefault(place[:2], ({}, set()))
        if key in rows:
            self.find("duplicated", f"{key} twice in batch {place[:2]}")
        rows[key] = row
        ordinals.add(place[2])

    def changes(self, record, value, is_letter, place, identity):
        """Each change names the state before it, so the chain of a key shows what is missing and what came twice."""
        if is_letter:
            return self.find("lost", f"{identity} is a dead letter: {value}")
        if value is None:
            key = str(parse(record.key)["id"])
            if self.pending_tombstones.pop(key, 0) == 0:
                self.find("reordered", f"a tombstone of {key} without a delete before it")
            return
        before, after = image(value, "before"), image(value, "after")
        key = (after or before)[0]
        known, op = self.table.get(key), value["op"]
        expected = before and before[1]
        if op in "cr" and known is not None or op in "ud" and known != expected:
            version = lambda row: "nothing" if row is None else f"version {row[0]}"
            text = f"{op} of {key} after {version(known)} says that {version(expected)} was there ({identity})"
            if known is not None and expected is not None and expected[0] < known[0]:
                self.find("reordered", text)
            else:
                self.find("lost", text)
        if op == "d":
            self.table.pop(key, None)
            self.pending_tombstones[key] = self.pending_tombstones.get(key, 0) + 1
        else:
            self.table[key] = after[1]

    def differences(self, record, value, is_letter, place, identity):
        """The same, but for a new generation, which begins with every row as created."""
        key = str(parse(record.key)["id"]) if not is_letter else None
        if key in self.table and self.generations.get(key) != place[0]:
            del self.table[key]
        self.generations[key] = place[0]
        self.changes(record, value, is_letter, place, identity)

    def exported(self, record, value, is_letter, place, identity):
        """As Snowflake's Streams say it: an update is a DELETE of the old row and an INSERT of the new, in any order."""
        key, row = row_of(value["data"])
        event = (key, row[0], value["action"])
        if event in self.seen:
            return self.find("duplicated", f"{value['action']} of {key}, version {row[0]}, again")
        self.seen.add(event)
        known = self.table.get(key)
        if value["action"] == "INSERT":
            if known is not None and known[0] > row[0]:
                return self.find("reordered", f"version {row[0]} of {key} after {known[0]}")
            if known is not None and not value["is_update"]:
                self.find("lost", f"the delete of {key} before version {row[0]} was inserted")
            self.superseded[key], self.table[key] = known, row
        elif value["is_update"]:
            if known != row and self.superseded.get(key) != row:
                self.find("lost", f"version {row[0]} of {key}, which an update replaced")
        elif known != row:
            self.find("lost", f"version {row[0]} of {key}, which was deleted")
            self.table.pop(key, None)
        else:
            del self.table[key]

    def compare(self, table):
        table = {key: tuple(row) for key, row in table.items()}
        mine = self.table
        if self.kind == "full":
            for batch, (_, ordinals) in self.batches.items():
                if len(ordinals) != max(ordinals):
                    self.find("lost", f"batch {batch} has {len(ordinals)} rows and ends at {max(ordinals)}")
            last = max(self.batches, default=None)
            mine = self.batches[last][0] if last else {}
            # What went before is judged; a consumer has the last.
            self.batches = {last: self.batches[last]} if last else {}
        if self.kind == "differences":
            mine = {key: row for key, row in mine.items() if self.generations[key] == self.last[0]}
        if self.kind == "upserts":
            mine = {key: max(mine.get(key, (-1,)), self.dead.get(key, (-1,))) for key in mine.keys() | self.dead.keys()}
        for key, row in table.items():
            there = mine.get(key)
            if there is None or there[0] < row[0]:
                self.find("lost", f"version {row[0]} of {key}; the topic has {there and there[0]}")
            elif there != row:
                self.find("reordered", f"{key} is {row}, the topic has {there}")
        for key in mine.keys() - table.keys():
            self.find("lost", f"the delete of {key}")


def parse(data):
    # Numbers with all their digits: no float in between.
    return None if data is None else json.loads(data, parse_float=str)


def place_of(identity):
    _, generation, batch, ordinal, *_ = identity.split(".")
    return int(generation), int(batch), int(ordinal)


def row_of(row):
    low = {name.lower(): value for name, value in row.items()}
    return str(low["id"]), (int(low["v"]), low["payload"], None if low["amount"] is None else str(low["amount"]))


def image(value, name):
    return row_of(value[name]) if value.get(name) else None


class Reader:
    def __init__(self, bootstrap):
        self.bootstrap = bootstrap.split(",")
        self.consumers = {}

    def consumer(self, isolation):
        if isolation not in self.consumers:
            self.consumers[isolation] = KafkaConsumer(
                bootstrap_servers=self.bootstrap, isolation_level=isolation, auto_offset_reset="earliest",
                enable_auto_commit=False, group_id=None, max_partition_fetch_bytes=8 << 20, fetch_max_wait_ms=50)
        return self.consumers[isolation]

    def forget(self):
        for consumer in self.consumers.values():
            consumer.close(autocommit=False)
        self.consumers = {}

    def partitions(self, name):
        committed = self.consumer("read_committed")
        numbers = committed.partitions_for_topic(name) or set()
        return [TopicPartition(name, number) for number in sorted(numbers)]

    def read(self, topic):
        """Takes in what is committed by now; how many records stand behind a transaction that is still open."""
        unfinished = 0
        for name, is_letter in ((topic.name, False), (topic.name + ".dlq", True)):
            unfinished += self.read_one(topic, name, is_letter)
        return unfinished

    def read_one(self, topic, name, is_letter):
        partitions = self.partitions(name)
        if not partitions:
            return 0
        committed, all_of_it = self.consumer("read_committed"), self.consumer("read_uncommitted")
        ends = committed.end_offsets(partitions)
        high = all_of_it.end_offsets(partitions)
        committed.assign(partitions)
        for partition in partitions:
            committed.seek(partition, topic.positions.get(partition, 0))
        batch, moved = [], time.monotonic()
        while any(committed.position(partition) < ends[partition] for partition in partitions):
            found = committed.poll(timeout_ms=200, max_records=10_000)
            for records in found.values():
                batch.extend(record for record in records if record.offset < ends[record_partition(record)])
            if found:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALL_S:
                raise KafkaError(f"{name}: nothing came for {STALL_S} s")
        # Partitions come as they like; a key has one partition, a batch has them all.
        batch.sort(key=lambda record: (record.partition, record.offset))
        for record in batch:
            topic.take(record, is_letter)
        topic.positions.update(ends)
        return sum(high.values()) - sum(ends.values())


def record_partition(record):
    return TopicPartition(record.topic, record.partition)


def longest_gap(topic, since_ms):
    stamps = sorted(stamp for stamp in topic.stamps if stamp >= since_ms)
    topic.stamps = []
    if not since_ms or not stamps:
        return None
    return max(later - earlier for earlier, later in zip([since_ms, *stamps], stamps))


def answer(reader, topics, asked):
    op, name = asked["op"], asked["topic"]
    if op == "watch":
        topics[name] = Topic(name, asked["kind"], asked.get("ids", True))
        return {}
    topic = topics[name]
    if op == "audit":
        topic = Topic(name, topic.kind, topic.has_ids)
    deadline = time.monotonic() + (OPEN_S if op != "read" else 0)
    while True:
        unfinished = reader.read(topic)
        if unfinished == 0 or time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    if "table" in asked:
        topic.compare(asked["table"])
    gap_ms = longest_gap(topic, asked.get("since_ms", 0))
    told = {**topic.counts, "findings": topic.findings, "records": topic.records, "letters": topic.letters,
            "batch": topic.last[1], "ordinal": topic.last[2], "unfinished": unfinished, "gap_ms": gap_ms}
    topic.counts, topic.findings = dict.fromkeys(topic.counts, 0), []
    return told


def main():
    reader, topics = Reader(sys.argv[1]), {}
    for line in sys.stdin:
        asked = json.loads(line)
        for _ in range(3):
            try:
                told = answer(reader, topics, asked)
                break
            except (KafkaError, OSError, ValueError, AssertionError) as error:   # What a broker that went away leads to.
                # A broker that went and came: a new client, and on from where we were.
                reader.forget()
                told = {"error": f"{type(error).__name__}: {error}"}
                time.sleep(0.5)
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
