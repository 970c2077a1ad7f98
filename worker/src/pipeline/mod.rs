//! The delivery path of one attempt: seal, publish, release.
//!
//! ~~~text
//!  reader task                                   this task
//!  source.read ─► ChunkSink::push ─► chunk n+1 ══► lane.send(chunk n, progress n) ─► Postgres follows
//!                  encode, dead letters   channel    one transaction
//! ~~~
//!
//! While chunk n is in flight chunk n+1 is fetched and encoded; nothing is fetched or encoded inside an
//! open transaction. What Kafka's progress record says is delivered is delivered; Postgres follows it.

mod batch;
mod chunk;

use std::collections::BTreeMap;
use std::time::Instant;

use freshet_core::app::App;
use freshet_core::connector::{
    BatchName, Destination, Lane, LaneSpec, Progress, ReadMode, ReadPlan, SealRequest, Source, TopicPlan,
};
use freshet_core::error::{Code, Error, Result};
use freshet_core::failpoint::{self, Step};
use freshet_core::id::WorkspaceId;
use freshet_core::queue::Stop;
use freshet_core::run::work::{self, Started};
use freshet_core::run::{Claim, Counts, RunState};
use freshet_core::sync::Position;
use freshet_core::sync::work::Work;
use freshet_core::{model, sync};
use serde_json::{Value, json};

/// How an attempt ended well.
#[derive(Debug)]
pub enum Ended {
    /// Everything is delivered.
    Delivered(Counts),
    /// The worker is stopping; another goes on from the last chunk.
    LaidDown,
}

/// Makes one attempt at a run.
///
/// # Errors
/// [`Code::LeaseLost`] when another worker has the run, [`Code::Cancelled`] when a person asked to stop, and whatever
/// source or destination failed with.
pub async fn deliver(app: &App, claim: &Claim, worker: &str, stop: &Stop) -> Result<Ended> {
    let started = work::start(app, claim, worker).await?;
    failpoint::reach(Step::GenerationTaken);
    let source = app.registry.find_source(&started.connection.0)?.open(started.connection.1.clone()).await?;
    let destination = app.registry.find_destination(&started.destination.0)?;
    let destination = destination.open(started.destination.1.clone()).await?;
    let mut attempt = Attempt {
        app,
        claim,
        stop,
        counts: started.count_base,
        plan: read_plan(app, claim, &started, source).await?,
        started,
        destination,
        lane: None,
    };
    attempt.run().await
}

struct Attempt<'a> {
    app: &'a App,
    claim: &'a Claim,
    stop: &'a Stop,
    started: Started,
    /// The source, and what is read of it. Gone while a reader has it.
    plan: (Box<dyn Source>, ReadPlan),
    destination: Box<dyn Destination>,
    lane: Option<OpenLane>,
    /// The run's counts without the batch in hand.
    counts: Counts,
}

/// A lane that is fenced, and what it said.
struct OpenLane {
    lane: Box<dyn Lane>,
    progress: Option<Progress>,
    message_bytes_max: usize,
}

