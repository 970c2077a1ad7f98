//! What is thrown at a run under way, and that each row is on the topic once all the same.

use std::time::Duration;

use freshet_core::connector::Registry;
use freshet_core::db::Db;
use freshet_core::run::{self, RunState};
use freshet_core::settings::Settings;
use freshet_core::testing::Bench;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::shop::{Shop, each_once, make_orders, orders, until};

const ROWS: i64 = 120_000;

async fn shop() -> Shop {
    Shop::new(&make_orders(ROWS), orders(), &[], json!({})).await
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_leaves_each_row_once_and_two_attempts() {
    let shop = shop().await;
    let first = shop.worker();
    let (id, held) = shop.run_held().await;

    first.signal("-KILL");
    drop(held);
    let _second = shop.worker();
    let run = shop.ended(id).await;

    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.failure);
    assert_eq!((run.counts.read, run.counts.published, run.attempt_count), (ROWS, ROWS, 2));
    each_once(&shop.committed(), 1..=ROWS);
    let attempts = run::ops::attempts(&shop.bench.app, &shop.bench.caller, id).await.unwrap();
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome.as_deref().unwrap()).collect();
    assert_eq!(outcomes, ["interrupted", "succeeded"]);
}

#[tokio::test]
async fn a_worker_that_wakes_after_it_was_replaced_writes_nothing_more() {
    let shop = shop().await;
    let zombie = shop.worker();
    let (id, held) = shop.run_held().await;

    zombie.signal("-STOP");
    drop(held);
    let _second = shop.worker();
    tokio::time::sleep(Duration::from_secs(4)).await;
    zombie.signal("-CONT");
    let run = shop.ended(id).await;

    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.failure);
    assert_eq!(run.counts.published, ROWS);
    tokio::time::sleep(Duration::from_secs(2)).await;
    each_once(&shop.committed(), 1..=ROWS);
}

#[tokio::test]
async fn a_stopping_worker_lays_its_run_down_and_another_goes_on() {
    let shop = shop().await;
    let first = shop.worker();
    let (id, held) = shop.run_held().await;

    first.signal("-TERM");
    drop(held);
    tokio::task::spawn_blocking(|| first.wait()).await.unwrap();
    let laid_down = shop.found(id).await;
    let _second = shop.worker();
    let run = shop.ended(id).await;

    assert_eq!(laid_down.state, RunState::RetryWait);
    assert_eq!((run.state, run.counts.published), (RunState::Succeeded, ROWS), "{:?}", run.failure);
    each_once(&shop.committed(), 1..=ROWS);
}

#[tokio::test]
async fn what_a_cancelled_run_left_goes_first_in_the_next() {
    let shop = shop().await;
    let _worker = shop.worker();
    let (id, held) = shop.run_held().await;

    drop(held);
    run::ops::cancel(&shop.bench.app, &shop.bench.caller, id).await.unwrap();
    let cancelled = shop.ended(id).await;
    let next = shop.run_to_the_end().await;

    assert_eq!(cancelled.state, RunState::Cancelled);
    assert!(cancelled.counts.published < ROWS);
    // The rest of the batch that was cut short, and then its own.
    assert_eq!(cancelled.counts.published + next.counts.published, 2 * ROWS);
    let seen = shop.committed();
    let first: Vec<_> = seen.iter().filter(|record| record.headers["freshet-id"].contains(".1.1.")).cloned().collect();
    each_once(&first, 1..=ROWS);
    assert_eq!(seen.len() as i64, 2 * ROWS);
}

#[tokio::test]
async fn a_source_that_throws_everybody_out_is_read_on_from_where_it_was() {
    let shop = shop().await;
    let _worker = shop.worker();
    let (id, held) = shop.run_held().await;

    shop.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .await;
    drop(held);
    let run = shop.ended(id).await;

    assert_eq!((run.state, run.counts.published), (RunState::Succeeded, ROWS), "{:?}", run.failure);
    assert_eq!(run.attempt_count, 2);
    each_once(&shop.committed(), 1..=ROWS);
}

#[tokio::test]
async fn whoever_falls_silent_in_a_transaction_loses_it_with_its_lease() {
    let bench = Bench::new(Registry::default()).await;
    let db = Db::connect(&Settings { lease_s: 0.5, ..(*bench.app.settings).clone() }).await.unwrap();
    let silent = db.tenant(bench.caller.workspace).await.unwrap();

    tokio::time::sleep(Duration::from_secs(1)).await;

    assert!(silent.commit().await.is_err(), "the rows it held would keep another from taking its run over");
    db.ready().await.unwrap();
}

#[tokio::test]
async fn whoever_is_dropped_while_it_begins_leaves_no_transaction_open() {
    // No server ends here what has long been idle.
    let bench = Bench::with(Registry::default(), &[("lease_s", "600")]).await;
    let (db, workspace) = (&bench.app.db, bench.caller.workspace);
    let mut admin = PgConnection::connect(&bench.admin_url).await.unwrap();
    db.ready().await.unwrap();
    for polls in 1..12 {
        let mut begun = Box::pin(db.tenant(workspace));
        for _ in 0..polls {
            if futures::poll!(begun.as_mut()).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(begun);
        until("nobody is in a transaction", async || {
            let open: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity
                 where datname = current_database() and xact_start is not null and pid <> pg_backend_pid()
                   and usesysid is not null",
            )
            .fetch_one(&mut admin)
            .await
            .unwrap();
            (open == 0).then_some(())
        })
        .await;
    }
}
