//! A client that speaks to the router itself.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use freshet_core::connector::Registry;
use freshet_core::testing::Bench;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// What came back.
pub struct Answered {
    pub status: u16,
    pub headers: axum::http::HeaderMap,
    pub body: Value,
}

impl Answered {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn id(&self) -> String {
        self.body["id"].as_str().unwrap_or_else(|| panic!("no id in {}", self.body)).to_owned()
    }
}

pub async fn bench() -> Bench {
    bench_with(&[]).await
}

pub async fn bench_with(settings: &[(&str, &str)]) -> Bench {
    Bench::with(freshet_worker::register(Registry::default()), settings).await
}

pub async fn call(bench: &Bench, method: &str, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Answered {
    call_of(bench, router(bench), method, path, body, headers).await
}

/// The API of a bench; making it takes longer than most requests.
pub fn router(bench: &Bench) -> Router {
    freshet_api::router(bench.app.clone(), CancellationToken::new())
}

pub async fn call_of(
    bench: &Bench,
    router: Router,
    method: &str,
    path: &str,
    body: Option<Value>,
    headers: &[(&str, &str)],
) -> Answered {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", bench.key));
    }
    if body.is_some() && !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let response = router.oneshot(request.body(body).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answered { status: parts.status.as_u16(), headers: parts.headers, body }
}

pub async fn post(bench: &Bench, path: &str, body: Value) -> Answered {
    call(bench, "POST", path, Some(body), &[]).await
}

pub async fn get(bench: &Bench, path: &str) -> Answered {
    call(bench, "GET", path, None, &[]).await
}

/// A connection, a model, a destination and a draft sync; their ids.
pub async fn objects(bench: &Bench) -> [String; 4] {
    let connection = post(
        bench,
        "/v1/connections",
        serde_json::json!({
            "kind": "postgres", "name": "shop",
            "settings": {"host": "127.0.0.1", "database": "shop", "user": "reader", "password": "hunter2-canary"}
        }),
    )
    .await
    .id();
    let model = post(
        bench,
        "/v1/models",
        serde_json::json!({
            "connection_id": connection, "name": "orders",
            "spec": {"kind": "table", "schema": "public", "table": "orders"}
        }),
    )
    .await
    .id();
    let destination = post(
        bench,
        "/v1/destinations",
        serde_json::json!({
            "kind": "kafka", "name": "cluster",
            "settings": {"bootstrap_servers": "127.0.0.1:9092", "security": {"protocol": "plaintext"}}
        }),
    )
    .await
    .id();
    let sync = post(
        bench,
        "/v1/syncs",
        serde_json::json!({
            "name": "orders out", "model_id": model, "destination_id": destination,
            "config": {"topic": {"name": "{workspace}.{schema}.{table}"}}
        }),
    )
    .await
    .id();
    [connection, model, destination, sync]
}
