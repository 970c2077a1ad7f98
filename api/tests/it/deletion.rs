//! A workspace deleted: at once, restored, and for good.

use chrono::TimeDelta;
use freshet_core::access::{Actor, Credential, OrganizationCaller, Right, Role};
use freshet_core::api_key::{self, ops::Grant};
use freshet_core::audit::chain;
use freshet_core::clock::Clock;
use freshet_core::deletion::ops;
use freshet_core::error::Code;
use freshet_core::id::WorkspaceId;
use freshet_core::operation;
use freshet_core::run;
use freshet_core::session;
use freshet_core::testing::{Bench, workspace};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cast::{PASSWORD, fill, make_run, member, secret, token};
use crate::client::{Answered, bench, call, get, objects, post};

async fn by(bench: &Bench, bearer: &str, method: &str, path: &str, within: Option<WorkspaceId>) -> Answered {
    let within = within.map(|id| id.to_string());
    let mut headers = vec![("authorization", bearer)];
    headers.extend(within.as_deref().map(|id| ("freshet-workspace", id)));
    call(bench, method, path, None, &headers).await
}

async fn admin(bench: &Bench) -> PgConnection {
    PgConnection::connect(&bench.admin_url).await.unwrap()
}

async fn run_sql(bench: &Bench, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin(bench).await).await.unwrap();
}

fn whole(bench: &Bench) -> OrganizationCaller {
    bench.caller.in_organization().unwrap()
}

#[tokio::test]
async fn a_deleted_workspace_rests_at_once_and_can_be_restored() {
    let bench = bench().await;
    let id = bench.caller.workspace;
    let [_, model, _, sync] = objects(&bench).await;
    let run = make_run(&bench, &model, &sync).await;
    let owner = member(&bench, &bench.caller, "ada@acme.example", Role::Owner, None).await;
    let ada = token(&bench, owner).await;
    let other = post(&bench, "/v1/workspaces", json!({"slug": "other"})).await;
    assert_eq!(other.code(), "auth.scope_missing", "the key is of one workspace");
    let path = format!("/v1/workspaces/{id}");

    for wrong in ["", "?confirm=", "?confirm=acm"] {
        let refused = by(&bench, &ada, "DELETE", &format!("{path}{wrong}"), None).await;
        assert_eq!((refused.status, &refused.body["errors"][0]["pointer"]), (400, &json!("/confirm")), "{wrong}");
    }
    let deleted = by(&bench, &ada, "DELETE", &format!("{path}?confirm=acme"), None).await;

    assert_eq!((deleted.status, &deleted.body["workspace"]["state"]), (200, &json!("deleting")), "{}", deleted.body);
    assert_eq!(deleted.body["cancelled_runs"], 1);
    let topics = &deleted.body["untouched"][0];
    assert_eq!(
        (&topics["kind"], &topics["names"]),
        (&json!("topics"), &json!(["acme.public.orders", "acme.public.orders.dlq"]))
    );
    assert_eq!(deleted.body["untouched"][1]["names"], json!(["freshet.progress"]));
    assert_eq!((get(&bench, "/v1/syncs").await.status, get(&bench, &path).await.status), (401, 401), "its own key");
    assert_eq!(by(&bench, &ada, "GET", "/v1/syncs", Some(id)).await.code(), "request.not_found");
    assert_eq!(by(&bench, &ada, "GET", "/v1/syncs", None).await.code(), "request.workspace_missing");
    assert_eq!(by(&bench, &ada, "GET", &path, None).await.body["state"], "deleting", "she can see that it is");

    // A run that slipped in is not claimed, nor is a question.
    let slips_in = "update run set state = 'queued', finished_at = null, cancel_requested_at = null;
                    update operation set state = 'pending', finished_at = null, cancel_requested_at = null";
    run_sql(&bench, slips_in).await;
    assert!(run::work::claim(&bench.app.db, 10, "worker", 60.0).await.unwrap().is_empty());
    assert!(operation::ops::claim(&bench.app.db, 10, "worker", 60.0).await.unwrap().is_empty());

    let again = by(&bench, &ada, "DELETE", &format!("{path}?confirm=acme"), None).await;
    assert_eq!(again.body["workspace"]["delete_after"], deleted.body["workspace"]["delete_after"], "it is not put off");
    let restored = by(&bench, &ada, "POST", &format!("{path}/restore"), None).await;

    assert_eq!((restored.status, &restored.body["state"]), (200, &json!("active")), "{}", restored.body);
    assert_eq!(get(&bench, &format!("/v1/runs/{run}")).await.status, 200, "its key works again");
    assert_eq!(run::work::claim(&bench.app.db, 10, "worker", 60.0).await.unwrap().len(), 1);
    assert!(!operation::ops::claim(&bench.app.db, 10, "worker", 60.0).await.unwrap().is_empty());
    let told = get(&bench, "/v1/audit-events?action=workspace").await.body["data"].clone();
    let told: Vec<_> = told.as_array().unwrap().iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(told[..2], ["workspace.restored", "workspace.deleted"]);
}

