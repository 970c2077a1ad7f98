//! A lane: one producer of one sync, and one transaction a chunk.
//!
//! ~~~text
//! fence: InitProducerId            send: begin ─► records ─► dead letters ─► progress record, last
//!   aborts what a predecessor            ─► every acknowledgement ─► counts agree ─► commit
//!   left open, bumps the epoch     any failure before the commit: abort, and the lane is dead
//! ~~~
//!
//! At `effectively_once` there is no transaction: the progress record is sent once everything else is acknowledged.
//!
//! librdkafka's calls block, so a thread of its own works for each lane. Always the same one: what it allocates for a
//! record it also frees, and memory does not grow with the number of threads that took part. An error, or a call that
//! was dropped, ends the thread and leaves the lane dead.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use freshet_core::connector::{
    Chunk, Guarantee, Lane, LaneSpec, Message, PartitionRange, Progress, Receipt, Target, TopicPlan,
};
use freshet_core::error::{Code, Error, Result};
use freshet_core::failpoint::{self, Step};
use freshet_core::planted::{Bug, planted};
use freshet_core::trace;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use super::Way;
use super::client::{self, Watch};
use super::native::{self, Client, Delivery, Failure, Headers, Topic};
use super::progress::{self, Place};

/// Broker's limit for a whole transaction (`transaction.timeout.ms`).
const TRANSACTION: Duration = Duration::from_secs(60);
/// From begin to the last acknowledgement: above `message.timeout.ms` (45 s), below [`TRANSACTION`].
const DELIVERY: Duration = Duration::from_secs(50);
/// For the answer to a commit.
const COMMIT: Duration = Duration::from_secs(30);
/// A commit that takes longer may have been sent twice; librdkafka does not say.
const COMMIT_CLEAR: Duration = Duration::from_secs(5);
/// For an abort, which only frees readers sooner: the next fence aborts too.
const ABORT: Duration = Duration::from_secs(5);
/// For a fence: a predecessor's transaction may have to run out first.
const FENCE: Duration = Duration::from_secs(75);
/// How long a fence tries while no broker answers at all.
const FENCE_ALL_DOWN: Duration = Duration::from_secs(15);
/// For a question about a topic.
const ASK: Duration = Duration::from_secs(15);
/// How long to wait for acknowledgements at a time; they end the wait as they come.
const WAIT: Duration = Duration::from_millis(20);
/// Acknowledgements are taken in after so many records.
const SERVE_EVERY: usize = 1_000;

/// Which topic a delivery belongs to; travels with the record as its tag.
const DATA: usize = 0;
const DEAD: usize = 1;
const PROGRESS: usize = 2;

/// Where records of one partition landed.
#[derive(Debug, Clone, Copy)]
struct Landed {
    first: i64,
    last: i64,
    records: i64,
}

impl Landed {
    const NOWHERE: Self = Self { first: i64::MAX, last: -1, records: 0 };
}

/// What was acknowledged of the chunk under way.
#[derive(Debug, Default)]
struct Tally {
    /// By tag, then by partition.
    landed: [Vec<Landed>; 3],
    acknowledged: u64,
    fault: Option<RDKafkaErrorCode>,
}

impl Tally {
    fn clear(&mut self) {
        self.landed.iter_mut().for_each(Vec::clear);
        self.acknowledged = 0;
        self.fault = None;
    }

    fn take(&mut self, delivery: Delivery) {
        if let Err(code) = delivery.result {
            if self.fault.is_none_or(is_purge) {
                self.fault = Some(code);
            }
            return;
        }
        let Some(partitions) = self.landed.get_mut(delivery.tag) else { return };
        let (partition, offset) = (delivery.partition.unsigned_abs() as usize, delivery.offset);
        if partitions.len() <= partition {
            partitions.resize(partition + 1, Landed::NOWHERE);
        }
        let landed = &mut partitions[partition];
        landed.records += 1;
        self.acknowledged += 1;
        // A retry that the broker knew already is acknowledged without an offset.
        if offset >= 0 {
            landed.first = landed.first.min(offset);
            landed.last = landed.last.max(offset);
        }
    }

