//! Freshet's own database is restored from a back-up: the halt is named, adopting Kafka's position goes on without loss
//! or repeats.

use std::process::Command;

use freshet_core::error::Code;
use freshet_core::id::{RequestId, RunId};
use freshet_core::run::{self, RunState};
use freshet_core::sync;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::diff;
use crate::shop::{Shop, Worker, each_once, make_orders, orders};
use crate::snowflake::runs::replayed;
use crate::snowflake_runs::Emulator;

/// A `pg_dump` of Freshet's database.
struct BackUp(std::path::PathBuf);

impl Drop for BackUp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn command(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

impl BackUp {
    fn take(shop: &Shop) -> Self {
        let path = std::env::temp_dir().join(format!("freshet-{}.dump", RequestId::new()));
        command("pg_dump", &["--format=custom", "--file", path.to_str().unwrap(), &shop.bench.admin_url]);
        Self(path)
    }

    /// Takes it while a run is under way and its worker stands still.
    async fn take_within(shop: &Shop, worker: &Worker, run: RunId) -> Self {
        shop.is_under_way(run).await;
        worker.signal("-STOP");
        let taken = Self::take(shop);
        worker.signal("-CONT");
        taken
    }

    /// Puts it in the place of the database, which is lost.
    async fn restore(&self, shop: &Shop) {
        let (server, name) = shop.bench.admin_url.rsplit_once('/').unwrap();
        let mut connection = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
        for statement in
            [format!("drop database {name} with (force)"), format!("create database {name} owner freshet_owner")]
        {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
        }
        command("pg_restore", &["--exit-on-error", "--dbname", &shop.bench.admin_url, self.0.to_str().unwrap()]);
    }
}

/// Expects the halt by its name, that nothing went out meanwhile, and that a person is told what to do; then adopts.
async fn halts_and_adopts(shop: &Shop, run: RunId) {
    let before = shop.committed().len();
    let failure = shop.ended(run).await.failure.expect("the run halts");
    assert_eq!(failure.code, "kafka.ledger_behind", "{}", failure.message);
    assert!(failure.action.unwrap().contains("adopt-position"));
    let again = shop.run().await;
    assert_eq!(shop.ended(again).await.failure.expect("it halts again").code, "kafka.ledger_behind");
    assert_eq!(shop.committed().len(), before);

    let (app, caller) = (&shop.bench.app, &shop.bench.caller);
    sync::ops::adopt_position(app, caller, shop.sync).await.unwrap();
    let adopted = shop.run().await;
    let ended = shop.ended(adopted).await;
    assert_eq!(ended.state, RunState::Succeeded, "{:?}", ended.failure);
    let told = run::ops::events(app, caller, adopted, 0).await.unwrap();
    assert!(told.iter().any(|event| event.code == "position.adopted"), "{told:?}");
    // There is nothing to adopt any more.
    let refused = sync::ops::adopt_position(app, caller, shop.sync).await.unwrap_err();
    assert_eq!(refused.code, Code::WrongState);
}

/// Lets the sync run, is backed up within the second run, goes on for a third, is restored.
async fn lost_since_the_second_run(
    shop: &Shop,
    mut change: impl FnMut(i64) -> String,
    mut at: impl AsyncFnMut(String),
) {
    let worker = shop.worker();
    shop.run_to_the_end().await;
    at(change(1)).await;
    let second = shop.run().await;
    let back_up = BackUp::take_within(shop, &worker, second).await;
    assert!(shop.ended(second).await.failure.is_none());
    at(change(2)).await;
    shop.run_to_the_end().await;
    at(change(3)).await;
    worker.stop();

    back_up.restore(shop).await;
    assert!(!shop.found(second).await.state.is_final(), "the back-up is of no run under way");
    let _worker = shop.worker();
    halts_and_adopts(shop, second).await;
    at(change(4)).await;
    shop.run_to_the_end().await;
    assert_eq!(shop.run_to_the_end().await.outcome.as_deref(), Some("no_changes"));
}

#[tokio::test]
async fn an_incremental_sync_goes_on_after_a_restore_with_each_row_once() {
    let config = json!({"mode": {"kind": "incremental", "cursor": "id"}});
    let shop = Shop::new(&make_orders(500), orders(), &[], config).await;
    let change = |round: i64| {
        let rows = if round == 1 { 60_000 } else { 700 };
        format!("insert into orders select n from generate_series({0} + 1, {0} + {rows}) as n", round * 100_000)
    };

    lost_since_the_second_run(&shop, change, async |sql: String| shop.sql(&sql).await).await;

    let later = (2..=4).flat_map(|round| round * 100_000 + 1..=round * 100_000 + 700);
    each_once(&shop.committed(), (1..=500).chain(100_001..=160_000).chain(later));
}

async fn diff_of(rows: i64) -> Shop {
    let sql = format!(
        "create schema freshet; create table orders (id bigint primary key, name text);
         insert into orders select n, 'order ' || n from generate_series(1, {rows}) as n"
    );
    Shop::new(&sql, orders(), &[], json!({"mode": {"kind": "diff"}})).await
}

#[tokio::test]
async fn a_diff_goes_on_after_a_restore_and_replays_to_the_table() {
    let shop = diff_of(60_000).await;
    let change = |round: i64| {
        let part = if round == 1 { 1 } else { 50 };
        format!(
            "update orders set name = 'round {round}' where id % {part} = 0; delete from orders where id % 97 = {round};
             insert into orders select n from generate_series({round}00001, {round}00100) as n"
        )
    };

    lost_since_the_second_run(&shop, change, async |sql: String| shop.sql(&sql).await).await;

    assert!(diff::replayed(&shop) == diff::table(&shop).await, "the topic tells another table");
}

#[tokio::test]
async fn a_diff_backed_up_between_runs_is_halted_before_it_takes_a_snapshot() {
    for runs_lost in 1..=2 {
        let shop = diff_of(500).await;
        let worker = shop.worker();
        shop.run_to_the_end().await;
        let back_up = BackUp::take(&shop);
        for round in 1..=runs_lost {
            shop.sql(&format!("update orders set name = 'lost {round}' where id % 3 = {round}")).await;
            shop.run_to_the_end().await;
        }
        shop.sql("delete from orders where id % 7 = 0").await;
        worker.stop();

        back_up.restore(&shop).await;
        let _worker = shop.worker();
        let first = shop.run().await;
        halts_and_adopts(&shop, first).await;
        shop.sql("update orders set name = 'after' where id % 5 = 0").await;
        shop.run_to_the_end().await;

        assert!(diff::replayed(&shop) == diff::table(&shop).await, "the topic tells another table");
    }
}

#[tokio::test]
async fn a_stream_goes_on_after_a_restore_and_replays_to_the_table() {
    let emulator = Emulator::start().await;
    let mut shop = emulator.stream_sync().await;
    shop.environment.push(("FRESHET_CHUNK_ROWS_MAX".into(), "100".into()));
    emulator.add_orders(1..=100);
    let change = |round: i64| {
        if round == 1 {
            (1..=9).for_each(|part| emulator.add_orders(part * 1_000..=part * 1_000 + 999));
        }
        emulator.add_orders(round * 10_000..=round * 10_000 + 50);
        format!(
            "update \"orders\" set \"name\" = 'round {round}' where \"id\" % 3 = 0;
             delete from \"orders\" where \"id\" % 17 = {round}"
        )
    };

    lost_since_the_second_run(&shop, change, async |sql: String| {
        emulator.sql(&sql);
    })
    .await;

    assert_eq!(replayed(&shop.committed()), emulator.orders());
}
