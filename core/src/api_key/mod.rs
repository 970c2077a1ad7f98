//! API keys: how programs prove who they are. Owned by service accounts, shown once, stored as a hash.
//!
//! ~~~text
//! made ─► usable ─► expired | revoked
//!            └─ rolled: a new key with the same scopes; the old one expires when the overlap is over
//! ~~~
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::{ApiKeyId, ServiceAccountId};

/// A program's identity: what it does is in its name, whoever made it.
#[derive(Debug, Clone, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct ServiceAccount {
    /// Its id.
    pub id: ServiceAccountId,
    /// Unique in the workspace, 1 to 200 characters.
    pub name: String,
    /// Its keys that are neither expired nor revoked.
    pub usable_keys: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// Whether a key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum KeyState {
    /// It works.
    Usable,
    /// Its time is over.
    Expired,
    /// Somebody ended it.
    Revoked,
}

/// A key, without its text.
#[derive(Debug, Clone, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose key it is.
    pub service_account_id: ServiceAccountId,
    /// What its text begins with, `fr_live_a1b2c3d4`: tells keys apart, and opens nothing.
    pub prefix: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Whether it does so in every workspace of the organization: the header `Freshet-Workspace` names one.
    pub of_organization: bool,
    /// Whether it works.
    pub state: KeyState,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it stops working.
    pub expires_at: DateTime<Utc>,
    /// When somebody ended it.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was used last, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// The key that it takes the place of.
    pub rolled_from: Option<ApiKeyId>,
}

/// A key just made; its text is not to be had again.
#[derive(Debug)]
pub struct NewKey {
    /// The key.
    pub key: ApiKey,
    /// The text, to be shown once.
    pub text: crate::settings::Secret,
}
