//! The field that figures are taken on: rows, a Freshet with a workspace, topics; and the cases, round after round.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use freshet_core::access::Caller;
use freshet_core::app::App;
use freshet_core::connector::ModelSpec;
use freshet_core::endpoint::{Connection, Destination, ops as endpoint};
use freshet_core::id::{DestinationId, ModelId, RequestId, RunId, SyncId};
use freshet_core::operation::{self, Question};
use freshet_core::run::{self, Run, RunState};
use freshet_core::settings::Settings;
use freshet_core::vault::Vault;
use freshet_core::{db, model, organization, sync};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::grounds::Grounds;
use super::meter::{Figures, Report, Taken, cpu_s, peak_rss_mib};
use crate::wire;

const PARTITIONS: i32 = 6;
/// Rows that the bare producer takes its sample from.
pub const SAMPLE_ROWS: u64 = 20_000;
/// How often a run is asked whether it has ended.
const ASK: Duration = Duration::from_millis(10);
/// How long one case may take.
const PATIENCE: Duration = Duration::from_secs(1_800);

#[derive(Debug, Args)]
pub struct Options {
    /// Rows that Freshet and the bare producer send
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(20_000..))]
    pub rows: u64,
    /// Rows that the Python exporters send, at most: one of them holds all of them in memory, 2 KB each
    #[arg(long, default_value_t = 300_000)]
    python_rows: u64,
    /// Rounds; the medians are told
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Only these cases
    #[arg(long = "case")]
    cases: Vec<String>,
    /// The value's shape
    #[arg(long, default_value = "debezium", value_parser = ["debezium", "row"])]
    envelope: String,
    /// One line of JSON at the end
    #[arg(long)]
    json: bool,
}

/// Where the rows come from.
pub struct Place {
    /// The benchmark's name.
    pub benchmark: &'static str,
    /// The connection's kind and its settings.
    pub connection: (&'static str, Value),
    /// The rows to send.
    pub model: ModelSpec,
    /// How much of them a run sends: a sync's `mode`.
    pub mode: Value,
    /// Has them all to be sent once more; called before each run.
    pub again: Box<dyn Fn() -> anyhow::Result<()>>,
    /// The first [`SAMPLE_ROWS`] of them, always read in full.
    pub sample: ModelSpec,
    /// The key's column.
    pub key: &'static str,
    /// The guarantees that are measured.
    pub guarantees: &'static [&'static str],
    /// What is written in Python: a case's name, its script, and the arguments that say where the rows are.
    pub exporters: Vec<(&'static str, &'static str, Vec<String>)>,
    /// Settings that Freshet needs for it.
    pub settings: Vec<(&'static str, String)>,
    /// Databases to drop in the end.
    pub databases: Vec<String>,
    /// A server of its own; it ends with this.
    pub server: Option<Server>,
}

impl Place {
    fn cases(&self) -> Vec<&'static str> {
        let exporters = self.exporters.iter().map(|(case, ..)| *case);
        std::iter::once(BARE).chain(self.guarantees.iter().copied()).chain(exporters).collect()
    }
}

/// The case that everything is compared with.
const BARE: &str = "bare_producer";

/// Refuses what would say nothing.
pub fn refuse_debug_build() -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        bail!("figures of a debug build say nothing; run it with: cargo run --release -p freshet -- bench");
    }
    Ok(())
}

