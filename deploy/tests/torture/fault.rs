//! What is done to a run, and how.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use freshet_core::failpoint::Step;
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::ground::{again, dev};
use crate::proxy::{Ambush, Proxy, Wire};
use crate::round::Stage;
use crate::scene::Origin;
use crate::worker::FailPoint;

/// How long a fault may take to strike.
const STRIKE_WAIT: Duration = Duration::from_secs(30);

/// A fault.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Nothing but the changes at the source.
    Nothing,
    /// The worker dies at a step, the n-th time it gets there; another takes over.
    Kill(Step, u64),
    /// The worker stops at a step, another takes over, and the first one wakes.
    Freeze(Step, u64),
    /// Two workers at the same run: the lease of the first is over, and it does not know.
    Twins(Step),
    /// Workers die at any time.
    KillAnywhere,
    /// A worker is asked to stop, and another is there.
    Drain,
    /// A person cancels, again and again.
    Cancel,
    /// A person cancels, and the worker dies with what it sent not written down.
    CancelAndKill,
    /// The answer to a commit is lost.
    CommitAnswerCut,
    /// A commit arrives in the middle of a later transaction.
    CommitHeld,
    /// A broker.
    Broker(Outage),
    /// Postgres: Freshet's own, and the source.
    Postgres(Outage),
    /// The network.
    Network(Server, Wire),
    /// Snowflake's service.
    Snowflake(&'static Trouble),
    /// All of it by turns, on three workers.
    Nemesis,
}

/// What happens to a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outage {
    /// SIGKILL, and started again.
    Killed,
    /// SIGSTOP for so many seconds.
    Paused(u64),
    /// Stopped in order and started again.
    Restarted,
    /// One of three killed; the others go on without it.
    OneLost,
    /// Every connection is thrown out.
    ThrownOut,
    /// Nothing can be written.
    ReadOnly,
    /// No connection is to be had.
    Crowded,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Server {
    Kafka,
    Ledger,
    Source,
}

/// Faults of Snowflake's service, in the emulator's words.
#[derive(Debug)]
pub struct Trouble {
    pub name: &'static str,
    rules: fn() -> Vec<Value>,
    /// The code that a run may rightly end with.
    ends: Option<&'static str>,
}

impl Trouble {
    const fn passing(name: &'static str, rules: fn() -> Vec<Value>) -> Self {
        Self { name, rules, ends: None }
    }
}

/// Every trouble there is.
pub static TROUBLES: &[Trouble] = &[
    Trouble::passing("429 without a word of when", || vec![json!({"kind": "status", "status": 429, "count": 6})]),
    Trouble::passing("503 before it ran", || {
        vec![json!({"kind": "status", "status": 503, "moment": "before", "count": 4})]
    }),
    Trouble::passing("503 after it ran", || {
        vec![json!({"kind": "status", "status": 503, "moment": "after", "on": ["submit"], "count": 3})]
    }),
    Trouble::passing("500 after it ran, 502 and 504 before", || {
        vec![
            json!({"kind": "status", "status": 500, "moment": "after", "on": ["submit"], "count": 1, "skip": 1}),
            json!({"kind": "status", "status": 502, "count": 1, "skip": 3}),
            json!({"kind": "status", "status": 504, "count": 1, "skip": 6}),
        ]
    }),
    Trouble::passing("202 and polling", || vec![json!({"kind": "accepted", "delay_ms": 120})]),
    Trouble::passing("connections cut before, after, within", || {
        vec![
            json!({"kind": "cut", "moment": "before", "count": 2}),
            json!({"kind": "cut", "moment": "after", "count": 2, "skip": 2}),
            json!({"kind": "cut", "moment": "body", "count": 2, "skip": 4}),
        ]
    }),
    Trouble::passing("tokens expire", || {
        [1, 4, 9, 15].map(|skip| json!({"kind": "token_expired", "count": 1, "skip": skip})).into()
    }),
    Trouble::passing("results expire within tiny partitions", || {
        vec![
            json!({"kind": "tiny_partitions", "rows": 20, "statement": ""}),
            json!({"kind": "result_expired", "on": ["partition"], "count": 2, "skip": 1, "statement": ""}),
        ]
    }),
    Trouble::passing("partitions short or damaged", || {
        vec![
            json!({"kind": "tiny_partitions", "rows": 20, "statement": ""}),
            json!({"kind": "short_partition", "count": 6, "statement": ""}),
            json!({"kind": "corrupt_gzip", "count": 2, "skip": 8, "statement": ""}),
        ]
    }),
    Trouble {
        name: "incomplete results",
        rules: || vec![json!({"kind": "incomplete", "count": 3})],
        ends: Some("snowflake.result_too_large"),
    },
    Trouble::passing("late answers", || vec![json!({"kind": "slow", "delay_ms": 400, "count": 6})]),
    Trouble::passing("a seal that runs late", || {
        vec![json!({"kind": "zombie", "delay_ms": 900, "count": 1, "statement": "create transient table"})]
    }),
];

