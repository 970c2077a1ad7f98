//! What a destination promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::field::{Field, Step};
use super::record::Span;
use crate::egress::Egress;
use crate::error::{Error, Result};

/// What a reader at `read_committed` may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Each change once: records and progress in one transaction.
    ExactlyOnce,
    /// A crash can repeat a chunk; each record carries the same `freshet-id` each time.
    EffectivelyOnce,
}

/// A topic to be created when it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicCreate {
    /// 1 to 10 000; 6 if not given.
    #[serde(default = "default_partitions")]
    pub partitions: i32,
    /// The cluster's default if not given.
    #[serde(default)]
    pub replication_factor: Option<i32>,
    /// `delete`, `compact` or `compact,delete`; `delete` if not given.
    #[serde(default = "default_cleanup_policy")]
    pub cleanup_policy: String,
}

fn default_partitions() -> i32 {
    6
}

fn default_cleanup_policy() -> String {
    "delete".into()
}

/// The topics of a sync, as a pre-flight checks them.
#[derive(Debug, Clone)]
pub struct TopicPlan {
    /// The data topic.
    pub topic: String,
    /// The dead letters' topic; none for a sync that tolerates none.
    pub dead_letter_topic: Option<String>,
    /// Create what is missing, so.
    pub create: Option<TopicCreate>,
    /// What the sync asks for.
    pub guarantee: Guarantee,
    /// The lane whose rights are probed: its transactional id.
    pub lane: LaneSpec,
}

/// What a pre-flight settled.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Each thing looked at, one finding each.
    pub steps: Vec<Step>,
    /// The cluster's own id; stored, and compared at each run.
    pub cluster_id: String,
    /// The largest record the topic takes, in bytes (`max.message.bytes`).
    pub message_bytes_max: usize,
    /// The same of the dead letters' topic; of the data topic where there is none.
    pub dead_letter_bytes_max: usize,
    /// How many partitions the progress topic has.
    pub progress_partitions: i32,
}

/// The data topic as it is, or as it would be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicLook {
    /// Whether it is there.
    pub is_there: bool,
    /// Its partitions.
    pub partitions: i32,
    /// The largest record it takes, in bytes; Kafka's default for one that is not there yet.
    pub message_bytes_max: usize,
}

/// Names one producer of one sync for ever: no run, worker or random part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneSpec {
    /// `{installation}.{workspace}.{sync}.{lane}`; the destination puts its prefix before it.
    pub name: String,
    /// The progress topic's partition, drawn once and stored; none until then.
    pub progress_partition: Option<i32>,
    /// Where in that partition to begin reading; none for its start.
    pub progress_offset: Option<i64>,
}

/// The record, written in the chunk's own transaction, that says how far a sync has got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Version of this form: 1.
    pub v: u32,
    /// The sync's generation; a change of what is read or where it goes raises it.
    #[serde(rename = "gen")]
    pub generation: i64,
    /// The epoch of the run that wrote it.
    pub fence: i64,
    /// The run that wrote it.
    pub run_id: String,
    /// The batch it belongs to.
    pub batch_seq: i64,
    /// The last change of the batch that is delivered, from 1.
    pub ordinal: i64,
    /// Changes of this batch read so far, by [`super::Op`] letter.
    pub ops: BTreeMap<String, i64>,
    /// Records of this batch sent to the data topic.
    pub rows_sent: i64,
    /// Records of this batch sent as dead letters.
    pub rows_dead: i64,
    /// Bytes of keys and values of this batch.
    pub bytes: i64,
    /// Nothing of the batch is left.
    pub batch_complete: bool,
    /// Where the source goes on from.
    pub source_token: Option<Value>,
    /// What the source needs to read the batch again: whoever adopts this record has it from nowhere else.
    #[serde(default)]
    pub batch: Option<Value>,
    /// What the source wants back at the next seal.
    #[serde(default)]
    pub carry: Option<Value>,
    /// XXH3-128 over the chunk's buffer, in hex: to compare a topic with what was planned.
    pub chunk_digest: String,
    /// When it was written.
    pub at: DateTime<Utc>,
}

/// One header of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value; may be any bytes.
    pub value: Vec<u8>,
}

/// Which topic a message goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The data topic.
    Data,
    /// The dead letters' topic.
    DeadLetter,
}

/// One message of a chunk: places in the chunk's buffer.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where it goes.
    pub target: Target,
    /// The key; none for a row without one.
    pub key: Option<Span>,
    /// The value; none is a tombstone.
    pub value: Option<Span>,
    /// The text of the `freshet-id` header.
    pub id: Span,
    /// The letter of the `freshet-op` header.
    pub op: &'static str,
    /// Further headers of this message alone: an index into [`Chunk::extra_headers`].
    pub extra: Option<u32>,
}

