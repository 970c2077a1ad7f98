//! What a worker does with a run it has claimed. Every write names the epoch; `platform.lease_lost`
//! means that another worker has the run now, and the attempt ends without a word.

use rand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use super::store::{self, DeadLetters};
use super::{Claim, CountBase, Counts, RunState};
use crate::app::App;
use crate::connector::{EncodeError, PartitionRange, Progress, Receipt, Sealed, SourceQuery};
use crate::db::Db;
use crate::endpoint::{Connection, Destination, ops as endpoint};
use crate::error::{Class, Code, Error, Result};
use crate::id::{SyncId, SyncVersionId};
use crate::limit;
use crate::metrics;
use crate::sync::{self, Position, work::Work};
use crate::trace::TraceParent;

/// Everything a worker needs to run, secrets opened.
#[derive(Debug)]
pub struct Started {
    /// The sync, its version, its model.
    pub work: Work,
    /// The connection's kind and whole settings.
    pub connection: (String, Value),
    /// The destination's kind and whole settings.
    pub destination: (String, Value),
    /// Where the sync is.
    pub position: Position,
    /// The batch that this run sealed in an earlier attempt.
    pub own_batch: Option<i64>,
    /// What to add to the counts of the batch in hand to get the run's.
    pub count_base: CountBase,
}

/// Claims at most `slots` runs, fairly across workspaces.
///
/// # Errors
/// [`Code::Database`].
pub async fn claim(db: &Db, slots: usize, worker: &str, lease_s: f64) -> Result<Vec<Claim>> {
    store::claim(db, i32::try_from(slots).unwrap_or(i32::MAX), worker, lease_s).await
}

/// Extends leases; of each still held, whether a person asked to cancel.
///
/// # Errors
/// [`Code::Database`].
pub async fn extend(db: &Db, ids: &[Uuid], epochs: &[i64], lease_s: f64) -> Result<Vec<(Uuid, bool)>> {
    store::extend(db, ids, epochs, lease_s).await
}

/// Sets the gauges of what waits and what is under way, over all workspaces.
///
/// # Errors
/// [`Code::Database`].
pub async fn gauge(db: &Db) -> Result<()> {
    let found = store::depth(db).await?;
    let of = |state: &str| found.iter().find(|(of, ..)| of == state);
    for state in RunState::ALL.iter().filter(|state| !state.is_final()) {
        metrics::runs(state.as_str(), of(state.as_str()).map_or(0, |(_, count, _)| *count));
    }
    let due = ["queued", "retry_wait"].into_iter().filter_map(of).map(|(.., oldest)| *oldest);
    metrics::oldest_due(due.fold(0.0, f64::max));
    Ok(())
}

/// Takes runs away from workers whose lease ran out.
///
/// # Errors
/// [`Code::Database`].
pub async fn reap(db: &Db, fruitless_max: i32) -> Result<Vec<Uuid>> {
    store::reap(db, fruitless_max).await
}

/// Gives back runs that were claimed and not started.
///
/// # Errors
/// [`Code::Database`].
pub async fn give_back(db: &Db, ids: &[Uuid], epochs: &[i64]) -> Result<()> {
    store::give_back(db, ids, epochs).await
}

/// The trace of the request that asked for the run, if one was taken.
///
/// # Errors
/// [`Code::Database`].
pub async fn trace(app: &App, claim: &Claim) -> Result<Option<TraceParent>> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::trace(&mut tx, claim.run).await
}

/// Begins an attempt: writes it down and reads everything it needs.
///
/// # Errors
/// [`Code::LeaseLost`], [`Code::Vault`]; [`Code::QuotaExceeded`] for a first attempt when the month's records are spent.
pub async fn start(app: &App, claim: &Claim, worker: &str) -> Result<Started> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    let (sync_id, version_id, own_batch, count_base) = store::sync_version_of(&mut tx, claim).await?;
    // A run that was begun is not cut: what it sealed goes out.
    if claim.attempt == 1 {
        limit::ops::refuse_spent(&mut tx, app.clock.now()).await?;
    }
    store::insert_attempt(&mut tx, claim, worker).await?;
    store::set_working(&mut tx, claim, RunState::Extracting).await?;
    let work = sync::work::read(&mut tx, sync_id, SyncVersionId::from(version_id)).await?;
    let connection = endpoint::open::<Connection>(app, &mut tx, work.connection_id).await?;
    let destination = endpoint::open::<Destination>(app, &mut tx, work.destination_id).await?;
    let position = sync::work::position(&mut tx, sync_id, work.generation, claim.epoch).await?;
    let told = json!({ "attempt": claim.attempt, "worker": worker });
    store::add_event(&mut tx, claim.run, "info", "attempt.started", "a worker took the run", told).await?;
    tx.commit().await?;
    let count_base = serde_json::from_value(count_base).unwrap_or_default();
    Ok(Started { work, connection, destination, position, own_batch, count_base })
}

