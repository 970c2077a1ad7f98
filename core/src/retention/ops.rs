//! The chore.

use chrono::{DateTime, TimeDelta, Utc};

use super::store::{self, What};
use crate::app::App;
use crate::audit::chain;
use crate::error::Result;
use crate::id::{OrganizationId, WorkspaceId};
use crate::idempotency;
use crate::limit::{self, Limit};

/// How often a workspace is looked at.
const WORKSPACE_EVERY: TimeDelta = TimeDelta::hours(1);
/// How often an organization is: each time something went, its log gets a line.
const ORGANIZATION_EVERY: TimeDelta = TimeDelta::days(1);
/// Workspaces, or organizations, seen to at a time.
const AT_A_TIME: i32 = 50;
/// Days that the feed goes back, and that sessions that ended are kept.
const FEED_DAYS: i64 = 30;

/// Days that a consent is kept that nobody gave; it was good for minutes.
const CONSENT_DAYS: i64 = 1;

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Runs whose timeline went.
    pub timelines: i64,
    /// Runs.
    pub runs: i64,
    /// Events of the feed.
    pub events: i64,
    /// Sessions, and words of mails.
    pub sessions: i64,
    /// Lines of audit logs.
    pub audit_lines: i64,
}

/// Prunes what is due, of every workspace and organization.
///
/// # Errors
/// [`crate::error::Code::Database`]; what went is gone, and the next call goes on.
pub async fn prune(app: &App) -> Result<Pruned> {
    let (now, mut pruned) = (app.clock.now(), Pruned::default());
    for workspace in store::workspaces(&app.db, now - WORKSPACE_EVERY, AT_A_TIME).await? {
        match prune_workspace(app, workspace, now, &mut pruned).await {
            Ok(true) => {}
            Ok(false) => return Ok(pruned),
            // One that fails does not keep the others.
            Err(error) => {
                tracing::warn!(workspace.id = %workspace, error = %error.chain(), "cannot prune a workspace's history");
            }
        }
    }
    for organization in store::organizations(&app.db, now - ORGANIZATION_EVERY, AT_A_TIME).await? {
        match prune_audit(app, organization, now).await {
            Ok(gone) => pruned.audit_lines += gone,
            Err(error) => {
                tracing::warn!(organization.id = %organization, error = %error.chain(), "cannot prune an audit log");
            }
        }
    }
    pruned.sessions += store::sessions(&app.db, now - TimeDelta::days(FEED_DAYS)).await?;
    Ok(pruned)
}

/// False when another worker is at it.
async fn prune_workspace(app: &App, id: WorkspaceId, now: DateTime<Utc>, pruned: &mut Pruned) -> Result<bool> {
    let mut tx = app.db.tenant(id).await?;
    let (event_days, run_days) = store::days(&mut tx).await?;
    let most = limit::ops::value(&mut tx, Limit::RetentionDays).await?.unwrap_or(i64::MAX);
    idempotency::store::prune(&mut tx).await?;
    store::consents(&mut tx, now - TimeDelta::days(CONSENT_DAYS)).await?;
    tx.commit().await?;
    let before = |own: Option<i32>, default: u32| {
        let days = own.map_or(i64::from(default), i64::from).min(most);
        now - TimeDelta::days(days)
    };
    let of_runs = before(run_days, app.settings.retention_run_days);
    let steps = [
        (
            What::Timelines,
            before(event_days, app.settings.retention_run_event_days).max(of_runs),
            &mut pruned.timelines,
        ),
        (What::Runs, of_runs, &mut pruned.runs),
        (What::Events, now - TimeDelta::days(FEED_DAYS), &mut pruned.events),
    ];
    for (what, before, count) in steps {
        loop {
            let mut tx = app.db.tenant(id).await?;
            if !store::alone(&mut tx).await? {
                return Ok(false);
            }
            let gone = store::prune(&mut tx, what, before).await?;
            tx.commit().await?;
            *count += gone;
            if gone < what.at_a_time() {
                break;
            }
        }
    }
    let mut tx = app.db.tenant(id).await?;
    store::set_pruned(&mut tx, now).await?;
    tx.commit().await?;
    Ok(true)
}

async fn prune_audit(app: &App, id: OrganizationId, now: DateTime<Utc>) -> Result<i64> {
    let mut tx = app.db.organization(id).await?;
    let days = store::audit_days(&mut tx).await?.map_or(i64::from(app.settings.retention_audit_days), i64::from);
    drop(tx);
    let gone = chain::prune(app, id, now - TimeDelta::days(days)).await?;
    let mut tx = app.db.organization(id).await?;
    store::set_organization_pruned(&mut tx, now).await?;
    tx.commit().await?;
    Ok(gone)
}
