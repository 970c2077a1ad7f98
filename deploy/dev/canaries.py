#!/usr/bin/env python3
"""The canaries themselves; deploy/canaries starts what they need.

A secret is a text that nobody else has. Each is used where it belongs, and where people put such texts by mistake; then every place
that something came out at is searched for it in every form. A secret that is shown once by design names that answer, which
is kept apart. What is sealed or hashed is another text and is not found, as it should be.
"""

import argparse
import base64
import glob
import gzip
import html
import json
import os
import re
import secrets
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import hashlib
import hmac
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
from kafka import KafkaConsumer, TopicPartition

HERE = Path(__file__).parent


# Secrets and the forms in which they would be found.

class Canaries:
    def __init__(self):
        self.texts = {}

    def new(self, name, text=None):
        """A secret of this name: drawn, or one that was given to us."""
        text = text or "canary" + secrets.token_hex(12)
        self.texts.setdefault(name, []).append(text)
        return text


def forms(text):
    """Every form of a text that is searched for, by name."""
    raw = text.encode()
    found = {"plain": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode(),
             "URL": urllib.parse.quote(text, safe="").encode(), "URL, all": "".join(f"%{byte:02X}" for byte in raw).encode(),
             "JSON": json.dumps(text)[1:-1].encode(), "HTML": html.escape(text).encode()}
    for offset in range(3):
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            # What stands before and after is not known: the letters that hold bits of it are left out.
            encoded = encode(b"\0" * offset + raw).rstrip(b"=")
            cut = {0: 0, 1: 2, 2: 3}[offset]
            found[f"{name} {offset}"] = encoded[cut:-1] if (offset + len(raw)) % 3 else encoded[cut:]
    return found


def hits(text, haystack):
    return sum(haystack.count(form) for form in set(forms(text).values()))


# What came out, by place.

class Places:
    def __init__(self):
        self.bytes = {}

    def add(self, place, data):
        data = data if isinstance(data, bytes) else data.encode()
        self.bytes.setdefault(place, bytearray()).extend(data + b"\n")


class Caller:
    """A program or a browser that writes down whatever it is answered."""

    def __init__(self, url, places, place, headers=None):
        self.url, self.places, self.place = url, places, place
        self.headers, self.cookie = headers or {}, None

    def send(self, method, path, data=None, once=False, **headers):
        request = urllib.request.Request(self.url + path, data=data, method=method)
        for name, value in {**self.headers, **headers}.items():
            request.add_header(name.replace("_", "-"), value)
        if self.cookie:
            request.add_header("Cookie", self.cookie)
        opener = urllib.request.build_opener(NoRedirect)
        try:
            answer = opener.open(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        text = answer.read().decode()
        told = [(name, value) for name, value in answer.headers.items() if name.lower() != "set-cookie"]
        if not once:
            self.places.add(self.place, f"{answer.status} {told}\n{text}")
        for cookie in answer.headers.get_all("set-cookie") or []:
            self.cookie = cookie.split(";")[0]
        return answer.status, text, answer.headers

    def call(self, method, path, body=None, once=False, expect=(200, 201, 202, 204), **headers):
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers.setdefault("Content_Type", "application/json")
        status, text, _ = self.send(method, path, data, once, **headers)
        if expect and status not in expect:
            sys.exit(f"{method} {path}: {status} {text}")
        return json.loads(text or "null") if text[:1] in "{[n" else text

    def form(self, page, action, once=False, **typed):
        """Fills a form of a page and sends it."""
        start = page.index(f'action="{action}"')
        inputs = re.findall(r"<input[^>]*>", page[start:page.index("</form>", start)])
        fields = {}
        for tag in inputs:
            name, value = (re.search(rf' {attribute}="([^"]*)"', tag) for attribute in ("name", "value"))
            if name:
                fields[name[1]] = html.unescape(value[1]) if value else ""
        data = urllib.parse.urlencode({**fields, **typed}).encode()
        return self.send("POST", action, data, once, Sec_Fetch_Site="same-origin",
                         Content_Type="application/x-www-form-urlencoded")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


class Post(socketserver.ThreadingTCPServer):
    """Takes mail, with whatever login."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), PostHandler)
        self.mails = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def word(self, address, count):
        until = time.monotonic() + 30
        while time.monotonic() < until:
            mails = [mail for to, mail in self.mails if address in to]
            if len(mails) >= count:
                mail = mails[-1].replace("=\r\n", "").replace("=3D", "=")
                return re.search(r"word=([A-Za-z0-9_-]+)", mail)[1]
            time.sleep(0.1)
        sys.exit(f"no mail came for {address}")


class PostHandler(socketserver.StreamRequestHandler):
    def handle(self):
        say = lambda text: self.wfile.write(text.encode() + b"\r\n")
        say("220 post")
        to = ""
        while line := self.rfile.readline().decode().strip():
            word = line.split()[0].upper()
            if word == "EHLO":
                say("250-post\r\n250 AUTH PLAIN LOGIN")
            elif word == "AUTH":
                say("235 in")
            elif word == "RCPT":
                to += line
                say("250 ok")
            elif word == "DATA":
                say("354 go on")
                mail = ""
                while (part := self.rfile.readline().decode()) != ".\r\n":
                    mail += part
                self.server.mails.append((to, mail))
                say("250 taken")
            elif word == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


class Site(ThreadingHTTPServer):
    """A server of somebody else's."""

    daemon_threads = True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def asked(self):
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def answer(self, status, body, kind="application/json"):
        body = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Collector(Site):
    """Takes traces; at first it refuses them, and says all that it was told."""

    def __init__(self):
        self.spans, self.headers, self.refusals = bytearray(), set(), 3
        super().__init__(CollectorHandler)


class CollectorHandler(Answers):
    def do_POST(self):
        body, collector = self.asked(), self.server
        collector.spans += gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        collector.headers.update(self.headers.values())
        collector.refusals -= 1
        self.answer(400 if collector.refusals >= 0 else 200, str(self.headers) if collector.refusals >= 0 else b"", "application/x-protobuf")


def base64url(data):
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer(Site):
    """Vouches for people, and repeats whatever it is told to whoever asks. `says` is how it answers a code."""

    def __init__(self, folder, canaries):
        self.canaries, self.says, self.nonce, self.told = canaries, "", "", []
        self.key = folder / "issuer.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.key], check=True, capture_output=True)
        told = subprocess.run(["openssl", "rsa", "-in", self.key, "-noout", "-modulus"], check=True, capture_output=True, text=True).stdout
        self.modulus = base64url(bytes.fromhex(told.strip().split("=")[1]))
        super().__init__(IssuerHandler)

    def token(self):
        """An ID token that is as it should be; whoever has it has its signature."""
        now = int(time.time())
        claims = {"iss": self.url, "sub": "7", "aud": "freshet", "nonce": self.nonce, "iat": now, "exp": now + 300,
                  "email": "gus@acme.example", "email_verified": True, "name": "Gus"}
        signed = f"{base64url({'alg': 'RS256', 'kid': 'one'})}.{base64url(claims)}"
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=signed.encode(), check=True, capture_output=True).stdout
        return f"{signed}.{self.canaries.new('ID token', base64url(signature))}"


