//! Connections, models, destinations, syncs and runs: made, changed, refused.

use serde_json::json;

use crate::cast::make_run;
use crate::client::{bench, call, get, objects, post};

#[tokio::test]
async fn a_secret_goes_in_and_never_comes_out() {
    let bench = bench().await;

    let [connection, ..] = objects(&bench).await;

    let found = get(&bench, &format!("/v1/connections/{connection}")).await;
    assert_eq!(found.body["secrets"]["password"]["set"], true);
    assert_eq!(found.body["settings"]["host"], "127.0.0.1");
    assert!(!found.body.to_string().contains("hunter2"));
    let listed = get(&bench, "/v1/connections").await;
    assert!(!listed.body.to_string().contains("hunter2"));
}

#[tokio::test]
async fn a_change_keeps_the_secret_it_does_not_name_and_wants_the_current_version() {
    let bench = bench().await;
    let [connection, ..] = objects(&bench).await;
    let path = format!("/v1/connections/{connection}");
    let patch = || Some(json!({"settings": {"port": 6543}}));

    let without = call(&bench, "PATCH", &path, patch(), &[]).await;
    let stale = call(&bench, "PATCH", &path, patch(), &[("if-match", "\"7\"")]).await;
    let done = call(&bench, "PATCH", &path, patch(), &[("if-match", "\"1\"")]).await;

    assert_eq!((without.status, without.code()), (428, "request.precondition_required"));
    assert_eq!((stale.status, stale.code()), (412, "request.precondition_failed"));
    assert_eq!((done.status, done.header("etag")), (200, "\"2\""));
    assert_eq!(done.body["settings"]["port"], 6543);
    assert_eq!(done.body["secrets"]["password"]["set"], true);
}

#[tokio::test]
async fn what_is_used_is_not_archived() {
    let bench = bench().await;
    let [connection, model, destination, _] = objects(&bench).await;

    for path in [
        format!("/v1/connections/{connection}"),
        format!("/v1/models/{model}"),
        format!("/v1/destinations/{destination}"),
    ] {
        let refused = call(&bench, "DELETE", &path, None, &[("if-match", "\"1\"")]).await;
        assert_eq!((refused.status, refused.code()), (409, "request.in_use"), "{path}");
    }
}

