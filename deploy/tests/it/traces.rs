//! Traces, as a collector that is not ours reads them: one from the request to the commit in Kafka; and a collector that
//! is dead, which nobody notices.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use freshet_core::testing::EGRESS;
use freshet_worker::sources::snowflake::client::http_client;
use serde_json::{Value, json};

use crate::shop::{Process, Shop, free, make_orders, orders, until};

/// `deploy/dev/collector.py`, and what it has told so far.
struct Collector {
    _process: Process,
    endpoint: String,
    spans: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    fn start() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev");
        let mut command = Command::new(here.join("python"));
        command.arg(here.join("collector.py")).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let spans = Arc::new(Mutex::new(Vec::new()));
        let told = spans.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                told.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { _process: Process(process), endpoint: format!("http://127.0.0.1:{}", first["port"]), spans }
    }

    /// The spans of a trace.
    fn of(&self, trace: &str) -> Vec<Value> {
        self.spans.lock().unwrap().iter().filter(|span| span["trace"] == trace).cloned().collect()
    }

    fn all(&self) -> Vec<Value> {
        self.spans.lock().unwrap().clone()
    }
}

/// Has the API queue a run, as part of a trace; the run's id.
async fn ask_for_a_run(shop: &Shop, address: &str, traceparent: &str) -> freshet_core::id::RunId {
    let url = format!("http://{address}/v1/syncs/{}/runs", shop.sync);
    let http = http_client(&EGRESS, &url).unwrap();
    let answer = until("the API answers", async || {
        http.post(&url).bearer_auth(&shop.bench.key).header("traceparent", traceparent).send().await.ok()
    })
    .await;
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert!(status.is_success(), "{body}");
    body["id"].as_str().unwrap().parse().unwrap()
}

fn named<'a>(spans: &'a [Value], name: &str) -> &'a Value {
    spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no span `{name}` in {spans:#?}"))
}

#[tokio::test]
async fn one_trace_goes_from_the_request_to_the_commit_in_kafka() {
    let shop = Shop::new(&make_orders(2_500), orders(), &[], json!({})).await;
    let (collector, address) = (Collector::start(), free());
    let otlp = [
        ("FRESHET_OTLP_ENDPOINT", collector.endpoint.as_str()),
        ("FRESHET_OTLP_HEADERS", "authorization=Bearer of-the-collector"),
        ("FRESHET_API_LISTEN", &address),
        // Whatever is logged: traces do not go by it.
        ("FRESHET_LOG", "error"),
    ];
    let (api, worker) = (shop.process("api", &otlp), shop.process("worker", &otlp));
    let (trace, caller) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let unwanted = "5bf92f3577b34da6a3ce929d0e0e4736";

    let run = ask_for_a_run(&shop, &address, &format!("00-{trace}-{caller}-01")).await;
    let ended = shop.ended(run).await;
    let unseen = ask_for_a_run(&shop, &address, &format!("00-{unwanted}-{caller}-00")).await;
    shop.ended(unseen).await;
    api.stop();
    worker.stop();

    let spans = until("the spans have come", async || {
        let spans = collector.of(trace);
        spans.iter().any(|span| span["name"] == "attempt").then_some(spans)
    })
    .await;
    let (request, attempt) = (named(&spans, "request"), named(&spans, "attempt"));
    assert_eq!(request["parent"], caller);
    assert_eq!(attempt["parent"], request["span"]);
    for name in ["seal", "open lane", "encode", "chunk", "release"] {
        assert_eq!(named(&spans, name)["parent"], attempt["span"], "{name}");
    }
    let chunks: Vec<_> = spans.iter().filter(|span| span["name"] == "chunk").collect();
    for name in ["produce", "commit"] {
        let parts: BTreeSet<_> =
            spans.iter().filter(|span| span["name"] == name).map(|span| span["parent"].as_str().unwrap()).collect();
        assert_eq!(parts, chunks.iter().map(|span| span["span"].as_str().unwrap()).collect(), "{name}");
    }
    let records: i64 = chunks.iter().map(|span| span["attributes"]["records"].as_i64().unwrap()).sum();
    assert_eq!((chunks.len(), records), (3, 2_500));
    assert_eq!(attempt["attributes"]["run.id"], json!(run));
    assert_eq!(attempt["attributes"]["sync.id"], json!(shop.sync));
    assert_eq!(attempt["attributes"]["outcome"], "succeeded");
    assert_eq!(request["attributes"]["workspace.id"], json!(shop.bench.caller.workspace));
    assert_eq!(request["attributes"]["http.route"], "/v1/syncs/{id}/runs");
    assert_eq!(request["authorization"], "Bearer of-the-collector");
    assert_eq!(request["resource"]["service.name"], "freshet");
    assert_eq!(ended.counts.published, 2_500);

    // The caller of the second did not want to be seen.
    assert_eq!(collector.of(unwanted), Vec::<Value>::new());
    holds_ids_alone(&shop, &collector.all());
}

