//! A workspace: the tenant, one of an organization's.
//!
//! ~~~text
//! active ──delete──► deleting ──its undo period is over──► erasing ─► gone, but for a receipt
//!    ▲────restore───────┘
//! ~~~
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{OrganizationId, WorkspaceId};

/// How a workspace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum WorkspaceState {
    /// People and programs work in it.
    Active,
    /// Nobody does, nothing runs; it can be restored until `delete_after`.
    Deleting,
    /// Its secrets are destroyed, and its rows go.
    Erasing,
}

/// A tenant.
#[derive(Debug, Clone, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// The organization that it is of.
    pub organization_id: OrganizationId,
    /// Its short name, unique in the organization.
    pub slug: String,
    /// Its name on the screen.
    pub name: String,
    /// How it stands.
    pub state: WorkspaceState,
    /// Until when it can be restored, if it is deleted.
    pub delete_after: Option<DateTime<Utc>>,
    /// How many of its runs may work at once.
    pub runs_max: i32,
    /// Days that timelines of runs are kept; none for as long as the installation has it.
    pub run_event_days: Option<i32>,
    /// Days that runs are kept; none for as long as the installation has it.
    pub run_days: Option<i32>,
    /// Counts its changes.
    pub row_version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// What is to be changed; what is not named stays.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspacePatch {
    /// Its name on the screen, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// Days that timelines of runs are kept, 1 to 3650; null for as long as the installation has it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i32>, minimum = 1, maximum = 3650)]
    pub run_event_days: Option<Option<i32>>,
    /// Days that runs are kept, 1 to 3650; null for as long as the installation has it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i32>, minimum = 1, maximum = 3650)]
    pub run_days: Option<Option<i32>>,
}

/// A member that is there, be it null.
pub(crate) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
