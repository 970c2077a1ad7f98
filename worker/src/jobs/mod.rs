//! The list of jobs: what a worker does, how much of it at once. Both queues and the three others go side by side.
//!
//! | queue | job | at once |
//! |---|---|---|
//! | `run` | `run_sync`: one attempt at a run | `worker_runs_max` |
//! | `operation` | `answer_operation`: one question answered | `worker_operations_max` |
//! | none | `turn_over`: a master key turned over | one worker of all |
//! | none | `chores::run`: the audit log linked and checked | one after the other, in every worker |
//! | none | `chores::clear`: deleted workspaces erased, history pruned | one after the other, in every worker |

mod answer_operation;
mod chores;
mod run_sync;
mod turn_over;

use std::time::Duration;

use apalis::prelude::*;
use freshet_core::app::App;
use freshet_core::error::Result as CoreResult;
use freshet_core::events::Subject;
use freshet_core::operation::{self, OperationClaim};
use freshet_core::queue::{Held, LeaseBackend, Queue, QueueOptions};
use freshet_core::run::{self, Claim};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What every job is given: the application, and the worker's name.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) app: App,
    pub(crate) worker: String,
}

/// Runs both queues until `drain` is cancelled and what is in hand is done.
pub(crate) async fn run(app: App, drain: CancellationToken) -> Result<(), Failed> {
    let shop = Shop { worker: worker_name(), app: app.clone() };
    tracing::info!(worker = shop.worker, runs_max = app.settings.worker_runs_max, "worker takes work");
    let options = |slots| QueueOptions {
        slots,
        lease: Duration::from_secs_f64(app.settings.lease_s),
        poll: Duration::from_millis(app.settings.poll_ms),
    };
    let runs =
        LeaseBackend::start(Runs(shop.clone()), options(app.settings.worker_runs_max), &app.events, drain.clone());
    let operations = LeaseBackend::start(
        Operations(shop.clone()),
        options(app.settings.worker_operations_max),
        &app.events,
        drain.clone(),
    );
    let until = |drain: CancellationToken| async move {
        drain.cancelled().await;
        Ok::<_, std::io::Error>(())
    };
    let runs =
        WorkerBuilder::new("run").backend(runs).data(shop.clone()).build(run_sync).run_until(until(drain.clone()));
    let operations = WorkerBuilder::new("operation")
        .backend(operations)
        .data(shop.clone())
        .build(answer_operation)
        .run_until(until(drain.clone()));
    let turned_over = turn_over::run(app.clone(), drain.clone());
    let chores = chores::run(app.clone(), drain.clone());
    let (runs, operations, (), (), ()) = tokio::join!(runs, operations, turned_over, chores, chores::clear(app, drain));
    tracing::info!(worker = shop.worker, "worker stopped");
    runs.and(operations).map_err(Into::into)
}

/// Unique for each start: a name that came back would look like a worker that never went.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let start = freshet_core::id::RequestId::new().to_string();
    format!("{}-{}-{}", host.trim(), std::process::id(), &start[start.len() - 6..])
}

/// apalis' handlers: the job in a task of its own, so that a panic is an ordinary failure.
async fn run_sync(held: Held<Claim>, shop: Data<Shop>) -> Result<(), Failed> {
    run_sync::attempt(&shop.app, &shop.worker, held).await;
    Ok(())
}

async fn answer_operation(held: Held<OperationClaim>, shop: Data<Shop>) -> Result<(), Failed> {
    answer_operation::answer(&shop.app, held).await;
    Ok(())
}

#[derive(Clone)]
struct Runs(Shop);

impl Queue for Runs {
    type Job = Claim;
    const NAME: &'static str = "run";
    const SUBJECT: Subject = Subject::Run;

    fn hold(claim: &Claim) -> (Uuid, i64) {
        (claim.run.uuid(), claim.epoch)
    }

    async fn claim(&self, slots: usize) -> CoreResult<Vec<Claim>> {
        run::work::claim(&self.0.app.db, slots, &self.0.worker, self.0.app.settings.lease_s).await
    }

    async fn extend(&self, ids: &[Uuid], epochs: &[i64]) -> CoreResult<Vec<(Uuid, bool)>> {
        run::work::extend(&self.0.app.db, ids, epochs, self.0.app.settings.lease_s).await
    }

    async fn reap(&self) -> CoreResult<()> {
        let taken = run::work::reap(&self.0.app.db, self.0.app.settings.retry_fruitless_max).await?;
        for id in taken {
            tracing::warn!(run.id = %freshet_core::id::RunId::from(id), "took a run from a worker that stopped answering");
        }
        Ok(())
    }

    async fn give_back(&self, ids: &[Uuid], epochs: &[i64]) -> CoreResult<()> {
        run::work::give_back(&self.0.app.db, ids, epochs).await
    }
}

#[derive(Clone)]
struct Operations(Shop);

impl Queue for Operations {
    type Job = OperationClaim;
    const NAME: &'static str = "operation";
    const SUBJECT: Subject = Subject::Operation;

    fn hold(claim: &OperationClaim) -> (Uuid, i64) {
        (claim.id.uuid(), claim.epoch)
    }

    async fn claim(&self, slots: usize) -> CoreResult<Vec<OperationClaim>> {
        operation::ops::claim(&self.0.app.db, slots, &self.0.worker, self.0.app.settings.lease_s).await
    }

    async fn extend(&self, ids: &[Uuid], epochs: &[i64]) -> CoreResult<Vec<(Uuid, bool)>> {
        operation::ops::extend(&self.0.app.db, ids, epochs, self.0.app.settings.lease_s).await
    }

    async fn reap(&self) -> CoreResult<()> {
        operation::ops::reap(&self.0.app.db).await
    }

    async fn give_back(&self, ids: &[Uuid], epochs: &[i64]) -> CoreResult<()> {
        operation::ops::give_back(&self.0.app.db, ids, epochs).await
    }
}
