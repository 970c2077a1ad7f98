//! Publishing one batch: a reader task fills chunks, this task sends them, Postgres follows.

use std::time::Instant;

use freshet_core::connector::{
    EncodePlan, Encoder, ModelSpec, Progress, ReadEnd, ReadPlan, ReadRequest, Registry, Schema,
};
use freshet_core::error::{Code, Error, Result};
use freshet_core::failpoint::{self, Step};
use freshet_core::metrics;
use freshet_core::planted::{Bug, planted};
use freshet_core::run::Counts;
use freshet_core::run::work::{self, Delivered};
use freshet_core::sync::work::Work;
use freshet_core::trace;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument, Span};

use super::chunk::{ChunkSink, Full, SinkPlan};
use super::start::{Start, counts_of};
use super::{Attempt, Pace, unwrap_batch};

/// Publishes the batch in hand; false when the worker is stopping and laid it down.
pub(super) async fn publish(attempt: &mut Attempt<'_>, start: Start) -> Result<bool> {
    let before = attempt.counts;
    attempt.counts = before.plus(start.counts);
    if start.complete {
        return Ok(true);
    }
    let (sink, mut chunks, spare) = sink(attempt, &start)?;
    let (batch, _) = unwrap_batch(attempt.started.position.batch.as_ref());
    let name = attempt.batch_name(attempt.started.position.batch_seq);
    let request = ReadRequest { name, plan: attempt.plan.1.clone(), batch, from: start.token.clone() };
    // The reader opens a connection of its own: the one that sealed is used again for the next batch.
    let (ground, (kind, settings)) = (&attempt.ground, attempt.started.connection.clone());
    let mut source = ground.registry.find_source(&kind)?.open(settings, ground.egress).await?;
    if let Some(keeper) = &ground.keeper {
        source.keep_secrets(keeper.clone());
    }
    let (tell, told) = oneshot::channel();
    let reading = async move {
        let mut sink = sink;
        let end = source.read(&request, &mut sink).await;
        let _ = tell.send(source.queries());
        let end = match end {
            Err(_) if planted(Bug::PartialRead) => ReadEnd::default(),
            end => end?,
        };
        sink.finish(end.token).await
    };
    let reader = tokio::spawn(reading.in_current_span());
    let reading = AbortOnDrop(reader.abort_handle());

    let mut pending = Delivered::default();
    let sent = send_all(attempt, before, &mut chunks, &spare, &mut pending).await;
    drop(chunks);
    // Whatever ended it: Postgres is to know what Kafka has, or the run's counts would lack it.
    let recorded = record(attempt, &mut pending).await;
    let end = sent?;
    recorded?;
    match end {
        End::Complete => {
            // Told before the last chunk was handed over.
            attempt.ground.ledger.asked(&told.await.unwrap_or_default()).await?;
            drop(reading);
            Ok(true)
        }
        End::LaidDown => Ok(false),
        // The channel closed without the last chunk: the reader says why.
        End::ReaderGone => match reader.await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Err(Error::new(Code::Internal, "a batch ended without its last chunk")),
            Err(error) => Err(Error::new(Code::Internal, "the reader broke off by a defect").caused_by(error)),
        },
    }
}

/// Why no chunk is sent any more.
enum End {
    Complete,
    LaidDown,
    ReaderGone,
}

async fn send_all(
    attempt: &mut Attempt<'_>,
    before: Counts,
    chunks: &mut mpsc::Receiver<Full>,
    spare: &Spare,
    pending: &mut Delivered,
) -> Result<End> {
    let (mut pace, mut number) = (Pace::new(attempt.ground.record_every), 0);
    while let Some(full) = chunks.recv().await {
        number += 1;
        attempt.refuse_stopped()?;
        let complete = full.progress.batch_complete;
        err_before_commit(attempt, before, &full.progress).await?;
        let span = chunk_span(number, &full);
        let (chunk, committed) = send(attempt, full).instrument(span).await?;
        attempt.counts = before.plus(committed.counts);
        pending.add(committed.progress, committed.receipt, committed.dead);
        if complete {
            return Ok(End::Complete);
        }
        if attempt.stop.drain.is_cancelled() {
            return Ok(End::LaidDown);
        }
        attempt.refuse_stopped()?;
        if pace.is_due() {
            record(attempt, pending).await?;
        }
        // The reader may be gone already.
        let _ = spare.try_send(chunk);
    }
    Ok(End::ReaderGone)
}

/// The span of a chunk's transaction, of some chunks.
fn chunk_span(number: u64, full: &Full) -> Span {
    if !trace::is_traced(number) {
        return Span::none();
    }
    let (batch, ordinal) = (full.progress.batch_seq, full.progress.ordinal);
    // OTLP knows signed numbers alone.
    let (records, bytes) = (full.chunk.messages.len() as i64, full.chunk.buffer.len() as i64);
    tracing::info_span!("chunk", chunk = number as i64, batch, ordinal, records, bytes)
}

/// The mistakes of those who write down, or give back, what is not yet committed.
#[inline(always)]
async fn err_before_commit(attempt: &mut Attempt<'_>, before: Counts, progress: &Progress) -> Result<()> {
    let counts = before.plus(counts_of(progress));
    if planted(Bug::PostgresBeforeKafka) {
        let early = Delivered { progress: Some(progress.clone()), ..Delivered::default() };
        attempt.ground.ledger.delivered(&counts, &early).await?;
    }
    if planted(Bug::CountsBeforeDelivery) {
        attempt.ground.ledger.delivered(&counts, &Delivered::default()).await?;
    }
    if planted(Bug::ReleasedBeforeCommit) && progress.batch_complete {
        attempt.release_source().await?;
    }
    Ok(())
}

