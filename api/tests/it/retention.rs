//! History goes by policy, and what is needed stays.

use chrono::TimeDelta;
use freshet_core::audit::chain;
use freshet_core::clock::Clock;
use freshet_core::limit::{self, Limits};
use freshet_core::retention::ops::{Pruned, prune};
use freshet_core::run;
use freshet_core::testing::{Bench, workspace};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cast::{PASSWORD, make_run, member, secret};
use crate::client::{bench, call, get, objects, post};

async fn admin(bench: &Bench) -> PgConnection {
    PgConnection::connect(&bench.admin_url).await.unwrap()
}

async fn count(bench: &Bench, of: &str) -> i64 {
    let statement = format!("select count(*) from {of}");
    sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut admin(bench).await).await.unwrap()
}

/// A bench whose clock stands, with a sync; its id.
async fn standing() -> (Bench, String) {
    let mut bench = bench().await;
    bench.app.clock = Clock::standing(bench.app.clock.now());
    let [_, model, _, sync] = objects(&bench).await;
    let first = make_run(&bench, &model, &sync).await;
    post(&bench, &format!("/v1/runs/{first}/cancel"), json!(null)).await;
    (bench, sync)
}

/// A run that moved a record, ended as asked; its id.
async fn ended(bench: &Bench, sync: &str, well: bool) -> String {
    post(bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await;
    let claim = run::work::claim(&bench.app.db, 1, "worker", 60.0).await.unwrap().remove(0);
    run::work::start(&bench.app, &claim, "worker").await.unwrap();
    if well {
        let counts = run::Counts { read: 1, published: 1, ..run::Counts::default() };
        run::work::succeed(&bench.app, &claim, &counts).await.unwrap();
    } else {
        let error = freshet_core::error::Error::new(freshet_core::error::Code::ModelSyntax, "no");
        run::work::fail(&bench.app, &claim, &error).await.unwrap();
    }
    claim.run.to_string()
}

async fn is_there(bench: &Bench, run: &str) -> bool {
    get(bench, &format!("/v1/runs/{run}")).await.status == 200
}

async fn timeline(bench: &Bench, run: &str) -> usize {
    get(bench, &format!("/v1/runs/{run}/events")).await.body["data"].as_array().unwrap().len()
}

/// Winds so far that everything is due again, and prunes.
async fn prune_after(bench: &Bench, days: i64) -> Pruned {
    bench.app.clock.wind(TimeDelta::days(days));
    prune(&bench.app).await.unwrap()
}

#[tokio::test]
async fn timelines_go_after_30_days_and_runs_after_400_but_for_those_that_are_needed() {
    let (bench, sync) = standing().await;
    let old = [ended(&bench, &sync, true).await, ended(&bench, &sync, true).await];
    let failed = ended(&bench, &sync, false).await;
    post(&bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await;
    let active = run::work::claim(&bench.app.db, 1, "worker", 60.0).await.unwrap().remove(0).run.to_string();
    let today = bench.app.clock.now().date_naive();
    let usage_of = format!("/v1/usage?since={today}&until={}", today.succ_opt().unwrap());
    let usage = get(&bench, &usage_of).await.body["data"].clone();
    assert_eq!(usage[0]["records"], 2);

    let soon = prune_after(&bench, 29).await;
    assert_eq!(soon, Pruned::default());
    let month = prune_after(&bench, 2).await;
    assert_eq!((month.timelines, month.runs), (4, 0));
    assert!(month.events >= 10, "the feed goes back 30 days: {month:?}");
    assert_eq!((timeline(&bench, &failed).await, timeline(&bench, &old[0]).await), (0, 0));
    assert!(timeline(&bench, &active).await > 0, "a run that has not ended keeps its timeline");
    assert_eq!(prune_after(&bench, 1).await.timelines, 0, "no timeline goes twice");

    let year = prune_after(&bench, 370).await;
    assert_eq!(year.runs, 3, "the first, cancelled, and the two that succeeded");
    assert!(!is_there(&bench, &old[0]).await && !is_there(&bench, &old[1]).await);
    assert!(is_there(&bench, &failed).await, "the last that ended says how the sync is");
    assert!(is_there(&bench, &active).await, "a run under way");
    assert_eq!(get(&bench, &usage_of).await.body["data"], usage, "usage stays");
    assert_eq!(count(&bench, "attempt").await, 1, "what hung on the others went with them");
    assert_eq!(get(&bench, &format!("/v1/syncs/{sync}")).await.status, 200);
}

#[tokio::test]
async fn the_last_run_stays_the_last_that_tells_of_the_sync_and_one_whose_batch_is_not_released() {
    let (bench, sync) = standing().await;
    let sealed = ended(&bench, &sync, false).await;
    let middle = ended(&bench, &sync, true).await;
    let telling = ended(&bench, &sync, true).await;
    let mut cancelled = Vec::new();
    for _ in 0..2 {
        let run = post(&bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await.id();
        post(&bench, &format!("/v1/runs/{run}/cancel"), json!(null)).await;
        cancelled.push(run);
    }
    let uuid = freshet_core::id::uuid_of(&sealed).unwrap();
    let seal = format!(
        "update run set batch_seq = 7 where id = '{uuid}';
         update sync_position set batch_seq = 7, batch_state = 'sealed'"
    );
    sqlx::raw_sql(AssertSqlSafe(seal)).execute(&mut admin(&bench).await).await.unwrap();

    prune_after(&bench, 401).await;

    let there = [&sealed, &middle, &telling, &cancelled[0], &cancelled[1]];
    let mut found = Vec::new();
    for run in there {
        found.push(is_there(&bench, run).await);
    }
    assert_eq!(found, [true, false, true, false, true]);
    sqlx::raw_sql("update sync_position set batch_state = 'released'").execute(&mut admin(&bench).await).await.unwrap();
    assert_eq!(prune_after(&bench, 1).await.runs, 1);
    assert!(!is_there(&bench, &sealed).await);
}

#[tokio::test]
async fn a_workspace_has_its_own_days_and_the_plan_bounds_them() {
    let (bench, sync) = standing().await;
    let old = ended(&bench, &sync, true).await;
    ended(&bench, &sync, true).await;
    let patch = json!({"run_event_days": 3, "run_days": 60});
    assert_eq!(call(&bench, "PATCH", "/v1/workspace", Some(patch), &[("if-match", "\"1\"")]).await.status, 200);

    assert_eq!(prune_after(&bench, 4).await.timelines, 3);
    assert_eq!(prune_after(&bench, 50).await.runs, 0);
    let most = Limits::from([("retention_days".to_owned(), Some(40))]);
    limit::ops::set(&bench.app, &bench.caller.in_organization().unwrap(), None, Some(&most)).await.unwrap();
    assert_eq!(prune_after(&bench, 1).await.runs, 2, "55 days, and the plan has 40");
    assert!(!is_there(&bench, &old).await);
}

#[tokio::test]
async fn the_audit_log_goes_after_its_days_and_what_is_left_is_a_chain_still() {
    let (bench, sync) = standing().await;
    let whole = bench.caller.in_organization().unwrap();
    assert!(chain::link(&bench.app).await.unwrap() > 5);
    let before = count(&bench, "audit_event").await;
    let head = chain::last_check(&bench.app, &whole).await.unwrap().head_seq.unwrap();

    assert_eq!(prune_after(&bench, 399).await.audit_lines, 0);
    let gone = prune_after(&bench, 2).await.audit_lines;
    assert_eq!(gone, before - 1, "the newest line stays");
    assert_eq!(chain::check(&bench.app, whole.organization).await.unwrap(), None);
    post(&bench, &format!("/v1/syncs/{sync}/pause"), json!(null)).await;
    chain::link(&bench.app).await.unwrap();
    assert_eq!(chain::check(&bench.app, whole.organization).await.unwrap(), None);
    let after = chain::last_check(&bench.app, &whole).await.unwrap();
    assert_eq!(after.head_seq, Some(head + 2), "the pruning has a line, and the numbers go on");
    let told: Value = sqlx::query_scalar("select changes from audit_event where action = 'audit.pruned'")
        .fetch_one(&mut admin(&bench).await)
        .await
        .unwrap();
    assert_eq!((&told["lines"], &told["seq"]), (&json!(gone), &json!(head - 1)));

    // The anchor is part of the chain: a line slipped in or changed shows as before.
    let tamper = "update audit_event set action = 'sync.resumed' where action = 'sync.paused'";
    sqlx::raw_sql(tamper).execute(&mut admin(&bench).await).await.unwrap();
    assert!(chain::check(&bench.app, whole.organization).await.unwrap().is_some());
    sqlx::raw_sql("update audit_event set action = 'sync.paused' where action = 'sync.resumed'")
        .execute(&mut admin(&bench).await)
        .await
        .unwrap();
    sqlx::raw_sql("update audit_chain set pruned_hash = sha256('x')").execute(&mut admin(&bench).await).await.unwrap();
    assert!(chain::check(&bench.app, whole.organization).await.unwrap().is_some(), "the anchor cannot be made up");
}

#[tokio::test]
async fn an_organizations_audit_days_are_90_at_least() {
    let bench = bench().await;
    let patch = async |days: Value| {
        let whole = bench.caller.in_organization().unwrap();
        let version = freshet_core::organization::ops::get(&bench.app, &whole).await.unwrap().row_version;
        let patch = serde_json::from_value(json!({"audit_days": days})).unwrap();
        freshet_core::organization::ops::update(&bench.app, &whole, version, &patch).await
    };

    assert_eq!(patch(json!(90)).await.unwrap().audit_days, Some(90));
    assert_eq!(patch(json!(89)).await.unwrap_err().fields[0].pointer, "/audit_days");
    assert_eq!(patch(Value::Null).await.unwrap().audit_days, None);
}

#[tokio::test]
async fn one_worker_prunes_at_a_time_and_the_other_workspaces_history_stays() {
    let (bench, sync) = standing().await;
    for _ in 0..2 {
        ended(&bench, &sync, true).await;
    }
    let (theirs, _) = workspace(&bench.app, "stranger").await;
    let mut other = admin(&bench).await;
    sqlx::raw_sql("begin; select pg_advisory_xact_lock(hashtextextended('freshet prune', 0))")
        .execute(&mut other)
        .await
        .unwrap();

    assert_eq!(prune_after(&bench, 401).await.runs, 0, "another worker is at it");
    sqlx::raw_sql("rollback").execute(&mut other).await.unwrap();
    // The stranger's rows, were there any due, are none of a transaction of ours.
    let mut tx = PgConnection::connect(bench.app.settings.database_url.expose()).await.unwrap();
    let set = format!("set freshet.workspace_id = '{}'", theirs.workspace.uuid());
    sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut tx).await.unwrap();
    for function in ["prune_runs", "prune_run_events", "prune_events"] {
        let call = format!("select {function}(now() + interval '900 days', 1000)");
        let gone: i64 = sqlx::query_scalar(AssertSqlSafe(call)).fetch_one(&mut tx).await.unwrap();
        assert_eq!(gone, 0, "{function}");
    }
    assert_eq!(prune(&bench.app).await.unwrap().runs, 2, "what was not pruned is due still");
}

#[tokio::test]
async fn sessions_that_ended_go_and_so_do_kept_answers_and_consents_that_nobody_gave() {
    let (bench, _) = standing().await;
    let consent = "with asked as (
             insert into consent (workspace_id, id, connection_id, state_hash, redirect_url, expires_at)
             select workspace_id, gen_random_uuid(), id, sha256('x'), 'http://x', now() from connection
             returning workspace_id, id)
         insert into secret (workspace_id, id, owner_id, field, master_key, wrapped_key, ciphertext)
         select workspace_id, gen_random_uuid(), id, 'verifier', 'test', '', '' from asked";
    sqlx::raw_sql(consent).execute(&mut admin(&bench).await).await.unwrap();
    assert_eq!(count(&bench, "secret").await, 2);
    member(&bench, &bench.caller, "ada@acme.example", freshet_core::access::Role::Owner, None).await;
    let origin = freshet_core::session::Origin::default();
    freshet_core::session::ops::sign_in(&bench.app, "ada@acme.example", &secret(PASSWORD), &origin).await.unwrap();
    let body = json!({"name": "x"});
    call(&bench, "POST", "/v1/service-accounts", Some(body), &[("idempotency-key", "k")]).await;
    sqlx::raw_sql("update idempotency_key set created_at = now() - interval '25 hours'")
        .execute(&mut admin(&bench).await)
        .await
        .unwrap();

    assert_eq!(prune_after(&bench, 36).await.sessions, 0, "it ended a week after it began, 29 days ago");
    assert_eq!(prune_after(&bench, 2).await.sessions, 1);
    assert_eq!(count(&bench, "idempotency_key").await, 0);
    assert_eq!(
        (count(&bench, "consent").await, count(&bench, "secret").await),
        (0, 1),
        "the connection keeps its secret"
    );
}
