//! A stranger walks every route of the document with our ids.

use std::collections::BTreeMap;

use freshet_core::access::Role;
use freshet_core::testing::{Bench, workspace};
use serde_json::{Value, json};

use crate::cast::{PASSWORD, make_run, member, secret, sign_in_by_issuer, token};
use crate::client::{call, objects, post};

/// Walks as somebody who may everything in an organization of their own: each of our ids answers 404.
pub async fn walk(bench: &Bench) {
    let [connection, model, destination, sync] = objects(bench).await;
    let operation = post(bench, &format!("/v1/connections/{connection}/test"), json!(null)).await.id();
    let run = make_run(bench, &model, &sync).await;
    let account = post(bench, "/v1/service-accounts", json!({"name": "exporter"})).await.id();
    let key = post(bench, "/v1/api-keys", json!({"service_account_id": account, "scopes": ["runs:read"]})).await.id();
    let ours = member(bench, &bench.caller, "bob@acme.example", Role::Viewer, None).await;
    let bobs = token(bench, ours).await;
    let first = async |path: &str, bearer: &str| {
        let listed = call(bench, "GET", path, None, &[("authorization", bearer)]).await;
        listed.body["data"][0]["id"].as_str().unwrap().to_owned()
    };
    let origin = freshet_core::session::Origin::default();
    let password = secret(PASSWORD);
    freshet_core::session::ops::sign_in(&bench.app, "bob@acme.example", &password, &origin).await.unwrap();
    let (member_id, session) = (first("/v1/members", &bobs).await, first("/v1/sessions", &bobs).await);
    let (invitation, token_id) = (first("/v1/invitations", &bobs).await, first("/v1/personal-tokens", &bobs).await);
    let [domain, sso, identity] = sign_in_by_issuer(bench, &bench.caller, ours).await;
    let ids = BTreeMap::from([
        ("domains", domain),
        ("sso-connections", sso),
        ("identities", identity),
        ("connections", connection.clone()),
        ("models", model.clone()),
        ("destinations", destination.clone()),
        ("syncs", sync.clone()),
        ("runs", run.clone()),
        ("operations", operation.clone()),
        ("service-accounts", account.clone()),
        ("api-keys", key),
        ("members", member_id),
        ("invitations", invitation),
        ("sessions", session),
        ("personal-tokens", token_id),
    ]);
    // A person who owns another organization: no right is lacking there.
    let (theirs, _) = workspace(&bench.app, "stranger").await;
    let stranger = member(bench, &theirs, "stranger@other.example", Role::Owner, None).await;
    let bearer = token(bench, stranger).await;
    let document: Value = serde_json::from_str(&freshet_api::openapi_json().unwrap()).unwrap();

    let mut walked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if !path.contains("{id}") {
            continue;
        }
        let noun = path.split('/').nth(2).unwrap();
        let ours = path.replace("{id}", &ids[noun]);
        for method in methods.as_object().unwrap().keys() {
            let body = match path.rsplit('/').next() {
                Some("streams") => json!({"name": "S", "on": {"kind": "table", "schema": "P", "name": "T"}}),
                Some("resync") => json!({"how": "full"}),
                _ if noun == "members" => json!({"role": "viewer"}),
                _ => json!({}),
            };
            let body = ["post", "patch"].contains(&method.as_str()).then_some(body);
            let headers = [("authorization", bearer.as_str()), ("if-match", "\"1\"")];
            let answer = call(bench, &method.to_uppercase(), &ours, body, &headers).await;
            assert_eq!((answer.status, answer.code()), (404, "request.not_found"), "{method} {ours}: {}", answer.body);
            walked += 1;
        }
    }
    assert!(walked >= 30, "only {walked} routes were walked");

    let cross = [
        (
            "/v1/models",
            json!({"connection_id": connection, "name": "m",
            "spec": {"kind": "table", "schema": "public", "table": "t"}}),
        ),
        (
            "/v1/syncs",
            json!({"name": "s", "model_id": model, "destination_id": destination,
            "config": {"topic": {"name": "t"}}}),
        ),
        ("/v1/api-keys", json!({"service_account_id": account, "scopes": ["runs:read"]})),
    ];
    for (path, body) in cross {
        let answer = call(bench, "POST", path, Some(body), &[("authorization", &bearer)]).await;
        assert_eq!((answer.status, answer.code()), (404, "request.not_found"), "{path}: {}", answer.body);
    }
    for path in ["/v1/connections", "/v1/models", "/v1/destinations", "/v1/syncs", "/v1/runs"] {
        let answer = call(bench, "GET", path, None, &[("authorization", &bearer)]).await;
        assert_eq!(answer.body["data"], json!([]), "{path}");
    }
}
