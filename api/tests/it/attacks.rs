//! Attacks by their names; `SECURITY.md` lists them with those that are tried elsewhere.

use axum::body::{Body, Bytes, to_bytes};
use axum::http::Request;
use freshet_core::endpoint::{Connection as Source, ops as endpoint};
use freshet_core::page::PageRequest;
use freshet_core::testing::{Bench, workspace};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tower::ServiceExt as _;

use crate::client::{bench, bench_with, call, get, objects, post, router};

async fn send(bench: &Bench, request: axum::http::request::Builder, body: Body) -> axum::response::Response {
    let request = request.header("authorization", format!("Bearer {}", bench.key)).body(body).unwrap();
    router(bench).oneshot(request).await.unwrap()
}

#[tokio::test]
async fn tenant_setting_leak_on_the_pool() {
    // One connection for all, beside the one that listens: whatever a transaction leaves on it, the next one finds.
    let bench = bench_with(&[("database_connections_max", "2")]).await;
    let (theirs, their_key) = workspace(&bench.app, "theirs").await;
    let [connection, ..] = objects(&bench).await;
    let page = PageRequest::new(None, None).unwrap();
    let app = &bench.app;

    for how in ["committed", "dropped", "failed"] {
        match how {
            "committed" => assert_eq!(endpoint::list::<Source>(app, &bench.caller, page).await.unwrap().data.len(), 1),
            "dropped" => drop(app.db.tenant(bench.caller.workspace).await.unwrap()),
            _ => assert_eq!(post(&bench, "/v1/service-accounts", json!({"name": "tests"})).await.status, 409),
        }
        let listed = endpoint::list::<Source>(app, &theirs, page).await.unwrap();
        assert!(listed.data.is_empty(), "{how}: {listed:?}");
        let bearer = format!("Bearer {their_key}");
        let path = format!("/v1/connections/{connection}");
        assert_eq!(call(&bench, "GET", &path, None, &[("authorization", &bearer)]).await.status, 404, "{how}");
    }

    // The same of the database alone: after a transaction that named a tenant the connection is nobody's.
    let mut alone = PgConnection::connect(app.settings.database_url.expose()).await.unwrap();
    let count = "select count(*) from connection";
    for end in ["commit", "rollback"] {
        let set = format!("begin; set local freshet.workspace_id = '{}'", bench.caller.workspace.uuid());
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut alone).await.unwrap();
        let within: i64 = sqlx::query_scalar(count).fetch_one(&mut alone).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(end.to_owned())).execute(&mut alone).await.unwrap();
        let after: i64 = sqlx::query_scalar(count).fetch_one(&mut alone).await.unwrap();
        assert_eq!((within, after), (1, 0), "{end}");
    }
}

