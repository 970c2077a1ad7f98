//! What a source promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::field::{Field, Step};
use super::format::EncodeError;
use super::record::{Change, Column, Op, Schema};
use super::sign_in::{Consent, DrawnKey, Granted, SecretKeeper};
use crate::egress::Egress;
use crate::error::{Code, Error, Result};
use crate::settings::Secret;

/// What is read through a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ModelSpec {
    /// One table or view.
    Table {
        /// Its schema.
        schema: String,
        /// Its name, as the catalogue writes it.
        table: String,
    },
    /// One SELECT statement.
    Sql {
        /// The statement, without a semicolon at its end.
        sql: String,
    },
    /// One Snowflake Stream, in the connection's database; a sync takes its changes out of it.
    Stream {
        /// Its schema.
        schema: String,
        /// Its name, as the catalogue writes it.
        stream: String,
    },
}

/// How much of the model a run reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ReadMode {
    /// Every row.
    Full,
    /// The rows whose cursor is past the last one delivered.
    Incremental {
        /// A column that only grows.
        cursor: String,
    },
    /// What changed since the last snapshot, found by key in Freshet's schema at the source.
    Diff,
    /// The changes that wait in a Stream.
    Changes {
        /// What becomes of further rows of a key in one batch.
        #[serde(default)]
        duplicate_keys: DuplicateKeys,
    },
}

impl ReadMode {
    /// Whether another mode reads the same rows from the same place, so that a position stays true.
    #[must_use]
    pub fn reads_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Changes { .. }, Self::Changes { .. }) => true,
            _ => self == other,
        }
    }
}

/// What becomes of further inserts of one key in one batch of a Stream, which has no order among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DuplicateKeys {
    /// The first goes out, each further one is a dead letter, `model.key_duplicate`.
    #[default]
    DeadLetter,
    /// The last goes out; the others are left out. The last is the greatest row id: which that is, Snowflake decides.
    LastWins,
}

/// What a sync reads: the model, its key, how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPlan {
    /// The model.
    pub model: ModelSpec,
    /// The model's columns as saved with it; a source that finds others fails with `model.columns_changed`.
    pub columns: Vec<Column>,
    /// The key's columns, at least one.
    pub key: Vec<String>,
    /// How much of it.
    pub mode: ReadMode,
}

/// Which batch of whose run it is: names what a source stages, and tags its statements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchName {
    /// The workspace's id, as text.
    pub workspace: String,
    /// The sync's id, as text; letters, digits and `_`.
    pub sync: String,
    /// The run's id, as text; another run may take a batch over.
    pub run: String,
    /// The batch's number; numbers of one sync only grow, and the same number is the same batch.
    pub seq: i64,
}

/// Asks a source to fix the next batch.
#[derive(Debug, Clone)]
pub struct SealRequest {
    /// The batch to be.
    pub name: BatchName,
    /// What is read.
    pub plan: ReadPlan,
    /// The token of the last change delivered in this generation, if any.
    pub position: Option<Value>,
    /// What the last seal asked to be handed back.
    pub carry: Option<Value>,
}

/// A batch, fixed at the source.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// What [`Source::read`] needs to read exactly this batch, again and again.
    pub batch: Value,
    /// To be handed to the next seal.
    pub carry: Option<Value>,
    /// There is nothing to read: the run ends without touching the destination.
    pub empty: bool,
    /// For the run's timeline, such as which rows wait for an open transaction.
    pub notes: Vec<Note>,
}

/// A line for a run's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// `info` or `warning`.
    pub level: &'static str,
    /// The event's word, `source.note` unless there is a better one.
    pub code: &'static str,
    /// What a person reads.
    pub sentence: String,
}

impl From<String> for Note {
    fn from(sentence: String) -> Self {
        Self { level: "info", code: "source.note", sentence }
    }
}

/// Asks a source to read a sealed batch.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The batch's name.
    pub name: BatchName,
    /// What is read.
    pub plan: ReadPlan,
    /// The batch as sealed.
    pub batch: Value,
    /// The token to go on from; none for the batch's start.
    pub from: Option<Value>,
}