/// Expects of everything that the collector was told: known fields, no line of a log, no name, no SQL, no row, no secret.
fn holds_ids_alone(shop: &Shop, spans: &[Value]) {
    let known = [
        "request.id",
        "workspace.id",
        "sync.id",
        "run.id",
        "operation.id",
        "kind",
        "attempt",
        "outcome",
        "error.type",
        "http.request.method",
        "http.route",
        "http.response.status_code",
        "chunk",
        "batch",
        "ordinal",
        "records",
        "bytes",
    ];
    for span in spans {
        assert_eq!(span["events"], json!([]), "{span}");
        for name in span["attributes"].as_object().unwrap().keys() {
            assert!(known.contains(&name.as_str()), "`{name}` is in {span}");
        }
    }
    let text = serde_json::to_string(spans).unwrap();
    for foreign in ["acme", "orders", "select ", "postgres", "order 1", &shop.topic, &shop.bench.key] {
        assert!(!text.contains(foreign), "`{foreign}` is in the traces");
    }
}

#[tokio::test]
async fn a_failed_attempt_is_marked_and_tells_its_code_alone() {
    let shop = Shop::new(&make_orders(1), orders(), &[], json!({})).await;
    let (collector, address) = (Collector::start(), free());
    let otlp = [("FRESHET_OTLP_ENDPOINT", collector.endpoint.as_str()), ("FRESHET_API_LISTEN", &address)];
    shop.sql("drop table orders").await;
    let _api = shop.process("api", &otlp);
    let worker = shop.process("worker", &otlp);
    let trace = "6bf92f3577b34da6a3ce929d0e0e4736";

    let run = ask_for_a_run(&shop, &address, &format!("00-{trace}-00f067aa0ba902b7-01")).await;
    let failure = shop.ended(run).await.failure.unwrap();
    worker.stop();

    let spans = until("the attempt has come", async || {
        let spans = collector.of(trace);
        spans.iter().any(|span| span["name"] == "attempt").then_some(spans)
    })
    .await;
    let attempt = named(&spans, "attempt");
    assert_eq!(
        (&attempt["attributes"]["outcome"], &attempt["attributes"]["error.type"]),
        (&json!("failed"), &json!(failure.code))
    );
    assert_eq!(attempt["status"], 2, "{attempt}");
    holds_ids_alone(&shop, &collector.all());
}

#[tokio::test]
async fn a_dead_collector_delays_nothing_and_fails_nothing() {
    let shop = Shop::new(&make_orders(2_500), orders(), &[], json!({})).await;
    // It takes connections and answers none of them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let address = free();
    let otlp = [("FRESHET_OTLP_ENDPOINT", endpoint.as_str()), ("FRESHET_API_LISTEN", &address)];
    let (api, worker) = (shop.process("api", &otlp), shop.process("worker", &otlp));
    let trace = "7bf92f3577b34da6a3ce929d0e0e4736";

    let run = ask_for_a_run(&shop, &address, &format!("00-{trace}-00f067aa0ba902b7-01")).await;
    let ended = shop.ended(run).await;
    // More spans than there is room for: each request has one.
    let url = format!("http://{address}/healthz");
    let http = http_client(&EGRESS, &url).unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let since = Instant::now();
        let answers = (0..60).map(|_| async { http.get(&url).send().await.unwrap().status().as_u16() });
        assert!(futures::future::join_all(answers).await.iter().all(|status| *status == 204));
        slowest = slowest.max(since.elapsed());
    }

    assert_eq!(ended.counts.published, 2_500);
    assert!(slowest < Duration::from_secs(5), "60 requests took {slowest:?}: somebody waits for the collector");
    let (api, worker) = (api.stop(), worker.stop());
    assert!(api.max(worker) < Duration::from_secs(12), "stopping took {api:?} and {worker:?}");
}
