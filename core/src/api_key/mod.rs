//! API keys: how programs prove who they are. Owned by service accounts, shown once, stored as a hash.
//!
//! ~~~text
//! fr_live_a1b2c3d4_Zk…43 characters…9Q_0aZ9x1
//!         key id   secret, 256 bits     checksum: a typo is refused without asking the database
//! ~~~
pub mod ops;
pub(crate) mod store;
mod text;

use chrono::{DateTime, Utc};

use crate::id::{ApiKeyId, ServiceAccountId};

/// A key just made; its text is not to be had again.
#[derive(Debug)]
pub struct NewKey {
    /// The key's id.
    pub id: ApiKeyId,
    /// Whose key it is.
    pub service_account: ServiceAccountId,
    /// The text, to be shown once.
    pub text: crate::settings::Secret,
    /// When it stops working.
    pub expires_at: DateTime<Utc>,
}
