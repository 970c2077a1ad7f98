//! An identity: whom an issuer knows a person as, by its own subject. Never the e-mail address: it can be given to somebody
//! else.
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::id::IdentityId;

/// An identity of a person.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Identity {
    /// Its id.
    pub id: IdentityId,
    /// The issuer.
    pub issuer: String,
    /// Whom the issuer knows them as.
    pub subject: String,
    /// The address that the issuer last told; for the eye alone.
    pub email: Option<String>,
    /// When they last came in by it.
    pub used_at: Option<DateTime<Utc>>,
    /// Since when it is theirs.
    pub created_at: DateTime<Utc>,
}
