//! A master key turned over: whatever another key than the current one wraps is wrapped anew, by one worker at a time.

use std::time::{Duration, Instant};

use freshet_core::app::App;
use freshet_core::secret::turnover::{self, Round};
use tokio_util::sync::CancellationToken;

/// How often a key is looked for that has to be turned over.
const EVERY: Duration = Duration::from_secs(5);

/// Does rounds until `drain` is cancelled. One that fails is told in the log and tried again.
pub(super) async fn run(app: App, drain: CancellationToken) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Round::default();
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            _ = tick.tick() => {}
        }
        let since = Instant::now();
        // A round that is broken off has wrapped some and not others: each is a transaction of its own.
        let done = tokio::select! {
            () = drain.cancelled() => return,
            done = turnover::round(&app) => done,
        };
        match done {
            Ok(Some(round)) => {
                tell(&app, round, told, since.elapsed());
                told = round;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %error.chain(), "could not turn the master key over"),
        }
    }
}

/// The end of a turn-over, and what keeps it from ending: once, not with every round.
fn tell(app: &App, round: Round, before: Round, took: Duration) {
    let (master_key, took_ms) = (app.vault.current_key(), took.as_millis() as u64);
    let Round { rewrapped, broken, first_broken, stranded } = round;
    if rewrapped > 0 {
        tracing::info!(master_key, rewrapped, took_ms, "master key turned over: {rewrapped} secrets are wrapped anew");
    }
    if stranded > 0 && stranded != before.stranded {
        tracing::error!(stranded, "secrets are of master keys that are not given; `freshet key status` names them");
    }
    if broken > 0 && broken != before.broken {
        let secret_id = first_broken.map(tracing::field::display);
        tracing::error!(
            broken,
            secret.id = secret_id,
            "secrets do not open by the master key that they name: their rows were changed"
        );
    }
}