class IssuerHandler(Answers):
    def do_GET(self):
        issuer = self.server
        if self.path == "/.well-known/openid-configuration":
            self.answer(200, {"issuer": issuer.url, "authorization_endpoint": f"{issuer.url}/authorize", "token_endpoint": f"{issuer.url}/token",
                              "jwks_uri": f"{issuer.url}/keys", "response_types_supported": ["code"], "subject_types_supported": ["public"],
                              "id_token_signing_alg_values_supported": ["RS256"]})
        elif self.path == "/keys":
            self.answer(200, {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "one", "n": issuer.modulus, "e": "AQAB"}]})
        else:
            self.answer(500, {"message": str(self.headers)})

    def do_POST(self):
        issuer, new = self.server, self.server.canaries.new
        body = self.asked().decode()
        login = self.headers.get("authorization", "")
        told = f"{base64.b64decode(login.removeprefix('Basic ')).decode()} {body}"
        issuer.told.append(told)
        bearer = lambda: new("issuer's access token")
        if issuer.says == "refuses":
            self.answer(401, {"error": "invalid_client", "error_description": f"{login} {told}", "error_uri": f"https://acme.example/?{body}"})
        elif issuer.says == "breaks off":
            self.answer(200, f'{{"access_token": "{bearer()}", ')
        elif issuer.says == "no token":
            self.answer(200, {"access_token": bearer(), "token_type": "Bearer", "id_token": f"{base64url({'alg': 'RS256'})}.{new('ID token, broken')}.x"})
        elif issuer.says == "another number":
            self.answer(200, {"access_token": bearer(), "token_type": "Bearer", "expires_in": new("issuer's token, as a number"), "id_token": issuer.token()})
        else:
            self.answer(200, {"access_token": bearer(), "token_type": "Bearer", "refresh_token": new("issuer's refresh token"), "id_token": issuer.token()})