    fn ranges(&self, tag: usize, topic: &str) -> impl Iterator<Item = PartitionRange> {
        let used = self.landed[tag].iter().enumerate().filter(|(_, landed)| landed.records > 0);
        used.map(move |(partition, landed)| PartitionRange {
            topic: topic.to_owned(),
            partition: partition as i32,
            first_offset: if landed.last < 0 { -1 } else { landed.first },
            last_offset: landed.last,
            records: landed.records,
        })
    }
}

/// What is purged is purged because of another error, which says more.
fn is_purge(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
}

/// The blocking half of a lane.
struct Engine {
    producer: Arc<Client>,
    tally: RefCell<Tally>,
    data: Option<Topic>,
    dead: Option<Topic>,
    progress: Option<Topic>,
    names: [String; 3],
    key: String,
    guarantee: Guarantee,
    /// Chunks so far.
    sent: u64,
    /// The chunk under way and its progress record, whose bytes the producer reads. Last: after an error they outlive
    /// the producer.
    lent: (Chunk, Vec<u8>),
}

/// What the engine found when it took the lane over.
struct Fenced {
    progress_partitions: i32,
}

impl Engine {
    fn new(way: &Way, plan: &TopicPlan, message_bytes_max: usize) -> Result<Self> {
        let settings = &way.settings;
        let mut config = client::producer(settings, message_bytes_max);
        if plan.guarantee == Guarantee::ExactlyOnce {
            let mut id = settings.transactional_id(&plan.lane.name);
            if planted(Bug::NoInitOnTakeover) {
                id = format!("{id}.{}", std::process::id());
            }
            config.set("transactional.id", id).set("transaction.timeout.ms", TRANSACTION.as_millis().to_string());
        }
        let producer = Client::producer(&config, Watch::new(way))
            .map_err(|error| client::not_made("cannot open a producer", &error))?;
        Ok(Self {
            producer: Arc::new(producer),
            tally: RefCell::default(),
            data: None,
            dead: None,
            progress: None,
            names: [
                plan.topic.clone(),
                plan.dead_letter_topic.clone().unwrap_or_default(),
                settings.progress_topic_name(),
            ],
            key: progress::key(&plan.lane.name),
            guarantee: plan.guarantee,
            sent: 0,
            lent: (Chunk::default(), Vec::new()),
        })
    }

    fn watch(&self) -> &Watch {
        self.producer.context()
    }

    /// Takes in what came, after waiting for it at most so long.
    fn serve(&self, wait: Duration) {
        let mut tally = self.tally.borrow_mut();
        self.producer.serve(wait, |delivery| tally.take(delivery));
    }

    fn fence(&mut self, spec: &LaneSpec) -> Result<Fenced> {
        if self.guarantee == Guarantee::ExactlyOnce {
            self.init_transactions()?;
        }
        // Asked for before librdkafka does, which would have a lenient broker create what is missing.
        self.describe(DATA)?;
        let progress_partitions = self.describe(PROGRESS).map_err(|error| lost_if_known(error, spec))?;
        self.data = Some(self.topic(DATA)?);
        self.progress = Some(self.topic(PROGRESS)?);
        self.watch().forget();
        Ok(Fenced { progress_partitions })
    }

    fn init_transactions(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            let error = match self.producer.init_transactions(Duration::from_secs(1)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            self.serve(Duration::ZERO);
            let refused = self.watch().is_refused();
            let is_over = since.elapsed() > FENCE || (self.watch().all_down() && since.elapsed() > FENCE_ALL_DOWN);
            if refused || is_over || !error.is_retriable {
                return Err(self.watch().explain_failure("cannot take the lane over", &error));
            }
        }
    }

