//! How much may be asked, waiting for an answer, and what the audit log knows.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use freshet_core::connector::Registry;
use freshet_core::operation;
use freshet_core::testing::Bench;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::client::{bench, call, get, objects, post};

#[tokio::test]
async fn a_key_that_asks_too_much_is_told_when_to_come_again() {
    let settings = [("api_reads_per_minute", "3"), ("api_writes_per_minute", "1")];
    let bench = Bench::with(freshet_worker::register(Registry::default()), &settings).await;
    let router = freshet_api::router(bench.app.clone(), CancellationToken::new());
    let ask = async |method: &str, path: &str| {
        let request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {}", bench.key));
        router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    };
    let header =
        |response: &axum::response::Response, name: &str| response.headers()[name].to_str().unwrap().to_owned();

    let first = ask("GET", "/v1/syncs").await;
    assert_eq!(
        (header(&first, "ratelimit-policy"), header(&first, "ratelimit")),
        ("\"read\";q=3;w=60".into(), "\"read\";r=2".into())
    );
    for _ in 0..2 {
        assert_eq!(ask("GET", "/v1/syncs").await.status(), 200);
    }
    let refused = ask("GET", "/v1/syncs").await;
    assert_eq!(refused.status(), 429);
    let wait: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=21).contains(&wait), "{wait}");
    assert_eq!(header(&refused, "ratelimit"), format!("\"read\";r=0;t={wait}"));
    // Another class has a bucket of its own.
    assert_eq!(ask("DELETE", "/v1/api-keys/key_00000000000000000000000000").await.status(), 404);
    assert_eq!(ask("DELETE", "/v1/api-keys/key_00000000000000000000000000").await.status(), 429);
}

#[tokio::test]
async fn without_room_a_request_is_refused_at_once() {
    let bench = Bench::with(freshet_worker::register(Registry::default()), &[("api_requests_max", "0")]).await;

    let refused = get(&bench, "/v1/syncs").await;

    assert_eq!((refused.status, refused.code(), refused.header("retry-after")), (503, "request.busy", "1"));
    assert_eq!(get(&bench, "/healthz").await.status, 204);
}

#[tokio::test]
async fn a_caller_who_prefers_to_wait_gets_the_answer() {
    let bench = bench().await;
    let [connection, ..] = objects(&bench).await;
    let path = format!("/v1/connections/{connection}/test");
    let app = bench.app.clone();
    // Stands for a worker, which answers the operations that it finds.
    let worker = tokio::spawn(async move {
        loop {
            for claim in operation::ops::claim(&app.db, 10, "w", 30.0).await.unwrap() {
                operation::ops::answer(&app, &claim, Ok(json!({"ok": true}))).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });

    let waited = call(&bench, "POST", &path, Some(json!(null)), &[("prefer", "wait=20")]).await;
    worker.abort();
    let impatient = call(&bench, "POST", &path, Some(json!(null)), &[("prefer", "wait=0")]).await;

    assert_eq!(
        (waited.status, &waited.body["state"], &waited.body["result"]),
        (202, &json!("succeeded"), &json!({"ok": true}))
    );
    assert_eq!(waited.header("preference-applied"), "wait=20");
    assert_eq!(impatient.body["state"], "pending");
}

#[tokio::test]
async fn the_audit_log_has_deeds_and_what_was_denied() {
    let bench = bench().await;
    let [connection, ..] = objects(&bench).await;
    let account = post(&bench, "/v1/service-accounts", json!({"name": "=cmd()"})).await.id();
    let weak = post(&bench, "/v1/api-keys", json!({"service_account_id": account, "scopes": ["runs:read"]})).await.body;
    let bearer = format!("Bearer {}", weak["secret"].as_str().unwrap());
    let denied = call(
        &bench,
        "DELETE",
        &format!("/v1/connections/{connection}"),
        None,
        &[("authorization", &bearer), ("if-match", "\"1\"")],
    )
    .await;

    let all = get(&bench, "/v1/audit-events").await.body;
    let of = async |query: &str| {
        get(&bench, &format!("/v1/audit-events?{query}")).await.body["data"].as_array().unwrap().clone()
    };

    assert_eq!(denied.status, 403);
    let newest = &all["data"][0];
    assert_eq!((&newest["action"], &newest["actor_id"]), (&json!("request.denied"), &json!(account)));
    assert_eq!(newest["changes"]["route"], "DELETE /v1/connections/{id}");
    assert_eq!(newest["request_id"], denied.body["request_id"]);
    let on: Vec<Value> = of(&format!("target_id={connection}")).await;
    assert!(!on.is_empty() && on.iter().all(|event| event["target_id"] == json!(connection)));
    assert_eq!(of("action=service_account").await.len(), 1);
    assert_eq!(of(&format!("actor_id={account}")).await.len(), 1);
    assert_eq!(of("until=2020-01-01T00:00:00Z").await.len(), 0);
    assert_eq!(get(&bench, "/v1/audit-events?target_id=x").await.body["errors"][0]["pointer"], "/target_id");
    assert_eq!(call(&bench, "GET", "/v1/audit-events", None, &[("authorization", &bearer)]).await.status, 403);
}

#[tokio::test]
async fn the_audit_log_is_exported_whole_in_both_forms() {
    let bench = bench().await;
    for number in 0..230 {
        let name = format!("account {number}");
        freshet_core::api_key::ops::create_account(&bench.app, &bench.caller, &name).await.unwrap();
    }
    let router = freshet_api::router(bench.app.clone(), CancellationToken::new());
    let text = async |query: &str| {
        let request = Request::builder().uri(format!("/v1/audit-events/export{query}"));
        let request = request.header("authorization", format!("Bearer {}", bench.key)).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    };

    let lines = text("?action=service_account.created").await;
    let csv = text("?format=csv&action=service_account.created").await;

    let ids: std::collections::BTreeSet<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((ids.len(), lines.lines().count()), (230, 230));
    assert_eq!(csv.lines().count(), 231);
    assert!(csv.starts_with("id,at,actor_kind,"));
    assert!(ids.iter().all(|id| csv.contains(id.as_str())));
}