impl Fault {
    /// What the table calls it.
    pub fn name(self) -> String {
        match self {
            Self::Nothing => "nothing".into(),
            Self::Kill(step, _) => format!("killed at {}", step.as_str()),
            Self::Freeze(step, _) => format!("frozen at {}, replaced, woken", step.as_str()),
            Self::Twins(step) => format!("two workers, the first at {}", step.as_str()),
            Self::KillAnywhere => "killed anywhere".into(),
            Self::Drain => "asked to stop".into(),
            Self::Cancel => "cancelled".into(),
            Self::CancelAndKill => "cancelled, and killed at committed".into(),
            Self::CommitAnswerCut => "answer to a commit cut".into(),
            Self::CommitHeld => "commit arrives late".into(),
            Self::Broker(Outage::Paused(seconds)) => format!("broker stands still for {seconds} s"),
            Self::Broker(outage) => format!("broker {}", outage.as_str()),
            Self::Postgres(outage) => format!("postgres {}", outage.as_str()),
            Self::Network(server, wire) => format!("{}: {}", server.as_str(), wire_name(wire)),
            Self::Snowflake(trouble) => format!("snowflake: {}", trouble.name),
            Self::Nemesis => "nemesis".into(),
        }
    }

    /// Whether it can happen to syncs of this origin, on so many brokers.
    pub fn concerns(self, origin: Origin, brokers: usize) -> bool {
        match self {
            // Where a seal changes nothing there is no statement whose answer could be lost.
            Self::Kill(Step::SealSent, _) | Self::Freeze(Step::SealSent, _) | Self::Twins(Step::SealSent) => {
                origin.seals()
            }
            Self::Snowflake(_) => origin.is_snowflake(),
            Self::Broker(Outage::OneLost) => brokers > 1,
            Self::Nothing
            | Self::Kill(..)
            | Self::Freeze(..)
            | Self::Twins(_)
            | Self::KillAnywhere
            | Self::Drain
            | Self::Cancel
            | Self::CancelAndKill
            | Self::CommitAnswerCut
            | Self::CommitHeld
            | Self::Broker(_)
            | Self::Postgres(_)
            | Self::Network(..)
            | Self::Nemesis => true,
        }
    }

    /// Every fault, each of the frequent ones with more than one pass; long ones come once.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Nothing];
        for step in Step::ALL {
            all.extend([1, 2, 3].map(|pass| Self::Kill(*step, pass)));
            all.push(Self::Freeze(*step, 1));
            all.push(Self::Freeze(*step, 2));
            all.push(Self::Twins(*step));
        }
        all.extend([Self::KillAnywhere; 4]);
        all.extend([Self::Drain, Self::Drain, Self::Cancel, Self::Cancel, Self::CancelAndKill, Self::CancelAndKill]);
        all.extend([Self::CommitAnswerCut; 3]);
        all.extend([Self::CommitHeld; 3]);
        all.extend([Outage::Killed, Outage::Killed, Outage::OneLost, Outage::Paused(5)].map(Self::Broker));
        let outages = [Outage::Restarted, Outage::Killed, Outage::ThrownOut, Outage::ReadOnly, Outage::Crowded];
        all.extend(outages.map(Self::Postgres));
        for server in [Server::Kafka, Server::Ledger, Server::Source] {
            let late = Wire::Late(Duration::from_millis(60));
            all.extend(
                [Wire::Cut, Wire::NoAnswers, late, Wire::Slow(30_000), Wire::Reset]
                    .map(|wire| Self::Network(server, wire)),
            );
        }
        all.extend(TROUBLES.iter().map(Self::Snowflake));
        all.extend([Self::Nemesis, Self::Nemesis]);
        all
    }

    /// Does it, up to the point where only healing is left.
    pub async fn strike(self, stage: &mut Stage<'_>) -> Result<()> {
        match self {
            Self::Nothing => nothing(stage).await,
            Self::Kill(step, pass) => kill(stage, FailPoint { step, pass, stops: false }).await,
            Self::Freeze(step, pass) => freeze(stage, FailPoint { step, pass, stops: true }).await,
            Self::Twins(step) => twins(stage, step).await,
            Self::KillAnywhere => kill_anywhere(stage).await,
            Self::Drain => drain(stage).await,
            Self::Cancel => cancel(stage).await,
            Self::CancelAndKill => cancel_and_kill(stage).await,
            Self::CommitAnswerCut => ambush(stage, Ambush::CutAnswer, 3).await,
            Self::CommitHeld => ambush(stage, Ambush::Hold, 2).await,
            Self::Broker(outage) => broker(stage, outage).await,
            Self::Postgres(outage) => postgres(stage, outage).await,
            Self::Network(server, wire) => network(stage, server, wire).await,
            Self::Snowflake(trouble) => snowflake(stage, trouble).await,
            Self::Nemesis => nemesis(stage).await,
        }
    }
}

