//! Mode `diff`: what changed between two runs, with the row as it was.

use std::collections::BTreeMap;
use std::time::Duration;

use freshet_core::error::Code;
use freshet_core::run::RunState;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};

use crate::shop::{Shop, make_orders, orders, until};

fn diff() -> Value {
    json!({"mode": {"kind": "diff"}})
}

/// The table that the topic tells, each `before` checked against the row as it was.
pub fn replayed(shop: &Shop) -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    let mut ids = std::collections::BTreeSet::new();
    for record in shop.committed() {
        assert!(ids.insert(record.headers["freshet-id"].clone()), "{} came twice", record.headers["freshet-id"]);
        if record.value.is_null() {
            continue;
        }
        let key = record.key.unwrap().to_string();
        let known = rows.remove(&key).unwrap_or(Value::Null);
        assert_eq!(record.value["before"], known, "the row as it was, of {key}");
        let after = record.value["after"].clone();
        match record.value["op"].as_str().unwrap() {
            "d" => assert!(after.is_null()),
            _ => {
                rows.insert(key, after);
            }
        }
    }
    rows
}

/// The table itself, its rows as the server writes them as JSON.
pub async fn table(shop: &Shop) -> BTreeMap<String, Value> {
    let mut connection = PgConnection::connect(&shop.source).await.unwrap();
    let rows = sqlx::query("select json_build_object('id', id)::text as key, to_json(orders)::text as row from orders")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let json = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    rows.iter().map(|row| (json(row.get("key")).to_string(), json(row.get("row")))).collect()
}