#[tokio::test]
async fn bad_requests_get_a_problem_that_names_the_field_and_leave_nothing_behind() {
    let bench = bench().await;
    let [connection, model, destination, sync] = objects(&bench).await;
    let kafka = |settings: serde_json::Value| json!({"kind": "kafka", "name": "x", "settings": settings});
    let table = json!({"kind": "table", "schema": "public", "table": "t"});
    let sql = |sql: &str| json!({"connection_id": connection, "name": "m", "spec": {"kind": "sql", "sql": sql}});
    let cases = [
        ("/v1/connections", json!({"kind": "oracle", "name": "x", "settings": {}}), 400, "request.invalid"),
        (
            "/v1/connections",
            json!({"kind": "postgres", "name": "x", "settings": {"host": "h"}}),
            400,
            "request.invalid",
        ),
        (
            "/v1/connections",
            json!({"kind": "postgres", "name": "", "settings":
            {"host": "h", "database": "d", "user": "u"}}),
            400,
            "request.invalid",
        ),
        (
            "/v1/connections",
            json!({"kind": "postgres", "name": "shop", "settings":
            {"host": "h", "database": "d", "user": "u"}}),
            409,
            "request.conflict",
        ),
        (
            "/v1/connections",
            json!({"kind": "postgres", "name": "x", "settings":
            {"host": "/run/postgresql", "database": "d", "user": "u"}}),
            400,
            "request.invalid",
        ),
        (
            "/v1/connections",
            json!({"kind": "postgres", "name": "x", "settings": {}, "colour": 1}),
            400,
            "request.invalid",
        ),
        ("/v1/service-accounts", json!({"name": "a\0b"}), 400, "request.invalid"),
        ("/v1/destinations", kafka(json!({"bootstrap_servers": "b:1", "client_id": "a\0b"})), 400, "request.invalid"),
        ("/v1/destinations", kafka(json!({"bootstrap_servers": "no-port"})), 400, "request.invalid"),
        (
            "/v1/destinations",
            kafka(json!({"bootstrap_servers": "b:1",
            "properties": {"plugin.library.paths": "x"}})),
            422,
            "kafka.setting_not_allowed",
        ),
        ("/v1/models", sql("delete from t"), 422, "model.not_select"),
        ("/v1/models", sql("select 1; select 2"), 422, "model.multiple_statements"),
        ("/v1/models", sql("selec"), 422, "model.syntax"),
        ("/v1/models", json!({"connection_id": destination, "name": "m", "spec": table}), 400, "request.invalid"),
        (
            "/v1/models",
            json!({"connection_id": connection, "name": "m", "spec": table,
            "primary_key": ["a", "a"]}),
            400,
            "request.invalid",
        ),
        (
            "/v1/syncs",
            json!({"name": "s", "model_id": model, "destination_id": destination,
            "config": {"topic": {"name": "a b"}}}),
            400,
            "request.invalid",
        ),
        (
            "/v1/syncs",
            json!({"name": "s", "model_id": model, "destination_id": destination,
            "config": {"topic": {"name": "t"}, "format": "xml"}}),
            400,
            "request.invalid",
        ),
        (
            "/v1/syncs",
            json!({"name": "orders out", "model_id": model, "destination_id": destination,
            "config": {"topic": {"name": "t"}}}),
            409,
            "request.conflict",
        ),
    ];
    let before = get(&bench, "/v1/connections").await.body["data"].as_array().unwrap().len();

    for (path, body, status, code) in cases {
        let refused = post(&bench, path, body.clone()).await;
        assert_eq!((refused.status, refused.code()), (status, code), "{path} {body}: {}", refused.body);
        assert_eq!(refused.header("content-type"), "application/problem+json");
        assert!(refused.body["action"].as_str().unwrap().ends_with('.'));
        assert_eq!(refused.body["request_id"].as_str().unwrap(), refused.header("freshet-request-id"));
    }

    for (path, count) in [("/v1/connections", before), ("/v1/models", 1), ("/v1/destinations", 1), ("/v1/syncs", 1)] {
        assert_eq!(get(&bench, path).await.body["data"].as_array().unwrap().len(), count, "{path}");
    }
    let early = post(&bench, &format!("/v1/syncs/{sync}/activate"), json!(null)).await;
    assert_eq!((early.status, early.code()), (409, "request.wrong_state"));
    let draft = post(&bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await;
    assert_eq!((draft.status, draft.code()), (409, "request.wrong_state"));
}

#[tokio::test]
async fn requests_that_are_no_requests_get_problems_too() {
    let bench = bench().await;

    let text = call(&bench, "POST", "/v1/models", Some(json!({})), &[("content-type", "text/plain")]).await;
    let path = get(&bench, "/v1/nothing").await;
    let method = call(&bench, "PUT", "/v1/models", None, &[]).await;
    let cursor = get(&bench, "/v1/models?cursor=abc").await;
    let limit = get(&bench, "/v1/models?limit=1000").await;
    let large = post(&bench, "/v1/models", json!({"name": "x".repeat(2_000_000)})).await;

    assert_eq!((text.status, text.code()), (415, "request.unsupported_media_type"));
    assert_eq!((path.status, path.code()), (404, "request.not_found"));
    assert_eq!((method.status, method.code()), (405, "request.method_not_allowed"));
    assert_eq!((cursor.status, cursor.code()), (400, "request.invalid"));
    assert_eq!((limit.status, limit.code()), (400, "request.invalid"));
    assert_eq!((large.status, large.code()), (413, "request.too_large"));
}

#[tokio::test]
async fn the_same_idempotency_key_gets_the_same_answer() {
    let bench = bench().await;
    let body = || Some(json!({"kind": "kafka", "name": "k", "settings": {"bootstrap_servers": "b:9092"}}));
    let key = [("idempotency-key", "order-1")];

    let first = call(&bench, "POST", "/v1/destinations", body(), &key).await;
    let again = call(&bench, "POST", "/v1/destinations", body(), &key).await;
    let other = call(&bench, "POST", "/v1/destinations", Some(json!({})), &key).await;

    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.id(), again.id());
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!((other.status, other.code()), (422, "request.idempotency_mismatch"));
}

