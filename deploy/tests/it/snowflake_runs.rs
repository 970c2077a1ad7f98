//! Whole runs from Snowflake's emulator to real Kafka: what is delivered, what is left behind.
//!
//! The emulator is a program of its own: `cargo build -p snowflake-emulator`, or its path in
//! `FRESHET_TEST_SNOWFLAKE_EMULATOR`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use freshet_core::connector::ModelSpec;
use freshet_core::error::Code;
use freshet_core::operation::Question;
use freshet_core::page::PageRequest;
use freshet_core::run::RunState;
use freshet_core::sync::Resync;
use freshet_core::testing::{EGRESS, make_source, surroundings, surroundings_or, with_database};
use freshet_core::{run, sync};
use freshet_worker::sources::snowflake::client::http_client;
use serde_json::{Value, json};

use crate::shop::{Process, Shop, each_once};
use crate::snowflake::Account;
use crate::snowflake::account::{self, answered};
use crate::snowflake::runs::replayed;

/// A running emulator with the database SHOP.
pub struct Emulator {
    _process: Process,
    url: String,
    database_url: String,
}

fn program() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the tests' surroundings are no settings of the service")]
    let named = std::env::var("FRESHET_TEST_SNOWFLAKE_EMULATOR").map(PathBuf::from);
    let path =
        named.unwrap_or_else(|_| PathBuf::from(env!("CARGO_BIN_EXE_freshet")).with_file_name("snowflake-emulator"));
    assert!(path.exists(), "{} is missing; run: cargo build -p snowflake-emulator", path.display());
    path
}

impl Emulator {
    pub async fn start() -> Self {
        let database_url = with_database(&surroundings("FRESHET_TEST_DATABASE_URL"), &make_source().await.unwrap());
        let mut process = Command::new(program())
            .args(["serve", "--database-url", &database_url])
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let emulator = Self { _process: Process(process), url: url.trim().to_owned(), database_url };
        emulator.command("create-database", &["SHOP"]);
        emulator.command("create-user", &["LOADER"]);
        emulator.sql("create warehouse WH; create schema FRESHET");
        emulator
    }

