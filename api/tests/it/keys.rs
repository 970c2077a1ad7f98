//! The life of a key, over REST.

use freshet_core::testing::Bench;
use serde_json::{Value, json};

use crate::client::{Answered, bench, call, get, post};

async fn account(bench: &Bench) -> String {
    post(bench, "/v1/service-accounts", json!({"name": "exporter"})).await.id()
}

async fn make(bench: &Bench, account: &str, scopes: &[&str]) -> Value {
    let made = post(bench, "/v1/api-keys", json!({"service_account_id": account, "scopes": scopes, "days": 30})).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body
}

async fn by(bench: &Bench, key: &Value, method: &str, path: &str, body: Option<Value>) -> Answered {
    let bearer = format!("Bearer {}", key["secret"].as_str().unwrap());
    call(bench, method, path, body, &[("authorization", &bearer)]).await
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_name_and_its_text_is_shown_once() {
    let bench = bench().await;
    let account = account(&bench).await;

    let key = make(&bench, &account, &["syncs:read", "keys:read"]).await;
    let found = get(&bench, &format!("/v1/api-keys/{}", key["id"].as_str().unwrap())).await.body;
    let listed = get(&bench, &format!("/v1/api-keys?service_account_id={account}")).await.body;

    let secret = key["secret"].as_str().unwrap();
    assert!(secret.starts_with(key["prefix"].as_str().unwrap()) && secret.len() > 60);
    assert_eq!((&found["state"], &found["scopes"]), (&json!("usable"), &json!(["keys:read", "syncs:read"])));
    assert!(!listed.to_string().contains(secret) && !found.to_string().contains(secret));
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(by(&bench, &key, "GET", "/v1/syncs", None).await.status, 200);
    assert_eq!(by(&bench, &key, "GET", "/v1/models", None).await.code(), "auth.scope_missing");
    assert_eq!(get(&bench, &format!("/v1/service-accounts/{account}")).await.body["usable_keys"], 1);
}

#[tokio::test]
async fn nobody_gives_away_a_scope_that_they_lack() {
    let bench = bench().await;
    let account = account(&bench).await;
    let maker = make(&bench, &account, &["keys:write", "syncs:read"]).await;
    let strong = make(&bench, &account, &["syncs:write"]).await;
    let new = |scopes: &[&str]| Some(json!({"service_account_id": account, "scopes": scopes}));

    let refused = by(&bench, &maker, "POST", "/v1/api-keys", new(&["syncs:read", "syncs:write"])).await;
    let rolled =
        by(&bench, &maker, "POST", &format!("/v1/api-keys/{}/roll", strong["id"].as_str().unwrap()), Some(json!({})))
            .await;
    let taken = by(&bench, &maker, "POST", "/v1/api-keys", new(&["syncs:read"])).await;

    assert_eq!((refused.status, refused.code()), (403, "auth.scope_missing"));
    assert_eq!((rolled.status, rolled.code()), (403, "auth.scope_missing"));
    assert_eq!(taken.status, 201);
    assert_eq!(
        get(&bench, &format!("/v1/api-keys?service_account_id={account}")).await.body["data"].as_array().unwrap().len(),
        3
    );
}

#[tokio::test]
async fn a_rolled_key_goes_on_for_the_overlap_and_a_revoked_one_ends_at_once() {
    let bench = bench().await;
    let account = account(&bench).await;
    let first = make(&bench, &account, &["syncs:read"]).await;
    let path = |key: &Value, rest: &str| format!("/v1/api-keys/{}{rest}", key["id"].as_str().unwrap());
    let works = async |key: &Value| by(&bench, key, "GET", "/v1/syncs", None).await.status == 200;

    let second = post(&bench, &path(&first, "/roll"), json!({})).await.body;
    assert!(works(&first).await && works(&second).await);
    assert_eq!((&second["rolled_from"], &second["scopes"]), (&first["id"], &first["scopes"]));

    let third = post(&bench, &path(&second, "/roll"), json!({"overlap_hours": 0})).await.body;
    assert!(works(&first).await && !works(&second).await && works(&third).await);
    assert_eq!(post(&bench, &path(&second, "/roll"), json!({})).await.code(), "request.wrong_state");

    for _ in 0..2 {
        assert_eq!(call(&bench, "DELETE", &path(&third, ""), None, &[]).await.status, 204);
    }
    assert!(!works(&third).await);
    assert_eq!(get(&bench, &path(&third, "")).await.body["state"], "revoked");

    let gone = call(&bench, "DELETE", &format!("/v1/service-accounts/{account}"), None, &[]).await;
    assert_eq!(gone.status, 204);
    assert!(!works(&first).await);
    assert_eq!(get(&bench, "/v1/service-accounts").await.body["data"].as_array().unwrap().len(), 1);
    // Its name is free again.
    assert_eq!(post(&bench, "/v1/service-accounts", json!({"name": "exporter"})).await.status, 201);
}

#[tokio::test]
async fn an_answer_given_again_holds_no_secret() {
    let bench = bench().await;
    let account = account(&bench).await;
    let body = json!({"service_account_id": account, "scopes": ["syncs:read"]});
    let send = async || call(&bench, "POST", "/v1/api-keys", Some(body.clone()), &[("idempotency-key", "k1")]).await;

    let (first, again) = (send().await, send().await);

    assert_eq!((again.header("idempotency-replayed"), &again.body["id"]), ("true", &first.body["id"]));
    assert!(first.body["secret"].is_string() && again.body["secret"].is_null());
}

#[tokio::test]
async fn bad_keys_are_refused_by_field() {
    let bench = bench().await;
    let account = account(&bench).await;

    for (change, pointer) in [
        (json!({"scopes": []}), "/scopes"),
        (json!({"scopes": ["syncs:read", "syncs:eat"]}), "/scopes/1"),
        (json!({"days": 0}), "/days"),
        (json!({"days": 4000}), "/days"),
    ] {
        let mut body = json!({"service_account_id": account, "scopes": ["syncs:read"]});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let refused = post(&bench, "/v1/api-keys", body).await;
        assert_eq!((refused.status, &refused.body["errors"][0]["pointer"]), (400, &json!(pointer)), "{change}");
    }
    let taken = post(&bench, "/v1/service-accounts", json!({"name": "EXPORTER"})).await;
    assert_eq!((taken.status, taken.code()), (409, "request.conflict"));
    assert_eq!(get(&bench, "/v1/api-keys").await.body["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_knows_who_it_is_and_what_roles_there_are() {
    let bench = bench().await;
    let account = account(&bench).await;
    let key = make(&bench, &account, &["syncs:read", "runs:read"]).await;

    let me = by(&bench, &key, "GET", "/v1/me", None).await.body;
    let roles = by(&bench, &key, "GET", "/v1/roles", None).await.body;

    assert_eq!((&me["api_key_id"], &me["service_account_id"]), (&key["id"], &json!(account)));
    assert_eq!(me["scopes"], json!(["runs:read", "syncs:read"]));
    let names: Vec<_> = roles["data"].as_array().unwrap().iter().map(|role| role["role"].as_str().unwrap()).collect();
    assert_eq!(names, ["viewer", "operator", "editor", "admin", "owner"]);
    assert!(roles["data"][0]["rights"].to_string().contains("syncs:read"));
    assert!(!roles["data"][0]["rights"].to_string().contains("rows:read"));
}
