//! The SQL API: answers, async, partitions, several statements, request ids, cancelling.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::bench::{Bench, cells};

/// A statement that runs until it is stopped.
const ENDLESS: &str = "select count(*) from table(generator(rowcount => 2000000000))";

#[tokio::test]
async fn a_result_set_has_the_documented_members() {
    let bench = Bench::new().await;
    let id = Uuid::new_v4();

    let (status, body) = bench.submit(&format!("requestId={id}"), "select 1 as a, 'x' as \"b c\"", json!({})).await;

    let handle = body["statementHandle"].as_str().expect("a handle");
    assert_eq!(status, 200);
    assert_eq!((&body["code"], &body["sqlState"]), (&json!("090001"), &json!("00000")));
    assert_eq!(body["statementStatusUrl"], format!("/api/v2/statements/{handle}?requestId={id}"));
    assert_eq!(body["resultSetMetaData"]["numRows"], 1);
    assert_eq!(body["resultSetMetaData"]["format"], "jsonv2");
    assert_eq!(body["resultSetMetaData"]["partitionInfo"][0]["rowCount"], 1);
    assert_eq!(body["resultSetMetaData"]["rowType"][1]["name"], "b c");
    assert!(body["createdOn"].is_number());
    assert_eq!(body["data"], json!([["1", "x"]]));
}

#[tokio::test]
async fn a_statement_without_rows_has_one_empty_partition() {
    let bench = Bench::new().await;

    let body = bench.run("select 1 as a where 1 = 0").await;

    assert_eq!(body["resultSetMetaData"]["partitionInfo"].as_array().map(Vec::len), Some(1));
    assert_eq!(body["data"], json!([]));
}

#[tokio::test]
async fn an_async_statement_answers_202_and_later_its_result() {
    let bench = Bench::new().await;

    let (status, body) = bench.submit("async=true", "select 7 as seven", json!({})).await;

    assert_eq!(status, 202);
    assert_eq!(body["code"], "333334");
    assert!(body["statementStatusUrl"].as_str().is_some_and(|url| url.starts_with("/api/v2/statements/")));
    let (status, done) = bench.finish(body["statementHandle"].as_str().expect("a handle")).await;
    assert_eq!((status.as_u16(), &done["data"]), (200, &json!([["7"]])));
}

#[tokio::test]
async fn an_async_statement_that_fails_answers_422_to_the_poll() {
    let bench = Bench::new().await;

    let (_, body) = bench.submit("async=true", "select nope", json!({})).await;
    let (status, done) = bench.finish(body["statementHandle"].as_str().expect("a handle")).await;

    assert_eq!((status.as_u16(), &done["code"]), (422, &json!("000904")));
    assert_eq!(done["statementHandle"], body["statementHandle"]);
}

