//! Who asks, and what they may do. A right is a value that `ops` ask for.

use uuid::Uuid;

use crate::error::{Code, Error, Result};
use crate::id::{
    ApiKeyId, OrganizationId, PersonalTokenId, RequestId, ServiceAccountId, SessionId, UserId, WorkspaceId,
};

macro_rules! rights {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $least:ident;)*) => {
        /// One thing that may be done; the same word is the scope of a key.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Right { $($(#[doc = $doc])* $name,)* }

        impl Right {
            /// Every right there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The scope's word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The role from which on it is given: every role may do what those below it may.
            #[must_use]
            pub fn least_role(self) -> Role {
                match self { $(Self::$name => Role::$least,)* }
            }

            /// What it is, for people.
            #[must_use]
            pub fn doc(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)*).trim_ascii(),)* }
            }
        }
    };
}

/// What a person is in a workspace. Each role may do what those before it may, and more.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees what there is, but no rows.
    Viewer,
    /// Runs, retries and cancels besides.
    Operator,
    /// Makes and changes connections, models, destinations and syncs besides, and sees rows.
    Editor,
    /// Gives keys and reads the audit log besides.
    Admin,
    /// May do everything.
    Owner,
}

impl Role {
    /// Every role, the weakest first.
    pub const ALL: &'static [Self] = &[Self::Viewer, Self::Operator, Self::Editor, Self::Admin, Self::Owner];

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Editor => "editor",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The role of a word.
    ///
    /// # Errors
    /// `request.invalid`, listing the roles there are.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|role| role.as_str() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|role| role.as_str()).collect();
            Error::invalid("/role", format!("must be among {}", all.join(", ")))
        })
    }

    /// What it may do.
    #[must_use]
    pub fn rights(self) -> Vec<Right> {
        Right::ALL.iter().copied().filter(|right| right.least_role() <= self).collect()
    }
}

impl TryFrom<String> for Role {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

rights! {
    /// See connections, without their secrets.
    ConnectionsRead = "connections:read", Viewer;
    /// Make, change, archive and test connections, and list what they reach.
    ConnectionsWrite = "connections:write", Editor;
    /// See models.
    ModelsRead = "models:read", Viewer;
    /// Make, change and archive models.
    ModelsWrite = "models:write", Editor;
    /// See rows of a model: previews.
    RowsRead = "rows:read", Editor;
    /// See destinations, without their secrets.
    DestinationsRead = "destinations:read", Viewer;
    /// Make, change, archive and test destinations.
    DestinationsWrite = "destinations:write", Editor;
    /// See syncs.
    SyncsRead = "syncs:read", Viewer;
    /// Make, change, activate, pause and archive syncs.
    SyncsWrite = "syncs:write", Editor;
    /// Start and retry runs.
    SyncsRun = "syncs:run", Operator;
    /// See runs, their events and dead letters.
    RunsRead = "runs:read", Viewer;
    /// Cancel runs.
    RunsCancel = "runs:cancel", Operator;
    /// See service accounts and their keys, without the keys' texts.
    KeysRead = "keys:read", Admin;
    /// Make and archive service accounts; make, roll and revoke keys, with no scope that the maker lacks.
    KeysWrite = "keys:write", Admin;
    /// See and export the audit log.
    AuditRead = "audit:read", Admin;
    /// See who belongs to the organization or workspace, and who is invited.
    MembersRead = "members:read", Viewer;
    /// Invite people, change what they may do, and take them away; nobody gives what they may not do themselves.
    MembersWrite = "members:write", Admin;
    /// Make and change workspaces.
    WorkspacesWrite = "workspaces:write", Admin;
    /// Delete workspaces, and restore them while that is possible.
    WorkspacesDelete = "workspaces:delete", Owner;
    /// See the organization's settings and limits.
    OrganizationRead = "organization:read", Viewer;
    /// Change the organization's settings: how long sessions last, how people sign in.
    OrganizationWrite = "organization:write", Owner;
    /// See the organization's domains and by which issuers its people sign in, without their secrets.
    SsoRead = "sso:read", Admin;
    /// Claim domains, and say by which issuers the organization's people sign in, or must.
    SsoWrite = "sso:write", Owner;
}

impl Right {
    /// The right of a scope's word.
    ///
    /// # Errors
    /// `request.invalid`, listing the scopes there are.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|right| right.as_str() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|right| right.as_str()).collect();
            Error::invalid("/scopes", format!("must be among {}", all.join(", ")))
        })
    }
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A program, by its key.
    ApiKey {
        /// The key.
        key: ApiKeyId,
        /// Whose key it is.
        service_account: ServiceAccountId,
    },
    /// The command line, which has the database's password.
    Command,
    /// The browser that comes back from a consent, and has its state.
    Consent,
    /// Somebody who did not come in.
    Stranger,
    /// A person.
    User {
        /// Who.
        user: UserId,
        /// By what.
        by: Credential,
    },
}