    /// How many partitions a topic has.
    fn describe(&self, tag: usize) -> Result<i32> {
        let name = &self.names[tag];
        let go_on = || {
            self.serve(Duration::ZERO);
            !self.watch().is_refused()
        };
        let state = native::describe_topic(&self.producer, name, ASK, go_on)
            .map_err(|code| self.watch().explain(&format!("topic `{name}`"), code))?;
        Ok(state.partitions.len() as i32)
    }

    fn topic(&self, tag: usize) -> Result<Topic> {
        let name = &self.names[tag];
        Topic::new(&self.producer, name)
            .ok_or_else(|| Error::new(Code::KafkaTopicMissing, format!("`{name}` cannot be a topic's name")))
    }

    /// A part of a chunk's span, where the chunk has one.
    fn part(&self, make: impl FnOnce() -> tracing::Span) -> tracing::Span {
        if trace::is_traced(self.sent) { make() } else { tracing::Span::none() }
    }

    /// Sends a chunk in one transaction, and gives it back once nothing of it is read any more.
    fn send(&mut self, chunk: Chunk, progress: &Progress, partition: i32) -> Result<(Chunk, Receipt)> {
        let value = serde_json::to_vec(progress)
            .map_err(|error| Error::new(Code::Internal, "progress cannot be written").caused_by(error))?;
        self.open_dead_letters(&chunk)?;
        self.tally.borrow_mut().clear();
        self.lent = (chunk, value);
        self.sent += 1;
        let deadline = Instant::now() + DELIVERY;
        match self.guarantee {
            Guarantee::ExactlyOnce => {
                self.producer.begin_transaction().map_err(|error| self.fault("cannot begin a transaction", &error))?;
                let produce = self.part(|| tracing::info_span!("produce"));
                let delivered = produce.in_scope(|| {
                    if planted(Bug::MarkerOutside) {
                        self.deliver_then_mark(partition, deadline)
                    } else {
                        self.deliver(partition, deadline)
                    }
                });
                drop(produce);
                if let Err(error) = delivered {
                    self.abort();
                    return Err(error);
                }
                self.part(|| tracing::info_span!("commit")).in_scope(|| self.commit())?;
            }
            Guarantee::EffectivelyOnce => {
                self.part(|| tracing::info_span!("produce")).in_scope(|| self.deliver(partition, deadline))?;
            }
        }
        let receipt = self.receipt(partition)?;
        Ok((std::mem::take(&mut self.lent).0, receipt))
    }

    fn open_dead_letters(&mut self, chunk: &Chunk) -> Result<()> {
        if self.dead.is_none() && chunk.messages.iter().any(|message| message.target == Target::DeadLetter) {
            self.describe(DEAD)?;
            self.dead = Some(self.topic(DEAD)?);
        }
        Ok(())
    }

    /// Sends everything and sees it acknowledged; the progress record is the last, and at `effectively_once` waits for
    /// all others.
    fn deliver(&self, partition: i32, deadline: Instant) -> Result<()> {
        let (chunk, progress) = &self.lent;
        self.produce_all(chunk, deadline)?;
        let records = chunk.messages.len() as u64;
        if self.guarantee == Guarantee::EffectivelyOnce {
            self.drain(records, deadline)?;
        }
        self.produce_progress(progress, partition, deadline)?;
        self.drain(records + 1, deadline)?;
        failpoint::reach(Step::ProgressProduced);
        Ok(())
    }

    /// The mistake of [`Bug::MarkerOutside`]: two transactions where one is right.
    fn deliver_then_mark(&self, partition: i32, deadline: Instant) -> Result<()> {
        let (chunk, progress) = &self.lent;
        self.produce_all(chunk, deadline)?;
        self.drain(chunk.messages.len() as u64, deadline)?;
        self.commit()?;
        self.producer.begin_transaction().map_err(|error| self.fault("cannot begin a transaction", &error))?;
        self.produce_progress(progress, partition, deadline)?;
        self.drain(chunk.messages.len() as u64 + 1, deadline)
    }

