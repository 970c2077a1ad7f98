//! A sync under torture: where its rows come from, what changes them, and what its topic must become.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use freshet_core::connector::ModelSpec;
use freshet_core::endpoint::{Connection, Destination, ops as endpoint};
use freshet_core::id::{DestinationId, RequestId, RunId, SyncId};
use freshet_core::operation::{self, Question};
use freshet_core::run::{self, RunState};
use freshet_core::{model, sync};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor, Row};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, watch};
use tokio::time::sleep;

use crate::ground::{Ground, PATIENCE, again, asked};

/// A record of more bytes is a dead letter: the topic does not take it.
const MESSAGE_BYTES_MAX: usize = 8_192;
/// A payload in so many is too large.
const TOO_LARGE_ONE_IN: u32 = 60;
/// Too large with its envelope, and not without: the dead letter holds the row.
const TOO_LARGE_BYTES: usize = 7_000;
/// Names of this length fill the envelope.
const NAME_LENGTH: usize = 180;
/// What the worker signs in with: one of the emulator's own test keys.
const PRIVATE_KEY: &str = include_str!("../../snowflake-emulator/tests/it/keys/one.p8");
/// Writers at a Postgres source, so that the order of commits is not the order of versions.
const WRITERS: u64 = 3;

/// Where rows come from, and how they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    PostgresIncremental,
    PostgresFull,
    PostgresDiff,
    SnowflakeStream,
    SnowflakeIncremental,
    SnowflakeFull,
    SnowflakeDiff,
}

impl Origin {
    pub const ALL: &'static [Self] = &[
        Self::PostgresIncremental,
        Self::PostgresFull,
        Self::PostgresDiff,
        Self::SnowflakeStream,
        Self::SnowflakeIncremental,
        Self::SnowflakeFull,
        Self::SnowflakeDiff,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::PostgresIncremental => "postgres incremental",
            Self::PostgresFull => "postgres full",
            Self::PostgresDiff => "postgres diff",
            Self::SnowflakeStream => "snowflake stream",
            Self::SnowflakeIncremental => "snowflake incremental",
            Self::SnowflakeFull => "snowflake full",
            Self::SnowflakeDiff => "snowflake diff",
        }
    }

    /// How often it is drawn: a Stream's changes cannot be read twice.
    pub fn weight(self) -> u32 {
        match self {
            Self::SnowflakeStream => 8,
            Self::PostgresIncremental => 3,
            Self::PostgresDiff | Self::SnowflakeDiff => 2,
            Self::PostgresFull | Self::SnowflakeIncremental | Self::SnowflakeFull => 1,
        }
    }

    pub fn is_snowflake(self) -> bool {
        match self {
            Self::SnowflakeStream | Self::SnowflakeIncremental | Self::SnowflakeFull | Self::SnowflakeDiff => true,
            Self::PostgresIncremental | Self::PostgresFull | Self::PostgresDiff => false,
        }
    }

    /// Whether a seal makes something at the source.
    pub fn seals(self) -> bool {
        match self {
            Self::SnowflakeStream | Self::SnowflakeFull | Self::SnowflakeDiff | Self::PostgresDiff => true,
            Self::PostgresIncremental | Self::PostgresFull | Self::SnowflakeIncremental => false,
        }
    }

    /// How its topic is replayed.
    fn kind(self) -> &'static str {
        match self {
            Self::PostgresIncremental | Self::SnowflakeIncremental => "upserts",
            Self::PostgresFull | Self::SnowflakeFull => "full",
            Self::SnowflakeStream => "changes",
            Self::PostgresDiff | Self::SnowflakeDiff => "differences",
        }
    }

    fn mode(self) -> Value {
        match self {
            Self::PostgresIncremental | Self::SnowflakeIncremental => json!({"kind": "incremental", "cursor": "v"}),
            Self::PostgresFull | Self::SnowflakeFull => json!({"kind": "full"}),
            Self::PostgresDiff | Self::SnowflakeDiff => json!({"kind": "diff"}),
            Self::SnowflakeStream => json!({"kind": "changes"}),
        }
    }

    /// A cursor does not see deletes.
    fn deletes(self) -> bool {
        self.kind() != "upserts"
    }

    /// Where a change that is missing from the topic would look like one that was lost there are none.
    fn has_dead_letters(self) -> bool {
        match self {
            Self::PostgresIncremental | Self::PostgresFull => true,
            Self::PostgresDiff
            | Self::SnowflakeStream
            | Self::SnowflakeIncremental
            | Self::SnowflakeFull
            | Self::SnowflakeDiff => false,
        }
    }

    /// Keys that rows are drawn from: what is read in full is read again and again.
    fn keys(self) -> i64 {
        if self.kind() == "full" { 160 } else { 500 }
    }
}

