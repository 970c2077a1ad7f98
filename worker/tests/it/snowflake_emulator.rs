//! The kind `snowflake` against the emulator: another engineer's reading of the published contract, on Postgres.
//!
//! The emulator is a program of its own: `cargo build -p snowflake-emulator`, or its path in
//! `FRESHET_TEST_SNOWFLAKE_EMULATOR`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use freshet_core::clock::Clock;
use freshet_core::connector::{
    BatchName, Kind, ModelSpec, ReadMode, ReadPlan, ReadRequest, Registry, SealRequest, Source, StepState,
};
use freshet_core::error::{Code, Result};
use freshet_core::settings::Settings;
use freshet_core::testing::EGRESS;
use freshet_worker::sources;
use freshet_worker::sources::snowflake::client::{Statement, http_client};
use freshet_worker::sources::snowflake::sign_in::SignIn;
use freshet_worker::sources::snowflake::sign_in::key_pair::{KeyPair, Slot};
use freshet_worker::sources::snowflake::sign_in::oauth::{KeptToken, OAuth, OAuthApp};
use freshet_worker::sources::snowflake::sql::{BatchTable, Stage, create_stream, has_data};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::kafka::{environment, unique};
use crate::snowflake::client_at;
use crate::snowflake_source::Recorder;
use crate::snowflake_streams::new_stream;

/// A running emulator with the database SHOP and the user LOADER.
pub struct Emulator {
    pub url: String,
    database_url: String,
    key: String,
    _process: Child,
}

fn program() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the tests' surroundings are no settings of the service")]
    let named = std::env::var("FRESHET_TEST_SNOWFLAKE_EMULATOR").map(PathBuf::from);
    let path = named.unwrap_or_else(|_| {
        let test = std::env::current_exe().unwrap();
        test.parent().and_then(|deps| deps.parent()).unwrap().join("snowflake-emulator")
    });
    assert!(path.exists(), "{} is missing; run: cargo build -p snowflake-emulator", path.display());
    path
}

impl Emulator {
    pub async fn start() -> Self {
        let admin = environment("FRESHET_TEST_DATABASE_URL");
        let name = unique("snowflake").replace('-', "_");
        let mut connection = PgConnection::connect(&admin).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await.unwrap();
        let database_url = format!("{}/{name}", admin.rsplit_once('/').unwrap().0);
        let mut process = Command::new(program())
            .args(["serve", "--database-url", &database_url])
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.next_line().await.unwrap().unwrap();
        let key = KeyPair::draw().unwrap();
        let emulator =
            Self { url, database_url, key: key.private_pem().unwrap().expose_secret().to_owned(), _process: process };
        emulator.command(&["create-database", "SHOP"]).await;
        emulator.command(&["create-user", "LOADER"]).await;
        emulator.set_key(&key).await;
        emulator.sql("create warehouse WH; create schema FRESHET").await;
        emulator
    }