    fn produce_progress(&self, progress: &[u8], partition: i32, deadline: Instant) -> Result<()> {
        let topic = self.progress.as_ref().ok_or_else(not_fenced)?;
        self.produce(deadline, || {
            // SAFETY: lent until every delivery was served, or the engine is gone with its producer.
            unsafe { topic.produce(partition, Some(self.key.as_bytes()), Some(progress), &mut None, PROGRESS) }
        })
    }

    fn produce_all(&self, chunk: &Chunk, deadline: Instant) -> Result<()> {
        let data = self.data.as_ref().ok_or_else(not_fenced)?;
        for (index, message) in chunk.messages.iter().enumerate() {
            if failpoint::ENABLED && index == chunk.messages.len() / 2 {
                failpoint::reach_with(Step::Producing, || self.drain(index as u64, deadline))?;
            }
            let (topic, tag) = match message.target {
                Target::Data => (data, DATA),
                Target::DeadLetter => (self.dead.as_ref().ok_or_else(not_fenced)?, DEAD),
            };
            let key = message.key.map(|span| span.of(&chunk.buffer));
            let value = message.value.map(|span| span.of(&chunk.buffer));
            let mut headers = Some(headers(chunk, message));
            // SAFETY: as for the progress record.
            self.produce(deadline, || unsafe { topic.produce(-1, key, value, &mut headers, tag) })?;
            if index % SERVE_EVERY == SERVE_EVERY - 1 {
                self.serve(Duration::ZERO);
                self.check_faults()?;
            }
        }
        Ok(())
    }

    /// Queues one record; a full queue is back-pressure, not an error.
    fn produce(&self, deadline: Instant, mut queue: impl FnMut() -> Result<(), RDKafkaErrorCode>) -> Result<()> {
        loop {
            match queue() {
                Ok(()) => return Ok(()),
                Err(RDKafkaErrorCode::QueueFull) => {
                    self.serve(WAIT);
                    self.check_faults()?;
                    if Instant::now() >= deadline {
                        return Err(self.late());
                    }
                }
                Err(code) => return Err(self.fault_of("a record was refused", code)),
            }
        }
    }

    /// Waits until `expected` records are acknowledged, no more and no less.
    ///
    /// The crate's own flush, which its commit calls, looks every 100 ms only; each commit would take as long. So nothing
    /// may be left for it.
    fn drain(&self, expected: u64, deadline: Instant) -> Result<()> {
        loop {
            let acknowledged = self.tally.borrow().acknowledged;
            if acknowledged == expected {
                return self.check_faults();
            }
            if acknowledged > expected {
                let text = format!("{acknowledged} acknowledgements came for {expected} records");
                return Err(Error::new(Code::Internal, text));
            }
            self.check_faults()?;
            if Instant::now() >= deadline {
                return Err(self.late());
            }
            self.serve(WAIT);
        }
    }

    fn late(&self) -> Error {
        self.watch().explain(&format!("no acknowledgement within {DELIVERY:?}"), RDKafkaErrorCode::OperationTimedOut)
    }

    /// A record that failed, a transaction that can only be aborted, a producer that is fenced.
    fn check_faults(&self) -> Result<()> {
        let fault = self.tally.borrow().fault;
        if self.watch().transaction_failed() || fault.is_some_and(is_purge) {
            // In this state `begin` does nothing but return the error that led to it.
            let code = self.producer.begin_transaction().err().map_or(RDKafkaErrorCode::Fail, |failure| failure.code);
            return Err(self.fault_of("the transaction cannot go on", code));
        }
        if let Some(code) = fault {
            return Err(self.fault_of("a record was not delivered", code));
        }
        match self.producer.fatal_error() {
            Some((code, _)) => Err(self.fault_of("the producer cannot go on", code)),
            None => Ok(()),
        }
    }

