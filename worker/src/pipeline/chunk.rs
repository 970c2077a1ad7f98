//! Filling chunks: each change is encoded into the chunk's one buffer, or becomes a dead letter in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use freshet_core::clock::Clock;
use freshet_core::connector::{
    Change, ChangeMeta, Chunk, EncodeError, Encoder, Flow, Header, Message, Op, Progress, ReadMode, Row, Sink, Span,
    Target,
};
use freshet_core::error::{Code, Error, Result};
use freshet_core::run::work::DeadLetter;
use freshet_core::sync::work::Work;
use freshet_core::sync::{Deletes, ErrorTolerance};
use freshet_core::trace;
use serde_json::Value;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::Xxh3Default;

use super::start::Start;

/// Room that a record takes in a batch besides its key, value and headers.
const RECORD_OVERHEAD: usize = 256;

/// A full chunk on its way to the lane.
pub(super) struct Full {
    pub(super) chunk: Chunk,
    pub(super) progress: Progress,
    pub(super) dead: Vec<DeadLetter>,
}

/// What a sink needs to know.
pub(super) struct SinkPlan {
    pub(super) sync_id: String,
    pub(super) sync_name: String,
    pub(super) topic: String,
    pub(super) run_id: String,
    pub(super) fence: i64,
    pub(super) generation: i64,
    pub(super) batch_seq: i64,
    /// The batch as it was sealed, and what is carried from it to the next seal.
    pub(super) batch: Option<Value>,
    pub(super) carry: Option<Value>,
    pub(super) ts_ms: i64,
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
    pub(super) message_bytes_max: usize,
    pub(super) dead_letter_bytes_max: usize,
    pub(super) tolerance: ErrorTolerance,
    pub(super) deletes: Deletes,
    pub(super) headers: BTreeMap<String, String>,
    /// A key that comes twice in a row is a fault of the model: the rows are ordered by key.
    pub(super) one_row_per_key: bool,
    pub(super) clock: Clock,
}

impl SinkPlan {
    /// What a sync says of itself; run, batch and limits are not of its own.
    pub(super) fn of(work: &Work) -> Self {
        Self {
            sync_id: work.sync_id.to_string(),
            sync_name: work.sync_name.clone(),
            topic: work.topic.clone(),
            run_id: String::new(),
            fence: 0,
            generation: work.generation,
            batch_seq: 0,
            batch: None,
            carry: None,
            ts_ms: 0,
            rows_max: 0,
            bytes_max: 0,
            message_bytes_max: 0,
            dead_letter_bytes_max: 0,
            tolerance: work.config.error_tolerance,
            deletes: work.config.deletes(),
            headers: work.config.headers.clone(),
            one_row_per_key: work.config.mode == ReadMode::Full,
            clock: Clock::system(),
        }
    }
}

