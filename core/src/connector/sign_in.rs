//! What a login needs before it can be used: rights, keys, consents.

use async_trait::async_trait;

use crate::error::Result;
use crate::settings::Secret;

/// A key pair drawn for a login; the private key never leaves the vault.
#[derive(Debug)]
pub struct DrawnKey {
    /// The secret field that is to hold the private key.
    pub field: &'static str,
    /// The private key.
    pub private_key: Secret,
    /// What the source shows of the public key, to compare.
    pub fingerprint: String,
    /// The statement by which an administrator gives the public key to the login.
    pub script: String,
}

/// A consent that a person is asked for.
#[derive(Debug)]
pub struct Consent {
    /// The page where they give it.
    pub url: String,
    /// Must come back unchanged with the code; 128 random bits at least.
    pub state: Secret,
    /// Proves at the exchange that we asked (PKCE, RFC 7636).
    pub verifier: Secret,
}

/// A secret that came of a consent.
#[derive(Debug)]
pub struct Granted {
    /// The secret field that is to hold it.
    pub field: &'static str,
    /// Its text.
    pub text: Secret,
}

/// Keeps secrets that change by being used, such as a refresh token that is good once.
#[async_trait]
pub trait SecretKeeper: Send + Sync {
    /// Takes a field's text, and keeps everybody else from it until the lock is dropped; none if it is not set.
    ///
    /// # Errors
    /// [`crate::error::Code::Database`], [`crate::error::Code::Vault`].
    async fn lock(&self, field: &str) -> Result<Option<Box<dyn LockedSecret>>>;
}

/// A secret whose lock is held: nobody else can use it until this is dropped.
#[async_trait]
pub trait LockedSecret: Send {
    /// Its text.
    fn text(&self) -> &str;

    /// Stores what takes its place, for good, and lets go of the lock.
    ///
    /// # Errors
    /// As [`SecretKeeper::lock`]; what was used is lost then.
    async fn replace(self: Box<Self>, text: &str) -> Result<()>;
}