#[tokio::test]
async fn a_list_comes_in_pages_and_misses_nothing() {
    let bench = bench().await;
    for n in 0..5 {
        let body = json!({"kind": "kafka", "name": format!("k{n}"), "settings": {"bootstrap_servers": "b:9092"}});
        post(&bench, "/v1/destinations", body).await;
    }

    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&bench, &format!("/v1/destinations?limit=2{cursor}")).await.body;
        names.extend(page["data"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }

    assert_eq!(names, ["k4", "k3", "k2", "k1", "k0"]);
}

#[tokio::test]
async fn a_change_that_sends_everything_again_is_said_before_it_is_saved() {
    let bench = bench().await;
    let [_, model, _, sync] = objects(&bench).await;
    describe(&bench, &model).await;
    let path = format!("/v1/syncs/{sync}");
    let active = post(&bench, &format!("{path}/activate"), json!(null)).await;
    assert_eq!(active.status, 200, "{}", active.body);
    let tag = active.header("etag").to_owned();
    let moved = || json!({"config": {"topic": {"name": "elsewhere"}}});

    let refused = call(&bench, "PATCH", &path, Some(moved()), &[("if-match", &tag)]).await;
    let looked = call(&bench, "PATCH", &format!("{path}?dry_run=true"), Some(moved()), &[("if-match", &tag)]).await;
    let mut accepted = moved();
    accepted["accept_consequence"] = "new_generation".into();
    let saved = call(&bench, "PATCH", &path, Some(accepted), &[("if-match", &tag)]).await;

    assert_eq!((refused.status, refused.code()), (409, "sync.consequence_not_accepted"));
    assert_eq!((looked.status, looked.body["consequence"].as_str()), (200, Some("new_generation")));
    assert_eq!((saved.status, saved.body["generation"].as_i64()), (200, Some(2)), "{}", saved.body);
    assert_eq!(saved.body["topic"], "elsewhere");
}