    pub async fn command(&self, arguments: &[&str]) -> String {
        let (command, rest) = arguments.split_first().unwrap();
        let output = Command::new(program())
            .arg(command)
            .args(["--database-url", &self.database_url])
            .args(rest)
            .env("RUST_LOG", "error")
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Gives the user the public key that the ALTER USER script names; the emulator takes it as a file.
    async fn set_key(&self, key: &KeyPair) {
        let script = key.alter_user("LOADER", Slot::First).unwrap();
        let body = script.split('\'').nth(1).unwrap();
        let path = std::env::temp_dir().join(unique("key.pem"));
        std::fs::write(&path, format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")).unwrap();
        self.command(&["set-key", "LOADER", path.to_str().unwrap()]).await;
        std::fs::remove_file(path).unwrap();
    }

    /// Runs statements, as someone else would.
    pub async fn sql(&self, statements: &str) -> String {
        self.command(&["sql", "--database", "SHOP", "--schema", "PUBLIC", statements]).await
    }

    pub async fn faults(&self, rules: Value) {
        let client = http_client(&EGRESS, &self.url).unwrap();
        let url = format!("{}/emulator/faults", self.url);
        let answer = client.put(url).json(&json!({ "rules": rules })).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    pub async fn open(&self) -> Box<dyn Source> {
        self.open_with(json!({})).await
    }

    pub async fn open_with(&self, changes: Value) -> Box<dyn Source> {
        let hosts = self.url.trim_start_matches("http://").to_owned();
        let settings = Settings::with(&[("snowflake_hosts", &hosts)]).unwrap();
        let registry = sources::configure(Registry::default(), &settings).unwrap();
        let mut connection = json!({
            "account": "emulator-account", "host": self.url, "user": "loader", "warehouse": "wh", "database": "shop",
            "late_commit_s": 0, "sign_in": {"private_key": self.key},
        });
        for (name, value) in changes.as_object().unwrap() {
            connection[name] = value.clone();
        }
        let kind = registry.find_source("snowflake").unwrap();
        kind.open(kind.validate(connection).unwrap(), &EGRESS).await.unwrap()
    }
}

fn table(name: &str) -> ModelSpec {
    ModelSpec::Table { schema: "PUBLIC".into(), table: name.into() }
}

fn batch_name(seq: i64) -> BatchName {
    BatchName { workspace: "ws_1".into(), sync: "snc_1".into(), run: "run_1".into(), seq }
}

/// The plan of a model as it is described now.
async fn plan(source: &mut dyn Source, model: ModelSpec, mode: ReadMode) -> ReadPlan {
    let (schema, key) = source.describe(&model).await.unwrap();
    let key = if key.is_empty() { vec!["ID".into()] } else { key };
    ReadPlan { model, columns: schema.columns, key, mode }
}

async fn seal(source: &mut dyn Source, plan: &ReadPlan, seq: i64, position: Option<Value>) -> Result<(Value, bool)> {
    let request = SealRequest { name: batch_name(seq), plan: plan.clone(), position, carry: None };
    source.seal(&request).await.map(|sealed| (sealed.batch, sealed.empty))
}

async fn read(
    source: &mut dyn Source,
    plan: &ReadPlan,
    batch: &Value,
    from: Option<Value>,
    chunk: usize,
) -> Result<(Recorder, Option<Value>)> {
    let mut sink = Recorder::of(chunk);
    let request = ReadRequest { name: batch_name(1), plan: plan.clone(), batch: batch.clone(), from };
    let end = source.read(&request, &mut sink).await?;
    Ok((sink, end.token))
}

#[tokio::test]
async fn a_key_pair_made_here_signs_in_and_every_step_passes() {
    let emulator = Emulator::start().await;
    emulator.sql("create table ORDERS (ID number(38,0) primary key)").await;

    let steps = emulator.open().await.check().await;
    let stranger = KeyPair::draw().unwrap().private_pem().unwrap().expose_secret().to_owned();
    let mut other = emulator.open_with(json!({"sign_in": {"private_key": stranger}})).await;
    let refused = other.check().await;

    let wrong: Vec<_> = steps.iter().filter(|step| step.state != StepState::Passed).map(|step| &step.name).collect();
    assert_eq!(wrong, ["tls"], "{steps:?}");
    let failed = refused.iter().find(|step| step.state == StepState::Failed).unwrap();
    assert_eq!((failed.name.as_str(), failed.code), ("sign_in", Some(Code::SnowflakeLogin)));
}

#[tokio::test]
async fn an_access_token_of_snowflakes_own_signs_in() {
    let emulator = Emulator::start().await;
    let token = emulator.command(&["create-token", "LOADER"]).await;
    emulator.sql("create table ORDERS (ID number(38,0) primary key)").await;

    let sign_in = json!({"sign_in": {"kind": "access_token", "token": token.trim()}});
    let steps = emulator.open_with(sign_in).await.check().await;

    assert!(steps.iter().all(|step| step.state != StepState::Failed), "{steps:?}");
}

#[tokio::test]
async fn oauth_goes_from_consent_to_renewal_with_tokens_of_one_use() {
    let emulator = Emulator::start().await;
    let http = http_client(&EGRESS, &emulator.url).unwrap();
    let redirect = "http://localhost/callback";
    let client = json!({"client_id": "freshet=", "client_secret": "s/ecret", "redirect_uri": redirect, "single_use_refresh": true});
    let made = http.post(format!("{}/emulator/oauth/clients", emulator.url)).json(&client).send().await.unwrap();
    assert!(made.status().is_success(), "{}", made.text().await.unwrap());
    let app = OAuthApp {
        base_url: emulator.url.clone(),
        client_id: "freshet=".into(),
        client_secret: SecretString::from("s/ecret"),
    };

    let consent = app.consent(redirect, None).unwrap();
    let answer = http.get(&consent.url).send().await.unwrap();
    let back = url::Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
    let back: BTreeMap<_, _> = back.query_pairs().into_owned().collect();
    assert_eq!(back["state"], consent.state);
    let code = SecretString::from(back["code"].clone());
    let now = Clock::system().now();
    let tokens = app.exchange(&http, now, &code, &consent.verifier, redirect).await.unwrap();
    let first = tokens.refresh.unwrap();
    let client =
        client_at(&emulator.url, SignIn::OAuth(OAuth::new(app.clone(), Box::new(KeptToken::new(first.clone())))));
    client.run(&Statement::small("select current_user()")).await.unwrap();
    emulator.faults(json!([{"kind": "token_expired", "count": 1}])).await;
    client.run(&Statement::small("select current_user()")).await.unwrap();
    let spent = app.renew(&http, now, &first).await.err().unwrap();

    assert_eq!(spent.code, Code::SnowflakeConsent);
}

#[tokio::test]
async fn every_type_is_read_exactly_in_full() {
    let emulator = Emulator::start().await;
    emulator
        .sql(
            "create table KINDS (ID number(38,0) primary key, SMALL number(9,0), MONEY number(38,10), F float, \
             S varchar, B boolean, BIN binary, D date, T time, NTZ timestamp_ntz, TZ timestamp_tz, V variant);
             insert into KINDS select 99999999999999999999999999999999999999, -7, -0.0000000001, 0.1, \
             'it''s \\\\ \"so\" ✓', true, to_binary('00FF', 'HEX'), '1969-12-31', '23:59:59.000000001', \
             '1969-12-31 23:59:59.5', '2021-03-19 18:06:59.25 +01:00', parse_json('{\"n\": 12345678901234567890.5}');
             insert into KINDS (ID) values (1)",
        )
        .await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("KINDS"), ReadMode::Full).await;

    let (batch, empty) = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    let (found, _) = read(source.as_mut(), &plan, &batch, None, 100).await.unwrap();

    assert!(!empty);
    assert_eq!(plan.key, ["ID"]);
    let kinds: Vec<_> = plan.columns.iter().map(|column| column.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::Decimal,
            Kind::Int,
            Kind::Decimal,
            Kind::Float,
            Kind::Text,
            Kind::Bool,
            Kind::Bytes,
            Kind::Date,
            Kind::Time,
            Kind::Timestamp,
            Kind::TimestampTz,
            Kind::Json
        ]
    );
    assert_eq!(found.rows[0], format!("r 1{}", " null".repeat(11)));
    assert_eq!(
        found.rows[1],
        "r 99999999999999999999999999999999999999 -7 -0.0000000001 0.1 \"it's \\\\ \\\"so\\\" ✓\" true \"AP8=\" \
         \"1969-12-31\" \"23:59:59.000000001\" \"1969-12-31T23:59:59.500\" \"2021-03-19T18:06:59.250+01:00\" \
         {\"n\":12345678901234567890.5}"
    );
}

async fn many_orders(emulator: &Emulator, count: usize) {
    let values: Vec<_> = (1..=count).map(|n| format!("({n}, 'order {n}', {})", n / 3)).collect();
    emulator.sql("create table ORDERS (ID number(38,0) primary key, NAME varchar, STEP number(9,0))").await;
    emulator.sql(&format!("insert into ORDERS values {}", values.join(", "))).await;
}

fn orders(range: std::ops::RangeInclusive<usize>, op: &str) -> Vec<String> {
    range.map(|n| format!("{op} {n} \"order {n}\" {}", n / 3)).collect()
}

#[tokio::test]
async fn a_sealed_batch_is_the_same_however_the_table_changes_and_the_connection_breaks() {
    let emulator = Emulator::start().await;
    many_orders(&emulator, 100).await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("ORDERS"), ReadMode::Full).await;
    // The seal runs, and its answer is lost; then the table changes, and the seal is repeated.
    emulator
        .faults(
            json!([{"kind": "status", "status": 504, "moment": "after", "count": 1, "statement": "create transient"}]),
        )
        .await;
    let (batch, _) = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    emulator.sql("delete from ORDERS where ID > 50").await;
    let (again, _) = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    emulator
        .faults(json!([
            {"kind": "tiny_partitions", "rows": 7},
            {"kind": "cut", "moment": "body", "on": ["partition"], "count": 2},
            {"kind": "status", "status": 503, "on": ["poll", "partition"], "count": 3},
            {"kind": "status", "status": 429, "with_handle": true, "on": ["poll"], "count": 1},
            {"kind": "token_expired", "count": 1},
            {"kind": "accepted", "delay_ms": 50},
        ]))
        .await;