impl Outage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Paused(_) => "stands still",
            Self::Restarted => "restarted",
            Self::OneLost => "lost, one of three",
            Self::ThrownOut => "throws everybody out",
            Self::ReadOnly => "only reads",
            Self::Crowded => "is crowded",
        }
    }
}

impl Server {
    fn as_str(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Ledger => "freshet's postgres",
            Self::Source => "source",
        }
    }
}

fn wire_name(wire: Wire) -> &'static str {
    match wire {
        Wire::Open => "open",
        Wire::Cut => "cut",
        Wire::NoAnswers => "no answers",
        Wire::Late(_) => "late",
        Wire::Slow(_) => "slow",
        Wire::Reset => "reset",
    }
}

/// The trouble of this name.
pub fn trouble(name: &str) -> &'static Trouble {
    TROUBLES.iter().find(|trouble| trouble.name == name).expect("the table above has it")
}

async fn nothing(stage: &mut Stage<'_>) -> Result<()> {
    stage.hire()?;
    stage.struck();
    stage.scene.progress(6).await.map(|_| ())
}

async fn kill(stage: &mut Stage<'_>, at: FailPoint) -> Result<()> {
    let mut first = stage.worker(Some(at), &[])?;
    first.falls().await?;
    stage.struck();
    drop(first);
    stage.postgres_must_not_lead().await?;
    // Three times in four the lease is over at once; else it runs out by itself.
    if stage.dice.random_ratio(3, 4) {
        stage.ground.lapse_leases().await?;
    }
    stage.hire()
}

async fn freeze(stage: &mut Stage<'_>, at: FailPoint) -> Result<()> {
    let mut first = stage.worker(Some(at), &[])?;
    first.falls().await?;
    stage.struck();
    stage.ground.lapse_leases().await?;
    stage.hire()?;
    stage.scene.progress(stage.dice.random_range(1..=2)).await?;
    first.signal(libc::SIGCONT);
    stage.workers.push(first);
    Ok(())
}

/// The leases are long, so that nobody tells the first that it was replaced: only what it finds when it writes.
async fn twins(stage: &mut Stage<'_>, step: Step) -> Result<()> {
    let long = [("FRESHET_LEASE_S", "60")];
    let mut first = stage.worker(Some(FailPoint { step, pass: 1, stops: true }), &long)?;
    first.falls().await?;
    stage.struck();
    stage.ground.lapse_leases().await?;
    let encoded = FailPoint { step: Step::Encoded, pass: 1, stops: true };
    let mut second = stage.worker(Some(encoded), &long)?;
    second.falls().await?;
    let before = stage.ground.books().await?;
    first.signal(libc::SIGCONT);
    sleep(Duration::from_millis(1_200)).await;
    let after = stage.ground.books().await?;
    if before != after {
        let what =
            ["runs", "attempts", "positions", "partitions"].into_iter().filter(|what| before[what] != after[what]);
        let what = what.collect::<Vec<_>>().join(", ");
        stage.breaks(format!("a worker that was replaced wrote: {what}"));
    }
    second.signal(libc::SIGCONT);
    stage.workers.extend([first, second]);
    Ok(())
}

async fn kill_anywhere(stage: &mut Stage<'_>) -> Result<()> {
    stage.hire()?;
    stage.scene.progress(1).await?;
    for _ in 0..3 {
        sleep(Duration::from_millis(stage.dice.random_range(0..500))).await;
        stage.workers.clear();
        stage.struck();
        if stage.dice.random() {
            stage.ground.lapse_leases().await?;
        }
        stage.hire()?;
    }
    Ok(())
}

async fn drain(stage: &mut Stage<'_>) -> Result<()> {
    stage.hire()?;
    stage.scene.progress(1).await?;
    for _ in 0..2 {
        sleep(Duration::from_millis(stage.dice.random_range(0..300))).await;
        stage.struck();
        stage.hire()?;
        stage.workers.remove(0).drain().await?;
    }
    Ok(())
}

