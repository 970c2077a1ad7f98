//! Writing and reading the audit log.

use serde_json::Value;
use uuid::Uuid;

use super::{AuditEvent, AuditFilter, store};
use crate::access::{Actor, Caller, OrganizationCaller, Right};
use crate::app::App;
use crate::db::{OrganizationTx, TenantTx};
use crate::error::Result;
use crate::id::{OrganizationId, RequestId};
use crate::page::{Page, PageRequest};

/// One line: `connection.created` on a target, with the changes that its kind's allow-list lets through.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Noun and deed.
    pub action: &'a str,
    /// The noun.
    pub target_kind: &'a str,
    /// The row.
    pub target: Uuid,
    /// What changed; never a secret, a row value or a model's SQL.
    pub changes: Value,
}

/// Writes one line in the deed's own transaction: there is no deed without its line.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn record(tx: &mut TenantTx, caller: &Caller, entry: Entry<'_>) -> Result<()> {
    store::insert(tx, caller, entry).await
}

/// The same for what is done to an organization or its people.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn record_in_organization(
    tx: &mut OrganizationTx,
    caller: &OrganizationCaller,
    entry: Entry<'_>,
) -> Result<()> {
    store::insert_in_organization(tx, caller.actor, caller.request, entry).await
}

/// Writes what a person did to itself into the log of each of its organizations.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn record_of_person(
    app: &App,
    organizations: &[OrganizationId],
    actor: Actor,
    request: Option<RequestId>,
    (action, target_kind, target): (&str, &str, Uuid),
    changes: &Value,
) -> Result<()> {
    for organization in organizations {
        let mut tx = app.db.organization(*organization).await?;
        let entry = Entry { action, target_kind, target, changes: changes.clone() };
        store::insert_in_organization(&mut tx, actor, request, entry).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Writes down that a right was lacking: `route` as the document has it, such as `DELETE /v1/syncs/{id}`.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn record_denied(app: &App, caller: &Caller, route: &str, told: &str) -> Result<()> {
    let mut tx = app.db.tenant(caller.workspace).await?;
    let entry = Entry {
        action: "request.denied",
        target_kind: "workspace",
        target: caller.workspace.uuid(),
        changes: serde_json::json!({ "route": route, "reason": told }),
    };
    record(&mut tx, caller, entry).await?;
    tx.commit().await
}

/// A page of the log of the organization, what was done in its workspaces included, newest first.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn list_in_organization(
    app: &App,
    caller: &OrganizationCaller,
    filter: &AuditFilter,
    page: PageRequest,
) -> Result<Page<AuditEvent>> {
    caller.may(Right::AuditRead, None)?;
    let mut tx = app.db.organization(caller.organization).await?;
    let rows = store::list_in_organization(&mut tx, filter, page).await?.into_iter().map(AuditEvent::from).collect();
    Ok(Page::of(rows, page, |event: &AuditEvent| event.id.uuid()))
}

/// A page of the log of the caller's workspace, newest first.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn list(app: &App, caller: &Caller, filter: &AuditFilter, page: PageRequest) -> Result<Page<AuditEvent>> {
    caller.may(Right::AuditRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let rows = store::list(&mut tx, filter, page).await?.into_iter().map(AuditEvent::from).collect();
    Ok(Page::of(rows, page, |event: &AuditEvent| event.id.uuid()))
}