#[tokio::test]
async fn a_run_under_way_is_cancelled_and_waited_for() {
    let mut bench = bench().await;
    bench.app.clock = Clock::standing(bench.app.clock.now());
    let [_, model, _, sync] = objects(&bench).await;
    make_run(&bench, &model, &sync).await;
    let claim = run::work::claim(&bench.app.db, 1, "worker", 60.0).await.unwrap().remove(0);

    ops::request(&bench.app, &whole(&bench), bench.caller.workspace, Some("acme")).await.unwrap();

    let kept = run::work::extend(&bench.app.db, &[claim.run.uuid()], &[claim.epoch], 60.0).await.unwrap();
    assert_eq!(kept, [(claim.run.uuid(), true)], "its worker is told to stop");
    bench.app.clock.wind(TimeDelta::days(8));
    assert_eq!(ops::erase_due(&bench.app).await.unwrap(), 0, "a worker has a run of it still");
    let stopped = freshet_core::error::Error::new(Code::Cancelled, "stopped");
    run::work::fail(&bench.app, &claim, &stopped).await.unwrap();
    assert_eq!(ops::erase_due(&bench.app).await.unwrap(), 1);
}

#[tokio::test]
async fn who_may_not_delete_does_not() {
    let mut bench = bench().await;
    bench.app.clock = Clock::standing(bench.app.clock.now());
    let id = bench.caller.workspace;
    let path = format!("/v1/workspaces/{id}?confirm=acme");
    let chief = member(&bench, &bench.caller, "bob@acme.example", Role::Admin, None).await;
    let refused = by(&bench, &token(&bench, chief).await, "DELETE", &path, None).await;
    assert_eq!((refused.status, refused.code()), (403, "auth.scope_missing"));

    let (theirs, _) = workspace(&bench.app, "stranger").await;
    let stranger = ops::request(&bench.app, &theirs.in_organization().unwrap(), id, Some("acme")).await.unwrap_err();
    assert_eq!(stranger.code, Code::NotFound);

    // A session wants a recent proof.
    let owner = member(&bench, &bench.caller, "ada@acme.example", Role::Owner, None).await;
    let origin = session::Origin::default();
    let begun = session::ops::sign_in(&bench.app, "ada@acme.example", &secret(PASSWORD), &origin).await.unwrap();
    let known = session::ops::find(&bench.app, &begun.token, None).await.unwrap().unwrap();
    let actor = Actor::User { user: owner, by: Credential::Session(known.session) };
    let caller = OrganizationCaller::new(whole(&bench).organization, actor, Right::ALL.to_vec());
    bench.app.clock.wind(TimeDelta::minutes(16));
    let stale = ops::request(&bench.app, &caller, id, Some("acme")).await.unwrap_err();
    assert_eq!(stale.code, Code::ProofTooOld);
    bench.app.clock.wind(TimeDelta::minutes(-16));
    assert!(ops::request(&bench.app, &caller, id, Some("acme")).await.is_ok());
}

/// Every table with rows of workspaces, and how many it has of one.
async fn rows_of(bench: &Bench, id: WorkspaceId) -> Vec<(String, i64)> {
    let mut admin = admin(bench).await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class as c
         join pg_attribute as a on a.attrelid = c.oid and a.attname = 'workspace_id' and not a.attisdropped
         where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace
         order by 1",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let count = format!("select count(*) from {table} where workspace_id = '{}'", id.uuid());
        let count = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut admin).await.unwrap();
        found.push((table, count));
    }
    found
}

