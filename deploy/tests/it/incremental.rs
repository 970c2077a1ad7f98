//! Mode `incremental`: only what is new, and nothing that is committed late is lost.

use freshet_core::run::{self, RunState};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use crate::shop::{Shop, each_once, make_orders, orders, until};

#[tokio::test]
async fn only_new_rows_are_sent_and_an_idle_run_touches_nothing() {
    let shop =
        Shop::new(&make_orders(1_500), orders(), &[], json!({"mode": {"kind": "incremental", "cursor": "id"}})).await;
    let _worker = shop.worker();

    let first = shop.run_to_the_end().await;
    let idle = shop.run_to_the_end().await;
    shop.sql("insert into orders select n from generate_series(1501, 1600) as n").await;
    let second = shop.run_to_the_end().await;

    assert_eq!((first.counts.updated, second.counts.updated), (1_500, 100));
    assert_eq!((idle.counts.read, idle.outcome.as_deref()), (0, Some("no_changes")));
    each_once(&shop.committed(), 1..=1_600);
    assert!(shop.committed().iter().all(|record| record.headers["freshet-op"] == "u"));
}

#[tokio::test]
async fn a_row_committed_late_is_never_lost() {
    let sql = "create table orders (id bigint primary key, name text, at timestamptz not null default now());
               create index on orders (at, id);
               insert into orders (id) select n from generate_series(1, 10) as n;";
    let shop = Shop::new(sql, orders(), &[], json!({"mode": {"kind": "incremental", "cursor": "at"}})).await;
    let _worker = shop.worker();
    shop.run_to_the_end().await;

    // It takes its time before the others and commits after them.
    let mut late = PgConnection::connect(&shop.source).await.unwrap();
    late.execute("begin; insert into orders (id) values (11)").await.unwrap();
    shop.sql("insert into orders (id) values (12)").await;
    let waiting = shop.run_to_the_end().await;
    late.execute("commit").await.unwrap();
    let after = shop.run_to_the_end().await;

    assert_eq!(waiting.counts.read, 0);
    assert_eq!(after.counts.read, 2);
    each_once(&shop.committed(), 1..=12);
    let events = run::ops::events(&shop.bench.app, &shop.bench.caller, waiting.id, 0).await.unwrap();
    assert!(events.iter().any(|event| event.code == "source.note"), "nobody said why rows wait");
}

/// Both take long here, as they do on a table of millions.
#[tokio::test]
async fn no_rows_wait_for_a_vacuum_by_hand_or_by_the_server() {
    let slow = "autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_insert_threshold = 0,
                autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1";
    let sql = format!(
        "create table orders (id bigint primary key, name text);
         insert into orders select n from generate_series(1, 10) as n;
         create table by_hand with (autovacuum_enabled = false) as select n from generate_series(1, 200000) as n;
         create table by_server with ({slow}) as select n from generate_series(1, 200000) as n;"
    );
    let shop = Shop::new(&sql, orders(), &[], json!({"mode": {"kind": "incremental", "cursor": "id"}})).await;
    let _worker = shop.worker();
    shop.run_to_the_end().await;
    let mut by_hand = PgConnection::connect(&shop.source).await.unwrap();
    let by_hand = tokio::spawn(async move {
        by_hand.execute("set vacuum_cost_delay = 100").await.unwrap();
        by_hand.execute("set vacuum_cost_limit = 1").await.unwrap();
        by_hand.execute("vacuum (disable_page_skipping) by_hand").await
    });
    let mut asking = PgConnection::connect(&shop.source).await.unwrap();
    let mut under_way = async || -> i64 {
        let asked = "select count(distinct relid) from pg_stat_progress_vacuum
                     where relid in ('by_hand'::regclass, 'by_server'::regclass)";
        sqlx::query_scalar(asked).fetch_one(&mut asking).await.unwrap()
    };
    until("both vacuums are under way", async || (under_way().await == 2).then_some(())).await;

    shop.sql("insert into orders values (11)").await;
    let run = shop.run_to_the_end().await;

    assert_eq!(run.counts.read, 1);
    assert_eq!(under_way().await, 2, "a vacuum ended too soon to show anything");
    by_hand.abort();
}

#[tokio::test]
async fn rows_of_one_cursor_value_are_not_lost_between_chunks() {
    let sql = "create table orders (id bigint primary key, day date not null);
               insert into orders select n, date '2026-01-01' from generate_series(1, 3500) as n;";
    let shop = Shop::new(sql, orders(), &[], json!({"mode": {"kind": "incremental", "cursor": "day"}})).await;
    let _worker = shop.worker();

    shop.run_to_the_end().await;

    each_once(&shop.committed(), 1..=3_500);
}

#[tokio::test]
async fn a_cursor_that_cannot_be_one_is_refused_by_name() {
    let shop =
        Shop::new(&make_orders(5), orders(), &[], json!({"mode": {"kind": "incremental", "cursor": "name"}})).await;
    let _worker = shop.worker();

    let id = shop.run().await;
    let run = shop.ended(id).await;

    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.failure.unwrap().code, "model.cursor_unsuitable");
}
