//! What a torture stands on: real Postgres and Kafka behind proxies, the emulator, the application in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use freshet_core::connector::Registry;
use freshet_core::error::Code;
use freshet_core::settings::Settings;
use freshet_core::testing::{Bench, EGRESS, make_source, surroundings, with_database};
use freshet_worker::sources::{self, snowflake};
use serde_json::Value;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::{sleep, timeout};

use crate::proxy::Proxy;
use crate::worker::{FailPoint, Worker};

/// How long anything may take that is bound to come.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// The grounds.
pub struct Ground {
    pub bench: Bench,
    /// Freshet's own database as its superuser: to look, and to let leases run out.
    pub admin: PgPool,
    pub kafka: Vec<Proxy>,
    /// Before Freshet's own Postgres.
    pub ledger: Proxy,
    /// Before Postgres as a source.
    pub source: Proxy,
    /// Before the emulator.
    pub snowflake: Proxy,
    pub emulator: Emulator,
    pub source_database: String,
    pub replay: Replay,
    program: PathBuf,
    pub logs: PathBuf,
    environment: Vec<(String, String)>,
    started: AtomicU64,
}

impl Ground {
    /// Starts what is missing.
    pub async fn open() -> Result<Self> {
        let state = PathBuf::from(surroundings("FRESHET_DEV_DIR"));
        let logs = state.join("torture-logs");
        let _ = std::fs::remove_dir_all(&logs);
        std::fs::create_dir_all(&logs)?;
        let program = state.join("freshet-torture");
        let _ = std::fs::remove_file(&program);
        std::fs::copy(env!("CARGO_BIN_EXE_freshet"), &program).context("no worker to torture")?;

        let source_database = make_source().await?;
        let emulator_url = with_database(&surroundings("FRESHET_TEST_DATABASE_URL"), &make_source().await?);
        let emulator = Emulator::start(&emulator_url, &logs)?;
        let snowflake = Proxy::start(0, emulator.address()?, false).await?;
        let hosts = format!("127.0.0.1:{}", snowflake.port);
        let settings = Settings::with(&[("snowflake_hosts", &hosts)])?;
        let bench = Bench::new(sources::configure(freshet_worker::register(Registry::default()), &settings)?).await;

        let postgres = address_of(&surroundings("FRESHET_TEST_DATABASE_URL"))?;
        let (ledger, source) = (Proxy::start(0, postgres, false).await?, Proxy::start(0, postgres, false).await?);
        let mut kafka = Vec::new();
        for listener in surroundings("FRESHET_TEST_KAFKA_PROXIED").split(',') {
            let target: SocketAddr = listener.parse().context("FRESHET_TEST_KAFKA_PROXIED")?;
            kafka.push(Proxy::start(target.port() + 1, target, true).await?);
        }
        let admin = PgPoolOptions::new().max_connections(3).connect(&bench.admin_url).await?;
        let own = bench
            .app
            .settings
            .database_url
            .expose()
            .replace(&postgres.to_string(), &format!("127.0.0.1:{}", ledger.port));
        let mut environment = vec![
            ("FRESHET_DATABASE_URL".to_owned(), own),
            ("FRESHET_MASTER_KEYS".to_owned(), bench.app.settings.master_keys.expose().to_owned()),
            ("FRESHET_SNOWFLAKE_HOSTS".to_owned(), hosts),
            ("FRESHET_EGRESS_ALLOW".to_owned(), bench.app.settings.egress_allow.clone()),
        ];
        let fixed = [
            ("FRESHET_LEASE_S", "3"),
            ("FRESHET_POLL_MS", "100"),
            ("FRESHET_RETRY_BASE_S", "0.2"),
            ("FRESHET_RETRY_MAX_S", "1"),
            ("FRESHET_RETRY_FRUITLESS_MAX", "200"),
            ("FRESHET_CHUNK_ROWS_MAX", "50"),
            ("FRESHET_LOG", "info,sqlx=warn,apalis_core=warn"),
        ];
        environment.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let replay = Replay::start(&surroundings("FRESHET_TEST_KAFKA"), &logs)?;
        Ok(Self {
            bench,
            admin,
            kafka,
            ledger,
            source,
            snowflake,
            emulator,
            source_database,
            replay,
            program,
            logs,
            environment,
            started: AtomicU64::new(0),
        })
    }