/// A row of every kind in a workspace.
async fn fill_all(bench: &Bench, caller: &freshet_core::access::Caller) {
    fill(bench, caller).await;
    let id = caller.workspace;
    let grant = Grant { rights: Right::ALL, of_organization: false, days: 1 };
    let key = api_key::ops::create(&bench.app, id, "robot", grant).await.unwrap();
    let rolled = api_key::ops::roll(&bench.app, caller, key.key.id, 1).await.unwrap();
    let bearer = format!("Bearer {}", rolled.text.expose());
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k")];
    call(bench, "POST", "/v1/service-accounts", Some(json!({"name": "x"})), &headers).await;
    call(bench, "GET", "/v1/events", None, &headers[..1]).await;
    member(bench, caller, &format!("guest.{id}@fill.example"), Role::Viewer, Some(id)).await;
    let whole = caller.in_organization().unwrap();
    freshet_core::member::ops::invite(&bench.app, &whole, &format!("new.{id}@fill.example"), Some(id), Role::Viewer)
        .await
        .unwrap();
    let ws = id.uuid();
    run_sql(
        bench,
        &format!(
            "update run set started_at = now(), finished_at = now(), state = 'succeeded', published_count = 3
             where workspace_id = '{ws}';
             insert into attempt (workspace_id, id, run_id, number, epoch, worker)
             select workspace_id, gen_random_uuid(), id, 1, 1, 'w' from run where workspace_id = '{ws}';
             insert into run_trace select workspace_id, id, '00-' || md5(id::text) || '-' || left(md5(id::text), 16) || '-01'
             from run where workspace_id = '{ws}';
             insert into run_partition select workspace_id, id, 't', 0, 0, 1, 2 from run where workspace_id = '{ws}';
             insert into dead_letter_group
                 (workspace_id, id, run_id, code, column_name, reason, record_count, first_ordinal, last_ordinal)
             select workspace_id, gen_random_uuid(), id, 'c', 'x', 'r', 1, 0, 0 from run where workspace_id = '{ws}';
             insert into source_query select workspace_id, id, 'q', 's', now(), 1, 1, 1, true, 1
             from run where workspace_id = '{ws}';
             insert into sync_position (workspace_id, sync_id, generation)
             select workspace_id, id, 1 from sync where workspace_id = '{ws}';
             insert into consent (workspace_id, id, connection_id, state_hash, redirect_url, expires_at)
             select workspace_id, gen_random_uuid(), id, decode(md5(id::text) || md5(id::text), 'hex'), 'http://x', now()
             from connection where workspace_id = '{ws}';"
        ),
    )
    .await;
}

#[tokio::test]
async fn nothing_is_left_of_a_workspace_but_its_receipt() {
    let mut bench = bench().await;
    bench.app.clock = Clock::standing(bench.app.clock.now());
    let id = bench.caller.workspace;
    let (theirs, _) = workspace(&bench.app, "stranger").await;
    for caller in [&bench.caller, &theirs] {
        fill_all(&bench, caller).await;
    }
    let (before, others) = (rows_of(&bench, id).await, rows_of(&bench, theirs.workspace).await);
    assert!(before.len() >= 27, "{before:?}");
    for (table, count) in &before {
        assert!(*count > 0, "{table} has no row that could be left behind");
    }

    ops::request(&bench.app, &whole(&bench), id, Some("acme")).await.unwrap();
    bench.app.clock.wind(TimeDelta::days(7) - TimeDelta::seconds(1));
    assert_eq!(ops::erase_due(&bench.app).await.unwrap(), 0, "it can be restored still");
    bench.app.clock.wind(TimeDelta::seconds(1));
    assert_eq!(ops::erase_due(&bench.app).await.unwrap(), 1);

    for (table, count) in rows_of(&bench, id).await {
        assert!(count == 0 || table == "audit_event", "{count} rows are left in {table}");
    }
    let left = rows_of(&bench, theirs.workspace).await;
    assert_eq!(left, others, "another workspace lost or got rows");
    assert_eq!(ops::erase_due(&bench.app).await.unwrap(), 0);

    let receipt: Value = sqlx::query_scalar("select changes from audit_event where action = 'workspace.erased'")
        .fetch_one(&mut admin(&bench).await)
        .await
        .unwrap();
    for (table, count) in
        before.iter().filter(|(table, _)| !["workspace", "audit_event", "event"].contains(&table.as_str()))
    {
        assert_eq!(receipt["rows"][table], *count, "{table} in {receipt}");
    }
    assert_eq!(receipt["asked_by_kind"], "command");
    assert!(receipt["asked_at"].is_string() && receipt["untouched"]["topics"].is_string());
    for name in ["acme", "orders", "shop", "canary"] {
        assert!(!receipt.to_string().contains(name), "the receipt tells `{name}` of the tenant's: {receipt}");
    }
    chain::link(&bench.app).await.unwrap();
    assert_eq!(chain::check(&bench.app, whole(&bench).organization).await.unwrap(), None, "the log's chain holds");
    assert_eq!(
        freshet_core::workspace::ops::get_of(&bench.app, &whole(&bench), id).await.unwrap_err().code,
        Code::NotFound
    );
}

