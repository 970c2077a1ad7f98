//! A sync: a model sent to a topic of a destination. What it does changes only by a new version.
//!
//! ~~~text
//! draft ──activate──► active ◄──resume── paused
//!   │                   │ └────pause───────▲ │
//!   └───────archive─────┴───► archived ◄─────┘
//! ~~~
mod config;
pub mod health;
pub mod ops;
pub(crate) mod store;
pub mod work;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use config::{Consequence, Deletes, ErrorTolerance, SyncConfig, TopicConfig, TopicNames};

use crate::connector::Progress;
use crate::id::{DestinationId, ModelId, ModelVersionId, SyncId, SyncVersionId};

/// What a person wants of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum SyncState {
    /// Being made; never run.
    Draft,
    /// May run.
    Active,
    /// May not run until it is resumed.
    Paused,
    /// Gone from the lists; its history stays.
    Archived,
}

impl SyncState {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Archived => "archived",
        }
    }
}

/// A sync with its current version.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Sync {
    /// Its id.
    pub id: SyncId,
    /// What is read.
    pub model_id: ModelId,
    /// Where it goes.
    pub destination_id: DestinationId,
    /// Its name, unique among those not archived.
    pub name: String,
    /// What a person wants of it.
    pub state: SyncState,
    /// The current version's number, from 1.
    pub version: i32,
    /// The model's version that it reads.
    pub model_version: i32,
    /// Raised when what is read or where it goes changes; a new generation starts from the beginning.
    pub generation: i64,
    /// The topic, its template filled in.
    pub topic: String,
    /// How it is done.
    pub config: SyncConfig,
    /// Raised by each change; its `ETag`.
    pub row_version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// The current version's row.
    #[serde(skip, default = "SyncVersionId::new")]
    pub version_id: SyncVersionId,
    /// The model version's row.
    #[serde(skip, default = "ModelVersionId::new")]
    pub model_version_id: ModelVersionId,
}

/// How a sync of a Stream begins anew: its Stream is made again, as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resync {
    /// With every row that there is: consumers see each key again, as created.
    Full,
    /// With what changes from now on: what is there, and what waits in the Stream, is taken as sent.
    Position,
}

/// Where a sync is. Follows the progress record in Kafka; never leads it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Position {
    /// The generation it belongs to.
    pub generation: i64,
    /// The last batch sealed.
    pub batch_seq: i64,
    /// `sealed`, `delivered` or `released`.
    pub batch_state: String,
    /// What the source needs to read the batch again.
    #[schema(value_type = Option<Object>)]
    pub batch: Option<serde_json::Value>,
    /// What the source wants back at the next seal.
    #[schema(value_type = Option<Object>)]
    pub carry: Option<serde_json::Value>,
    /// The token of the last change known to be delivered.
    #[schema(value_type = Option<Object>)]
    pub token: Option<serde_json::Value>,
    /// Its place in the batch.
    pub ordinal: i64,
    /// The lane's partition of the progress topic.
    pub progress_partition: Option<i32>,
    /// Where to begin reading there.
    pub progress_offset: Option<i64>,
    /// The cluster that it is true for.
    pub cluster_id: Option<String>,
    /// The last progress record written down: what the runs have counted of its batch.
    #[serde(skip)]
    pub progress: Option<Progress>,
    /// A person asked that the next run adopt Kafka's position.
    #[serde(default)]
    pub adopt: bool,
}

impl Position {
    /// Before the first batch.
    #[must_use]
    pub fn beginning(generation: i64) -> Self {
        Self {
            generation,
            batch_seq: 0,
            batch_state: "released".into(),
            batch: None,
            carry: None,
            token: None,
            ordinal: 0,
            progress_partition: None,
            progress_offset: None,
            cluster_id: None,
            progress: None,
            adopt: false,
        }
    }

    /// The same place for a generation: another begins anew, and its batches are numbered on.
    fn of_generation(self, generation: i64) -> Self {
        if self.generation == generation {
            return self;
        }
        Self { batch_seq: self.batch_seq, ..Self::beginning(generation) }
    }

    /// Follows a progress record, and its offset where that is known.
    pub fn follow(&mut self, progress: &Progress, offset: Option<i64>) {
        self.token = progress.source_token.clone().or_else(|| self.token.take());
        self.ordinal = progress.ordinal;
        self.progress_offset = offset.or(self.progress_offset);
        self.progress = Some(progress.clone());
        if progress.batch_complete {
            self.batch_state = "delivered".into();
        }
    }
}