    /// Where a worker finds Kafka: at the proxies.
    pub fn bootstrap(&self) -> String {
        self.kafka.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port)).collect::<Vec<_>>().join(",")
    }

    /// Starts a worker, with a fail point and a bug if it is to have them, and settings of its own.
    pub fn worker(&self, fail_point: Option<FailPoint>, settings: &[(&str, &str)]) -> Result<Worker> {
        let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        let mut environment = self.environment.clone();
        environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        environment.extend(fail_point.map(|point| ("FRESHET_FAILPOINT".to_owned(), point.to_string())));
        Worker::start(&self.program, &environment, &self.logs.join(format!("worker-{number:04}.log")))
    }

    /// Every lease is over, whatever its holder believes.
    pub async fn lapse_leases(&self) -> Result<()> {
        let lapse = "update run set lease_until = now() - interval '1 s' where lease_until is not null";
        again("let leases run out", || async { sqlx::query(lapse).execute(&self.admin).await }).await?;
        Ok(())
    }

    /// Everything a worker writes, as it stands now.
    pub async fn books(&self) -> Result<Value> {
        let all = "select jsonb_build_object(
                'runs', (select jsonb_agg(to_jsonb(r) - 'lease_until' order by r.id) from run as r),
                'attempts', (select jsonb_agg(to_jsonb(a) order by a.id) from attempt as a),
                'positions', (select jsonb_agg(to_jsonb(p) order by p.sync_id) from sync_position as p),
                'partitions', (select jsonb_agg(to_jsonb(p) order by p.run_id, p.topic, p.partition) from run_partition as p))";
        again("read the books", || async { sqlx::query_scalar(all).fetch_one(&self.admin).await }).await
    }

    /// All proxies pass everything on again, the emulator has no faults.
    pub async fn heal(&self) -> Result<()> {
        for proxy in self.kafka.iter().chain([&self.ledger, &self.source, &self.snowflake]) {
            proxy.calm();
        }
        self.emulator.heal().await
    }

    /// The address of a database at the source, past the proxy.
    pub fn source_url(&self) -> String {
        with_database(&surroundings("FRESHET_TEST_DATABASE_URL"), &self.source_database)
    }
}

fn address_of(url: &str) -> Result<SocketAddr> {
    let (_, rest) = url.rsplit_once('@').context("a database's address without a user")?;
    let (server, _) = rest.split_once('/').context("a database's address without a database")?;
    Ok(server.parse()?)
}

/// Runs a program of `deploy/dev`.
pub async fn dev(program: &str, arguments: &[&str]) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev").join(program);
    let done = tokio::process::Command::new(path).args(arguments).output().await?;
    ensure!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Asks a database that may be away for a moment.
