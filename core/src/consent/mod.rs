//! A consent: a person lets Freshet sign in with their rights, by OAuth.
//!
//! ~~~text
//! asked ─► returned with a code ─► a worker exchanges it: the connection has its secret
//!   └─ 10 minutes, or the next one for the connection: forgotten
//! ~~~
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::Serialize;

/// Where to send the person.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ConsentAsked {
    /// The source's page.
    pub url: String,
    /// Where that page sends them back; the source has to know it.
    pub redirect_url: String,
    /// Until when they may come back.
    pub expires_at: DateTime<Utc>,
}
