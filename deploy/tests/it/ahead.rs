//! What is shown before a run is what the run then sends, to the byte; and looking moves nothing.

use std::collections::BTreeMap;

use freshet_core::operation::Question;
use freshet_core::run::{Run, RunState};
use serde_json::{Value, json};

use crate::shop::{Raw, Shop, make_orders, orders};
use crate::snowflake::account::answered;
use crate::snowflake_runs::Emulator;

async fn preview(shop: &Shop) -> Value {
    answered(shop, Question::PreviewRecords { sync: shop.sync }).await.unwrap()
}

async fn plan(shop: &Shop) -> Value {
    answered(shop, Question::PlanRun { sync: shop.sync }).await.unwrap()
}

/// A record without what only its run knows: the time in the value, the run's id.
fn without_run(raw: &Raw) -> Raw {
    let value = raw.value.as_deref().map(|value| match value.split_once("\"ts_ms\":") {
        Some((head, tail)) => {
            format!("{head}\"ts_ms\":{}", tail.trim_start_matches(|digit: char| digit.is_ascii_digit()))
        }
        None => value.to_owned(),
    });
    let headers = raw.headers.iter().filter(|(name, _)| name != "freshet-run").cloned().collect();
    Raw { value, headers, ..raw.clone() }
}

fn shown(record: &Value) -> Raw {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let headers = record["headers"].as_array().unwrap().iter();
    Raw {
        partition: record["partition"].as_i64().unwrap() as i32,
        key: text(&record["key"]),
        headers: headers.map(|h| (text(&h["name"]).unwrap(), text(&h["value"]).unwrap_or_default())).collect(),
        value: text(&record["value"]),
    }
}

fn id(raw: &Raw) -> String {
    raw.headers.iter().find(|(name, _)| name == "freshet-id").unwrap().1.clone()
}

/// Looks, runs, and compares; what was shown and the run.
async fn holds(shop: &Shop) -> (Value, Run) {
    let (shown_first, planned) = (preview(shop).await, plan(shop).await);
    let before: Vec<_> = if shown_first["topic_is_there"] == true { shop.committed() } else { Vec::new() };

    let run = shop.run_to_the_end().await;

    let sent: Vec<Raw> = shop.committed().into_iter().map(|record| record.raw).collect();
    let known: Vec<String> = before.iter().map(|record| id(&record.raw)).collect();
    let sent: BTreeMap<String, Raw> =
        sent.into_iter().map(|raw| (id(&raw), without_run(&raw))).filter(|(id, _)| !known.contains(id)).collect();
    let records = shown_first["records"].as_array().unwrap();
    for record in records {
        let whole = shown(record);
        let shown = without_run(&whole);
        assert_eq!(Some(&shown), sent.get(&id(&shown)));
        let bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        assert_eq!(record["bytes"], bytes(&whole.key) + bytes(&whole.value));
    }
    assert_eq!(shown_first["more"] == true, records.len() < sent.len());
    let counts = run.counts;
    let told = |name: &str| planned[name].as_i64().unwrap();
    assert_eq!(
        [told("creates"), told("updates"), told("deletes"), told("refreshes"), told("records"), told("dead")],
        [counts.created, counts.updated, counts.deleted, counts.refreshed, counts.published, counts.dead]
    );
    (shown_first, run)
}

/// The bytes of a plan that looks at every record are those that the run sends, but for a digit of the time.
fn assert_bytes(planned: i64, sent: i64) {
    assert!((planned - sent).abs() * 20 <= sent, "{planned} bytes planned, {sent} sent");
}

#[tokio::test]
async fn postgres_full() {
    let shop =
        Shop::new(&make_orders(250), orders(), &["id"], json!({"mode": {"kind": "full"}, "headers": {"team": "a"}}))
            .await;
    let _worker = shop.worker();
    let planned = plan(&shop).await["bytes"].as_i64().unwrap();

    let (shown, run) = holds(&shop).await;
    let (again, _) = holds(&shop).await;

    assert_eq!((&shown["topic_is_there"], &again["topic_is_there"]), (&json!(false), &json!(true)));
    assert_eq!(shown["records"].as_array().unwrap().len(), 100);
    assert_eq!((shown["batch"].as_i64(), again["batch"].as_i64()), (Some(1), Some(2)));
    assert_eq!(shown["set_when_sent"], json!(["header.freshet-run", "value.ts_ms"]));
    assert_bytes(planned, run.counts.bytes);
}

#[tokio::test]
async fn postgres_incremental() {
    let config = json!({"mode": {"kind": "incremental", "cursor": "id"}, "envelope": "row"});
    let shop = Shop::new(&make_orders(30), orders(), &["id"], config).await;
    let _worker = shop.worker();

    let (first, _) = holds(&shop).await;
    let (idle, run) = holds(&shop).await;
    shop.sql("insert into orders select n, 'new', n, now() from generate_series(31, 35) as n").await;
    let (more, _) = holds(&shop).await;

    assert_eq!(first["records"].as_array().unwrap().len(), 30);
    assert_eq!((idle["records"].as_array().unwrap().len(), run.counts.published), (0, 0));
    assert_eq!(more["records"].as_array().unwrap().len(), 5);
    assert_eq!(more["set_when_sent"], json!(["header.freshet-run"]));
}

