//! Strangers walk every route of the document with our ids: one of another organization, and one of another workspace of ours.

use std::collections::BTreeMap;

use freshet_core::access::{Right, Role};
use freshet_core::api_key::{self, ops::Grant};
use freshet_core::testing::{Bench, workspace};
use freshet_core::workspace;
use serde_json::{Value, json};

use crate::cast::{PASSWORD, make_run, member, secret, sign_in_by_issuer, token};
use crate::client::{call, objects, post};
use crate::table::Table;

/// Walks as those who may everything, elsewhere: each of our ids answers 404.
pub async fn walk(bench: &Bench) {
    let [connection, model, destination, sync] = objects(bench).await;
    let operation = post(bench, &format!("/v1/connections/{connection}/test"), json!(null)).await.id();
    let run = make_run(bench, &model, &sync).await;
    let account = post(bench, "/v1/service-accounts", json!({"name": "exporter"})).await.id();
    let key = post(bench, "/v1/api-keys", json!({"service_account_id": account, "scopes": ["runs:read"]})).await.id();
    // Of this workspace alone: members of the whole organization are seen in each of its workspaces.
    let own = Some(bench.caller.workspace);
    let ours = member(bench, &bench.caller, "bob@acme.example", Role::Viewer, own).await;
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
        ("workspaces", bench.caller.workspace.to_string()),
    ]);
    // People who own another organization, and another workspace of this one: no right is lacking there.
    let (theirs, their_key) = workspace(&bench.app, "stranger").await;
    let stranger = member(bench, &theirs, "stranger@other.example", Role::Owner, None).await;
    let organization = bench.caller.in_organization().unwrap();
    let other = workspace::ops::create(&bench.app, &organization, "beside", "Beside").await.unwrap().id;
    let neighbour = member(bench, &bench.caller, "neighbour@acme.example", Role::Owner, Some(other)).await;
    let grant = Grant { rights: Right::ALL, of_organization: false, days: 1 };
    let beside = api_key::ops::create(&bench.app, other, "beside", grant).await.unwrap();
    let strangers = [
        ("owner of another organization", token(bench, stranger).await),
        ("service account of another organization", format!("Bearer {their_key}")),
        ("owner of another workspace", token(bench, neighbour).await),
        ("service account of another workspace", format!("Bearer {}", beside.text.expose())),
    ];
    let mut table = Table::new(&["404", "403", "empty"]);
    for (name, bearer) in &strangers {
        stroll(bench, name, bearer, &ids, &mut table).await;
    }
    table.print("Strangers with our ids, by the answer");
}

/// Our ids in every query that takes one: nothing of ours comes back.
async fn asked_about(bench: &Bench, name: &str, bearer: &str, ids: &BTreeMap<&str, String>, table: &mut Table) {
    let document: Value = serde_json::from_str(&freshet_api::openapi_json().unwrap()).unwrap();
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let parameters = methods["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let of_query = parameters.iter().filter(|one| one["in"] == "query");
        for parameter in of_query.filter_map(|one| one["name"].as_str()).filter(|name| name.ends_with("_id")) {
            let noun = match parameter {
                "service_account_id" | "actor_id" => "service-accounts",
                "sync_id" => "syncs",
                "target_id" => "connections",
                other => panic!("{path}: what is `{other}` an id of?"),
            };
            let path = format!("{path}?{parameter}={}", ids[noun]);
            let answer = call(bench, "GET", &path, None, &[("authorization", bearer)]).await;
            let nothing = answer.status == 404
                || answer.status == 200
                    && !answer.body.to_string().contains(&ids[noun])
                    && !answer.body["data"][0].is_object();
            assert!(nothing, "{name}: {path}: {} {}", answer.status, answer.body);
            table.count(name, usize::from(answer.status == 200) * 2, true);
            asked += 1;
        }
    }
    assert!(asked >= 6, "only {asked} queries were asked with our ids");
}

async fn stroll(bench: &Bench, name: &str, bearer: &str, ids: &BTreeMap<&str, String>, table: &mut Table) {
    let by_a_program = name.starts_with("service account");
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
            let headers = [("authorization", bearer), ("if-match", "\"1\"")];
            let answer = call(bench, &method.to_uppercase(), &ours, body, &headers).await;
            let of_a_person = by_a_program && ["sessions", "personal-tokens", "identities"].contains(&noun);
            // Who has rights in one workspace alone is told that, whatever id they name.
            let of_the_whole =
                name != "owner of another organization" && ["domains", "sso-connections"].contains(&noun);
            let is_barred = of_a_person || of_the_whole;
            let wanted = if is_barred { (403, "auth.scope_missing") } else { (404, "request.not_found") };
            assert_eq!((answer.status, answer.code()), wanted, "{name}: {method} {ours}: {}", answer.body);
            table.count(name, usize::from(is_barred), true);
            walked += 1;
        }
    }
    assert!(walked >= 30, "only {walked} routes were walked");

    let [connection, model, destination, account] =
        ["connections", "models", "destinations", "service-accounts"].map(|noun| &ids[noun]);
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
        let answer = call(bench, "POST", path, Some(body), &[("authorization", bearer)]).await;
        assert_eq!((answer.status, answer.code()), (404, "request.not_found"), "{name}: {path}: {}", answer.body);
        table.count(name, 0, true);
    }
    asked_about(bench, name, bearer, ids, table).await;
    let ours = bench.caller.workspace.to_string();
    // Who has rights in one workspace alone is told that of every other, whether it is there or not.
    let wanted = if name == "owner of another organization" { 404 } else { 403 };
    for invited_to in [ours.as_str(), "ws_01m8567bj3eqpb3ep3wwxgctvy"] {
        let invited = json!({"email": "mallory@evil.example", "role": "viewer", "workspace_id": invited_to});
        let answer = call(bench, "POST", "/v1/invitations", Some(invited), &[("authorization", bearer)]).await;
        assert_eq!(answer.status, wanted, "{name} invites into {invited_to}: {}", answer.body);
        table.count(name, usize::from(wanted == 403), true);
    }
    let named = [("authorization", bearer), ("freshet-workspace", ours.as_str())];
    let answer = call(bench, "GET", "/v1/runs", None, &named).await;
    assert_eq!(
        (answer.status, answer.code()),
        (404, "request.not_found"),
        "{name} names our workspace: {}",
        answer.body
    );
    table.count(name, 0, true);
    for path in ["/v1/connections", "/v1/models", "/v1/destinations", "/v1/syncs", "/v1/runs"] {
        let answer = call(bench, "GET", path, None, &[("authorization", bearer)]).await;
        assert_eq!(answer.body["data"], json!([]), "{name}: {path}");
    }
}
