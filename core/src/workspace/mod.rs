//! A workspace: the tenant, one of an organization's.
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::{OrganizationId, WorkspaceId};

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
    /// How many of its runs may work at once.
    pub runs_max: i32,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}
