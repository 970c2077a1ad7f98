//! An operation: a question that only a worker may answer. The API inserts the row, a worker fills it in.
//!
//! ~~~text
//! pending ─► running ─► succeeded | failed | cancelled
//!    ▲──────────┘ the worker's lease ran out
//! ~~~
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::connector::NewStream;
use crate::id::{ConnectionId, ConsentId, DestinationId, ModelId, OperationId, SyncId, WorkspaceId};
use crate::sync::Resync;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Question {
    /// Try a connection, step by step.
    TestConnection {
        /// Which.
        connection: ConnectionId,
    },
    /// List what a connection reaches.
    ListCatalogue {
        /// Which.
        connection: ConnectionId,
        /// One schema of it.
        schema: Option<String>,
    },
    /// Make a Stream that a model can read.
    MakeStream {
        /// Through which connection.
        connection: ConnectionId,
        /// Which.
        stream: NewStream,
        /// Only say how.
        dry_run: bool,
    },
    /// Give the code that came back from a consent for what it grants.
    FinishConsent {
        /// For which connection.
        connection: ConnectionId,
        /// Which.
        consent: ConsentId,
    },
    /// Find a model's columns and key.
    DescribeModel {
        /// Which.
        model: ModelId,
    },
    /// Show a model's first rows.
    PreviewModel {
        /// Which.
        model: ModelId,
    },
    /// Count rows without key and keys that repeat.
    CheckKey {
        /// Which model.
        model: ModelId,
        /// The key to check; the model's own if empty.
        key: Vec<String>,
    },
    /// Try a destination, step by step.
    TestDestination {
        /// Which.
        destination: DestinationId,
    },
    /// Look at everything a run of a sync needs.
    CheckSync {
        /// Which.
        sync: SyncId,
    },
    /// Show the first records that a sync's next run would send.
    PreviewRecords {
        /// Which.
        sync: SyncId,
    },
    /// Count what a sync's next run would send.
    PlanRun {
        /// Which.
        sync: SyncId,
    },
    /// Make a sync's Stream anew, and let the sync begin with it.
    ResyncSync {
        /// Which.
        sync: SyncId,
        /// With every row, or with none.
        how: Resync,
    },
}

impl Question {
    /// Its word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TestConnection { .. } => "test_connection",
            Self::ListCatalogue { .. } => "list_catalogue",
            Self::MakeStream { .. } => "make_stream",
            Self::FinishConsent { .. } => "finish_consent",
            Self::DescribeModel { .. } => "describe_model",
            Self::PreviewModel { .. } => "preview_model",
            Self::CheckKey { .. } => "check_key",
            Self::TestDestination { .. } => "test_destination",
            Self::CheckSync { .. } => "check_sync",
            Self::PreviewRecords { .. } => "preview_records",
            Self::PlanRun { .. } => "plan_run",
            Self::ResyncSync { .. } => "resync_sync",
        }
    }
}

/// An operation as people see it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What is asked, with ids.
    pub question: Question,
    /// `pending`, `running`, `succeeded`, `failed`, `cancelled`.
    pub state: String,
    /// The answer; deleted an hour after it was asked for.
    #[schema(value_type = Option<Object>)]
    pub result: Option<Value>,
    /// Why there is no answer.
    pub error: Option<crate::run::Failure>,
    /// When it was asked.
    pub created_at: DateTime<Utc>,
    /// When it was answered.
    pub finished_at: Option<DateTime<Utc>>,
}

/// One worker's hold on an operation.
#[derive(Debug, Clone)]
pub struct OperationClaim {
    /// Whose.
    pub workspace: WorkspaceId,
    /// Which.
    pub id: OperationId,
    /// The fence.
    pub epoch: i64,
    /// What is asked.
    pub question: Question,
}
