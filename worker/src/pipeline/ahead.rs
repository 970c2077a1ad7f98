//! What a sync's next run would send, without a run: its first records to the byte, and how many there are.
//!
//! A batch in hand goes first: its rest is read as the run will read it. Otherwise the source looks at what the next seal
//! would fix, and fixes nothing. Position, Streams and topics stay as they are.

use async_trait::async_trait;
use freshet_core::app::App;
use freshet_core::connector::{
    Ahead, BatchName, Change, Chunk, Destination, EncodeError, Envelope, Flow, Message, ReadMode, ReadPlan,
    ReadRequest, SealRequest, Sink, Source, Target, TopicLook,
};
use freshet_core::endpoint::{self, Connection};
use freshet_core::error::{Code, Error, Result};
use freshet_core::id::{SyncId, WorkspaceId};
use freshet_core::organization;
use freshet_core::sync::work::{self, Work};
use freshet_core::sync::{Deletes, Position};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::batch::encoder;
use super::chunk::{ChunkSink, SinkPlan};
use super::start::{Start, counts_of};
use super::{read_plan, topic_plan, unwrap_batch};

/// Changes that are looked at, at most.
const CHANGES_MAX: usize = 100;
/// Their records' bytes, at most, but for the last one.
const BYTES_MAX: usize = 1 << 20;
/// Of one record's value shown, at most, in bytes.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// The first records that a sync's next run would send, as JSON.
///
/// # Errors
/// What the run would fail with before its first record.
pub(crate) async fn preview(app: &App, workspace: WorkspaceId, sync: SyncId) -> Result<Value> {
    let mut scene = Scene::open(app, workspace, sync).await?;
    let sample = scene.sample(app).await?;
    let Scene { work, look, position, destination, .. } = &scene;
    let partition = |key: Option<&[u8]>| destination.partition(key, look.partitions);
    let dead_letter_topic = work.config.dead_letter_topic(&work.topic);
    let topic = |target| match target {
        Target::Data => work.topic.as_str(),
        Target::DeadLetter => dead_letter_topic.as_str(),
    };
    let chunk = &sample.chunk;
    let records: Vec<_> = chunk
        .messages
        .iter()
        .map(|message| {
            // Dead letters have no key: any partition of their topic will do.
            let partition = partition(message.key.map(|key| key.of(&chunk.buffer)));
            record(chunk, message, topic(message.target), partition)
        })
        .collect();
    Ok(json!({
        "topic": work.topic,
        "topic_is_there": look.is_there,
        "partitions": look.partitions,
        "batch": scene.seq(),
        "in_hand": scene.in_hand(),
        "records": records,
        "more": sample.more,
        "stops_with": sample.stops_with.map(|error| json!({ "code": error.code.as_str(), "message": error.message })),
        "set_when_sent": set_when_sent(work, position),
    }))
}

/// How many records a sync's next run would send, as JSON.
///
/// # Errors
/// What the run would fail with before its first record.
pub(crate) async fn plan(app: &App, workspace: WorkspaceId, sync: SyncId) -> Result<Value> {
    let mut scene = Scene::open(app, workspace, sync).await?;
    let ahead = scene.count().await?;
    let sample = scene.sample(app).await?;
    let of = |letter: &str| ahead.ops.get(letter).copied().unwrap_or(0);
    let published = published(&ahead, &scene.work);
    let sampled = sample.chunk.messages.iter().filter(|message| message.target == Target::Data).map(bytes);
    let (records, bytes) = sampled.fold((0, 0), |(records, sum), bytes| (records + 1, sum + bytes));
    let bytes_all = if records == 0 { 0 } else { i128::from(published) * i128::from(bytes) / i128::from(records) };
    Ok(json!({
        "topic": scene.work.topic,
        "topic_is_there": scene.look.is_there,
        "partitions": scene.look.partitions,
        "batch": scene.seq(),
        "in_hand": scene.in_hand(),
        "creates": of("c"),
        "updates": of("u"),
        "deletes": of("d"),
        "refreshes": of("r"),
        "dead": ahead.dead,
        "records": published,
        "bytes": i64::try_from(bytes_all).unwrap_or(i64::MAX),
        "bytes_are_exact": records == published,
        "stops_with": sample.stops_with.map(|error| json!({ "code": error.code.as_str(), "message": error.message })),
    }))
}

/// Records of the data topic.
fn published(ahead: &Ahead, work: &Work) -> i64 {
    let deletes = ahead.ops.get("d").copied().unwrap_or(0);
    let changes = ahead.ops.values().sum::<i64>() - ahead.dead;
    match work.config.deletes() {
        Deletes::Both => changes + deletes,
        Deletes::Op | Deletes::Tombstone => changes,
        Deletes::Ignore => (changes - deletes).max(0),
    }
}

