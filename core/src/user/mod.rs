//! A person: an address, a name, and what proves that it is them.
//!
//! ~~~text
//! set up | signed up | invited | sent by an issuer ─► known ─► disabled
//!                                  └─ password, second factor, recovery codes, identities at issuers
//! ~~~
pub mod ops;
mod password;
pub(crate) mod store;
mod totp;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::id::UserId;
use crate::settings::Secret;

pub(crate) use password::{hash as hash_password, verify as verify_password};

/// Passwords that this process has hashed or compared.
#[cfg(feature = "testing")]
pub(crate) fn passwords_hashed() -> usize {
    password::HASHED.load(std::sync::atomic::Ordering::SeqCst)
}

/// A person, as they see themselves.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Their address.
    pub email: String,
    /// Their name on the screen.
    pub name: String,
    /// When they proved that the address is theirs.
    pub email_verified_at: Option<DateTime<Utc>>,
    /// Whether they see to what belongs to the installation.
    pub instance_admin: bool,
    /// Whether they have a password; who has none signs in by an issuer.
    pub has_password: bool,
    /// Whether a second factor is asked for.
    pub has_second_factor: bool,
    /// Recovery codes that are left.
    pub recovery_codes: i64,
    /// When they became known.
    pub created_at: DateTime<Utc>,
}

/// A second factor that is to be confirmed by a first code.
#[derive(Debug)]
pub struct NewSecondFactor {
    /// The secret in base 32, to be typed.
    pub secret: Secret,
    /// The same as an address `otpauth://…`, for a QR code.
    pub url: Secret,
}