/// Moves the run on and says so in its timeline.
///
/// # Errors
/// [`Code::LeaseLost`].
pub async fn moved(app: &App, claim: &Claim, state: RunState, message: &str, data: Value) -> Result<()> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::set_working(&mut tx, claim, state).await?;
    store::add_event(&mut tx, claim.run, "info", &format!("run.{}", state.as_str()), message, data).await?;
    tx.commit().await
}

/// Writes a line of the timeline.
///
/// # Errors
/// [`Code::LeaseLost`] when another worker has the run.
pub async fn note(app: &App, claim: &Claim, level: &str, code: &str, message: &str, data: Value) -> Result<()> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::sync_version_of(&mut tx, claim).await?;
    store::add_event(&mut tx, claim.run, level, code, message, data).await?;
    tx.commit().await
}

/// Whether the claim still holds; asked before and after a lane is fenced.
///
/// # Errors
/// [`Code::LeaseLost`].
pub async fn check(app: &App, claim: &Claim) -> Result<()> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::sync_version_of(&mut tx, claim).await?;
    // Dropped, it would hold the run's row until the connection is used again.
    tx.commit().await
}

/// Keeps a sealed batch: planned, before anything of it is sent.
///
/// # Errors
/// [`Code::LeaseLost`].
pub async fn sealed(
    app: &App,
    claim: &Claim,
    sync_id: SyncId,
    batch_seq: i64,
    sealed: &Sealed,
    base: &Counts,
) -> Result<()> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::set_batch(&mut tx, claim, Some(batch_seq), &CountBase { counts: *base, adopted: None }).await?;
    sync::work::set_batch(&mut tx, sync_id, claim.epoch, batch_seq, sealed).await?;
    for note in &sealed.notes {
        store::add_event(&mut tx, claim.run, note.level, note.code, &note.sentence, json!({})).await?;
    }
    let told = json!({ "batch": batch_seq, "empty": sealed.empty });
    let sentence = if sealed.empty { "nothing to read" } else { "the batch is fixed at the source" };
    store::add_event(&mut tx, claim.run, "info", "batch.sealed", sentence, told).await?;
    tx.commit().await
}

/// Takes over a batch that an earlier run left; `base` lacks what was counted of it so far.
///
/// # Errors
/// [`Code::LeaseLost`].
pub async fn adopted(app: &App, claim: &Claim, batch_seq: i64, base: &Counts) -> Result<()> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::set_batch(&mut tx, claim, None, &CountBase { counts: *base, adopted: Some(batch_seq) }).await?;
    let sentence = "a batch that an earlier run left goes first";
    let told = json!({ "batch": batch_seq });
    store::add_event(&mut tx, claim.run, "info", "batch.adopted", sentence, told).await?;
    tx.commit().await
}

/// Takes Kafka's position over: batch, generation and claims are raised to what its progress record tells, so that fences
/// work again and no `freshet-id` comes twice.
///
/// # Errors
/// [`Code::LeaseLost`]; [`Code::KafkaProgressLost`] for a record that no Freshet wrote.
pub async fn kafka_adopted(app: &App, claim: &Claim, sync_id: SyncId, progress: &Progress) -> Result<()> {
    // First, and outside the transaction: a sequence knows none, and higher claims harm nobody if the rest fails.
    if !store::raise_epoch(&app.db, progress.fence).await? {
        let told = "Kafka's progress record names a claim that cannot have been; reset the sync";
        return Err(Error::new(Code::KafkaProgressLost, told));
    }
    let mut tx = app.db.tenant(claim.workspace).await?;
    let (_, version, ..) = store::sync_version_of(&mut tx, claim).await?;
    let before = sync::work::adopt(&mut tx, sync_id, version.into(), claim.epoch, progress).await?;
    let told = json!({
        "batch": progress.batch_seq, "ordinal": progress.ordinal, "generation": progress.generation,
        "claim": progress.fence, "batch_before": before, "batch_complete": progress.batch_complete,
    });
    let sentence = "Kafka's position is adopted: what it says is delivered is delivered";
    store::add_event(&mut tx, claim.run, "warning", "position.adopted", sentence, told).await?;
    tx.commit().await
}