impl Attempt<'_> {
    async fn run(&mut self) -> Result<Ended> {
        loop {
            self.refuse_stopped()?;
            if self.stop.drain.is_cancelled() {
                return Ok(Ended::LaidDown);
            }
            let in_hand = self.started.position.batch_state != "released";
            if !in_hand && !self.seal().await? {
                return Ok(Ended::Delivered(self.counts));
            }
            self.open_lane().await?;
            let start = self.reconcile().await?;
            if !batch::publish(self, start).await? {
                return Ok(Ended::LaidDown);
            }
            self.release().await?;
            if self.started.own_batch == Some(self.started.position.batch_seq) {
                return Ok(Ended::Delivered(self.counts));
            }
        }
    }

    fn refuse_stopped(&self) -> Result<()> {
        if self.stop.cancel.is_cancelled() {
            return Err(Error::new(Code::Cancelled, "a person asked to stop"));
        }
        if self.stop.lost.is_cancelled() {
            return Err(Error::new(Code::LeaseLost, "another worker has the run now"));
        }
        Ok(())
    }

    /// Fixes the next batch; false when there is nothing to send, or this run has sent its own already.
    async fn seal(&mut self) -> Result<bool> {
        if self.started.own_batch == Some(self.started.position.batch_seq) {
            return Ok(false);
        }
        let name = self.batch_name(self.started.position.batch_seq + 1);
        let position = &mut self.started.position;
        let (source, plan) = &mut self.plan;
        let full = plan.mode == ReadMode::Full;
        let request = SealRequest {
            name,
            plan: plan.clone(),
            position: position.token.clone().filter(|_| !full),
            carry: position.carry.clone(),
        };
        failpoint::reach(Step::Numbered);
        let mut sealed = source.seal(&request).await?;
        failpoint::reach(Step::SealDone);
        sealed.batch = json!({ "ts_ms": self.app.clock.now().timestamp_millis(), "source": sealed.batch });
        let seq = position.batch_seq + 1;
        work::sealed(self.app, self.claim, self.started.work.sync_id, seq, &sealed, &self.counts).await?;
        failpoint::reach(Step::Sealed);
        position.batch_seq = seq;
        position.batch_state = if sealed.empty { "released".into() } else { "sealed".into() };
        position.batch = Some(sealed.batch);
        position.ordinal = 0;
        self.started.own_batch = Some(seq);
        Ok(!sealed.empty)
    }

    /// Looks at the destination, takes the lane over, and reads how far it has got: fence before read.
    async fn open_lane(&mut self) -> Result<()> {
        if self.lane.is_some() {
            return Ok(());
        }
        let work = &self.started.work;
        let plan = topic_plan(self.app, self.claim.workspace, work, Some(&self.started.position)).await?;
        let prepared = self.destination.prepare(&plan).await?;
        let position = &self.started.position;
        if position.cluster_id.as_ref().is_some_and(|known| *known != prepared.cluster_id) {
            let told = format!("the destination is another cluster now: {}", prepared.cluster_id);
            return Err(Error::new(Code::KafkaProgressLost, told));
        }
        let told = json!({ "topic": plan.topic, "steps": prepared.steps });
        let sentence = "the destination is ready; chunks go out";
        work::moved(self.app, self.claim, RunState::Publishing, sentence, told).await?;

        let mut lane = self.destination.lane(&plan).await?;
        work::check(self.app, self.claim).await?;
        failpoint::reach(Step::LaneOpen);
        lane.fence().await?;
        failpoint::reach(Step::Fenced);
        // We may have just fenced our successor: it has the lease then, and fences us back.
        work::check(self.app, self.claim).await?;
        let progress = lane.progress().await?;
        if position.cluster_id.is_none() {
            let partition = lane.progress_partition();
            work::placed(self.app, self.claim, work.sync_id, &prepared.cluster_id, partition).await?;
        }
        self.lane = Some(OpenLane { lane, progress, message_bytes_max: prepared.message_bytes_max });
        Ok(())
    }

    /// Where the batch in hand goes on: Kafka's word against Postgres's.
    async fn reconcile(&mut self) -> Result<batch::Start> {
        let position = &self.started.position;
        let (generation, seq) = (self.started.work.generation, position.batch_seq);
        let known = self.lane.as_ref().and_then(|open| open.progress.as_ref());
        let behind = |what: &str| Err(Error::new(Code::KafkaLedgerBehind, format!("Kafka's progress record {what}")));
        let delivered = match known {
            None if position.progress_offset.is_some() => {
                return Err(Error::new(Code::KafkaProgressLost, "the sync's progress record is gone from Kafka"));
            }
            None => None,
            Some(progress) if progress.generation > generation => return behind("is of a later generation"),
            Some(progress) if progress.fence > self.claim.epoch => return behind("was written under a later claim"),
            Some(progress) if progress.generation == generation && progress.batch_seq > seq => {
                return behind("is of a later batch");
            }
            Some(progress) => (progress.generation == generation && progress.batch_seq == seq).then_some(progress),
        };
        if delivered.is_none() && position.ordinal > 0 {
            let told = "Postgres knows of delivered rows of this batch, and Kafka of none";
            return Err(Error::new(Code::KafkaProgressLost, told));
        }
        let start = batch::Start::of(delivered);
        if self.started.own_batch == Some(seq) {
            // This run's own: an earlier attempt's counts are the batch's.
            return Ok(start);
        }
        self.counts = self.counts.minus(start.counts);
        work::adopted(self.app, self.claim, seq, &self.counts).await?;
        Ok(start)
    }

    fn batch_name(&self, seq: i64) -> BatchName {
        BatchName {
            workspace: self.claim.workspace.to_string(),
            sync: self.started.work.sync_id.to_string(),
            run: self.claim.run.to_string(),
            seq,
        }
    }

    /// The batch is delivered: nothing of it is left.
    async fn release(&mut self) -> Result<()> {
        let (sync_id, seq) = (self.started.work.sync_id, self.started.position.batch_seq);
        let sentence = "the batch is delivered";
        work::moved(self.app, self.claim, RunState::Finalizing, sentence, json!({ "batch": seq })).await?;
        let (batch, _) = unwrap_batch(self.started.position.batch.as_ref());
        failpoint::reach(Step::Delivered);
        self.plan.0.release(&self.batch_name(seq), &batch).await?;
        failpoint::reach(Step::Released);
        work::released(self.app, self.claim, sync_id, seq).await?;
        self.started.position.batch_state = "released".into();
        Ok(())
    }
}

