//! A source with orders, a sync to a topic of its own, and processes to start and kill.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use freshet_core::connector::{ModelSpec, Registry};
use freshet_core::endpoint::{Connection, Destination, ops as endpoint};
use freshet_core::id::{RequestId, RunId, SyncId};
use freshet_core::operation::{self, Question};
use freshet_core::run::{self, Run, RunState};
use freshet_core::testing::{Bench, make_source, surroundings, with_database};
use freshet_core::{model, sync};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::Offset;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// Once a run has published something it goes no further while anybody holds it ([`Held`]), and its next counts take a
/// moment to write: whoever looks sees it under way, however fast the machine is.
const SLOW_COUNTS: &str = "
    create function slow_counts() returns trigger language plpgsql as $$
    begin
        perform pg_advisory_xact_lock_shared(hashtextextended('under way', 0));
        perform pg_sleep(0.3);
        return new;
    end $$;
    create trigger slow_counts before update of published_count, state on public.run for each row
        when (old.published_count > 0
              and (new.published_count > old.published_count or new.state like 'succeeded%'))
        execute function slow_counts();";

/// Until this is dropped no run of the shop goes on that has published something.
pub struct Held(#[expect(dead_code, reason = "the lock lasts as long as its connection")] PgConnection);

/// How long anything may take; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(240);

pub struct Shop {
    pub bench: Bench,
    pub source: String,
    pub sync: SyncId,
    pub topic: String,
    /// What every worker of this shop is given.
    pub environment: Vec<(String, String)>,
}

/// One record as a reader of committed records sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub key: Option<Value>,
    pub value: Value,
    pub headers: BTreeMap<String, String>,
    pub raw: Raw,
}

impl Seen {
    /// The value's bytes; none for none.
    pub fn text(&self) -> &str {
        self.raw.value.as_deref().unwrap_or_default()
    }
}

/// A record to the byte, as texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    pub partition: i32,
    pub key: Option<String>,
    pub headers: Vec<(String, String)>,
    pub value: Option<String>,
}

impl Shop {
    /// A source made by `sql`, and an active sync of `spec` with `config`.
    pub async fn new(sql: &str, spec: ModelSpec, key: &[&str], config: Value) -> Self {
        let bench = Bench::new(freshet_worker::register(Registry::default())).await;
        let database = make_source().await.unwrap();
        let admin = surroundings("FRESHET_TEST_DATABASE_URL");
        let source = with_database(&admin, &database);
        let shop = Self {
            topic: format!("test.{}", RequestId::new()),
            environment: Vec::new(),
            sync: SyncId::new(),
            bench,
            source,
        };
        shop.slow_counts().await;
        shop.sql(sql).await;
        shop.make_sync(&database, &admin, spec, key, config).await
    }

    /// Lets a run be seen under way: see [`SLOW_COUNTS`].
    pub async fn slow_counts(&self) {
        run_sql(&self.bench.admin_url, SLOW_COUNTS).await;
    }

    /// Runs statements at the source.
    pub async fn sql(&self, sql: &str) {
        run_sql(&self.source, sql).await;
    }

    async fn make_sync(mut self, database: &str, admin: &str, spec: ModelSpec, key: &[&str], config: Value) -> Self {
        let (app, caller) = (&self.bench.app, &self.bench.caller);
        let port: u16 = admin.rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap();
        let settings = json!({
            "host": "127.0.0.1", "port": port, "database": database, "user": "postgres", "password": "postgres",
            "tls": {"mode": "require"}, "allow_superuser": true, "horizon_wait_s": 1,
        });
        let connection = endpoint::create::<Connection>(app, caller, "postgres", "shop", settings).await.unwrap();
        let key: Vec<_> = key.iter().map(|name| (*name).to_owned()).collect();
        let model = model::ops::create(app, caller, connection.id, "orders", &spec, &key).await.unwrap();
        let settings =
            json!({"bootstrap_servers": surroundings("FRESHET_TEST_KAFKA"), "security": {"protocol": "plaintext"}});
        let destination = endpoint::create::<Destination>(app, caller, "kafka", "cluster", settings).await.unwrap();
        let mut config = config;
        config["topic"] = json!({"name": self.topic, "create": {"partitions": 3}});
        let new = sync::ops::NewSync {
            name: "orders out".into(),
            model: model.id,
            destination: destination.id,
            config: serde_json::from_value(config).unwrap(),
        };
        let made = sync::ops::create(app, caller, new).await.unwrap();
        self.environment = vec![
            ("FRESHET_DATABASE_URL".into(), app.settings.database_url.expose().into()),
            ("FRESHET_MASTER_KEYS".into(), app.settings.master_keys.expose().into()),
            ("FRESHET_EGRESS_ALLOW".into(), app.settings.egress_allow.clone()),
            ("FRESHET_LEASE_S".into(), "2".into()),
            ("FRESHET_RETRY_BASE_S".into(), "0.5".into()),
            ("FRESHET_CHUNK_ROWS_MAX".into(), "1000".into()),
        ];
        let asked = operation::ops::ask(app, caller, Question::DescribeModel { model: model.id }).await.unwrap();
        let worker = self.worker();
        until("the model is described", async || {
            let found = operation::ops::get(app, caller, asked.id).await.unwrap();
            assert_ne!(found.state, "failed", "{:?}", found.error);
            (found.state == "succeeded").then_some(())
        })
        .await;
        drop(worker);
        sync::ops::activate(app, caller, made.id).await.unwrap();
        self.sync = made.id;
        self
    }

