//! A run: one execution of a sync, from the trigger to the last receipt.
//!
//! ~~~text
//! queued ─► claimed ─► extracting ─► publishing ─► finalizing ─► succeeded | succeeded_with_errors
//!    ▲         │           │             │             │          failed | cancelled | skipped
//!    │         └───────────┴──────┬──────┴─────────────┘
//!    │                            ├─► cancelling ─► cancelled
//! (claimed again)                 ▼
//!    └────────────────────── retry_wait
//! ~~~
//!
//! The table is the queue of record: a claim raises the run's `epoch`, and every later write of a
//! worker names it; no row matched means that another worker has the run now.
pub mod ops;
pub(crate) mod store;
pub mod work;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::id::{DeadLetterGroupId, RunId, SyncId, WorkspaceId};

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// Where a run is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        #[sqlx(type_name = "text", rename_all = "snake_case")]
        pub enum RunState { $($(#[$doc])* $name,)* }

        impl RunState {
            /// Every state.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

states! {
    /// Waits for a worker.
    Queued = "queued";
    /// A worker has it.
    Claimed = "claimed";
    /// The batch is being fixed at the source.
    Extracting = "extracting";
    /// Chunks go out.
    Publishing = "publishing";
    /// The source's copy is released.
    Finalizing = "finalizing";
    /// An attempt failed; the next one has its time.
    RetryWait = "retry_wait";
    /// A person asked to stop; the chunk in hand is finished.
    Cancelling = "cancelling";
    /// All is delivered.
    Succeeded = "succeeded";
    /// All is delivered or a dead letter.
    SucceededWithErrors = "succeeded_with_errors";
    /// A person must act, or too many attempts made no progress.
    Failed = "failed";
    /// Stopped by a person; a sealed batch stays and goes first in the next run.
    Cancelled = "cancelled";
    /// Not run, for a reason that is kept.
    Skipped = "skipped";
}

impl RunState {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued
            | Self::Claimed
            | Self::Extracting
            | Self::Publishing
            | Self::Finalizing
            | Self::RetryWait
            | Self::Cancelling => false,
            Self::Succeeded | Self::SucceededWithErrors | Self::Failed | Self::Cancelled | Self::Skipped => true,
        }
    }
}

/// How many rows, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Counts {
    /// Changes read from the source.
    pub read: i64,
    /// Of these, created.
    pub created: i64,
    /// Of these, updated.
    pub updated: i64,
    /// Of these, deleted.
    pub deleted: i64,
    /// Of these, read in full.
    pub refreshed: i64,
    /// Records committed on the data topic.
    pub published: i64,
    /// Records committed on the dead-letter topic.
    pub dead: i64,
    /// Bytes of keys and values committed.
    pub bytes: i64,
}

impl Counts {
    /// Member by member.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            created: self.created + other.created,
            updated: self.updated + other.updated,
            deleted: self.deleted + other.deleted,
            refreshed: self.refreshed + other.refreshed,
            published: self.published + other.published,
            dead: self.dead + other.dead,
            bytes: self.bytes + other.bytes,
        }
    }

    /// Member by member.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.plus(Self {
            read: -other.read,
            created: -other.created,
            updated: -other.updated,
            deleted: -other.deleted,
            refreshed: -other.refreshed,
            published: -other.published,
            dead: -other.dead,
            bytes: -other.bytes,
        })
    }
}

/// What is added to the counts of the batch in hand to get a run's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountBase {
    /// The run's counts, without what it counts of the batch in hand; negative by what earlier runs counted of that.
    #[serde(flatten)]
    pub counts: Counts,
    /// The batch of an earlier run that it is settled for.
    pub adopted: Option<i64>,
}

/// Why a run failed, or why it waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Failure {
    /// Which of the closed list.
    pub code: String,
    /// What failed.
    pub message: String,
    /// What to do.
    pub action: Option<String>,
}