/// A sync and everything around it.
pub struct Scene {
    pub origin: Origin,
    pub sync: SyncId,
    pub topic: String,
    table: String,
    gate: Arc<RwLock<()>>,
    writers: Vec<tokio::task::JoinHandle<()>>,
    driver: Driver,
}

/// The source stands still as long as this lives.
pub type Quiet = OwnedRwLockWriteGuard<()>;

impl Scene {
    /// Makes the table, the topic and the sync, and begins to change rows.
    pub async fn new(ground: &Ground, origin: Origin, seed: u64) -> Result<Self> {
        let id = RequestId::new().to_string();
        let table = format!("orders_{id}");
        let topic = format!("torture.{}.{id}", origin.as_str().replace(' ', "."));
        let columns = match origin.is_snowflake() {
            true => "\"id\" number(18,0) primary key, \"v\" number(18,0), \"payload\" varchar, \"amount\" number(12,2)",
            false => "id bigint primary key, v bigint not null unique, payload text, amount numeric(12,2)",
        };
        if origin.is_snowflake() {
            ground.emulator.sql(&format!("create table \"{table}\" ({columns})")).await?;
            if origin == Origin::SnowflakeStream {
                for name in ["changes", "exported"] {
                    let made = format!("create stream \"{table}_{name}\" on table \"{table}\"");
                    ground.emulator.sql(&made).await?;
                }
                let offset = format!(
                    "create table \"{table}_exported_offset\" as select * from \"{table}_exported\" where 1 = 0"
                );
                ground.emulator.sql(&offset).await?;
            }
        } else {
            let mut connection = connect(&ground.source_url()).await?;
            let sql = format!(
                "create table {table} ({columns}); create sequence {table}_version; create schema if not exists freshet"
            );
            connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
        }
        make_topic(&topic).await?;
        let sync = make_sync(ground, origin, &table, &topic).await?;
        ground.replay.watch(&topic, origin.kind(), true).await?;
        let gate = Arc::new(RwLock::new(()));
        let driver = Driver::start(ground, sync);
        let mut scene = Self { origin, sync, topic, table, gate, writers: Vec::new(), driver };
        scene.write(ground, seed);
        Ok(scene)
    }

