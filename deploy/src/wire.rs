//! Settings to `App`: the only place that names all crates.

use std::sync::Arc;

use freshet_core::app::App;
use freshet_core::clock::Clock;
use freshet_core::connector::Registry;
use freshet_core::db::Db;
use freshet_core::egress::Egress;
use freshet_core::error::Result;
use freshet_core::events::Events;
use freshet_core::mail::Mailer;
use freshet_core::settings::Settings;
use freshet_core::vault::Vault;

/// Builds the application: connects, and refuses a database or a key that is not as it should be.
///
/// # Errors
/// `platform.settings`, `platform.database`.
pub async fn app(settings: Settings) -> Result<App> {
    let vault = Arc::new(Vault::from_settings(&settings)?);
    let egress = Arc::new(Egress::from_settings(&settings)?);
    egress.look_own_up().await;
    let db = Db::connect(&settings).await?;
    let events = Events::listen(&db);
    Ok(App {
        db,
        clock: Clock::system(),
        vault,
        mailer: Mailer::new(&settings)?,
        egress,
        registry: freshet_worker::sources::configure(freshet_worker::register(Registry::default()), &settings)?,
        settings: Arc::new(settings),
        events,
    })
}