/// Takes a batch's changes and hands chunks over.
pub(super) struct ChunkSink {
    encoder: Box<dyn Encoder>,
    plan: SinkPlan,
    headers: Arc<[Header]>,
    /// `sync.generation.batch.`, before the ordinal of a `freshet-id`.
    id_prefix: Vec<u8>,
    chunk: Chunk,
    dead: Vec<DeadLetter>,
    last_key: Vec<u8>,
    /// Of the last chunk handed over: where a batch ends whose last rows are gone from the source.
    token: Option<Value>,
    ordinal: i64,
    rows: i64,
    sent: i64,
    dead_count: i64,
    bytes: i64,
    /// By letter: c, u, d, r.
    ops: [(&'static str, i64); 4],
    full: mpsc::Sender<Full>,
    spare: mpsc::Receiver<Chunk>,
    /// Which chunk is being filled, from 1, and how long that takes.
    number: u64,
    filling: tracing::Span,
}

/// An empty chunk that will not have to grow, but for a last row over the limit.
fn room(plan: &SinkPlan) -> Chunk {
    Chunk::with_capacity(plan.rows_max, plan.bytes_max + plan.message_bytes_max.min(plan.bytes_max))
}

/// Reading and encoding the rows of a chunk, of some chunks.
fn encode_span(number: u64) -> tracing::Span {
    if trace::is_traced(number) { tracing::info_span!("encode", chunk = number as i64) } else { tracing::Span::none() }
}

impl ChunkSink {
    pub(super) fn new(
        encoder: Box<dyn Encoder>,
        plan: SinkPlan,
        start: &Start,
        full: mpsc::Sender<Full>,
        spare: mpsc::Receiver<Chunk>,
    ) -> Self {
        let own = [("freshet-run", &plan.run_id), ("freshet-sync", &plan.sync_id)];
        let own = own.map(|(name, value)| Header { name: name.into(), value: value.clone().into_bytes() });
        let users =
            plan.headers.iter().map(|(name, value)| Header { name: name.clone(), value: value.clone().into_bytes() });
        let headers: Arc<[Header]> = own.into_iter().chain(users).collect();
        let known = |letter: &'static str| (letter, start.ops.get(letter).copied().unwrap_or(0));
        Self {
            encoder,
            id_prefix: format!("{}.{}.{}.", plan.sync_id, plan.generation, plan.batch_seq).into_bytes(),
            chunk: Chunk { headers: headers.clone(), ..room(&plan) },
            headers,
            dead: Vec::new(),
            last_key: Vec::new(),
            token: start.token.clone(),
            ordinal: start.ordinal,
            rows: 0,
            sent: start.counts.published,
            dead_count: start.counts.dead,
            bytes: start.counts.bytes,
            ops: ["c", "u", "d", "r"].map(known),
            full,
            spare,
            number: 1,
            filling: encode_span(1),
            plan,
        }
    }

    /// Hands the last chunk over: the batch is complete with it.
    pub(super) async fn finish(mut self, token: Option<Value>) -> Result<()> {
        self.hand_over(token, true).await
    }

    /// The chunk as far as it is filled.
    pub(super) fn into_chunk(self) -> Chunk {
        self.chunk
    }

    async fn hand_over(&mut self, token: Option<Value>, complete: bool) -> Result<()> {
        self.filling = tracing::Span::none();
        let next = match self.spare.try_recv() {
            Ok(mut chunk) => {
                chunk.clear();
                chunk
            }
            Err(_) => room(&self.plan),
        };
        let chunk = std::mem::replace(&mut self.chunk, Chunk { headers: self.headers.clone(), ..next });
        self.token = token.or_else(|| self.token.take());
        let progress = self.progress(&chunk, self.token.clone(), complete);
        self.rows = 0;
        let full = Full { chunk, progress, dead: std::mem::take(&mut self.dead) };
        let gone = |_| Error::new(Code::Cancelled, "the chunks are not wanted any more");
        self.full.send(full).await.map_err(gone)?;
        self.number += 1;
        if !complete {
            self.filling = encode_span(self.number);
        }
        Ok(())
    }

    fn progress(&self, chunk: &Chunk, token: Option<Value>, complete: bool) -> Progress {
        let mut digest = Xxh3Default::new();
        digest.update(&chunk.buffer);
        let ops = self.ops.iter().filter(|(_, count)| *count > 0).map(|(letter, count)| ((*letter).to_owned(), *count));
        Progress {
            v: 1,
            generation: self.plan.generation,
            fence: self.plan.fence,
            run_id: self.plan.run_id.clone(),
            batch_seq: self.plan.batch_seq,
            ordinal: self.ordinal,
            ops: ops.collect(),
            rows_sent: self.sent,
            rows_dead: self.dead_count,
            bytes: self.bytes,
            batch_complete: complete,
            source_token: token,
            batch: self.plan.batch.clone(),
            carry: self.plan.carry.clone(),
            chunk_digest: format!("{:032x}", digest.digest128()),
            at: self.plan.clock.now(),
        }
    }

    fn span(&self, start: usize) -> Span {
        Span { start: start as u32, end: self.chunk.buffer.len() as u32 }
    }

    fn id(&mut self) -> Span {
        let start = self.chunk.buffer.len();
        self.chunk.buffer.extend_from_slice(&self.id_prefix);
        self.chunk.buffer.extend_from_slice(itoa::Buffer::new().format(self.ordinal).as_bytes());
        self.span(start)
    }

    /// The id of the tombstone that follows a delete: the delete's own and `.t`, for each record has one of its own.
    fn tombstone_id(&mut self, id: Span) -> Span {
        let start = self.chunk.buffer.len();
        self.chunk.buffer.extend_from_within(id.start as usize..id.end as usize);
        self.chunk.buffer.extend_from_slice(b".t");
        self.span(start)
    }

    /// Encodes a change; on an error nothing of it is left in the buffer.
    fn encode(&mut self, change: &Change<'_>) -> Result<(), EncodeError> {
        let start = self.chunk.buffer.len();
        let encoded = self.encode_at(change);
        if encoded.is_err() {
            self.chunk.buffer.truncate(start);
        }
        encoded
    }

    fn encode_at(&mut self, change: &Change<'_>) -> Result<(), EncodeError> {
        let row = change.row().ok_or_else(|| EncodeError {
            code: Code::EncodeFailed,
            column: String::new(),
            reason: "the change has no row".into(),
        })?;
        let start = self.chunk.buffer.len();
        self.encoder.key(row, &mut self.chunk.buffer)?;
        let key = self.span(start);
        if self.plan.one_row_per_key {
            if self.last_key == key.of(&self.chunk.buffer) && self.ordinal > 1 {
                let reason = "the key came before in this batch".to_owned();
                return Err(EncodeError { code: Code::ModelKeyDuplicate, column: String::new(), reason });
            }
            self.last_key.clear();
            self.last_key.extend_from_slice(key.of(&self.chunk.buffer));
        }
        let meta = ChangeMeta { ts_ms: self.plan.ts_ms, batch_seq: self.plan.batch_seq, ordinal: self.ordinal };
        let start = self.chunk.buffer.len();
        let is_delete = change.op == Op::Delete;
        let silent = is_delete && self.plan.deletes == Deletes::Tombstone;
        let has_value = !silent && self.encoder.value(change, meta, &mut self.chunk.buffer)?;
        let value = has_value.then(|| self.span(start));
        let size = self.chunk.buffer.len() - key.start as usize;
        if size + RECORD_OVERHEAD > self.plan.message_bytes_max {
            let limit = self.plan.message_bytes_max;
            let reason = format!("the record is larger than the topic takes ({limit} bytes)");
            return Err(EncodeError { code: Code::KafkaMessageTooLarge, column: String::new(), reason });
        }
        let id = self.id();
        let op = change.op.letter();
        self.chunk.messages.push(Message { target: Target::Data, key: Some(key), value, id, op, extra: None });
        self.bytes += size as i64;
        self.sent += 1;
        if is_delete && has_value && self.plan.deletes == Deletes::Both {
            let id = self.tombstone_id(id);
            self.chunk.messages.push(Message {
                target: Target::Data,
                key: Some(key),
                value: None,
                id,
                op,
                extra: None,
            });
            self.bytes += key.of(&self.chunk.buffer).len() as i64;
            self.sent += 1;
        }
        Ok(())
    }

    /// Puts a dead letter into the chunk: the row as it came, and why it cannot be sent, as Kafka Connect says it.
    fn put_dead_letter(&mut self, change: &Change<'_>, error: EncodeError) -> Result<()> {
        self.dead_count += 1;
        let read: i64 = self.ops.iter().map(|(_, count)| count).sum();
        if !self.plan.tolerance.allows(self.dead_count, read) {
            let told = match (self.plan.tolerance, error.column.as_str()) {
                (ErrorTolerance::None, "") => format!("row {} of the batch: {}", self.ordinal, error.reason),
                (ErrorTolerance::None, column) => {
                    format!("row {} of the batch: column `{column}`: {}", self.ordinal, error.reason)
                }
                _ => format!("{} dead letters among {read} rows are more than tolerated", self.dead_count),
            };
            let code = if self.plan.tolerance == ErrorTolerance::None { error.code } else { Code::ErrorBudgetSpent };
            return Err(Error::new(code, told));
        }
        let start = self.chunk.buffer.len();
        let empty = Row::default();
        if let Some(row) = change.row() {
            self.encoder.row(row, &mut self.chunk.buffer);
        } else {
            self.encoder.row(&empty, &mut self.chunk.buffer);
        }
        let size = self.chunk.buffer.len() - start;
        let fits = size + RECORD_OVERHEAD * 4 <= self.plan.dead_letter_bytes_max;
        if !fits {
            self.chunk.buffer.truncate(start);
        }
        let value = fits.then(|| self.span(start));
        let id = self.id();
        let extra = Some(self.chunk.extra_headers.len() as u32);
        self.chunk.extra_headers.push(self.reasons(&error, fits, size));
        let op = change.op.letter();
        self.chunk.messages.push(Message { target: Target::DeadLetter, key: None, value, id, op, extra });
        self.bytes += if fits { size as i64 } else { 0 };
        self.count_dead(error);
        Ok(())
    }

    /// Counts a change that was read: it has its ordinal, whatever becomes of it.
    fn count(&mut self, change: &Change<'_>) {
        self.ordinal += 1;
        self.rows += 1;
        if let Some((_, count)) = self.ops.iter_mut().find(|(letter, _)| *letter == change.op.letter()) {
            *count += 1;
        }
    }

    fn flow(&self) -> Flow {
        let full = self.rows >= self.plan.rows_max as i64 || self.chunk.buffer.len() >= self.plan.bytes_max;
        if full { Flow::Full } else { Flow::More }
    }

    fn reasons(&self, error: &EncodeError, fits: bool, size: usize) -> Vec<Header> {
        let message = if error.column.is_empty() {
            error.reason.clone()
        } else {
            format!("column `{}`: {}", error.column, error.reason)
        };
        let mut headers = vec![
            ("__connect.errors.topic", self.plan.topic.clone()),
            ("__connect.errors.connector.name", self.plan.sync_name.clone()),
            ("__connect.errors.task.id", "0".to_owned()),
            ("__connect.errors.stage", "VALUE_CONVERTER".to_owned()),
            ("__connect.errors.class.name", "freshet.json".to_owned()),
            ("__connect.errors.exception.class.name", error.code.as_str().to_owned()),
            ("__connect.errors.exception.message", message),
        ];
        if !fits {
            headers.push(("freshet-row-left-out-bytes", size.to_string()));
        }
        headers.into_iter().map(|(name, value)| Header { name: name.into(), value: value.into_bytes() }).collect()
    }

    fn count_dead(&mut self, error: EncodeError) {
        match self.dead.iter_mut().find(|known| known.error == error) {
            Some(known) => {
                known.records += 1;
                known.last_ordinal = self.ordinal;
            }
            None => self.dead.push(DeadLetter {
                error,
                records: 1,
                first_ordinal: self.ordinal,
                last_ordinal: self.ordinal,
            }),
        }
    }
}

#[async_trait]
impl Sink for ChunkSink {
    fn push(&mut self, change: Change<'_>) -> Result<Flow> {
        self.count(&change);
        let ignored = change.op == Op::Delete && self.plan.deletes == Deletes::Ignore;
        if !ignored && let Err(error) = self.encode(&change) {
            self.put_dead_letter(&change, error)?;
        }
        Ok(self.flow())
    }

    fn bury(&mut self, change: Change<'_>, reason: EncodeError) -> Result<Flow> {
        self.count(&change);
        self.put_dead_letter(&change, reason)?;
        Ok(self.flow())
    }

    async fn flush(&mut self, token: Value) -> Result<()> {
        self.hand_over(Some(token), false).await
    }
}

#[cfg(test)]
mod tests {
    use freshet_core::connector::{Cell, Column, EncodePlan, Envelope, FormatKind, KeyForm, Kind, NumberForm, Schema};

    use super::*;
    use crate::formats::json;

    fn sink(envelope: Envelope, deletes: Deletes, tolerance: ErrorTolerance) -> (ChunkSink, mpsc::Receiver<Full>) {
        let column = Column { name: "id".into(), kind: Kind::Int, source_type: "int8".into(), nullable: true };
        let plan = EncodePlan {
            schema: Schema { columns: vec![column] },
            key: vec![0],
            envelope,
            key_form: KeyForm::Bare,
            numbers: NumberForm::Number,
            source: "{}".into(),
        };
        let encoder = json::Kind.encoder(plan).unwrap();
        let plan = SinkPlan {
            sync_id: "snc".into(),
            sync_name: "orders".into(),
            topic: "orders".into(),
            run_id: "run".into(),
            fence: 1,
            generation: 2,
            batch_seq: 3,
            batch: None,
            carry: None,
            ts_ms: 0,
            rows_max: 100,
            bytes_max: 10_000,
            message_bytes_max: 10_000,
            dead_letter_bytes_max: 10_000,
            tolerance,
            deletes,
            headers: BTreeMap::new(),
            one_row_per_key: false,
            clock: Clock::system(),
        };
        let (full_in, full_out) = mpsc::channel(1);
        let (_, spare) = mpsc::channel(1);
        (ChunkSink::new(encoder, plan, &Start::default(), full_in, spare), full_out)
    }

    fn row(id: i64) -> Row {
        let mut row = Row::default();
        row.push(Cell::Int(id));
        row
    }

    /// The chunk of a create and a delete: key, whether there is a value, id and operation of each message.
    async fn sent(envelope: Envelope, deletes: Deletes) -> (Vec<String>, Progress) {
        let (mut sink, mut full) = sink(envelope, deletes, ErrorTolerance::None);
        sink.push(Change { op: Op::Create, before: None, after: Some(&row(7)) }).unwrap();
        sink.push(Change { op: Op::Delete, before: Some(&row(8)), after: None }).unwrap();
        sink.finish(None).await.unwrap();
        let full = full.recv().await.unwrap();
        let text = |span: Span| String::from_utf8(span.of(&full.chunk.buffer).to_vec()).unwrap();
        let line = |message: &Message| {
            let value = if message.value.is_some() { "value" } else { "null" };
            format!("{} {value} {} {}", text(message.key.unwrap()), text(message.id), message.op)
        };
        (full.chunk.messages.iter().map(line).collect(), full.progress)
    }

    #[tokio::test]
    async fn a_delete_sends_what_the_sync_asks_for_and_each_record_has_an_id_of_its_own() {
        let create = "7 value snc.2.3.1 c";
        for (deletes, rest) in [
            (Deletes::Both, vec!["8 value snc.2.3.2 d", "8 null snc.2.3.2.t d"]),
            (Deletes::Op, vec!["8 value snc.2.3.2 d"]),
            (Deletes::Tombstone, vec!["8 null snc.2.3.2 d"]),
            (Deletes::Ignore, vec![]),
        ] {
            let (lines, progress) = sent(Envelope::Debezium, deletes).await;

            let expected: Vec<_> = std::iter::once(create).chain(rest).collect();
            assert_eq!(lines, expected, "{deletes:?}");
            assert_eq!((progress.ordinal, progress.rows_sent), (2, expected.len() as i64));
            assert_eq!(progress.ops, BTreeMap::from([("c".into(), 1), ("d".into(), 1)]));
        }
        let (row, _) = sent(Envelope::Row, Deletes::Tombstone).await;
        assert_eq!(row, [create, "8 null snc.2.3.2 d"]);
    }

    #[tokio::test]
    async fn a_change_that_must_not_be_sent_is_a_dead_letter_with_its_ordinal() {
        let reason = || EncodeError { code: Code::ModelKeyDuplicate, column: String::new(), reason: "twice".into() };
        let (mut tolerant, mut full) = sink(Envelope::Debezium, Deletes::Both, ErrorTolerance::Count { max: 1 });
        let (mut strict, _full) = sink(Envelope::Debezium, Deletes::Both, ErrorTolerance::None);
        let again = row(7);

        tolerant.push(Change { op: Op::Create, before: None, after: Some(&again) }).unwrap();
        tolerant.bury(Change { op: Op::Create, before: None, after: Some(&again) }, reason()).unwrap();
        let refused = strict.bury(Change { op: Op::Create, before: None, after: Some(&again) }, reason()).unwrap_err();
        tolerant.finish(None).await.unwrap();

        let full = full.recv().await.unwrap();
        assert_eq!(full.chunk.messages[1].target, Target::DeadLetter);
        assert_eq!((full.progress.ordinal, full.progress.rows_sent, full.progress.rows_dead), (2, 1, 1));
        assert_eq!(refused.code, Code::ModelKeyDuplicate);
    }
}