    fn write(&mut self, ground: &Ground, seed: u64) {
        if self.origin.is_snowflake() {
            let writer = Writer { origin: self.origin, table: self.table.clone(), dice: StdRng::seed_from_u64(seed) };
            let (gate, sql) = (Arc::clone(&self.gate), ground.emulator.client());
            self.writers.push(tokio::spawn(writer.write_snowflake(sql, gate)));
        } else {
            for number in 0..WRITERS {
                let dice = StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number));
                let writer = Writer { origin: self.origin, table: self.table.clone(), dice };
                self.writers.push(tokio::spawn(writer.write_postgres(ground.source_url(), Arc::clone(&self.gate))));
            }
        }
    }

    /// Another Stream on the same table, from the same moment, for somebody else.
    pub fn other_stream(&self) -> String {
        format!("{}_exported", self.table)
    }

    /// Waits until no change is under way, and lets none begin.
    pub async fn quiet(&self) -> Quiet {
        Arc::clone(&self.gate).write_owned().await
    }

    /// Begins to ask for one run after the other.
    pub fn drive(&self) {
        self.driver.go.send_replace(true);
    }

    /// Waits until `count` more runs have ended well; how long that took.
    pub async fn progress(&self, count: u64) -> Result<Duration> {
        let since = Instant::now();
        let mut ended = self.driver.ended.clone();
        let wanted = ended.borrow().successes + count;
        let enough = tokio::time::timeout(PATIENCE, ended.wait_for(|ended| ended.successes >= wanted)).await.is_ok();
        let last = || self.driver.ended.borrow().last.clone();
        ensure!(enough, "no run ended well within {PATIENCE:?} of healing; last: {}", last());
        Ok(since.elapsed())
    }

    /// Stops asking for runs, once the one under way has ended.
    pub async fn rest(&self) -> Result<()> {
        self.driver.go.send_replace(false);
        let mut ended = self.driver.ended.clone();
        tokio::time::timeout(PATIENCE, ended.wait_for(|ended| ended.is_idle)).await.context("a run does not end")??;
        Ok(())
    }

    /// Runs until there is nothing left to send.
    pub async fn deliver_the_rest(&self, ground: &Ground) -> Result<()> {
        for _ in 0..10 {
            let (state, outcome, told) = self.driver.desk.run_once(self.sync, &ground.admin).await?;
            ensure!(state == RunState::Succeeded || state == RunState::SucceededWithErrors, "the last run: {told}");
            if self.origin.kind() == "full" || outcome.as_deref() == Some("no_changes") {
                return Ok(());
            }
        }
        bail!("there is always more to send, although nothing changes any more")
    }

    /// What went wrong with runs since this was asked the last time.
    pub fn failures(&self) -> Vec<String> {
        std::mem::take(&mut *self.driver.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The table as it is: key to version, payload, amount.
    pub async fn table(&self, ground: &Ground) -> Result<Value> {
        let mut rows = BTreeMap::new();
        if self.origin.is_snowflake() {
            let sql = format!("select \"id\", \"v\", \"payload\", \"amount\" from \"{}\"", self.table);
            for row in ground.emulator.sql(&sql).await? {
                let cell = |place: usize| row.get(place).cloned().flatten().unwrap_or_default();
                rows.insert(cell(0), json!([cell(1).parse::<i64>()?, cell(2), cell(3)]));
            }
        } else {
            let sql = format!("select id::text, v, payload, amount::text from {}", self.table);
            let url = ground.source_url();
            let found =
                again("read the source", async || connect(&url).await?.fetch_all(AssertSqlSafe(sql.clone())).await);
            for row in found.await? {
                let (id, v): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
                let (payload, amount): (String, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
                rows.insert(id, json!([v, payload, amount]));
            }
        }
        Ok(json!(rows))
    }

    /// What all runs say they have sent, records and dead letters.
    pub async fn counted(&self, ground: &Ground) -> Result<(i64, i64)> {
        let sum = "select coalesce(sum(published_count), 0)::bigint, coalesce(sum(dead_count), 0)::bigint
                   from run where sync_id = $1";
        again("count", || async { sqlx::query_as(sum).bind(self.sync).fetch_one(&ground.admin).await }).await
    }

    /// Where Postgres believes the sync to be: batch, ordinal.
    pub async fn position(&self, ground: &Ground) -> Result<(i64, i64)> {
        let place = "select batch_seq, ordinal from sync_position where sync_id = $1";
        let found = again("read the position", || async {
            sqlx::query_as(place).bind(self.sync).fetch_optional(&ground.admin).await
        });
        Ok(found.await?.unwrap_or((0, 0)))
    }

    /// What is left that should not be: runs under way, leases, batch tables with rows in them.
    pub async fn left_over(&self, ground: &Ground) -> Result<Vec<String>> {
        let open = "select count(*) from run
                    where sync_id = $1 and (lease_until is not null
                          or state not in ('succeeded', 'succeeded_with_errors', 'failed', 'cancelled', 'skipped'))";
        let open: i64 = again("look for runs under way", || async {
            sqlx::query_scalar(open).bind(self.sync).fetch_one(&ground.admin).await
        })
        .await?;
        let mut found = Vec::new();
        if open > 0 {
            found.push(format!("{open} runs under way"));
        }
        let tables = self.staged(ground).await?;
        let left = tables.iter().filter(|(name, rows)| match self.origin {
            // A Stream's empty table keeps a late statement from taking anything.
            Origin::SnowflakeStream => rows.as_deref() != Some("0"),
            // What nobody looks for the next seal drops.
            Origin::SnowflakeDiff => false,
            Origin::PostgresDiff => name.contains("_diff_"),
            _ => true,
        });
        let left: Vec<_> = left.map(|(name, _)| name.as_str()).collect();
        if !left.is_empty() {
            found.push(format!("batch tables {}", left.join(", ")));
        }
        let snapshots = tables.iter().filter(|(name, _)| name.contains("_snap_")).count();
        if snapshots > 1 {
            found.push(format!("{snapshots} snapshots"));
        }
        Ok(found)
    }

    /// What the sync has of its own at the source: tables, and where it is known their rows.
    async fn staged(&self, ground: &Ground) -> Result<Vec<(String, Option<String>)>> {
        let own = self.sync.to_string();
        if self.origin.is_snowflake() {
            let show = format!("show tables like '%{}%' in schema FRESHET", own.to_uppercase());
            let (names, tables) = ground.emulator.client().table(&show).await?;
            let place = |name: &str| names.iter().position(|known| known.eq_ignore_ascii_case(name));
            let (name, rows) = place("name").zip(place("rows")).context("tables without names or rows")?;
            return Ok(tables
                .into_iter()
                .map(|row| (row[name].clone().unwrap_or_default(), row[rows].clone()))
                .collect());
        }
        let sql = "select relname::text, null::text from pg_class where relkind = 'r' and relname like '%' || lower($1) || '%'";
        let (url, own) = (ground.source_url(), own.as_str());
        again("look for tables at the source", || async {
            sqlx::query_as(sql).bind(own).fetch_all(&mut connect(&url).await?).await
        })
        .await
    }

    /// Starts from the beginning in a new generation. No run may be under way.
    pub async fn reset(&self, ground: &Ground) -> Result<()> {
        let (app, caller) = (&ground.bench.app, &ground.bench.caller);
        asked(|| async { sync::ops::reset(app, caller, self.sync).await }).await.map(|_| ())
    }

    /// Asks the run under way to stop.
    pub async fn cancel(&self, ground: &Ground) -> Result<bool> {
        let (app, caller) = (&ground.bench.app, &ground.bench.caller);
        let Some(id) = self.driver.ended.borrow().under_way else { return Ok(false) };
        match run::ops::cancel(app, caller, id).await {
            Ok(_) => Ok(true),
            // It was over just before.
            Err(error) if error.code == freshet_core::error::Code::WrongState => Ok(false),
            Err(error) => bail!("{}", error.chain()),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.writers.iter().for_each(tokio::task::JoinHandle::abort);
        self.driver.task.abort();
    }
}

async fn connect(url: &str) -> sqlx::Result<PgConnection> {
    let options: PgConnectOptions = url.parse()?;
    options.disable_statement_logging().connect().await
}

pub async fn make_topic(name: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", freshet_core::testing::surroundings("FRESHET_TEST_KAFKA"))
        .create()?;
    let size = MESSAGE_BYTES_MAX.to_string();
    let topic = NewTopic::new(name, 3, TopicReplication::Fixed(-1)).set("max.message.bytes", &size);
    for made in admin.create_topics(&[topic], &AdminOptions::new()).await? {
        made.map_err(|(name, code)| anyhow::anyhow!("topic {name}: {code}"))?;
    }
    Ok(())
}

async fn make_sync(ground: &Ground, origin: Origin, table: &str, topic: &str) -> Result<SyncId> {
    let (app, caller) = (&ground.bench.app, &ground.bench.caller);
    let (kind, schema, settings) = if origin.is_snowflake() {
        let settings = json!({
            "account": "emulator-account", "host": format!("http://127.0.0.1:{}", ground.snowflake.port),
            "user": "loader", "warehouse": "wh", "database": "shop", "late_commit_s": 0,
            "statement_timeout_s": 60,
            "sign_in": {"kind": "key_pair", "private_key": PRIVATE_KEY},
        });
        ("snowflake", "PUBLIC", settings)
    } else {
        let settings = json!({
            "host": "127.0.0.1", "port": ground.source.port, "database": ground.source_database, "user": "postgres",
            "password": "postgres", "tls": {"mode": "require"}, "allow_superuser": true, "horizon_wait_s": 1,
        });
        ("postgres", "public", settings)
    };
    let told = |error: freshet_core::error::Error| anyhow::anyhow!("{}", error.chain());
    let name = format!("{table:雪<NAME_LENGTH$}");
    let connection = endpoint::create::<Connection>(app, caller, kind, &name, settings).await.map_err(told)?;
    let spec = match origin {
        Origin::SnowflakeStream => ModelSpec::Stream { schema: schema.into(), stream: format!("{table}_changes") },
        _ => ModelSpec::Table { schema: schema.into(), table: table.into() },
    };
    let model = model::ops::create(app, caller, connection.id, &name, &spec, &["id".into()]).await.map_err(told)?;
    let new = sync::ops::NewSync {
        name,
        model: model.id,
        destination: destination(ground).await?,
        config: serde_json::from_value(json!({
            "mode": origin.mode(), "topic": {"name": topic, "create": {"partitions": 3}},
            "error_tolerance": {"kind": "count", "max": 1_000_000_000},
        }))?,
    };
    let made = sync::ops::create(app, caller, new).await.map_err(told)?;
    let question = Question::DescribeModel { model: model.id };
    let asked = operation::ops::ask(app, caller, question).await.map_err(told)?;
    let worker = ground.worker(None, &[])?;
    let since = Instant::now();
    loop {
        let found = operation::ops::get(app, caller, asked.id).await.map_err(told)?;
        ensure!(found.state != "failed", "the model cannot be described: {:?}", found.error);
        ensure!(since.elapsed() < PATIENCE, "the model is not described");
        if found.state == "succeeded" {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    drop(worker);
    sync::ops::activate(app, caller, made.id).await.map_err(told)?;
    Ok(made.id)
}

async fn destination(ground: &Ground) -> Result<DestinationId> {
    let (app, caller) = (&ground.bench.app, &ground.bench.caller);
    let settings = json!({"bootstrap_servers": ground.bootstrap(), "security": {"protocol": "plaintext"}});
    let name = format!("cluster {}", RequestId::new());
    let made = endpoint::create::<Destination>(app, caller, "kafka", &name, settings).await;
    made.map(|made| made.id).map_err(|error| anyhow::anyhow!("{}", error.chain()))
}

/// Changes rows for ever.
struct Writer {
    origin: Origin,
    table: String,
    dice: StdRng,
}

impl Writer {
    fn payload(&mut self) -> String {
        let length = if self.origin.has_dead_letters() && self.dice.random_ratio(1, TOO_LARGE_ONE_IN) {
            TOO_LARGE_BYTES
        } else {
            self.dice.random_range(0..60)
        };
        (0..length).map(|_| self.dice.random_range('a'..='z')).collect()
    }

    fn keys(&mut self) -> Vec<i64> {
        let count = self.dice.random_range(1..=8);
        let mut keys: Vec<_> = (0..count).map(|_| self.dice.random_range(1..=self.origin.keys())).collect();
        // In one order everywhere: no deadlocks.
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    async fn write_postgres(mut self, url: String, gate: Arc<RwLock<()>>) {
        let mut connection = None;
        loop {
            sleep(Duration::from_millis(self.dice.random_range(5..60))).await;
            let _open = gate.read().await;
            let mut ready = match connection.take() {
                Some(ready) => ready,
                None => match connect(&url).await {
                    Ok(fresh) => fresh,
                    Err(_) => continue,
                },
            };
            // Its outcome may be unknown: what counts is the table in the end.
            if self.change_postgres(&mut ready).await.is_ok() {
                connection = Some(ready);
            }
        }
    }

    async fn change_postgres(&mut self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let mut tx = connection.begin().await?;
        for key in self.keys() {
            if self.origin.deletes() && self.dice.random_ratio(1, 4) {
                let sql = format!("delete from {} where id = $1", self.table);
                sqlx::query(AssertSqlSafe(sql)).bind(key).execute(&mut *tx).await?;
                continue;
            }
            // The version is drawn once the row is locked, so that a key's versions only grow.
            let sql = format!(
                "insert into {table} as o (id, v, payload, amount) values ($1, nextval('{table}_version'), $2, $3::numeric / 100)
                 on conflict (id) do update
                 set v = nextval('{table}_version'), payload = excluded.payload, amount = excluded.amount",
                table = self.table
            );
            let (payload, amount) = (self.payload(), self.dice.random_range(-1_000_000..1_000_000));
            sqlx::query(AssertSqlSafe(sql)).bind(key).bind(payload).bind(amount).execute(&mut *tx).await?;
        }
        if self.dice.random_ratio(1, 10) {
            sleep(Duration::from_millis(self.dice.random_range(0..120))).await;
        }
        if self.dice.random_ratio(1, 20) { tx.rollback().await } else { tx.commit().await }
    }

    async fn write_snowflake(mut self, client: crate::ground::Sql, gate: Arc<RwLock<()>>) {
        let mut version = 0;
        loop {
            sleep(Duration::from_millis(self.dice.random_range(20..80))).await;
            let _open = gate.read().await;
            version += 1;
            for statement in self.statements(version) {
                // As above.
                let _ = client.run(&statement).await;
            }
        }
    }

    /// Statements of one change; each row of it gets this version.
    fn statements(&mut self, version: i64) -> Vec<String> {
        let (keys, payload) = (self.keys(), self.payload());
        let amount = self.dice.random_range(-1_000_000..1_000_000);
        let list = keys.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        let amount =
            format!("{}{}.{:02}", if amount < 0 { "-" } else { "" }, i64::abs(amount) / 100, i64::abs(amount) % 100);
        if self.origin.deletes() && self.dice.random_ratio(1, 4) {
            return vec![format!("delete from \"{}\" where \"id\" in ({list})", self.table)];
        }
        let rows: Vec<_> = keys.iter().map(|key| format!("({key}, {version}, '{payload}', {amount})")).collect();
        vec![format!(
            "merge into \"{table}\" as t using (select column1 as k, column2 as v, column3 as p, column4 as a
                                               from values {rows}) as s
             on t.\"id\" = s.k
             when matched then update set \"v\" = s.v, \"payload\" = s.p, \"amount\" = s.a
             when not matched then insert (\"id\", \"v\", \"payload\", \"amount\") values (s.k, s.v, s.p, s.a)",
            table = self.table,
            rows = rows.join(", "),
        )]
    }
}

/// What became of the runs.
#[derive(Debug, Clone, Default)]
struct Ended {
    successes: u64,
    last: String,
    is_idle: bool,
    under_way: Option<RunId>,
}

/// Asks for one run after the other, as a schedule does that is always due.
struct Driver {
    go: watch::Sender<bool>,
    ended: watch::Receiver<Ended>,
    failures: Arc<Mutex<Vec<String>>>,
    desk: Desk,
    task: tokio::task::JoinHandle<()>,
}

/// Where runs are asked for.
#[derive(Clone)]
struct Desk {
    app: freshet_core::app::App,
    caller: freshet_core::access::Caller,
}

impl Driver {
    fn start(ground: &Ground, sync: SyncId) -> Self {
        let desk = Desk { app: ground.bench.app.clone(), caller: ground.bench.caller.clone() };
        let (go, mut told) = watch::channel(false);
        let (tell, ended) = watch::channel(Ended { is_idle: true, ..Ended::default() });
        let failures = Arc::new(Mutex::new(Vec::new()));
        let (inner, admin, failed) = (desk.clone(), ground.admin.clone(), Arc::clone(&failures));
        let task = tokio::spawn(async move {
            loop {
                tell.send_modify(|ended| ended.is_idle = true);
                if told.wait_for(|go| *go).await.is_err() {
                    return;
                }
                tell.send_modify(|ended| ended.is_idle = false);
                let run = inner.request(sync).await;
                tell.send_modify(|ended| ended.under_way = run.as_ref().ok().copied());
                let done = match run {
                    Ok(id) => inner.wait(id, &admin).await,
                    Err(error) => Err(error),
                };
                tell.send_modify(|ended| ended.under_way = None);
                let told = match done {
                    Ok((RunState::Succeeded | RunState::SucceededWithErrors, ..)) => {
                        tell.send_modify(|ended| ended.successes += 1);
                        continue;
                    }
                    Ok((_, _, told)) => told,
                    Err(error) => format!("{error:#}"),
                };
                tell.send_modify(|ended| ended.last.clone_from(&told));
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(told);
            }
        });
        Self { go, ended, failures, desk, task }
    }
}

impl Desk {
    async fn request(&self, sync: SyncId) -> Result<RunId> {
        Ok(asked(|| async { run::ops::request(&self.app, &self.caller, sync).await }).await?.0.id)
    }

    /// Waits for a run's end: its state, its outcome, and why it failed.
    async fn wait(&self, id: RunId, admin: &sqlx::PgPool) -> Result<(RunState, Option<String>, String)> {
        let look = "select state, outcome, coalesce(failure_code, '') || ': ' || coalesce(failure_message, '') as told
                    from run where id = $1";
        loop {
            let found = again("look at a run", || async {
                let row = sqlx::query(look).bind(id).fetch_one(admin).await?;
                Ok((row.try_get::<RunState, _>(0)?, row.try_get::<Option<String>, _>(1)?, row.try_get::<String, _>(2)?))
            });
            let (state, outcome, told) = found.await?;
            if state.is_final() {
                return Ok((state, outcome, format!("run {id} {}: {told}", state.as_str())));
            }
            sleep(Duration::from_millis(15)).await;
        }
    }

    async fn run_once(&self, sync: SyncId, admin: &sqlx::PgPool) -> Result<(RunState, Option<String>, String)> {
        let id = self.request(sync).await?;
        tokio::time::timeout(PATIENCE, self.wait(id, admin)).await.context("the last run does not end")?
    }
}