/// Measures, and prints the report.
pub async fn run(grounds: &Grounds, place: Place, options: &Options) -> anyhow::Result<()> {
    let known = place.cases();
    if let Some(unknown) = options.cases.iter().find(|case| !known.contains(&case.as_str())) {
        bail!("there is no case `{unknown}`; there are {}", known.join(", "));
    }
    let asked = |case: &str| options.cases.is_empty() || options.cases.iter().any(|name| name == case);
    let cases: Vec<_> = known.iter().copied().filter(|case| asked(case)).collect();
    let field = Field::new(grounds, place, &options.envelope).await?;

    let mut taken: BTreeMap<&'static str, Vec<Taken>> = BTreeMap::new();
    for round in 1..=options.rounds {
        for case in &cases {
            let found = field.measure(case, options).await.with_context(|| (*case).to_owned())?;
            let rate = found.rows as f64 / found.seconds;
            eprintln!("round {round}: {case}: {} rows in {:.1} s, {rate:.0} rows/s", found.rows, found.seconds);
            taken.entry(case).or_default().push(found);
        }
    }
    let mut report = Report {
        benchmark: field.place.benchmark,
        rounds: options.rounds.into(),
        cases: taken.iter().map(|(case, rounds)| (*case, Figures::of(rounds))).collect(),
        ratios: BTreeMap::new(),
    };
    for peer in known.iter().filter(|case| **case != "exactly_once") {
        report.compare("exactly_once", peer);
    }
    report.compare("effectively_once", BARE);
    field.clean().await?;
    report.print(&known, options.json)
}

/// Rows, a Freshet of its own with a workspace, and a topic for the bare producer's sample.
pub struct Field<'a> {
    grounds: &'a Grounds,
    pub app: App,
    /// The workspace that the rows are moved in.
    pub caller: Caller,
    place: Place,
    model: ModelId,
    destination: DestinationId,
    admin: AdminClient<DefaultClientContext>,
    bootstrap: &'a str,
    /// The database of Freshet itself.
    pub control: String,
    sample: String,
}

impl<'a> Field<'a> {
    /// Sets it up; some rows are moved, with values of this shape.
    pub async fn new(grounds: &'a Grounds, place: Place, envelope: &str) -> anyhow::Result<Self> {
        let (server, bootstrap) = (grounds.get("FRESHET_TEST_DATABASE_URL")?, grounds.get("FRESHET_TEST_KAFKA")?);
        let control = format!("bench_{}", RequestId::new());
        execute(server, &format!("create database {control} owner freshet_owner")).await?;
        let owner = with_database(grounds.get("FRESHET_OWNER_DATABASE_URL")?, &control);
        db::migrate(&Settings::with(&[("owner_database_url", &owner)])?).await?;
        let url = with_database(grounds.get("FRESHET_DATABASE_URL")?, &control);
        let keys = format!("bench={}", Vault::draw_master_key());
        let allow = grounds.get("FRESHET_EGRESS_ALLOW")?;
        let mut settings =
            vec![("database_url", url.as_str()), ("master_keys", keys.as_str()), ("egress_allow", allow)];
        settings.extend(place.settings.iter().map(|(name, value)| (*name, value.as_str())));
        let app = wire::app(Settings::with(&settings)?).await?;
        let (_, workspace) = organization::ops::create(&app, None, "bench", "bench").await?;
        let caller = Caller::command(workspace);

        let (model, destination) = objects(&app, &caller, &place, bootstrap).await?;
        let admin = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
        let sample = format!("bench.{}.sample", RequestId::new());
        let field = Self { grounds, app, caller, place, model, destination, admin, bootstrap, control, sample };
        field.take_sample(envelope).await?;
        Ok(field)
    }

    /// Describes the model and sends a few rows, all of which the bare producer needs.
    async fn take_sample(&self, envelope: &str) -> anyhow::Result<()> {
        let worker = self.worker()?;
        let (app, caller) = (&self.app, &self.caller);
        self.described(self.model).await?;
        let connection = model::ops::get(app, caller, self.model).await?.connection_id;
        let key = [self.place.key.to_owned()];
        let model = model::ops::create(app, caller, connection, "sample", &self.place.sample, &key).await?;
        self.described(model.id).await?;
        let sync = self.sync(model.id, &self.sample, "exactly_once", envelope, &json!({"kind": "full"})).await?;
        self.finished(run::ops::request(app, caller, sync).await?.0.id).await?;
        worker.stop()
    }