/// What a person showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// The dashboard's cookie.
    Session(SessionId),
    /// A personal token.
    Token(PersonalTokenId),
    /// Nothing yet: the person is about to be known, by a set-up word, an invitation or a mail.
    None,
}

impl Actor {
    /// The word in the audit log.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::ApiKey { .. } => "api_key",
            Self::Command => "command",
            Self::Consent => "consent",
            Self::Stranger => "stranger",
            Self::User { .. } => "user",
        }
    }

    /// The id in the audit log and in `requested_by`.
    #[must_use]
    pub fn id(self) -> Option<Uuid> {
        match self {
            Self::ApiKey { service_account, .. } => Some(service_account.uuid()),
            Self::User { user, .. } => Some(user.uuid()),
            Self::Command | Self::Consent | Self::Stranger => None,
        }
    }
}

/// Who asks, in which workspace, with which rights.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The workspace that everything happens in.
    pub workspace: WorkspaceId,
    /// Who acts.
    pub actor: Actor,
    /// The request, if it came over HTTP.
    pub request: Option<RequestId>,
    rights: Vec<Right>,
    organization: Option<(OrganizationId, Option<Vec<Right>>)>,
}

/// Who asks, in an organization: of its people, its workspaces, its settings.
#[derive(Debug, Clone)]
pub struct OrganizationCaller {
    /// The organization.
    pub organization: OrganizationId,
    /// The only workspace that the rights are for; none when they are for the whole organization.
    pub only: Option<WorkspaceId>,
    /// Who acts.
    pub actor: Actor,
    /// The request, if it came over HTTP.
    pub request: Option<RequestId>,
    rights: Vec<Right>,
}

impl OrganizationCaller {
    /// A caller with these rights in the whole organization.
    #[must_use]
    pub fn new(organization: OrganizationId, actor: Actor, rights: Vec<Right>) -> Self {
        Self { organization, only: None, actor, request: None, rights }
    }

    /// The command line: every right.
    #[must_use]
    pub fn command(organization: OrganizationId) -> Self {
        Self::new(organization, Actor::Command, Right::ALL.to_vec())
    }

    /// What it may do.
    #[must_use]
    pub fn rights(&self) -> &[Right] {
        &self.rights
    }

    /// Asks for a right in the whole organization, or in one workspace of it.
    ///
    /// # Errors
    /// [`Code::Forbidden`], naming the scope.
    pub fn may(&self, right: Right, within: Option<WorkspaceId>) -> Result<()> {
        if self.only.is_some() && self.only != within {
            let told =
                format!("the right `{}` is given for one workspace, and this is of the organization", right.as_str());
            return Err(Error::new(Code::Forbidden, told));
        }
        asked(&self.rights, right)
    }

    /// Asks whether this role may be given: nobody gives what they may not do themselves.
    ///
    /// # Errors
    /// [`Code::Forbidden`], naming the first scope that lacks.
    pub fn may_give(&self, role: Role) -> Result<()> {
        role.rights().into_iter().try_for_each(|right| asked(&self.rights, right))
    }
}

