//! Signing in: a key pair, a programmatic access token, or OAuth. Each ends in a bearer token for a request.

pub mod key_pair;
pub mod oauth;

use freshet_core::clock::Clock;
use freshet_core::error::Result;
use secrecy::SecretString;

use key_pair::Signer;
use oauth::OAuth;

/// How requests prove who sends them.
pub enum SignIn {
    /// Tokens that we sign ourselves, with one of up to two keys.
    KeyPair(Signer),
    /// A programmatic access token.
    Token(SecretString),
    /// Access tokens of OAuth, renewed with a refresh token.
    OAuth(OAuth),
}

/// A token for one request.
#[derive(Clone)]
pub struct Bearer {
    /// The value of `X-Snowflake-Authorization-Token-Type`.
    pub kind: &'static str,
    /// What stands after `Bearer `.
    pub secret: SecretString,
}

impl SignIn {
    /// A token that is good for some minutes at least.
    ///
    /// # Errors
    /// `snowflake.consent_expired`, `snowflake.login_failed`, `snowflake.unreachable` from OAuth's renewal;
    /// `platform.internal` if signing fails.
    pub async fn bearer(&self, http: &reqwest::Client, clock: &Clock) -> Result<Bearer> {
        match self {
            Self::KeyPair(signer) => Ok(Bearer { kind: "KEYPAIR_JWT", secret: signer.token(clock)? }),
            Self::Token(token) => Ok(Bearer { kind: "PROGRAMMATIC_ACCESS_TOKEN", secret: token.clone() }),
            Self::OAuth(oauth) => Ok(Bearer { kind: "OAUTH", secret: oauth.token(http, clock).await? }),
        }
    }

    /// Takes note that a token was refused; whether another one is worth a try.
    pub async fn refused(&self) -> bool {
        match self {
            Self::KeyPair(signer) => {
                signer.refused();
                true
            }
            Self::Token(_) => false,
            Self::OAuth(oauth) => {
                oauth.forget().await;
                true
            }
        }
    }
}
