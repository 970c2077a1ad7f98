//! A master key turned over while API and worker run, each a process of its own: secrets are written and opened all the
//! while, and no opening fails.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use freshet_core::endpoint::{Connection, ops as endpoint};
use freshet_core::error::Code;
use freshet_core::id::{ConnectionId, RequestId, UserId};
use freshet_core::operation::Question;
use freshet_core::page::PageRequest;
use freshet_core::secret::turnover::{self, Round};
use freshet_core::testing::EGRESS;
use freshet_core::user::{self, ops::NewUser};
use freshet_core::vault::Vault;
use freshet_worker::sources::snowflake::client::http_client;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::shop::{Process, Shop, free, freshet, make_orders, orders, until};
use crate::snowflake::account::answered;

/// A file of master keys, gone with the test.
struct Keys(PathBuf);

impl Keys {
    fn new(lines: &[&str]) -> Self {
        let keys = Self(std::env::temp_dir().join(format!("freshet-keys-{}", RequestId::new())));
        keys.write(lines);
        keys
    }

    fn write(&self, lines: &[&str]) {
        // Whole, as an orchestrator replaces a mounted secret.
        let next = self.0.with_extension("next");
        std::fs::write(&next, lines.join("\n")).unwrap();
        std::fs::rename(next, &self.0).unwrap();
    }

