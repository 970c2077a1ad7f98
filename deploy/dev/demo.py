#!/usr/bin/env python3
"""The demo itself: makes a workspace, drives the REST API as a program would, and lets another consumer count.

Started by deploy/demo, which has PostgreSQL and Kafka running and the binary built.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psycopg

import demo_stream

HERE = Path(__file__).parent
ROWS = 336_776


def say(text):
    print(text, flush=True)


class Api:
    def __init__(self, url, key):
        self.url, self.key = url, key

    def call(self, method, path, body=None, **headers):
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {self.key}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        data = None
        if body is not None:
            request.add_header("Content-Type", "application/json")
            data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            sys.exit(f"{method} {path}: {error.read().decode()}")

    def answer(self, operation):
        """Waits for an operation's answer."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = self.call("GET", f"/v1/operations/{operation['id']}")
            if found["state"] not in ("pending", "running"):
                if found["state"] != "succeeded":
                    sys.exit(f"{found['question']['kind']}: {found['error']}")
                return found["result"]
            time.sleep(0.2)
        sys.exit("an operation was not answered within 60 s")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def freshet(binary, environment, *arguments):
    done = subprocess.run([binary, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.strip()


def prepare_source(admin):
    """A database with the flights, and a login that can only read them."""
    with psycopg.connect(admin, autocommit=True) as connection:
        if not connection.execute("select 1 from pg_database where datname = 'demo_source'").fetchone():
            connection.execute("create database demo_source")
        if not connection.execute("select 1 from pg_roles where rolname = 'demo_reader'").fetchone():
            connection.execute("create role demo_reader login password 'demo_reader'")
    source = admin.rsplit("/", 1)[0] + "/demo_source"
    subprocess.run([sys.executable, HERE / "load_flights.py", source], check=True, stdout=sys.stderr)
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute("grant select on all tables in schema public to demo_reader")
    return source


def start(binary, state, environment):
    environment["FRESHET_API_LISTEN"] = f"127.0.0.1:{free_port()}"
    log = open(state / "freshet.log", "ab")
    process = subprocess.Popen([binary, "serve"], env=environment, stdout=log, stderr=log, start_new_session=True)
    (state / "pid").write_text(f"{process.pid}\n")
    url = f"http://{environment['FRESHET_API_LISTEN']}"
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(url + "/readyz", timeout=2)
            return process, url
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    sys.exit(f"the service did not start; see {state / 'freshet.log'}")


def make_sync(api, bootstrap, name):
    host = psycopg.conninfo.conninfo_to_dict(os.environ["FRESHET_TEST_DATABASE_URL"])
    authority = Path(os.environ["FRESHET_TEST_CERTIFICATES"], "ca.pem").read_text()
    connection = api.call("POST", "/v1/connections", {
        "kind": "postgres",
        "name": "flights database",
        "settings": {
            "host": host["host"], "port": int(host["port"]), "database": "demo_source",
            "user": "demo_reader", "password": "demo_reader",
            "tls": {"mode": "verify-full", "ca": authority},
        },
    })
    for step in api.answer(api.call("POST", f"/v1/connections/{connection['id']}/test"))["steps"]:
        say(f"  connection: {step['name']}: {step['state']}, {step['detail']}")
    model = api.call("POST", "/v1/models", {
        "connection_id": connection["id"],
        "name": "flights",
        "spec": {"kind": "table", "schema": "public", "table": "flights"},
    })
    described = api.answer(model["describe_operation"])
    say(f"  model: {len(described['columns'])} columns, key {', '.join(described['primary_key'])}")
    destination = api.call("POST", "/v1/destinations", {
        "kind": "kafka",
        "name": "demo cluster",
        "settings": {"bootstrap_servers": bootstrap, "security": {"protocol": "plaintext"}},
    })
    sync = api.call("POST", "/v1/syncs", {
        "name": "flights to Kafka",
        "model_id": model["id"],
        "destination_id": destination["id"],
        "config": {"topic": {"name": f"{name}.{{table}}", "create": {"partitions": 6}}},
    })
    api.call("POST", f"/v1/syncs/{sync['id']}/activate")
    return sync


def follow(api, run):
    """Shows a run until it has ended."""
    seen, shown = 0, -1
    while True:
        events = api.call("GET", f"/v1/runs/{run['id']}/events?after={seen}")
        for event in events["data"]:
            say(f"  {event['seq']:3} {event['code']}: {event['message']}")
        seen = events["last_seq"]
        run = api.call("GET", f"/v1/runs/{run['id']}")
        if run["counts"]["published"] != shown:
            shown = run["counts"]["published"]
            say(f"      {shown} of {ROWS} rows on the topic")
        if run["finished_at"]:
            return run
        time.sleep(0.5)


def count(bootstrap, topic):
    read = [sys.executable, HERE / "read_topic.py", "--bootstrap", bootstrap, "--topic", topic, "--first", "3", "--json"]
    done = subprocess.run(read, capture_output=True, text=True)
    *shown, last = done.stdout.strip().splitlines() or ["", "{}"]
    say("\n".join(shown))
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(last)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--emulator", required=True)
    parser.add_argument("--state", required=True, type=Path)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--detach", action="store_true")
    asked = parser.parse_args()
    asked.state.mkdir(parents=True, exist_ok=True)

    environment = {name: value for name, value in os.environ.items()}
    keys = asked.state / "master_keys"
    if not keys.exists():
        keys.write_text(freshet(asked.binary, environment, "key", "master"))
        keys.chmod(0o600)
    environment["FRESHET_MASTER_KEYS"] = keys.read_text()
    freshet(asked.binary, environment, "migrate")
    prepare_source(os.environ["FRESHET_TEST_DATABASE_URL"])

    name = f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    freshet(asked.binary, environment, "workspace", "create", name)
    key = json.loads(freshet(asked.binary, environment, "key", "create", "--workspace", name))["key"]
    snowflake = demo_stream.Snowflake(asked.emulator, os.environ["FRESHET_TEST_DATABASE_URL"], name)
    (asked.state / "emulator.pid").write_text(str(snowflake.server.pid))
    environment["FRESHET_SNOWFLAKE_HOSTS"] = snowflake.url.removeprefix("http://")
    process, url = start(asked.binary, asked.state, environment)
    stay = False
    try:
        api = Api(url, key)
        say(f"API {url}, key {key}")
        sync = make_sync(api, asked.bootstrap, name)
        since = time.monotonic()
        run = follow(api, api.call("POST", f"/v1/syncs/{sync['id']}/runs"))
        say(f"  {run['state']} in {time.monotonic() - since:.1f} s: {json.dumps(run['counts'])}")
        found = count(asked.bootstrap, sync["topic"])
        say(f"  another consumer found {found['records']} records and {found['keys']} keys")
        whole = run["state"] == "succeeded" and found["records"] == found["keys"] == found["ids"] == ROWS

        say(f"\nA Snowflake Stream, from the emulator at {snowflake.url}")
        stream = demo_stream.make_sync(api, snowflake, asked.bootstrap, name)
        total = demo_stream.follow(api, snowflake, stream, 8)
        replayed = demo_stream.replay(snowflake, asked.bootstrap, stream["topic"])
        say(f"  all runs: {json.dumps(total)}")
        say(f"  another consumer replayed the topic: {json.dumps(replayed)}; it equals the table")
        stay = asked.detach
        if asked.once or asked.detach:
            print(json.dumps({
                "state": run["state"], "read": run["counts"]["read"], "published": run["counts"]["published"],
                "topic": sync["topic"], "bootstrap": asked.bootstrap,
                "database_url": environment["FRESHET_DATABASE_URL"], "api": url, "api_key": key,
                "sync": sync["id"], "run": run["id"], "stream_sync": stream["id"], "stream_topic": stream["topic"],
                "snowflake_url": snowflake.url,
            }), flush=True)
        else:
            say(f"\nAPI   {url}\nkey   {key}\ntopic {sync['topic']} at {asked.bootstrap}\n"
                f"try   curl -H 'Authorization: Bearer {key}' {url}/v1/runs\n\n"
                f"The Stream goes on to {stream['topic']}; Ctrl-C ends it")
            demo_stream.follow(api, snowflake, stream, float("inf"))
        sys.exit(0 if whole else "the topic does not hold each row once")
    except KeyboardInterrupt:
        pass
    finally:
        if not stay:
            process.terminate()
            process.wait(40)
            snowflake.stop()


main()
