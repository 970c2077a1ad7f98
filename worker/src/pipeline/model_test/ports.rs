//! Source, destination and ledger of the model: each call is a step of the world.

use std::sync::Arc;

use async_trait::async_trait;
use freshet_core::connector::{
    BatchName, Catalogue, Cell, Change, Chunk, Destination, DestinationKind, Field, Flow, KeyCheck, Lane, ModelSpec,
    Op, Prepared, Preview, Progress, ReadEnd, ReadRequest, Receipt, Row, Schema, SealRequest, Sealed, Sink, Source,
    SourceKind, SourceQuery, Step, Target, TopicPlan,
};
use freshet_core::egress::Egress;
use freshet_core::error::{Code, Error, Result};
use freshet_core::run::work::Delivered;
use freshet_core::run::{CountBase, Counts, RunState};
use serde_json::{Value, json};

use super::super::ledger::Ledger;
use super::world::{Kind, Place, Sent, SourceState, State, World, version_of};

/// One worker's hand on the world.
#[derive(Clone)]
pub(super) struct Hand {
    pub(super) world: Arc<World>,
    pub(super) who: usize,
}

impl Hand {
    pub(super) async fn step<T>(
        &self,
        place: Place,
        effect: impl FnOnce(&mut State) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.world.step(self.who, place, effect).await
    }
}

const SEAL: Place = Place::new("seal", Kind::Sends, Code::SnowflakeUnreachable);
const OPEN: Place = Place::new("open the batch", Kind::Asks, Code::SnowflakeUnreachable);
const ROW: Place = Place::new("read a row", Kind::Asks, Code::SnowflakeConnectionLost);
const RELEASE: Place = Place::new("release", Kind::Sends, Code::SnowflakeUnreachable);

/// The kind `memory`, as a source and as a destination.
#[derive(Clone)]
pub(super) struct Memory(pub(super) Hand);

#[async_trait]
impl SourceKind for Memory {
    const NAME: &'static str = "memory";
    const FIELDS: &'static [Field] = &[];
    type Settings = ();

    fn validate(&self, (): &()) -> Result<()> {
        Ok(())
    }

    fn validate_model(&self, _: &ModelSpec) -> Result<()> {
        Ok(())
    }

    fn setup_script(&self, _: &Self::Settings) -> String {
        String::new()
    }

    async fn open(&self, (): (), _: Arc<Egress>) -> Result<Box<dyn Source>> {
        Ok(Box::new(MemorySource(self.0.clone())))
    }
}

struct MemorySource(Hand);

fn unasked<T>() -> Result<T> {
    Err(Error::new(Code::Internal, "the delivery path does not ask this"))
}

#[async_trait]
impl Source for MemorySource {
    async fn check(&mut self) -> Vec<Step> {
        Vec::new()
    }

    async fn catalogue(&mut self, _: Option<&str>) -> Result<Catalogue> {
        unasked()
    }

    async fn describe(&mut self, _: &ModelSpec) -> Result<(Schema, Vec<String>)> {
        unasked()
    }

    async fn preview(&mut self, _: &ModelSpec, _: usize) -> Result<Preview> {
        unasked()
    }

    async fn key_check(&mut self, _: &ModelSpec, _: &[String]) -> Result<KeyCheck> {
        unasked()
    }

    async fn seal(&mut self, request: &SealRequest) -> Result<Sealed> {
        let (seq, after) = (request.name.seq, place_of(request.position.as_ref()));
        self.0
            .step(SEAL, move |state| {
                let (batch, empty) = match &mut state.source {
                    SourceState::Cursor { rows, .. } => {
                        let bound = rows.values().max().copied().unwrap_or(0);
                        (json!({ "after": after, "bound": bound }), bound <= after)
                    }
                    staged @ SourceState::Staged { .. } => (json!({ "after": 0, "bound": 0 }), staged.seal(seq) == 0),
                };
                Ok(Sealed { batch, carry: None, empty, notes: Vec::new() })
            })
            .await
    }

