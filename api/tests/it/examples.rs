//! Every example of the document: each request is sent and answered as documented, each answer is of its schema.
//!
//! What a new operation answers is written into `api/examples.json` by `FRESHET_TEST_EXAMPLES=write cargo test -p
//! freshet-api --test it every_example`, to be read and then `cargo run -- openapi > api/openapi.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use freshet_core::access::{Caller, Right, Role};
use freshet_core::api_key::ops::Grant;
use freshet_core::id::UserId;
use freshet_core::testing::Bench;
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cast::{PASSWORD, make_run, member, secret, token};
use crate::client::{Answered, bench_with, call, objects, post};

#[path = "../../../web/tests/it/dns.rs"]
mod dns;

/// What every id of an example ends with.
const EXAMPLES: &str = "01m8567bj3eqpb3ep3wwxgctvy";

/// Answers that are no JSON, or none: there is nothing to show.
const WITHOUT_ANSWER: [&str; 1] = ["GET /v1/audit-events/export"];

/// What must come one after the other; everything else of `GET` goes before, of `DELETE` after.
const IN_ORDER: [&str; 15] = [
    "POST /v1/syncs/{id}/check",
    "POST /v1/syncs/{id}/preview",
    "POST /v1/syncs/{id}/plan",
    "POST /v1/syncs/{id}/resync",
    "POST /v1/syncs/{id}/pause",
    "POST /v1/syncs/{id}/resume",
    "POST /v1/syncs/{id}/activate",
    "POST /v1/runs/{id}/cancel",
    "POST /v1/runs/{id}/retry",
    "POST /v1/syncs/{id}/runs",
    "POST /v1/syncs/{id}/adopt-position",
    "POST /v1/syncs/{id}/reset",
    "POST /v1/syncs/{id}/archive",
    "DELETE /v1/workspaces/{id}",
    "POST /v1/workspaces/{id}/restore",
];

/// What must stand in the address besides.
const WITH_QUERY: [(&str, &str); 1] = [("DELETE /v1/workspaces/{id}", "?confirm=spare")];

fn document() -> Value {
    serde_json::from_str(&freshet_api::openapi_json().unwrap()).unwrap()
}

fn validator(document: &Value, schema: &Value) -> Validator {
    let whole = json!({"allOf": [schema], "components": document["components"]});
    jsonschema::draft202012::options().should_validate_formats(true).build(&whole).unwrap()
}

/// One operation with what the document shows of it.
struct Shown {
    name: String,
    path: String,
    request: Option<(Value, Value)>,
    answers: BTreeMap<u16, (Value, Value)>,
    statuses: BTreeSet<u16>,
}

/// The operations, requests and answers as (schema, example); null where there is no example.
fn shown(document: &Value) -> Vec<Shown> {
    let pair = |content: &Value| (content["schema"].clone(), content["example"].clone());
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let content = &operation["requestBody"]["content"]["application/json"];
            let responses = operation["responses"].as_object().unwrap();
            let good: BTreeMap<u16, &Value> = responses
                .iter()
                .filter(|(status, _)| status.starts_with('2'))
                .map(|(status, response)| (status.parse().unwrap(), &response["content"]["application/json"]))
                .collect();
            let name = format!("{} {path}", method.to_uppercase());
            let request = content.is_object().then(|| pair(content));
            let statuses = good.keys().copied().collect();
            let answers = good.into_iter().filter(|(_, content)| content.is_object());
            let answers = answers.map(|(status, content)| (status, pair(content))).collect();
            found.push(Shown { name, path: path.clone(), request, answers, statuses });
        }
    }
    let place = |name: &str| match IN_ORDER.iter().position(|of| *of == name) {
        Some(place) => 2 + place,
        None if name.starts_with("GET") => 0,
        None if name.starts_with("DELETE") => 2 + IN_ORDER.len(),
        None => 1,
    };
    found.sort_by_key(|shown| place(&shown.name));
    found
}

