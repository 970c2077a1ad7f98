//! How a connection to Snowflake comes by its key, its consent and its rights, from the first click to a test that passes.

use freshet_core::connector::Registry;
use freshet_core::consent;
use freshet_core::endpoint::{Connection, ops as endpoint};
use freshet_core::error::Code;
use freshet_core::id::{ConnectionId, SyncId};
use freshet_core::operation::Question;
use freshet_core::settings::Settings;
use freshet_core::testing::{Bench, EGRESS};
use freshet_worker::sources;
use freshet_worker::sources::snowflake::client::http_client;
use serde_json::{Value, json};

use crate::shop::Shop;
use crate::snowflake::account::answered;
use crate::snowflake_runs::Emulator;

/// A connection to the emulator that signs in like this.
async fn connection(emulator: &Emulator, sign_in: Value) -> (Shop, ConnectionId) {
    emulator.sql("create table orders (id number(38,0) primary key)");
    let hosts = emulator.hosts();
    let settings = Settings::with(&[("snowflake_hosts", hosts)]).unwrap();
    let registry = sources::configure(freshet_worker::register(Registry::default()), &settings).unwrap();
    let bench = Bench::new(registry).await;
    let mut settings = emulator.settings();
    settings["sign_in"] = sign_in;
    let made = endpoint::create::<Connection>(&bench.app, &bench.caller, "snowflake", "shop", settings).await.unwrap();
    let app = &bench.app.settings;
    let environment = [
        ("FRESHET_DATABASE_URL", app.database_url.expose()),
        ("FRESHET_MASTER_KEYS", app.master_keys.expose()),
        ("FRESHET_EGRESS_ALLOW", &app.egress_allow),
        ("FRESHET_SNOWFLAKE_HOSTS", hosts),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    (Shop { bench, source: String::new(), sync: SyncId::new(), topic: String::new(), environment }, made.id)
}

async fn test(shop: &Shop, connection: ConnectionId) -> Value {
    answered(shop, Question::TestConnection { connection }).await.unwrap()
}

fn failed(found: &Value) -> Option<&Value> {
    found["steps"].as_array().unwrap().iter().find(|step| step["state"] == "failed")
}

#[tokio::test]
async fn a_key_that_freshet_draws_signs_in_once_an_administrator_has_run_the_script() {
    let emulator = Emulator::start().await;
    let (shop, id) = connection(&emulator, json!({"kind": "key_pair"})).await;
    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    let _worker = shop.worker();

    let before = test(&shop, id).await;
    assert!(failed(&before).unwrap()["detail"].as_str().unwrap().contains("no key yet"), "{before}");

    for (second, property) in [(false, "RSA_PUBLIC_KEY ="), (true, "RSA_PUBLIC_KEY_2 =")] {
        let drawn = endpoint::draw_key(app, caller, id, second).await.unwrap();
        assert!(drawn.script.starts_with("ALTER USER \"LOADER\" SET ") && drawn.script.contains(property));
        assert!(drawn.fingerprint.starts_with("SHA256:"));
        // What an administrator does with the script.
        let key = drawn.script.split('\'').nth(1).unwrap();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n");
        let slot = if second { 2 } else { 1 };
        emulator.admin("POST", "users/LOADER/keys", json!({"pem": pem, "slot": slot})).await;

        let found = test(&shop, id).await;
        assert_eq!(failed(&found), None, "{found}");
        assert!(found["setup_script"].as_str().unwrap().contains("grant usage on database \"SHOP\" to role"));
    }
    let kept = endpoint::get::<Connection>(app, caller, id).await.unwrap();
    assert_eq!(kept.secrets.len(), 2);
    assert!(!serde_json::to_string(&kept).unwrap().contains("PRIVATE"));
}

#[tokio::test]
async fn a_consent_brings_a_refresh_token_that_is_used_once_and_kept_anew_each_time() {
    let emulator = Emulator::start().await;
    let (shop, id) =
        connection(&emulator, json!({"kind": "oauth", "client_id": "freshet", "client_secret": "shh"})).await;
    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    let asked = consent::ops::ask(app, caller, id).await.unwrap();
    let client = json!({
        "client_id": "freshet", "client_secret": "shh", "redirect_uri": asked.redirect_url, "single_use_refresh": true,
    });
    emulator.admin("POST", "oauth/clients", client).await;
    let _worker = shop.worker();
    assert!(failed(&test(&shop, id).await).unwrap()["detail"].as_str().unwrap().contains("nobody has consented"));

    // The page where the person consents sends the browser back.
    let answer = http_client(&EGRESS, &asked.url).unwrap().get(&asked.url).send().await.unwrap();
    assert_eq!(answer.status(), 302);
    let back = url::Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
    assert!(back.as_str().starts_with(&asked.redirect_url), "{back}");
    let returned = |name: &str| back.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    let code = returned("code").parse().unwrap();
    let operation = consent::ops::come_back(app, &returned("state"), &code).await.unwrap();
    let again = consent::ops::come_back(app, &returned("state"), &code).await.unwrap_err();
    assert_eq!(again.code, Code::NotFound);
    crate::shop::until("the consent is finished", async || {
        let found = freshet_core::operation::ops::get(app, caller, operation.id).await.unwrap();
        assert_ne!(found.state, "failed", "{:?}", found.error);
        (found.state == "succeeded").then_some(())
    })
    .await;

    // Each test signs in anew, and an old token used again would end them all.
    for _ in 0..3 {
        let found = test(&shop, id).await;
        assert_eq!(failed(&found), None, "{found}");
    }
    let tests = (0..4).map(|_| test(&shop, id));
    for found in futures::future::join_all(tests).await {
        assert_eq!(failed(&found), None, "{found}");
    }
}
