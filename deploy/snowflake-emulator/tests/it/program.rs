//! The binary: its commands, and what `kill -9` leaves.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::bench::{Bench, database};

async fn command(database_url: &str, arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_snowflake-emulator"))
        .args(arguments)
        .env("SNOWFLAKE_EMULATOR_DATABASE_URL", database_url)
        .output()
        .await
        .expect("the binary runs");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text").trim().to_owned()
}

/// Starts a server; returns it with its URL.
async fn serve(database_url: &str) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_snowflake-emulator"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("SNOWFLAKE_EMULATOR_DATABASE_URL", database_url)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary runs");
    let stdout = child.stdout.take().expect("it is piped");
    let url = BufReader::new(stdout).lines().next_line().await.expect("a line").expect("a URL");
    (child, url)
}

#[tokio::test]
async fn the_commands_prepare_serve_and_load_an_account() {
    let url = database().await;
    command(&url, &["create-user", "jdoe"]).await;
    command(&url, &["create-database", "demo"]).await;
    command(&url, &["set-key", "jdoe", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/keys/one.pub")]).await;
    let token = command(&url, &["create-token", "jdoe"]).await;
    command(
        &url,
        &["load", "--database", "demo", "--table", "orders", "--rate", "2000", "--seconds", "1", "--seed", "7"],
    )
    .await;

    let printed = command(
        &url,
        &["sql", "--database", "demo", "--schema", "public", "select 1; select count(*) > 0 as some from orders"],
    )
    .await;
    assert!(printed.contains("SOME") && printed.contains("true") && printed.ends_with("(1 rows)"), "{printed}");

    let (mut server, address) = serve(&url).await;
    let shown =
        command(&url, &["faults", "--url", &address, r#"{"rules":[{"kind":"token_expired","count":1}]}"#]).await;
    assert!(shown.contains("token_expired"), "{shown}");
    let answer = snowflake_emulator::http_client()
        .build()
        .expect("a client")
        .post(format!("{address}/api/v2/statements"))
        .bearer_auth(&token)
        .header("accept", "application/json")
        .header("user-agent", "tests/1")
        .json(&json!({"statement": "select 1"}))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 401);
    server.kill().await.expect("it ends");
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_committed() {
    let bench = Bench::new().await;
    bench.all(&["create table t (id number)", "create stream s on table t"]).await;
    let (mut server, address) = serve(&bench.database_url).await;
    let killed = Bench { url: address, ..bench };
    // The binary's account has another name; a programmatic token does not mind.
    for id in 0..20 {
        killed.run(&format!("insert into t values ({id})")).await;
    }
    killed.run("create transient table b_1 as select * from s").await;
    killed.run("insert into t values (99)").await;

    server.kill().await.expect("it ends");
    let (mut again, address) = serve(&killed.database_url).await;
    let bench = Bench { url: address, ..killed };

    assert_eq!(bench.one("select count(*) from b_1").await, "20");
    assert_eq!(bench.lines("select id from s").await, ["99"]);
    again.kill().await.expect("it ends");
}
