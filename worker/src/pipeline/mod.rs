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

pub(crate) mod ahead;
mod batch;
mod chunk;
mod ledger;
#[cfg(test)]
mod model_test;
mod start;

use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet_core::app::App;
use freshet_core::clock::Clock;
use freshet_core::connector::{
    BatchName, Destination, Lane, LaneSpec, Prepared, Progress, ReadMode, ReadPlan, Registry, SealRequest,
    SecretKeeper, Source, TopicPlan,
};
use freshet_core::egress::Egress;
use freshet_core::endpoint::ops::Keeper;
use freshet_core::error::{Class, Code, Error, Result};
use freshet_core::failpoint::{self, Step};
use freshet_core::id::{ConnectionId, InstallationId, WorkspaceId};
use freshet_core::planted::{Bug, planted};
use freshet_core::queue::Stop;
use freshet_core::run::work::{self, Delivered, Started};
use freshet_core::run::{Claim, Counts, RunState};
use freshet_core::settings::Settings;
use freshet_core::sync::Position;
use freshet_core::sync::work::Work;
use freshet_core::{model, organization, sync};
use serde_json::{Value, json};
use tracing::Instrument as _;

use ledger::Ledger;
use start::Start;

/// How often Postgres follows while chunks go out.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// How an attempt ended well.
#[derive(Debug)]
pub enum Ended {
    /// Everything is delivered.
    Delivered(Counts),
    /// The worker is stopping; another goes on from the last chunk.
    LaidDown,
    /// Kafka's position is Postgres's now; the next attempt goes on from there, under a later claim than any before.
    Adopted,
}

/// Makes one attempt at a run.
///
/// # Errors
/// [`Code::LeaseLost`] when another worker has the run, [`Code::Cancelled`] when a person asked to stop, and whatever
/// source or destination failed with.
pub async fn deliver(app: &App, claim: &Claim, worker: &str, stop: &Stop) -> Result<Ended> {
    let started = work::start(app, claim, worker).await?;
    failpoint::reach(Step::GenerationTaken);
    let keeper = keeper(app, claim.workspace, started.work.connection_id);
    let (kind, settings) = started.connection.clone();
    let (egress, _) = organization::ops::egress_of(app, claim.workspace).await?;
    let mut source = app.registry.find_source(&kind)?.open(settings, &egress).await?;
    source.keep_secrets(keeper.clone());
    let plan = read_plan(app, claim.workspace, &started.work, source).await?;
    let ground = Ground {
        registry: &app.registry,
        egress: &egress,
        settings: &app.settings,
        clock: &app.clock,
        ledger: &ledger::Postgres { app, claim, sync_id: started.work.sync_id },
        installation: app.db.installation().await?,
        record_every: RECORD_EVERY,
        keeper: Some(keeper),
    };
    Attempt::new(ground, claim, stop, started, plan).await?.run().await
}

/// What an attempt stands on.
struct Ground<'a> {
    registry: &'a Registry,
    /// Which addresses source and destination may be at.
    egress: &'a Arc<Egress>,
    settings: &'a Settings,
    clock: &'a Clock,
    ledger: &'a dyn Ledger,
    installation: InstallationId,
    record_every: Duration,
    /// Where the source's secrets lie; none over memory.
    keeper: Option<Arc<dyn SecretKeeper>>,
}

/// Where a connection's secrets lie.
pub(crate) fn keeper(app: &App, workspace: WorkspaceId, connection: ConnectionId) -> Arc<dyn SecretKeeper> {
    Arc::new(Keeper { app: app.clone(), workspace, connection })
}

struct Attempt<'a> {
    ground: Ground<'a>,
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
    dead_letter_bytes_max: usize,
}

impl<'a> Attempt<'a> {
    async fn new(
        ground: Ground<'a>,
        claim: &'a Claim,
        stop: &'a Stop,
        started: Started,
        plan: (Box<dyn Source>, ReadPlan),
    ) -> Result<Self> {
        let (kind, settings) = &started.destination;
        let destination = ground.registry.find_destination(kind)?.open(settings.clone(), ground.egress).await?;
        Ok(Self { ground, claim, stop, counts: started.count_base.counts, plan, started, destination, lane: None })
    }

