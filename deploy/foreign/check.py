"""Looks at the Snowflake client, the emulator and the API with software that we did not write. Started by `check`."""

import argparse
import base64
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import date, datetime, time as day_time
from decimal import Decimal
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BIN = Path(sys.executable).parent
ACCOUNT, USER = "EMULATOR-ACCOUNT", "JDOE"


class Finding(Exception):
    """What a check found wrong."""


class Absent(Exception):
    """What a check needs and is not there."""


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)
    if done.returncode:
        raise Finding(f"{Path(str(command[0])).name} {command[1]}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Emulator:
    def __init__(self, program):
        admin = os.environ["FRESHET_TEST_DATABASE_URL"]
        name = "foreign_" + secrets.token_hex(6)
        run(ROOT / "deploy/dev/postgres", "psql", "-c", f"create database {name}")
        self.program, self.place = program, ["--database-url", admin.rsplit("/", 1)[0] + "/" + name]
        self.environment = dict(os.environ, RUST_LOG="error")
        self.process = subprocess.Popen([program, "serve", *self.place], env=self.environment, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        self.command("create-database", "SHOP")
        self.command("create-user", USER)
        self.token = self.command("create-token", USER).strip()
        self.sql("create schema FRESHET; create table ORDERS (ID number(38,0) primary key, NAME varchar, AMOUNT number(12,2));"
                 "insert into ORDERS values (1, 'one', 1.50), (2, 'two', 2), (3, null, null)")

    def command(self, command, *arguments):
        return run(self.program, command, *self.place, *arguments, env=self.environment)

    def sql(self, statements):
        return self.command("sql", "--database", "SHOP", "--schema", "PUBLIC", "--", statements)

    def settings(self, url=None, **sign_in):
        return json.dumps({
            "account": ACCOUNT.lower(), "host": url or self.url, "user": USER, "warehouse": "COMPUTE_WH",
            "database": "SHOP", "late_commit_s": 0,
            "sign_in": sign_in or {"kind": "access_token", "token": self.token},
        })

    def ask(self, statement, token=None, kind="PROGRAMMATIC_ACCESS_TOKEN"):
        """One statement over the SQL API, and its whole answer."""
        body = json.dumps({"statement": statement, "database": "SHOP", "schema": "PUBLIC", "warehouse": "COMPUTE_WH"})
        request = urllib.request.Request(f"{self.url}/api/v2/statements", data=body.encode(), headers={
            "Authorization": f"Bearer {token or self.token}", "X-Snowflake-Authorization-Token-Type": kind,
            "Accept": "application/json", "Content-Type": "application/json", "User-Agent": "foreign/1",
        })
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Finding(f"{error.code}: {error.read().decode()}") from error

    def statements(self):
        with urllib.request.urlopen(f"{self.url}/emulator/statements") as answer:
            return [found["statement"] for found in json.load(answer)["statements"]]


def hosts(url):
    return url.removeprefix("http://")


def walk(given, emulator, url=None):
    """Uses every call of the client."""
    stream = "S_" + secrets.token_hex(4).upper()
    emulator.sql(f"create stream {stream} on table ORDERS show_initial_rows = true")
    url = url or emulator.url
    return run(given.probe, "walk", emulator.settings(url), hosts(url), "PUBLIC", "ORDERS", stream)


def jwt(given, emulator, folder):
    """Snowflake's own command line signs a token: the emulator takes it, and ours says the same."""
    key = folder / "key.p8"
    run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
    key.chmod(0o600)
    public = run("openssl", "pkey", "-in", key, "-pubout")
    (folder / "key.pub").write_text(public)
    emulator.command("set-key", USER, str(folder / "key.pub"))
    theirs = run(BIN / "snow", "connection", "generate-jwt", "-x", "--account", ACCOUNT.lower(), "--user", USER.lower(),
                 "--private-key-file", key, "--authenticator", "SNOWFLAKE_JWT",
                 env=dict(os.environ, HOME=str(folder), SNOWFLAKE_HOME=str(folder))).strip().splitlines()[-1]
    ours = run(given.probe, "jwt", key, ACCOUNT.lower(), USER.lower()).strip()
    for whose, token in (("theirs", theirs), ("ours", ours)):
        try:
            emulator.ask("select 1", token, "KEYPAIR_JWT")
        except Finding as finding:
            raise Finding(f"{whose} is not taken: {finding}") from finding
    parts = [[json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2]] for token in (theirs, ours)]
    (header, claims), (our_header, our_claims) = parts
    for name in ("iss", "sub"):
        if claims[name] != our_claims[name]:
            raise Finding(f"{name}: {claims[name]} and ours {our_claims[name]}")
    if header != our_header:
        raise Finding(f"header: {header} and ours {our_header}")
    if not 0 < our_claims["exp"] - our_claims["iat"] <= 3600:
        raise Finding("our token lives for longer than an hour")
    return f"the CLI's token is taken; issuer {claims['iss'][:24]}… and header are ours too"


CELLS = {
    "number(38,0)": ["0", "12345678901234567890123456789012345678", "-1"],
    "number(38,10)": ["-0.0000000001", "9999999999999999999999999999.9999999999"],
    "number(12,2)": ["-0.01", "1.50"],
    "float": ["1.5e-7", "-0.25", "1e300"],
    "date": ["'1969-12-31'", "'9999-12-31'", "'2024-02-29'"],
    "time": ["'23:02:00.123456'", "'00:00:00'"],
    "timestamp_ntz": ["'1969-12-31 23:59:59.5'", "'2024-02-29 01:02:03.123456'", "'0001-01-01 00:00:00'"],
    "timestamp_tz": ["'2024-01-01 00:00:00 +14:00'", "'1960-06-01 12:00:00.25 -03:30'"],
    "binary": ["'DEADBEEF'", "''"],
    "varchar": ["'it''s \"quoted\" \\\\ ü 😀'", "''"],
    "boolean": ["true", "false"],
}


def cells(given, emulator, folder):
    """Snowflake's own converter reads the answer's cells as our decoder does."""
    from snowflake.connector.converter import SnowflakeConverter

    columns = [(kind, text) for kind, texts in CELLS.items() for text in texts]
    selected = ", ".join(f"{text}::{kind} as C{place}" for place, (kind, text) in enumerate(columns))
    answer = emulator.ask(f"select 1 as ID, {selected}")
    kinds, row = answer["resultSetMetaData"]["rowType"][1:], answer["data"][0][1:]
    ours = json.loads(run(given.probe, "rows", emulator.settings(), hosts(emulator.url), f"select 1 as ID, {selected}"),
                      parse_float=Decimal, parse_int=Decimal)
    converter = SnowflakeConverter()
    converter.set_parameter("TIMEZONE", "UTC")
    for (written, text), kind, cell, place in zip(columns, kinds, row, range(len(row))):
        scale = kind["scale"] or 0
        about = {"scale": scale, "precision": kind["precision"], "max_fraction": 10**scale, "zero_fill": "0" * (9 - min(scale, 9))}
        name = kind["type"].upper()
        convert = getattr(converter, f"_{name}_to_python")(about)
        theirs = cell if convert is None else convert("1" if cell == "true" else "0" if cell == "false" else cell)
        if not same(theirs, ours[f"C{place}"], name):
            raise Finding(f"{text}::{written}: cell {cell!r}, the converter says {theirs!r}, we say {ours[f'C{place}']!r}")
    return f"{len(columns)} cells of {len(CELLS)} types"


def same(theirs, ours, kind):
    match theirs:
        case bool():
            return ours is theirs
        case datetime():
            text = ours.replace("Z", "+00:00") if kind == "TIMESTAMP_TZ" else ours
            return datetime.fromisoformat(text) == theirs
        case date():
            return ours == theirs.isoformat()
        case day_time():
            return day_time.fromisoformat(ours) == theirs
        case bytes() | bytearray():
            return base64.b64decode(ours) == bytes(theirs)
        case int() | Decimal():
            return Decimal(theirs) == ours
        case float():
            return float(ours) == theirs
    return ours == theirs


# In Snowflake's documents, and not in sqlfluff's grammar.
UNKNOWN = ("show primary keys",)


def sql(given, emulator, folder):
    """sqlfluff parses every statement that the client sends."""
    before = len(emulator.statements())
    walk(given, emulator)
    sent = [text for text in emulator.statements()[: -before or None] if "FRESHET" in text.upper() or "SELECT" in text.upper() or "SHOW" in text.upper()]
    sent += ['create stream "A"."B" on table "A"."C" append_only = true show_initial_rows = true']
    sent = [text for text in sent if not text.lower().startswith(UNKNOWN)]
    (folder / "sql").mkdir()
    names = []
    for place, text in enumerate(dict.fromkeys(sent)):
        name = folder / "sql" / f"{place:03}.sql"
        name.write_text(text.rstrip().rstrip(";") + ";\n")
        names.append(name)
    done = subprocess.run([BIN / "sqlfluff", "lint", "--dialect", "snowflake", "--rules", "LT12", "--format", "json", folder / "sql"],
                          capture_output=True, text=True, timeout=300)
    broken = [f"{Path(found['filepath']).read_text()[:200]}: {violation['description'][:200]}"
              for found in json.loads(done.stdout) for violation in found["violations"] if violation["code"] == "PRS"]
    if broken:
        raise Finding("\n".join(broken))
    return f"{len(names)} statements parse; {len(UNKNOWN)} that Snowflake documents and sqlfluff does not know are left out"


def client(given, emulator, folder):
    """Another client of the SQL API reads what the emulator answers."""
    import httpx
    from snowflake_sql_api import SnowflakeClient

    target = httpx.URL(emulator.url)

    class Rerouted(httpx.HTTPTransport):
        def handle_request(self, request):
            request.url = request.url.copy_with(scheme="http", host=target.host, port=target.port)
            return super().handle_request(request)

    key = folder / "client.p8"
    run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
    (folder / "client.pub").write_text(run("openssl", "pkey", "-in", key, "-pubout"))
    emulator.command("set-key", USER, "--slot", "2", str(folder / "client.pub"))
    theirs = SnowflakeClient(account=ACCOUNT.lower(), user=USER, private_key_path=str(key), database="SHOP", schema="PUBLIC",
                             warehouse="COMPUTE_WH", http_client=httpx.Client(transport=Rerouted()))
    rows = theirs.query("select 1 as A, 'x' as B")
    many = theirs.query("select seq4() as N from table(generator(rowcount => 25000))")
    if len(rows) != 1 or len(many) != 25000:
        raise Finding(f"{rows!r}, and {len(many)} rows of 25000")
    return "a row, and 25 000 rows over several partitions"


def described(folder):
    """The official description, with what Snowflake's documents say otherwise mended: its `examples` are literal answers."""
    import yaml

    path = os.environ.get("SNOWFLAKE_SQL_API_SPEC")
    if not path or not Path(path).exists():
        raise Absent("SNOWFLAKE_SQL_API_SPEC does not name the official sqlapi.yaml; it is in Snowflake's repository "
                     "snowflake-rest-api-specs, specifications/sqlapi.yaml, with common.yaml beside it")
    spec = yaml.safe_load(Path(path).read_text())
    (folder / "common.yaml").write_text((Path(path).parent / "common.yaml").read_text())

    def mend(node):
        if isinstance(node, dict):
            properties = node.get("properties") or {}
            properties.get("statementStatusUrl", {}).pop("format", None)
            for name in ("length", "precision", "scale", "byteLength", "uncompressedSize", "compressedSize"):
                if isinstance(properties.get(name), dict):
                    properties[name]["nullable"] = True
            for value in node.values():
                mend(value)
        elif isinstance(node, list):
            for value in node:
                mend(value)

    mend(spec)
    out = folder / "sqlapi.yaml"
    out.write_text(yaml.safe_dump(spec, sort_keys=False))
    return out


def shape(given, emulator, folder):
    """Prism stands between client and emulator and compares each request and answer with the official description."""
    port = free_port()
    log = (folder / "prism.log").open("w")
    prism = subprocess.Popen([given.prism, "proxy", "--errors", "--port", str(port), "--host", "127.0.0.1",
                              described(folder), emulator.url], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > until or prism.poll() is not None:
                    raise Finding((folder / "prism.log").read_text()[-2000:])
                time.sleep(0.2)
        walk(given, emulator, f"http://127.0.0.1:{port}")
    except Finding as finding:
        raise Finding(f"{finding}\n{(folder / 'prism.log').read_text()[-3000:]}")
    finally:
        prism.terminate()
        prism.wait(20)
    told = (folder / "prism.log").read_text()
    wrong = [line for line in told.splitlines() if "violation" in line.lower() or "Request terminated with error" in line]
    if wrong:
        raise Finding("\n".join(wrong[:20]))
    return f"{told.count('[HTTP SERVER]')} lines of traffic, no violation"


def robust(given, emulator, folder):
    """schemathesis throws what the description allows, and what it does not, at the emulator: it never answers 5xx."""
    out = subprocess.run([BIN / "schemathesis", "run", described(folder), "--url", emulator.url, "--checks", "not_a_server_error",
                          "--max-examples", "40", "--seed", "1", "--workers", "2", "--request-timeout", "20", "--no-color",
                          "-H", f"Authorization: Bearer {emulator.token}", "-H", "User-Agent: schemathesis/4"],
                         capture_output=True, text=True, timeout=280)
    if out.returncode:
        raise Finding(out.stdout[-4000:])
    cases = [line.strip() for line in out.stdout.splitlines() if "test cases" in line.lower() or "generated" in line.lower()]
    return f"no answer of 5xx; {cases[-1] if cases else ''}"


ROLES = ("viewer", "operator", "editor", "admin", "owner")


def api(given, _emulator, folder):
    """schemathesis throws what the document of our own API allows, and what it does not, at it, as each role: no 5xx, and no
    answer that the document does not describe."""
    name, port = "foreign_" + secrets.token_hex(6), free_port()
    run(ROOT / "deploy/dev/postgres", "psql", "-c", f"create database {name} owner freshet_owner")
    place = {variable: os.environ[variable].rsplit("/", 1)[0] + "/" + name
             for variable in ("FRESHET_DATABASE_URL", "FRESHET_OWNER_DATABASE_URL")}
    many = {f"FRESHET_API_{kind}_PER_MINUTE": "1000000" for kind in ("READS", "WRITES", "EXPENSIVE")}
    environment = dict(os.environ, **place, **many, FRESHET_API_LISTEN=f"127.0.0.1:{port}", FRESHET_LOG="warn")
    environment["FRESHET_MASTER_KEYS"] = run(given.freshet, "key", "master").strip()
    run(given.freshet, "migrate", env=environment)
    run(given.freshet, "workspace", "create", "acme", env=environment)
    document = folder / "openapi.json"
    document.write_text(run(given.freshet, "openapi"))
    service = subprocess.Popen([given.freshet, "serve"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ready(f"http://127.0.0.1:{port}/readyz")
        count = 0
        for seed, role in enumerate(ROLES, 1):
            made = json.loads(run(given.freshet, "key", "create", "--workspace", "acme", "--role", role, env=environment))
            out = subprocess.run([BIN / "schemathesis", "--config-file", HERE / "schemathesis.toml", "run", document,
                                  "--url", f"http://127.0.0.1:{port}", "-H", f"Authorization: Bearer {made['key']}",
                                  "--seed", str(seed), "--workers", "1", "--max-examples", "6", "--request-timeout", "30",
                                  "--phases", "coverage,fuzzing", "--no-color"], capture_output=True, text=True, timeout=280)
            if out.returncode:
                raise Finding(f"as {role}: {out.stdout.partition('= FAILURES =')[2] or out.stdout[-6000:]}{out.stderr[-1000:]}")
            count += int(re.search(r"(\d+) generated", out.stdout).group(1))
    finally:
        service.terminate()
        service.wait(30)
    if count < 5_000:
        raise Finding(f"only {count} requests: too few to say anything")
    return f"{count} requests as {', '.join(ROLES)}: no answer of 5xx, none outside the document"


def ready(url):
    for _ in range(150):
        try:
            with urllib.request.urlopen(url):
                return
        except OSError:
            time.sleep(0.2)
    raise Finding(f"{url} does not answer")


CHECKS = {check.__name__: check for check in (jwt, cells, sql, client, shape, robust, api)}


def main():
    arguments = argparse.ArgumentParser()
    for name in ("emulator", "probe", "prism", "freshet"):
        arguments.add_argument(f"--{name}", required=True)
    arguments.add_argument("names", nargs="*", choices=[*CHECKS, []])
    given = arguments.parse_args()
    failed = absent = 0
    with tempfile.TemporaryDirectory() as folder:
        emulator = Emulator(given.emulator)
        try:
            for name in given.names or CHECKS:
                since = time.monotonic()
                try:
                    verdict, told = "ok", CHECKS[name](given, emulator, Path(folder))
                except Absent as missing:
                    verdict, told, absent = "ABSENT", str(missing), absent + 1
                except Exception as finding:   # The others go on.
                    verdict, told, failed = "WRONG", f"{type(finding).__name__}: {finding}", failed + 1
                print(f"{name:<8} {verdict:<7} {time.monotonic() - since:5.1f} s  {told}", flush=True)
        finally:
            emulator.process.terminate()
            emulator.process.wait(10)
    print(f"{failed} wrong, {absent} absent")
    sys.exit(1 if failed or absent and given.names else 0)


main()