    let (whole, end) = read(source.as_mut(), &plan, &batch, None, 30).await.unwrap();

    assert_eq!(again, batch);
    assert_eq!(whole.rows, orders(1..=100, "r"));
    assert_eq!(end, Some(json!({"ordinal": 100})));
    assert_eq!(whole.flushed.len(), 3);
    for (rows, token) in whole.flushed {
        let (rest, _) = read(source.as_mut(), &plan, &batch, Some(token), 30).await.unwrap();
        assert_eq!(rest.rows, orders(rows + 1..=100, "r"));
    }
}

#[tokio::test]
async fn a_partition_with_fewer_rows_or_damaged_bytes_fails_the_read() {
    let emulator = Emulator::start().await;
    many_orders(&emulator, 20).await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("ORDERS"), ReadMode::Full).await;
    let (batch, _) = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    let tiny = json!({"kind": "tiny_partitions", "rows": 5});

    emulator.faults(json!([tiny, {"kind": "short_partition", "count": 1}])).await;
    let short = read(source.as_mut(), &plan, &batch, None, 100).await.err().unwrap();
    emulator.faults(json!([tiny, {"kind": "corrupt_gzip", "count": 1}])).await;
    let (mended, _) = read(source.as_mut(), &plan, &batch, None, 100).await.unwrap();
    emulator.faults(json!([{"kind": "incomplete", "statement": "FRESHET_ORDINAL"}])).await;
    let incomplete = read(source.as_mut(), &plan, &batch, None, 100).await.err().unwrap();

    assert_eq!(short.code, Code::SnowflakeAnswer, "{short}");
    assert_eq!(mended.rows, orders(1..=20, "r"));
    assert_eq!(incomplete.code, Code::SnowflakeTooLarge, "{incomplete}");
}