    async fn read(&mut self, request: &ReadRequest, sink: &mut dyn Sink) -> Result<ReadEnd> {
        let number = |name: &str| request.batch[name].as_i64().unwrap_or(0);
        let (seq, bound) = (request.name.seq, number("bound"));
        let from = request.from.as_ref().map_or(number("after"), |token| place_of(Some(token)));
        let (rows, is_staged) = self
            .0
            .step(OPEN, move |state| {
                let is_staged = matches!(state.source, SourceState::Staged { .. });
                Ok((state.source.read(seq, from, bound)?, is_staged))
            })
            .await?;
        let (mut token, mut full) = (None, false);
        for (index, found) in rows.iter().enumerate() {
            self.0.step(ROW, |_| Ok(())).await?;
            // As the sources do: a table of a cursor says where it is once the next row is there.
            if std::mem::take(&mut full) {
                sink.flush(token.clone().unwrap_or_default()).await?;
            }
            let mut row = Row::default();
            row.push(found.key.map_or(Cell::Null, Cell::Int));
            row.push(Cell::Int(found.version));
            full = sink.push(Change { op: Op::Update, before: None, after: Some(&row) })? == Flow::Full;
            token = Some(json!(if is_staged { from + index as i64 + 1 } else { found.version }));
            if is_staged && std::mem::take(&mut full) {
                sink.flush(token.clone().unwrap_or_default()).await?;
            }
        }
        Ok(ReadEnd { token })
    }

    async fn release(&mut self, name: &BatchName, _: &Value) -> Result<()> {
        let seq = name.seq;
        self.0
            .step(RELEASE, move |state| {
                state.release(seq);
                Ok(())
            })
            .await
    }
}

fn place_of(token: Option<&Value>) -> i64 {
    token.and_then(Value::as_i64).unwrap_or(0)
}

const PREPARE: Place = Place::new("prepare", Kind::Asks, Code::KafkaUnreachable);
const FENCE: Place = Place::new("fence", Kind::Writes, Code::KafkaTimeout);
const PROGRESS: Place = Place::new("read progress", Kind::Asks, Code::KafkaTimeout);
const PRODUCE: Place = Place::new("produce", Kind::Writes, Code::KafkaTimeout);
const COMMIT: Place = Place::new("commit", Kind::Sends, Code::KafkaUnclear);

#[async_trait]
impl DestinationKind for Memory {
    const NAME: &'static str = "memory";
    const FIELDS: &'static [Field] = &[];
    type Settings = ();

    fn validate(&self, (): &()) -> Result<()> {
        Ok(())
    }

    async fn open(&self, (): (), _: Arc<Egress>) -> Result<Box<dyn Destination>> {
        Ok(Box::new(MemoryDestination(self.0.clone())))
    }
}

struct MemoryDestination(Hand);

#[async_trait]
impl Destination for MemoryDestination {
    async fn check(&mut self) -> Vec<Step> {
        Vec::new()
    }

    async fn prepare(&mut self, _: &TopicPlan) -> Result<Prepared> {
        let prepared = || Prepared {
            steps: Vec::new(),
            cluster_id: "memory".into(),
            message_bytes_max: 1_000_000,
            dead_letter_bytes_max: 1_000_000,
            progress_partitions: 1,
        };
        self.0.step(PREPARE, move |_| Ok(prepared())).await
    }

    async fn lane(&mut self, _: &TopicPlan) -> Result<Box<dyn Lane>> {
        Ok(Box::new(MemoryLane { hand: self.0.clone(), epoch: None }))
    }
}

/// A producer: dead after its first error, as Kafka's is.
struct MemoryLane {
    hand: Hand,
    epoch: Option<u64>,
}

#[async_trait]
impl Lane for MemoryLane {
    async fn fence(&mut self) -> Result<()> {
        self.epoch = Some(self.hand.step(FENCE, |state| Ok(state.fence())).await?);
        Ok(())
    }

    async fn progress(&mut self) -> Result<Option<Progress>> {
        if self.epoch.is_none() {
            self.hand.world.lock().broken.push("progress was read before the lane was fenced".into());
        }
        self.hand.step(PROGRESS, |state| Ok(state.log.progress.last().cloned())).await
    }

    fn progress_partition(&self) -> i32 {
        0
    }

    async fn send(&mut self, chunk: Chunk, progress: Progress) -> Result<(Chunk, Receipt)> {
        let epoch = self.epoch.take().ok_or_else(|| Error::new(Code::KafkaUnclear, "the lane ended"))?;
        let records = records(&chunk);
        self.hand.step(PRODUCE, move |state| state.produce(epoch, records, progress)).await?;
        let progress_offset = self.hand.step(COMMIT, move |state| state.commit(epoch)).await?;
        self.epoch = Some(epoch);
        Ok((chunk, Receipt { partitions: Vec::new(), progress_partition: 0, progress_offset }))
    }
}

fn records(chunk: &Chunk) -> Vec<Sent> {
    let record = |message: &freshet_core::connector::Message| {
        let value = message.value.map_or(&b"null"[..], |span| span.of(&chunk.buffer));
        Sent {
            id: String::from_utf8_lossy(message.id.of(&chunk.buffer)).into_owned(),
            row: version_of(&serde_json::from_slice(value).unwrap_or_default()),
            dead: message.target == Target::DeadLetter,
        }
    };
    chunk.messages.iter().map(record).collect()
}

