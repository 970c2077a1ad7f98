//! Runs syncs: claims runs by lease, seals, publishes, releases, and answers operations.
//!
//! [`run`] is the way in; `jobs` lists what is done, `pipeline` is the delivery path, and `sources`,
//! `destinations` and `formats` list the connectors.

pub mod destinations;
pub mod formats;
mod jobs;
pub mod pipeline;
pub mod sources;

use freshet_core::app::App;
use freshet_core::connector::Registry;
use tokio_util::sync::CancellationToken;

/// Adds every connector there is.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    formats::register(destinations::register(sources::register(registry)))
}

/// Works until `drain` is cancelled and every job in hand is finished or laid down.
///
/// # Errors
/// What apalis reports when a worker cannot go on; claims run out by themselves then.
pub async fn run(app: App, drain: CancellationToken) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    jobs::run(app, drain).await
}