#[tokio::test]
async fn a_delivered_batch_leaves_no_table() {
    let emulator = Emulator::start().await;
    many_orders(&emulator, 3).await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("ORDERS"), ReadMode::Full).await;
    let (first, _) = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    let (second, _) = seal(source.as_mut(), &plan, 2, None).await.unwrap();

    source.release(&batch_name(2), &second).await.unwrap();
    source.release(&batch_name(2), &second).await.unwrap();

    // Sealing the second dropped what the first had left.
    let gone = read(source.as_mut(), &plan, &first, None, 10).await.err().unwrap();
    assert_eq!(gone.code, Code::SnowflakeResultGone);
    assert!(!emulator.sql("show tables in schema FRESHET").await.contains("FRESHET_FULL"));
}

#[tokio::test]
async fn incremental_batches_follow_one_another_without_a_gap_or_a_repeat() {
    let emulator = Emulator::start().await;
    many_orders(&emulator, 10).await;
    let mut source = emulator.open().await;
    let mode = ReadMode::Incremental { cursor: "STEP".into() };
    let plan = plan(source.as_mut(), table("ORDERS"), mode).await;

    let (first, _) = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    let (whole, end) = read(source.as_mut(), &plan, &first, None, 4).await.unwrap();
    let (rest, _) = read(source.as_mut(), &plan, &first, Some(whole.flushed[0].1.clone()), 4).await.unwrap();
    let (_, nothing) = seal(source.as_mut(), &plan, 2, end.clone()).await.unwrap();
    emulator.sql("insert into ORDERS values (11, 'order 11', 3), (12, 'order 12', 4)").await;
    let (next, more) = seal(source.as_mut(), &plan, 3, end.clone()).await.unwrap();
    let (added, _) = read(source.as_mut(), &plan, &next, end.clone(), 4).await.unwrap();

    assert_eq!(whole.rows, orders(1..=10, "u"));
    assert_eq!(end, Some(json!({"cursor": "3", "key": ["10"]})));
    assert_eq!(rest.rows, orders(whole.flushed[0].0 + 1..=10, "u"));
    assert!(nothing && !more);
    assert_eq!(added.rows, orders(11..=12, "u"));
}