    async fn described(&self, model: ModelId) -> anyhow::Result<()> {
        let (app, caller) = (&self.app, &self.caller);
        let asked = operation::ops::ask(app, caller, Question::DescribeModel { model }).await?;
        loop {
            let found = operation::ops::get(app, caller, asked.id).await?;
            match found.state.as_str() {
                "succeeded" => return Ok(()),
                "failed" => bail!("the model was not described: {:?}", found.error),
                _ => tokio::time::sleep(ASK).await,
            }
        }
    }

    async fn measure(&self, case: &str, options: &Options) -> anyhow::Result<Taken> {
        let topic = format!("bench.{}", RequestId::new());
        let python_rows = options.rows.min(options.python_rows);
        let exporter = self.place.exporters.iter().find(|(name, ..)| *name == case);
        let taken = if let Some((_, script, place)) = exporter {
            self.make_topic(&topic).await?;
            let mut command = self.grounds.python(script);
            tell(command.args(place).args([self.bootstrap, &topic, &python_rows.to_string()]))?
        } else if case == BARE {
            self.make_topic(&topic).await?;
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["bench", "bare-producer", "--bootstrap", self.bootstrap, "--sample", &self.sample]);
            tell(command.args(["--topic", &topic, "--rows", &options.rows.to_string()]))?
        } else {
            self.freshet(&topic, case, options).await?
        };
        self.admin.delete_topics(&[&topic], &AdminOptions::new()).await?;
        Ok(taken)
    }

    /// One run of a sync, by a worker that has just been started.
    async fn freshet(&self, topic: &str, guarantee: &str, options: &Options) -> anyhow::Result<Taken> {
        (self.place.again)()?;
        let sync = self.sync(self.model, topic, guarantee, &options.envelope, &self.place.mode).await?;
        let worker = self.worker()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pid = worker.0.id();
        let (since, cpu) = (Instant::now(), cpu_s(pid)?);
        let requested = run::ops::request(&self.app, &self.caller, sync).await?.0;
        let found = self.finished(requested.id).await?;
        let taken = Taken {
            rows: u64::try_from(found.counts.published)?,
            bytes: u64::try_from(found.counts.bytes)?,
            seconds: since.elapsed().as_secs_f64(),
            cpu_s: cpu_s(pid)? - cpu,
            peak_rss_mib: peak_rss_mib(pid)?,
        };
        ensure!(taken.rows == options.rows, "{} of {} rows were published", taken.rows, options.rows);
        worker.stop()?;
        // A Stream is taken by one sync alone: the next round's is another.
        sync::ops::archive(&self.app, &self.caller, sync).await?;
        Ok(taken)
    }

    /// A sync of all rows to a topic of its own.
    pub async fn sync_to(&self, guarantee: &str) -> anyhow::Result<SyncId> {
        let topic = format!("bench.{}", RequestId::new());
        self.sync(self.model, &topic, guarantee, "debezium", &self.place.mode).await
    }

    /// A sync of the same rows in another workspace, not active.
    pub async fn draft_of(&self, caller: &Caller) -> anyhow::Result<SyncId> {
        let (model, destination) = objects(&self.app, caller, &self.place, self.bootstrap).await?;
        let config = json!({"topic": {"name": "orders"}, "mode": self.place.mode});
        let new =
            sync::ops::NewSync { name: "orders".into(), model, destination, config: serde_json::from_value(config)? };
        Ok(sync::ops::create(&self.app, caller, new).await?.id)
    }

    async fn sync(
        &self,
        model: ModelId,
        topic: &str,
        guarantee: &str,
        envelope: &str,
        mode: &Value,
    ) -> anyhow::Result<SyncId> {
        let config = json!({
            "topic": {"name": topic, "create": {"partitions": PARTITIONS}}, "guarantee": guarantee,
            "envelope": envelope, "mode": mode,
        });
        let new = sync::ops::NewSync {
            name: topic.to_owned(),
            model,
            destination: self.destination,
            config: serde_json::from_value(config)?,
        };
        let made = sync::ops::create(&self.app, &self.caller, new).await?;
        sync::ops::activate(&self.app, &self.caller, made.id).await?;
        Ok(made.id)
    }

    /// Waits until a run has succeeded.
    pub async fn finished(&self, id: RunId) -> anyhow::Result<Run> {
        let since = Instant::now();
        loop {
            let found = run::ops::get(&self.app, &self.caller, id).await?;
            if found.state == RunState::Succeeded {
                return Ok(found);
            }
            ensure!(!found.state.is_final(), "the run ended {:?}: {:?}", found.state, found.failure);
            ensure!(since.elapsed() < PATIENCE, "the run did not end within {PATIENCE:?}");
            tokio::time::sleep(ASK).await;
        }
    }

    /// A worker in a process of its own.
    pub fn worker(&self) -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker");
        self.equip(&mut command);
        Ok(Server(command.spawn()?))
    }

    /// Gives a program the settings of this Freshet.
    pub fn equip(&self, command: &mut Command) {
        command
            .env("FRESHET_DATABASE_URL", self.app.settings.database_url.expose())
            .env("FRESHET_MASTER_KEYS", self.app.settings.master_keys.expose())
            .env("FRESHET_EGRESS_ALLOW", &self.app.settings.egress_allow)
            .env("FRESHET_LOG", "warn")
            .env_remove("FRESHET_OWNER_DATABASE_URL")
            .stdout(Stdio::null());
        for (name, value) in &self.place.settings {
            command.env(format!("FRESHET_{}", name.to_uppercase()), value);
        }
    }

    async fn make_topic(&self, topic: &str) -> anyhow::Result<()> {
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1));
        for made in self.admin.create_topics(&[new], &AdminOptions::new()).await? {
            made.map_err(|(name, code)| anyhow::anyhow!("topic {name}: {code}"))?;
        }
        Ok(())
    }

    /// Leaves nothing behind but the topics that Kafka has not deleted yet.
    pub async fn clean(self) -> anyhow::Result<()> {
        self.admin.delete_topics(&[&self.sample], &AdminOptions::new()).await?;
        self.app.db.close().await;
        drop(self.place.server);
        for name in self.place.databases.iter().chain([&self.control]) {
            let server = self.grounds.get("FRESHET_TEST_DATABASE_URL")?;
            execute(server, &format!("drop database {name} with (force)")).await?;
        }
        Ok(())
    }
}

