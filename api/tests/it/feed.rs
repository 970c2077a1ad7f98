//! The feed: no event is left out and none comes twice, however slow its transaction.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use freshet_core::feed::KINDS;
use freshet_core::feed::ops::{FeedRequest, read};
use freshet_core::run;
use freshet_core::testing::{Bench, workspace};
use futures::StreamExt;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tower::ServiceExt;

use crate::cast::make_run;
use crate::client::{bench, bench_with, call, get, objects, post, router};

async fn connect(bench: &Bench) -> PgConnection {
    PgConnection::connect(&bench.admin_url).await.unwrap()
}

async fn write(connection: &mut PgConnection, bench: &Bench, text: &str) {
    let insert = format!(
        "insert into event (workspace_id, kind, data) values ('{}', 'sync.paused', '{{\"n\": \"{text}\"}}')",
        bench.caller.workspace.uuid()
    );
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(connection).await.unwrap();
}

fn types(page: &Value) -> Vec<&str> {
    page["data"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_happens_to_syncs_and_runs_is_told_by_type_and_ids() {
    let bench = bench().await;
    let [_, model, _, sync] = objects(&bench).await;
    let run = make_run(&bench, &model, &sync).await;
    let claim = run::work::claim(&bench.app.db, 1, "w", 60.0).await.unwrap().remove(0);
    run::work::start(&bench.app, &claim, "w").await.unwrap();
    run::work::succeed(&bench.app, &claim, &run::Counts::default()).await.unwrap();
    for deed in ["pause", "resume", "runs"] {
        post(&bench, &format!("/v1/syncs/{sync}/{deed}"), json!(null)).await;
    }

    let first = get(&bench, "/v1/events?limit=4").await.body;
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = get(&bench, &format!("/v1/events?cursor={cursor}")).await.body;
    let end = rest["next_cursor"].as_str().unwrap();
    let nothing = get(&bench, &format!("/v1/events?cursor={end}")).await.body;

    assert_eq!(types(&first), ["sync.activated", "run.queued", "run.started", "run.succeeded"]);
    assert_eq!(first["has_more"], true);
    assert_eq!(types(&rest), ["sync.paused", "sync.resumed", "run.queued"]);
    assert_eq!((types(&nothing), &nothing["next_cursor"], &nothing["has_more"]), (vec![], &json!(end), &json!(false)));
    let event = &first["data"][2];
    assert_eq!(event["data"], json!({"run_id": run, "sync_id": sync}));
    assert!(event["id"].as_str().unwrap().starts_with("evt_") && event["timestamp"].is_string());
    let members: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["data", "id", "timestamp", "type"]);

    let some = get(&bench, "/v1/events?type=run.started,sync").await.body;
    assert_eq!(types(&some), ["sync.activated", "run.started", "sync.paused", "sync.resumed"]);
    assert_eq!(some["next_cursor"], json!(end), "what is not asked for is passed over");
    for (query, pointer) in [
        ("type=runs", "/type"),
        ("type=run.q", "/type"),
        ("cursor=7", "/cursor"),
        ("cursor=v1.-1", "/cursor"),
        ("cursor=v1.900000", "/cursor"),
        ("limit=0", "/limit"),
        ("since=1", "/query"),
    ] {
        let refused = get(&bench, &format!("/v1/events?{query}")).await;
        assert_eq!((refused.status, &refused.body["errors"][0]["pointer"]), (400, &json!(pointer)), "{query}");
    }
    let (_, stranger) = workspace(&bench.app, "stranger").await;
    let theirs = call(&bench, "GET", "/v1/events", None, &[("authorization", &format!("Bearer {stranger}"))]).await;
    assert_eq!(theirs.body["data"], json!([]));
}

#[tokio::test]
async fn every_end_of_a_run_is_told_whoever_writes_it() {
    let bench = bench().await;
    let [_, model, _, sync] = objects(&bench).await;
    let run = make_run(&bench, &model, &sync).await;
    post(&bench, &format!("/v1/runs/{run}/cancel"), json!(null)).await;
    let take = async || {
        post(&bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await;
        run::work::claim(&bench.app.db, 1, "w", 60.0).await.unwrap().remove(0)
    };
    let counts = run::Counts { read: 1, dead: 1, ..run::Counts::default() };
    run::work::succeed(&bench.app, &take().await, &counts).await.unwrap();
    let error = freshet_core::error::Error::new(freshet_core::error::Code::ModelSyntax, "no");
    run::work::fail(&bench.app, &take().await, &error).await.unwrap();
    // The sweep of lost runs gives up.
    take().await;
    let mut admin = connect(&bench).await;
    let lost = "update run set lease_until = now() - interval '1 s' where state = 'claimed'";
    sqlx::raw_sql(lost).execute(&mut admin).await.unwrap();
    run::work::reap(&bench.app.db, 1).await.unwrap();

    let told = get(&bench, "/v1/events?type=run").await.body;

    assert_eq!(
        types(&told),
        [
            "run.queued",
            "run.cancelled",
            "run.queued",
            "run.started",
            "run.succeeded_with_errors",
            "run.queued",
            "run.started",
            "run.failed",
            "run.queued",
            "run.started",
            "run.failed",
        ]
    );
    assert!(types(&told).iter().all(|kind| KINDS.iter().any(|(known, _)| known == kind)));
}

#[tokio::test]
async fn an_event_of_a_slow_transaction_is_not_passed_over() {
    let bench = bench().await;
    let (mut slow, mut quick) = (connect(&bench).await, connect(&bench).await);
    sqlx::raw_sql("begin").execute(&mut slow).await.unwrap();
    write(&mut slow, &bench, "slow").await;
    write(&mut quick, &bench, "quick").await;

    let first = get(&bench, "/v1/events").await.body;
    sqlx::raw_sql("commit").execute(&mut slow).await.unwrap();
    let next = get(&bench, &format!("/v1/events?cursor={}", first["next_cursor"].as_str().unwrap())).await.body;

    assert_eq!((first["data"].as_array().unwrap().len(), &first["data"][0]["data"]), (1, &json!({"n": "quick"})));
    assert_eq!((next["data"].as_array().unwrap().len(), &next["data"][0]["data"]), (1, &json!({"n": "slow"})));
    let whole = get(&bench, "/v1/events").await.body;
    assert_eq!(whole["data"][1]["data"], json!({"n": "slow"}), "and there it stays, though it was written first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn readers_beside_eight_writers_see_each_event_once_and_in_one_order() {
    let bench = std::sync::Arc::new(bench_with(&[("database_connections_max", "16")]).await);
    let writers: Vec<_> = (0..8u64)
        .map(|writer| {
            let bench = bench.clone();
            tokio::spawn(async move {
                let mut connection = connect(&bench).await;
                for number in 0..25u64 {
                    sqlx::raw_sql("begin").execute(&mut connection).await.unwrap();
                    write(&mut connection, &bench, &format!("{writer}.{number}")).await;
                    tokio::time::sleep(Duration::from_millis((writer * 7 + number * 3) % 11)).await;
                    sqlx::raw_sql("commit").execute(&mut connection).await.unwrap();
                }
            })
        })
        .collect();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let bench = bench.clone();
            tokio::spawn(async move {
                let mut request = FeedRequest::new(None, None, Some(7)).unwrap();
                let mut seen: Vec<(i64, String)> = Vec::new();
                let until = tokio::time::Instant::now() + Duration::from_secs(60);
                while seen.len() < 200 && tokio::time::Instant::now() < until {
                    let (events, next, _) = read(&bench.app, &bench.caller, &request).await.unwrap();
                    assert!(next >= request.after);
                    request.after = next;
                    seen.extend(events.into_iter().map(|(number, event)| (number, event.data.to_string())));
                }
                seen
            })
        })
        .collect();

    for writer in writers {
        writer.await.unwrap();
    }
    let mut orders = Vec::new();
    for reader in readers {
        let seen = reader.await.unwrap();
        assert!(seen.array_windows().all(|[one, two]| one.0 < two.0), "numbers rise");
        assert_eq!(seen.iter().map(|(_, text)| text).collect::<BTreeSet<_>>().len(), 200, "each event, once");
        orders.push(seen);
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "one order for all readers");
}

/// Opens the stream; the texts that come.
async fn follow(bench: &Bench, path: &str, bearer: &str, last: Option<&str>) -> axum::body::BodyDataStream {
    let mut request =
        Request::get(path).header(header::AUTHORIZATION, bearer).header(header::ACCEPT, "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = router(bench).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().into_data_stream()
}

/// Reads until a text has come.
async fn until(stream: &mut axum::body::BodyDataStream, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let chunk = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("no `{wanted}` in {text}"));
        text.push_str(std::str::from_utf8(&chunk.unwrap_or_else(|| panic!("the end after {text}")).unwrap()).unwrap());
    }
    text
}