/// One statement that a source ran, by its own account.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceQuery {
    /// The source's own id of it.
    pub id: String,
    /// Its first words, without names or values: `create transient table`.
    pub statement: String,
    /// When it was asked.
    pub at: DateTime<Utc>,
    /// From the request to the beginning of the answer.
    pub seconds: f64,
    /// Rows of its answer.
    pub rows: u64,
    /// Bytes of its answer as the source announced them, before compression.
    pub bytes: u64,
    /// Whether it needed the source's engine: for Snowflake a warehouse.
    pub is_computed: bool,
    /// An estimate of what it cost, in the source's own unit: for Snowflake credits.
    pub credits: f64,
}

/// Where a read ended.
#[derive(Debug, Clone, Default)]
pub struct ReadEnd {
    /// The token of the batch's last change; none if nothing came after `from`.
    pub token: Option<Value>,
}

/// Whether a sink wants more before it is flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    More,
    /// The chunk is full: flush at the next place where a token can be given.
    Full,
}

/// Takes a batch's changes, in order.
#[async_trait]
pub trait Sink: Send {
    /// Takes one change. A change that cannot be sent becomes a dead letter and is not an error here.
    ///
    /// # Errors
    /// What ends the run: more dead letters than tolerated.
    fn push(&mut self, change: Change<'_>) -> Result<Flow>;

    /// Hands the chunk over; `token` is the place after the last change pushed. Waits while the
    /// destination is behind.
    ///
    /// # Errors
    /// [`crate::error::Code::Cancelled`] when the run is to stop here, or what ended the destination's side.
    async fn flush(&mut self, token: Value) -> Result<()>;

    /// Takes one change that must not be sent, and why: it becomes a dead letter.
    ///
    /// # Errors
    /// As [`Sink::push`]; `platform.internal` from a sink that keeps no dead letters.
    fn bury(&mut self, change: Change<'_>, reason: EncodeError) -> Result<Flow> {
        let _ = (change, reason);
        Err(Error::new(Code::Internal, "this sink takes no dead letters"))
    }
}

/// One table of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `table`, `view`, `materialized_view`, `foreign_table`, `partitioned_table` or `stream`.
    pub kind: String,
    /// The primary key's columns, in order; empty if there is none.
    pub primary_key: Vec<String>,
    /// The planner's estimate of its rows, if it has one.
    pub rows_estimated: Option<i64>,
    /// Its columns, in order.
    pub columns: Vec<CatalogueColumn>,
    /// What else there is to know of a Stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamFacts>,
}

/// What a source says of a Stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StreamFacts {
    /// What it follows, `DATABASE.SCHEMA.NAME`.
    pub on: String,
    /// `table`, `view` …
    pub on_kind: String,
    /// `standard`: inserts, updates and deletes; `append_only` and `insert_only`: inserts alone.
    pub mode: String,
    /// When it was made.
    pub made_at: Option<DateTime<Utc>>,
    /// Its history is kept until then, unless it is read before.
    pub stale_after: Option<DateTime<Utc>>,
    /// Its history may be gone: then it can be read no more, only made anew.
    pub stale: bool,
}

/// Asks a source to make a Stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewStream {
    /// Its schema; Freshet's own if not given.
    #[serde(default)]
    pub schema: Option<String>,
    /// Its name, in the letters it is to have.
    pub name: String,
    /// What it follows.
    pub on: StreamBase,
    /// Inserts alone, each one: cheaper, and enough for a table that only grows.
    #[serde(default)]
    pub append_only: bool,
    /// The first batch holds the rows that are there already.
    #[serde(default)]
    pub show_initial_rows: bool,
    /// Take the place of a Stream of that name: what waits in it is lost. Without it an existing Stream stays.
    #[serde(default)]
    pub replace: bool,
}

/// What a Stream follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamBase {
    /// Of which kind.
    pub kind: StreamOn,
    /// Its schema.
    pub schema: String,
    /// Its name, as the catalogue writes it.
    pub name: String,
}

/// What a Stream can be made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamOn {
    /// A table.
    Table,
    /// A view.
    View,
    /// A dynamic table.
    DynamicTable,
}