#[tokio::test]
async fn postgres_diff() {
    let sql = format!("create schema freshet; {}", make_orders(20));
    let shop = Shop::new(&sql, orders(), &["id"], json!({"mode": {"kind": "diff"}})).await;
    let _worker = shop.worker();

    holds(&shop).await;
    shop.sql(
        "delete from orders where id < 4; update orders set name = 'x' where id > 18; insert into orders values (50)",
    )
    .await;
    let (shown, run) = holds(&shop).await;
    let (idle, _) = holds(&shop).await;

    assert_eq!((run.counts.created, run.counts.updated, run.counts.deleted), (1, 2, 3));
    // Each delete has its tombstone.
    assert_eq!(shown["records"].as_array().unwrap().len(), 9);
    assert_eq!(idle["records"], json!([]));
}

#[tokio::test]
async fn a_batch_in_hand_shows_its_rest_and_what_ends_it() {
    let sql = "create table orders (id bigint, name text);
               insert into orders select n, 'order ' || n from generate_series(1, 50) as n;
               insert into orders values (null, 'lost')";
    let shop = Shop::new(sql, orders(), &["id"], json!({"mode": {"kind": "full"}})).await;
    let _worker = shop.worker();

    let first = preview(&shop).await;
    let run = shop.run().await;
    let ended = shop.ended(run).await;
    let shown = preview(&shop).await;

    for shown in [&first, &shown] {
        assert_eq!((&shown["records"], &shown["stops_with"]["code"]), (&json!([]), &json!("model.key_null")));
    }
    assert_eq!((ended.state, ended.failure.unwrap().code.as_str()), (RunState::Failed, "model.key_null"));
    assert_eq!((&first["in_hand"], &shown["in_hand"]), (&json!(false), &json!(true)));
    assert_eq!(shown["set_when_sent"], json!(["header.freshet-run"]));
    let planned = plan(&shop).await;
    assert_eq!((&planned["refreshes"], &planned["batch"]), (&json!(51), &json!(1)));
}

#[tokio::test]
async fn dead_letters_are_shown_with_their_reasons() {
    let sql = "create table orders (id bigint, name text); insert into orders values (null, 'lost'), (1, 'a')";
    let config = json!({"mode": {"kind": "full"}, "error_tolerance": {"kind": "count", "max": 5}});
    let shop = Shop::new(sql, orders(), &["id"], config).await;
    let _worker = shop.worker();

    let (shown, planned) = (preview(&shop).await, plan(&shop).await);

    let [dead, record] = shown["records"].as_array().unwrap().as_slice() else { panic!("{shown}") };
    assert_eq!((dead["topic"].as_str().unwrap(), &dead["partition"]), (&*format!("{}.dlq", shop.topic), &Value::Null));
    assert!(dead["headers"].to_string().contains("model.key_null"), "{dead}");
    assert_eq!(record["topic"].as_str(), Some(shop.topic.as_str()));
    assert_eq!(
        (&planned["records"], &planned["dead"], &planned["bytes_are_exact"]),
        (&json!(1), &json!(1), &json!(true))
    );
}

#[tokio::test]
async fn snowflake_full_incremental_and_diff() {
    for mode in [json!({"kind": "full"}), json!({"kind": "incremental", "cursor": "id"}), json!({"kind": "diff"})] {
        let emulator = Emulator::start().await;
        let shop = emulator.sync(json!({"mode": mode})).await;
        emulator.add_orders(1..=120);
        let _worker = shop.worker();

        holds(&shop).await;
        emulator.add_orders(121..=125);
        emulator.sql("delete from \"orders\" where \"id\" = 7; update \"orders\" set \"name\" = 'x' where \"id\" = 8");
        let (shown, _) = holds(&shop).await;

        let count = match mode["kind"].as_str().unwrap() {
            "full" => 100,
            "incremental" => 5,
            _ => 8,
        };
        assert_eq!(shown["records"].as_array().unwrap().len(), count, "{mode}");
    }
}

#[tokio::test]
async fn a_stream_shows_its_changes_and_stays_where_it_is() {
    let emulator = Emulator::start().await;
    let shop = emulator.stream_sync().await;
    let _worker = shop.worker();

    let (idle, _) = holds(&shop).await;
    emulator.add_orders(1..=250);
    let (first, _) = holds(&shop).await;
    emulator.sql(
        "update \"orders\" set \"amount\" = 1 where \"id\" < 5; delete from \"orders\" where \"id\" between 4 and 6;
         insert into \"orders\" values (5, 'again', 1)",
    );
    let (second, run) = holds(&shop).await;

    assert_eq!(idle["records"], json!([]));
    assert_eq!(first["records"].as_array().unwrap().len(), 100);
    assert_eq!((run.counts.created, run.counts.updated, run.counts.deleted), (0, 4, 2));
    assert_eq!(second["records"].as_array().unwrap().len(), 8);
    assert_eq!(second["more"], false);
}
