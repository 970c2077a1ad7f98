//! Who belongs to an organization or to a workspace of it, as what; and who is invited.
//!
//! ~~~text
//! invited ─► accepted: a membership ─► another role ─► gone
//!    └─ revoked, or two weeks
//! ~~~
//!
//! A role in the organization is one in each of its workspaces; of two roles the stronger counts. Memberships are read
//! anew for each request: what is taken away is gone at once.
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::access::Role;
use crate::id::{InvitationId, MembershipId, OrganizationId, UserId, WorkspaceId};
use crate::settings::Secret;

/// A person in an organization.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Member {
    /// The membership's id.
    pub id: MembershipId,
    /// Who.
    pub user_id: UserId,
    /// Their address.
    pub email: String,
    /// Their name.
    pub name: String,
    /// The workspace that the role is for; none for the whole organization.
    pub workspace_id: Option<WorkspaceId>,
    /// As what.
    #[sqlx(try_from = "String")]
    pub role: Role,
    /// Counts its changes.
    pub row_version: i64,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// How an invitation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum InvitationState {
    /// It can be accepted.
    Open,
    /// It was.
    Accepted,
    /// Somebody took it back.
    Revoked,
    /// Nobody accepted it in time.
    Expired,
}

/// A role that is offered to an address.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// To whom.
    pub email: String,
    /// The workspace that the role is for; none for the whole organization.
    pub workspace_id: Option<WorkspaceId>,
    /// As what.
    #[sqlx(try_from = "String")]
    pub role: Role,
    /// How it stands.
    pub state: InvitationState,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Until when it can be accepted.
    pub expires_at: DateTime<Utc>,
}

/// An invitation just made.
#[derive(Debug)]
pub struct NewInvitation {
    /// The invitation.
    pub invitation: Invitation,
    /// Where it is accepted, for the one who invites to hand on; none where it went out by mail.
    pub url: Option<Secret>,
}

/// An invitation as the one sees it who has its word.
#[derive(Debug, Clone)]
pub struct Offer {
    /// To whom.
    pub email: String,
    /// The organization's name.
    pub organization: String,
    /// As what.
    pub role: Role,
    /// Whether the address is known already: then its person signs in to accept.
    pub is_known: bool,
}

/// A place that a person can work in.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct Place {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// Its short name.
    pub workspace_slug: String,
    /// Its name.
    pub workspace_name: String,
    /// The organization.
    pub organization_id: OrganizationId,
    /// Its name.
    pub organization_name: String,
    /// Its short name.
    pub organization_slug: String,
    /// Whether it is closed until the person signs in with the organization's own issuer.
    pub wants_sso: bool,
    /// As what.
    #[sqlx(try_from = "String")]
    pub role: Role,
}