/// A Stream that was made, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MadeStream {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The statement that makes it, for a person who would rather run it.
    pub statement: String,
    /// What the source says of it; none if nothing was made.
    pub facts: Option<StreamFacts>,
}

/// One column of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueColumn {
    /// Its name.
    pub name: String,
    /// The source's own word for its type.
    pub source_type: String,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Whether Freshet can send it exactly.
    pub supported: bool,
}

/// What can be read through a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// At most 1 000, in order of schema and name.
    pub tables: Vec<CatalogueTable>,
    /// There are more than that.
    pub truncated: bool,
}

/// The first rows of a model; shown once, never stored beyond its operation's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preview {
    /// The columns.
    pub columns: Vec<Column>,
    /// At most 100 rows, each a JSON object as a `row` envelope would hold it; cells over 64 KiB are cut.
    pub rows: Vec<Value>,
    /// There are more rows.
    pub truncated: bool,
}

/// Whether a key identifies rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCheck {
    /// The columns asked about.
    pub key: Vec<String>,
    /// How many rows there are.
    pub rows: i64,
    /// How many of them have NULL in the key.
    pub null_rows: i64,
    /// How many keys occur more than once.
    pub duplicate_keys: i64,
}

/// How many changes the next batch would hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ahead {
    /// By [`super::Op`] letter, dead letters among them.
    pub ops: BTreeMap<String, i64>,
    /// How many of them would be dead letters, as far as a count tells: without a key; of a Stream also the further
    /// inserts of a key.
    pub dead: i64,
}

impl Ahead {
    /// These changes; an operation that there is none of is left out.
    #[must_use]
    pub fn new<const N: usize>(changes: [(Op, i64); N], dead: i64) -> Self {
        let ops = changes.into_iter().filter(|(_, count)| *count > 0);
        Self { ops: ops.map(|(op, count)| (op.letter().to_owned(), count)).collect(), dead }
    }
}

/// An open connection to a source. Every call may take as long as the source does; none keeps a row in memory
/// longer than it needs.
#[async_trait]
pub trait Source: Send {
    /// Tries the connection step by step; the steps after a failure are skipped.
    async fn check(&mut self) -> Vec<Step>;

    /// Lists tables and views, of one schema if named.
    async fn catalogue(&mut self, schema: Option<&str>) -> Result<Catalogue>;

    /// The columns of a model, and the primary key where the source declares one.
    async fn describe(&mut self, model: &ModelSpec) -> Result<(Schema, Vec<String>)>;

    /// The first `rows_max` rows.
    async fn preview(&mut self, model: &ModelSpec, rows_max: usize) -> Result<Preview>;

    /// Counts rows without key and keys that repeat.
    async fn key_check(&mut self, model: &ModelSpec, key: &[String]) -> Result<KeyCheck>;

    /// Fixes the next batch. Harmless when repeated.
    async fn seal(&mut self, request: &SealRequest) -> Result<Sealed>;

    /// Reads a batch from a token on, in its total order.
    async fn read(&mut self, request: &ReadRequest, sink: &mut dyn Sink) -> Result<ReadEnd>;

    /// Hands on the first changes that the next batch would hold, in its order, and leaves source, position and Stream as
    /// they are. The sink may end it with any error once it has enough; at least `changes_max` are handed on if there
    /// are so many.
    ///
    /// # Errors
    /// What a seal or a read would fail with; `request.invalid` from a kind of source that cannot look ahead.
    async fn look_ahead(&mut self, request: &SealRequest, changes_max: usize, sink: &mut dyn Sink) -> Result<()> {
        let _ = (request, changes_max, sink);
        Err(Error::invalid("/kind", "a connection of this kind cannot look ahead"))
    }

    /// Counts what the next batch would hold, and leaves everything as it is.
    ///
    /// # Errors
    /// As [`Source::look_ahead`].
    async fn count_ahead(&mut self, request: &SealRequest) -> Result<Ahead> {
        let _ = request;
        Err(Error::invalid("/kind", "a connection of this kind cannot look ahead"))
    }

