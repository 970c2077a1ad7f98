//! Each fault does what it says.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::bench::{Bench, read};

#[tokio::test]
async fn accepted_makes_a_sync_call_answer_202() {
    let bench = Bench::new().await;
    bench.fault(json!({"kind": "accepted", "delay_ms": 5, "count": 1})).await;

    let (status, body) = bench.submit("", "select 1", json!({})).await;

    assert_eq!(status, 202);
    let (status, _) = bench.finish(body["statementHandle"].as_str().expect("a handle")).await;
    assert_eq!(status, 200);
    assert_eq!(bench.submit("", "select 1", json!({})).await.0, 200);
}

#[tokio::test]
async fn tiny_partitions_cut_by_rows() {
    let bench = Bench::new().await;
    bench.fault(json!({"kind": "tiny_partitions", "rows": 2})).await;

    let body = bench.run("select seq4() from table(generator(rowcount => 5))").await;

    let counts: Vec<&Value> = body["resultSetMetaData"]["partitionInfo"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|part| &part["rowCount"])
        .collect();
    assert_eq!(counts, [&json!(2), &json!(2), &json!(1)]);
    assert_eq!(bench.rows("select seq4() from table(generator(rowcount => 5))").await.len(), 5);
}

#[tokio::test]
async fn a_status_before_runs_nothing_and_one_after_runs_all() {
    for (moment, count) in [("before", "0"), ("after", "1")] {
        for status in [429, 500, 502, 503, 504] {
            let bench = Bench::new().await;
            bench.run("create table t (id number)").await;
            bench
                .fault(json!({"kind": "status", "status": status, "moment": moment, "count": 1, "statement": "INSERT"}))
                .await;

            let (answered, body) = bench.submit("", "insert into t values (1)", json!({})).await;

            assert_eq!(answered.as_u16(), status, "{body}");
            assert!(body.get("statementHandle").is_none());
            assert_eq!(bench.one("select count(*) from t").await, count, "{status} {moment}");
            if moment == "before" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_was_lost_after_executing_is_found_by_its_id() {
    let bench = Bench::new().await;
    bench.run("create table t (id number)").await;
    bench.fault(json!({"kind": "cut", "moment": "after", "count": 1, "on": ["submit"]})).await;
    let body = json!({"statement": "insert into t values (1)", "database": "DB", "schema": "PUBLIC"});
    let path = format!("/api/v2/statements?requestId={}", Uuid::new_v4());

    assert!(is_cut(bench.send(reqwest::Method::POST, &path, Some(&body)).await).await);
    let (status, _) =
        read(bench.send(reqwest::Method::POST, &format!("{path}&retry=true"), Some(&body)).await.expect("an answer"))
            .await;

    assert_eq!(status, 200);
    assert_eq!(bench.one("select count(*) from t").await, "1");
}

#[tokio::test]
async fn a_429_with_a_handle_means_still_running() {
    let bench = Bench::new().await;
    let done = bench.run("select 5").await;
    let path = format!("/api/v2/statements/{}", done["statementHandle"].as_str().expect("a handle"));
    bench.fault(json!({"kind": "status", "status": 429, "with_handle": true, "on": ["poll"], "count": 1})).await;

    let (busy, body) = bench.get(&path).await;
    let (status, _) = bench.get(&path).await;

    assert_eq!((busy.as_u16(), status.as_u16()), (429, 200));
    assert_eq!(body["statementHandle"], done["statementHandle"]);
}

/// Whether a call broke off, in its head or in its body.
async fn is_cut(answer: reqwest::Result<reqwest::Response>) -> bool {
    match answer {
        Err(_) => true,
        Ok(answer) => answer.bytes().await.is_err(),
    }
}

#[tokio::test]
async fn cuts_break_the_connection_before_after_and_inside() {
    for (moment, count) in [("before", "0"), ("after", "1"), ("body", "1")] {
        let bench = Bench::new().await;
        bench.run("create table t (id number)").await;
        bench
            .fault(json!({"kind": "cut", "moment": moment, "statement": "insert", "on": ["submit"], "count": 1}))
            .await;
        let body = json!({"statement": "insert into t values (1)", "database": "DB", "schema": "PUBLIC"});

        assert!(is_cut(bench.send(reqwest::Method::POST, "/api/v2/statements", Some(&body)).await).await, "{moment}");

        assert_eq!(bench.one("select count(*) from t").await, count, "{moment}");
    }
}

#[tokio::test]
async fn an_expired_token_and_an_expired_result() {
    let bench = Bench::new().await;
    let done = bench.run("select 5").await;
    let path = format!("/api/v2/statements/{}", done["statementHandle"].as_str().expect("a handle"));

    bench.fault(json!({"kind": "token_expired", "count": 1})).await;
    assert_eq!(bench.get(&path).await.0, 401);
    bench.fault(json!({"kind": "result_expired", "count": 1})).await;
    assert_eq!(bench.get(&path).await.1["code"], "000709");

    assert_eq!(bench.get(&path).await.0, 200);
}

#[tokio::test]
async fn a_zombie_runs_when_it_is_released() {
    let bench = Bench::new().await;
    bench.all(&["create table t (id number)", "create stream s on table t", "insert into t values (1)"]).await;
    bench.fault(json!({"kind": "zombie", "statement": "create transient", "count": 1})).await;

    let (status, _) = bench.submit("", "create transient table if not exists b as select * from s", json!({})).await;
    assert_eq!(status, 504);
    assert_eq!(bench.code("select * from b").await, "002003");
    let listed = bench.admin(reqwest::Method::GET, "/emulator/statements", &json!({})).await;
    let zombie = listed["statements"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|one| one["state"] == "running")
        .expect("it waits")
        .clone();
    bench.run("insert into t values (2)").await;
    bench.admin(reqwest::Method::POST, "/emulator/zombies/release", &json!({})).await;

    let (status, _) = bench.finish(zombie["handle"].as_str().expect("text")).await;
    assert_eq!(status, 200);
    assert_eq!(bench.lines("select id from b order by 1").await, ["1", "2"]);
    assert_eq!(bench.one("select count(*) from s").await, "0");
}

#[tokio::test]
async fn a_short_and_a_corrupt_partition_come_once_and_then_whole() {
    let bench = Bench::new().await;
    bench.fault(json!({"kind": "tiny_partitions", "rows": 3})).await;
    let body = bench.run("select seq4() from table(generator(rowcount => 6))").await;
    let path = format!("/api/v2/statements/{}?partition=1", body["statementHandle"].as_str().expect("a handle"));

    bench.fault(json!({"kind": "short_partition", "count": 1})).await;
    assert_eq!(bench.get(&path).await.1["data"].as_array().map(Vec::len), Some(2));
    bench.fault(json!({"kind": "corrupt_gzip", "count": 1})).await;
    let answer = bench.send(reqwest::Method::GET, &path, None).await.expect("an answer");
    let bytes = answer.bytes().await.expect("a body");
    assert!(std::io::read_to_string(flate2::read::GzDecoder::new(bytes.as_ref())).is_err());

    assert_eq!(bench.get(&path).await.1["data"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn incomplete_slow_and_failing_statements() {
    let bench = Bench::new().await;

    bench.fault(json!({"kind": "incomplete", "count": 1})).await;
    assert_eq!(bench.run("select 1").await["code"], "391908");
    bench.fault(json!({"kind": "slow", "delay_ms": 1, "count": 1})).await;
    assert_eq!(bench.run("select 1").await["code"], "090001");
    bench.fault(json!({"kind": "fail", "code": "000625", "sql_state": "57014", "message": "locked", "count": 1})).await;
    assert_eq!(bench.code("select 1").await, "000625");
    bench.fault(json!({"kind": "status", "status": 408, "with_handle": true, "count": 1})).await;
    assert_eq!(bench.submit("", "select 1", json!({})).await.0, 408);
}

#[tokio::test]
async fn rules_count_skip_and_draw_the_same_for_the_same_seed() {
    let bench = Bench::new().await;
    let rules = json!({"rules": [{"kind": "status", "status": 503, "probability": 0.5, "skip": 1}], "seed": 42});
    let mut runs = Vec::new();
    for _ in 0..2 {
        bench.admin(reqwest::Method::PUT, "/emulator/faults", &rules).await;
        let mut statuses = Vec::new();
        for _ in 0..8 {
            statuses.push(bench.submit("", "select 1", json!({})).await.0.as_u16());
        }
        runs.push(statuses);
    }

    assert_eq!(runs[0], runs[1]);
    assert_eq!(runs[0][0], 200);
    assert!(runs[0].contains(&503));
    let shown = bench.admin(reqwest::Method::GET, "/emulator/faults", &json!({})).await;
    assert!(shown["rules"][0]["struck"].as_u64() > Some(0));
    bench.admin(reqwest::Method::DELETE, "/emulator/faults", &json!({})).await;
    assert_eq!(bench.submit("", "select 1", json!({})).await.0, 200);
}