/// The connection, model and destination of a workspace.
async fn objects(
    app: &App,
    caller: &Caller,
    place: &Place,
    bootstrap: &str,
) -> anyhow::Result<(ModelId, DestinationId)> {
    let (kind, settings) = &place.connection;
    let connection = endpoint::create::<Connection>(app, caller, kind, "orders", settings.clone()).await?;
    let key = [place.key.to_owned()];
    let model = model::ops::create(app, caller, connection.id, "orders", &place.model, &key).await?;
    let settings = json!({"bootstrap_servers": bootstrap, "security": {"protocol": "plaintext"}});
    let destination = endpoint::create::<Destination>(app, caller, "kafka", "kafka", settings).await?;
    Ok((model.id, destination.id))
}

/// A process; killed when dropped.
pub struct Server(pub Child);

impl Server {
    /// Asks it to end, and waits.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = libc::pid_t::try_from(self.0.id())?;
        // SAFETY: a signal to a child that has not been waited for yet.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a case that measures itself: its last line says what it took.
fn tell(command: &mut Command) -> anyhow::Result<Taken> {
    let done = command.stderr(Stdio::inherit()).output()?;
    ensure!(done.status.success(), "it ended with {}", done.status);
    let text = String::from_utf8(done.stdout)?;
    Ok(serde_json::from_str(text.trim().lines().last().context("it said nothing")?)?)
}

pub async fn execute(url: &str, sql: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

pub fn with_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap_or((url, ""));
    format!("{server}/{name}")
}
