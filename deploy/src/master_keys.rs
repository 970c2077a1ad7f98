//! The file of master keys, looked at again while the service runs.

use std::time::Duration;

use freshet_core::app::App;
use freshet_core::secret::turnover;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How often, when no SIGHUP asks for it.
const EVERY: Duration = Duration::from_secs(2);

/// Looks every 2 s and on SIGHUP until `drain`, if the keys are of a file; else SIGHUP ends the process as ever.
///
/// # Errors
/// When signals cannot be listened to.
pub fn watch(app: &App, drain: CancellationToken) -> std::io::Result<()> {
    if !app.vault.has_file() {
        return Ok(());
    }
    let (app, mut hang_up) = (app.clone(), signal(SignalKind::hangup())?);
    tokio::spawn(async move {
        let mut announced = app.vault.current_key();
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                _ = hang_up.recv() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            app.vault.look_again();
            let current = app.vault.current_key();
            if current == announced {
                continue;
            }
            // Told again until it is written: a worker waits for it before it turns the key over.
            match turnover::announce(&app, false).await {
                Ok(()) => announced = current,
                Err(error) => tracing::warn!(error = %error.chain(), "cannot write down which master key is current"),
            }
        }
    });
    Ok(())
}
