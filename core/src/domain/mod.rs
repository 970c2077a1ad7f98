//! A domain: the part of an address after the `@`, and whose it is.
//!
//! ~~~text
//! claimed ─► verified: by a TXT record, or by whoever runs the installation ─► gone
//! ~~~
//!
//! Many may claim a domain, and one has it: the first who proves it. What an issuer says of an address counts where the
//! organization has the domain.
mod dns;
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::Result;
use crate::id::DomainId;

/// A domain of an organization.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// The domain, in lower case.
    pub name: String,
    /// Where the proof has to stand.
    pub record_name: String,
    /// What the TXT record there has to say.
    pub record_text: String,
    /// When it was proved; none while it is only claimed.
    pub verified_at: Option<DateTime<Utc>>,
    /// When it was claimed.
    pub created_at: DateTime<Utc>,
}

/// Whether a `dns_server` can be asked: `address:port`, or empty for the system's.
///
/// # Errors
/// [`crate::error::Code::Settings`].
pub fn check_server(server: &str) -> Result<()> {
    dns::resolver(server).map(|_| ())
}

/// The domain of an address, in lower case; none for a text that is no address.
#[must_use]
pub fn of_address(email: &str) -> Option<String> {
    let (name, domain) = email.trim().rsplit_once('@')?;
    (!name.is_empty() && !domain.is_empty()).then(|| domain.to_ascii_lowercase())
}