/// Keeps the lane's place and cluster, once known.
///
/// # Errors
/// [`Code::LeaseLost`].
pub async fn placed(app: &App, claim: &Claim, sync_id: SyncId, cluster_id: &str, partition: i32) -> Result<()> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::sync_version_of(&mut tx, claim).await?;
    sync::work::set_place(&mut tx, sync_id, claim.epoch, cluster_id, partition).await?;
    tx.commit().await
}

/// What was committed to Kafka since the last time, to be written down: the position follows it, never leads.
#[derive(Debug, Default)]
pub struct Delivered {
    /// The last progress record committed.
    pub progress: Option<Progress>,
    /// Where its record stands, or an earlier one, if known.
    pub progress_offset: Option<i64>,
    /// Where the records landed, one entry a partition.
    pub partitions: Vec<PartitionRange>,
    /// The dead letters, grouped by reason.
    pub dead: Vec<DeadLetter>,
}

/// Dead letters of one reason.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The reason.
    pub error: EncodeError,
    /// How many.
    pub records: i64,
    /// The first one's place in its batch.
    pub first_ordinal: i64,
    /// The last one's.
    pub last_ordinal: i64,
}

impl Delivered {
    /// Adds one committed chunk.
    pub fn add(&mut self, progress: Progress, receipt: Receipt, dead: Vec<DeadLetter>) {
        self.progress = Some(progress);
        self.progress_offset = Some(receipt.progress_offset).filter(|offset| *offset >= 0).or(self.progress_offset);
        for range in receipt.partitions {
            let known = self
                .partitions
                .iter_mut()
                .find(|known| known.partition == range.partition && known.topic == range.topic);
            match known {
                Some(known) => {
                    known.first_offset = known.first_offset.min(range.first_offset);
                    known.last_offset = known.last_offset.max(range.last_offset);
                    known.records += range.records;
                }
                None => self.partitions.push(range),
            }
        }
        for letter in dead {
            match self.dead.iter_mut().find(|known| known.error == letter.error) {
                Some(known) => {
                    known.records += letter.records;
                    known.last_ordinal = known.last_ordinal.max(letter.last_ordinal);
                }
                None => self.dead.push(letter),
            }
        }
    }
}

/// Writes down what Kafka has committed: position, counts, where it landed.
///
/// # Errors
/// [`Code::LeaseLost`].
pub async fn delivered(
    app: &App,
    claim: &Claim,
    sync_id: SyncId,
    counts: &Counts,
    delivered: &Delivered,
) -> Result<()> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::set_counts(&mut tx, claim, counts).await?;
    if let Some(progress) = &delivered.progress {
        sync::work::set_progress(&mut tx, sync_id, claim.epoch, progress, delivered.progress_offset).await?;
    }
    store::add_partitions(&mut tx, claim, &delivered.partitions).await?;
    for letter in &delivered.dead {
        let group = DeadLetters {
            code: letter.error.code.as_str(),
            column: &letter.error.column,
            reason: &letter.error.reason,
            records: letter.records,
            first_ordinal: letter.first_ordinal,
            last_ordinal: letter.last_ordinal,
        };
        store::add_dead_letters(&mut tx, claim, &group).await?;
    }
    tx.commit().await
}

/// Keeps what the source was asked.
///
/// # Errors
/// [`Code::LeaseLost`].
pub async fn asked(app: &App, claim: &Claim, queries: &[SourceQuery]) -> Result<()> {
    if queries.is_empty() {
        return Ok(());
    }
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::sync_version_of(&mut tx, claim).await?;
    for query in queries {
        store::add_query(&mut tx, claim, query).await?;
    }
    tx.commit().await
}

