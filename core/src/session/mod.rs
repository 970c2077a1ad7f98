//! A session: a person's time in the dashboard, from signing in to signing out.
//!
//! ~~~text
//! address and password ─┬─► pending ── code of the second factor ─► open ─► ended: signed out, revoked, idle, too old
//! an issuer's word ─────┴───────────────────────────────────────────►│
//!                                                                   └─ proved again: another token, recent again
//! ~~~
//!
//! An organization can have its workspaces opened by its own issuer's word alone. Then a password opens nothing of it, but for
//! the one owner who breaks the glass when the issuer fails: with a second factor, and told to every owner.
//!
//! The token is drawn anew whenever the session comes to open more; its hash alone is stored.
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::access::{Actor, Credential};
use crate::app::App;
use crate::error::{Code, Error, Result};
use crate::id::{OrganizationId, RequestId, SessionId, SsoConnectionId, UserId};
use crate::settings::Secret;

/// Minutes after a proof in which dangerous acts are allowed without another.
const RECENT_MINUTES: i64 = 15;

/// A session, as its person sees it.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// How the person proved who they are, in words of RFC 8176: `pwd`, `otp`, `kba` for a recovery code, `fed` for an issuer.
    pub amr: Vec<String>,
    /// When they last did.
    pub auth_at: DateTime<Utc>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    pub used_at: DateTime<Utc>,
    /// When it ends at the latest.
    pub expires_at: DateTime<Utc>,
    /// From where it began.
    pub ip: Option<String>,
    /// With which browser.
    pub user_agent: Option<String>,
}

/// Where somebody signs in from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The address; of a proxy that is not trusted, if there is one before us.
    pub ip: Option<String>,
    /// The browser's own word.
    pub user_agent: Option<String>,
    /// The request.
    pub request: Option<RequestId>,
}

/// A session just begun.
#[derive(Debug)]
pub struct Begun {
    /// Whose.
    pub user: UserId,
    /// For the cookie; not to be had again.
    pub token: Secret,
    /// Whether the second factor is still to come.
    pub pending: bool,
    /// When it ends at the latest.
    pub expires_at: DateTime<Utc>,
}

/// What issuers' words added to a session.
#[derive(Debug, Clone, Default, sqlx::FromRow)]
pub(crate) struct Vouched {
    /// The connections that they came by.
    pub(crate) connections: Vec<SsoConnectionId>,
    /// The only organization that the session opens: of an issuer's that does not speak for the person's own address.
    pub(crate) confined_to: Option<OrganizationId>,
}

/// Who is there, by a session's token.
#[derive(Debug, Clone)]
pub struct Known {
    /// Who.
    pub user: UserId,
    /// By which session.
    pub session: SessionId,
    /// When they last proved it.
    pub auth_at: DateTime<Utc>,
    /// The only organization that the session opens; what wants a recent proof of the person's own is closed to it.
    pub confined_to: Option<OrganizationId>,
    /// The request.
    pub request: Option<RequestId>,
}

impl Known {
    /// Who acts.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::User { user: self.user, by: Credential::Session(self.session) }
    }

    /// Asks that the person proved who they are within the last 15 minutes.
    ///
    /// # Errors
    /// `auth.proof_too_old`.
    pub fn must_be_recent(&self, app: &App) -> Result<()> {
        if self.confined_to.is_some() {
            let told = "an organization's issuer vouched for you, and this is about you: it wants your own password";
            return Err(Error::new(Code::ProofTooOld, told));
        }
        refuse_old(app, self.auth_at)
    }
}

/// Refuses a proof that is older than 15 minutes.
fn refuse_old(app: &App, auth_at: DateTime<Utc>) -> Result<()> {
    if app.clock.now() - auth_at <= TimeDelta::minutes(RECENT_MINUTES) {
        return Ok(());
    }
    let told = format!("this wants a proof of the last {RECENT_MINUTES} minutes that it is you");
    Err(Error::new(Code::ProofTooOld, told))
}