#[tokio::test]
async fn an_incremental_read_follows_instants_texts_and_binary_keys() {
    let emulator = Emulator::start().await;
    emulator
        .sql(
            "create table EVENTS (ID varchar not null, BIN binary not null, AT timestamp_tz);
             insert into EVENTS select 'o''clock \\\\ 1', to_binary('00', 'HEX'), '2021-01-01 00:00:00.123456789 +01:00';
             insert into EVENTS select 'o''clock \\\\ 1', to_binary('FF', 'HEX'), '2020-12-31 23:00:00.123456789 +00:00';
             insert into EVENTS select 'z', to_binary('FF', 'HEX'), '2020-12-31 23:00:00.123456789 +00:00';
             insert into EVENTS select 'never', to_binary('', 'HEX'), '2999-01-01 00:00:00 +00:00'",
        )
        .await;
    let mut source = emulator.open().await;
    let mut plan = plan(source.as_mut(), table("EVENTS"), ReadMode::Incremental { cursor: "AT".into() }).await;
    plan.key = vec!["ID".into(), "BIN".into()];

    let (batch, _) = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    let (whole, _) = read(source.as_mut(), &plan, &batch, None, 1).await.unwrap();

    assert_eq!(whole.rows.len(), 3, "{:?}", whole.rows);
    assert_eq!(whole.flushed.len(), 2);
    for (rows, token) in &whole.flushed {
        let (rest, _) = read(source.as_mut(), &plan, &batch, Some(token.clone()), 1).await.unwrap();
        assert_eq!(rest.rows, whole.rows[*rows..]);
    }
}

