//! Runs that nothing disturbs: what is on the topic, what is in the counts.

use freshet_core::connector::ModelSpec;
use freshet_core::run::{self, RunState};
use freshet_core::usage;
use serde_json::json;

use crate::shop::{Shop, committed, each_once, make_orders, orders};

#[tokio::test]
async fn every_row_arrives_once_with_every_digit_and_its_headers() {
    let sql = "create table orders (id bigint primary key, amount numeric, at timestamptz, note text, tags text[]);
               insert into orders values
                   (1, 12345678901234567890.123456789, '2026-01-02 03:04:05.678901Z', null, '{a,NULL,\"b c\"}'),
                   (2, -0.10, '-infinity', 'tab\tquote\"', '{}');";
    let shop = Shop::new(sql, orders(), &[], json!({"headers": {"team": "sales"}})).await;
    let _worker = shop.worker();

    let run = shop.run_to_the_end().await;

    let mut seen = shop.committed();
    seen.sort_by_key(|record| record.key.as_ref().unwrap()["id"].as_i64());
    each_once(&seen, 1..=2);
    let days = usage::ops::days(&shop.bench.app, None, None).unwrap();
    let used = usage::ops::by_day(&shop.bench.app, &shop.bench.caller, days, Some(shop.sync)).await.unwrap();
    assert_eq!((used.len(), used[0].runs, used[0].records, used[0].bytes), (1, 1, 2, run.counts.bytes));
    assert_eq!(run.counts.published, 2);
    assert_eq!(seen[0].value["after"]["at"], "2026-01-02T03:04:05.678901Z");
    assert_eq!(seen[0].value["after"]["note"], json!(null));
    assert_eq!(seen[0].value["after"]["tags"], json!(["a", null, "b c"]));
    assert_eq!(seen[1].value["after"]["at"], "-infinity");
    assert_eq!(seen[1].value["after"]["note"], "tab\tquote\"");
    assert_eq!(seen[0].value["op"], "r");
    assert_eq!(seen[0].headers["freshet-op"], "r");
    assert_eq!(seen[0].headers["freshet-run"], run.id.to_string());
    assert_eq!(seen[0].headers["freshet-sync"], shop.sync.to_string());
    assert_eq!(seen[0].headers["freshet-id"], format!("{}.1.1.1", shop.sync));
    assert_eq!(seen[0].headers["team"], "sales");
}

#[tokio::test]
async fn a_second_full_run_sends_every_row_again_as_the_next_batch() {
    let shop = Shop::new(&make_orders(2_500), orders(), &[], json!({})).await;
    let _worker = shop.worker();

    shop.run_to_the_end().await;
    let second = shop.run_to_the_end().await;

    assert_eq!((second.counts.read, second.counts.refreshed), (2_500, 2_500));
    let seen = shop.committed();
    assert_eq!(seen.len(), 5_000);
    assert_eq!(seen.iter().filter(|record| record.headers["freshet-id"].contains(".1.2.")).count(), 2_500);
    let landed = run::ops::partitions(&shop.bench.app, &shop.bench.caller, second.id).await.unwrap();
    assert_eq!(landed.iter().map(|range| range.record_count).sum::<i64>(), 2_500);
}

#[tokio::test]
async fn a_run_whose_source_is_inside_fails_at_once_and_says_so() {
    let mut shop = Shop::new(&make_orders(10), orders(), &[], json!({})).await;
    shop.environment.push(("FRESHET_EGRESS_ALLOW".into(), String::new()));
    let _worker = shop.worker();

    let run = shop.ended(shop.run().await).await;

    let failure = run.failure.unwrap();
    assert_eq!((run.state, failure.code.as_str()), (RunState::Failed, "platform.egress_blocked"), "{failure:?}");
    assert_eq!(failure.message, "`127.0.0.1` has an address that this installation does not dial");
    assert_eq!(run.attempt_count, 1);
}

#[tokio::test]
async fn an_empty_table_is_a_success_without_records() {
    let shop = Shop::new(&make_orders(0), orders(), &[], json!({})).await;
    let _worker = shop.worker();

    let run = shop.run_to_the_end().await;

    assert_eq!(run.outcome.as_deref(), Some("no_changes"));
    assert_eq!(shop.committed().len(), 0);
}

#[tokio::test]
async fn rows_without_a_key_and_repeated_keys_become_dead_letters_with_their_reasons() {
    let sql = "create table raw (id bigint, name text);
               insert into raw values (1, 'a'), (2, 'b'), (2, 'again'), (null, 'no key'), (3, 'c');";
    let spec = ModelSpec::Sql { sql: "select id, name from raw -- all of it".into() };
    let config = json!({"error_tolerance": {"kind": "count", "max": 5}});
    let shop = Shop::new(sql, spec, &["id"], config).await;
    let _worker = shop.worker();

    let id = shop.run().await;
    let run = shop.ended(id).await;

    assert_eq!(run.state, RunState::SucceededWithErrors, "{:?}", run.failure);
    assert_eq!((run.counts.read, run.counts.published, run.counts.dead), (5, 3, 2));
    each_once(&shop.committed(), 1..=3);
    let dead = committed(&format!("{}.dlq", shop.topic));
    let mut reasons: Vec<_> =
        dead.iter().map(|record| record.headers["__connect.errors.exception.class.name"].as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["model.key_duplicate", "model.key_null"]);
    let groups = run::ops::dead_letters(&shop.bench.app, &shop.bench.caller, id).await.unwrap();
    assert_eq!(groups.len(), 2);
}

#[tokio::test]
async fn without_tolerance_the_first_dead_letter_fails_the_run_and_says_why() {
    let sql = "create table raw (id bigint, name text); insert into raw values (1, 'a'), (null, 'no key');";
    let spec = ModelSpec::Sql { sql: "select id, name from raw".into() };
    let shop = Shop::new(sql, spec, &["id"], json!({})).await;
    let _worker = shop.worker();

    let id = shop.run().await;
    let run = shop.ended(id).await;

    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.failure.unwrap().code, "model.key_null");
    assert_eq!(run.attempt_count, 1);
}

#[tokio::test]
async fn the_row_envelope_and_a_bare_key_are_sent_effectively_once() {
    let config = json!({"envelope": "row", "key": "bare", "guarantee": "effectively_once"});
    let shop = Shop::new(&make_orders(3), orders(), &[], config).await;
    let _worker = shop.worker();

    shop.run_to_the_end().await;

    let mut seen = shop.committed();
    seen.sort_by_key(|record| record.key.as_ref().unwrap().as_i64());
    let first = json!({"id": 1, "name": "order 1", "amount": 0.01, "at": "2026-01-01T00:00:01Z"});
    assert_eq!(seen.len(), 3);
    assert_eq!((seen[0].key.clone().unwrap(), seen[0].value.clone()), (json!(1), first));
}
