//! Where a batch goes on: Kafka's word against Postgres's.

use std::collections::BTreeMap;

use freshet_core::connector::Progress;
use freshet_core::error::{Code, Error, Result};
use freshet_core::run::Counts;
use freshet_core::sync::Position;
use serde_json::Value;

/// Where a batch goes on.
#[derive(Debug, Clone, Default)]
pub(super) struct Start {
    /// The last change that is delivered, from 1.
    pub(super) ordinal: i64,
    /// Its token; none for the batch's start.
    pub(super) token: Option<Value>,
    /// What was read so far, by operation.
    pub(super) ops: BTreeMap<String, i64>,
    /// What is delivered so far.
    pub(super) counts: Counts,
    /// Nothing is left to send.
    pub(super) complete: bool,
}

impl Start {
    fn of(progress: &Progress) -> Self {
        Self {
            ordinal: progress.ordinal,
            token: progress.source_token.clone(),
            ops: progress.ops.clone(),
            counts: counts_of(progress),
            complete: progress.batch_complete,
        }
    }

    /// Decides where the batch in hand goes on. What Kafka says is delivered is delivered; Postgres may lag behind it.
    ///
    /// # Errors
    /// `kafka.progress_lost` when Kafka has less than Postgres knows of; `kafka.ledger_behind` when it has what
    /// Postgres cannot know of: one of the two was restored or made anew.
    pub(super) fn reconcile(
        position: &Position,
        progress: Option<&Progress>,
        generation: i64,
        epoch: i64,
    ) -> Result<Self> {
        let lost = |what: &str| Err(Error::new(Code::KafkaProgressLost, what));
        refuse_behind(position, progress, generation, epoch)?;
        if progress.is_none() && position.progress_offset.is_some() {
            return lost("the sync's progress record is gone from Kafka");
        }
        let of_this =
            |progress: &&Progress| (progress.generation, progress.batch_seq) == (generation, position.batch_seq);
        let delivered = progress.filter(of_this);
        if delivered.is_none() && position.ordinal > 0 {
            return lost("Postgres knows of delivered rows of this batch, and Kafka of none");
        }
        Ok(delivered.map(Self::of).unwrap_or_default())
    }
}

/// Refuses to go on where Kafka has what Postgres cannot know of: Postgres was restored from a back-up.
///
/// # Errors
/// `kafka.ledger_behind`.
pub(super) fn refuse_behind(
    position: &Position,
    progress: Option<&Progress>,
    generation: i64,
    epoch: i64,
) -> Result<()> {
    let Some(progress) = progress else { return Ok(()) };
    let seq = position.batch_seq;
    let what = if progress.generation > generation {
        format!("is of generation {}, and Postgres knows of {generation}", progress.generation)
    } else if progress.generation == generation && progress.batch_seq > seq {
        format!("is of batch {}, and Postgres knows of {seq}", progress.batch_seq)
    } else if progress.fence > epoch {
        format!("was written under claim {}, and Postgres has come to {epoch}", progress.fence)
    } else {
        return Ok(());
    };
    Err(Error::new(Code::KafkaLedgerBehind, format!("the ledger is behind Kafka, whose progress record {what}")))
}

/// The mistake of [`freshet_core::planted::Bug::DoubtNotResolved`]: what Postgres knows, in the form of Kafka's word.
pub(super) fn believed(position: &Position, generation: i64) -> Option<Progress> {
    let begun = position.ordinal > 0;
    (begun || position.progress_offset.is_some()).then(|| Progress {
        v: 1,
        generation,
        fence: 0,
        run_id: String::new(),
        batch_seq: position.batch_seq - i64::from(!begun),
        ordinal: position.ordinal,
        ops: BTreeMap::new(),
        rows_sent: 0,
        rows_dead: 0,
        bytes: 0,
        batch_complete: position.batch_state != "sealed",
        source_token: position.token.clone(),
        batch: position.batch.clone(),
        carry: position.carry.clone(),
        chunk_digest: String::new(),
        at: chrono::DateTime::UNIX_EPOCH,
    })
}

/// The counts that a progress record stands for.
pub(super) fn counts_of(progress: &Progress) -> Counts {
    let of = |letter: &str| progress.ops.get(letter).copied().unwrap_or(0);
    Counts {
        read: progress.ops.values().sum(),
        created: of("c"),
        updated: of("u"),
        deleted: of("d"),
        refreshed: of("r"),
        published: progress.rows_sent,
        dead: progress.rows_dead,
        bytes: progress.bytes,
    }
}
