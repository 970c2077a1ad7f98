//! An organization: whom people belong to and workspaces are of. Its own settings say how its people sign in.
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::OrganizationId;
use crate::settings::Reach;

/// An organization.
#[derive(Debug, Clone, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// Its short name, unique in the installation.
    pub slug: String,
    /// Its name on the screen.
    pub name: String,
    /// Hours without use after which a session of its people ends, 1 to 12.
    pub session_idle_hours: i32,
    /// Hours after which every session of its people ends, 1 to 168.
    pub session_hours: i32,
    /// Days that lines of its audit log are kept; none for as long as the installation has it.
    pub audit_days: Option<i32>,
    /// Counts its changes.
    pub row_version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// What is to be changed; what is not named stays.
#[derive(Debug, Clone, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrganizationPatch {
    /// Its name on the screen, 1 to 200 characters.
    pub name: Option<String>,
    /// Hours without use after which a session of its people ends, 1 to 12; for sessions that begin from now on.
    pub session_idle_hours: Option<i32>,
    /// Hours after which every session of its people ends, 1 to 168; for sessions that begin from now on.
    pub session_hours: Option<i32>,
    /// Days that lines of its audit log are kept, 90 to 3650; null for as long as the installation has it.
    #[serde(default, deserialize_with = "crate::workspace::given")]
    #[schema(value_type = Option<i32>, minimum = 90, maximum = 3650)]
    pub audit_days: Option<Option<i32>>,
}

/// Where workers dial for an organization: shown to it, and set by whoever runs the installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EgressTold {
    /// Whether it is the organization's own, and not the installation's.
    pub is_own: bool,
    /// Which networks are open; loopback, metadata services and Freshet's own database never are unless they are named.
    pub reach: Reach,
    /// Networks and addresses that are open besides; null where it is the installation's list, which is its operator's.
    pub allow: Option<String>,
}