const MOVED: Place = Place::new("write the run's state", Kind::Writes, Code::Database);
const CHECK: Place = Place::new("look at the lease", Kind::Asks, Code::Database);
const SEALED: Place = Place::new("write the batch down", Kind::Writes, Code::Database);
const ADOPTED: Place = Place::new("adopt the batch", Kind::Writes, Code::Database);
const KAFKA_ADOPTED: Place = Place::new("adopt Kafka's position", Kind::Writes, Code::Database);
const PLACED: Place = Place::new("write the lane's place down", Kind::Writes, Code::Database);
const DELIVERED: Place = Place::new("write down what is delivered", Kind::Writes, Code::Database);
const RELEASED: Place = Place::new("write down that it is released", Kind::Writes, Code::Database);

/// The ledger of one claim: what `core`'s statements do, each with its claim.
pub(super) struct MemoryLedger {
    pub(super) hand: Hand,
    pub(super) claim: (usize, i64),
}

impl MemoryLedger {
    async fn write(&self, place: Place, effect: impl FnOnce(&mut State) -> Result<()> + Send + 'static) -> Result<()> {
        let judged = move |state: &mut State| {
            effect(state)?;
            state.judge_books();
            Ok(())
        };
        self.hand.step(place, judged).await
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn moved(&self, _: RunState, _: &str, _: Value) -> Result<()> {
        let claim = self.claim;
        self.write(MOVED, move |state| state.held(claim).map(|_| ())).await
    }

    async fn check(&self) -> Result<()> {
        let claim = self.claim;
        self.hand.step(CHECK, move |state| state.held(claim).map(|_| ())).await
    }

    async fn sealed(&self, batch_seq: i64, sealed: &Sealed, base: &Counts) -> Result<()> {
        let (claim, sealed, base) = (self.claim, sealed.clone(), *base);
        let effect = move |state: &mut State| {
            let run = state.held(claim)?;
            (run.own_batch, run.count_base) = (Some(batch_seq), CountBase { counts: base, adopted: None });
            let position = state.position(claim)?;
            position.batch_seq = batch_seq;
            position.batch_state = if sealed.empty { "released".into() } else { "sealed".into() };
            position.batch = Some(sealed.batch);
            position.ordinal = 0;
            Ok(())
        };
        self.write(SEALED, effect).await
    }

    async fn asked(&self, _: &[SourceQuery]) -> Result<()> {
        Ok(())
    }

    async fn adopted(&self, batch_seq: i64, base: &Counts) -> Result<()> {
        let (claim, base) = (self.claim, *base);
        let effect = move |state: &mut State| {
            state.held(claim)?.count_base = CountBase { counts: base, adopted: Some(batch_seq) };
            Ok(())
        };
        self.write(ADOPTED, effect).await
    }

    async fn kafka_adopted(&self, progress: &Progress) -> Result<()> {
        let (claim, progress) = (self.claim, progress.clone());
        let effect = move |state: &mut State| {
            state.held(claim)?;
            let position = state.position(claim)?;
            (position.batch_seq, position.batch_state) = (progress.batch_seq, "sealed".into());
            (position.batch, position.carry) = (progress.batch.clone(), progress.carry.clone());
            position.adopt = false;
            position.follow(&progress, None);
            Ok(())
        };
        self.write(KAFKA_ADOPTED, effect).await
    }

    async fn placed(&self, cluster_id: &str, partition: i32) -> Result<()> {
        let (claim, cluster_id) = (self.claim, cluster_id.to_owned());
        let effect = move |state: &mut State| {
            state.held(claim)?;
            let position = state.position(claim)?;
            (position.cluster_id, position.progress_partition) = (Some(cluster_id), Some(partition));
            Ok(())
        };
        self.write(PLACED, effect).await
    }

    async fn delivered(&self, counts: &Counts, delivered: &Delivered) -> Result<()> {
        let (claim, counts) = (self.claim, *counts);
        let (progress, offset) = (delivered.progress.clone(), delivered.progress_offset);
        let effect = move |state: &mut State| {
            state.held(claim)?.counts = counts;
            let position = state.position(claim)?;
            if let Some(progress) = progress {
                position.follow(&progress, offset);
            }
            Ok(())
        };
        self.write(DELIVERED, effect).await
    }

    async fn released(&self, batch_seq: i64, counts: &Counts) -> Result<()> {
        let (claim, counts) = (self.claim, *counts);
        let effect = move |state: &mut State| {
            state.held(claim)?.count_base = CountBase { counts, adopted: None };
            let position = state.position(claim)?;
            if position.batch_seq == batch_seq {
                position.batch_state = "released".into();
            }
            Ok(())
        };
        self.write(RELEASED, effect).await
    }
}
