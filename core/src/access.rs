//! Who asks, and what they may do. A right is a value that `ops` ask for.

use uuid::Uuid;

use crate::error::{Code, Error, Result};
use crate::id::{ApiKeyId, RequestId, ServiceAccountId, WorkspaceId};

macro_rules! rights {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// One thing that may be done; the same word is the scope of a key.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Right { $($(#[$doc])* $name,)* }

        impl Right {
            /// Every right there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The scope's word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

rights! {
    /// See connections, without their secrets.
    ConnectionsRead = "connections:read";
    /// Make, change, archive and test connections, and list what they reach.
    ConnectionsWrite = "connections:write";
    /// See models.
    ModelsRead = "models:read";
    /// Make, change and archive models.
    ModelsWrite = "models:write";
    /// See rows of a model: previews.
    RowsRead = "rows:read";
    /// See destinations, without their secrets.
    DestinationsRead = "destinations:read";
    /// Make, change, archive and test destinations.
    DestinationsWrite = "destinations:write";
    /// See syncs.
    SyncsRead = "syncs:read";
    /// Make, change, activate, pause and archive syncs.
    SyncsWrite = "syncs:write";
    /// Start and retry runs.
    SyncsRun = "syncs:run";
    /// See runs, their events and dead letters.
    RunsRead = "runs:read";
    /// Cancel runs.
    RunsCancel = "runs:cancel";
    /// See service accounts and their keys, without the keys' texts.
    KeysRead = "keys:read";
    /// Make and archive service accounts; make, roll and revoke keys, with no scope that the maker lacks.
    KeysWrite = "keys:write";
    /// See and export the audit log.
    AuditRead = "audit:read";
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
}

impl Actor {
    /// The word in the audit log.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::ApiKey { .. } => "api_key",
            Self::Command => "command",
            Self::Consent => "consent",
        }
    }

    /// The id in the audit log and in `requested_by`.
    #[must_use]
    pub fn id(self) -> Option<Uuid> {
        match self {
            Self::ApiKey { service_account, .. } => Some(service_account.uuid()),
            Self::Command | Self::Consent => None,
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
}

impl Caller {
    /// A caller with these rights.
    #[must_use]
    pub fn new(workspace: WorkspaceId, actor: Actor, rights: Vec<Right>) -> Self {
        Self { workspace, actor, request: None, rights }
    }

    /// The command line: every right.
    #[must_use]
    pub fn command(workspace: WorkspaceId) -> Self {
        Self::new(workspace, Actor::Command, Right::ALL.to_vec())
    }

    /// Asks for a right.
    ///
    /// # Errors
    /// [`Code::Forbidden`], naming the scope.
    pub fn may(&self, right: Right) -> Result<()> {
        if self.rights.contains(&right) {
            Ok(())
        } else {
            Err(Error::new(Code::Forbidden, format!("the key lacks the scope `{}`", right.as_str())))
        }
    }
}
