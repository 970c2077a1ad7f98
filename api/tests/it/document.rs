//! The document is what the code says, and what is served.

use crate::client::{bench, get};

#[tokio::test]
async fn the_document_is_the_one_checked_in_and_the_one_served() {
    let bench = bench().await;
    let generated = freshet_api::openapi_json().unwrap();
    let kept = include_str!("../../openapi.json");

    let served = get(&bench, "/v1/openapi.json").await;

    assert!(generated.trim() == kept.trim(), "api/openapi.json is old; run: cargo run -- openapi > api/openapi.json");
    assert_eq!(served.body, serde_json::from_str::<serde_json::Value>(&generated).unwrap());
}