/// The mistake of [`Bug::JournalAfterCommit`]: a chunk's record tells how far the sync was before it.
fn told_late(last: Option<&Progress>, progress: &Progress) -> Progress {
    let nothing = || Progress {
        ordinal: 0,
        ops: std::collections::BTreeMap::new(),
        rows_sent: 0,
        rows_dead: 0,
        bytes: 0,
        source_token: None,
        ..progress.clone()
    };
    match last {
        _ if progress.batch_complete => progress.clone(),
        Some(last) if last.batch_seq == progress.batch_seq => last.clone(),
        _ => nothing(),
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Committed {
    progress: Progress,
    counts: Counts,
    receipt: freshet_core::connector::Receipt,
    dead: Vec<work::DeadLetter>,
}

async fn send(attempt: &mut Attempt<'_>, full: Full) -> Result<(freshet_core::connector::Chunk, Committed)> {
    let open = attempt.lane.as_mut().ok_or_else(|| Error::new(Code::Internal, "no lane is open"))?;
    let progress = full.progress;
    // Once bytes go out the transaction is finished: a stop is looked at between chunks.
    failpoint::reach(Step::Encoded);
    let told =
        if planted(Bug::JournalAfterCommit) { told_late(open.progress.as_ref(), &progress) } else { progress.clone() };
    let since = Instant::now();
    let (chunk, receipt) = open.lane.send(full.chunk, told).await?;
    failpoint::reach(if progress.batch_complete { Step::Completed } else { Step::Committed });
    let counts = counts_of(&progress);
    let before = open.progress.as_ref().filter(|last| last.batch_seq == progress.batch_seq).map(counts_of);
    let grown = |of: fn(&Counts) -> i64| u64::try_from(of(&counts) - before.as_ref().map_or(0, of)).unwrap_or_default();
    let (records, dead, bytes) = (grown(|of| of.published), grown(|of| of.dead), grown(|of| of.bytes));
    metrics::committed(records, dead, bytes, since.elapsed());
    attempt.started.position.follow(&progress, None);
    open.progress = Some(progress.clone());
    Ok((chunk, Committed { progress, counts, receipt, dead: full.dead }))
}

/// Lets Postgres follow. A database that does not answer for a moment is no reason to stop sending: the progress
/// record is in Kafka, and what was not written is written with the next chunk.
async fn record(attempt: &mut Attempt<'_>, pending: &mut Delivered) -> Result<()> {
    let Some(progress) = &pending.progress else { return Ok(()) };
    let complete = progress.batch_complete;
    match attempt.ground.ledger.delivered(&attempt.counts, pending).await {
        Ok(()) => {
            *pending = Delivered::default();
            Ok(())
        }
        Err(error) if error.code == Code::Database && !complete => {
            tracing::warn!(error = %error.chain(), "Postgres falls behind Kafka");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

type Spare = mpsc::Sender<freshet_core::connector::Chunk>;

fn sink(attempt: &Attempt<'_>, start: &Start) -> Result<(ChunkSink, mpsc::Receiver<Full>, Spare)> {
    let (ground, work, plan) = (&attempt.ground, &attempt.started.work, &attempt.plan.1);
    let (_, ts_ms) = unwrap_batch(attempt.started.position.batch.as_ref());
    let encoder = encoder(ground.registry, work, &attempt.started.connection.0, plan)?;
    let open = attempt.lane.as_ref().ok_or_else(|| Error::new(Code::Internal, "no lane is open"))?;
    // One chunk is in flight, one waits in the channel, one is being filled.
    let (full_in, full_out) = mpsc::channel(1);
    let (spare_in, spare_out) = mpsc::channel(3);
    let plan = SinkPlan {
        run_id: attempt.claim.run.to_string(),
        fence: attempt.claim.epoch,
        batch_seq: attempt.started.position.batch_seq,
        batch: attempt.started.position.batch.clone(),
        carry: attempt.started.position.carry.clone(),
        ts_ms,
        rows_max: ground.settings.chunk_rows_max,
        bytes_max: ground.settings.chunk_bytes_max,
        message_bytes_max: open.message_bytes_max,
        dead_letter_bytes_max: open.dead_letter_bytes_max,
        clock: ground.clock.clone(),
        ..SinkPlan::of(work)
    };
    Ok((ChunkSink::new(encoder, plan, start, full_in, spare_out), full_out, spare_in))
}

/// The encoder of a sync's records.
pub(super) fn encoder(registry: &Registry, work: &Work, kind: &str, plan: &ReadPlan) -> Result<Box<dyn Encoder>> {
    let schema = Schema { columns: plan.columns.clone() };
    let place = |name: &String| {
        schema
            .position(name)
            .ok_or_else(|| Error::new(Code::ModelKeyMissing, format!("the key's column `{name}` is not in the model")))
    };
    let key = plan.key.iter().map(place).collect::<Result<Vec<_>>>()?;
    registry.find_format(&work.config.format)?.encoder(EncodePlan {
        schema,
        key,
        envelope: work.config.envelope,
        key_form: work.config.key,
        numbers: work.config.numbers,
        source: source_members(work, kind),
    })
}

/// The constant members of the envelope's `source`.
fn source_members(work: &Work, kind: &str) -> String {
    let mut members = json!({
        "connector": "freshet",
        "version": env!("CARGO_PKG_VERSION"),
        "name": work.sync_name,
        "kind": kind,
        "connection": work.connection_name,
        "model": work.model_name,
    });
    match &work.spec {
        ModelSpec::Table { schema, table } => {
            members["schema"] = schema.as_str().into();
            members["table"] = table.as_str().into();
        }
        ModelSpec::Stream { schema, stream } => {
            members["schema"] = schema.as_str().into();
            members["stream"] = stream.as_str().into();
        }
        ModelSpec::Sql { .. } => {}
    }
    members.to_string()
}
