//! Whole runs from Snowflake's emulator to real Kafka: what is delivered, what is left behind.
//!
//! The emulator is a program of its own: `cargo build -p snowflake-emulator`, or its path in
//! `FRESHET_TEST_SNOWFLAKE_EMULATOR`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use freshet_core::connector::{ModelSpec, Registry};
use freshet_core::endpoint::{Connection, Destination, ops as endpoint};
use freshet_core::id::{RequestId, SyncId};
use freshet_core::testing::{Bench, make_source, surroundings, with_database};
use freshet_core::{model, run, sync};
use freshet_worker::sources;
use serde_json::{Value, json};

use crate::shop::{Shop, each_once};

/// A running emulator with the database SHOP.
struct Emulator {
    process: Child,
    url: String,
    database_url: String,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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
    async fn start() -> Self {
        let database_url = with_database(&surroundings("FRESHET_TEST_DATABASE_URL"), &make_source().await.unwrap());
        let mut process = Command::new(program())
            .args(["serve", "--database-url", &database_url])
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let emulator = Self { process, url: url.trim().to_owned(), database_url };
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

    fn sql(&self, statements: &str) -> String {
        self.command("sql", &["--database", "SHOP", "--schema", "PUBLIC", statements])
    }

    /// Adds orders with these numbers.
    fn add_orders(&self, numbers: std::ops::RangeInclusive<i64>) {
        let values: Vec<_> = numbers.map(|n| format!("({n}, 'order {n}', {n}.50)")).collect();
        self.sql(&format!("insert into \"orders\" values {}", values.join(", ")));
    }

    /// An active sync of `orders` to a topic of its own.
    async fn sync(&self, config: Value) -> Shop {
        self.sql(
            "create table \"orders\" (\"id\" number(38,0) primary key, \"name\" varchar, \"amount\" number(12,2))",
        );
        let hosts = self.url.trim_start_matches("http://").to_owned();
        let registry = freshet_worker::register(Registry::default());
        let settings = freshet_core::settings::Settings::with(&[("snowflake_hosts", &hosts)]).unwrap();
        let bench = Bench::new(sources::configure(registry, &settings).unwrap()).await;
        let (app, caller) = (&bench.app, &bench.caller);
        let token = self.command("create-token", &["LOADER"]);
        let settings = json!({
            "account": "emulator-account", "host": self.url, "user": "loader", "warehouse": "wh", "database": "shop",
            "late_commit_s": 0, "sign_in": {"kind": "access_token", "token": token.trim()},
        });
        let connection = endpoint::create::<Connection>(app, caller, "snowflake", "shop", settings).await.unwrap();
        let spec = ModelSpec::Table { schema: "PUBLIC".into(), table: "orders".into() };
        let model = model::ops::create(app, caller, connection.id, "orders", &spec, &["id".into()]).await.unwrap();
        let kafka =
            json!({"bootstrap_servers": surroundings("FRESHET_TEST_KAFKA"), "security": {"protocol": "plaintext"}});
        let destination = endpoint::create::<Destination>(app, caller, "kafka", "cluster", kafka).await.unwrap();
        let topic = format!("test.{}", RequestId::new());
        let mut config = config;
        config["topic"] = json!({"name": topic, "create": {"partitions": 3}});
        let new = sync::ops::NewSync {
            name: "orders out".into(),
            model: model.id,
            destination: destination.id,
            config: serde_json::from_value(config).unwrap(),
        };
        let made: SyncId = sync::ops::create(app, caller, new).await.unwrap().id;
        let environment = [
            ("FRESHET_DATABASE_URL", app.settings.database_url.expose()),
            ("FRESHET_MASTER_KEYS", app.settings.master_keys.expose()),
            ("FRESHET_LEASE_S", "2"),
            ("FRESHET_RETRY_BASE_S", "0.5"),
            ("FRESHET_CHUNK_ROWS_MAX", "100"),
            ("FRESHET_SNOWFLAKE_HOSTS", &hosts),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let shop = Shop { bench, source: String::new(), sync: made, topic, environment };
        let (app, caller) = (&shop.bench.app, &shop.bench.caller);
        let asked = freshet_core::operation::Question::DescribeModel { model: model.id };
        let asked = freshet_core::operation::ops::ask(app, caller, asked).await.unwrap();
        let worker = shop.worker();
        crate::shop::until("the model is described", async || {
            let found = freshet_core::operation::ops::get(app, caller, asked.id).await.unwrap();
            assert_ne!(found.state, "failed", "{:?}", found.error);
            (found.state == "succeeded").then_some(())
        })
        .await;
        drop(worker);
        sync::ops::activate(app, caller, made).await.unwrap();
        shop
    }
}

#[tokio::test]
async fn a_full_run_delivers_every_row_once_though_its_worker_dies_and_leaves_no_table() {
    let emulator = Emulator::start().await;
    let shop = emulator.sync(json!({"mode": {"kind": "full"}})).await;
    emulator.add_orders(1..=2_500);
    let first = shop.worker();
    let run = shop.run().await;
    shop.is_under_way(run).await;
    first.signal("-KILL");
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

#[tokio::test]
async fn incremental_runs_send_what_is_new_and_nothing_else() {
    let emulator = Emulator::start().await;
    let shop = emulator.sync(json!({"mode": {"kind": "incremental", "cursor": "id"}})).await;
    emulator.add_orders(1..=250);
    let _worker = shop.worker();

    shop.run_to_the_end().await;
    let idle = shop.run_to_the_end().await;
    emulator.add_orders(251..=260);
    let more = shop.run_to_the_end().await;

    assert_eq!(idle.counts.published, 0);
    assert_eq!(more.counts.published, 10);
    each_once(&shop.committed(), 1..=260);
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
