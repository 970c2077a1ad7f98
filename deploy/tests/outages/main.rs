//! Outages of the servers themselves. A binary of its own: nothing else may need them at that time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "the other binary uses the rest of the shop")]

#[path = "../it/shop.rs"]
mod shop;

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use freshet_core::run::RunState;
use serde_json::json;

use crate::shop::{Shop, each_once, make_orders, orders};

const ROWS: i64 = 120_000;

/// One outage at a time.
static SERVERS: Mutex<()> = Mutex::new(());

/// Runs a program of `deploy/dev`.
fn dev(program: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev").join(program);
    let done = Command::new(path).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A run under way, an outage, and each row on the topic once.
fn survives(outage: impl FnOnce()) {
    let _alone = SERVERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (shop, _worker, id) = runtime.block_on(async {
        let shop = Shop::new(&make_orders(ROWS), orders(), &[], json!({})).await;
        let worker = shop.worker();
        let (id, _) = shop.run_held().await;
        (shop, worker, id)
    });

    outage();

    let run = runtime.block_on(shop.ended(id));
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.failure);
    assert_eq!((run.counts.read, run.counts.published), (ROWS, ROWS));
    each_once(&shop.committed(), 1..=ROWS);
}

#[test]
fn a_broker_that_stands_still_for_20_s_is_waited_for() {
    survives(|| {
        dev("kafka", &["pause", "1"]);
        std::thread::sleep(Duration::from_secs(20));
        dev("kafka", &["resume", "1"]);
    });
}

#[test]
fn a_broker_killed_and_started_again_is_found_again() {
    survives(|| {
        dev("kafka", &["kill", "1"]);
        std::thread::sleep(Duration::from_secs(2));
        dev("kafka", &["restart", "1"]);
    });
}

#[test]
fn postgres_started_anew_is_found_again() {
    survives(|| dev("postgres", &["restart"]));
}
