//! Whole runs: what is new, what changed, and nothing twice.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Account;
use crate::shop::{Seen, Shop, each_once};

/// What a table has that takes every record in order: each update's image before is what was there, each delete has
/// its tombstone right behind, and each id comes once.
pub fn replayed(seen: &[Seen]) -> BTreeMap<i64, Value> {
    let mut table = BTreeMap::new();
    let mut ids = BTreeSet::new();
    let mut deleted: BTreeMap<i64, String> = BTreeMap::new();
    for record in seen {
        let key = record.key.as_ref().unwrap()["id"].as_i64().unwrap();
        let id = record.headers["freshet-id"].clone();
        assert!(ids.insert(id.clone()), "{id} came twice");
        if let Some(delete) = deleted.remove(&key) {
            assert_eq!((id, &record.value), (format!("{delete}.t"), &Value::Null), "a tombstone follows a delete");
            continue;
        }
        let (before, after) = (&record.value["before"], &record.value["after"]);
        assert_eq!(record.headers["freshet-op"], record.value["op"].as_str().unwrap());
        match record.value["op"].as_str().unwrap() {
            "c" => assert_eq!(table.insert(key, after.clone()), None, "{key} was there"),
            "u" => assert_eq!(table.insert(key, after.clone()).as_ref(), Some(before)),
            "d" => {
                assert_eq!(table.remove(&key).as_ref(), Some(before));
                deleted.insert(key, id);
            }
            other => panic!("{other}"),
        }
    }
    assert!(deleted.is_empty(), "{deleted:?} have no tombstone");
    table
}

async fn make_orders(account: &Account) {
    let columns = "\"id\" number(38,0) primary key, \"name\" varchar, \"amount\" number(12,2)";
    account.sql(&format!("create table {} ({columns})", account.table("orders"))).await;
}

async fn add_orders(account: &Account, numbers: std::ops::RangeInclusive<i64>) {
    let values: Vec<_> = numbers.map(|n| format!("({n}, 'order {n}', {n}.50)")).collect();
    account.sql(&format!("insert into {} values {}", account.table("orders"), values.join(", "))).await;
}

/// The rows of `orders`, by id.
async fn orders(account: &Account) -> BTreeMap<i64, Value> {
    let rows = account.rows(&format!("select * from {}", account.table("orders"))).await;
    let row = |row: Vec<Option<String>>| {
        let [Some(id), Some(name), Some(amount)] = &row[..] else { panic!("{row:?}") };
        let (id, amount): (i64, Value) = (id.parse().unwrap(), serde_json::from_str(amount).unwrap());
        (id, json!({"id": id, "name": name, "amount": amount}))
    };
    rows.into_iter().map(row).collect()
}

async fn no_changes(shop: &Shop) {
    assert_eq!(shop.run_to_the_end().await.outcome.as_deref(), Some("no_changes"));
}

/// A run sends what came since the last one, and an idle one nothing.
pub async fn incremental_runs_send_what_is_new(account: &Account) {
    make_orders(account).await;
    let mode = json!({"mode": {"kind": "incremental", "cursor": "id"}});
    let shop = account.sync_of(account.model("orders"), &["id"], mode).await;
    add_orders(account, 1..=250).await;
    let _worker = shop.worker();

    shop.run_to_the_end().await;
    let idle = shop.run_to_the_end().await;
    add_orders(account, 251..=260).await;
    let more = shop.run_to_the_end().await;

    assert_eq!(idle.counts.published, 0);
    assert_eq!(more.counts.published, 10);
    each_once(&shop.committed(), 1..=260);
}

/// Creates, updates with both images, deletes with tombstones, a change of key: the topic tells the table.
pub async fn a_stream_replays_to_its_table(account: &Account) {
    make_orders(account).await;
    let (table, stream) = (account.table("orders"), account.table("S"));
    account.sql(&format!("create stream {stream} on table {table}")).await;
    // The key is the table's own.
    let shop = account.sync_of(account.stream("S"), &[], json!({"mode": {"kind": "changes"}})).await;
    add_orders(account, 1..=250).await;
    let _worker = shop.worker();

    let first = shop.run_to_the_end().await;
    for statement in [
        format!("update {table} set \"amount\" = 0.10 where \"id\" <= 100"),
        format!("delete from {table} where \"id\" between 90 and 120"),
        format!("update {table} set \"id\" = 1000 where \"id\" = 1"),
        format!("insert into {table} values (90, 'again', 1)"),
    ] {
        account.sql(&statement).await;
    }
    let second = shop.run_to_the_end().await;

    assert_eq!((first.counts.created, first.counts.published), (250, 250));
    // 88 updates, one more of a row made again; 30 deletes and one by a change of key, each with its tombstone.
    let counts = second.counts;
    assert_eq!((counts.updated, counts.deleted, counts.created), (89, 31, 1));
    assert_eq!((counts.read, counts.published), (121, 121 + 31));
    no_changes(&shop).await;
    assert_eq!(replayed(&shop.committed()), orders(account).await);
}
