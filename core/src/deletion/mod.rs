//! Deleting a workspace: nobody works there from the request on; for an undo period it can be restored; then its secrets are
//! destroyed in one step, its rows go in batches, and what stays is a receipt in the organization's audit log.
pub mod ops;
pub(crate) mod store;

use serde::Serialize;

use crate::id::{ConnectionId, DestinationId};
use crate::workspace::Workspace;

/// A workspace that is to be deleted.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Deletion {
    /// The workspace; until `delete_after` it can be restored.
    pub workspace: Workspace,
    /// Runs that were cancelled.
    pub cancelled_runs: i64,
    /// What lies at other places, and stays there.
    pub untouched: Vec<Untouched>,
}

/// Something that Freshet made or filled at another place and does not remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Untouched {
    /// `topics`, `progress`, `tables`.
    pub kind: &'static str,
    /// The cluster, for topics and progress.
    pub destination_id: Option<DestinationId>,
    /// The source, for tables.
    pub connection_id: Option<ConnectionId>,
    /// What it is called there, 1 000 names at most.
    pub names: Vec<String>,
    /// How it is removed.
    pub how: &'static str,
}

/// How topics are removed.
pub(crate) const TOPICS: &str = "Delete them with `kafka-topics.sh --delete --topic …` once no consumer wants them.";
/// How progress is removed.
pub(crate) const PROGRESS: &str =
    "Delete the topic once no sync of any workspace or installation uses it: its records tell what is delivered.";
/// How tables of the source are removed.
pub(crate) const TABLES: &str =
    "Drop the tables whose names begin so, or the schema; for Streams that Freshet made `drop stream …` besides.";