fn asked(rights: &[Right], right: Right) -> Result<()> {
    #[cfg(feature = "testing")]
    if unchecked::is_on() {
        return Ok(());
    }
    if rights.contains(&right) {
        Ok(())
    } else {
        Err(Error::new(Code::Forbidden, format!("the scope `{}` is lacking", right.as_str())))
    }
}

impl Caller {
    /// A caller with these rights.
    #[must_use]
    pub fn new(workspace: WorkspaceId, actor: Actor, rights: Vec<Right>) -> Self {
        Self { workspace, actor, request: None, rights, organization: None }
    }

    /// The same, of an organization; with the rights in the whole of it, if it has any there.
    #[must_use]
    pub fn of(mut self, organization: OrganizationId, whole: Option<Vec<Right>>) -> Self {
        self.organization = Some((organization, whole));
        self
    }

    /// The same caller towards the organization: with its rights there, or else those in its workspace for that alone.
    ///
    /// # Errors
    /// [`Code::Forbidden`] for the command line, which names the organization itself.
    pub fn in_organization(&self) -> Result<OrganizationCaller> {
        let (organization, whole) = self
            .organization
            .clone()
            .ok_or_else(|| Error::new(Code::Forbidden, "the caller acts for no organization"))?;
        let (only, rights) = match whole {
            Some(rights) => (None, rights),
            None => (Some(self.workspace), self.rights.clone()),
        };
        Ok(OrganizationCaller { organization, only, actor: self.actor, request: self.request, rights })
    }

    /// The organization, if it is known.
    #[must_use]
    pub fn organization(&self) -> Option<OrganizationId> {
        self.organization.as_ref().map(|(id, _)| *id)
    }

    /// The command line: every right.
    #[must_use]
    pub fn command(workspace: WorkspaceId) -> Self {
        Self::new(workspace, Actor::Command, Right::ALL.to_vec())
    }

    /// What it may do.
    #[must_use]
    pub fn rights(&self) -> &[Right] {
        &self.rights
    }

    /// Asks for a right in the workspace or in the whole organization: where it must be is known once it is known what is
    /// asked for.
    ///
    /// # Errors
    /// [`Code::Forbidden`], naming the scope.
    pub fn may_somewhere(&self, right: Right) -> Result<()> {
        let whole = self.organization.as_ref().and_then(|(_, rights)| rights.as_deref()).unwrap_or_default();
        if whole.contains(&right) { Ok(()) } else { self.may(right) }
    }

    /// Asks for a right.
    ///
    /// # Errors
    /// [`Code::Forbidden`], naming the scope.
    pub fn may(&self, right: Right) -> Result<()> {
        asked(&self.rights, right)
    }
}

/// A switch that turns every check of rights off, to show what the database's own policies keep.
#[cfg(feature = "testing")]
pub mod unchecked {
    use std::sync::atomic::{AtomicBool, Ordering};

    static ON: AtomicBool = AtomicBool::new(false);

    /// Turns the checks of this process off.
    pub fn turn_on() {
        ON.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_on() -> bool {
        ON.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_what_the_one_below_may_and_more() {
        for pair in Role::ALL.array_windows::<2>() {
            let [weaker, stronger] = pair.map(Role::rights);
            assert!(weaker.iter().all(|right| stronger.contains(right)), "{pair:?}");
            assert!(weaker.len() < stronger.len() || pair[1] == Role::Owner, "{pair:?}");
        }
        assert_eq!(Role::Owner.rights(), Right::ALL);
        assert!(!Role::Operator.rights().contains(&Right::RowsRead));
        assert_eq!(Role::parse("editor").unwrap(), Role::Editor);
        assert!(Role::parse("king").is_err());
        assert_eq!(Right::RunsCancel.doc(), "Cancel runs.");
    }
}