/// The batch is delivered and nothing of it is left at the source. No batch is in hand then: the run's counts, its own
/// included, are what the next batch's are added to.
///
/// # Errors
/// [`Code::LeaseLost`].
pub async fn released(app: &App, claim: &Claim, sync_id: SyncId, batch_seq: i64, counts: &Counts) -> Result<()> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::sync_version_of(&mut tx, claim).await?;
    store::set_batch(&mut tx, claim, None, &CountBase { counts: *counts, adopted: None }).await?;
    sync::work::set_released(&mut tx, sync_id, claim.epoch, batch_seq).await?;
    tx.commit().await
}

/// Ends a run that delivered everything.
///
/// # Errors
/// [`Code::LeaseLost`].
pub async fn succeed(app: &App, claim: &Claim, counts: &Counts) -> Result<()> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::set_counts(&mut tx, claim, counts).await?;
    let state = if counts.dead > 0 { RunState::SucceededWithErrors } else { RunState::Succeeded };
    let outcome = (counts.read == 0).then_some("no_changes");
    store::finish_attempt(&mut tx, claim, "succeeded", None).await?;
    let told = json!({ "read": counts.read, "published": counts.published, "dead": counts.dead });
    store::add_event(&mut tx, claim.run, "info", "run.succeeded", "everything is delivered", told).await?;
    store::finish(&mut tx, claim, state, outcome, None).await?;
    tx.commit().await
}

/// Ends an attempt that failed: the run waits for the next one, or ends.
///
/// # Errors
/// [`Code::LeaseLost`].
pub async fn fail(app: &App, claim: &Claim, error: &Error) -> Result<RunState> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::sync_version_of(&mut tx, claim).await?;
    let state = if error.code == Code::Cancelled {
        store::finish_attempt(&mut tx, claim, "cancelled", None).await?;
        let sentence = "stopped as asked; what is sealed and not sent goes first in the next run";
        store::add_event(&mut tx, claim.run, "info", "run.cancelled", sentence, json!({})).await?;
        store::finish(&mut tx, claim, RunState::Cancelled, None, None).await?;
        RunState::Cancelled
    } else {
        store::finish_attempt(&mut tx, claim, "failed", Some(error)).await?;
        let fruitless = store::fruitless(&mut tx, claim).await?;
        let told = json!({ "code": error.code, "attempt": claim.attempt });
        store::add_event(&mut tx, claim.run, "error", "attempt.failed", &error.message, told).await?;
        if error.class() == Class::User || fruitless >= app.settings.retry_fruitless_max {
            store::finish(&mut tx, claim, RunState::Failed, None, Some(error)).await?;
            RunState::Failed
        } else {
            let wait_s = backoff_s(app, fruitless);
            store::wait(&mut tx, claim, wait_s, Some(error), true).await?;
            let sentence = format!("the next attempt begins in {wait_s:.1} s");
            let told = json!({ "wait_s": wait_s });
            store::add_event(&mut tx, claim.run, "info", "run.retry_wait", &sentence, told).await?;
            RunState::RetryWait
        }
    };
    tx.commit().await?;
    Ok(state)
}

/// Lays a run down for another attempt and says why. No attempt is counted against it.
///
/// # Errors
/// [`Code::LeaseLost`].
pub async fn release(app: &App, claim: &Claim, sentence: &str) -> Result<()> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    store::sync_version_of(&mut tx, claim).await?;
    store::finish_attempt(&mut tx, claim, "released", None).await?;
    store::add_event(&mut tx, claim.run, "info", "attempt.released", sentence, json!({})).await?;
    store::wait(&mut tx, claim, 0.0, None, true).await?;
    tx.commit().await
}

/// The wait before the next attempt: `retry_base_s` × 3ⁿ⁻¹ after the n-th fruitless one, at most `retry_max_s`,
/// drawn from its upper half so that a crowd of runs spreads out and none starts at once.
fn backoff_s(app: &App, fruitless: i32) -> f64 {
    let longest = (app.settings.retry_base_s * 3f64.powi(fruitless.max(1) - 1)).min(app.settings.retry_max_s);
    longest * rand::rng().random_range(0.5..=1.0)
}
