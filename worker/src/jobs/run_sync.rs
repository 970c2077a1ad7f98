//! One attempt at a run: start, deliver, and write down how it ended.

use std::time::Instant;

use freshet_core::app::App;
use freshet_core::error::{Code, Error, Result};
use freshet_core::metrics;
use freshet_core::queue::Held;
use freshet_core::run::work;
use freshet_core::run::{Claim, RunState};
use freshet_core::trace::TraceParent;

use tracing::Instrument;

use crate::pipeline::{self, Ended};

/// Makes the attempt. Everything that can go wrong ends in the run's row; what cannot be written there is the
/// next owner's.
pub(super) async fn attempt(app: &App, worker: &str, held: Held<Claim>) {
    let Claim { workspace, sync, run, attempt, .. } = held.job;
    // Every line of the attempt names it, whatever is logged: the span is there where errors alone are.
    let span = tracing::error_span!(
        "attempt", workspace.id = %workspace, sync.id = %sync, run.id = %run, attempt,
        outcome = tracing::field::Empty, error.type = tracing::field::Empty, otel.status_code = tracing::field::Empty,
    );
    if let Some(trace) = asked_in(app, &held.job).await {
        trace.adopt(&span);
    }
    attempt_within(app, worker, held).instrument(span).await;
}

/// The trace of the request that asked for the run. One that cannot be read is no reason not to run.
async fn asked_in(app: &App, claim: &Claim) -> Option<TraceParent> {
    if app.settings.otlp_endpoint.is_empty() {
        return None;
    }
    work::trace(app, claim).await.unwrap_or_else(|error| {
        tracing::warn!(run.id = %claim.run, error = %error.chain(), "the run's trace cannot be read");
        None
    })
}

async fn attempt_within(app: &App, worker: &str, held: Held<Claim>) {
    let claim = held.job;
    let (since, _under_way) = (Instant::now(), metrics::UnderWay::begin());
    tracing::info!("run taken");
    let (inner, name, stop) = (app.clone(), worker.to_owned(), held.stop.clone());
    // A task of its own: a panic is a failure of the run and not of the worker.
    let delivery = async move { pipeline::deliver(&inner, &claim, &name, &stop).await };
    let task = tokio::spawn(delivery.in_current_span());
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
    let code = done.as_ref().err().map(|error| error.code);
    let settled = settle(app, &claim, done).await;
    let span = tracing::Span::current();
    span.record("outcome", settled.as_ref().unwrap_or(&"lost"));
    if let Some(code) = code {
        span.record("error.type", code.as_str());
        span.record("otel.status_code", "ERROR");
    }
    metrics::attempt_ended(settled.as_ref().unwrap_or(&"lost"), code.map(Code::as_str), since.elapsed());
    if let Err(error) = settled {
        tracing::warn!(error = %error.chain(), "cannot write how the attempt ended; its lease will run out");
    }
    drop(held);
}

/// Writes down how it ended, and names that for the metrics.
async fn settle(app: &App, claim: &Claim, done: Result<Ended>) -> Result<&'static str> {
    match done {
        Ok(Ended::Delivered(counts)) => {
            work::succeed(app, claim, &counts).await?;
            tracing::info!(published = counts.published, dead = counts.dead, "run succeeded");
            Ok("succeeded")
        }
        Ok(Ended::LaidDown) => {
            tracing::info!("run laid down for another worker");
            let sentence = "the worker is stopping; another goes on from the last chunk";
            work::release(app, claim, sentence).await.map(|()| "released")
        }
        Ok(Ended::Adopted) => {
            tracing::warn!("Kafka's position is adopted; the next attempt goes on from there");
            work::release(app, claim, "the next attempt goes on from the adopted position").await.map(|()| "released")
        }
        Err(error) if error.code == Code::LeaseLost => {
            tracing::info!("another worker has the run now");
            Ok("lost")
        }
        Err(error) => {
            let state = work::fail(app, claim, &error).await?;
            if state != RunState::Cancelled {
                tracing::warn!(state = state.as_str(), error = %error.chain(), "attempt failed");
            }
            Ok(match state {
                RunState::Cancelled => "cancelled",
                RunState::RetryWait => "retried",
                RunState::Failed => "failed",
                // An attempt that failed leaves a run in none of these.
                RunState::Queued
                | RunState::Claimed
                | RunState::Extracting
                | RunState::Publishing
                | RunState::Finalizing
                | RunState::Cancelling
                | RunState::Succeeded
                | RunState::SucceededWithErrors
                | RunState::Skipped => "failed",
            })
        }
    }
}