    fn fault(&self, what: &str, failure: &Failure) -> Error {
        self.fault_of(what, failure.code)
    }

    /// The error for a code; the one that ended the producer goes first.
    fn fault_of(&self, what: &str, code: RDKafkaErrorCode) -> Error {
        let code = self.producer.fatal_error().map_or(code, |(fatal, _)| fatal);
        self.watch().explain(what, code)
    }

    fn commit(&self) -> Result<()> {
        let since = Instant::now();
        let result = self.commit_transaction();
        let took = since.elapsed();
        self.serve(Duration::ZERO);
        let breaks = self.watch().coordinator_breaks();
        match result {
            Ok(()) if (took <= COMMIT_CLEAR && breaks == 0) || planted(Bug::CommitRetried) => Ok(()),
            Ok(()) => {
                // librdkafka may have sent the request twice, and the second could end a later transaction.
                tracing::warn!(
                    took_ms = took.as_millis() as u64,
                    breaks,
                    "commit answered late or over a new connection"
                );
                Err(unclear(&format!("the commit took {took:?}, with {breaks} broken connections")))
            }
            Err(error) => Err(self.not_committed(&error, took)),
        }
    }

    /// The commit itself. With the fail point armed librdkafka's log is heard meanwhile: the line that says that the
    /// request was sent is the step, in [`Watch`].
    fn commit_transaction(&self) -> Result<(), Failure> {
        if !failpoint::is_armed(Step::CommitSent) {
            return self.producer.commit_transaction(COMMIT);
        }
        let (producer, is_over) = (&self.producer, AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    producer.serve(Duration::from_millis(1), |_| {});
                }
            });
            let result = producer.commit_transaction(COMMIT);
            is_over.store(true, Ordering::Release);
            result
        })
    }

    fn not_committed(&self, failure: &Failure, took: Duration) -> Error {
        let told = self.fault("the commit failed", failure);
        let is_refused = failure.requires_abort && !failure.is_retriable;
        if told.code == Code::KafkaFenced {
            return told;
        }
        if is_refused && took <= COMMIT_CLEAR {
            self.abort();
            return told;
        }
        unclear(&told.message).caused_by(failure.clone())
    }

    /// Aborts as well as can be: readers need not wait for the broker's time-out. A failure is harmless, since the next
    /// fence aborts too.
    fn abort(&self) {
        let deadline = Instant::now() + ABORT;
        loop {
            // Purged records come back as deliveries, which this thread must take in between.
            match self.producer.abort_transaction(Duration::from_millis(100)) {
                Err(error) if error.is_retriable && Instant::now() < deadline => {
                    self.serve(WAIT);
                }
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(%error, "the transaction is left to the next fence");
                    return;
                }
            }
        }
    }

    fn receipt(&self, progress_partition: i32) -> Result<Receipt> {
        let tally = self.tally.borrow();
        let [data, dead, progress] = &self.names;
        let partitions = tally.ranges(DATA, data).chain(tally.ranges(DEAD, dead)).collect();
        let own = tally.ranges(PROGRESS, progress).next();
        let progress_offset = own.map(|range| range.last_offset).ok_or_else(not_fenced)?;
        Ok(Receipt { partitions, progress_partition, progress_offset })
    }
}

fn headers(chunk: &Chunk, message: &Message) -> Headers {
    let mut headers = Headers::with_capacity(4 + chunk.headers.len());
    chunk.headers_of(message).for_each(|(name, value)| headers.add(name.as_bytes(), value));
    headers
}

fn not_fenced() -> Error {
    Error::new(Code::Internal, "a lane is fenced before it is read or written")
}

fn dead() -> Error {
    Error::new(Code::KafkaUnclear, "the lane ended with an earlier error; open a new one")
}

fn unclear(reason: &str) -> Error {
    Error::new(Code::KafkaUnclear, format!("it is not known whether the chunk is committed: {reason}"))
}

