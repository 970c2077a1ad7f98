//! The long-lived roles.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Request;
use freshet_core::app::App;
use freshet_core::secret::turnover;
use freshet_core::settings::Settings;
use freshet_core::user;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{listen, master_keys, metrics, shutdown, telemetry, wire};

/// Which roles this process has.
#[derive(Debug, Clone, Copy)]
pub struct Roles {
    pub api: bool,
    pub worker: bool,
}

/// Serves until a signal, then until what is in hand is done, at most `stop_grace_s`.
pub async fn run(roles: Roles) -> anyhow::Result<()> {
    let settings = Settings::load()?;
    let traces = telemetry::start(&settings)?;
    let grace = Duration::from_secs_f64(settings.stop_grace_s);
    if roles.worker && !roles.api {
        step_back(settings.worker_nice);
    }
    let app = wire::app(settings).await?;
    let drain = shutdown::on_signal()?;
    turnover::announce(&app, true).await?;
    master_keys::watch(&app, drain.clone())?;

    let api = async { if roles.api { api(app.clone(), drain.clone()).await } else { Ok(()) } };
    let worker = async {
        if roles.worker {
            freshet_worker::run(app.clone(), drain.clone()).await.map_err(|error| anyhow::anyhow!(error))
        } else {
            Ok(())
        }
    };
    let metrics = metrics::serve(&app, drain.clone());
    let out_of_patience = async {
        drain.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    let done = tokio::select! {
        done = async { tokio::try_join!(api, worker, metrics) } => done.map(|_| ()),
        () = out_of_patience => {
            tracing::warn!(grace_s = grace.as_secs(), "not everything was done in time; its leases will run out");
            Ok(())
        }
    };
    app.db.close().await;
    traces.stop().await;
    done
}

/// Lets the machine's other programs go first. Threads that come later have it from those that make them.
fn step_back(nice: i32) {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for thread in threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        // SAFETY: numbers alone; where the kernel refuses, the thread has ended or keeps the priority that it has.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, nice) };
    }
}

async fn api(app: App, drain: CancellationToken) -> anyhow::Result<()> {
    let address = app.settings.api_listen;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("FRESHET_API_LISTEN: cannot listen on {address}"))?;
    tracing::info!("the API and the dashboard listen on http://{}", listener.local_addr()?);
    tell_set_up_word(&app).await?;
    listen::serve(listener, everything(app, drain.clone()), drain, listen::Patience::default()).await;
    Ok(())
}

/// The API under its own paths, the dashboard under all others: each with its own way to know who asks.
fn everything(app: App, drain: CancellationToken) -> Router {
    let (api, web) = (freshet_api::router(app.clone(), drain), freshet_web::router(app));
    Router::new().fallback_service(tower::service_fn(move |request: Request| {
        let router = if freshet_api::serves(request.uri().path()) { api.clone() } else { web.clone() };
        router.oneshot(request)
    }))
}

/// Whoever reads the log of the first start may be the first to sign up.
async fn tell_set_up_word(app: &App) -> anyhow::Result<()> {
    if let Some(word) = user::ops::draw_set_up_word(app, false).await? {
        let url = app.settings.public_url();
        tracing::warn!("nobody is known yet: set Freshet up at {url}/set-up with the word {}", word.expose());
    }
    Ok(())
}