async fn tables_of_freshet(shop: &Shop) -> Vec<String> {
    let mut connection = PgConnection::connect(&shop.source).await.unwrap();
    sqlx::query_scalar(
        "select relname::text from pg_class where relname like 'freshet\\_%' and relkind = 'r' order by 1",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn rounds_of_random_changes_replay_to_the_table() {
    let sql = "create schema freshet;
               create table orders (id bigint primary key, name text, amount numeric, at double precision, tags jsonb);";
    let shop = Shop::new(sql, orders(), &[], diff()).await;
    let _worker = shop.worker();
    let mut dice = StdRng::seed_from_u64(7);
    for round in 0..5 {
        let mut changes = String::new();
        for _ in 0..150 {
            let (id, amount) = (dice.random_range(0..300), dice.random_range(0..9));
            changes.push_str(&match dice.random_range(0..10) {
                0..6 => format!(
                    "insert into orders values ({id}, null, {amount}.50, 1.5, '{{\"n\": {amount}}}')
                     on conflict (id) do update set name = 'round {round}', amount = {amount}.5;"
                ),
                6..8 => format!("update orders set name = '', tags = null where id = {id};"),
                _ => format!("delete from orders where id = {id};"),
            });
        }
        shop.sql(&changes).await;
        shop.run_to_the_end().await;
        assert_eq!(replayed(&shop).len(), table(&shop).await.len(), "round {round}");
    }

    let idle = shop.run_to_the_end().await;

    assert_eq!((idle.counts.read, idle.outcome.as_deref()), (0, Some("no_changes")));
    assert_eq!(replayed(&shop), table(&shop).await);
    assert_eq!(tables_of_freshet(&shop).await.len(), 1, "one snapshot is left, and no difference");
}

#[tokio::test]
async fn rows_are_the_same_only_when_their_messages_are() {
    let sql = "create schema freshet;
               create table orders (id bigint primary key, amount numeric, at double precision, note text, doc json);
               insert into orders values (1, 1.0, 'NaN', '', '{\"a\":1}'), (2, 1, 0, null, null), (3, 3, 3, 'x', '[]');";
    let shop = Shop::new(sql, orders(), &[], diff()).await;
    let _worker = shop.worker();
    let first = shop.run_to_the_end().await;

    shop.sql("update orders set amount = 1.0, at = 'NaN', note = '', doc = '{\"a\":1}' where id = 1").await;
    let same = shop.run_to_the_end().await;
    shop.sql(
        "update orders set amount = 1.00 where id = 1; update orders set note = '' where id = 2;
              update orders set id = 4 where id = 3",
    )
    .await;
    let changed = shop.run_to_the_end().await;

    assert_eq!((first.counts.created, same.counts.read), (3, 0));
    assert_eq!((changed.counts.created, changed.counts.updated, changed.counts.deleted), (1, 2, 1));
    let rows = replayed(&shop);
    assert_eq!(rows["{\"id\":1}"]["at"], "NaN");
    assert!(rows.contains_key("{\"id\":4}") && !rows.contains_key("{\"id\":3}"));
}

#[tokio::test]
async fn a_worker_that_dies_leaves_a_batch_that_the_next_one_finishes() {
    let shop = Shop::new(&format!("create schema freshet; {}", make_orders(40_000)), orders(), &[], diff()).await;
    let first = shop.worker();
    let (run, held) = shop.run_held().await;
    first.signal("-KILL");
    drop(held);
    drop(first);
    // What was sealed is sent, whatever the table holds by now.
    shop.sql("delete from orders where id > 39990").await;
    let _second = shop.worker();

    let ended = shop.ended(run).await;
    assert_eq!((ended.state, ended.counts.created), (RunState::Succeeded, 40_000), "{:?}", ended.failure);
    let deleted = shop.run_to_the_end().await;

    assert_eq!(deleted.counts.deleted, 10);
    assert_eq!(replayed(&shop).len(), 39_990);
    assert_eq!(tables_of_freshet(&shop).await.len(), 1);
}

/// Statements on Freshet's tables wait while a row of `hold` names their command.
const HOLD: &str = "
    create schema freshet;
    create table hold (tag text);
    create function hold_back() returns event_trigger language plpgsql as $$
    begin
        if tg_tag in (select tag from public.hold) then
            perform pg_sleep(60);
        end if;
    end $$;
    create event trigger hold_back on ddl_command_end execute function hold_back();";

/// Waits until a statement of the worker is held back.
async fn is_held(shop: &Shop) {
    let mut connection = PgConnection::connect(&shop.source).await.unwrap();
    until("a statement is held back", async || {
        let held: bool = sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep')",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        held.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_worker_killed_in_a_seal_or_a_release_or_anywhere_costs_and_repeats_nothing() {
    let orders_made = "create table orders (id bigint primary key, name text, amount numeric);
                       insert into orders select n, 'order ' || n, n / 100.0 from generate_series(1, 3000) as n";
    let shop = Shop::new(&format!("{HOLD} {orders_made}"), orders(), &[], diff()).await;
    let mut dice = StdRng::seed_from_u64(11);
    let held = [Some("CREATE TABLE AS"), Some("ALTER TABLE"), Some("DROP TABLE")];
    for (round, held) in held.into_iter().chain([None; 7]).enumerate() {
        shop.sql(&format!(
            "update orders set name = 'round {round}' where id % 7 = {round} % 7; delete from orders where id % 11 = {round};
             insert into orders values ({}, 'new')",
            10_000 + round
        ))
        .await;
        if let Some(tag) = held {
            shop.sql(&format!("insert into hold values ('{tag}')")).await;
        }
        let first = shop.worker();
        let run = shop.run().await;
        match held {
            Some(_) => is_held(&shop).await,
            None => tokio::time::sleep(Duration::from_millis(dice.random_range(0..900))).await,
        }
        first.signal("-KILL");
        drop(first);
        shop.sql(
            "delete from hold;
             select pg_cancel_backend(pid) from pg_stat_activity
             where datname = current_database() and wait_event = 'PgSleep';
             update orders set amount = coalesce(amount, 0) + 1 where id % 13 = 1",
        )
        .await;

        let _second = shop.worker();
        let ended = shop.ended(run).await;

        assert_eq!(ended.state, RunState::Succeeded, "round {round}: {:?}", ended.failure);
    }
    let _worker = shop.worker();
    shop.run_to_the_end().await;

    assert!(replayed(&shop) == table(&shop).await, "the topic tells another table");
    assert_eq!(tables_of_freshet(&shop).await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused_and_leaves_the_last_snapshot() {
    let shop = Shop::new(&make_orders(3), orders(), &[], diff()).await;
    let _worker = shop.worker();
    let failure = async |what: &str| {
        let run = shop.run().await;
        let ended = shop.ended(run).await;
        ended.failure.unwrap_or_else(|| panic!("{what} was taken"))
    };

    let no_schema = failure("no schema").await;
    shop.sql("create schema freshet").await;
    shop.run_to_the_end().await;
    shop.sql("alter table orders drop constraint orders_pkey; insert into orders (id) values (1)").await;
    let repeated = failure("a repeated key").await;
    shop.sql("delete from orders where name is null; alter table orders alter id drop not null; insert into orders values (null)")
        .await;
    let null = failure("NULL as key").await;
    shop.sql("delete from orders where id is null; alter table orders alter id set not null; update orders set name = 'new' where id = 2")
        .await;
    let after = shop.run_to_the_end().await;

    assert_eq!(no_schema.code, Code::PostgresPrivilege.as_str());
    assert!(no_schema.message.contains("create schema \"freshet\" authorization"), "{}", no_schema.message);
    assert_eq!(repeated.code, Code::ModelKeyDuplicate.as_str());
    assert!(
        [Code::ModelKeyNull.as_str(), Code::ModelColumnsChanged.as_str()].contains(&null.code.as_str()),
        "{null:?}"
    );
    assert_eq!((after.counts.updated, after.counts.read), (1, 1));
}
