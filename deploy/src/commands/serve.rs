//! The long-lived roles.

use std::time::Duration;

use anyhow::Context as _;
use freshet_core::app::App;
use freshet_core::settings::Settings;
use tokio_util::sync::CancellationToken;

use crate::{shutdown, telemetry, wire};

/// Which roles this process has.
#[derive(Debug, Clone, Copy)]
pub struct Roles {
    pub api: bool,
    pub worker: bool,
}

/// Serves until a signal, then until what is in hand is done, at most `stop_grace_s`.
pub async fn run(roles: Roles) -> anyhow::Result<()> {
    let settings = Settings::load()?;
    telemetry::start(&settings)?;
    let grace = Duration::from_secs_f64(settings.stop_grace_s);
    let app = wire::app(settings).await?;
    let drain = shutdown::on_signal()?;

    let api = async { if roles.api { api(app.clone(), drain.clone()).await } else { Ok(()) } };
    let worker = async {
        if roles.worker {
            freshet_worker::run(app.clone(), drain.clone()).await.map_err(|error| anyhow::anyhow!(error))
        } else {
            Ok(())
        }
    };
    let out_of_patience = async {
        drain.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    let done = tokio::select! {
        done = async { tokio::try_join!(api, worker) } => done.map(|_| ()),
        () = out_of_patience => {
            tracing::warn!(grace_s = grace.as_secs(), "not everything was done in time; its leases will run out");
            Ok(())
        }
    };
    app.db.close().await;
    done
}

async fn api(app: App, drain: CancellationToken) -> anyhow::Result<()> {
    let address = app.settings.api_listen;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("FRESHET_API_LISTEN: cannot listen on {address}"))?;
    tracing::info!("the API listens on http://{}", listener.local_addr()?);
    let router = freshet_api::router(app, drain.clone());
    axum::serve(listener, router).with_graceful_shutdown(drain.cancelled_owned()).await?;
    Ok(())
}
