//! `freshet bench api`: how long the API lets a program wait, while it has a long history and a sync is running.
//!
//! Requests are sent at their times, whether earlier ones were answered or not, and each wait counts from that time: a
//! server that stands still for a second is seen by every request of that second.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use freshet_core::access::{Caller, Right};
use freshet_core::api_key;
use freshet_core::id::{RunId, SyncId};
use freshet_core::page::PageRequest;
use freshet_core::{organization, run, sync};
use freshet_worker::sources::snowflake::client::http_client;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::field::{self, Field, Server, with_database};
use super::grounds::Grounds;
use super::postgres_kafka;

/// Workspaces that the history is spread over, each of an organization of its own.
const WORKSPACES: u64 = 10;
/// Rows that the running sync moves, again and again.
const ROWS: u64 = 400_000;
/// Not counted: connections are made, plans are prepared.
const WARM_UP: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct Options {
    /// Syncs in the history
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..))]
    syncs: u64,
    /// Runs in the history
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// Requests a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// How long requests are sent
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// One line of JSON at the end
    #[arg(long)]
    json: bool,
}

/// A workspace, with what its requests name.
struct Tenant {
    key: String,
    syncs: Vec<SyncId>,
    runs: Vec<RunId>,
}

/// What a program asks of an API of this kind: mostly lists and single things, some writes. The weights add up to 100.
const ROUTES: [(&str, u32); 10] = [
    ("GET /v1/syncs", 15),
    ("GET /v1/syncs/{id}", 20),
    ("GET /v1/syncs/{id}/runs", 15),
    ("GET /v1/runs", 10),
    ("GET /v1/runs?state=failed", 5),
    ("GET /v1/runs/{id}", 15),
    ("GET /v1/runs/{id}/events", 5),
    ("GET /v1/runs/{id}/attempts", 5),
    ("GET /v1/me", 5),
    ("POST /v1/service-accounts", 5),
];
/// What has no query and no rights: the floor that the routes are compared with.
const FLOOR: &str = "GET /healthz";

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    benchmark: &'static str,
    syncs: u64,
    runs: u64,
    requests: usize,
    requests_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Rows a second of the sync that ran meanwhile.
    running_rows_per_s: f64,
    routes: BTreeMap<&'static str, Waits>,
}

#[derive(Debug, Serialize)]
struct Waits {
    requests: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Of its median to the floor's.
    to_floor: f64,
}

/// Measures, and prints the report.
pub async fn run(options: Options) -> anyhow::Result<()> {
    field::refuse_debug_build()?;
    let grounds = Grounds::find()?;
    let place = postgres_kafka::place(&grounds, ROWS).await?;
    let field = Field::new(&grounds, place, "debezium").await?;
    let tenants = Arc::new(tenants(&field, &grounds, &options).await?);

    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let base = format!("http://127.0.0.1:{port}");
    let _api = api(&field, port)?;
    let client = http_client(&field.app.egress, &base)?;
    while client.get(format!("{base}/healthz")).send().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let enough = Arc::new(AtomicBool::new(false));
    let busy = keep_busy(&field, &enough);
    let load = async {
        let taken = load(&client, &base, &tenants, &options).await;
        enough.store(true, Ordering::Relaxed);
        taken
    };
    let (running, taken) = tokio::join!(busy, load);
    let report = report(&options, taken?, running?)?;
    field.clean().await?;
    print(&report, options.json)
}