pub async fn again<T, F: Future<Output = sqlx::Result<T>>>(what: &str, mut ask: impl FnMut() -> F) -> Result<T> {
    let since = Instant::now();
    loop {
        // A row that somebody holds must not hold this up for ever.
        match timeout(PATIENCE, ask()).await.with_context(|| format!("no answer in {PATIENCE:?}: cannot {what}"))? {
            Ok(found) => return Ok(found),
            Err(error) if since.elapsed() > PATIENCE => return Err(error).context(format!("cannot {what}")),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Asks the application, whose database may be away for a moment.
pub async fn asked<T, F: Future<Output = freshet_core::error::Result<T>>>(mut ask: impl FnMut() -> F) -> Result<T> {
    let since = Instant::now();
    loop {
        match ask().await {
            Ok(found) => return Ok(found),
            Err(error) if error.code == Code::Database && since.elapsed() < PATIENCE => {
                sleep(Duration::from_millis(100)).await;
            }
            Err(error) => bail!("{}", error.chain()),
        }
    }
}

/// A running emulator with the database SHOP.
pub struct Emulator {
    process: Child,
    sql: Sql,
}

/// A client of it: no code of Freshet's.
#[derive(Clone)]
pub struct Sql {
    url: String,
    token: String,
    http: reqwest::Client,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Emulator {
    fn start(database_url: &str, logs: &Path) -> Result<Self> {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_freshet")).with_file_name("snowflake-emulator");
        let log = std::fs::File::create(logs.join("emulator.log"))?;
        let mut process = Command::new(&program)
            .args(["serve", "--database-url", database_url])
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} does not start; cargo build -p snowflake-emulator", program.display()))?;
        let mut url = String::new();
        let out = process.stdout.take().context("no way to hear the emulator")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut url)?;
        let command = |arguments: &[&str]| -> Result<String> {
            let [command, rest @ ..] = arguments else { bail!("no command") };
            let done = Command::new(&program)
                .args([*command, "--database-url", database_url])
                .args(rest)
                .env("RUST_LOG", "error")
                .output()?;
            ensure!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
            Ok(String::from_utf8(done.stdout)?)
        };
        command(&["create-database", "SHOP"])?;
        command(&["create-user", "LOADER"])?;
        command(&["sql", "--database", "SHOP", "--schema", "PUBLIC", "create warehouse WH; create schema FRESHET"])?;
        let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("snowflake-emulator/tests/it/keys/one.pub");
        command(&["set-key", "LOADER", &key.to_string_lossy()])?;
        let token = command(&["create-token", "LOADER"])?.trim().to_owned();
        let http = snowflake::client::http_client(&EGRESS, url.trim())?;
        Ok(Self { process, sql: Sql { url: url.trim().to_owned(), token, http } })
    }

    fn address(&self) -> Result<SocketAddr> {
        Ok(self.sql.url.trim_start_matches("http://").parse()?)
    }

    pub fn token(&self) -> &str {
        &self.sql.token
    }

    pub fn url(&self) -> &str {
        &self.sql.url
    }

    pub fn client(&self) -> Sql {
        self.sql.clone()
    }

    /// Runs one statement as another client would; its rows, as texts.
    pub async fn sql(&self, statement: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.sql.run(statement).await
    }

    /// Faults from now on, in the words of its README; statements of Freshet's alone are struck.
    pub async fn set_faults(&self, rules: &[Value], seed: u64) -> Result<()> {
        let named = |rule: &Value| {
            let mut rule = rule.clone();
            if rule.get("statement").is_none() {
                rule["statement"] = "freshet".into();
            }
            rule
        };
        let rules: Vec<_> = rules.iter().map(named).collect();
        let faults = serde_json::json!({"rules": rules, "seed": seed});
        let answer = self.sql.http.put(self.admin("faults")).json(&faults).send().await?;
        ensure!(answer.status().is_success(), "the emulator refuses these faults: {}", answer.text().await?);
        Ok(())
    }

    /// Of each rule, its kind and how often it has struck.
    pub async fn struck(&self) -> Result<Vec<(String, u64)>> {
        let rules: Value = self.sql.http.get(self.admin("faults")).send().await?.json().await?;
        let rules = rules["rules"].as_array().cloned().unwrap_or_default();
        let read = |rule: &Value| Some((rule["kind"].as_str()?.to_owned(), rule["struck"].as_u64()?));
        Ok(rules.iter().filter_map(read).collect())
    }

    /// Statements held back run now.
    pub async fn release_zombies(&self) -> Result<()> {
        self.sql.http.post(self.admin("zombies/release")).send().await?.error_for_status()?;
        Ok(())
    }

    async fn heal(&self) -> Result<()> {
        self.sql.http.delete(self.admin("faults")).send().await?.error_for_status()?;
        self.release_zombies().await
    }

    fn admin(&self, what: &str) -> String {
        format!("{}/emulator/{what}", self.sql.url)
    }
}

impl Sql {
    /// Runs one statement; its rows, as texts.
    pub async fn run(&self, statement: &str) -> Result<Vec<Vec<Option<String>>>> {
        Ok(self.table(statement).await?.1)
    }

    /// Runs one statement; its columns' names, and its rows, as texts.
    pub async fn table(&self, statement: &str) -> Result<(Vec<String>, Vec<Vec<Option<String>>>)> {
        let request = self
            .http
            .post(format!("{}/api/v2/statements", self.url))
            .bearer_auth(&self.token)
            .header("X-Snowflake-Authorization-Token-Type", "PROGRAMMATIC_ACCESS_TOKEN")
            .json(&serde_json::json!({
                "statement": statement, "database": "SHOP", "schema": "PUBLIC", "warehouse": "WH", "timeout": 60,
            }));
        let answer = request.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status == 200, "{statement}: {status}: {}", body["message"]);
        let columns = body["resultSetMetaData"]["rowType"].as_array().cloned().unwrap_or_default();
        let names = columns.iter().map(|column| column["name"].as_str().unwrap_or_default().to_owned()).collect();
        Ok((names, serde_json::from_value(body["data"].clone()).unwrap_or_default()))
    }
}

/// The reader: another program, in another language, with another client library.
pub struct Replay(tokio::sync::Mutex<Pipe>);

struct Pipe {
    _process: tokio::process::Child,
    asks: tokio::process::ChildStdin,
    answers: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

/// What the reader says of a topic.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct Verdict {
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub findings: Vec<String>,
    pub records: i64,
    pub letters: i64,
    pub batch: i64,
    pub ordinal: i64,
    pub unfinished: i64,
    pub gap_ms: Option<u64>,
}

impl Replay {
    fn start(bootstrap: &str, logs: &Path) -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut process = tokio::process::Command::new(here.join("dev/python"))
            .arg(here.join("tests/torture/replay.py"))
            .arg(bootstrap)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(logs.join("replay.log"))?)
            .kill_on_drop(true)
            .spawn()?;
        let asks = process.stdin.take().context("no way to ask the reader")?;
        let answers = BufReader::new(process.stdout.take().context("no way to hear the reader")?).lines();
        Ok(Self(tokio::sync::Mutex::new(Pipe { _process: process, asks, answers })))
    }

    async fn ask(&self, question: Value) -> Result<Value> {
        let mut pipe = self.0.lock().await;
        pipe.asks.write_all(format!("{question}\n").as_bytes()).await?;
        pipe.asks.flush().await?;
        let line = pipe.answers.next_line().await?.context("the reader broke off; see replay.log")?;
        let answer: Value = serde_json::from_str(&line)?;
        match answer.get("error") {
            Some(error) => bail!("the reader cannot read: {error}"),
            None => Ok(answer),
        }
    }

    /// Begins to follow a topic.
    pub async fn watch(&self, topic: &str, kind: &str, has_ids: bool) -> Result<()> {
        self.ask(serde_json::json!({"op": "watch", "topic": topic, "kind": kind, "ids": has_ids})).await.map(|_| ())
    }

    /// Reads on, or all over again (`audit`), and compares with a table if there is one.
    pub async fn verdict(&self, op: &str, topic: &str, since_ms: u64, table: Option<Value>) -> Result<Verdict> {
        let mut question = serde_json::json!({"op": op, "topic": topic, "since_ms": since_ms});
        if let Some(table) = table {
            question["table"] = table;
        }
        Ok(serde_json::from_value(self.ask(question).await?)?)
    }
}