    fn command(&self, command: &str, arguments: &[&str]) -> String {
        let output = Command::new(program())
            .args([command, "--database-url", &self.database_url])
            .args(arguments)
            .env("RUST_LOG", "error")
            .output()
            .unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn sql(&self, statements: &str) -> String {
        self.command("sql", &["--database", "SHOP", "--schema", "PUBLIC", statements])
    }

    /// Adds orders with these numbers.
    pub fn add_orders(&self, numbers: std::ops::RangeInclusive<i64>) {
        let values: Vec<_> = numbers.map(|n| format!("({n}, 'order {n}', {n}.50)")).collect();
        self.sql(&format!("insert into \"orders\" values {}", values.join(", ")));
    }

    /// The table `orders`, and an active sync of it to a topic of its own.
    pub async fn sync(&self, config: Value) -> Shop {
        self.sql(
            "create table \"orders\" (\"id\" number(38,0) primary key, \"name\" varchar, \"amount\" number(12,2))",
        );
        let spec = ModelSpec::Table { schema: "PUBLIC".into(), table: "orders".into() };
        self.sync_of(spec, &["id"], config, json!({})).await
    }

    /// The table `orders`, the Stream FRESHET.S on it, and an active sync of that.
    pub async fn stream_sync(&self) -> Shop {
        self.sql(
            "create table \"orders\" (\"id\" number(38,0) primary key, \"name\" varchar, \"amount\" number(12,2))",
        );
        self.sql("create stream FRESHET.S on table \"orders\"");
        let spec = ModelSpec::Stream { schema: "FRESHET".into(), stream: "S".into() };
        // The key is the table's own.
        self.sync_of(spec, &[], json!({"mode": {"kind": "changes"}}), json!({})).await
    }

    /// An active sync to a topic of its own; `changes` to the connection's settings.
    async fn sync_of(&self, spec: ModelSpec, key: &[&str], config: Value, changes: Value) -> Shop {
        let mut settings = self.settings();
        for (name, value) in changes.as_object().unwrap() {
            settings[name] = value.clone();
        }
        account::sync_of(settings, self.hosts(), spec, key, config).await
    }

    /// What a connection to it is made with.
    pub fn settings(&self) -> Value {
        let token = self.command("create-token", &["LOADER"]);
        json!({
            "account": "emulator-account", "host": self.url, "user": "loader", "warehouse": "wh", "database": "shop",
            "late_commit_s": 0, "sign_in": {"kind": "access_token", "token": token.trim()},
        })
    }

    pub fn hosts(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The rows of `orders` that the emulator shows, by id.
    pub fn orders(&self) -> BTreeMap<i64, Value> {
        let printed = self.sql("select * from \"orders\"");
        let lines: Vec<_> = printed.lines().skip(2).collect();
        let (count, lines) = lines.split_last().unwrap();
        assert_eq!(*count, format!("({} rows)", lines.len()));
        let row = |line: &&str| {
            let [id, name, amount] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else { panic!("{line}") };
            let amount: Value = serde_json::from_str(amount).unwrap();
            let id: i64 = id.parse().unwrap();
            (id, json!({"id": id, "name": name, "amount": amount}))
        };
        lines.iter().map(row).collect()
    }

    /// The statements that took changes out of a Stream, the oldest of the last 200 first.
    async fn seals(&self) -> Vec<String> {
        let told = self.admin("GET", "statements", json!({})).await;
        let statements = told["statements"].as_array().unwrap().iter();
        let mut seals: Vec<_> = statements
            .filter_map(|one| Some((one["created_ms"].as_i64()?, one["statement"].as_str()?)))
            .filter(|(_, text)| text.starts_with("create transient table"))
            .collect();
        seals.sort_unstable();
        seals.into_iter().map(|(_, text)| text.to_owned()).collect()
    }

    /// Asks the emulator itself, `path` after `/emulator/`.
    pub async fn admin(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("{}/emulator/{path}", self.url);
        let request = http_client(&EGRESS, &url).unwrap().request(method.parse().unwrap(), url).json(&body);
        request.send().await.unwrap().json().await.unwrap()
    }
}

#[tokio::test]
async fn a_full_run_delivers_every_row_once_though_its_worker_dies_and_leaves_no_table() {
    let emulator = Emulator::start().await;
    let shop = emulator.sync(json!({"mode": {"kind": "full"}})).await;
    emulator.add_orders(1..=2_500);
    let first = shop.worker();
    let (run, held) = shop.run_held().await;
    first.signal("-KILL");
    drop(held);
    drop(first);
    // What was sealed is sent, whatever the table holds by now.
    emulator.sql("delete from \"orders\"");
    let _second = shop.worker();

    let ended = shop.ended(run).await;

    assert!(ended.failure.is_none(), "{:?}", ended.failure);
    let seen = shop.committed();
    each_once(&seen, 1..=2_500);
    assert!(seen.iter().all(|record| record.value["op"] == "r"));
    assert!(!emulator.sql("show tables in schema FRESHET").contains("FRESHET_FULL"));
}

/// The emulator as an account.
async fn emulated() -> (Emulator, Account) {
    let emulator = Emulator::start().await;
    let account = Account::open(emulator.settings(), emulator.hosts()).await;
    (emulator, account)
}

crate::snowflake::facts!(emulated);

/// Five polls one after another, or one each 5 s for as long as `FRESHET_TEST_IDLE_S` says: the ten minutes of
/// deploy/README.md.
#[tokio::test]
async fn an_idle_streams_runs_need_no_warehouse_by_the_emulators_own_count() {
    let seconds = surroundings_or("FRESHET_TEST_IDLE_S", "0").parse().expect("whole seconds");
    let emulator = Emulator::start().await;
    let shop = emulator.stream_sync().await;
    emulator.add_orders(1..=10);
    let _worker = shop.worker();
    shop.run_to_the_end().await;
    emulator.admin("DELETE", "accounting", json!({})).await;

    let (since, mut runs) = (Instant::now(), 0_i64);
    while runs < 5 || since.elapsed() < Duration::from_secs(seconds) {
        assert_eq!(shop.run_to_the_end().await.outcome.as_deref(), Some("no_changes"));
        runs += 1;
        if seconds > 0 {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    let account = emulator.admin("GET", "accounting", json!({})).await;
    println!("{runs} runs in {} s: {account}", since.elapsed().as_secs());
    assert_eq!(account["warehouse_count"], 0, "{account}");
    assert!(account["metadata_only_count"].as_i64().unwrap() >= runs, "{account}");
    assert_eq!(replayed(&shop.committed()), emulator.orders());
}

#[tokio::test]
async fn workers_die_while_changes_go_on_and_the_topic_still_replays_to_the_table() {
    let emulator = Emulator::start().await;
    let shop = emulator.stream_sync().await;
    let mut worker = shop.worker();
    for round in 0..4_i64 {
        let first = round * 1_000 + 1;
        emulator.add_orders(first..=first + 999);
        emulator.sql(&format!(
            "update \"orders\" set \"name\" = 'round {round}' where \"id\" % 3 = {}; delete from \"orders\" where \"id\" % 7 = {round}",
            round % 3
        ));
        let run = shop.run().await;
        crate::shop::until("the run publishes", async || {
            let found = shop.found(run).await;
            (found.state == RunState::Publishing || found.state.is_final()).then_some(())
        })
        .await;
        tokio::time::sleep(std::time::Duration::from_millis(100 * round.unsigned_abs())).await;
        worker.signal("-KILL");
        worker = shop.worker();
        // What changes now is for the next batch, whatever is sealed already.
        emulator.sql("update \"orders\" set \"amount\" = \"amount\" + 1 where \"id\" % 5 = 0");
        let ended = shop.ended(run).await;
        assert!(ended.failure.is_none(), "{:?}", ended.failure);
    }

    shop.run_to_the_end().await;

    assert_eq!(replayed(&shop.committed()), emulator.orders());
    assert_eq!(shop.run_to_the_end().await.outcome.as_deref(), Some("no_changes"));
}

#[tokio::test]
async fn faults_of_every_kind_under_load_lose_repeat_and_reorder_nothing() {
    let emulator = Emulator::start().await;
    emulator.sql(
        "create table \"orders\" (\"id\" number(38,0) primary key, \"name\" varchar, \"amount\" number(12,2));
         create stream FRESHET.S on table \"orders\"",
    );
    let spec = ModelSpec::Stream { schema: "FRESHET".into(), stream: "S".into() };
    // Delivered tables are dropped after two seconds, and statements that were given up come later than that.
    let hasty = json!({"statement_timeout_s": 1});
    let shop = emulator.sync_of(spec, &[], json!({"mode": {"kind": "changes"}}), hasty).await;
    let rule = |fault: Value, probability: f64| {
        let mut rule = fault;
        rule["probability"] = probability.into();
        rule
    };
    let rules = json!({"seed": 7, "rules": [
        rule(json!({"kind": "zombie", "delay_ms": 4_000, "statement": "create transient"}), 0.1),
        rule(json!({"kind": "status", "status": 503}), 0.03),
        rule(json!({"kind": "status", "status": 504, "moment": "after", "on": ["submit"]}), 0.05),
        rule(json!({"kind": "cut", "moment": "after"}), 0.03),
        rule(json!({"kind": "cut", "moment": "body", "on": ["poll", "partition"]}), 0.03),
        rule(json!({"kind": "accepted", "delay_ms": 200}), 0.2),
        rule(json!({"kind": "tiny_partitions", "rows": 50}), 0.5),
    ]});
    emulator.admin("PUT", "faults", rules).await;
    let mut worker = shop.worker();

    for step in 0..24_i64 {
        let first = step * 100 + 1;
        emulator.add_orders(first..=first + 99);
        emulator.sql(&format!(
            "update \"orders\" set \"name\" = 'step {step}' where \"id\" % 11 = {}; delete from \"orders\" where \"id\" % 23 = {}",
            step % 11,
            step % 23
        ));
        shop.run().await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        // A seal of long ago comes once more: some take what is in the Stream, for their tables are gone.
        if let Some(late) = emulator.seals().await.into_iter().nth(step.unsigned_abs() as usize % 3) {
            emulator.sql(&late);
        }
        if step % 8 == 7 {
            worker.signal("-KILL");
            worker = shop.worker();
        }
    }
    emulator.admin("DELETE", "faults", json!({})).await;
    let mut idle = 0;
    while idle < 3 {
        let id = shop.run().await;
        let ended = shop.ended(id).await;
        assert!(ended.failure.is_none(), "{:?}", ended.failure);
        idle = if ended.outcome.is_some() { idle + 1 } else { 0 };
    }

    assert_eq!(replayed(&shop.committed()), emulator.orders());
    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    let page = PageRequest { limit: 200, before: None };
    let mut adopted = 0;
    for found in run::ops::list(app, caller, Some(shop.sync), &[], page).await.unwrap().data {
        let events = run::ops::events(app, caller, found.id, 0).await.unwrap();
        adopted += events.iter().filter(|event| event.code == "source.table_adopted").count();
    }
    assert!(adopted > 0, "no late seal took anything");
}

#[tokio::test]
async fn what_a_zombie_took_out_of_the_stream_is_adopted_and_goes_first() {
    let emulator = Emulator::start().await;
    let shop = emulator.stream_sync().await;
    emulator.add_orders(1..=5);
    // The first worker's statement is held back, and the worker dies waiting for it.
    let held = json!({"kind": "zombie", "count": 1, "statement": "create transient"});
    emulator.admin("PUT", "faults", json!({"rules": [held]})).await;
    let first = shop.worker();
    let run = shop.run().await;
    crate::shop::until("the statement is held", async || {
        let rules = emulator.admin("GET", "faults", json!({})).await;
        (rules["rules"][0]["struck"].as_i64() == Some(1)).then_some(())
    })
    .await;
    first.signal("-KILL");
    drop(first);
    let _second = shop.worker();
    let ended = shop.ended(run).await;
    assert!(ended.failure.is_none(), "{:?}", ended.failure);
    // The delivered table is gone, as it is once it is old; then the held statement runs after all.
    let printed = emulator.sql("show tables in schema FRESHET");
    let table = printed.split_whitespace().find(|word| word.starts_with("FRESHET_STG_")).unwrap();
    emulator.sql(&format!("drop table FRESHET.\"{table}\""));
    emulator.sql("update \"orders\" set \"name\" = 'taken by the zombie'");
    emulator.admin("POST", "zombies/release", json!({})).await;
    crate::shop::until("the zombie has its rows", async || {
        emulator.sql("show tables in schema FRESHET").contains(table).then_some(())
    })
    .await;
    emulator.sql("update \"orders\" set \"name\" = 'after the zombie'; delete from \"orders\" where \"id\" = 5");

    let adopted = shop.run_to_the_end().await;
    let last = shop.run_to_the_end().await;

    assert_eq!((adopted.counts.updated, last.counts.updated, last.counts.deleted), (5, 4, 1));
    let told = run::ops::events(&shop.bench.app, &shop.bench.caller, adopted.id, 0).await.unwrap();
    assert!(told.iter().any(|event| event.code == "source.table_adopted" && event.level == "warning"), "{told:?}");
    assert_eq!(replayed(&shop.committed()), emulator.orders());
}

#[tokio::test]
async fn a_table_in_mode_diff_replays_though_workers_die_in_seals_and_releases_and_statements_come_late() {
    let emulator = Emulator::start().await;
    let shop = emulator.sync(json!({"mode": {"kind": "diff"}})).await;
    emulator.add_orders(1..=700);
    let held = ["create transient", "full outer join", "drop table"].map(Some);
    for (round, held) in (0..).zip(held.into_iter().chain([None; 4])) {
        emulator.add_orders(1_000 + 10 * round..=1_009 + 10 * round);
        emulator.sql(&format!(
            "update \"orders\" set \"name\" = 'round {round}' where \"id\" % 3 = {}; delete from \"orders\" where \"id\" % 17 = {round}",
            round % 3
        ));
        if let Some(statement) = held {
            let held = json!({"kind": "zombie", "count": 1, "statement": statement});
            emulator.admin("PUT", "faults", json!({"rules": [held]})).await;
        }
        let first = shop.worker();
        let run = shop.run().await;
        match held {
            Some(statement) => {
                crate::shop::until(&format!("`{statement}` is held"), async || {
                    let rules = emulator.admin("GET", "faults", json!({})).await;
                    (rules["rules"][0]["struck"].as_i64() == Some(1)).then_some(())
                })
                .await;
            }
            None => tokio::time::sleep(std::time::Duration::from_millis(300 * round.unsigned_abs())).await,
        }
        first.signal("-KILL");
        drop(first);
        // What changes now is for the next batch, if a snapshot was taken.
        emulator.sql("update \"orders\" set \"amount\" = \"amount\" + 1 where \"id\" % 5 = 0");

        let second = shop.worker();
        let ended = shop.ended(run).await;
        assert!(ended.failure.is_none(), "round {round}: {:?}", ended.failure);
        // The statement of the worker that died runs only now.
        emulator.admin("POST", "zombies/release", json!({})).await;
        drop(second);
    }
    let _worker = shop.worker();
    shop.run_to_the_end().await;

    assert!(replayed(&shop.committed()) == emulator.orders(), "the topic tells another table");
    let idle = shop.run_to_the_end().await;
    let left = emulator.sql("show tables in schema FRESHET");
    assert_eq!(idle.outcome.as_deref(), Some("no_changes"));
    // The last snapshot, and what the idle run made, which the next seal drops.
    assert_eq!((left.matches("FRESHET_SNAP_").count(), left.matches("FRESHET_DIFF_").count()), (2, 1), "{left}");
}

#[tokio::test]
async fn a_stale_stream_fails_the_run_and_a_resync_sends_every_row() {
    let emulator = Emulator::start().await;
    let shop = emulator.stream_sync().await;
    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    emulator.add_orders(1..=20);
    let _worker = shop.worker();
    shop.run_to_the_end().await;
    emulator.add_orders(21..=30);
    emulator.admin("POST", "streams/stale", json!({"stream": "SHOP.FRESHET.S"})).await;
    let run = shop.run().await;

    let failed = shop.ended(run).await;
    let unconfirmed = sync::ops::confirm_resync(app, caller, shop.sync, Resync::Position, None).await.unwrap_err();
    sync::ops::confirm_resync(app, caller, shop.sync, Resync::Full, None).await.unwrap();
    let made = answered(&shop, Question::ResyncSync { sync: shop.sync, how: Resync::Full }).await.unwrap();
    let resynced = shop.run_to_the_end().await;

    assert_eq!(failed.failure.unwrap().code, Code::SnowflakeStale.as_str());
    assert_eq!(failed.attempt_count, 1);
    assert_eq!(unconfirmed.code, Code::Invalid);
    let statement = made["stream"]["statement"].as_str().unwrap();
    assert!(statement.starts_with("create or replace stream \"FRESHET\".\"S\" on table"), "{statement}");
    assert_eq!((resynced.counts.created, resynced.counts.published), (30, 30));
    let seen: BTreeSet<_> = shop.committed().iter().map(|seen| seen.headers["freshet-id"].clone()).collect();
    assert_eq!(seen.len(), 50);
    emulator.sql("delete from \"orders\" where \"id\" = 30");
    assert_eq!(shop.run_to_the_end().await.counts.deleted, 1);
    let (_, _, position) = sync::ops::get(app, caller, shop.sync).await.unwrap();
    assert!(position.unwrap().carry.unwrap()["stream"]["stale_after"].is_string());
}

#[tokio::test]
async fn a_second_sync_of_a_stream_is_refused() {
    let emulator = Emulator::start().await;
    let shop = emulator.stream_sync().await;
    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    let (first, ..) = sync::ops::get(app, caller, shop.sync).await.unwrap();
    let mut config = first.config.clone();
    config.topic.name = format!("{}.too", shop.topic);
    let new = |config| sync::ops::NewSync {
        name: "orders too".into(),
        model: first.model_id,
        destination: first.destination_id,
        config,
    };

    let second = sync::ops::create(app, caller, new(config.clone())).await.unwrap();
    let refused = sync::ops::activate(app, caller, second.id).await.unwrap_err();
    config.mode = freshet_core::connector::ReadMode::Full;
    let unfit = sync::ops::create(app, caller, new(config.clone())).await.unwrap_err();

    assert_eq!(refused.code, Code::StreamInUse);
    assert_eq!(unfit.fields[0].pointer, "/config/mode/kind");
    sync::ops::pause(app, caller, shop.sync).await.unwrap();
    sync::ops::archive(app, caller, shop.sync).await.unwrap();
    config.mode = first.config.mode.clone();
    let mut drafts = vec![second.id];
    for number in 2..6 {
        let draft = sync::ops::NewSync { name: format!("orders {number}"), ..new(config.clone()) };
        drafts.push(sync::ops::create(app, caller, draft).await.unwrap().id);
    }
    let at_once = drafts.iter().map(|draft| sync::ops::activate(app, caller, *draft));
    let activated = futures::future::join_all(at_once).await;
    assert_eq!(activated.iter().filter(|one| one.is_ok()).count(), 1, "{activated:?}");
}

#[tokio::test]
async fn a_run_knows_what_it_asked_of_snowflake() {
    let emulator = Emulator::start().await;
    let shop = emulator.sync(json!({"mode": {"kind": "full"}})).await;
    emulator.add_orders(1..=120);
    let _worker = shop.worker();

    let ended = shop.run_to_the_end().await;
    let (total, queries) = run::ops::queries(&shop.bench.app, &shop.bench.caller, ended.id).await.unwrap();

    let computed: Vec<_> =
        queries.iter().filter(|query| query.is_computed).map(|query| query.statement.as_str()).collect();
    assert_eq!(computed, ["select", "create transient table if not exists", "select", "select"], "{queries:?}");
    let read = queries.iter().find(|query| query.row_count == 120).expect("the statement that read the batch");
    assert!(read.byte_count > 0 && read.credits > 0.0 && !read.query_id.is_empty(), "{read:?}");
    assert_eq!(total.query_count, i64::try_from(queries.len()).unwrap());
    assert!(total.computed_s > 0.0 && total.computed_s < 60.0, "{total:?}");
}