/// The workspaces, with their history.
async fn tenants(field: &Field<'_>, grounds: &Grounds, options: &Options) -> anyhow::Result<Vec<Tenant>> {
    let owner = with_database(grounds.get("FRESHET_TEST_DATABASE_URL")?, &field.control);
    let app = &field.app;
    let (syncs, runs) = (options.syncs / WORKSPACES, options.runs / options.syncs);
    let mut tenants = Vec::new();
    for number in 1..=WORKSPACES {
        eprintln!("making workspace {number} of {WORKSPACES}: {syncs} syncs of {runs} runs");
        let slug = format!("team-{number}");
        let (_, workspace) = organization::ops::create(app, None, &slug, &slug).await?;
        let caller = Caller::command(workspace);
        let sync = field.draft_of(&caller).await?;
        let history = format!(
            "set bench.workspace = '{}'; set bench.sync = '{}'; set bench.syncs = {syncs}; set bench.runs = {runs}; {}",
            workspace.uuid(),
            sync.uuid(),
            include_str!("../../bench/history.sql")
        );
        field::execute(&owner, &history).await?;
        let grant = api_key::ops::Grant { rights: Right::ALL, of_organization: false, days: 1 };
        let key = api_key::ops::create(app, workspace, "bench", grant).await?.text.expose().to_owned();
        let page = PageRequest { limit: 100, ..PageRequest::default() };
        let syncs = sync::ops::list(app, &caller, page).await?.data.iter().map(|sync| sync.id).collect();
        let runs = run::ops::list(app, &caller, None, &[], page).await?.data;
        tenants.push(Tenant { key, syncs, runs: runs.iter().map(|run| run.id).collect() });
    }
    field::execute(&owner, "vacuum analyze").await?;
    Ok(tenants)
}

/// The API in a process of its own, as it is deployed, but that nobody is told to wait.
fn api(field: &Field<'_>, port: u16) -> anyhow::Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("api").env("FRESHET_API_LISTEN", format!("127.0.0.1:{port}")).stdout(Stdio::null());
    for kind in ["READS", "WRITES", "EXPENSIVE"] {
        command.env(format!("FRESHET_API_{kind}_PER_MINUTE"), "1000000");
    }
    field.equip(&mut command);
    Ok(Server(command.spawn()?))
}

/// Runs the sync until it is enough; rows a second.
async fn keep_busy(field: &Field<'_>, enough: &AtomicBool) -> anyhow::Result<f64> {
    let sync = field.sync_to("exactly_once").await?;
    let worker = field.worker()?;
    let (since, mut rows) = (Instant::now(), 0);
    while !enough.load(Ordering::Relaxed) {
        let run = run::ops::request(&field.app, &field.caller, sync).await?.0;
        rows += field.finished(run.id).await?.counts.published;
    }
    let seconds = since.elapsed().as_secs_f64();
    worker.stop()?;
    Ok(rows as f64 / seconds)
}

/// Sends requests at their times; each one's route and wait.
async fn load(
    client: &reqwest::Client,
    base: &str,
    tenants: &Arc<Vec<Tenant>>,
    options: &Options,
) -> anyhow::Result<Vec<(&'static str, Duration)>> {
    let start = Instant::now();
    let mut under_way = JoinSet::new();
    let count = options.rate as u64 * (options.seconds + WARM_UP.as_secs());
    for number in 0..count {
        let at = start + Duration::from_secs(1) * u32::try_from(number)? / options.rate;
        tokio::time::sleep_until(at.into()).await;
        let (route, request) = request(client, base, tenants, number);
        under_way.spawn(async move {
            let answer = request.send().await.with_context(|| route)?;
            let status = answer.status();
            let body = answer.bytes().await?;
            ensure!(status.is_success(), "{route}: {status}: {}", String::from_utf8_lossy(&body));
            Ok((at, route, at.elapsed()))
        });
    }
    let mut taken = Vec::new();
    while let Some(done) = under_way.join_next().await {
        let (at, route, wait) = done??;
        if at >= start + WARM_UP {
            taken.push((route, wait));
        }
    }
    Ok(taken)
}

