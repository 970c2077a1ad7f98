//! The feed: what happened in a workspace within 30 days, in an order that readers go on from.
//!
//! ~~~text
//! a row changes ──trigger──► event without a number ──somebody reads──► number n ─► whoever asks for more than n-1
//! ~~~
//!
//! An event is written by what happened, in its transaction. It gets its number when the feed is read, after all that was
//! read before: an event of a slow transaction comes late, and none is passed over.
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::types::Json;
use uuid::Uuid;

use crate::id::{self, EventId};

/// What events there are: the word, and when.
pub const KINDS: &[(&str, &str)] = &[
    ("run.queued", "A run waits for a worker."),
    ("run.started", "A worker took the run for the first time."),
    ("run.succeeded", "All is delivered."),
    ("run.succeeded_with_errors", "All is delivered or a dead letter."),
    ("run.failed", "A person must act, or too many attempts made no progress."),
    ("run.cancelled", "Stopped by a person."),
    ("run.skipped", "Not run, for a reason that is kept."),
    ("sync.activated", "A draft may run."),
    ("sync.paused", "The sync starts no runs."),
    ("sync.resumed", "A paused sync may run again."),
    ("sync.archived", "The sync is gone from the lists."),
    ("quota.warning", "Four fifths of a limit are used: which, its value, and how much."),
];

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FeedEvent {
    /// Its id.
    pub id: EventId,
    /// What: noun and deed.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was written.
    pub timestamp: DateTime<Utc>,
    /// Whose: ids, or the numbers of a limit.
    #[schema(value_type = Object)]
    pub data: Value,
}

/// A part of the feed, oldest first.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct FeedPage {
    /// What happened.
    pub data: Vec<FeedEvent>,
    /// Ask with this for what comes next: always there, for the feed has no end.
    pub next_cursor: String,
    /// Whether more is there already.
    pub has_more: bool,
}

/// An event as it is stored.
#[derive(sqlx::FromRow)]
pub(crate) struct EventRow {
    id: EventId,
    number: i64,
    kind: String,
    at: DateTime<Utc>,
    data: Json<Map<String, Value>>,
}

impl From<EventRow> for FeedEvent {
    fn from(row: EventRow) -> Self {
        let shown = |(name, value): (String, Value)| {
            let noun = name.strip_suffix("_id");
            let id = noun.zip(value.as_str().and_then(|text| Uuid::parse_str(text).ok()));
            let value = id.map_or(value, |(noun, id)| id::text_of(noun, id).into());
            (name, value)
        };
        let data = row.data.0.into_iter().map(shown).collect::<Map<_, _>>().into();
        Self { id: row.id, kind: row.kind, timestamp: row.at, data }
    }
}