/// A run as people see it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Whose run.
    pub sync_id: SyncId,
    /// Which version of the sync.
    pub sync_version: i32,
    /// `api`, `command`, `retry`.
    pub trigger: String,
    /// Who asked.
    pub requested_by: Option<Uuid>,
    /// The run that this one repeats.
    pub parent_run_id: Option<RunId>,
    /// How many further triggers were answered with this run.
    pub coalesced_count: i32,
    /// Where it is.
    pub state: RunState,
    /// `no_changes` when there was nothing to send.
    pub outcome: Option<String>,
    /// Why it failed or waits.
    pub failure: Option<Failure>,
    /// The counts so far; true to the topic once the run has ended.
    pub counts: Counts,
    /// How many attempts were made.
    pub attempt_count: i32,
    /// When it was asked for.
    pub queued_at: DateTime<Utc>,
    /// Not before.
    pub due_at: DateTime<Utc>,
    /// When the first attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// When a person asked to stop.
    pub cancel_requested_at: Option<DateTime<Utc>>,
}

/// One worker's try at a run.
#[derive(Debug, Clone, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Attempt {
    /// From 1.
    pub number: i32,
    /// The worker's name.
    pub worker: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// `succeeded`, `failed`, `cancelled`, `interrupted`, `released`.
    pub outcome: Option<String>,
    /// Why.
    pub failure_code: Option<String>,
    /// Why, in a sentence.
    pub failure_message: Option<String>,
}

/// One line of a run's timeline.
#[derive(Debug, Clone, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct RunEvent {
    /// From 1, without gaps.
    pub seq: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// `info`, `warning`, `error`.
    pub level: String,
    /// What happened, as a word.
    pub code: String,
    /// What happened, in a sentence.
    pub message: String,
    /// Its numbers.
    #[schema(value_type = Object)]
    pub data: Value,
}

/// Where a run's records landed on one partition.
#[derive(Debug, Clone, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct RunPartition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first record's offset.
    pub first_offset: i64,
    /// The last record's offset.
    pub last_offset: i64,
    /// How many records.
    pub record_count: i64,
}

/// A run's dead letters with one reason.
#[derive(Debug, Clone, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct DeadLetterGroup {
    /// Its id.
    pub id: DeadLetterGroupId,
    /// Which of the closed list.
    pub code: String,
    /// The column at fault; empty if it is the row.
    pub column_name: String,
    /// What is wrong, without its value.
    pub reason: String,
    /// How many.
    pub record_count: i64,
    /// The first one's place in its batch.
    pub first_ordinal: i64,
    /// The last one's.
    pub last_ordinal: i64,
    /// When the first was seen.
    pub first_at: DateTime<Utc>,
    /// When the last was seen.
    pub last_at: DateTime<Utc>,
}

/// A statement that a run asked of its source.
#[derive(Debug, Clone, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct RunQuery {
    /// The source's own id of it, for Snowflake the query id.
    pub query_id: String,
    /// Its first words.
    pub statement: String,
    /// When it was asked.
    pub started_at: DateTime<Utc>,
    /// From the request to the beginning of the answer.
    pub seconds: f64,
    /// Rows of its answer.
    pub row_count: i64,
    /// Bytes of its answer, before compression.
    pub byte_count: i64,
    /// Whether it needed the source's engine: for Snowflake a warehouse.
    pub is_computed: bool,
    /// An estimate of what it cost, in credits.
    pub credits: f64,
}

/// What a run asked of its source, all together.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct SourceUse {
    /// Statements.
    pub query_count: i64,
    /// Bytes of their answers, before compression.
    pub byte_count: i64,
    /// Seconds of those that needed the source's engine: for Snowflake a warehouse.
    pub computed_s: f64,
    /// An estimate of what they cost, in credits. A warehouse is billed from its start to its suspension, at least
    /// 60 seconds: several short statements may cost more than this, and share that with others.
    pub credits: f64,
}

/// One worker's hold on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Whose run.
    pub workspace: WorkspaceId,
    /// Which run.
    pub run: RunId,
    /// Of which sync.
    pub sync: SyncId,
    /// The fence: named by every write.
    pub epoch: i64,
    /// Which attempt this is, from 1.
    pub attempt: i32,
}