async fn cancel(stage: &mut Stage<'_>) -> Result<()> {
    stage.hire()?;
    stage.scene.progress(1).await?;
    stage.struck();
    let mut cancelled = 0;
    for _ in 0..60 {
        sleep(Duration::from_millis(stage.dice.random_range(0..400))).await;
        if stage.scene.cancel(stage.ground).await? {
            cancelled += 1;
        }
        if cancelled == 3 {
            break;
        }
    }
    ensure!(cancelled > 0, "no run could be cancelled");
    stage.allowed = Some(" cancelled: ");
    Ok(())
}

/// It stops where it is asked to, after a commit that nobody has written down; is cancelled; and dies.
async fn cancel_and_kill(stage: &mut Stage<'_>) -> Result<()> {
    stage.allowed = Some(" cancelled: ");
    let mut first = stage.worker(Some(FailPoint { step: Step::Committed, pass: 1, stops: true }), &[])?;
    first.falls().await?;
    stage.struck();
    ensure!(stage.scene.cancel(stage.ground).await?, "the run was over before it could be cancelled");
    drop(first);
    stage.postgres_must_not_lead().await?;
    stage.ground.lapse_leases().await?;
    stage.hire()
}

async fn ambush(stage: &mut Stage<'_>, ambush: Ambush, times: usize) -> Result<()> {
    stage.hire()?;
    stage.scene.progress(1).await?;
    for _ in 0..times {
        stage.ground.kafka.iter().for_each(|proxy| proxy.lie_in_wait(ambush));
        let struck = futures::future::select_all(stage.ground.kafka.iter().map(|proxy| Box::pin(proxy.struck())));
        timeout(STRIKE_WAIT, struck).await.context("no commit came by")?;
        stage.ground.kafka.iter().for_each(Proxy::calm);
        stage.struck();
    }
    Ok(())
}

async fn broker(stage: &mut Stage<'_>, outage: Outage) -> Result<()> {
    stage.hire()?;
    stage.scene.progress(1).await?;
    let node = (stage.dice.random_range(0..stage.ground.kafka.len()) + 1).to_string();
    sleep(Duration::from_millis(stage.dice.random_range(0..300))).await;
    stage.struck();
    match outage {
        Outage::Killed => {
            dev("kafka", &["kill", &node]).await?;
            sleep(Duration::from_millis(stage.dice.random_range(0..1_000))).await;
            dev("kafka", &["restart", &node]).await
        }
        Outage::Paused(seconds) => {
            dev("kafka", &["pause", &node]).await?;
            sleep(Duration::from_secs(seconds)).await;
            dev("kafka", &["resume", &node]).await
        }
        Outage::OneLost => {
            dev("kafka", &["kill", &node]).await?;
            // Without it, and not only until it is back.
            let went_on = stage.scene.progress(2).await;
            dev("kafka", &["restart", &node]).await?;
            went_on.map(|_| ())
        }
        Outage::Restarted | Outage::ThrownOut | Outage::ReadOnly | Outage::Crowded => bail!("not done to a broker"),
    }
}

async fn postgres(stage: &mut Stage<'_>, outage: Outage) -> Result<()> {
    stage.hire()?;
    stage.scene.progress(1).await?;
    sleep(Duration::from_millis(stage.dice.random_range(0..300))).await;
    stage.struck();
    let admin = &stage.ground.admin;
    let throw_out = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                     where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let run = async |sql: String| {
        again("change the server", || async { sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone())).execute(admin).await })
            .await
    };
    let only_reads = async |value: &str| {
        let name: String = again("ask its name", || async {
            sqlx::query_scalar("select current_database()::text").fetch_one(admin).await
        })
        .await?;
        // The session that heals it must be able to write itself.
        run(format!("set transaction_read_only = off; alter database {name} {value}")).await?;
        run(throw_out.to_owned()).await
    };
    match outage {
        Outage::Restarted => dev("postgres", &["restart"]).await,
        Outage::Killed => {
            dev("postgres", &["kill"]).await?;
            sleep(Duration::from_millis(stage.dice.random_range(0..500))).await;
            dev("postgres", &["start"]).await
        }
        Outage::ThrownOut => run(throw_out.to_owned()).await.map(|_| ()),
        Outage::ReadOnly => {
            only_reads("set default_transaction_read_only = on").await?;
            sleep(Duration::from_millis(1_500)).await;
            only_reads("reset default_transaction_read_only").await.map(|_| ())
        }
        Outage::Crowded => {
            let mut crowd = Vec::new();
            let url = stage.ground.source_url();
            while let Ok(one) = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await {
                crowd.push(one);
            }
            // Who is in stays in, so everybody is thrown out and finds no place.
            sleep(Duration::from_millis(1_500)).await;
            drop(crowd);
            Ok(())
        }
        Outage::Paused(_) | Outage::OneLost => bail!("not done to Postgres"),
    }
}

