//! Keeping within limits, and setting them.

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use serde_json::json;

use super::{Limit, LimitState, Limits, is_near, store};
use crate::access::{Caller, OrganizationCaller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record_in_organization};
use crate::db::{OrganizationTx, TenantTx};
use crate::error::{Code, Error, Result};
use crate::feed;

/// Refuses what was just made, if it is one too many; called after the insert and before the commit. Whoever counts holds
/// the limit until its transaction ends.
///
/// # Errors
/// `platform.quota_exceeded`, naming the limit, its value and what is used.
pub(crate) async fn keep_within(tx: &mut TenantTx, limit: Limit) -> Result<()> {
    let Some(value) = value_of(&store::of_tenant(tx).await?, limit) else { return Ok(()) };
    store::hold(tx, limit).await?;
    let used = store::used(tx, limit).await?;
    refuse_over(limit, value, used)?;
    if is_near(used, value) && !is_near(used - 1, value) {
        let told = json!({ "limit": limit, "value": value, "used": used });
        feed::store::insert(tx, "quota.warning", &told).await?;
    }
    Ok(())
}

/// The same for what an organization has.
///
/// # Errors
/// As [`keep_within`].
pub(crate) async fn keep_organization_within(tx: &mut OrganizationTx, limit: Limit) -> Result<()> {
    let Some(value) = value_of(&store::of_organization(tx).await?, limit) else { return Ok(()) };
    store::hold_in_organization(tx, limit).await?;
    let used = store::used_by_organization(tx, limit).await?;
    refuse_over(limit, value, used)
}

/// Refuses a run that would begin when the month's records are spent.
///
/// # Errors
/// `platform.quota_exceeded`.
pub(crate) async fn refuse_spent(tx: &mut TenantTx, at: DateTime<Utc>) -> Result<()> {
    let limit = Limit::RecordsPerMonth;
    let Some(value) = value_of(&store::of_tenant(tx).await?, limit) else { return Ok(()) };
    let month = first_of_month(at);
    let used = store::records(tx, month).await?;
    if used < value {
        return Ok(());
    }
    let told = format!(
        "the limit `{}` of the organization is {value}, and {used} are moved since {month}; runs begin again next month",
        limit.as_str()
    );
    Err(Error::new(Code::QuotaExceeded, told))
}

/// Refuses a value of a setting that is over a limit.
///
/// # Errors
/// `platform.quota_exceeded`.
pub(crate) async fn refuse_value_over(tx: &mut TenantTx, limit: Limit, wanted: i64) -> Result<()> {
    match value_of(&store::of_tenant(tx).await?, limit) {
        Some(value) if wanted > value => {
            let told = format!("the limit `{}` is {value}, and {wanted} are asked for", limit.as_str());
            Err(Error::new(Code::QuotaExceeded, told))
        }
        _ => Ok(()),
    }
}

/// A limit's value in the transaction's workspace, if there is one.
pub(crate) async fn value(tx: &mut TenantTx, limit: Limit) -> Result<Option<i64>> {
    Ok(value_of(&store::of_tenant(tx).await?, limit))
}

/// Every limit, with its value and how much is used.
///
/// # Errors
/// `auth.scope_missing`.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<LimitState>> {
    caller.may(Right::OrganizationRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let limits = store::of_tenant(&mut tx).await?;
    let mut states = Vec::with_capacity(Limit::ALL.len());
    for limit in Limit::ALL.iter().copied() {
        let used = match limit {
            Limit::RecordsPerMonth => store::records(&mut tx, first_of_month(app.clock.now())).await?,
            Limit::RetentionDays => {
                let own = store::run_days(&mut tx).await?;
                own.map_or(i64::from(app.settings.retention_run_days), i64::from)
            }
            _ => store::used(&mut tx, limit).await?,
        };
        let value = value_of(&limits, limit);
        // History is kept for the limit's days and no longer: nothing runs out.
        let used = if limit == Limit::RetentionDays { used.min(value.unwrap_or(used)) } else { used };
        let warning = limit != Limit::RetentionDays && value.is_some_and(|value| is_near(used, value));
        states.push(LimitState { limit, description: limit.doc(), per: limit.per(), value, used, warning });
    }
    Ok(states)
}

/// Puts an organization on a plan, and sets limits of its own over the plan's; what is set to nothing is lifted. For the
/// command line: the installation's, not the organization's.
///
/// # Errors
/// `request.not_found` for the plan.
pub async fn set(app: &App, caller: &OrganizationCaller, plan: Option<&str>, own: Option<&Limits>) -> Result<Limits> {
    let mut tx = app.db.organization(caller.organization).await?;
    if plan.is_some() || own.is_some() {
        if let Some(plan) = plan
            && !store::is_plan(&app.db, plan).await?
        {
            return Err(Error::new(Code::NotFound, format!("there is no plan `{plan}`")));
        }
        store::set(&mut tx, plan, own).await?;
        let changes = json!({ "plan": plan, "limits": own });
        let target = caller.organization.uuid();
        let entry = Entry { action: "organization.limits_set", target_kind: "organization", target, changes };
        record_in_organization(&mut tx, caller, entry).await?;
    }
    let limits = store::of_organization(&mut tx).await?;
    tx.commit().await?;
    Ok(limits)
}

/// Makes a plan, or changes one for all organizations that are on it. For the command line.
///
/// # Errors
/// `request.invalid` for a name that is none.
pub async fn set_plan(app: &App, name: &str, limits: &Limits) -> Result<()> {
    store::set_plan(&app.db, name, limits).await
}

/// The first day of a moment's month, in UTC.
fn first_of_month(at: DateTime<Utc>) -> NaiveDate {
    let day = at.date_naive();
    day.with_day(1).unwrap_or(day)
}

fn value_of(limits: &Limits, limit: Limit) -> Option<i64> {
    limits.get(limit.as_str()).copied().flatten()
}

fn refuse_over(limit: Limit, value: i64, used: i64) -> Result<()> {
    if used <= value {
        return Ok(());
    }
    let told = format!("the limit `{}` of the {} is {value}, and {} are used", limit.as_str(), limit.per(), used - 1);
    Err(Error::new(Code::QuotaExceeded, told))
}
