//! Usage over HTTP: a run that ended is in it once, a stranger's is not, and days that make no sense are refused by name.

use freshet_core::testing::workspace;
use serde_json::{Value, json};

use crate::cast::make_run;
use crate::client::{bench, call, get, objects, post};

#[tokio::test]
async fn a_run_that_ended_is_counted_once_for_its_own_workspace() {
    let bench = bench().await;
    let [_, model, _, sync] = objects(&bench).await;
    let run = make_run(&bench, &model, &sync).await;
    let before = get(&bench, "/v1/usage").await;

    post(&bench, &format!("/v1/runs/{run}/cancel"), json!(null)).await;
    post(&bench, &format!("/v1/runs/{run}/cancel"), json!(null)).await;

    assert_eq!((before.status, &before.body["data"]), (200, &json!([])));
    let today = bench.app.clock.now().date_naive().to_string();
    let nothing = json!({"runs": 1, "failed_runs": 0, "records": 0, "dead_letters": 0, "bytes": 0});
    let with = |more: Value| {
        let mut row = nothing.clone();
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([row])
    };
    for path in ["/v1/usage", &format!("/v1/usage?sync_id={sync}"), &format!("/v1/usage?since={today}&until={today}")] {
        assert_eq!(get(&bench, path).await.body["data"], with(json!({"day": today})), "{path}");
    }
    let name = get(&bench, &format!("/v1/syncs/{sync}")).await.body["name"].clone();
    let by_sync = get(&bench, "/v1/usage/syncs").await;
    assert_eq!(by_sync.body["data"], with(json!({"sync_id": sync, "name": name})));
    assert_eq!(get(&bench, "/v1/usage?until=2020-01-31").await.body["data"], json!([]));

    let (_, stranger) = workspace(&bench.app, "stranger").await;
    let bearer = format!("Bearer {stranger}");
    let asked = async |path: &str| call(&bench, "GET", path, None, &[("authorization", &bearer)]).await;
    assert_eq!(asked("/v1/usage").await.body["data"], json!([]));
    assert_eq!(asked("/v1/usage/syncs").await.body["data"], json!([]));
    assert_eq!(asked(&format!("/v1/usage?sync_id={sync}")).await.status, 404);
}

#[tokio::test]
async fn days_that_make_no_sense_are_refused_by_name() {
    let bench = bench().await;
    for query in [
        "since=2026-02-01&until=2026-01-01",
        "since=2024-01-01&until=2026-01-01",
        "since=0001-01-01&until=0001-02-01",
        "until=1969-12-31",
        "since=yesterday",
        "since=2026-02-30",
        "from=2026-01-01",
    ] {
        for path in ["/v1/usage", "/v1/usage/syncs"] {
            let refused = get(&bench, &format!("{path}?{query}")).await;
            assert_eq!((refused.status, refused.code()), (400, "request.invalid"), "{path}?{query}");
        }
    }
}