/// The request of this number: the routes in their shares, well mixed, of one workspace after another.
fn request(
    client: &reqwest::Client,
    base: &str,
    tenants: &[Tenant],
    number: u64,
) -> (&'static str, reqwest::RequestBuilder) {
    // Steps of a prime: every hundred requests hold each route as often as its weight says.
    let mut place = u32::try_from(number * 37 % 100).unwrap_or_default();
    let tenant = &tenants[usize::try_from(number * 7 % tenants.len() as u64).unwrap_or_default()];
    if number % 50 == 49 {
        return (FLOOR, client.get(format!("{base}/healthz")));
    }
    let route = ROUTES.iter().find(|(_, weight)| {
        let is_it = place < *weight;
        place = place.saturating_sub(*weight);
        is_it
    });
    let route = route.map_or(FLOOR, |(route, _)| *route);
    let nth = usize::try_from(number / 10).unwrap_or_default();
    let id = match route {
        route if route.contains("/syncs/") => tenant.syncs[nth % tenant.syncs.len()].to_string(),
        _ => tenant.runs[nth % tenant.runs.len()].to_string(),
    };
    let (method, path) = route.split_once(' ').unwrap_or(("GET", route));
    let url = format!("{base}{}", path.replace("{id}", &id));
    let request = match method {
        "POST" => client.post(url).json(&json!({"name": format!("bench {number}")})),
        _ => client.get(url),
    };
    (route, request.bearer_auth(&tenant.key))
}

fn report(options: &Options, taken: Vec<(&'static str, Duration)>, running: f64) -> anyhow::Result<Report> {
    let of = |wanted: &dyn Fn(&str) -> bool| {
        let mut waits: Vec<_> =
            taken.iter().filter(|(route, _)| wanted(route)).map(|(_, wait)| wait.as_secs_f64() * 1e3).collect();
        waits.sort_by(f64::total_cmp);
        waits
    };
    let floor = part(&of(&|route| route == FLOOR), 0.5)?;
    let routes = ROUTES.iter().map(|(route, _)| *route).chain([FLOOR]);
    let routes = routes
        .map(|route| {
            let waits = of(&|of| of == route);
            let p50_ms = part(&waits, 0.5).context(route)?;
            let (p99_ms, max_ms) = (part(&waits, 0.99)?, part(&waits, 1.0)?);
            Ok((route, Waits { requests: waits.len(), p50_ms, p99_ms, max_ms, to_floor: round(p50_ms / floor) }))
        })
        .collect::<anyhow::Result<_>>()?;
    let all = of(&|route| route != FLOOR);
    Ok(Report {
        benchmark: "api",
        syncs: options.syncs,
        runs: options.runs,
        requests: taken.len(),
        requests_per_s: round(taken.len() as f64 / options.seconds as f64),
        p50_ms: part(&all, 0.5)?,
        p99_ms: part(&all, 0.99)?,
        max_ms: part(&all, 1.0)?,
        running_rows_per_s: running.round(),
        routes,
    })
}

/// The wait, in milliseconds, that this share of sorted waits does not exceed.
fn part(sorted: &[f64], share: f64) -> anyhow::Result<f64> {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    let found = sorted.get(place.saturating_sub(1)).copied();
    found.map(round).context("nothing was asked: a longer --seconds is needed")
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    println!(
        "api: {} syncs, {} runs, {:.0} requests/s, a sync running at {:.0} rows/s",
        report.syncs, report.runs, report.requests_per_s, report.running_rows_per_s
    );
    println!("{:<30}{:>10}{:>10}{:>10}{:>10}{:>10}", "", "requests", "p50 ms", "p99 ms", "max ms", "to floor");
    for (route, waits) in &report.routes {
        let Waits { requests, p50_ms, p99_ms, max_ms, to_floor } = waits;
        println!("{route:<30}{requests:>10}{p50_ms:>10.2}{p99_ms:>10.2}{max_ms:>10.2}{to_floor:>10.2}");
    }
    println!(
        "{:<30}{:>10}{:>10.2}{:>10.2}{:>10.2}",
        "all", report.requests, report.p50_ms, report.p99_ms, report.max_ms
    );
    if json {
        println!("{}", serde_json::to_string(report)?);
    }
    Ok(())
}