/// What of a record's bytes only the run itself knows.
fn set_when_sent(work: &Work, position: &Position) -> Vec<&'static str> {
    let time = match work.config.envelope {
        // A batch in hand was given its time when it was sealed.
        _ if in_hand(position) => None,
        Envelope::Debezium => Some("value.ts_ms"),
        Envelope::Stream => Some("value.timestamp"),
        Envelope::Row => None,
    };
    std::iter::once("header.freshet-run").chain(time).collect()
}

fn in_hand(position: &Position) -> bool {
    position.batch_state == "sealed"
}

/// Bytes of key and value.
fn bytes(message: &Message) -> i64 {
    let spans = [message.key, message.value].into_iter().flatten();
    spans.map(|span| i64::from(span.end - span.start)).sum()
}

fn record(chunk: &Chunk, message: &Message, topic: &str, partition: Option<i32>) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let header = |(name, value): (&str, &[u8])| {
        let value = (name != "freshet-run").then(|| text(value));
        json!({ "name": name, "value": value })
    };
    let value = message.value.map(|value| value.of(&chunk.buffer));
    let cut = value.is_some_and(|value| value.len() > VALUE_BYTES_MAX);
    json!({
        "topic": topic,
        "partition": partition,
        "key": message.key.map(|key| text(key.of(&chunk.buffer))),
        "headers": chunk.headers_of(message).map(header).collect::<Vec<_>>(),
        "value": value.map(|value| text(&value[..value.len().min(VALUE_BYTES_MAX)])),
        "value_is_cut": cut,
        "bytes": bytes(message),
    })
}

/// A sync and everything that a look ahead needs.
struct Scene {
    work: Work,
    kind: String,
    position: Position,
    name: BatchName,
    source: Box<dyn Source>,
    plan: ReadPlan,
    destination: Box<dyn Destination>,
    look: TopicLook,
}

impl Scene {
    async fn open(app: &App, workspace: WorkspaceId, sync: SyncId) -> Result<Self> {
        let mut tx = app.db.tenant(workspace).await?;
        let work = work::current(&mut tx, sync).await?;
        let position = work::position_ahead(&mut tx, sync, work.generation).await?;
        let (kind, settings) = endpoint::ops::open::<Connection>(app, &mut tx, work.connection_id).await?;
        let destination = endpoint::ops::open::<endpoint::Destination>(app, &mut tx, work.destination_id).await?;
        tx.commit().await?;
        let (egress, _) = organization::ops::egress_of(app, workspace).await?;
        let mut source = app.registry.find_source(&kind)?.open(settings, &egress).await?;
        source.keep_secrets(super::keeper(app, workspace, work.connection_id));
        let (source, plan) = read_plan(app, workspace, &work, source).await?;
        let mut destination = app.registry.find_destination(&destination.0)?.open(destination.1, &egress).await?;
        let topics = topic_plan(app.db.installation().await?, workspace, &work, Some(&position));
        let look = destination.look(&topics).await?;
        let name = BatchName {
            workspace: workspace.to_string(),
            sync: sync.to_string(),
            // A look ahead fixes nothing: there is no run to name.
            run: String::new(),
            seq: position.batch_seq + i64::from(!in_hand(&position)),
        };
        Ok(Self { work, kind, position, name, source, plan, destination, look })
    }

    fn in_hand(&self) -> bool {
        in_hand(&self.position)
    }

    fn seq(&self) -> i64 {
        self.name.seq
    }

    fn next(&self) -> SealRequest {
        SealRequest {
            name: self.name.clone(),
            plan: self.plan.clone(),
            position: self.position.token.clone().filter(|_| self.plan.mode != ReadMode::Full),
            carry: self.position.carry.clone(),
        }
    }

    fn rest(&self) -> ReadRequest {
        let (batch, _) = unwrap_batch(self.position.batch.as_ref());
        let from = self.position.token.clone().filter(|_| self.position.ordinal > 0);
        ReadRequest { name: self.name.clone(), plan: self.plan.clone(), batch, from }
    }

    /// Where the batch goes on, as far as Postgres knows.
    fn start(&self) -> Start {
        if !self.in_hand() {
            return Start::default();
        }
        let told = self.position.progress.as_ref();
        let told = told.filter(|told| told.generation == self.work.generation && told.batch_seq == self.seq());
        Start {
            ordinal: self.position.ordinal,
            token: self.rest().from,
            ops: told.map(|told| told.ops.clone()).unwrap_or_default(),
            counts: told.map(counts_of).unwrap_or_default(),
            complete: false,
        }
    }

