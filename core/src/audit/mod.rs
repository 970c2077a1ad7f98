//! The audit log: who did what, in the same transaction as the deed; what was denied, on its own.
pub mod chain;
pub mod ops;
pub(crate) mod store;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::id::{self, AuditEventId, RequestId, WorkspaceId};

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditEvent {
    /// Its id; later lines have greater ones.
    pub id: AuditEventId,
    /// When.
    pub at: DateTime<Utc>,
    /// The workspace; none for what was done to the organization or its people.
    pub workspace_id: Option<WorkspaceId>,
    /// `user`, `api_key`, `command` for the command line, or `stranger` for somebody who did not come in.
    pub actor_kind: String,
    /// The person or the service account; none for the command line.
    pub actor_id: Option<String>,
    /// Noun and deed, `connection.created`; `request.denied` for what a right was lacking to.
    pub action: String,
    /// The noun.
    pub target_kind: String,
    /// The row, as its own resource writes it.
    pub target_id: String,
    /// The request, as in the log and in the header `Freshet-Request-Id`.
    pub request_id: Option<RequestId>,
    /// What changed, from an allow-list; never a secret or a row's value.
    #[schema(value_type = Object)]
    pub changes: Value,
}

/// A line as it is stored.
#[derive(sqlx::FromRow)]
pub(crate) struct AuditRow {
    id: AuditEventId,
    at: DateTime<Utc>,
    workspace_id: Option<WorkspaceId>,
    actor_kind: String,
    actor_id: Option<Uuid>,
    action: String,
    target_kind: String,
    target_id: Uuid,
    request_id: Option<RequestId>,
    changes: Value,
}

impl From<AuditRow> for AuditEvent {
    fn from(row: AuditRow) -> Self {
        let noun = if row.actor_kind == "api_key" { "service_account" } else { &row.actor_kind };
        Self {
            id: row.id,
            at: row.at,
            workspace_id: row.workspace_id,
            actor_id: row.actor_id.map(|actor| id::text_of(noun, actor)),
            actor_kind: row.actor_kind,
            target_id: id::text_of(&row.target_kind, row.target_id),
            action: row.action,
            target_kind: row.target_kind,
            request_id: row.request_id,
            changes: row.changes,
        }
    }
}

/// Which lines.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Of this action, or beginning with it up to a dot: `connection`.
    pub action: Option<String>,
    /// Of this person or service account.
    pub actor: Option<Uuid>,
    /// On this row.
    pub target: Option<Uuid>,
    /// From then on.
    pub since: Option<DateTime<Utc>>,
    /// Before then.
    pub until: Option<DateTime<Utc>>,
}