    async fn run(&mut self) -> Result<Ended> {
        if self.started.position.adopt {
            self.refuse_stopped()?;
            return self.adopt().await;
        }
        loop {
            self.refuse_stopped()?;
            if self.stop.drain.is_cancelled() {
                return Ok(Ended::LaidDown);
            }
            let in_hand = self.started.position.batch_state != "released";
            if !in_hand && !self.seal().instrument(tracing::info_span!("seal")).await? {
                return Ok(Ended::Delivered(self.counts));
            }
            self.open_lane().instrument(tracing::info_span!("open lane")).await?;
            let start = self.reconcile().await?;
            if !batch::publish(self, start).await? {
                return Ok(Ended::LaidDown);
            }
            let batch = self.started.position.batch_seq;
            self.release().instrument(tracing::info_span!("release", batch)).await?;
            if self.started.own_batch == Some(self.started.position.batch_seq) {
                return Ok(Ended::Delivered(self.counts));
            }
        }
    }

    /// Takes Kafka's word for where the sync is, as a person asked after Freshet's database was restored: what Kafka says is
    /// delivered is delivered. What was sealed after that and not sent is at the source, where the next seal finds it.
    async fn adopt(&mut self) -> Result<Ended> {
        self.open_lane().await?;
        let Some(progress) = self.lane.as_ref().and_then(|open| open.progress.as_ref()) else {
            return Err(Error::new(Code::KafkaProgressLost, "Kafka has no progress record of the sync to adopt"));
        };
        if progress.batch.is_none() {
            let told =
                "Kafka's progress record was written by an earlier Freshet and does not tell its batch; reset the sync";
            return Err(Error::new(Code::KafkaProgressLost, told));
        }
        self.ground.ledger.kafka_adopted(progress).await?;
        Ok(Ended::Adopted)
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
        let sealed = source.seal(&request).await;
        failpoint::reach(Step::SealDone);
        self.ground.ledger.asked(&source.queries()).await?;
        let mut sealed = match sealed {
            // The source may refuse because it is further than Postgres knows: Kafka tells.
            Err(error) if error.class() == Class::User && self.started.position.cluster_id.is_some() => {
                if self.open_lane().await.is_ok() {
                    let known = self.lane.as_ref().and_then(|open| open.progress.as_ref());
                    let generation = self.started.work.generation;
                    start::refuse_behind(&self.started.position, known, generation, self.claim.epoch)?;
                }
                return Err(error);
            }
            sealed => sealed?,
        };
        sealed.batch = json!({ "ts_ms": self.ground.clock.now().timestamp_millis(), "source": sealed.batch });
        let position = &mut self.started.position;
        let seq = position.batch_seq + 1;
        self.ground.ledger.sealed(seq, &sealed, &self.counts).await?;
        failpoint::reach(Step::Sealed);
        position.batch_seq = seq;
        position.batch_state = if sealed.empty { "released".into() } else { "sealed".into() };
        (position.batch, position.carry) = (Some(sealed.batch), sealed.carry);
        position.ordinal = 0;
        self.started.own_batch = Some(seq);
        Ok(!sealed.empty)
    }

    /// Looks at the destination, takes the lane over, and reads how far it has got: fence before read.
    async fn open_lane(&mut self) -> Result<()> {
        if self.lane.is_some() {
            return Ok(());
        }
        let (work, installation) = (&self.started.work, self.ground.installation);
        let plan = topic_plan(installation, self.claim.workspace, work, Some(&self.started.position));
        let prepared = self.destination.prepare(&plan).await?;
        let position = &self.started.position;
        if position.cluster_id.as_ref().is_some_and(|known| *known != prepared.cluster_id) {
            let told = format!("the destination is another cluster now: {}", prepared.cluster_id);
            return Err(Error::new(Code::KafkaProgressLost, told));
        }
        let told = json!({ "topic": plan.topic, "steps": prepared.steps });
        let sentence = "the destination is ready; chunks go out";
        self.ground.ledger.moved(RunState::Publishing, sentence, told).await?;

        let mut lane = self.destination.lane(&plan).await?;
        self.ground.ledger.check().await?;
        failpoint::reach(Step::LaneOpen);
        lane.fence().await?;
        failpoint::reach(Step::Fenced);
        // We may have just fenced our successor: it has the lease then, and fences us back.
        self.ground.ledger.check().await?;
        let progress = if planted(Bug::DoubtNotResolved) {
            start::believed(position, self.started.work.generation)
        } else {
            lane.progress().await?
        };
        if position.cluster_id.is_none() {
            let partition = lane.progress_partition();
            self.ground.ledger.placed(&prepared.cluster_id, partition).await?;
        }
        let Prepared { message_bytes_max, dead_letter_bytes_max, .. } = prepared;
        self.lane = Some(OpenLane { lane, progress, message_bytes_max, dead_letter_bytes_max });
        Ok(())
    }

