//! What the log of a real process says: whose line each is, and that nobody else can write one.

use std::path::PathBuf;
use std::process::Stdio;

use freshet_core::connector::ModelSpec;
use freshet_core::endpoint::{Connection, ops as endpoint};
use freshet_core::id::RequestId;
use freshet_core::operation::Question;
use freshet_core::page::PageRequest;
use freshet_core::run::RunState;
use freshet_core::testing::EGRESS;
use freshet_core::{model, sync};
use freshet_worker::sources::snowflake::client::http_client;
use serde_json::{Value, json};

use crate::shop::{Process, Shop, free, make_orders, orders, until};
use crate::snowflake::account::answered;

/// A process whose log is kept.
struct Logged {
    _process: Process,
    log: PathBuf,
}

impl Logged {
    fn start(shop: &Shop, role: &str, extra: &[(&str, &str)]) -> Self {
        let path = std::env::temp_dir().join(format!("freshet-log-{}", RequestId::new()));
        let log = std::fs::File::create(&path).unwrap();
        let mut command = shop.freshet(&[role]);
        let process = command.envs(extra.iter().copied()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { _process: Process(process), log: path }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Every line, each a JSON object.
    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// Waits for a line that has this in it.
    async fn says(&self, what: &str) {
        until(&format!("the log says {what}"), async || self.text().contains(what).then_some(())).await;
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.log);
    }
}

/// A field of the spans that a line is in.
fn of_span<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    line["spans"].as_array()?.iter().find_map(|span| span.get(name))
}

#[tokio::test]
async fn every_line_of_an_attempt_carries_workspace_sync_run_and_attempt() {
    let shop = Shop::new(&make_orders(2_500), orders(), &[], json!({})).await;
    let log = "info,freshet_worker=debug,freshet_core=debug,librdkafka=debug";
    let worker = Logged::start(&shop, "worker", &[("FRESHET_LOG_FORMAT", "json"), ("FRESHET_LOG", log)]);

    let delivered = shop.run_to_the_end().await;
    shop.sql("drop table orders").await;
    let failed = shop.run().await;
    assert_eq!(shop.ended(failed).await.state, RunState::Failed);
    worker.says("attempt failed").await;

    let lines = worker.lines();
    let of_attempts: Vec<_> = lines
        .iter()
        .filter(|line| {
            let target = line["target"].as_str().unwrap();
            ["freshet_worker::jobs::run_sync", "freshet_worker::pipeline", "freshet_worker::sources"]
                .iter()
                .chain(&["freshet_worker::destinations", "librdkafka"])
                .any(|part| target.starts_with(part))
        })
        .collect();
    let targets: std::collections::BTreeSet<_> =
        of_attempts.iter().map(|line| line["target"].as_str().unwrap()).collect();
    assert!(of_attempts.len() >= 6 && targets.len() >= 3, "{targets:?}");
    for line in of_attempts {
        let run = of_span(line, "run.id").unwrap_or_else(|| panic!("no run in {line}"));
        assert!([delivered.id.to_string(), failed.to_string()].contains(&run.as_str().unwrap().to_owned()), "{line}");
        assert_eq!(of_span(line, "workspace.id").unwrap(), &json!(shop.bench.caller.workspace), "{line}");
        assert_eq!(of_span(line, "sync.id").unwrap(), &json!(shop.sync), "{line}");
        assert_eq!(of_span(line, "attempt").unwrap(), &json!(1), "{line}");
    }
    for says in ["run taken", "run succeeded", "attempt failed", "destination prepared", "lane taken over"] {
        assert!(lines.iter().any(|line| line["fields"]["message"] == says), "no line `{says}`");
    }
}