/// A progress topic that is gone although it was written to is a loss, not a first run.
fn lost_if_known(mut error: Error, spec: &LaneSpec) -> Error {
    let known = spec.progress_partition.is_some() || spec.progress_offset.is_some();
    if known && error.code == Code::KafkaTopicMissing {
        error.code = Code::KafkaProgressLost;
    }
    error
}

/// A piece of work for a lane's thread; false ends it.
type Job = Box<dyn FnOnce(&mut Engine) -> bool + Send>;

/// A lane of a Kafka destination.
pub(super) struct KafkaLane {
    way: Arc<Way>,
    spec: LaneSpec,
    /// Where the thread takes its work from; it ends with this, or before it when the lane is dead.
    jobs: mpsc::Sender<Job>,
    /// Known after [`Lane::fence`].
    partition: Option<i32>,
}

impl KafkaLane {
    /// Opens the producer, which dials in the background.
    pub(super) async fn open(way: Arc<Way>, plan: TopicPlan, message_bytes_max: usize) -> Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (tell, told) = oneshot::channel();
        let lane = Self { way: Arc::clone(&way), spec: plan.lane.clone(), jobs, partition: None };
        let span = tracing::Span::current();
        let work = move || match span.in_scope(|| Engine::new(&way, &plan, message_bytes_max)) {
            Ok(mut engine) => {
                let _ = tell.send(Ok(()));
                while todo.recv().is_ok_and(|job| job(&mut engine)) {}
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        let started = std::thread::Builder::new().name("kafka-lane".into()).spawn(work);
        started.map_err(|error| Error::new(Code::Internal, "no thread for a lane").caused_by(error))?;
        told.await.map_err(|_| dead())??;
        Ok(lane)
    }

    /// Has the lane's thread do `work`; an error is the last thing it does.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        let span = tracing::Span::current();
        let job = move |engine: &mut Engine| {
            let result = span.in_scope(|| work(engine));
            let is_alive = result.is_ok();
            tell.send(result).is_ok() && is_alive
        };
        self.jobs.send(Box::new(job)).map_err(|_| dead())?;
        told.await.map_err(|_| dead())?
    }
}

#[async_trait]
impl Lane for KafkaLane {
    async fn fence(&mut self) -> Result<()> {
        let spec = self.spec.clone();
        let found = self.blocking(move |engine| engine.fence(&spec)).await?;
        let partition = self.spec.progress_partition;
        let partition =
            partition.unwrap_or_else(|| progress::draw_partition(&self.spec.name, found.progress_partitions));
        if partition >= found.progress_partitions {
            let text = format!("progress partition {partition} is gone; the topic has {}", found.progress_partitions);
            return Err(Error::new(Code::KafkaProgressLost, text));
        }
        tracing::debug!(lane = %self.spec.name, partition, "lane taken over");
        self.partition = Some(partition);
        Ok(())
    }

    async fn progress(&mut self) -> Result<Option<Progress>> {
        let place = Place {
            topic: self.way.settings.progress_topic_name(),
            lane: self.spec.name.clone(),
            partition: self.partition.ok_or_else(not_fenced)?,
            hint: self.spec.progress_offset,
        };
        let way = Arc::clone(&self.way);
        super::off_thread(move || progress::read(&way, &place)).await?
    }

    fn progress_partition(&self) -> i32 {
        self.partition.or(self.spec.progress_partition).unwrap_or(0)
    }

    async fn send(&mut self, chunk: Chunk, progress: Progress) -> Result<(Chunk, Receipt)> {
        let partition = self.partition.ok_or_else(not_fenced)?;
        let (chunk, receipt) = self.blocking(move |engine| engine.send(chunk, &progress, partition)).await?;
        self.spec.progress_offset =
            Some(receipt.progress_offset).filter(|offset| *offset >= 0).or(self.spec.progress_offset);
        Ok((chunk, receipt))
    }
}