/// What goes out in one transaction, encoded. Meant to be cleared and filled again.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Keys, values and ids of all messages.
    pub buffer: Vec<u8>,
    /// In the order they are sent.
    pub messages: Vec<Message>,
    /// Headers that every message carries: `freshet-run`, `freshet-sync`, the user's own.
    pub headers: Arc<[Header]>,
    /// Headers of single messages: a dead letter's reason.
    pub extra_headers: Vec<Vec<Header>>,
}

impl Chunk {
    /// Room for so many messages and bytes; pages that are not written to take no memory.
    #[must_use]
    pub fn with_capacity(messages: usize, bytes: usize) -> Self {
        Self { buffer: Vec::with_capacity(bytes), messages: Vec::with_capacity(messages), ..Self::default() }
    }

    /// A message's headers, in the order they are sent.
    pub fn headers_of<'a>(&'a self, message: &'a Message) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let own = message.extra.and_then(|extra| self.extra_headers.get(extra as usize));
        let further = self.headers.iter().chain(own.into_iter().flatten());
        [("freshet-id", message.id.of(&self.buffer)), ("freshet-op", message.op.as_bytes())]
            .into_iter()
            .chain(further.map(|header| (header.name.as_str(), header.value.as_slice())))
    }

    /// Forgets the messages and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.messages.clear();
        self.extra_headers.clear();
    }
}

/// Where records of one chunk landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first record's offset.
    pub first_offset: i64,
    /// The last record's offset.
    pub last_offset: i64,
    /// How many records.
    pub records: i64,
}

/// A chunk is committed.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// Where its records landed.
    pub partitions: Vec<PartitionRange>,
    /// The progress record's own place: where the next reader may begin.
    pub progress_partition: i32,
    /// See [`Receipt::progress_partition`].
    pub progress_offset: i64,
}

/// One producer of one sync.
#[async_trait]
pub trait Lane: Send {
    /// Takes the lane over: afterwards no earlier producer of it can write, and none of its open
    /// transactions is left. Must be called before [`Lane::progress`].
    ///
    /// # Errors
    /// `kafka.unreachable`, `kafka.transactions_not_allowed`, `kafka.acl_missing`, `kafka.timeout`.
    async fn fence(&mut self) -> Result<()>;

    /// The last progress record committed, read up to the end of its partition; waits for open transactions
    /// of others to end, and fails rather than guess.
    async fn progress(&mut self) -> Result<Option<Progress>>;

    /// The partition of the progress topic that is this lane's; known once it is fenced.
    fn progress_partition(&self) -> i32;

    /// Sends one chunk and its progress record, and gives the chunk's memory back.
    ///
    /// # Errors
    /// `kafka.fenced` when another took the lane over; `kafka.commit_unclear` when it cannot be known whether the
    /// chunk is committed. After any error the lane is dead: open a new one, `fence`, `progress`, go on.
    async fn send(&mut self, chunk: Chunk, progress: Progress) -> Result<(Chunk, Receipt)>;
}

/// An open connection to a destination.
#[async_trait]
pub trait Destination: Send {
    /// Tries the connection step by step; the steps after a failure are skipped.
    async fn check(&mut self) -> Vec<Step>;

    /// Looks at everything a run needs, one finding each, and creates topics where the plan says so.
    ///
    /// # Errors
    /// The first finding that makes a run impossible, as its own code.
    async fn prepare(&mut self, plan: &TopicPlan) -> Result<Prepared>;

    /// Looks at the data topic, and creates nothing.
    ///
    /// # Errors
    /// `request.invalid` from a kind of destination that cannot tell; of Kafka what [`Destination::prepare`] says.
    async fn look(&mut self, plan: &TopicPlan) -> Result<TopicLook> {
        let _ = plan;
        Err(Error::invalid("/kind", "a destination of this kind cannot look ahead"))
    }

    /// The partition of a key; none where any will do.
    fn partition(&self, key: Option<&[u8]>, partitions: i32) -> Option<i32> {
        let _ = (key, partitions);
        None
    }

    /// Opens a producer for a lane.
    async fn lane(&mut self, plan: &TopicPlan) -> Result<Box<dyn Lane>>;
}

/// A kind of destination.
#[async_trait]
pub trait DestinationKind: Send + Sync + 'static {
    /// Its word in the API, `kafka`.
    const NAME: &'static str;
    /// Its form.
    const FIELDS: &'static [Field];
    /// Its settings; unknown fields are refused. Secrets among them are named by [`Field::secret`].
    type Settings: DeserializeOwned + Serialize + Send + Sync;

    /// Checks rules beyond the types; called before anything is saved.
    ///
    /// # Errors
    /// [`crate::error::Code::Invalid`] with the fields at fault, or `kafka.setting_not_allowed`.
    fn validate(&self, settings: &Self::Settings) -> Result<()>;

    /// Opens a connection. Does not dial yet: the first call does, and only what `egress` allows.
    async fn open(&self, settings: Self::Settings, egress: Arc<Egress>) -> Result<Box<dyn Destination>>;
}