async fn network(stage: &mut Stage<'_>, server: Server, wire: Wire) -> Result<()> {
    stage.hire()?;
    stage.scene.progress(1).await?;
    let proxies: Vec<&Proxy> = match server {
        Server::Kafka => stage.ground.kafka.iter().collect(),
        Server::Ledger => vec![&stage.ground.ledger],
        Server::Source if stage.scene.origin.is_snowflake() => vec![&stage.ground.snowflake],
        Server::Source => vec![&stage.ground.source],
    };
    sleep(Duration::from_millis(stage.dice.random_range(0..300))).await;
    stage.struck_ms = Some(crate::round::now_ms());
    proxies.iter().for_each(|proxy| proxy.set(wire));
    sleep(Duration::from_millis(stage.dice.random_range(400..2_000))).await;
    proxies.iter().for_each(|proxy| proxy.calm());
    Ok(())
}

async fn snowflake(stage: &mut Stage<'_>, trouble: &Trouble) -> Result<()> {
    stage.hire()?;
    stage.scene.progress(1).await?;
    let seed = stage.dice.random_range(1..1_000_000);
    stage.allowed = trouble.ends;
    // A batch of several partitions: changes pile up meanwhile.
    stage.scene.rest().await?;
    sleep(Duration::from_millis(900)).await;
    stage.ground.emulator.set_faults(&(trouble.rules)(), seed).await?;
    stage.struck();
    stage.scene.drive();
    let is_fault = |(kind, count): &(String, u64)| kind != "tiny_partitions" && *count > 0;
    let since = Instant::now();
    loop {
        sleep(Duration::from_millis(150)).await;
        let struck = stage.ground.emulator.struck().await?;
        let all = struck.iter().all(|(_, count)| *count > 0);
        if all || struck.iter().any(is_fault) && since.elapsed() > Duration::from_secs(6) {
            return Ok(());
        }
        ensure!(since.elapsed() < STRIKE_WAIT, "the fault did not strike: {struck:?}");
    }
}

/// Everything at once, for ten seconds.
async fn nemesis(stage: &mut Stage<'_>) -> Result<()> {
    for _ in 0..3 {
        stage.hire()?;
    }
    stage.scene.progress(1).await?;
    stage.struck();
    let mut asleep = Vec::new();
    for _ in 0..14 {
        sleep(Duration::from_millis(stage.dice.random_range(100..1_200))).await;
        match stage.dice.random_range(0..10) {
            0 | 1 => {
                let who = stage.dice.random_range(0..stage.workers.len());
                drop(stage.workers.swap_remove(who));
                stage.hire()?;
            }
            2 | 3 => {
                let who = stage.dice.random_range(0..stage.workers.len());
                let sleeper = stage.workers.swap_remove(who);
                sleeper.signal(libc::SIGSTOP);
                asleep.push(sleeper);
                stage.hire()?;
            }
            4 => {
                for sleeper in asleep.drain(..) {
                    sleeper.signal(libc::SIGCONT);
                    stage.workers.push(sleeper);
                }
                stage.workers.truncate(4);
            }
            5 => stage.ground.lapse_leases().await?,
            6 => pinch(stage, &stage.ground.ledger.clone()).await,
            7 => pinch(stage, &stage.ground.kafka[0].clone()).await,
            8 => pinch(stage, &stage.ground.source.clone()).await,
            _ => {
                let which = stage.dice.random_range(0..TROUBLES.len());
                stage.ground.emulator.set_faults(&(TROUBLES[which].rules)(), 1).await?;
            }
        }
    }
    for sleeper in asleep {
        sleeper.signal(libc::SIGCONT);
        stage.workers.push(sleeper);
    }
    Ok(())
}

async fn pinch(stage: &mut Stage<'_>, proxy: &Proxy) {
    let wires = [Wire::Cut, Wire::NoAnswers, Wire::Reset, Wire::Late(Duration::from_millis(40))];
    proxy.set(wires[stage.dice.random_range(0..wires.len())]);
    sleep(Duration::from_millis(stage.dice.random_range(50..600))).await;
    proxy.calm();
}
