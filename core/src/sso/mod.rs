//! Signing in by an organization's issuer: OpenID Connect, Google, or GitHub's OAuth.
//!
//! ~~~text
//! connection ─► started: state, nonce and verifier from a word in the browser's cookie
//!                 │        the browser goes to the issuer
//!                 ▼
//!               come back ─► state, issuer, code, token checked ─► (issuer, subject) ─► a session
//!                              └─ new: an address that the issuer proved, of a domain that the organization has
//! ~~~
//!
//! | file | holds |
//! |---|---|
//! | `ops` | connections: what may be done with them |
//! | `sign_in` | there and back; whom an issuer's word makes known |
//! | `issuer` | what is asked of an issuer, and what its answers must be like |
//! | `dial` | the one way to an issuer: judged addresses, no redirects, small answers, short waits |
mod dial;
mod issuer;
pub mod ops;
pub mod sign_in;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::access::Role;
use crate::error::{Error, Result};
use crate::id::{SsoConnectionId, UserId, WorkspaceId};
use crate::settings::Secret;

/// The path under which browsers come back.
pub const CALLBACK: &str = "/sso/callback";

/// What kind of issuer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SsoKind {
    /// Any issuer of OpenID Connect.
    Oidc,
    /// Google.
    Google,
    /// GitHub, or a GitHub Enterprise Server: OAuth, without ID tokens.
    Github,
}

impl SsoKind {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oidc => "oidc",
            Self::Google => "google",
            Self::Github => "github",
        }
    }

    /// The issuer, where there is one for all.
    fn usual_issuer(self) -> Option<&'static str> {
        match self {
            Self::Oidc => None,
            Self::Google => Some("https://accounts.google.com"),
            Self::Github => Some("https://github.com"),
        }
    }
}

impl TryFrom<String> for SsoKind {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let all = [Self::Oidc, Self::Google, Self::Github];
        let found = all.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| Error::invalid("/kind", "must be among oidc, google, github"))
    }
}

/// An issuer whose word an organization takes; without the client's secret.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct SsoConnection {
    /// Its id.
    pub id: SsoConnectionId,
    /// What stands on the button.
    pub name: String,
    /// What kind of issuer it is.
    #[sqlx(try_from = "String")]
    pub kind: SsoKind,
    /// The issuer, as its own metadata say it.
    pub issuer: String,
    /// Whom the issuer knows Freshet as.
    pub client_id: String,
    /// Of the organization's domains those that it speaks for.
    pub domains: Vec<String>,
    /// What somebody new becomes.
    #[sqlx(try_from = "String")]
    pub default_role: Role,
    /// The workspace that they become it in; none for the whole organization.
    pub default_workspace_id: Option<WorkspaceId>,
    /// Whether the organization's workspaces open by its word alone.
    pub enforce: bool,
    /// The owner who comes in by password and second factor all the same.
    pub break_glass_user_id: Option<UserId>,
    /// When an owner last came in by it; before that it cannot be enforced.
    pub owner_signed_in_at: Option<DateTime<Utc>>,
    /// Counts its changes.
    pub row_version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// A connection to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SsoConnectionNew {
    /// What stands on the button, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// What kind of issuer it is.
    pub kind: SsoKind,
    /// The issuer: `https://login.acme.example`. Google's and GitHub's own if not given.
    #[schema(max_length = 500)]
    pub issuer: Option<String>,
    /// Whom the issuer knows Freshet as.
    #[schema(min_length = 1, max_length = 500)]
    pub client_id: String,
    /// The client's secret; kept sealed, and never shown.
    #[schema(value_type = String, min_length = 1, max_length = 1000)]
    pub client_secret: HiddenText,
    /// Of the organization's proved domains those that it speaks for.
    #[schema(max_items = 100)]
    #[serde(default)]
    pub domains: Vec<String>,
    /// What somebody new becomes: no owner, and no role that may do more than the caller.
    pub default_role: Role,
    /// The workspace that they become it in; the whole organization if not given.
    pub default_workspace_id: Option<WorkspaceId>,
}

/// What is to be changed; what is not named stays. Another issuer is another connection.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SsoConnectionPatch {
    /// What stands on the button, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    /// Whom the issuer knows Freshet as.
    #[schema(min_length = 1, max_length = 500)]
    pub client_id: Option<String>,
    /// The client's secret; kept sealed, and never shown.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 1000)]
    pub client_secret: Option<HiddenText>,
    /// Of the organization's proved domains those that it speaks for.
    #[schema(max_items = 100)]
    pub domains: Option<Vec<String>>,
    /// What somebody new becomes: no owner, and no role that may do more than the caller.
    pub default_role: Option<Role>,
    /// Whether the organization's workspaces open by its word alone. Wants an owner who came in by it, and another way in:
    /// `break_glass_user_id`.
    pub enforce: Option<bool>,
    /// The owner who comes in by password and second factor all the same; they need both.
    pub break_glass_user_id: Option<UserId>,
}

/// A text of a body that is kept out of logs.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "String")]
pub struct HiddenText(pub Secret);

impl From<String> for HiddenText {
    fn from(text: String) -> Self {
        Self(text.parse().unwrap_or_default())
    }
}

/// A way in, as somebody sees it who has not come in.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Door {
    /// The connection.
    pub id: SsoConnectionId,
    /// What stands on the button.
    pub name: String,
    /// The organization's name.
    pub organization_name: String,
}