    /// Starts a worker.
    pub fn worker(&self) -> Process {
        self.process("worker", &[])
    }

    /// Starts a role, with `extra` in its environment.
    pub fn process(&self, role: &str, extra: &[(&str, &str)]) -> Process {
        Process::silent(self.freshet(&[role]).envs(extra.iter().copied()))
    }

    /// A command in the environment of this shop's workers.
    pub fn freshet(&self, arguments: &[&str]) -> Command {
        freshet(arguments, self.environment.iter().cloned())
    }

    pub async fn run(&self) -> RunId {
        run::ops::request(&self.bench.app, &self.bench.caller, self.sync).await.unwrap().0.id
    }

    pub async fn found(&self, id: RunId) -> Run {
        run::ops::get(&self.bench.app, &self.bench.caller, id).await.unwrap()
    }

    /// Waits until a run has ended.
    pub async fn ended(&self, id: RunId) -> Run {
        until("the run has ended", async || {
            let found = self.found(id).await;
            found.state.is_final().then_some(found)
        })
        .await
    }

    /// Requests a run, waits until some of it is on the topic, and holds it there.
    pub async fn run_held(&self) -> (RunId, Held) {
        let mut holder = PgConnection::connect(&self.bench.admin_url).await.unwrap();
        sqlx::query("select pg_advisory_lock(hashtextextended('under way', 0))").execute(&mut holder).await.unwrap();
        let id = self.run().await;
        until("the run is under way", async || {
            let found = self.found(id).await;
            assert!(!found.state.is_final(), "the run ended before it was held: {:?}", found.failure);
            (found.counts.published > 0).then_some(())
        })
        .await;
        (id, Held(holder))
    }

    /// Runs the sync and expects success.
    pub async fn run_to_the_end(&self) -> Run {
        let id = self.run().await;
        let ended = self.ended(id).await;
        assert_eq!(ended.state, RunState::Succeeded, "{:?}", ended.failure);
        ended
    }

    /// All committed records of the topic.
    pub fn committed(&self) -> Vec<Seen> {
        committed(&self.topic)
    }
}

pub async fn run_sql(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
}

/// A command of the binary, which is not told the schema's owner.
pub fn freshet<N: AsRef<OsStr>, V: AsRef<OsStr>>(
    arguments: &[&str],
    environment: impl IntoIterator<Item = (N, V)>,
) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freshet"));
    command.args(arguments).env_remove("FRESHET_OWNER_DATABASE_URL").envs(environment);
    command
}

/// An address of this machine that nobody listens on.
pub fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A process; it is killed when dropped.
pub struct Process(pub Child);

impl Process {
    /// Starts it; nobody hears what it says.
    pub fn silent(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Asks it to stop, and waits; how long it took.
    pub fn stop(self) -> Duration {
        self.signal("-TERM");
        self.wait()
    }

    /// Waits until it has ended; how long it took.
    pub fn wait(mut self) -> Duration {
        let since = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(since.elapsed() < PATIENCE, "waited {PATIENCE:?} until the process has ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        since.elapsed()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again and again until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All committed records of a topic, up to its present end.
pub fn committed(topic: &str) -> Vec<Seen> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", surroundings("FRESHET_TEST_KAFKA"))
        .set("group.id", "test")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    let mut assignment = rdkafka::TopicPartitionList::new();
    let partitions = metadata.topics()[0].partitions().len();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition as i32, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut seen, mut ended) = (Vec::new(), 0);
    let since = Instant::now();
    while ended < partitions {
        assert!(since.elapsed() < PATIENCE, "the topic's end is not reached");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            Some(Ok(message)) => seen.push(see(&message)),
        }
    }
    seen
}

fn see(message: &BorrowedMessage<'_>) -> Seen {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let headers: Vec<_> =
        headers.map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default()))).collect();
    Seen {
        key: message.key().map(|key| serde_json::from_slice(key).unwrap()),
        value: message.payload().map_or(Value::Null, |value| serde_json::from_slice(value).unwrap()),
        headers: headers.iter().cloned().collect(),
        raw: Raw {
            partition: message.partition(),
            key: message.key().map(text),
            headers,
            value: message.payload().map(text),
        },
    }
}

/// Expects each id of `ids` exactly once, and each `freshet-id` once.
pub fn each_once(seen: &[Seen], ids: impl Iterator<Item = i64>) {
    let mut found: Vec<_> = seen.iter().map(|record| record.key.as_ref().unwrap()["id"].as_i64().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, ids.collect::<Vec<_>>());
    let distinct: std::collections::BTreeSet<_> = seen.iter().map(|record| &record.headers["freshet-id"]).collect();
    assert_eq!(distinct.len(), seen.len());
}

/// The table `orders`.
pub fn orders() -> ModelSpec {
    ModelSpec::Table { schema: "public".into(), table: "orders".into() }
}

/// Makes `orders` with so many rows.
pub fn make_orders(rows: i64) -> String {
    format!(
        "create table orders (id bigint primary key, name text, amount numeric(12,2), at timestamptz);
         insert into orders select n, 'order ' || n, n / 100.0, timestamptz '2026-01-01 00:00Z' + n * interval '1 s'
         from generate_series(1, {rows}) as n;"
    )
}
