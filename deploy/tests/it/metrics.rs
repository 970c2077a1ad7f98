//! What Prometheus is told, by a worker and by the API, each in a process of its own.

use freshet_core::metrics;
use freshet_core::testing::EGRESS;
use freshet_worker::sources::snowflake::client::http_client;
use serde_json::json;

use crate::shop::{Process, Shop, free, make_orders, orders, until};

/// The role in a process, and where its metrics are.
fn start(shop: &Shop, role: &str, extra: &[(&str, &str)]) -> (Process, String) {
    let address = free();
    let process = shop.process(role, &[extra, &[("FRESHET_METRICS_LISTEN", &address)]].concat());
    (process, format!("http://{address}/metrics"))
}

async fn read(url: &str) -> Option<String> {
    http_client(&EGRESS, url).unwrap().get(url).send().await.ok()?.text().await.ok()
}

#[tokio::test]
async fn a_worker_counts_what_it_delivered_and_names_no_tenant() {
    let shop = Shop::new(&make_orders(2_500), orders(), &[], json!({})).await;
    let (_worker, url) = start(&shop, "worker", &[]);

    let run = shop.run_to_the_end().await;
    let told = until("the attempt is counted", async || {
        let is_over = |told: &String| {
            told.contains("freshet_attempts_total{outcome=\"succeeded\"} 1")
                && told.contains("freshet_attempts_under_way 0")
        };
        read(&url).await.filter(is_over)
    })
    .await;

    let bytes = format!("freshet_record_bytes_total {}", run.counts.bytes);
    for line in [
        "freshet_records_total 2500",
        "freshet_dead_letters_total 0",
        "freshet_chunk_commit_duration_seconds_count 3",
        "freshet_attempts_under_way 0",
        "freshet_runs{state=\"queued\"} 0",
        "freshet_oldest_due_run_seconds 0",
        &bytes,
    ] {
        assert!(told.lines().any(|of| of == line), "no line `{line}` in\n{told}");
    }
    for id in [run.id.to_string(), shop.sync.to_string(), shop.bench.caller.workspace.to_string()] {
        assert!(!told.contains(&id), "{id} is in\n{told}");
    }
}

#[tokio::test]
async fn what_waits_is_counted_over_all_workspaces() {
    let shop = Shop::new(&make_orders(1), orders(), &[], json!({})).await;
    let address = free();
    shop.run().await;
    let (_api, url) = start(&shop, "api", &[("FRESHET_API_LISTEN", &address)]);

    let told = until("the API tells", async || read(&url).await).await;

    assert!(told.lines().any(|line| line == "freshet_runs{state=\"queued\"} 1"), "{told}");
}

#[tokio::test]
async fn the_api_counts_by_pattern_and_strangers_paths_as_one() {
    let shop = Shop::new(&make_orders(1), orders(), &[], json!({})).await;
    let address = free();
    let (_api, url) = start(&shop, "api", &[("FRESHET_API_LISTEN", &address)]);
    until("the API answers", async || read(&format!("http://{address}/healthz")).await).await;
    for path in ["/v1/syncs/sync_nothing", "/v1/syncs/sync_other", "/v1/wp-login.php", "/v1/.env"] {
        read(&format!("http://{address}{path}")).await.unwrap();
    }

    let told = read(&url).await.unwrap();

    let count = |line: &str| told.lines().any(|of| of == line);
    let requests = "freshet_http_requests_total{method=\"GET\"";
    assert!(count(&format!("{requests},route=\"/v1/syncs/{{id}}\",status=\"401\"}} 2")), "{told}");
    assert!(count(&format!("{requests},route=\"none\",status=\"404\"}} 2")), "{told}");
    assert!(!told.contains("wp-login"));
}

#[test]
fn every_metric_is_in_the_readme() {
    let readme = include_str!("../../README.md");
    for metric in metrics::ALL {
        assert!(readme.contains(&format!("`{}`", metric.name)), "deploy/README.md does not tell of {}", metric.name);
    }
}
