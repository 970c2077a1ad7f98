//! What a stranger sees: nothing.

use serde_json::json;

use crate::client::{bench, call, objects};
use crate::walk::walk;

#[tokio::test]
async fn another_workspaces_key_gets_404_on_every_route_with_our_ids() {
    walk(&bench().await).await;
}

#[tokio::test]
async fn without_a_valid_key_there_is_one_answer() {
    let bench = bench().await;
    let typo = bench.key.replace("fr_live_", "fr_live_x");
    let unknown = "fr_live_AAAAAAAA_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_AAAAAA";

    for key in ["", "Basic abc", "Bearer ", &format!("Bearer {typo}"), &format!("Bearer {unknown}")] {
        let answer = call(&bench, "GET", "/v1/runs", None, &[("authorization", key)]).await;
        assert_eq!((answer.status, answer.code()), (401, "auth.invalid_key"), "{key}");
    }
}

#[tokio::test]
async fn a_key_does_only_what_its_scopes_name() {
    use freshet_core::access::Right;
    use freshet_core::api_key::ops::Grant;
    let bench = bench().await;
    objects(&bench).await;
    let grant = Grant { rights: &[Right::ConnectionsRead], of_organization: false, days: 1 };
    let made = freshet_core::api_key::ops::create(&bench.app, bench.caller.workspace, "reader", grant).await.unwrap();
    let bearer = format!("Bearer {}", made.text.expose());

    let reads = call(&bench, "GET", "/v1/connections", None, &[("authorization", &bearer)]).await;
    let other = call(&bench, "GET", "/v1/models", None, &[("authorization", &bearer)]).await;
    let body = json!({"kind": "postgres", "name": "n", "settings": {"host": "h", "database": "d", "user": "u"}});
    let writes = call(&bench, "POST", "/v1/connections", Some(body), &[("authorization", &bearer)]).await;

    assert_eq!(reads.status, 200);
    assert_eq!((other.status, other.code()), (403, "auth.scope_missing"));
    assert_eq!((writes.status, writes.code()), (403, "auth.scope_missing"));
}