#[tokio::test]
async fn the_catalogue_lists_tables_views_and_streams_and_previews_move_no_stream() {
    let emulator = Emulator::start().await;
    many_orders(&emulator, 3).await;
    emulator
        .sql("create view RECENT as select ID from ORDERS; create stream CHANGES on table ORDERS; insert into ORDERS values (9, 'n', 1)")
        .await;
    let mut source = emulator.open().await;

    let found = source.catalogue(Some("PUBLIC")).await.unwrap();
    let preview =
        source.preview(&ModelSpec::Sql { sql: "select ID, NAME from ORDERS order by ID;".into() }, 2).await.unwrap();
    let check = source.key_check(&table("ORDERS"), &["STEP".into()]).await.unwrap();
    let refused = source.preview(&table("CHANGES"), 2).await.unwrap_err();

    let names: Vec<_> = found.tables.iter().map(|table| (table.kind.as_str(), table.name.as_str())).collect();
    assert_eq!(names, [("stream", "CHANGES"), ("table", "ORDERS"), ("view", "RECENT")]);
    assert_eq!(found.tables[1].primary_key, ["ID"]);
    let columns: Vec<_> = found.tables[0].columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["ID", "NAME", "STEP", "METADATA$ACTION", "METADATA$ISUPDATE", "METADATA$ROW_ID"]);
    assert_eq!(preview.rows, [json!({"ID": "1", "NAME": "order 1"}), json!({"ID": "2", "NAME": "order 2"})]);
    assert!(preview.truncated);
    assert_eq!((check.rows, check.null_rows, check.duplicate_keys), (4, 0, 2));
    assert_eq!(refused.code, Code::ModelNotSelect);
    assert!(emulator.sql("select system$stream_has_data('CHANGES') as FOUND").await.to_lowercase().contains("true"));
}

#[tokio::test]
async fn a_refused_statement_says_why() {
    let emulator = Emulator::start().await;
    let mut source = emulator.open().await;
    for (sql, code) in [
        ("select * from NOWHERE", Code::ModelObjectMissing),
        ("select NOPE from (select 1 as A)", Code::ModelObjectMissing),
    ] {
        let error = source.describe(&ModelSpec::Sql { sql: sql.into() }).await.unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains("SQLSTATE"), "{error}");
    }
}

#[tokio::test]
async fn the_statements_of_a_streams_sealing_take_its_changes_once() {
    let emulator = Emulator::start().await;
    many_orders(&emulator, 3).await;
    let mut source = emulator.open().await;
    let columns = plan(source.as_mut(), table("ORDERS"), ReadMode::Full).await.columns;
    let new = new_stream("S", "ORDERS");
    let stream = "\"FRESHET\".\"S\"";
    let batch = BatchTable::new(Stage::Stream, "FRESHET", "snc_1", 1);
    let seal = batch.seal_stream(stream, &columns, &["ID".into()]);

    emulator.sql(&create_stream("FRESHET", &new, "\"PUBLIC\".\"ORDERS\"")).await;
    let idle = emulator.sql(&has_data(stream)).await;
    emulator
        .sql("update ORDERS set NAME = 'new' where ID = 2; delete from ORDERS where ID = 1; insert into ORDERS values (4, 'four', 1)")
        .await;
    let waiting = emulator.sql(&has_data(stream)).await;
    emulator.sql(&seal).await;
    emulator.sql("insert into ORDERS values (5, 'five', 1)").await;
    emulator.sql(&seal).await;
    let read = emulator.sql(&batch.read(&columns, Stage::Stream, 1)).await;
    let count = emulator.sql(&batch.count()).await;
    emulator.sql(&batch.truncate()).await;
    emulator.sql(&seal).await;
    let after = emulator.sql(&batch.count()).await;

    assert!(idle.contains("false") && waiting.contains("true"), "{idle} {waiting}");
    let lines: Vec<Vec<_>> =
        read.lines().skip(2).map(|line| line.split('|').map(str::trim).collect::<Vec<_>>()).collect();
    let lines: Vec<_> = lines.iter().filter(|cells| cells.len() > 4).map(|c| (c[0], c[1], c[3], c[4])).collect();
    assert_eq!(lines, [("2", "order 2", "DELETE", "2"), ("2", "new", "INSERT", "3"), ("4", "four", "INSERT", "4")]);
    assert!(count.contains("| 4"), "{count}");
    // The empty table stands: a late repeat takes nothing, and what came since is still in the Stream.
    assert!(!after.contains("| 4") && emulator.sql(&has_data(stream)).await.contains("true"), "{after}");
}