fn refusals(validator: &Validator, value: &Value) -> Vec<String> {
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn every_example_is_of_its_schema_and_none_is_missing() {
    let document = document();
    for shown in shown(&document) {
        let bodies = shown.request.iter().chain(shown.answers.values());
        for (schema, example) in bodies {
            assert!(!example.is_null(), "{}: an example is missing; examples.rs says how it is made", shown.name);
            let refused = refusals(&validator(&document, schema), example);
            assert!(refused.is_empty(), "{}: {refused:?} in {example}", shown.name);
        }
        assert!(
            !shown.answers.is_empty() || shown.statuses.contains(&204) || WITHOUT_ANSWER.contains(&&*shown.name),
            "{} answers nothing that could be shown",
            shown.name
        );
    }
    let kept: Map<String, Value> = serde_json::from_str(include_str!("../../examples.json")).unwrap();
    let names: BTreeSet<_> = shown(&document).into_iter().map(|shown| shown.name).collect();
    let stray: Vec<_> = kept.keys().filter(|name| !names.contains(*name)).collect();
    assert!(stray.is_empty(), "examples of no operation: {stray:?}");
}

#[test]
fn a_wrong_example_would_be_found() {
    let document = document();
    let validator = validator(&document, &json!({"$ref": "#/components/schemas/Workspace"}));
    let good =
        document["paths"]["/v1/workspace"]["get"]["responses"]["200"]["content"]["application/json"]["example"].clone();
    assert_eq!(refusals(&validator, &good), Vec::<String>::new());
    for (member, value) in [("id", json!("wsp_short")), ("slug", json!(7)), ("created_at", json!("yesterday"))] {
        let mut bad = good.clone();
        bad[member] = value;
        assert!(!refusals(&validator, &bad).is_empty(), "{bad}");
    }
}

/// Rows that the examples are about: by the prefix of their ids, and those that only one operation may have.
struct Scene {
    by_noun: BTreeMap<&'static str, String>,
    of_one: BTreeMap<&'static str, String>,
    bearer: String,
}

/// A domain that is only claimed, with its proof in the record; a connection of one that is proved; and an identity.
async fn sign_in(bench: &Bench, person: UserId, record: &Mutex<String>) -> [String; 3] {
    let organization = bench.caller.in_organization().unwrap();
    freshet_core::domain::ops::verify_by_hand(&bench.app, &organization, "acme.example").await.unwrap();
    let claimed = freshet_core::domain::ops::claim(&bench.app, &organization, "shop.example").await.unwrap();
    record.lock().unwrap().clone_from(&claimed.record_text);
    let google = json!({"name": "Google", "kind": "google", "client_id": "freshet.apps.example",
                        "client_secret": "sso-canary", "domains": ["acme.example"], "default_role": "viewer"});
    let google = serde_json::from_value(google).unwrap();
    let connection = freshet_core::sso::ops::create(&bench.app, &organization, &google).await.unwrap();
    let mut admin = PgConnection::connect(&bench.admin_url).await.unwrap();
    sqlx::query(
        "insert into identity (user_id, issuer, subject, email)
         values ($1, 'https://accounts.google.com', '117040311200900000042', 'ada@acme.example')",
    )
    .bind(person.uuid())
    .execute(&mut admin)
    .await
    .unwrap();
    let identity = freshet_core::identity::ops::list(&bench.app, person).await.unwrap()[0].id;
    [claimed.id.to_string(), connection.id.to_string(), identity.to_string()]
}

/// A workspace `spare` with a run, to be deleted and restored; its id.
async fn spare_workspace(bench: &Bench) -> String {
    let organization = bench.caller.in_organization().unwrap();
    let made = freshet_core::workspace::ops::create(&bench.app, &organization, "spare", "Spare").await.unwrap().id;
    let grant = Grant { rights: Right::ALL, of_organization: false, days: 1 };
    let key = freshet_core::api_key::ops::create(&bench.app, made, "tests", grant).await.unwrap();
    let within = Bench {
        app: bench.app.clone(),
        caller: Caller::command(made),
        key: key.text.expose().to_owned(),
        admin_url: bench.admin_url.clone(),
    };
    let [_, model, _, sync] = objects(&within).await;
    make_run(&within, &model, &sync).await;
    made.to_string()
}

async fn scene(bench: &Bench, record: &Mutex<String>) -> Scene {
    let [connection, model, destination, sync] = objects(bench).await;
    let run = make_run(bench, &model, &sync).await;
    let operation = post(bench, &format!("/v1/connections/{connection}/test"), json!(null)).await.id();
    let made = async |path: &str, body: Value| post(bench, path, body).await.id();
    let account = made("/v1/service-accounts", json!({"name": "exporter"})).await;
    let key = json!({"service_account_id": account, "scopes": ["runs:read"]});
    let owner = member(bench, &bench.caller, "ada@acme.example", Role::Owner, None).await;
    let mate = member(bench, &bench.caller, "carol@acme.example", Role::Viewer, None).await;
    let bearer = token(bench, owner).await;
    token(bench, owner).await;
    let origin = freshet_core::session::Origin::default();
    for _ in 0..2 {
        freshet_core::session::ops::sign_in(&bench.app, "ada@acme.example", &secret(PASSWORD), &origin).await.unwrap();
    }
    let listed = async |path: &str| {
        let found = call(bench, "GET", path, None, &[("authorization", &bearer)]).await;
        assert_eq!(found.status, 200, "{path}: {}", found.body);
        let ids: Vec<String> =
            found.body["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        ids
    };
    let members = call(bench, "GET", "/v1/members", None, &[("authorization", &bearer)]).await.body;
    let mates = members["data"].as_array().unwrap().iter().find(|row| row["user_id"] == json!(mate)).unwrap();
    let snowflake = async |name: &str, sign_in: Value| {
        let settings = json!({"account": "acme-shop", "user": "LOADER", "database": "SHOP", "warehouse": "LOAD",
                              "sign_in": sign_in});
        made("/v1/connections", json!({"kind": "snowflake", "name": name, "settings": settings})).await
    };
    let keyed = snowflake("warehouse", json!({"kind": "key_pair"})).await;
    let oauth = json!({"kind": "oauth", "client_id": "freshet", "client_secret": "shh"});
    let consenting = snowflake("warehouse by consent", oauth).await;
    let stream = made(
        "/v1/models",
        json!({"connection_id": keyed, "name": "changes", "primary_key": ["ID"],
               "spec": {"kind": "stream", "schema": "PUBLIC", "stream": "ORDERS_CHANGES"}}),
    )
    .await;
    let config = json!({"topic": {"name": "changes"}, "mode": {"kind": "changes"}});
    let changes = made(
        "/v1/syncs",
        json!({"name": "orders out of the Stream", "model_id": stream, "destination_id": destination,
                                         "config": config}),
    )
    .await;
    let spare_connection = made(
        "/v1/connections",
        json!({"kind": "postgres", "name": "spare", "settings": {"host": "h", "database": "d", "user": "u"}}),
    )
    .await;
    let spec = json!({"kind": "table", "schema": "public", "table": "spare"});
    let spare_model = made("/v1/models", json!({"connection_id": connection, "name": "spare", "spec": spec})).await;
    let settings = json!({"bootstrap_servers": "k:9092", "security": {"protocol": "plaintext"}});
    let spare_destination =
        made("/v1/destinations", json!({"kind": "kafka", "name": "spare", "settings": settings})).await;
    let spare_sync = made(
        "/v1/syncs",
        json!({"name": "spare", "model_id": model, "destination_id": destination,
                                            "config": {"topic": {"name": "spare"}}}),
    )
    .await;
    let spare_account = made("/v1/service-accounts", json!({"name": "spare"})).await;
    let invitation = call(
        bench,
        "POST",
        "/v1/invitations",
        Some(json!({"email": "dan@acme.example", "role": "viewer"})),
        &[("authorization", &bearer)],
    )
    .await
    .id();
    let limits = [("workspaces", 10), ("members", 50), ("records_per_month", 100_000_000)];
    let limits = limits.map(|(word, most)| (word.to_owned(), Some(most))).into();
    let organization = bench.caller.in_organization().unwrap();
    freshet_core::limit::ops::set(&bench.app, &organization, None, Some(&limits)).await.unwrap();
    let [domain, sso_connection, identity] = sign_in(bench, owner, record).await;
    let by_noun = BTreeMap::from([
        ("connections", connection),
        ("models", model),
        ("destinations", destination),
        ("syncs", sync),
        ("runs", run),
        ("operations", operation),
        ("service-accounts", account.clone()),
        ("api-keys", made("/v1/api-keys", key.clone()).await),
        ("members", mates["id"].as_str().unwrap().to_owned()),
        ("invitations", invitation),
        ("sessions", listed("/v1/sessions").await.remove(0)),
        ("personal-tokens", listed("/v1/personal-tokens").await.remove(0)),
        ("domains", domain),
        ("sso-connections", sso_connection),
        ("identities", identity),
        ("workspaces", bench.caller.workspace.to_string()),
    ]);
    // The last: from here on whoever has both workspaces says which one.
    let spare_workspace = spare_workspace(bench).await;
    let of_one = BTreeMap::from([
        ("POST /v1/connections/{id}/key-pair", keyed.clone()),
        ("POST /v1/connections/{id}/streams", keyed),
        ("POST /v1/connections/{id}/consent", consenting),
        ("POST /v1/syncs/{id}/resync", changes),
        ("POST /v1/syncs/{id}/archive", spare_sync),
        ("DELETE /v1/connections/{id}", spare_connection),
        ("DELETE /v1/models/{id}", spare_model),
        ("DELETE /v1/destinations/{id}", spare_destination),
        ("DELETE /v1/service-accounts/{id}", spare_account),
        ("DELETE /v1/api-keys/{id}", made("/v1/api-keys", key).await),
        ("DELETE /v1/workspaces/{id}", spare_workspace.clone()),
        ("POST /v1/workspaces/{id}/restore", spare_workspace),
    ]);
    Scene { by_noun, of_one, bearer }
}

/// What only a worker brings about, for the operations that want it.
async fn stage(bench: &Bench, name: &str, sync: &str) {
    if name != "POST /v1/syncs/{id}/adopt-position" {
        return;
    }
    let sync: freshet_core::id::SyncId = sync.parse().unwrap();
    let statement = format!(
        "update run set state = 'failed', finished_at = now(), failure_code = 'kafka.ledger_behind',
                        failure_message = 'Kafka knows more'
         where sync_id = '{}' and state = 'queued'",
        sync.uuid()
    );
    let mut admin = PgConnection::connect(&bench.admin_url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await.unwrap();
}

#[tokio::test]
async fn every_example_is_answered_as_the_document_says() {
    let (dns, record) = dns::start().await;
    let bench = bench_with(&[
        ("api_reads_per_minute", "1000"),
        ("api_writes_per_minute", "1000"),
        ("api_expensive_per_minute", "1000"),
        ("dns_server", &dns.to_string()),
    ])
    .await;
    let document = document();
    let scene = scene(&bench, &record).await;
    let own = bench.caller.workspace.to_string();
    // A real id in place of each of the examples.
    let real: BTreeMap<String, String> = scene
        .by_noun
        .values()
        .map(|id| (format!("{}_{EXAMPLES}", id.split('_').next().unwrap()), id.clone()))
        .collect();
    let mut written: BTreeMap<String, Value> = serde_json::from_str(include_str!("../../examples.json")).unwrap();
    let mut wrong = Vec::new();
    let mut sent = 0;

    for shown in shown(&document) {
        let noun = shown.path.split('/').nth(2).unwrap();
        let id = scene.of_one.get(shown.name.as_str()).or_else(|| scene.by_noun.get(noun)).cloned().unwrap_or_default();
        let path = shown.path.replace("{id}", &id);
        let text = shown.request.as_ref().map(|(_, example)| example.to_string());
        let text = text.map(|text| real.iter().fold(text, |text, (shown, real)| text.replace(shown, real)));
        stage(&bench, &shown.name, &scene.by_noun["syncs"]).await;
        let bearer = ("authorization", scene.bearer.as_str());
        let workspace = ("freshet-workspace", own.as_str());
        let tag = call(&bench, "GET", &path, None, &[bearer, workspace]).await.header("etag").to_owned();
        let headers = [bearer, workspace, ("if-match", tag.as_str())];
        let headers = if tag.is_empty() { &headers[..2] } else { &headers[..] };
        let body = text.map(|text| serde_json::from_str(&text).unwrap());
        let method = shown.name.split(' ').next().unwrap();
        let query = WITH_QUERY.iter().find(|(name, _)| *name == shown.name).map_or("", |(_, query)| *query);
        let answer = call(&bench, method, &format!("{path}{query}"), body, headers).await;

        sent += 1;
        if !shown.statuses.contains(&answer.status) {
            wrong.push(format!("{}: {} {}", shown.name, answer.status, answer.body));
            continue;
        }
        if let Some((schema, _)) = shown.answers.get(&answer.status) {
            let refused = refusals(&validator(&document, schema), &answer.body);
            wrong.extend(refused.into_iter().map(|refusal| format!("{}: {refusal} in {}", shown.name, answer.body)));
            let example = written.entry(shown.name.clone()).or_insert_with(|| json!({}));
            example["answer"] = as_example(&answer, &real);
        }
    }

    if freshet_core::testing::surroundings_or("FRESHET_TEST_EXAMPLES", "") == "write" {
        let text = serde_json::to_string_pretty(&written).unwrap() + "\n";
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/examples.json"), text).unwrap();
    }
    assert!(wrong.is_empty(), "{} of {sent} are answered otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

/// An answer with the ids of examples in it, without the words that are good once, and short.
fn as_example(answer: &Answered, real: &BTreeMap<String, String>) -> Value {
    let text = real.iter().fold(answer.body.to_string(), |text, (shown, real)| text.replace(real.as_str(), shown));
    hidden(serde_json::from_str(&text).unwrap())
}

fn hidden(value: Value) -> Value {
    let text = |text: String| {
        if let Some((before, _)) = text.split_once("word=") {
            return format!("{before}word=…");
        }
        if text.starts_with("fr_live_") { "fr_live_…".to_owned() } else { text }
    };
    match value {
        Value::String(known) => Value::String(text(known)),
        // Three of a list are enough to show it.
        Value::Array(values) => Value::Array(values.into_iter().take(3).map(hidden).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, hidden(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}
