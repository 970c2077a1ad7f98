//! `freshet doctor`: what it finds, that it says what to do, and that it fails when it has to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use freshet_core::connector::Registry;
use freshet_core::testing::{Bench, surroundings, with_database};
use freshet_core::vault::Vault;
use serde_json::Value;

use crate::shop::{free, freshet};

/// A check's state, what it found, and what to do.
type Told = BTreeMap<String, (String, String, Option<String>)>;

fn doctor(bench: &Bench, settings: &[(&str, &str)]) -> (bool, Told, String) {
    let own = &bench.app.settings;
    let environment = [
        ("FRESHET_DATABASE_URL", own.database_url.expose()),
        ("FRESHET_MASTER_KEYS", own.master_keys.expose()),
        ("FRESHET_API_LISTEN", "127.0.0.1:0"),
    ];
    let output = freshet(&["doctor", "--json"], environment).envs(settings.iter().copied()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    assert_eq!(report["ok"].as_bool().unwrap(), output.status.success());
    assert!(output.status.success() || output.status.code() == Some(1));
    let checks = report["checks"].as_array().unwrap().iter().map(|check| {
        let text = |name: &str| check[name].as_str().map(str::to_owned);
        (text("check").unwrap(), (text("state").unwrap(), text("found").unwrap(), text("action")))
    });
    let told: Told = checks.collect();
    for (check, (state, found, action)) in &told {
        assert_eq!(state != "ok", action.is_some(), "{check}: {found}");
    }
    (output.status.success(), told, text)
}

/// Expects one check to be so, and to tell this.
fn expect(told: &Told, check: &str, state: &str, says: &str) {
    let (is, found, action) = told.get(check).unwrap_or_else(|| panic!("no check `{check}` in {told:?}"));
    assert!(is == state && found.contains(says), "{check}: {is}, {found}, {action:?}");
}

#[tokio::test]
async fn an_installation_as_it_should_be_passes() {
    let bench = Bench::new(Registry::default()).await;

    let (passed, told, _) = doctor(&bench, &[]);

    assert!(passed, "{told:?}");
    assert!(told.len() >= 17, "{told:?}");
    assert!(told.values().all(|(state, ..)| state == "ok"), "{told:?}");
    expect(&told, "database role", "ok", "`freshet_app` owns nothing");
    expect(&told, "secrets", "ok", "0, all of `test`");
}

#[tokio::test]
async fn what_is_wrong_is_a_failure_that_says_what_to_do_and_no_secret() {
    let bench = Bench::new(Registry::default()).await;
    let (name, key) = (bench.admin_url.rsplit_once('/').unwrap().1, Vault::draw_master_key());
    let dead = free();
    let owner = with_database(&surroundings("FRESHET_OWNER_DATABASE_URL"), name);
    let (smtp, otlp) = (format!("smtp://ada:hunter2@{dead}"), format!("http://{dead}"));

    let (passed, told, text) = doctor(
        &bench,
        &[
            ("FRESHET_DATABASE_URL", &owner),
            ("FRESHET_OWNER_DATABASE_URL", &bench.admin_url),
            ("FRESHET_DATABASE_CONNECTIONS_MAX", "1000"),
            ("FRESHET_MASTER_KEYS", &format!("weak={key},weak={key}")),
            ("FRESHET_METRICS_LISTEN", "everywhere"),
            ("FRESHET_PUBLIC_URL", "http://freshet.example.com"),
            ("FRESHET_SMTP_URL", &smtp),
            ("FRESHET_MAIL_FROM", "freshet@example.com"),
            ("FRESHET_OTLP_ENDPOINT", &otlp),
            ("FRESHET_OTLP_HEADERS", "authorization=hunter2"),
            ("FRESHET_EGRESS_ALLOW", "everything"),
            ("FRESHET_SNOWFLAKE_HOSTS", "https://elsewhere/path"),
            ("FRESHET_LOG", "freshet=loud"),
            ("FRESHET_LEASE_S", "0"),
        ],
    );

    assert!(!passed);
    for (check, says) in [
        ("database role", "owns the tables"),
        ("database connections", "up to 1000"),
        ("master keys", "given twice"),
        ("metrics", "no address"),
        ("public url", "in the clear"),
        ("mail", "mail server"),
        ("traces", "cannot be reached"),
        ("egress", "neither a network nor an address"),
        ("snowflake hosts", "FRESHET_SNOWFLAKE_HOSTS"),
        ("log", "freshet=loud"),
        ("sizes", "FRESHET_LEASE_S is 0"),
    ] {
        expect(&told, check, "failure", says);
    }
    expect(&told, "database owner", "warning", "can migrate");
    for secret in ["hunter2", &key, "postgres:postgres", "freshet_owner:freshet_owner"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

#[tokio::test]
async fn settings_that_do_not_parse_and_a_database_that_is_away_are_found() {
    let bench = Bench::new(Registry::default()).await;

    let (passed, told, _) = doctor(&bench, &[("FRESHET_POLL_MS", "often")]);
    assert!(!passed);
    expect(&told, "settings", "failure", "FRESHET_POLL_MS");

    let (passed, told, text) = doctor(&bench, &[("FRESHET_DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/freshet")]);
    assert!(!passed && !text.contains("hunter2"));
    expect(&told, "database", "failure", "cannot connect");
    expect(&told, "api", "ok", "is free");
}

#[tokio::test]
async fn secrets_of_lost_and_of_mistaken_master_keys_are_found() {
    use freshet_core::user::{self, ops::NewUser};
    let bench = Bench::new(Registry::default()).await;
    let word = user::ops::draw_set_up_word(&bench.app, false).await.unwrap().unwrap();
    let password = "correct horse battery staple of a test".parse().unwrap();
    let new = NewUser { email: "ada@acme.example", name: "Ada", password: &password };
    let ada = user::ops::set_up(&bench.app, &word, &new, "lovelace", "Lovelace").await.unwrap();
    user::ops::begin_second_factor(&bench.app, ada).await.unwrap();
    let own = bench.app.settings.master_keys.expose();
    let (other, mistaken) = (Vault::draw_master_key(), Vault::draw_master_key());

    let (lost, lost_told, _) = doctor(&bench, &[("FRESHET_MASTER_KEYS", &format!("other={other}"))]);
    let (taken, taken_told, _) = doctor(&bench, &[("FRESHET_MASTER_KEYS", &format!("test={mistaken}"))]);
    let (turning, turning_told, _) = doctor(&bench, &[("FRESHET_MASTER_KEYS", &format!("other={other},{own}"))]);
    let (missing, missing_told, _) =
        doctor(&bench, &[("FRESHET_MASTER_KEYS", ""), ("FRESHET_MASTER_KEYS_FILE", "/nowhere")]);

    assert!(!lost && !taken && turning && !missing);
    expect(&lost_told, "secrets", "failure", "1 secrets are sealed by keys that are not given: `test`");
    expect(&taken_told, "secrets", "failure", "1 of the secrets of `test` that were tried do not open");
    expect(&turning_told, "secrets", "warning", "1 secrets are still to be wrapped by `other`");
    expect(&missing_told, "master keys", "failure", "cannot be read");
}

#[tokio::test]
async fn a_schema_older_than_the_program_fails_doctor_and_readyz() {
    let bench = Bench::new(Registry::default()).await;
    bench.app.db.ready().await.unwrap();
    let newest = "delete from _sqlx_migrations where version = (select max(version) from _sqlx_migrations)";
    crate::shop::run_sql(&bench.admin_url, newest).await;

    let (passed, told, _) = doctor(&bench, &[]);
    let ready = bench.app.db.ready().await.unwrap_err();

    assert!(!passed);
    expect(&told, "database schema", "failure", "this program's is");
    assert!(ready.message.contains("older than this program"), "{ready}");
}

/// A mail server that takes whoever comes, and what it heard.
fn mail_server() -> (u16, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        let mut heard = Vec::new();
        for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
            let answer = match line.split(' ').next().unwrap() {
                "EHLO" => "250-mail.example\r\n250 AUTH PLAIN\r\n",
                "AUTH" => "235 2.7.0 welcome\r\n",
                "QUIT" => "221 bye\r\n",
                _ => "250 ok\r\n",
            };
            heard.push(line);
            if stream.write_all(answer.as_bytes()).is_err() || answer.starts_with("221") {
                break;
            }
        }
        heard
    });
    (port, heard)
}

#[tokio::test]
async fn mail_is_tried_with_its_login_and_nothing_is_sent() {
    let bench = Bench::new(Registry::default()).await;
    let (port, heard) = mail_server();

    let url = format!("smtp://ada:secret@127.0.0.1:{port}");
    let (passed, told, _) = doctor(&bench, &[("FRESHET_SMTP_URL", &url), ("FRESHET_MAIL_FROM", "freshet@example.com")]);

    assert!(passed, "{told:?}");
    expect(&told, "mail", "ok", "takes our login");
    let heard = heard.join().unwrap();
    assert!(heard.iter().any(|line| line.starts_with("AUTH ")), "{heard:?}");
    assert!(!heard.iter().any(|line| line.starts_with("MAIL ")), "{heard:?}");
}
