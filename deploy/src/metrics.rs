//! `/metrics`, on a port of its own: nobody is asked for a key there.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use freshet_core::app::App;
use freshet_core::metrics;
use freshet_core::run::work;
use freshet_core::secret::turnover;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// From what an answer of the API takes to what a long attempt takes, in seconds.
const BOUNDS_S: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 1_800.0, 7_200.0];
/// How often what was recorded is put into its buckets when nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// Serves them where `metrics_listen` says, until `drain`; at once done when it says nothing.
///
/// # Errors
/// When the address is none, or is taken.
pub async fn serve(app: &App, drain: CancellationToken) -> anyhow::Result<()> {
    let address = &app.settings.metrics_listen;
    if address.is_empty() {
        return Ok(());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BOUNDS_S)?
        .install_recorder()
        .context("metrics are recorded already")?;
    metrics::describe();
    let listener = tokio::net::TcpListener::bind(address.as_str())
        .await
        .with_context(|| format!("FRESHET_METRICS_LISTEN: cannot listen on `{address}`"))?;
    tracing::info!("metrics are on http://{}/metrics", listener.local_addr()?);
    let routes = Router::new().route("/metrics", get(told)).with_state((app.clone(), recorder.clone()));
    let upkeep = async {
        loop {
            tokio::time::sleep(UPKEEP).await;
            recorder.run_upkeep();
        }
    };
    let served = axum::serve(listener, routes).with_graceful_shutdown(drain.cancelled_owned());
    tokio::select! {
        done = served.into_future() => done.map_err(Into::into),
        () = upkeep => Ok(()),
    }
}

/// What a database that is away cannot tell keeps its last value: the rest is worth most just then.
async fn told(State((app, recorder)): State<(App, PrometheusHandle)>) -> impl IntoResponse {
    let (size, idle) = app.db.connections();
    metrics::connections(size, idle);
    metrics::master_keys_refused(app.vault.refused().is_some());
    if let Err(error) = turnover::gauge(&app).await {
        tracing::warn!(error = %error.chain(), "the secrets of each master key cannot be counted");
    }
    if let Err(error) = work::gauge(&app.db).await {
        tracing::warn!(error = %error.chain(), "the runs that wait cannot be counted");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], recorder.render())
}
