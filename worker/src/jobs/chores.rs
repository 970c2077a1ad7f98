//! What has to be done now and then, by whichever worker comes first: each chore holds its own lock where two at once
//! would be wrong, and is harmless when repeated.

use std::time::Duration;

use freshet_core::app::App;
use freshet_core::audit::chain;
use freshet_core::error::Result;
use freshet_core::{deletion, retention};
use tokio_util::sync::CancellationToken;

/// How often lines of the audit log are linked: what happened longer ago cannot be changed unseen.
const LINK_EVERY: Duration = Duration::from_secs(2);
/// How often a chain that is due is looked for.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// How often workspaces to erase, and history to prune, are looked for.
const CLEAR_EVERY: Duration = Duration::from_secs(60);

/// Erases and prunes until `drain` is cancelled: apart from the other chores, for it can take long.
pub(super) async fn clear(app: App, drain: CancellationToken) {
    let mut tick = tokio::time::interval(CLEAR_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            _ = tick.tick() => {}
        }
        // Each of their transactions is whole: they are let go of wherever they are.
        let cleared = drain.run_until_cancelled(async {
            let erased = deletion::ops::erase_due(&app).await.map(|_| ());
            let pruned = retention::ops::prune(&app).await.map(|_| ());
            [("erase workspaces", erased), ("prune history", pruned)]
        });
        for (chore, done) in cleared.await.into_iter().flatten() {
            if let Err(error) = done {
                tracing::warn!(error = %error.chain(), "could not {chore}");
            }
        }
    }
}

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