/// What is read: the model's columns are found first where nobody has looked yet.
async fn read_plan(
    app: &App,
    claim: &Claim,
    started: &Started,
    mut source: Box<dyn Source>,
) -> Result<(Box<dyn Source>, ReadPlan)> {
    let work = &started.work;
    let (columns, key) = match &work.columns {
        Some(columns) => (columns.clone(), work.primary_key.clone()),
        None => {
            let (schema, source_key) = source.describe(&work.spec).await?;
            let mut tx = app.db.tenant(claim.workspace).await?;
            let named = &work.primary_key;
            model::ops::record_columns(&mut tx, work.model_version_id, named, &schema, &source_key).await?;
            tx.commit().await?;
            (schema, if named.is_empty() { source_key } else { named.clone() })
        }
    };
    if key.is_empty() {
        return Err(Error::new(Code::ModelKeyMissing, "the model has no primary key, and the source declares none"));
    }
    let plan = ReadPlan { model: work.spec.clone(), columns: columns.columns, key, mode: work.config.mode.clone() };
    Ok((source, plan))
}

/// The topics and the lane of a sync.
pub(crate) async fn topic_plan(
    app: &App,
    workspace: WorkspaceId,
    work: &Work,
    position: Option<&Position>,
) -> Result<TopicPlan> {
    let installation = app.db.installation().await?;
    let tolerates = work.config.error_tolerance != sync::ErrorTolerance::None;
    Ok(TopicPlan {
        topic: work.topic.clone(),
        dead_letter_topic: tolerates.then(|| work.config.dead_letter_topic(&work.topic)),
        create: work.config.topic.create.clone(),
        guarantee: work.config.guarantee,
        lane: LaneSpec {
            name: format!("{installation}.{workspace}.{}.0", work.sync_id),
            progress_partition: position.and_then(|position| position.progress_partition),
            progress_offset: position.and_then(|position| position.progress_offset),
        },
    })
}

/// The counts that a progress record's operations stand for.
fn counts_of(ops: &BTreeMap<String, i64>, sent: i64, dead: i64, bytes: i64) -> Counts {
    let of = |letter: &str| ops.get(letter).copied().unwrap_or(0);
    Counts {
        read: ops.values().sum(),
        created: of("c"),
        updated: of("u"),
        deleted: of("d"),
        refreshed: of("r"),
        published: sent,
        dead,
        bytes,
    }
}

/// The batch as wrapped at its seal: the source's own part, and when it was read.
fn unwrap_batch(batch: Option<&Value>) -> (Value, i64) {
    let source = batch.and_then(|batch| batch.get("source")).cloned().unwrap_or_default();
    let ts_ms = batch.and_then(|batch| batch.get("ts_ms")).and_then(Value::as_i64).unwrap_or(0);
    (source, ts_ms)
}

/// Lets something happen at most once a second.
struct OncePerSecond(Instant);

impl OncePerSecond {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn is_due(&mut self) -> bool {
        let due = self.0.elapsed().as_millis() >= 1_000;
        if due {
            self.0 = Instant::now();
        }
        due
    }
}
