//! The document is what the code says, what is served, and all that there is.

use std::collections::BTreeSet;

use axum::Router;
use axum::routing::get as by_get;
use serde_json::Value;

use crate::client::{bench, get, router};
use crate::routes;

/// What is answered and is no operation: of the machine room, of browsers, and the document itself.
const OUTSIDE: [&str; 4] = ["GET /healthz", "GET /readyz", "GET /v1/openapi.json", "GET /oauth/callback"];

#[tokio::test]
async fn the_document_is_the_one_checked_in_and_the_one_served() {
    let bench = bench().await;
    let generated = freshet_api::openapi_json().unwrap();
    let kept = include_str!("../../openapi.json");

    let served = get(&bench, "/v1/openapi.json").await;

    assert!(generated.trim() == kept.trim(), "api/openapi.json is old; run: cargo run -- openapi > api/openapi.json");
    assert_eq!(served.body, serde_json::from_str::<Value>(&generated).unwrap());
}

/// What a router answers and the document lacks, and what the document has and no router answers.
fn strays(router: &Router) -> (Vec<String>, Vec<String>) {
    let document: Value = serde_json::from_str(&freshet_api::openapi_json().unwrap()).unwrap();
    let mut told: BTreeSet<String> = OUTSIDE.iter().map(|route| (*route).to_owned()).collect();
    for (path, methods) in document["paths"].as_object().unwrap() {
        told.extend(methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let found = routes::of(router);
    (found.difference(&told).cloned().collect(), told.difference(&found).cloned().collect())
}

#[tokio::test]
async fn a_route_that_the_router_has_and_the_document_lacks_is_found() {
    let bench = bench().await;

    assert_eq!(strays(&router(&bench)), (vec![], vec![]));
    for (path, name) in [("/v1/hidden/{id}", "GET /v1/hidden/{id}"), ("/debug", "GET /debug")] {
        let planted = router(&bench).route(path, by_get(async || "nobody knows of this"));
        assert_eq!(strays(&planted), (vec![name.to_owned()], vec![]));
    }
    let planted = router(&bench).route("/v1/me", axum::routing::put(async || "of a path that is known"));
    assert_eq!(strays(&planted).0, ["PUT /v1/me"]);
}
