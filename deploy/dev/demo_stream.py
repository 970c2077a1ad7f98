"""The demo's second half: a Snowflake Stream under a steady load, followed by a sync; all of Snowflake is the emulator.

A consumer that shares no code with the worker replays the topic and compares it with the table: replay_topic.py.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg

HERE = Path(__file__).parent


class Snowflake:
    """The emulator, on a database of the grounds' PostgreSQL."""

    def __init__(self, program, admin, name):
        self.program = program
        with psycopg.connect(admin, autocommit=True) as connection:
            if not connection.execute("select 1 from pg_database where datname = 'demo_snowflake'").fetchone():
                connection.execute("create database demo_snowflake")
        self.place = ["--database-url", admin.rsplit("/", 1)[0] + "/demo_snowflake"]
        self.environment = dict(os.environ, RUST_LOG="error")
        self.database = name.upper().replace("-", "_")
        self.loading = None
        self.server = subprocess.Popen([program, "serve", *self.place], env=self.environment, stdout=subprocess.PIPE,
                                       text=True, start_new_session=True)
        self.url = self.server.stdout.readline().strip()
        self.command("create-database", self.database)
        self.command("create-user", self.database)
        self.token = self.command("create-token", self.database)
        self.sql("create schema FRESHET")

    def command(self, command, *arguments):
        done = subprocess.run([self.program, command, *self.place, *arguments], env=self.environment,
                              capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"snowflake-emulator {command}: {done.stderr}")
        return done.stdout.strip()

    def sql(self, statements):
        return self.command("sql", "--database", self.database, "--schema", "PUBLIC", "--", statements)

    def load(self, rate, seconds=None):
        """Changes rows of ORDERS, 60 % inserts, 30 % updates, 10 % deletes; without `seconds` in the background."""
        asked = ["--database", self.database, "--rate", str(rate)]
        if seconds:
            return self.command("load", *asked, "--seconds", str(seconds))
        self.loading = subprocess.Popen([self.program, "load", *self.place, *asked], env=self.environment,
                                        stdout=subprocess.DEVNULL, start_new_session=True)

    def stop_load(self):
        if self.loading:
            self.loading.terminate()
            self.loading.wait(10)
            self.loading = None

    def stop(self):
        self.stop_load()
        self.server.terminate()
        self.server.wait(10)


def make_sync(api, snowflake, bootstrap, name):
    """A table with rows, a Stream on it, and a sync that follows the Stream."""
    snowflake.load(500, 2)
    snowflake.sql("create stream ORDERS_STREAM on table ORDERS show_initial_rows = true")
    connection = api.call("POST", "/v1/connections", {
        "kind": "snowflake",
        "name": "orders database",
        "settings": {
            "account": "emulator-account", "host": snowflake.url, "user": snowflake.database,
            "warehouse": "COMPUTE_WH", "database": snowflake.database,
            "sign_in": {"kind": "access_token", "token": snowflake.token},
        },
    })
    tested = api.answer(api.call("POST", f"/v1/connections/{connection['id']}/test"))
    print(f"  connection: {'ok' if tested['ok'] else tested}", flush=True)
    model = api.call("POST", "/v1/models", {
        "connection_id": connection["id"],
        "name": "orders stream",
        "primary_key": ["ID"],
        "spec": {"kind": "stream", "schema": "PUBLIC", "stream": "ORDERS_STREAM"},
    })
    api.answer(model["describe_operation"])
    destinations = api.call("GET", "/v1/destinations")["data"]
    sync = api.call("POST", "/v1/syncs", {
        "name": "orders to Kafka",
        "model_id": model["id"],
        "destination_id": destinations[0]["id"],
        "config": {"topic": {"name": f"{name}.orders", "create": {"partitions": 3}}, "mode": {"kind": "changes"}},
    })
    api.call("POST", f"/v1/syncs/{sync['id']}/activate")
    return sync


def run_once(api, sync):
    """One run, to its end."""
    run = api.call("POST", f"/v1/syncs/{sync['id']}/runs")
    while not run["finished_at"]:
        time.sleep(0.2)
        run = api.call("GET", f"/v1/runs/{run['id']}")
    return run


def follow(api, snowflake, sync, seconds):
    """Runs the sync again and again while rows change, and once more when they have stopped."""
    snowflake.load(50)
    until, total = time.monotonic() + seconds, {}
    last = False
    while not last:
        last = time.monotonic() > until
        if last:
            snowflake.stop_load()
        run = run_once(api, sync)
        if not run["state"].startswith("succeeded"):
            sys.exit(f"the Stream's run ended {run['state']}: {run['failure']}")
        for name, count in run["counts"].items():
            total[name] = total.get(name, 0) + count
        counts = {name: count for name, count in run["counts"].items() if count and name != "bytes"}
        print(f"  run: {json.dumps(counts) if counts else 'no changes'}", flush=True)
        time.sleep(0 if last else 1)
    return total


def replay(snowflake, bootstrap, topic):
    """Lets the other consumer compare."""
    asked = [sys.executable, HERE / "replay_topic.py", "--bootstrap", bootstrap, "--topic", topic, "--url",
             snowflake.url, "--token", snowflake.token, "--database", snowflake.database, "--table", "ORDERS"]
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout)