#[tokio::test]
async fn partitions_are_gzip_without_metadata_and_add_up() {
    let bench = Bench::new().await;
    let statement = "select seq4() as n, repeat('x', 500) as filler from table(generator(rowcount => 5000))";
    let body = bench.run(statement).await;
    let handle = body["statementHandle"].as_str().expect("a handle");
    let info = body["resultSetMetaData"]["partitionInfo"].as_array().expect("partitions").clone();
    assert!(info.len() > 2, "{info:?}");

    let answer = bench
        .send(reqwest::Method::GET, &format!("/api/v2/statements/{handle}?partition=1"), None)
        .await
        .expect("an answer");
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let link = answer.headers()["link"].to_str().expect("text").to_owned();
    let (_, part) = crate::bench::read(answer).await;

    assert_eq!(
        part.as_object().map(|members| members.keys().cloned().collect::<Vec<_>>()),
        Some(vec!["data".to_owned()])
    );
    assert_eq!(part["data"].as_array().map(Vec::len), info[1]["rowCount"].as_u64().map(|count| count as usize));
    assert!(["first", "next", "prev", "last"].iter().all(|rel| link.contains(&format!("rel=\"{rel}\""))), "{link}");
    let rows = bench.rows(statement).await;
    let numbers: Vec<usize> =
        rows.iter().map(|row| row[0].as_ref().expect("a number").parse().expect("digits")).collect();
    assert_eq!(numbers, (0..5000).collect::<Vec<_>>());
    let (status, _) = bench.get(&format!("/api/v2/statements/{handle}?partition=999")).await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn several_statements_have_a_handle_each() {
    let bench = Bench::new().await;

    let (status, body) = bench
        .submit(
            "",
            "create table t (id number); insert into t values (1), (2); select count(*) from t;",
            json!({"parameters": {"MULTI_STATEMENT_COUNT": "3"}}),
        )
        .await;

    assert_eq!(status, 200, "{body}");
    assert_eq!(body["data"], json!([["Multiple statements executed successfully."]]));
    let handles = body["statementHandles"].as_array().expect("handles");
    let (_, inserted) = bench.get(&format!("/api/v2/statements/{}", handles[1].as_str().expect("text"))).await;
    assert_eq!(inserted["stats"]["numRowsInserted"], 2);
    let (_, counted) = bench.get(&format!("/api/v2/statements/{}", handles[2].as_str().expect("text"))).await;
    assert_eq!(counted["data"], json!([["2"]]));
}

#[tokio::test]
async fn a_wrong_statement_count_is_refused() {
    let bench = Bench::new().await;

    let (status, body) = bench.submit("", "select 1; select 2; select 3", json!({})).await;

    assert_eq!((status.as_u16(), &body["code"]), (422, &json!("000008")));
    assert_eq!(body["message"], "Actual statement count 3 did not match the desired statement count 1.");
}

#[tokio::test]
async fn what_ran_before_a_failing_statement_stays_and_an_open_transaction_does_not() {
    let bench = Bench::new().await;
    let many = json!({"parameters": {"MULTI_STATEMENT_COUNT": "0"}});
    bench.run("create table t (id number)").await;

    let (status, body) =
        bench.submit("", "insert into t values (1);\nselect nope;\ninsert into t values (2)", many.clone()).await;
    let (_, _) = bench.submit("", "begin; insert into t values (3); select nope; commit", many).await;

    assert_eq!((status.as_u16(), &body["code"], &body["sqlState"]), (422, &json!("100132"), &json!("P0000")));
    let message = body["message"].as_str().expect("text");
    assert!(message.contains("failed on statement \"select nope\" (at line 2, position 26)"), "{message}");
    assert!(message.contains("SYSTEM$MULTISTMT"), "{message}");
    assert_eq!(bench.lines("select id from t").await, ["1"]);
}

#[tokio::test]
async fn a_ddl_statement_commits_the_open_transaction() {
    let bench = Bench::new().await;
    bench.run("create table t (id number)").await;

    let text = "begin; insert into t values (1); create table u (id number); insert into u values (1); rollback";
    let (status, body) = bench.submit("", text, json!({"parameters": {"MULTI_STATEMENT_COUNT": "0"}})).await;

    assert_eq!(status, 200, "{body}");
    assert_eq!(bench.lines("select id from t").await, ["1"]);
    // The CREATE ended the transaction, so this INSERT was one of its own and ROLLBACK had nothing to undo.
    assert_eq!(bench.lines("select id from u").await, ["1"]);
}

#[tokio::test]
async fn a_repeated_request_id_with_retry_runs_once_and_without_twice() {
    let bench = Bench::new().await;
    bench.run("create table t (id number)").await;
    let id = Uuid::new_v4();
    let insert = "insert into t values (1)";

    let (_, first) = bench.submit(&format!("requestId={id}"), insert, json!({})).await;
    let (_, again) = bench.submit(&format!("requestId={id}&retry=true"), insert, json!({})).await;
    assert_eq!(bench.one("select count(*) from t").await, "1");
    let (_, twice) = bench.submit(&format!("requestId={id}"), insert, json!({})).await;

    assert_eq!(first["statementHandle"], again["statementHandle"]);
    assert_ne!(first["statementHandle"], twice["statementHandle"]);
    assert_eq!(bench.one("select count(*) from t").await, "2");
}

#[tokio::test]
async fn a_running_statement_can_be_cancelled() {
    let bench = Bench::new().await;
    let (_, body) = bench.submit("async=true", ENDLESS, json!({})).await;
    let handle = body["statementHandle"].as_str().expect("a handle");

    let answer = bench
        .send(reqwest::Method::POST, &format!("/api/v2/statements/{handle}/cancel"), None)
        .await
        .expect("an answer");
    let (status, cancelled) = crate::bench::read(answer).await;

    assert_eq!(
        (status.as_u16(), &cancelled["code"], &cancelled["message"]),
        (200, &json!("000604"), &json!("SQL execution canceled"))
    );
    let (status, body) = bench.finish(handle).await;
    assert_eq!((status.as_u16(), &body["code"], &body["sqlState"]), (422, &json!("000604"), &json!("57014")));
}

#[tokio::test]
async fn a_statement_that_exceeds_its_timeout_answers_408() {
    let bench = Bench::new().await;

    let (status, body) = bench.submit("", ENDLESS, json!({"timeout": 1})).await;

    assert_eq!((status.as_u16(), &body["code"]), (408, &json!("000630")));
    assert!(body["statementHandle"].is_string());
}

#[tokio::test]
async fn an_unknown_handle_answers_000709() {
    let bench = Bench::new().await;
    let handle = Uuid::new_v4();

    let (polled, body) = bench.get(&format!("/api/v2/statements/{handle}")).await;
    let cancel = bench
        .send(reqwest::Method::POST, &format!("/api/v2/statements/{handle}/cancel"), None)
        .await
        .expect("an answer");
    let (cancelled, _) = crate::bench::read(cancel).await;

    assert_eq!((polled.as_u16(), cancelled.as_u16()), (422, 422));
    assert_eq!(body["message"], format!("Statement {handle} not found"));
    assert_eq!((&body["code"], &body["sqlState"]), (&json!("000709"), &json!("02000")));
}

#[tokio::test]
async fn a_result_is_gone_after_a_day() {
    let bench = Bench::new().await;
    let body = bench.run("select 1").await;
    let path = format!("/api/v2/statements/{}", body["statementHandle"].as_str().expect("a handle"));
    let token = bench.emulator.create_token("JDOE", "programmatic", 30 * 86_400, "").await.expect("a token");
    let bench = Bench { token, ..bench };

    bench.admin(reqwest::Method::POST, "/emulator/clock", &json!({"advance_ms": 23 * 3_600_000})).await;
    assert_eq!(bench.get(&path).await.0, 200);
    bench.admin(reqwest::Method::POST, "/emulator/clock", &json!({"advance_ms": 2 * 3_600_000})).await;

    assert_eq!(bench.get(&path).await.1["code"], "000709");
}

#[tokio::test]
async fn context_names_are_case_sensitive() {
    let bench = Bench::new().await;
    bench.run("create table t (id number)").await;

    let (upper, _) = bench.submit("", "select * from t", json!({})).await;
    let (lower, body) = bench.submit("", "select * from t", json!({"database": "db"})).await;

    assert_eq!((upper.as_u16(), lower.as_u16(), &body["code"]), (200, 422, &json!("002003")));
}

#[tokio::test]
async fn a_bad_body_a_bad_parameter_and_missing_headers_are_refused() {
    let bench = Bench::new().await;

    let (status, body) = bench.submit("", "select 1", json!({"timeout": "10s"})).await;
    assert_eq!((status.as_u16(), &body["code"]), (400, &json!("390142")));
    let (status, _) = bench.submit("", "select 1", json!({"parameters": {"AUTOCOMMIT": "false"}})).await;
    assert_eq!(status, 422);
    let url = format!("{}/api/v2/statements", bench.url);
    let bare =
        bench.http.post(&url).bearer_auth(&bench.token).body(r#"{"statement":"select 1"}"#).header("user-agent", "x/1");
    assert_eq!(bare.send().await.expect("an answer").status(), 415);
    let nameless = bench.http.post(url).bearer_auth(&bench.token).json(&json!({"statement": "select 1"}));
    assert_eq!(nameless.send().await.expect("an answer").status(), 400);
}

#[tokio::test]
async fn a_statement_that_needs_a_warehouse_says_so() {
    let bench = Bench::new().await;

    let (status, body) = bench.submit("", "select 1", json!({"warehouse": "NOPE"})).await;
    let (shown, _) = bench.submit("", "show tables", json!({"warehouse": "NOPE"})).await;

    assert_eq!((status.as_u16(), &body["code"], shown.as_u16()), (422, &json!("000606"), 200));
}

#[tokio::test]
async fn only_statements_that_need_rows_wake_the_warehouse() {
    let bench = Bench::new().await;
    let path = "/emulator/accounting";
    bench
        .all(&[
            "create table t (id number)",
            "create stream s on table t",
            "select system$stream_has_data('s')",
            "show streams",
            "describe table t",
        ])
        .await;
    let idle: Value = bench.admin(reqwest::Method::GET, path, &json!({})).await;

    bench.all(&["insert into t values (1)", "create table b as select * from s"]).await;
    bench.admin(reqwest::Method::POST, "/emulator/clock", &json!({"advance_ms": 600_000})).await;
    bench.run("select count(*) from b").await;
    let busy = bench.admin(reqwest::Method::GET, path, &json!({})).await;

    assert_eq!((&idle["warehouse_count"], &idle["metadata_only_count"]), (&json!(0), &json!(5)));
    assert_eq!((&busy["warehouse_count"], &busy["warehouses"]["COMPUTE_WH"]["resume_count"]), (&json!(3), &json!(2)));
}

#[tokio::test]
async fn a_poll_repeats_the_first_partition() {
    let bench = Bench::new().await;
    let body = bench.run("select 1 as a union all select 2 order by 1").await;
    let handle = body["statementHandle"].as_str().expect("a handle");

    let (_, again) = bench.get(&format!("/api/v2/statements/{handle}")).await;
    let (_, zero) = bench.get(&format!("/api/v2/statements/{handle}?partition=0")).await;

    assert_eq!(cells(&again["data"]), cells(&body["data"]));
    assert_eq!(again["resultSetMetaData"], zero["resultSetMetaData"]);
}