    /// The statements that were run since this was asked the last time, as far as the source has ids for them.
    fn queries(&mut self) -> Vec<SourceQuery> {
        Vec::new()
    }

    /// Gives back what a delivered batch took at the source. Harmless when repeated, or when there is nothing left.
    ///
    /// # Errors
    /// What the source failed with; the batch stays delivered, and its release is tried again.
    async fn release(&mut self, name: &BatchName, batch: &Value) -> Result<()> {
        let _ = (name, batch);
        Ok(())
    }

    /// Takes secrets that change by being used from there, and puts what follows them there.
    fn keep_secrets(&mut self, keeper: std::sync::Arc<dyn SecretKeeper>) {
        let _ = keeper;
    }

    /// Gives the code of a consent for the secret that it grants.
    ///
    /// # Errors
    /// `request.invalid` from a kind of source that asks for none; what the source refuses with.
    async fn finish_consent(&mut self, redirect_url: &str, code: &Secret, verifier: &Secret) -> Result<Granted> {
        let _ = (redirect_url, code, verifier);
        Err(no_consent())
    }

    /// Makes a Stream, or with `dry_run` only says how. Harmless when repeated, unless it replaces one.
    ///
    /// # Errors
    /// `request.invalid` from a kind of source that has no Streams.
    async fn make_stream(&mut self, new: &NewStream, dry_run: bool) -> Result<MadeStream> {
        let _ = (new, dry_run);
        Err(Error::invalid("/kind", "a connection of this kind has no Streams"))
    }

    /// Makes a model's Stream anew, on what it followed and as it was; with `initial_rows` its first batch holds every
    /// row there is then.
    ///
    /// # Errors
    /// `request.invalid` from a kind of source that has no Streams, or for a model that is none.
    async fn renew_stream(&mut self, model: &ModelSpec, initial_rows: bool) -> Result<MadeStream> {
        let _ = (model, initial_rows);
        Err(Error::invalid("/kind", "a connection of this kind has no Streams"))
    }
}

/// A kind of source.
#[async_trait]
pub trait SourceKind: Send + Sync + 'static {
    /// Its word in the API, `postgres`.
    const NAME: &'static str;
    /// Its form.
    const FIELDS: &'static [Field];
    /// Its settings; unknown fields are refused. Secrets among them are named by [`Field::secret`].
    type Settings: DeserializeOwned + Serialize + Send + Sync;

    /// Checks rules beyond the types; called before anything is saved.
    ///
    /// # Errors
    /// [`crate::error::Code::Invalid`] with the fields at fault.
    fn validate(&self, settings: &Self::Settings) -> Result<()>;

    /// Checks a model's text before it is saved, without a connection.
    ///
    /// # Errors
    /// `model.not_select`, `model.multiple_statements`, `model.syntax`.
    fn validate_model(&self, model: &ModelSpec) -> Result<()>;

    /// The script that gives the login exactly the rights that are needed, for an administrator to read and run.
    fn setup_script(&self, settings: &Self::Settings) -> String;

    /// Draws a key pair for the login, in the second place if the first is in use. Takes a second: off the async threads.
    ///
    /// # Errors
    /// `request.invalid` from a kind of source, or for a sign-in, that has no key pairs.
    fn draw_key(&self, settings: &Self::Settings, second: bool) -> Result<DrawnKey> {
        let _ = (settings, second);
        Err(Error::invalid("/kind", "a connection of this kind signs in without a key pair"))
    }

    /// Begins a consent. Does not dial.
    ///
    /// # Errors
    /// `request.invalid` from a kind of source, or for a sign-in, that asks for none.
    fn begin_consent(&self, settings: &Self::Settings, redirect_url: &str) -> Result<Consent> {
        let _ = (settings, redirect_url);
        Err(no_consent())
    }

    /// Opens a connection. Does not dial yet: the first call does, and only what `egress` allows.
    async fn open(&self, settings: Self::Settings, egress: Arc<Egress>) -> Result<Box<dyn Source>>;
}

fn no_consent() -> Error {
    Error::invalid("/kind", "a connection of this kind signs in without a consent")
}
