//! Plan limits: kept by requests at once, told with a clear answer.

use freshet_core::access::{Right, Role};
use freshet_core::api_key::{self, ops::Grant};
use freshet_core::error::{Code, Error};
use freshet_core::limit::{self, Limits};
use freshet_core::run;
use freshet_core::testing::Bench;
use freshet_core::{member, model, workspace};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::cast::make_run;
use crate::client::{bench, bench_with, call, get, objects, post};

async fn set(bench: &Bench, limits: &[(&str, Option<i64>)]) {
    let own: Limits = limits.iter().map(|(word, value)| ((*word).to_owned(), *value)).collect();
    limit::ops::set(&bench.app, &bench.caller.in_organization().unwrap(), None, Some(&own)).await.unwrap();
}

async fn run_sql(bench: &Bench, sql: &str) {
    let mut admin = PgConnection::connect(&bench.admin_url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
}

async fn state(bench: &Bench, word: &str) -> Value {
    let limits = get(bench, "/v1/limits").await.body["data"].clone();
    limits.as_array().unwrap().iter().find(|one| one["limit"] == word).unwrap().clone()
}

/// Makes something 24 times, from 8 threads; how many were made. Every refusal is the limit's.
async fn crowd<F, T>(make: impl Fn(usize) -> F) -> usize
where
    F: Future<Output = Result<T, Error>> + Send + 'static,
    T: Send + 'static,
{
    let tasks: Vec<_> = (0..24).map(|number| tokio::spawn(make(number))).collect();
    let mut made = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert_eq!(error.code, Code::QuotaExceeded, "{error:?}"),
        }
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn requests_at_once_do_not_get_past_a_limit_together() {
    let bench = bench_with(&[("database_connections_max", "16")]).await;
    objects(&bench).await;
    let words = ["connections", "models", "destinations", "service_accounts", "api_keys", "workspaces", "members"];
    let own: Vec<_> = words.iter().map(|word| (*word, Some(5))).collect();
    set(&bench, &own).await;
    let (app, caller) = (bench.app.clone(), bench.caller.clone());
    let whole = caller.in_organization().unwrap();
    let connection = get(&bench, "/v1/connections").await.body["data"][0]["id"].as_str().unwrap().parse().unwrap();

    let mut made = vec![
        crowd(|number| {
            let (app, caller) = (app.clone(), caller.clone());
            async move {
                let settings = json!({"host": "127.0.0.1", "database": "d", "user": "u"});
                let name = format!("c{number}");
                freshet_core::endpoint::ops::create::<freshet_core::endpoint::Connection>(
                    &app, &caller, "postgres", &name, settings,
                )
                .await
            }
        })
        .await,
    ];
    made.push(
        crowd(|number| {
            let (app, caller) = (app.clone(), caller.clone());
            async move {
                let spec = freshet_core::connector::ModelSpec::Table { schema: "s".into(), table: "t".into() };
                model::ops::create(&app, &caller, connection, &format!("m{number}"), &spec, &[]).await
            }
        })
        .await,
    );
    made.push(
        crowd(|number| {
            let (app, caller) = (app.clone(), caller.clone());
            async move { api_key::ops::create_account(&app, &caller, &format!("a{number}")).await }
        })
        .await,
    );
    made.push(
        crowd(|_| {
            let (app, caller) = (app.clone(), caller.clone());
            async move {
                let grant = Grant { rights: Right::ALL, of_organization: false, days: 1 };
                api_key::ops::create(&app, caller.workspace, "tests", grant).await
            }
        })
        .await,
    );
    made.push(
        crowd(|number| {
            let (app, whole) = (app.clone(), whole.clone());
            async move { workspace::ops::create(&app, &whole, &format!("w{number}"), "w").await }
        })
        .await,
    );
    made.push(
        crowd(|number| {
            let (app, whole) = (app.clone(), whole.clone());
            let email = format!("p{number}@acme.example");
            async move { member::ops::invite(&app, &whole, &email, None, Role::Viewer).await }
        })
        .await,
    );

    // One connection, model, service account, key and workspace was there before; of people there was none.
    assert_eq!(made, [4, 4, 4, 4, 4, 5]);
    for word in words.into_iter().filter(|word| *word != "destinations") {
        let state = state(&bench, word).await;
        assert_eq!(
            (&state["value"], &state["used"], &state["warning"]),
            (&json!(5), &json!(5), &json!(true)),
            "{state}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn active_syncs_are_limited_and_pausing_one_makes_room() {
    let bench = bench().await;
    let [_, model, destination, sync] = objects(&bench).await;
    make_run(&bench, &model, &sync).await;
    let mut drafts = Vec::new();
    for number in 0..8 {
        let body = json!({"name": format!("s{number}"), "model_id": model, "destination_id": destination,
                          "config": {"topic": {"name": format!("t{number}")}}});
        drafts.push(post(&bench, "/v1/syncs", body).await.id());
    }
    set(&bench, &[("active_syncs", Some(3))]).await;

    let activated = drafts.iter().map(|draft| {
        let (app, caller, id) = (bench.app.clone(), bench.caller.clone(), draft.parse().unwrap());
        tokio::spawn(async move { freshet_core::sync::ops::activate(&app, &caller, id).await })
    });
    let mut made = 0;
    for task in activated.collect::<Vec<_>>() {
        made += usize::from(task.await.unwrap().is_ok());
    }
    assert_eq!(made, 2);

    let mut drafted = Vec::new();
    for draft in &drafts {
        if get(&bench, &format!("/v1/syncs/{draft}")).await.body["state"] == "draft" {
            drafted.push(draft);
        }
    }
    let activate = format!("/v1/syncs/{}/activate", drafted[0]);
    let refused = post(&bench, &activate, json!(null)).await;
    assert_eq!((refused.status, refused.code()), (409, "platform.quota_exceeded"));
    let told = refused.body["detail"].as_str().unwrap();
    assert!(told.contains("`active_syncs`") && told.contains("is 3") && told.contains("3 are used"), "{told}");
    assert!(refused.body["action"].as_str().unwrap().contains("/v1/limits"));
    assert_eq!(post(&bench, &format!("/v1/syncs/{sync}/pause"), json!(null)).await.status, 200);
    assert_eq!(post(&bench, &activate, json!(null)).await.status, 200, "there is room again");
    let feed = get(&bench, "/v1/events?type=quota.warning").await.body["data"].clone();
    let data = json!({"limit": "active_syncs", "value": 3, "used": 3});
    assert!(feed.as_array().unwrap().iter().all(|event| event["data"] == data), "{feed}");
    assert_eq!(feed.as_array().unwrap().len(), 2, "each time that four fifths are passed: {feed}");
}

#[tokio::test]
async fn once_the_months_records_are_spent_no_run_begins_and_one_under_way_is_not_cut() {
    let bench = bench().await;
    let [_, model, _, sync] = objects(&bench).await;
    make_run(&bench, &model, &sync).await;
    set(&bench, &[("records_per_month", Some(1_000))]).await;
    let claim = run::work::claim(&bench.app.db, 1, "worker", 60.0).await.unwrap().remove(0);
    run::work::start(&bench.app, &claim, "worker").await.unwrap();
    let waits = post(&bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await;
    assert_eq!(waits.status, 201);

    // It moves 1 000 records, and then its worker dies: another goes on, though the month is spent by now.
    let spend = format!(
        "insert into usage_day
         select workspace_id, id, (now() at time zone 'UTC')::date, 1, 0, {}, 0, 0 from sync
         on conflict (workspace_id, day, sync_id) do update set record_count = {}",
        1_000, 1_000
    );
    run_sql(&bench, &spend).await;
    run_sql(&bench, "update run set lease_until = now() - interval '1 s' where state = 'extracting'").await;
    run::work::reap(&bench.app.db, 8).await.unwrap();
    let second = run::work::claim(&bench.app.db, 1, "another", 60.0).await.unwrap().remove(0);
    assert_eq!((second.run, second.attempt), (claim.run, 2));
    run::work::start(&bench.app, &second, "another").await.unwrap();
    run::work::succeed(&bench.app, &second, &run::Counts::default()).await.unwrap();

    // What waited fails by name, what is asked for is refused.
    let third = run::work::claim(&bench.app.db, 1, "worker", 60.0).await.unwrap().remove(0);
    let spent = run::work::start(&bench.app, &third, "worker").await.unwrap_err();
    assert_eq!(spent.code, Code::QuotaExceeded);
    assert_eq!(run::work::fail(&bench.app, &third, &spent).await.unwrap(), run::RunState::Failed);
    let failed = get(&bench, &format!("/v1/runs/{}", waits.id())).await;
    assert_eq!(failed.body["failure"]["code"], "platform.quota_exceeded");
    let refused = post(&bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await;
    assert_eq!((refused.status, refused.code()), (409, "platform.quota_exceeded"));
    let retried = post(&bench, &format!("/v1/runs/{}/retry", waits.id()), json!(null)).await;
    assert_eq!(retried.code(), "platform.quota_exceeded");
    assert!(refused.body["detail"].as_str().unwrap().contains("is 1000, and 1000 are moved"), "{}", refused.body);

    set(&bench, &[("records_per_month", None)]).await;
    assert_eq!(post(&bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await.status, 201, "the limit is lifted");
}

#[tokio::test]
async fn four_fifths_of_the_months_records_are_told_once() {
    let bench = bench().await;
    let [_, model, _, sync] = objects(&bench).await;
    make_run(&bench, &model, &sync).await;
    set(&bench, &[("records_per_month", Some(1_000))]).await;

    for (moved, warnings) in [(799, 0), (1, 1), (100, 1)] {
        post(&bench, &format!("/v1/syncs/{sync}/runs"), json!(null)).await;
        let claim = run::work::claim(&bench.app.db, 1, "worker", 60.0).await.unwrap().remove(0);
        let counts = run::Counts { read: moved, published: moved, ..run::Counts::default() };
        run::work::succeed(&bench.app, &claim, &counts).await.unwrap();
        let told = get(&bench, "/v1/events?type=quota").await.body["data"].clone();
        assert_eq!(told.as_array().unwrap().len(), warnings, "after {moved}: {told}");
    }
    let told = get(&bench, "/v1/events?type=quota").await.body["data"][0]["data"].clone();
    assert_eq!(told, json!({"limit": "records_per_month", "value": 1000, "used": 800}));
    let state = state(&bench, "records_per_month").await;
    assert_eq!((&state["used"], &state["warning"]), (&json!(900), &json!(true)));
}

#[tokio::test]
async fn runs_at_once_are_the_plans_where_that_is_less_than_the_workspaces() {
    let bench = bench().await;
    let [_, model, destination, sync] = objects(&bench).await;
    make_run(&bench, &model, &sync).await;
    for number in 0..5 {
        let body = json!({"name": format!("s{number}"), "model_id": model, "destination_id": destination,
                          "config": {"topic": {"name": format!("t{number}")}}});
        let made = post(&bench, "/v1/syncs", body).await.id();
        post(&bench, &format!("/v1/syncs/{made}/activate"), json!(null)).await;
        assert_eq!(post(&bench, &format!("/v1/syncs/{made}/runs"), json!(null)).await.status, 201);
    }
    let mut small = Limits::new();
    small.insert("runs_at_once".into(), Some(2));
    limit::ops::set_plan(&bench.app, "small", &small).await.unwrap();
    let whole = bench.caller.in_organization().unwrap();
    limit::ops::set(&bench.app, &whole, Some("small"), None).await.unwrap();

    assert_eq!(run::work::claim(&bench.app.db, 10, "w", 60.0).await.unwrap().len(), 2);
    assert_eq!(state(&bench, "runs_at_once").await["used"], 2);
    set(&bench, &[("runs_at_once", Some(3))]).await;
    assert_eq!(
        run::work::claim(&bench.app.db, 10, "w", 60.0).await.unwrap().len(),
        1,
        "its own limit is over the plan's"
    );
    set(&bench, &[("runs_at_once", None)]).await;
    assert_eq!(run::work::claim(&bench.app.db, 10, "w", 60.0).await.unwrap().len(), 1, "the workspace's own is 4");

    let unknown = limit::ops::set(&bench.app, &whole, Some("huge"), None).await.unwrap_err();
    assert_eq!(unknown.code, Code::NotFound);
    let lines =
        call(&bench, "GET", "/v1/audit-events?organization=true&action=organization.limits_set", None, &[]).await;
    assert_eq!(lines.code(), "auth.scope_missing", "a key of one workspace does not read the organization's log");
}

#[tokio::test]
async fn a_roll_is_no_more_keys_and_days_are_bounded() {
    let bench = bench().await;
    let account = post(&bench, "/v1/service-accounts", json!({"name": "x"})).await.id();
    let body = json!({"service_account_id": account, "scopes": ["syncs:read"]});
    let key = post(&bench, "/v1/api-keys", body.clone()).await.id();
    set(&bench, &[("api_keys", Some(2)), ("retention_days", Some(100))]).await;

    assert_eq!(post(&bench, "/v1/api-keys", body).await.code(), "platform.quota_exceeded");
    assert_eq!(post(&bench, &format!("/v1/api-keys/{key}/roll"), json!({})).await.status, 201);
    let again = post(&bench, &format!("/v1/api-keys/{key}/roll"), json!({})).await;
    assert_eq!(again.code(), "platform.quota_exceeded", "a second key in one's place is one more");
    let days = async |days: i64| {
        let body = json!({"run_days": days});
        let version = get(&bench, "/v1/workspace").await.header("etag").to_owned();
        call(&bench, "PATCH", "/v1/workspace", Some(body), &[("if-match", &version)]).await
    };
    assert_eq!(days(101).await.code(), "platform.quota_exceeded");
    assert_eq!(days(100).await.status, 200);
}
