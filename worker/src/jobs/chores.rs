//! What has to be done now and then, by whichever worker comes first: each chore holds its own lock where two at once
//! would be wrong, and is harmless when repeated.

use std::time::Duration;

use freshet_core::app::App;
use freshet_core::audit::chain;
use freshet_core::error::Result;
use tokio_util::sync::CancellationToken;

/// How often lines of the audit log are linked: what happened longer ago cannot be changed unseen.
const LINK_EVERY: Duration = Duration::from_secs(2);
/// How often a chain that is due is looked for.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// Does the chores until `drain` is cancelled. One that fails is told in the log and tried again.
pub(super) async fn run(app: App, drain: CancellationToken) {
    let (mut link, mut check) = (tokio::time::interval(LINK_EVERY), tokio::time::interval(CHECK_EVERY));
    loop {
        let (chore, done) = tokio::select! {
            () = drain.cancelled() => return,
            _ = link.tick() => ("link the audit log", chain::link(&app).await.map(|_| ())),
            _ = check.tick() => ("check the audit log", check_chains(&app).await),
        };
        if let Err(error) = done {
            tracing::warn!(error = %error.chain(), "could not {chore}");
        }
    }
}

async fn check_chains(app: &App) -> Result<()> {
    for (organization, finding) in chain::check_due(app).await? {
        tracing::error!(organization.id = %organization, "the audit log was tampered with: {finding}");
    }
    Ok(())
}