#[tokio::test]
async fn every_line_of_a_request_carries_its_id_and_workspace() {
    let shop = Shop::new(&make_orders(1), orders(), &[], json!({})).await;
    let address = free();
    let extra = [("FRESHET_LOG_FORMAT", "json"), ("FRESHET_API_LISTEN", &address)];
    let api = Logged::start(&shop, "api", &extra);
    let url = format!("http://{address}/v1/syncs/{}", shop.sync);
    let http = http_client(&EGRESS, &url).unwrap();

    let known = until("the API answers", async || http.get(&url).bearer_auth(&shop.bench.key).send().await.ok()).await;
    let id = known.headers()["freshet-request-id"].to_str().unwrap().to_owned();
    let unknown = http.get(&url).send().await.unwrap();
    let stranger = unknown.headers()["freshet-request-id"].to_str().unwrap().to_owned();
    api.says(&stranger).await;

    let lines = api.lines();
    let of = |id: &str| {
        let found: Vec<_> = lines.iter().filter(|line| of_span(line, "request.id") == Some(&json!(id))).collect();
        assert!(!found.is_empty(), "no line of {id}");
        found
    };
    for line in of(&id) {
        assert_eq!(of_span(line, "workspace.id"), Some(&json!(shop.bench.caller.workspace)), "{line}");
    }
    assert!(of(&stranger).iter().all(|line| of_span(line, "workspace.id").is_none()));
    assert!(!api.text().contains(&shop.bench.key));
}

/// A name of a table or of a column, as Postgres takes it.
const FORGED: &str = "a\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}2A\u{202e}";

#[tokio::test]
async fn log_injection_by_topic_or_column_names_is_harmless() {
    let quoted = FORGED.replace('"', "\"\"");
    let sql = format!("{} create table evil (id bigint primary key, \"{quoted}\" money)", make_orders(1));
    let shop = Shop::new(&sql, orders(), &[], json!({})).await;
    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    let page = PageRequest::new(None, None).unwrap();
    let connection = endpoint::list::<Connection>(app, caller, page).await.unwrap().data[0].id;
    let spec = ModelSpec::Table { schema: "public".into(), table: FORGED.into() };
    let missing = model::ops::create(app, caller, connection, "missing", &spec, &[]).await.unwrap();
    let sql = format!("select id, \"{quoted}\" from evil where \"{quoted}\" = 'x'");
    let spec = ModelSpec::Sql { sql };
    let broken = model::ops::create(app, caller, connection, "broken", &spec, &["id".to_owned()]).await.unwrap();
    // A topic of such a name is none: it is refused, and told to whoever asked alone.
    let version = sync::ops::get(app, caller, shop.sync).await.unwrap().0.row_version;
    let patch = sync::ops::SyncPatch {
        name: None,
        config: Some(json!({"topic": {"name": FORGED}})),
        take_current_model: false,
        accept: None,
        dry_run: false,
    };
    let refused = sync::ops::update(app, caller, shop.sync, version, patch).await.unwrap_err();
    assert!(refused.message.contains("topic"), "{refused}");

    for format in ["text", "json"] {
        let worker = Logged::start(&shop, "worker", &[("FRESHET_LOG_FORMAT", format), ("FRESHET_LOG", "debug")]);
        for model in [missing.id, broken.id] {
            answered(&shop, Question::DescribeModel { model }).await.unwrap_err();
        }
        until("both failures are told", async || {
            (worker.text().matches("operation failed").count() == 2).then_some(())
        })
        .await;

        let text = worker.text();
        assert!(text.contains("forged"), "{format}: the log does not tell the name");
        let year = chrono::Datelike::year(&chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()));
        for line in text.split('\n').filter(|line| !line.is_empty()) {
            let whole = match format {
                "json" => serde_json::from_str::<Value>(line).is_ok(),
                _ => line.starts_with(&year.to_string()),
            };
            assert!(whole, "{format}: nobody wrote this line: {line:?}");
            let control = line.chars().find(|one| one.is_control() || *one == '\u{202e}');
            assert_eq!(control, None, "{format}: {line:?}");
        }
    }
}