#[tokio::test]
async fn a_second_trigger_gets_the_run_that_is_already_queued() {
    let bench = bench().await;
    let [_, model, _, sync] = objects(&bench).await;
    describe(&bench, &model).await;
    post(&bench, &format!("/v1/syncs/{sync}/activate"), json!(null)).await;
    let runs = format!("/v1/syncs/{sync}/runs");

    let (first, again) = (post(&bench, &runs, json!(null)).await, post(&bench, &runs, json!(null)).await);

    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.id(), again.id());
    assert_eq!(again.body["coalesced_count"], 1);
    let cancelled = post(&bench, &format!("/v1/runs/{}/cancel", first.id()), json!(null)).await;
    assert_eq!(cancelled.body["state"], "cancelled");
    let twice = post(&bench, &format!("/v1/runs/{}/cancel", first.id()), json!(null)).await;
    assert_eq!((twice.status, twice.code()), (409, "request.wrong_state"));
    let events = get(&bench, &format!("/v1/runs/{}/events", first.id())).await;
    let codes: Vec<_> = events.body["data"].as_array().unwrap().iter().map(|e| e["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["run.queued", "run.cancel_requested"]);
}

/// What a worker would find.
async fn describe(bench: &freshet_core::testing::Bench, model: &str) {
    use freshet_core::connector::{Column, Kind, Schema};
    let found = freshet_core::model::ops::get(&bench.app, &bench.caller, model.parse().unwrap()).await.unwrap();
    let id = Column { name: "id".into(), kind: Kind::Int, source_type: "int8".into(), nullable: false };
    let mut tx = bench.app.db.tenant(bench.caller.workspace).await.unwrap();
    let schema = Schema { columns: vec![id] };
    freshet_core::model::ops::record_columns(&mut tx, found.version_id, &[], &schema, &["id".into()]).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_stream_is_for_snowflake_and_read_as_changes_alone() {
    let bench = bench().await;
    let [connection, model, destination, sync] = objects(&bench).await;
    let spec = json!({"kind": "stream", "schema": "PUBLIC", "stream": "S"});
    let with = |config: serde_json::Value| {
        let mut config = config;
        config["topic"] = json!({"name": "t"});
        json!({"name": "s", "model_id": model, "destination_id": destination, "config": config})
    };

    let of_postgres = json!({"connection_id": connection, "name": "m", "spec": spec});
    for (path, body, pointer) in [
        ("/v1/models".to_owned(), of_postgres, "/spec/kind"),
        ("/v1/syncs".to_owned(), with(json!({"mode": {"kind": "changes"}})), "/config/mode/kind"),
        ("/v1/syncs".to_owned(), with(json!({"envelope": "row", "deletes": "both"})), "/config/deletes"),
    ] {
        let refused = post(&bench, &path, body).await;
        assert_eq!((refused.status, refused.body["errors"][0]["pointer"].as_str()), (400, Some(pointer)), "{path}");
    }
    let resynced = post(&bench, &format!("/v1/syncs/{sync}/resync"), json!({"how": "full"})).await;
    assert_eq!((resynced.status, resynced.code()), (409, "request.wrong_state"));
    let new = json!({"name": "S", "on": {"kind": "view", "schema": "P", "name": "V"}, "append_only": true});
    let asked = post(&bench, &format!("/v1/connections/{connection}/streams?dry_run=true"), new).await;
    assert_eq!(asked.status, 202);
    assert_eq!(asked.body["question"]["kind"], "make_stream");
    assert_eq!(asked.body["question"]["dry_run"], true);
}

#[tokio::test]
async fn a_browser_that_comes_back_without_our_state_connects_nothing() {
    let bench = bench().await;
    let answered = async |query: &str| call(&bench, "GET", &format!("/oauth/callback{query}"), None, &[]).await.status;

    assert_eq!(answered("?state=guess&code=c").await, 400);
    assert_eq!(answered("?code=c").await, 400);
    assert_eq!(answered("?error=access_denied&state=s").await, 200);
    // Only a connection that signs in so has a consent, a key pair.
    let [connection, ..] = objects(&bench).await;
    for path in ["consent", "key-pair"] {
        let refused = post(&bench, &format!("/v1/connections/{connection}/{path}"), json!({})).await;
        assert_eq!((refused.status, refused.code()), (400, "request.invalid"), "{path}");
    }
    let script = get(&bench, &format!("/v1/connections/{connection}/setup-script")).await.body;
    assert!(
        script["script"].as_str().unwrap().contains("grant connect on database \"shop\" to \"reader\""),
        "{script}"
    );
}

#[tokio::test]
async fn runs_are_listed_by_their_states_newest_first_page_by_page() {
    let bench = bench().await;
    let [_, model, _, sync] = objects(&bench).await;
    let mut runs = vec![make_run(&bench, &model, &sync).await];
    for _ in 0..4 {
        assert_eq!(post(&bench, &format!("/v1/runs/{}/cancel", runs[0]), json!(null)).await.status, 200);
        runs.insert(0, post(&bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await.id());
    }
    let listed = async |query: &str| {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = get(&bench, &format!("/v1/runs?limit=2{query}{cursor}")).await;
            assert_eq!(page.status, 200, "{}", page.body);
            let data = page.body["data"].as_array().unwrap();
            ids.extend(data.iter().map(|run| run["id"].as_str().unwrap().to_owned()));
            let Some(next) = page.body["next_cursor"].as_str() else { return ids };
            cursor = format!("&cursor={next}");
        }
    };

    assert_eq!(listed("").await, runs);
    assert_eq!(listed("&state=cancelled").await, runs[1..]);
    assert_eq!(listed("&state=queued,cancelled,cancelled").await, runs);
    assert_eq!(listed("&state=queued").await, runs[..1]);
    assert_eq!(listed("&state=failed,publishing").await.len(), 0);
}