#[tokio::test]
async fn the_stream_goes_on_where_it_was_and_tells_what_happens() {
    let bench = bench().await;
    let [_, model, _, sync] = objects(&bench).await;
    make_run(&bench, &model, &sync).await;
    let bearer = format!("Bearer {}", bench.key);

    let mut stream = follow(&bench, "/v1/events", &bearer, None).await;
    let text = until(&mut stream, "run.queued").await;
    assert!(text.contains("event: sync.activated") && text.contains("id: v1.1") && text.contains("id: v1.2"), "{text}");
    post(&bench, &format!("/v1/syncs/{sync}/pause"), json!(null)).await;
    let text = until(&mut stream, "sync.paused").await;
    assert!(text.contains("id: v1.3"), "{text}");
    drop(stream);

    let mut stream = follow(&bench, "/v1/events?type=sync", &bearer, Some("v1.2")).await;
    let text = until(&mut stream, "id: v1.3").await;
    assert!(!text.contains("run.queued") && !text.contains("sync.activated"), "{text}");
}

#[tokio::test]
async fn sse_after_revocation() {
    let bench = bench().await;
    let [_, model, _, sync] = objects(&bench).await;
    let run = make_run(&bench, &model, &sync).await;
    let account = post(&bench, "/v1/service-accounts", json!({"name": "follower"})).await.id();
    let body = json!({"service_account_id": account, "scopes": ["runs:read"]});
    let key = post(&bench, "/v1/api-keys", body).await;
    let bearer = format!("Bearer {}", key.body["secret"].as_str().unwrap());
    let mut feed = follow(&bench, "/v1/events", &bearer, None).await;
    let mut timeline = follow(&bench, &format!("/v1/runs/{run}/events"), &bearer, None).await;
    until(&mut feed, "run.queued").await;
    until(&mut timeline, "run.queued").await;

    assert_eq!(call(&bench, "DELETE", &format!("/v1/api-keys/{}", key.id()), None, &[]).await.status, 204);
    post(&bench, &format!("/v1/syncs/{sync}/pause"), json!(null)).await;
    assert_eq!(post(&bench, &format!("/v1/runs/{run}/cancel"), json!(null)).await.status, 200);

    for stream in [&mut feed, &mut timeline] {
        let mut rest = String::new();
        while let Some(chunk) = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap() {
            rest.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
        assert!(
            !rest.contains("sync.paused") && !rest.contains("run.cancel") && !rest.contains("\"cancelled\""),
            "told after the key was revoked: {rest}"
        );
    }
}