    /// Where the batch in hand goes on; Postgres catches up with what Kafka says.
    async fn reconcile(&mut self) -> Result<Start> {
        let (generation, seq) = (self.started.work.generation, self.started.position.batch_seq);
        let known = self.lane.as_ref().and_then(|open| open.progress.as_ref());
        let start = Start::reconcile(&self.started.position, known, generation, self.claim.epoch)?;
        let settled = [self.started.own_batch, self.started.count_base.adopted].contains(&Some(seq));
        if !settled {
            // What earlier runs have counted of it is theirs; what they sent and did not count is this run's.
            let counted = self.started.position.progress.as_ref();
            let counted = counted.filter(|told| (told.generation, told.batch_seq) == (generation, seq));
            self.counts = self.counts.minus(counted.map(start::counts_of).unwrap_or_default());
            self.ground.ledger.adopted(seq, &self.counts).await?;
        }
        if let Some(progress) = known.filter(|_| start.ordinal > 0 || start.complete) {
            let delivered = Delivered { progress: Some(progress.clone()), ..Delivered::default() };
            self.ground.ledger.delivered(&self.counts.plus(start.counts), &delivered).await?;
            self.started.position.follow(progress, None);
        }
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
        let seq = self.started.position.batch_seq;
        let sentence = "the batch is delivered";
        self.ground.ledger.moved(RunState::Finalizing, sentence, json!({ "batch": seq })).await?;
        failpoint::reach(Step::Delivered);
        self.release_source().await?;
        failpoint::reach(Step::Released);
        self.ground.ledger.released(seq, &self.counts).await?;
        self.started.position.batch_state = "released".into();
        Ok(())
    }

    async fn release_source(&mut self) -> Result<()> {
        let (batch, _) = unwrap_batch(self.started.position.batch.as_ref());
        let name = self.batch_name(self.started.position.batch_seq);
        let released = self.plan.0.release(&name, &batch).await;
        self.ground.ledger.asked(&self.plan.0.queries()).await?;
        released
    }
}

/// What is read: the model's columns are found first where nobody has looked yet.
async fn read_plan(
    app: &App,
    workspace: WorkspaceId,
    work: &Work,
    mut source: Box<dyn Source>,
) -> Result<(Box<dyn Source>, ReadPlan)> {
    let (columns, key) = match &work.columns {
        Some(columns) => (columns.clone(), work.primary_key.clone()),
        None => {
            let (schema, source_key) = source.describe(&work.spec).await?;
            let mut tx = app.db.tenant(workspace).await?;
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
pub(crate) fn topic_plan(
    installation: InstallationId,
    workspace: WorkspaceId,
    work: &Work,
    position: Option<&Position>,
) -> TopicPlan {
    let tolerates = work.config.error_tolerance != sync::ErrorTolerance::None;
    TopicPlan {
        topic: work.topic.clone(),
        dead_letter_topic: tolerates.then(|| work.config.dead_letter_topic(&work.topic)),
        create: work.config.topic.create.clone(),
        guarantee: work.config.guarantee,
        lane: LaneSpec {
            name: format!("{installation}.{workspace}.{}.0", work.sync_id),
            progress_partition: position.and_then(|position| position.progress_partition),
            progress_offset: position.and_then(|position| position.progress_offset),
        },
    }
}

/// The batch as wrapped at its seal: the source's own part, and when it was read.
fn unwrap_batch(batch: Option<&Value>) -> (Value, i64) {
    let source = batch.and_then(|batch| batch.get("source")).cloned().unwrap_or_default();
    let ts_ms = batch.and_then(|batch| batch.get("ts_ms")).and_then(Value::as_i64).unwrap_or(0);
    (source, ts_ms)
}

/// Lets something happen at most once in a while.
struct Pace {
    every: Duration,
    last: Instant,
}

impl Pace {
    fn new(every: Duration) -> Self {
        Self { every, last: Instant::now() }
    }

    fn is_due(&mut self) -> bool {
        let due = self.last.elapsed() >= self.every;
        if due {
            self.last = Instant::now();
        }
        due
    }
}
