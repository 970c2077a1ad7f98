//! A personal token: how a person's own programs prove that they are theirs. It may what its person may, in the workspace
//! that a request names; who leaves an organization takes their tokens' rights with them.
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::api_key::KeyState;
use crate::id::PersonalTokenId;
use crate::settings::Secret;

/// A token, without its text.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct PersonalToken {
    /// Its id.
    pub id: PersonalTokenId,
    /// What it is for, 1 to 200 characters.
    pub name: String,
    /// The beginning of its text.
    pub prefix: String,
    /// Whether it works.
    pub state: KeyState,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it stops working.
    pub expires_at: DateTime<Utc>,
    /// When it was used last, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A token just made; its text is not to be had again.
#[derive(Debug)]
pub struct NewPersonalToken {
    /// The token.
    pub token: PersonalToken,
    /// The text, to be shown once.
    pub text: Secret,
}