    fn environment(&self, shop: &Shop) -> Vec<(String, String)> {
        let mut environment = shop.environment.clone();
        environment.retain(|(name, _)| name != "FRESHET_MASTER_KEYS");
        environment.push(("FRESHET_MASTER_KEYS_FILE".into(), self.0.to_str().unwrap().into()));
        environment
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn start(role: &str, environment: Vec<(String, String)>) -> Process {
    Process::silent(&mut freshet(&[role], environment))
}

/// What a command prints: JSON. Whatever else the test does goes on meanwhile.
async fn told(arguments: &'static [&str], environment: Vec<(String, String)>) -> Result<Value, String> {
    let output = tokio::task::spawn_blocking(move || freshet(arguments, environment).output().unwrap()).await.unwrap();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

/// Secrets of one master key, as `freshet key status` counts them; none for a key that is neither given nor used.
fn secrets(status: &Value, name: &str) -> Option<i64> {
    let keys = status["keys"].as_array().unwrap();
    keys.iter().find(|key| key["name"] == name).map(|key| key["secrets"].as_i64().unwrap())
}

async fn connection(shop: &Shop) -> ConnectionId {
    let page = PageRequest::new(None, None).unwrap();
    endpoint::list::<Connection>(&shop.bench.app, &shop.bench.caller, page).await.unwrap().data[0].id
}

/// A person with a second factor, which is sealed too.
async fn person(shop: &Shop) -> UserId {
    let word = user::ops::draw_set_up_word(&shop.bench.app, false).await.unwrap().unwrap();
    let password = "correct horse battery staple of a test".parse().unwrap();
    let new = NewUser { email: "ada@acme.example", name: "Ada", password: &password };
    let id = user::ops::set_up(&shop.bench.app, &word, &new, "lovelace", "Lovelace").await.unwrap();
    user::ops::begin_second_factor(&shop.bench.app, id).await.unwrap();
    id
}

/// Writes the password of the connection anew, by whatever key the bench's own process has: it never looks again.
async fn seal_as_a_process_that_is_late(shop: &Shop, id: ConnectionId) {
    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    loop {
        let version = endpoint::get::<Connection>(app, caller, id).await.unwrap().row_version;
        let settings = json!({"password": "postgres"});
        match endpoint::update::<Connection>(app, caller, id, version, None, settings).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.code, Code::PreconditionFailed, "{error}"),
        }
    }
}

/// Has the API write the password anew, until `done`; how many times.
async fn write_on(api: &str, key: &str, id: ConnectionId, done: &AtomicBool) -> usize {
    let url = format!("{api}/v1/connections/{id}");
    let http = http_client(&EGRESS, &url).unwrap();
    let mut written = 0;
    while !done.load(Ordering::Relaxed) {
        let found = http.get(&url).bearer_auth(key).send().await.unwrap();
        let tag = found.headers()["etag"].to_str().unwrap().to_owned();
        let body = json!({"settings": {"password": "postgres"}});
        let answer = http.patch(&url).bearer_auth(key).header("if-match", tag).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        // Somebody else was quicker: the late process of the test.
        assert!(status == 200 || status == 412, "{status}: {}", answer.text().await.unwrap());
        written += usize::from(status == 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    written
}

#[tokio::test]
async fn a_master_key_is_turned_over_while_secrets_are_written_and_opened() {
    let shop = Shop::new(&make_orders(10), orders(), &[], json!({})).await;
    let old = shop.bench.app.settings.master_keys.expose().to_owned();
    let new = format!("second={}", Vault::draw_master_key());
    person(&shop).await;
    let id = connection(&shop).await;
    let keys = Keys::new(&[&old]);
    let address = free();
    let mut environment = keys.environment(&shop);
    environment.push(("FRESHET_API_LISTEN".into(), address.clone()));
    environment.push(("FRESHET_API_WRITES_PER_MINUTE".into(), "60000".into()));
    environment.push(("FRESHET_API_READS_PER_MINUTE".into(), "60000".into()));
    let _processes = [start("api", environment), start("worker", keys.environment(&shop))];
    let api = format!("http://{address}");
    let http = http_client(&EGRESS, &api).unwrap();
    until("the API answers", async || http.get(format!("{api}/readyz")).send().await.ok()).await;
    let status = async || told(&["key", "status"], keys.environment(&shop)).await.unwrap();
    let first = status().await;
    assert_eq!((secrets(&first, "test"), secrets(&first, "second")), (Some(2), None));

    let (done, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    let open_on = async {
        while !done.load(Ordering::Relaxed) {
            let found = answered(&shop, Question::TestConnection { connection: id }).await.unwrap();
            let steps = found["steps"].as_array().unwrap();
            assert!(steps.iter().all(|step| step["state"] != "failed"), "{found}");
            opened.fetch_add(1, Ordering::Relaxed);
        }
    };
    let turn_over = async {
        let counted = async |what: &str, test: Option<i64>, second: Option<i64>| {
            until(what, async || {
                let status = status().await;
                (secrets(&status, "test") == test && secrets(&status, "second") == second).then_some(())
            })
            .await;
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        keys.write(&[&new, &old]);
        counted("the worker has wrapped everything anew", Some(0), Some(2)).await;

        // One more by a process that does not know of it: the next round finds it, and nothing is wrapped back.
        seal_as_a_process_that_is_late(&shop, id).await;
        counted("the late secret is wrapped anew too", Some(0), Some(2)).await;
        let late = turnover::round(&shop.bench.app).await.unwrap();
        assert_eq!(late, None, "a process that knows an older key as the current one leaves all as it is");

        keys.write(&[&new]);
        // Sealed by the old key just when it is dropped: it still opens, and is wrapped anew.
        seal_as_a_process_that_is_late(&shop, id).await;
        counted("the old key is gone", None, Some(2)).await;
        let before = opened.load(Ordering::Relaxed);
        until("it opens by the new key alone", async || (opened.load(Ordering::Relaxed) > before + 3).then_some(()))
            .await;
        done.store(true, Ordering::Relaxed);
    };
    let (written, (), ()) = tokio::join!(write_on(&api, &shop.bench.key, id, &done), open_on, turn_over);

    assert!(written > 20 && opened.load(Ordering::Relaxed) > 5, "{written} written, {opened:?} opened");
    assert_eq!(shop.run_to_the_end().await.counts.published, 10);
    let status = status().await;
    assert_eq!(
        (&status["seals"], &status["current"], &status["to_rewrap"]),
        (&json!("second"), &json!("second"), &json!(0))
    );
}

#[tokio::test]
async fn secrets_of_a_key_that_is_lost_are_named_and_say_what_to_do() {
    let shop = Shop::new(&make_orders(1), orders(), &[], json!({})).await;
    let keys = Keys::new(&[&format!("second={}", Vault::draw_master_key())]);
    let _worker = start("worker", keys.environment(&shop));

    let run = shop.run().await;
    let failure = until("the attempt has failed", async || shop.found(run).await.failure).await;
    let status = told(&["key", "status"], keys.environment(&shop)).await.unwrap();
    let rewrap = told(&["key", "rewrap"], keys.environment(&shop)).await.unwrap_err();

    assert_eq!(failure.code, "platform.vault");
    assert_eq!(failure.message, "master key `test` is not among the master keys that are given");
    assert!(failure.action.unwrap().contains("FRESHET_MASTER_KEYS_FILE"));
    assert_eq!(status["keys"][1], json!({"name": "test", "secrets": 1, "given": false}));
    assert!(rewrap.contains("1 secrets are of master keys that are not given"), "{rewrap}");
}

#[tokio::test]
async fn a_row_that_was_moved_is_left_and_the_others_are_turned_over() {
    let shop = Shop::new(&make_orders(1), orders(), &[], json!({})).await;
    let old = shop.bench.app.settings.master_keys.expose().to_owned();
    let keys = Keys::new(&[&format!("second={}", Vault::draw_master_key()), &old]);
    person(&shop).await;
    crate::shop::run_sql(&shop.bench.admin_url, "update secret set wrapped_key = substr(wrapped_key, 2)").await;

    let rewrap = told(&["key", "rewrap"], keys.environment(&shop)).await.unwrap_err();
    let status = told(&["key", "status"], keys.environment(&shop)).await.unwrap();

    assert!(rewrap.contains("1 secrets do not open"), "{rewrap}");
    assert_eq!((secrets(&status, "second"), secrets(&status, "test")), (Some(1), Some(1)));
    assert_eq!(turnover::round(&shop.bench.app).await.unwrap(), None::<Round>);
}

#[tokio::test]
async fn a_command_that_rewraps_gives_up_once_another_key_is_current() {
    let shop = Shop::new(&make_orders(1), orders(), &[], json!({})).await;
    let old = shop.bench.app.settings.master_keys.expose().to_owned();
    let keys = Keys::new(&[&format!("second={}", Vault::draw_master_key()), &old]);
    // A worker that is at it, and does not end.
    let mut worker = PgConnection::connect(&shop.bench.admin_url).await.unwrap();
    let lock = "select pg_advisory_lock(hashtextextended('freshet master keys', 0))";
    sqlx::query(lock).execute(&mut worker).await.unwrap();
    let app = &shop.bench.app;

    let rewrap = tokio::spawn(told(&["key", "rewrap"], keys.environment(&shop)));
    until("the command has made its key current", async || {
        (turnover::current(app).await.unwrap().unwrap() == "second").then_some(())
    })
    .await;
    turnover::announce(app, false).await.unwrap();

    let refused = rewrap.await.unwrap().unwrap_err();
    assert!(refused.contains("`second` comes first here, and `test` is the current master key now"), "{refused}");
}