#[tokio::test]
async fn idempotency_key_reuse_across_tenants() {
    let bench = bench().await;
    let (_, theirs) = workspace(&bench.app, "theirs").await;
    let bearer = format!("Bearer {theirs}");
    let body = || Some(json!({"name": "exporter"}));
    let ours = [("idempotency-key", "one-and-the-same")];
    let their = [("idempotency-key", "one-and-the-same"), ("authorization", bearer.as_str())];

    let first = call(&bench, "POST", "/v1/service-accounts", body(), &ours).await;
    let second = call(&bench, "POST", "/v1/service-accounts", body(), &their).await;
    let again = call(&bench, "POST", "/v1/service-accounts", body(), &ours).await;

    assert_eq!((first.status, second.status, again.status), (201, 201, 201));
    assert_ne!(first.id(), second.id(), "each tenant has an account of its own");
    assert_eq!(first.id(), again.id());
    assert_eq!((second.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    let listed = call(&bench, "GET", "/v1/service-accounts", None, &their[1..]).await.body;
    assert!(!listed.to_string().contains(&first.id()));
}

#[tokio::test]
async fn csv_injection_in_the_audit_export() {
    let bench = bench().await;
    for name in ["=cmd|'/C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "a,=1", "a\",\"=1", "a\r\n=1"] {
        assert_eq!(post(&bench, "/v1/service-accounts", json!({"name": name})).await.status, 201, "{name:?}");
    }

    let answer = send(&bench, Request::builder().uri("/v1/audit-events/export?format=csv"), Body::empty()).await;
    let text = to_bytes(answer.into_body(), usize::MAX).await.unwrap();

    let mut rows = csv::Reader::from_reader(text.as_ref());
    let cells: Vec<String> =
        rows.records().flat_map(|row| row.unwrap().iter().map(str::to_owned).collect::<Vec<_>>()).collect();
    assert!(cells.len() >= 8 * 9 && cells.iter().any(|cell| cell.contains("calc")));
    for cell in cells {
        assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "a spreadsheet would compute {cell:?}");
    }
}

#[tokio::test]
async fn a_body_of_a_hundred_megabytes_is_refused_after_the_first() {
    let bench = bench().await;
    let (sent, counted) = (std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)), 100);
    let count = std::sync::Arc::clone(&sent);
    let pieces = futures::stream::iter((0..counted).map(move |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 20]))
    }));
    let request = Request::builder().method("POST").uri("/v1/connections").header("content-type", "application/json");

    let answer = send(&bench, request, Body::from_stream(pieces)).await;

    assert_eq!(answer.status(), 413);
    let sent = sent.load(std::sync::atomic::Ordering::SeqCst);
    assert!(sent <= 3, "{sent} MiB of {counted} were taken");
    let keyed = Request::builder().method("POST").uri("/v1/connections").header("content-type", "application/json");
    let keyed = keyed.header("idempotency-key", "large");
    assert_eq!(send(&bench, keyed, Body::from(vec![b' '; 2 << 20])).await.status(), 413);
}

#[tokio::test]
async fn deep_json_is_refused_and_ends_no_process() {
    let bench = bench().await;
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let wide = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));

    for depth in [200, 10_000, 150_000] {
        for settings in [deep(depth), wide(depth)] {
            let body = format!("{{\"kind\":\"postgres\",\"name\":\"n\",\"settings\":{{\"host\":{settings}}}}}");
            let request = Request::builder().method("POST").uri("/v1/connections");
            let answer = send(&bench, request.header("content-type", "application/json"), Body::from(body)).await;
            assert!([400, 413].contains(&answer.status().as_u16()), "{depth}: {}", answer.status());
        }
    }
    assert_eq!(get(&bench, "/v1/connections").await.status, 200);
}

#[tokio::test]
async fn a_cookie_is_no_key_for_the_api() {
    let bench = bench().await;
    let user =
        crate::cast::member(&bench, &bench.caller, "ada@acme.example", freshet_core::access::Role::Owner, None).await;
    let (origin, password) = (freshet_core::session::Origin::default(), crate::cast::secret(crate::cast::PASSWORD));
    let begun = freshet_core::session::ops::sign_in(&bench.app, "ada@acme.example", &password, &origin).await.unwrap();
    let token = begun.token;
    assert!(
        freshet_core::session::ops::find(&bench.app, &token, None)
            .await
            .unwrap()
            .is_some_and(|known| known.user == user)
    );

    for cookie in ["fr_s", "__Host-fr_s"].map(|name| format!("{name}={}", token.expose())) {
        for method in ["GET", "POST"] {
            let headers = [("cookie", cookie.as_str()), ("authorization", "")];
            let body = (method == "POST").then(|| json!({"name": "by cookie"}));
            let answer = call(&bench, method, "/v1/service-accounts", body, &headers).await;
            assert_eq!((answer.status, answer.code()), (401, "auth.invalid_key"), "{method}");
        }
        let bearer = format!("Bearer {}", token.expose());
        assert_eq!(call(&bench, "GET", "/v1/me", None, &[("authorization", &bearer)]).await.status, 401);
    }
}
