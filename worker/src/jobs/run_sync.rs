//! One attempt at a run: start, deliver, and write down how it ended.

use freshet_core::app::App;
use freshet_core::error::{Code, Error, Result};
use freshet_core::queue::Held;
use freshet_core::run::work;
use freshet_core::run::{Claim, RunState};

use crate::pipeline::{self, Ended};

/// Makes the attempt. Everything that can go wrong ends in the run's row; what cannot be written there is the
/// next owner's.
pub(super) async fn attempt(app: &App, worker: &str, held: Held<Claim>) {
    let claim = held.job;
    tracing::info!(run.id = %claim.run, attempt = claim.attempt, "run taken");
    let (inner, name, stop) = (app.clone(), worker.to_owned(), held.stop.clone());
    // A task of its own: a panic is a failure of the run and not of the worker.
    let task = tokio::spawn(async move { pipeline::deliver(&inner, &claim, &name, &stop).await });
    let lost = held.stop.lost.clone();
    let abort = task.abort_handle();
    let done = tokio::select! {
        done = task => done.unwrap_or_else(|error| {
            Err(Error::new(Code::Internal, "the attempt broke off by a defect").caused_by(error))
        }),
        () = lost.cancelled() => {
            abort.abort();
            Err(Error::new(Code::LeaseLost, "another worker has the run now"))
        }
    };
    if let Err(error) = settle(app, &claim, done).await {
        tracing::warn!(run.id = %claim.run, error = %error.chain(), "cannot write how the attempt ended; its lease will run out");
    }
    drop(held);
}

async fn settle(app: &App, claim: &Claim, done: Result<Ended>) -> Result<()> {
    match done {
        Ok(Ended::Delivered(counts)) => {
            work::succeed(app, claim, &counts).await?;
            tracing::info!(run.id = %claim.run, published = counts.published, dead = counts.dead, "run succeeded");
            Ok(())
        }
        Ok(Ended::LaidDown) => {
            tracing::info!(run.id = %claim.run, "run laid down for another worker");
            work::release(app, claim).await
        }
        Err(error) if error.code == Code::LeaseLost => {
            tracing::info!(run.id = %claim.run, "another worker has the run now");
            Ok(())
        }
        Err(error) => {
            let state = work::fail(app, claim, &error).await?;
            if state != RunState::Cancelled {
                tracing::warn!(run.id = %claim.run, state = state.as_str(), error = %error.chain(), "attempt failed");
            }
            Ok(())
        }
    }
}