    async fn count(&mut self) -> Result<Ahead> {
        if !self.in_hand() {
            let next = self.next();
            return self.source.count_ahead(&next).await;
        }
        let mut count = Count::default();
        let rest = self.rest();
        self.source.read(&rest, &mut count).await?;
        Ok(count.0)
    }

    /// The first changes, encoded as the run will encode them.
    async fn sample(&mut self, app: &App) -> Result<Sampled> {
        let ts_ms = match self.in_hand() {
            true => unwrap_batch(self.position.batch.as_ref()).1,
            false => app.clock.now().timestamp_millis(),
        };
        let plan = SinkPlan {
            batch_seq: self.seq(),
            ts_ms,
            rows_max: CHANGES_MAX,
            bytes_max: BYTES_MAX,
            message_bytes_max: self.look.message_bytes_max,
            // The dead letters' topic may take less: then the run leaves such a row out of its dead letter.
            dead_letter_bytes_max: self.look.message_bytes_max,
            clock: app.clock.clone(),
            ..SinkPlan::of(&self.work)
        };
        let encoder = encoder(&app.registry, &self.work, &self.kind, &self.plan)?;
        // Nothing is handed over.
        let ((full, _), (_, spare)) = (mpsc::channel(1), mpsc::channel(1));
        let chunk = ChunkSink::new(encoder, plan, &self.start(), full, spare);
        let mut sample = Sample { chunk, end: End::Open };
        let read = if self.in_hand() {
            let rest = self.rest();
            self.source.read(&rest, &mut sample).await.map(|_| ())
        } else {
            let next = self.next();
            // One more shows whether there are more.
            self.source.look_ahead(&next, CHANGES_MAX + 1, &mut sample).await
        };
        let (more, stops_with) = match (sample.end, read) {
            (End::More, _) => (true, None),
            (End::Stops(error), _) => (true, Some(error)),
            (End::Open | End::Full, read) => read.map(|()| (false, None))?,
        };
        Ok(Sampled { chunk: sample.chunk.into_chunk(), more, stops_with })
    }
}

/// The first changes of a batch.
struct Sampled {
    chunk: Chunk,
    more: bool,
    /// What the run would end with after these.
    stops_with: Option<Error>,
}

/// Takes the first changes of a batch, and ends the read behind them.
struct Sample {
    chunk: ChunkSink,
    end: End,
}

enum End {
    /// There is room.
    Open,
    /// There is none, and nothing came since.
    Full,
    /// Something came since.
    More,
    /// The run would end here.
    Stops(Error),
}

impl Sample {
    fn take(&mut self, push: impl FnOnce(&mut ChunkSink) -> Result<Flow>) -> Result<Flow> {
        if let End::Open = self.end {
            self.end = match push(&mut self.chunk) {
                Ok(Flow::More) => End::Open,
                Ok(Flow::Full) => End::Full,
                Err(error) => End::Stops(error),
            };
        } else if let End::Full = self.end {
            self.end = End::More;
        }
        match self.end {
            // A sample is never flushed, so it never says that it is full.
            End::Open | End::Full => Ok(Flow::More),
            End::More | End::Stops(_) => Err(Error::new(Code::Cancelled, "there are changes enough")),
        }
    }
}

#[async_trait]
impl Sink for Sample {
    fn push(&mut self, change: Change<'_>) -> Result<Flow> {
        self.take(|chunk| chunk.push(change))
    }

    fn bury(&mut self, change: Change<'_>, reason: EncodeError) -> Result<Flow> {
        self.take(|chunk| chunk.bury(change, reason))
    }

    async fn flush(&mut self, _: Value) -> Result<()> {
        Ok(())
    }
}

/// Counts changes, and keeps none.
#[derive(Default)]
struct Count(Ahead);

impl Count {
    fn count(&mut self, change: &Change<'_>) {
        *self.0.ops.entry(change.op.letter().to_owned()).or_insert(0) += 1;
    }
}

#[async_trait]
impl Sink for Count {
    fn push(&mut self, change: Change<'_>) -> Result<Flow> {
        self.count(&change);
        Ok(Flow::More)
    }

    fn bury(&mut self, change: Change<'_>, _: EncodeError) -> Result<Flow> {
        self.count(&change);
        self.0.dead += 1;
        Ok(Flow::More)
    }

    async fn flush(&mut self, _: Value) -> Result<()> {
        Ok(())
    }
}