def totp(secret, at):
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.new(key, int(at // 30).to_bytes(8, "big"), hashlib.sha1).digest()
    place = digest[-1] & 15
    return f"{(int.from_bytes(digest[place:place + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class CommandLines(threading.Thread):
    """Looks at every process's command line again and again."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen, self.over = set(), threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.05):
            for path in glob.glob("/proc/[0-9]*/cmdline"):
                try:
                    self.seen.add(Path(path).read_bytes())
                except OSError:
                    pass

    def show(self, text):
        """Runs a process with `text` among its arguments until it is seen, or for a minute."""
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", text])
        while process.poll() is None and not any(text.encode() in line for line in list(self.seen)):
            time.sleep(0.05)
        process.kill()
        process.wait()


class Scene:
    """An installation with a source, a cluster, a warehouse and a post office."""

    def __init__(self, given, folder):
        self.given, self.folder = given, Path(folder)
        self.canaries, self.places, self.logs = Canaries(), Places(), []
        self.admin = os.environ["FRESHET_TEST_DATABASE_URL"]
        self.server, self.processes = self.admin.rsplit("/", 1)[0], []
        self.databases, self.roles = [], []
        self.post, self.collector = Post(), Collector()
        # No secret: it goes the ways of names, paths, arguments and rows, and must be found wherever those come out.
        self.open = "canary" + secrets.token_hex(12)

    def program(self, *command, environment=None):
        done = subprocess.run(command, env=environment or self.environment, capture_output=True, text=True)
        self.places.add("logs", done.stderr)
        if done.returncode:
            sys.exit(f"{command[1]}: {done.stderr}")
        return done.stdout.strip()

    def start(self, name, *command, environment):
        log = self.folder / f"{name}.log"
        self.logs.append(log)
        process = subprocess.Popen(command, env=environment, stdout=log.open("ab"), stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process

    def set_up(self):
        new = self.canaries.new
        consumer, self.ends = self.cluster()
        consumer.close()
        suffix = secrets.token_hex(4)
        self.database, self.source = f"test_canaries_{suffix}", f"source_canaries_{suffix}"
        own, reader = new("Freshet's database password"), new("source's password")
        parts = urllib.parse.urlsplit(self.admin)
        self.host, self.port = parts.hostname, parts.port
        with psycopg.connect(self.admin, autocommit=True) as admin:
            for database, more in ((self.database, " owner freshet_owner"), (self.source, "")):
                self.databases.append(database)
                admin.execute(f"create database {database}{more}")
            for role, password in ((f"own_{suffix}", own), (f"reader_{suffix}", reader)):
                self.roles.append(role)
                admin.execute(f"create role {role} login password '{password}'")
            admin.execute(f"grant freshet_app to own_{suffix}")
        self.reader = (f"reader_{suffix}", reader)
        with psycopg.connect(f"{self.server}/{self.source}", autocommit=True) as source:
            source.execute("create table orders (id int primary key, name text)")
            source.execute("insert into orders select n, 'order ' || n from generate_series(1, 500) as n")
            source.execute("insert into orders values (501, %s), (502, %s)", (self.open, new("a row's value")))
            source.execute(f"grant select on orders to reader_{suffix}")
        for name in ("api", "worker"):
            setattr(self, f"{name}_metrics", f"127.0.0.1:{free_port()}")
        listen = f"127.0.0.1:{free_port()}"
        self.url = f"http://{listen}"
        emulator = f"emulator_canaries_{suffix}"
        self.databases.append(emulator)
        with psycopg.connect(self.admin, autocommit=True) as admin:
            admin.execute(f"create database {emulator}")
        self.emulator = ["--database-url", f"{self.server}/{emulator}"]
        plain = dict(os.environ, RUST_LOG="error")
        started = subprocess.Popen([self.given.emulator, "serve", *self.emulator], env=plain, stdout=subprocess.PIPE, text=True)
        self.processes.append(started)
        self.warehouse = started.stdout.readline().strip()
        smtp = new("SMTP password")
        self.environment = dict(
            {name: value for name, value in os.environ.items() if not name.startswith("FRESHET_") or name == "FRESHET_EGRESS_ALLOW"},
            FRESHET_DATABASE_URL=f"postgres://own_{suffix}:{own}@{self.host}:{self.port}/{self.database}",
            FRESHET_SMTP_URL=f"smtp://freshet:{smtp}@127.0.0.1:{self.post.server_address[1]}", FRESHET_MAIL_FROM="freshet@acme.example",
            FRESHET_SIGN_UP="open", FRESHET_LOG="debug", FRESHET_LOG_FORMAT="json", FRESHET_POLL_MS="100", FRESHET_LEASE_S="5",
            FRESHET_RETRY_BASE_S="0.2", FRESHET_RETRY_FRUITLESS_MAX="2", FRESHET_API_LISTEN=listen,
            FRESHET_API_WRITES_PER_MINUTE="10000", FRESHET_API_READS_PER_MINUTE="10000", FRESHET_API_EXPENSIVE_PER_MINUTE="10000",
            FRESHET_SNOWFLAKE_HOSTS=self.warehouse.removeprefix("http://"),
            FRESHET_OTLP_ENDPOINT=self.collector.url, FRESHET_OTLP_HEADERS=f"authorization=Bearer {new('OTLP header')},x-team={new('OTLP header')}")
        owner = os.environ["FRESHET_OWNER_DATABASE_URL"].rsplit("/", 1)[0] + f"/{self.database}"
        self.program(self.given.freshet, "migrate", environment=dict(self.environment, FRESHET_OWNER_DATABASE_URL=owner))
        keys = self.program(self.given.freshet, "key", "master")
        self.master_key(keys)
        self.keys_file = self.folder / "master.keys"
        self.keys_file.write_text(keys + "\n")
        self.environment["FRESHET_MASTER_KEYS_FILE"] = str(self.keys_file)
        for role in ("api", "worker"):
            self.start(role, self.given.freshet, role, environment=dict(
                self.environment, FRESHET_METRICS_LISTEN=getattr(self, f"{role}_metrics")))
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.url + "/readyz", timeout=2)
                break
            except OSError:
                if time.monotonic() > until:
                    sys.exit((self.folder / "api.log").read_text()[-3000:])
                time.sleep(0.1)

    def master_key(self, line):
        text = line.split("=", 1)[1]
        self.canaries.new("master key", text)
        self.canaries.new("master key", base64.b64decode(text).hex())

    def answered(self, api, operation):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            found = api.call("GET", f"/v1/operations/{operation['id']}")
            if found["state"] not in ("pending", "running"):
                return found
            time.sleep(0.1)
        sys.exit(f"an operation was not answered: {operation}")

    # The day.

    def people(self):
        """Set-up, sign-in, second factor, reset, invitation, tokens, each with mistakes."""
        new = self.canaries.new
        word = self.program(self.given.freshet, "user", "set-up-word")
        new("set-up word", word)
        browser = Caller(self.url, self.places, "pages")
        password = new("password")
        _, page, _ = browser.send("GET", "/set-up")
        browser.form(page, "/set-up", word=new("set-up word, wrong"), email="ada@acme.example", name="Ada", password=new("password, refused"), organization="Acme")
        # As weak as it gets, and still nobody's business.
        browser.form(page, "/set-up", word=word, email="ada@acme.example", name="Ada", password=("canary" * 9)[:54], organization="Acme")
        status, text, _ = browser.form(page, "/set-up", word=word, email="ada@acme.example", name=self.open, password=password, organization="Acme")
        if status != 303:
            sys.exit(text)
        new("session", browser.cookie.split("=", 1)[1])
        for _ in range(2):
            _, page, _ = browser.send("GET", "/sign-in")
            browser.form(page, "/sign-in", email="ada@acme.example", password=new("password, wrong"))
        # A password where the address should be: the page gives back what was typed, to who typed it, and nothing else keeps it.
        browser.form(page, "/sign-in", once=True, email=new("password typed as an address"), password="x")
        browser.form(page, "/sign-in", email="ada@acme.example", password=password)
        new("session", browser.cookie.split("=", 1)[1])
        # The second factor: its page shows the secret, once.
        _, page, _ = browser.send("GET", "/account/second-factor", once=True)
        secret = re.search(r'<code class="secret">([^<]*)', page)[1]
        new("TOTP secret", secret)
        new("TOTP secret", base64.b32decode(secret + "=" * (-len(secret) % 8)).hex())
        browser.form(page, "/account/second-factor", once=True, code="000000")
        _, page, _ = browser.send("GET", "/account/second-factor", once=True)
        secret = re.search(r'<code class="secret">([^<]*)', page)[1]
        new("TOTP secret", secret)
        _, page, _ = browser.form(page, "/account/second-factor", once=True, code=totp(secret, time.time()))
        recovery = re.findall(r"<li><code>([^<]*)", page)
        for code in recovery[:3]:
            new("recovery code", code)
        _, page, _ = browser.send("GET", "/sign-in")
        browser.form(page, "/sign-in", email="ada@acme.example", password=password)
        new("session, half", browser.cookie.split("=", 1)[1])
        _, page, _ = browser.send("GET", "/second-factor")
        browser.form(page, "/second-factor", code=new("recovery code, wrong")[:20] + "-x")
        status, text, _ = browser.form(page, "/second-factor", code=recovery[0])
        if status != 303:
            sys.exit(text)
        new("session", browser.cookie.split("=", 1)[1])
        _, page, _ = browser.send("GET", "/account")
        _, page, _ = browser.form(page, "/account/tokens", once=True, name="notebook", days="30")
        token = re.search(r'<code class="secret">([^<]*)', page)[1]
        new("personal token", token)
        new("personal token", token.split("_")[3])
        # Reset: a word that is known, and one that is not.
        _, page, _ = browser.send("GET", "/forgot")
        browser.form(page, "/forgot", email="ada@acme.example")
        reset = self.post.word("ada@acme.example", 1)
        new("reset word", reset)
        for word in (new("reset word, wrong"), reset):
            status, page, _ = browser.send("GET", f"/reset?word={word}", once=True)
            browser.form(page, "/reset", once=True, word=word, password=new("password"))
        # The link that a person without mail would be given, by the command line.
        linked = self.program(self.given.freshet, "user", "reset-password", "ada@acme.example")
        new("reset word", linked.split("word=")[1])
        # A sign-up, its proof, an invitation.
        _, page, _ = browser.send("GET", "/sign-up")
        browser.form(page, "/sign-up", email="eve@acme.example", name="Eve", password=new("password"), organization="Eve's")
        verify = self.post.word("eve@acme.example", 1)
        new("verification word", verify)
        _, page, _ = browser.send("GET", f"/verify?word={verify}", once=True)
        browser.form(page, "/verify", once=True, word=verify)
        person = Caller(self.url, self.places, "answers", {"Authorization": f"Bearer {token}"})
        person.call("POST", "/v1/invitations", {"email": "bob@acme.example", "role": "admin"})
        invitation = self.post.word("bob@acme.example", 1)
        new("invitation word", invitation)
        guest = Caller(self.url, self.places, "pages")
        _, page, _ = guest.send("GET", f"/invitation?word={invitation}", once=True)
        guest.form(page, "/invitation", once=True, word=invitation, name="Bob", password=new("password"))
        guest.send("GET", f"/invitation?word={new('invitation word, wrong')}", once=True)
        self.program(self.given.freshet, "workspace", "create", "canaries")
        return person

    def keys(self):
        """Keys that work, are rolled, are wrong; an answer that is given again."""
        new = self.canaries.new
        made = json.loads(self.program(self.given.freshet, "key", "create", "--workspace", "canaries"))
        new("API key", made["key"])
        new("API key", made["key"].split("_")[3])
        api = Caller(self.url, self.places, "answers", {"Authorization": f"Bearer {made['key']}"})
        account = api.call("POST", "/v1/service-accounts", {"name": "robot"})["id"]
        body, key = {"service_account_id": account, "scopes": ["runs:read"]}, {"Idempotency_Key": "k-1"}
        first = api.call("POST", "/v1/api-keys", body, once=True, **key)
        new("API key", first["secret"])
        api.call("POST", "/v1/api-keys", body, **key)
        rolled = api.call("POST", f"/v1/api-keys/{first['id']}/roll", {}, once=True)
        new("API key", rolled["secret"])
        wrong = "fr_live_" + secrets.token_hex(4) + "_" + new("API key, wrong") + "_AAAAAA"
        for header in (f"Bearer {wrong}", f"Basic {base64.b64encode(wrong.encode()).decode()}", wrong):
            api.call("GET", "/v1/syncs", expect=(401,), Authorization=header)
        api.call("GET", f"/oauth/callback?code={new('OAuth code')}&state={new('OAuth state, wrong')}", expect=None)
        return api

    def connections(self, api):
        """Every secret of every connector: kept, changed, wrong in value, in form and in type."""
        new = self.canaries.new
        user, password = self.reader
        key = subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], capture_output=True, text=True).stdout
        phrase = new("Snowflake passphrase")
        # By its standard input: a command line is a place that is searched.
        folder = self.folder
        (folder / "key.pem").write_text(key)
        (folder / "phrase").write_text(phrase)
        sealed = subprocess.run(["openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", folder / "key.pem", "-passout", f"file:{folder / 'phrase'}"],
                                capture_output=True, text=True).stdout
        for line in (key.splitlines()[5], sealed.splitlines()[5]):
            new("Snowflake private key", line)
        tls_key = subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], capture_output=True, text=True).stdout
        new("Kafka TLS key", tls_key.splitlines()[1])
        broken = lambda name: f"-----BEGIN PRIVATE KEY-----\n{new(name)}\n-----END PRIVATE KEY-----\n"
        postgres = {"host": self.host, "port": self.port, "database": self.source, "user": user, "password": password, "tls": {"mode": "require"}}
        warehouse = {"account": "emulator-account", "host": self.warehouse, "user": "LOADER", "database": "SHOP", "warehouse": "COMPUTE_WH"}
        made, refused = {}, 0
        kinds = {
            "connections": [
                ("postgres", "shop", postgres),
                ("postgres", "wrong password", {**postgres, "password": new("source's password, wrong")}),
                ("postgres", "nobody there", {**postgres, "host": "nowhere.invalid", "password": new("source's password, wrong")}),
                ("postgres", "closed port", {**postgres, "port": free_port(), "password": new("source's password, wrong")}),
                ("postgres", "bad key", {**postgres, "tls": {"mode": "require", "certificate": "x", "key": broken("source's TLS key, broken")}}),
                ("snowflake", "pair", {**warehouse, "sign_in": {"kind": "key_pair", "private_key": sealed, "passphrase": phrase}}),
                ("snowflake", "wrong passphrase", {**warehouse, "sign_in": {"kind": "key_pair", "private_key": sealed, "passphrase": new("Snowflake passphrase, wrong")}}),
                ("snowflake", "bad pair", {**warehouse, "sign_in": {"kind": "key_pair", "private_key": broken("Snowflake private key, broken")}}),
                ("snowflake", "token", {**warehouse, "sign_in": {"kind": "access_token", "token": new("Snowflake token")}}),
                ("snowflake", "consent", {**warehouse, "sign_in": {"kind": "oauth", "client_id": "freshet", "client_secret": new("OAuth client secret"),
                                                                    "refresh_token": new("OAuth refresh token")}}),
                ("postgres", "a number", {**postgres, "port": new("source's password, as a port")}),
                ("postgres", "a list", {**postgres, "password": [new("source's password, in a list")]}),
                ("postgres", "another field", {**postgres, "passwort": new("source's password, misspelt")}),
            ],
            "destinations": [
                ("kafka", "cluster", {"bootstrap_servers": os.environ["FRESHET_TEST_KAFKA"], "security": {"protocol": "plaintext"}}),
                ("kafka", "wrong login", {"bootstrap_servers": os.environ["FRESHET_TEST_KAFKA_SASL"],
                                          "security": {"protocol": "sasl_plaintext", "mechanism": "SCRAM-SHA-512", "username": "admin", "password": new("Kafka password, wrong")}}),
                ("kafka", "wrong login, plain", {"bootstrap_servers": os.environ["FRESHET_TEST_KAFKA_SASL"],
                                                 "security": {"protocol": "sasl_plaintext", "mechanism": "PLAIN", "username": "admin", "password": new("Kafka password, wrong")}}),
                ("kafka", "nobody there", {"bootstrap_servers": f"127.0.0.1:{free_port()}",
                                           "security": {"protocol": "sasl_tls", "mechanism": "PLAIN", "username": "admin", "password": new("Kafka password")}}),
                ("kafka", "bad key", {"bootstrap_servers": "k:1", "security": {"protocol": "tls", "certificate": "x", "key": broken("Kafka TLS key, broken")}}),
                ("kafka", "keyed", {"bootstrap_servers": os.environ["FRESHET_TEST_KAFKA_MTLS"],
                                    "security": {"protocol": "tls", "certificate": Path(os.environ["FRESHET_TEST_KAFKA_CERTS"], "ca.pem").read_text(), "key": tls_key}}),
            ],
        }
        for noun, all_of in kinds.items():
            for kind, name, settings in all_of:
                found = api.call("POST", f"/v1/{noun}", {"kind": kind, "name": name, "settings": settings}, expect=None,
                                 Idempotency_Key=f"{noun} {name}")
                if "id" not in found:
                    refused += 1
                    continue
                made[name] = found["id"]
                api.call("GET", f"/v1/{noun}/{found['id']}")
                self.answered(api, api.call("POST", f"/v1/{noun}/{found['id']}/test", None))
        patch = {"settings": {"password": new("source's password, replaced")}}
        _, _, headers = api.send("GET", f"/v1/connections/{made['closed port']}")
        api.call("PATCH", f"/v1/connections/{made['closed port']}", patch, If_Match=headers["etag"])
        # Bodies that break off, of another kind, too large, and a secret where a query should be.
        torn = new("source's password, in a torn body")
        api.send("POST", "/v1/connections", f'{{"kind": "postgres", "settings": {{"password": "{torn}", '.encode(), Content_Type="application/json")
        api.send("POST", "/v1/connections", f"password={new('source password, as a form')}".encode(), Content_Type="application/x-www-form-urlencoded")
        api.send("POST", "/v1/connections", f'{{"password": "{new("source password, in a large body")}", "x": "{"x" * (2 << 20)}"}}'.encode(), Content_Type="application/json")
        api.send("GET", f"/v1/connections?limit={new('a secret, in a query')}")
        drawn = api.call("POST", f"/v1/connections/{made['bad pair'] if 'bad pair' in made else made['pair']}/key-pair", {})
        if "PRIVATE" in json.dumps(drawn):
            sys.exit("a private key was shown")
        if refused < 5 or len(made) < 10:
            sys.exit(f"{refused} refused, {len(made)} made: the day was another than planned")
        return made

    def issuers(self, person):
        """Issuers with the secrets of their clients, kept, changed and wrong; sign-ins that fail in every way, and one that does not."""
        new = self.canaries.new
        issuer = Issuer(self.folder, self.canaries)
        slug = person.call("GET", "/v1/organization")["slug"]
        self.program(self.given.freshet, "domain", "verify", slug, "acme.example")
        body = {"name": self.open, "kind": "oidc", "issuer": issuer.url, "client_id": "freshet", "client_secret": new("client secret of a sign-in"),
                "domains": ["acme.example"], "default_role": "viewer"}
        connection = person.call("POST", "/v1/sso-connections", body, Idempotency_Key="sso")["id"]
        for wrong in ({"client_secret": [new("client secret of a sign-in, in a list")]}, {"client_secert": new("client secret of a sign-in, misspelt")},
                      {"default_role": new("client secret of a sign-in, as a role")}, {"domains": [new("client secret of a sign-in, as a domain")]},
                      {"issuer": f"https://freshet:{new('client secret of a sign-in, in an address')}@acme.example"},
                      {"client_secret": (new("client secret of a sign-in, too long") + "/") * 99}):
            status, _, _ = person.send("POST", "/v1/sso-connections", json.dumps({**body, "name": "wrong", **wrong}).encode(),
                                       Content_Type="application/json", Idempotency_Key=f"sso {secrets.token_hex(4)}")
            if status not in (400, 422):
                sys.exit(f"a sign-in with {list(wrong)} wrong: {status}")
        _, _, headers = person.send("GET", f"/v1/sso-connections/{connection}")
        kept = new("client secret of a sign-in")
        person.call("PATCH", f"/v1/sso-connections/{connection}", {"client_secret": kept}, If_Match=headers["etag"])
        # The other kind sends the client's secret in the body, and asks with a token afterwards.
        other = {**body, "name": "other", "kind": "github", "domains": [], "client_secret": new("client secret of a sign-in")}
        github = person.call("POST", "/v1/sso-connections", other)["id"]
        for of, says, wanted in ((connection, "refuses", 422), (connection, "breaks off", 422), (connection, "no token", 422),
                                 (connection, "another number", 422), (github, "a token", 502), (connection, "a token", 303)):
            browser = Caller(self.url, self.places, "pages")
            _, _, headers = browser.send("GET", f"/sso/start?connection={of}")
            way = browser.cookie
            new("sign-in on its way", way.split("=", 1)[1])
            asked = urllib.parse.parse_qs(urllib.parse.urlsplit(headers["location"]).query)
            issuer.says, issuer.nonce = says, asked.get("nonce", [""])[0]
            code, state = new("issuer's code"), asked["state"][0]
            browser.send("GET", f"/sso/callback?code={new('issuer code, wrong')}&state={new('sign-in state, wrong')}")
            status, text, headers = Caller(self.url, self.places, "pages", {"Cookie": f"fr_s={new('session, wrong')}; {way}"}).send(
                "GET", f"/sso/callback?code={code}&state={state}")
            if status != wanted:
                sys.exit(f"the issuer {says}: {status} {text}")
        for cookie in headers.get_all("set-cookie") or []:
            if cookie.startswith("fr_s="):
                new("session", cookie.split(";")[0].split("=", 1)[1])
        if sum(kept in told for told in issuer.told) < 5 or not any(other["client_secret"] in told for told in issuer.told):
            sys.exit(f"the secrets of the sign-ins were not used: {len(issuer.told)}")

    def turnover(self):
        """Another master key while everything runs; files that cannot be used."""
        new, first = self.canaries.new, self.keys_file.read_text()
        line = self.program(self.given.freshet, "key", "master", "--name", "second")
        self.master_key(line)
        good = f"{line}\n{first}"
        self.keys_file.write_text(good)
        self.wait("the master key was not turned over", lambda: self.wrapped_by("second"))
        for text in (f"third={new('master key, no base64')}!\n", f"{new('master key, without a name')}\n", f"second={new('master key, another of a name')}\n",
                     f"second={base64.b64encode(secrets.token_bytes(32)).decode()}\n"):
            if text.startswith("second="):
                new("master key, another of a name", text.strip().split("=", 1)[1])
            self.keys_file.write_text(text)
            for role in ("api", "worker"):
                self.wait(f"the {role} takes a file that cannot be used", lambda: self.refused(role, 1))
            done = subprocess.run([self.given.freshet, "doctor"], env=self.environment, capture_output=True, text=True, timeout=60)
            self.places.add("logs", done.stdout + done.stderr)
            self.keys_file.write_text(good)
            for role in ("api", "worker"):
                self.wait(f"the {role} does not take its file again", lambda: self.refused(role, 0))

    def wait(self, told, holds):
        until = time.monotonic() + 30
        while not holds():
            if time.monotonic() > until:
                sys.exit(told)
            time.sleep(0.2)

    def wrapped_by(self, name):
        """Whether this master key, and no other, wraps the secrets."""
        told = json.loads(self.program(self.given.freshet, "key", "status"))
        return not told["to_rewrap"] and any(key["name"] == name and key["secrets"] > 5 for key in told["keys"])

    def refused(self, role, value):
        with urllib.request.urlopen(f"http://{getattr(self, f'{role}_metrics')}/metrics") as told:
            return re.search(rf"^freshet_master_keys_refused {value}(\.0)?$", told.read().decode(), re.M) is not None

    def runs(self, api, made):
        """A run that delivers, and one whose login was taken away."""
        topic = f"canaries.{secrets.token_hex(4)}"
        model = api.call("POST", "/v1/models", {"connection_id": made["shop"], "name": "orders",
                                                "spec": {"kind": "table", "schema": "public", "table": "orders"}})
        self.answered(api, model["describe_operation"])
        sync = api.call("POST", "/v1/syncs", {"name": "out", "model_id": model["id"], "destination_id": made["cluster"],
                                              "config": {"topic": {"name": topic, "create": {"partitions": 1}}}})["id"]
        api.call("POST", f"/v1/syncs/{sync}/activate", None)
        states = []
        for _ in range(2):
            run = api.call("POST", f"/v1/syncs/{sync}/runs", None)["id"]
            until = time.monotonic() + 60
            while (found := api.call("GET", f"/v1/runs/{run}"))["state"] not in ("succeeded", "failed", "cancelled") and time.monotonic() < until:
                time.sleep(0.2)
            states.append(found["state"])
            for part in ("events", "attempts", "partitions", "queries"):
                api.call("GET", f"/v1/runs/{run}/{part}")
            _, _, headers = api.send("GET", f"/v1/connections/{made['shop']}")
            wrong = {"settings": {"password": self.canaries.new("source's password, wrong")}}
            api.call("PATCH", f"/v1/connections/{made['shop']}", wrong, If_Match=headers["etag"])
        if states != ["succeeded", "failed"]:
            sys.exit(f"the runs ended {states}")
        return topic

    def doors(self):
        """Programs that are started with secrets that are wrong."""
        new = self.canaries.new
        files = [self.folder / name for name in ("torn.keys", "nameless.keys")]
        files[0].write_text(f"main={new('master key, no base64')}!\n")
        files[1].write_text(f"{new('master key, without a name')}\n")
        for setting, text in (
            ("FRESHET_DATABASE_URL", f"postgres://freshet_app:{new('database password, wrong')}@{self.host}:{self.port}/{self.database}"),
            ("FRESHET_DATABASE_URL", f"postgres://freshet_app:{new('database password, in a torn URL')}@"),
            ("FRESHET_MASTER_KEYS", f"main={new('master key, no base64')}!"),
            ("FRESHET_MASTER_KEYS", new("master key, without a name")),
            ("FRESHET_MASTER_KEYS_FILE", str(files[0])),
            ("FRESHET_MASTER_KEYS_FILE", str(files[1])),
            ("FRESHET_OTLP_HEADERS", new("OTLP header, without a name")),
            ("FRESHET_OTLP_HEADERS", f"authorization=Bearer {new('OTLP header, of two lines')}\nx"),
            ("FRESHET_OTLP_HEADERS", f"a name={new('OTLP header, of no name')}"),
            ("FRESHET_OTLP_ENDPOINT", f"http//freshet:{new('OTLP password, in a torn URL')}@host"),
            ("FRESHET_SMTP_URL", f"smtp//freshet:{new('SMTP password, in a torn URL')}@host"),
            ("FRESHET_LEASE_S", new("a secret, as a number")),
        ):
            environment = {**self.environment, setting: text}
            if setting == "FRESHET_MASTER_KEYS":
                del environment["FRESHET_MASTER_KEYS_FILE"]
            for command in ("doctor", "worker"):
                done = subprocess.run([self.given.freshet, command], env=environment, capture_output=True, text=True, timeout=60)
                self.places.add("logs", done.stdout + done.stderr)
                if command == "worker" and not done.returncode:
                    sys.exit(f"a worker took a wrong {setting}")
        both = {**self.environment, "FRESHET_MASTER_KEYS": f"main={new('master key, beside a file')}"}
        nobody = {**self.environment, "FRESHET_OTLP_ENDPOINT": f"http://freshet:{new('OTLP password, in a URL')}@127.0.0.1:{free_port()}"}
        for environment in (both, nobody):
            done = subprocess.run([self.given.freshet, "doctor"], env=environment, capture_output=True, text=True, timeout=60)
            self.places.add("logs", done.stdout + done.stderr)

    # What came out.

    def collect(self, api, person, lines):
        for role in ("api", "worker"):
            with urllib.request.urlopen(f"http://{getattr(self, f'{role}_metrics')}/metrics") as told:
                self.places.add("metrics", told.read())
        for caller, query in ((api, ""), (person, ""), (person, "&organization=true")):
            for form in ("ndjson", "csv"):
                status, text, _ = caller.send("GET", f"/v1/audit-events/export?format={form}{query}", once=True)
                if status != 200:
                    sys.exit(f"the audit log's export: {status} {text}")
                self.places.add("audit rows", text)
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(30)
        for log in self.logs:
            self.places.add("logs", log.read_bytes())
        dump = subprocess.run([self.tool("pg_dump"), "--dbname", f"{self.server}/{self.database}"], capture_output=True)
        if dump.returncode:
            sys.exit(dump.stderr.decode())
        self.places.add("pg_dump", dump.stdout)
        self.places.add("Kafka records", self.records())
        self.places.add("traces", bytes(self.collector.spans))
        if not all(any(text in header for header in self.collector.headers) for text in self.canaries.texts["OTLP header"]):
            sys.exit("the collector was not told the headers that it wants")
        lines.over.set()
        lines.join()
        self.places.add("command lines", b"\n".join(lines.seen))

    def tool(self, name):
        found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)
        return found[0] if found else name

    def cluster(self):
        """A consumer of everything there is, and where each partition ends now."""
        consumer = KafkaConsumer(bootstrap_servers=os.environ["FRESHET_TEST_KAFKA"], auto_offset_reset="earliest", group_id=None, enable_auto_commit=False)
        places = [TopicPartition(topic, part) for topic in consumer.topics() if not topic.startswith("__") for part in consumer.partitions_for_topic(topic) or ()]
        return consumer, consumer.end_offsets(places) if places else {}

    def records(self):
        """What came to the cluster since the day began: what was there before holds no canary of ours."""
        (consumer, ends), out = self.cluster(), bytearray()
        consumer.assign(list(ends))
        for place, end in ends.items():
            before = self.ends.get(place, 0)
            consumer.seek(place, before if before <= end else 0)
        left = {place for place, end in ends.items() if consumer.position(place) < end}
        until = time.monotonic() + 60
        while left and time.monotonic() < until:
            for records in consumer.poll(timeout_ms=500).values():
                for record in records:
                    out += (record.key or b"") + b"\n" + (record.value or b"") + b"\n" + b"".join(value or b"" for _, value in record.headers) + b"\n"
            left = {place for place in left if consumer.position(place) < ends[place]}
        consumer.close()
        if left:
            sys.exit(f"{len(left)} partitions could not be read to their end")
        return bytes(out)

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        with psycopg.connect(self.admin, autocommit=True) as admin:
            for database in self.databases:
                admin.execute(f"drop database if exists {database} with (force)")
            for role in self.roles:
                admin.execute(f"drop role if exists {role}")


ALL = ("logs", "metrics", "traces", "answers", "pages", "audit rows", "pg_dump", "Kafka records", "command lines")
# A row is for Kafka, and for nothing else.
MEANT = {"a row's value": {"Kafka records"}}


def planted(scene):
    """That the search finds: each form in each place, and a text that went the way of a name."""
    wrong = []
    for place in ALL:
        if len(scene.places.bytes.get(place, b"")) < 100:
            wrong.append(f"{place}: there is nothing to search")
    text = "canary" + secrets.token_hex(12)
    for name, form in forms(text).items():
        if not hits(text, b"before" + form + b"after"):
            wrong.append(f"{name}: not found")
    for pad in range(3):
        encoded = base64.b64encode(b"x" * pad + text.encode() + b"tail")
        if not hits(text, encoded):
            wrong.append(f"base64 at {pad}: not found")
    for place in ALL:
        # No label of a metric and no span names anything of anybody's.
        if place not in ("metrics", "traces") and not hits(scene.open, bytes(scene.places.bytes[place])):
            wrong.append(f"{place}: what may be seen there is not found")
    return wrong


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--freshet", required=True)
    arguments.add_argument("--emulator", required=True)
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    since = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(given, folder)
        lines = CommandLines()
        try:
            scene.set_up()
            person = scene.people()
            api = scene.keys()
            made = scene.connections(api)
            api.call("POST", "/v1/service-accounts", {"name": scene.open})
            api.send("GET", f"/v1/{scene.open}")
            lines.show(scene.open)
            scene.issuers(person)
            scene.runs(api, made)
            scene.turnover()
            scene.doors()
            scene.collect(api, person, lines)
        finally:
            scene.end()
    wrong = planted(scene)
    total = 0
    print(f"| secret | texts | {' | '.join(ALL)} |\n|---|---:|{'---:|' * len(ALL)}")
    for name, texts in scene.canaries.texts.items():
        counts = [sum(hits(text, bytes(scene.places.bytes[place])) for text in texts) for place in ALL]
        meant = [name in MEANT and place in MEANT[name] for place in ALL]
        print(f"| {name} | {len(texts)} | {' | '.join('as meant' if of else str(count) for count, of in zip(counts, meant))} |")
        if any(of and not count for count, of in zip(counts, meant)):
            wrong.append(f"{name}: it is not where it is meant to be")
        found = sum(count for count, of in zip(counts, meant) if not of)
        total += found
        if found:
            for text in texts:
                for place, of in zip(ALL, meant):
                    if of:
                        continue
                    show(name, text, place, bytes(scene.places.bytes[place]))
    count = sum(map(len, scene.canaries.texts.values()))
    size = sum(map(len, scene.places.bytes.values()))
    print(f"\n{count} canaries of {len(scene.canaries.texts)} secrets, {len(forms('x' * 20))} forms, {len(ALL)} places of {size / 1e6:.1f} MB:"
          f" {total} hits, {time.monotonic() - since:.0f} s")
    for told in wrong:
        print(f"THE SEARCH IS WRONG: {told}")
    if given.json:
        print(json.dumps({"canaries": count, "secrets": len(scene.canaries.texts), "places": len(ALL), "bytes": size, "hits": total,
                          "search_is_right": not wrong}))
    sys.exit(1 if total or wrong else 0)


def show(name, text, place, data):
    """Where it stands, with itself blotted out."""
    for form in set(forms(text).values()):
        at = data.find(form)
        if at >= 0:
            around = data[max(0, at - 160):at] + b"[HERE]" + data[at + len(form):at + len(form) + 80]
            print(f"  FOUND {name} in {place}: …{around.decode(errors='replace')}…".replace("\n", "⏎"))


main()
