//! What a stranger sees: nothing.

use std::collections::BTreeMap;

use freshet_core::access::Role;
use freshet_core::testing::workspace;
use serde_json::{Value, json};

use crate::client::{bench, call, get, objects, post};
use crate::people;

#[tokio::test]
async fn another_workspaces_key_gets_404_on_every_route_with_our_ids() {
    let bench = bench().await;
    let [connection, model, destination, sync] = objects(&bench).await;
    let operation = post(&bench, &format!("/v1/connections/{connection}/test"), json!(null)).await.id();
    let run = make_run(&bench, &model, &sync).await;
    let account = post(&bench, "/v1/service-accounts", json!({"name": "exporter"})).await.id();
    let key = post(&bench, "/v1/api-keys", json!({"service_account_id": account, "scopes": ["runs:read"]})).await.id();
    let ours = people::member(&bench, &bench.caller, "bob@acme.example", Role::Viewer, None).await;
    let bobs = people::token(&bench, ours).await;
    let first = async |path: &str, bearer: &str| {
        let listed = call(&bench, "GET", path, None, &[("authorization", bearer)]).await;
        listed.body["data"][0]["id"].as_str().unwrap().to_owned()
    };
    let origin = freshet_core::session::Origin::default();
    let password = people::PASSWORD.parse().unwrap();
    freshet_core::session::ops::sign_in(&bench.app, "bob@acme.example", &password, &origin).await.unwrap();
    let (member, session) = (first("/v1/members", &bobs).await, first("/v1/sessions", &bobs).await);
    let (invitation, token) = (first("/v1/invitations", &bobs).await, first("/v1/personal-tokens", &bobs).await);
    let ids = BTreeMap::from([
        ("connections", connection.clone()),
        ("models", model.clone()),
        ("destinations", destination.clone()),
        ("syncs", sync.clone()),
        ("runs", run.clone()),
        ("operations", operation.clone()),
        ("service-accounts", account.clone()),
        ("api-keys", key),
        ("members", member),
        ("invitations", invitation),
        ("sessions", session),
        ("personal-tokens", token),
    ]);
    // A person who owns another organization: no right is lacking there.
    let (theirs, _) = workspace(&bench.app, "stranger").await;
    let stranger = people::member(&bench, &theirs, "stranger@other.example", Role::Owner, None).await;
    let bearer = people::token(&bench, stranger).await;
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
            let answer = call(&bench, &method.to_uppercase(), &ours, body, &headers).await;
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
        let answer = call(&bench, "POST", path, Some(body), &[("authorization", &bearer)]).await;
        assert_eq!((answer.status, answer.code()), (404, "request.not_found"), "{path}: {}", answer.body);
    }
    for path in ["/v1/connections", "/v1/models", "/v1/destinations", "/v1/syncs", "/v1/runs"] {
        let answer = call(&bench, "GET", path, None, &[("authorization", &bearer)]).await;
        assert_eq!(answer.body["data"], json!([]), "{path}");
    }
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
    use freshet_core::api_key::ops::Reach;
    let bench = bench().await;
    objects(&bench).await;
    let reach = Reach { rights: &[Right::ConnectionsRead], of_organization: false, days: 1 };
    let made = freshet_core::api_key::ops::create(&bench.app, bench.caller.workspace, "reader", reach).await.unwrap();
    let bearer = format!("Bearer {}", made.text.expose());

    let reads = call(&bench, "GET", "/v1/connections", None, &[("authorization", &bearer)]).await;
    let other = call(&bench, "GET", "/v1/models", None, &[("authorization", &bearer)]).await;
    let body = json!({"kind": "postgres", "name": "n", "settings": {"host": "h", "database": "d", "user": "u"}});
    let writes = call(&bench, "POST", "/v1/connections", Some(body), &[("authorization", &bearer)]).await;

    assert_eq!(reads.status, 200);
    assert_eq!((other.status, other.code()), (403, "auth.scope_missing"));
    assert_eq!((writes.status, writes.code()), (403, "auth.scope_missing"));
}

async fn make_run(bench: &freshet_core::testing::Bench, model: &str, sync: &str) -> String {
    use freshet_core::connector::{Column, Kind, Schema};
    let found = freshet_core::model::ops::get(&bench.app, &bench.caller, model.parse().unwrap()).await.unwrap();
    let id = Column { name: "id".into(), kind: Kind::Int, source_type: "int8".into(), nullable: false };
    let mut tx = bench.app.db.tenant(bench.caller.workspace).await.unwrap();
    let schema = Schema { columns: vec![id] };
    freshet_core::model::ops::record_columns(&mut tx, found.version_id, &[], &schema, &["id".into()]).await.unwrap();
    tx.commit().await.unwrap();
    post(bench, &format!("/v1/syncs/{sync}/activate"), json!(null)).await;
    let run = post(bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await.id();
    assert_eq!(get(bench, &format!("/v1/runs/{run}")).await.status, 200);
    run
}