#[tokio::test]
async fn secrets_go_first_in_one_step_and_a_crash_between_any_two_steps_is_gone_on_from() {
    let mut bench = bench().await;
    bench.app.clock = Clock::standing(bench.app.clock.now());
    let (id, organization) = (bench.caller.workspace, whole(&bench).organization);
    fill_all(&bench, &bench.caller.clone()).await;
    ops::request(&bench.app, &whole(&bench), id, Some("acme")).await.unwrap();
    bench.app.clock.wind(TimeDelta::days(8));

    let secrets = |rows: &[(String, i64)]| rows.iter().find(|(table, _)| table == "secret").unwrap().1;
    let mut before = rows_of(&bench, id).await;
    assert!(secrets(&before) > 0);
    let mut steps = 0;
    // Each call begins with nothing but what is committed, as a worker does after a crash; every third one breaks off.
    loop {
        if steps % 3 == 1 {
            run_sql(
                &bench,
                "create function break_off() returns trigger language plpgsql as $$ begin raise 'crash'; end $$;
                 create constraint trigger break_off after update on workspace deferrable initially deferred
                 for each row execute function break_off();
                 create trigger break_off_last after delete on workspace for each row execute function break_off();",
            )
            .await;
            assert!(ops::erase_step(&bench.app, organization, id, 2).await.is_err(), "step {steps}");
            run_sql(&bench, "drop function break_off() cascade").await;
            assert_eq!(rows_of(&bench, id).await, before, "nothing of a step that broke off is done");
        }
        let more = ops::erase_step(&bench.app, organization, id, 2).await.unwrap();
        steps += 1;
        let after = rows_of(&bench, id).await;
        assert_eq!(secrets(&after), 0, "the first step destroys all secrets");
        if steps == 1 {
            let restored = ops::restore(&bench.app, &whole(&bench), id).await.unwrap_err();
            assert_eq!(restored.code, Code::WrongState, "what is destroyed is not restored");
        }
        before = after;
        if !more {
            break;
        }
    }

    assert!(steps > 15, "only {steps} steps");
    assert!(before.iter().all(|(table, count)| *count == 0 || table == "audit_event"), "{before:?}");
    let receipts: i64 = sqlx::query_scalar("select count(*) from audit_event where action = 'workspace.erased'")
        .fetch_one(&mut admin(&bench).await)
        .await
        .unwrap();
    assert_eq!(receipts, 1);
}

#[tokio::test]
async fn the_applications_role_erases_nothing_of_a_workspace_that_lives() {
    let bench = bench().await;
    objects(&bench).await;
    let mut app = PgConnection::connect(bench.app.settings.database_url.expose()).await.unwrap();
    let set = format!("set freshet.workspace_id = '{}'", bench.caller.workspace.uuid());
    sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut app).await.unwrap();

    let any: bool = sqlx::query_scalar("select erase_rows(1000)").fetch_one(&mut app).await.unwrap();

    assert!(!any);
    assert_eq!(get(&bench, "/v1/syncs").await.body["data"].as_array().unwrap().len(), 1);
    for table in ["run", "connection", "audit_event", "workspace"] {
        let refused = sqlx::raw_sql(AssertSqlSafe(format!("delete from {table}"))).execute(&mut app).await;
        assert!(refused.is_err(), "{table}");
    }
}

#[tokio::test]
async fn a_workspaces_name_and_retention_change_by_its_version() {
    let bench = bench().await;
    let id = bench.caller.workspace;
    let seen = get(&bench, "/v1/workspace").await;
    assert_eq!((seen.header("etag"), &seen.body["run_days"]), ("\"1\"", &Value::Null));
    let patch = async |path: &str, version: &str, body: Value| {
        call(&bench, "PATCH", path, Some(body), &[("if-match", version)]).await
    };

    let changed = patch("/v1/workspace", "\"1\"", json!({"name": "Acme & Co", "run_days": 90})).await;
    let old = patch("/v1/workspace", "\"1\"", json!({"name": "Late"})).await;
    let cleared = patch(&format!("/v1/workspaces/{id}"), "\"2\"", json!({"run_days": null})).await;

    assert_eq!(
        (changed.status, &changed.body["name"], &changed.body["run_days"]),
        (200, &json!("Acme & Co"), &json!(90))
    );
    assert_eq!((old.status, old.code()), (412, "request.precondition_failed"));
    assert_eq!((&cleared.body["run_days"], &cleared.body["name"]), (&Value::Null, &json!("Acme & Co")));
    for (body, pointer) in [
        (json!({"run_days": 0}), "/run_days"),
        (json!({"run_event_days": 4000}), "/run_event_days"),
        (json!({"name": ""}), "/name"),
    ] {
        let refused = patch("/v1/workspace", "\"3\"", body).await;
        assert_eq!((refused.status, &refused.body["errors"][0]["pointer"]), (400, &json!(pointer)));
    }
    assert_eq!(call(&bench, "PATCH", "/v1/workspace", Some(json!({})), &[]).await.status, 428);
}
