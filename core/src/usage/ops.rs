//! What may be asked about usage.

use chrono::{Datelike, Duration, NaiveDate};

use super::{Days, UsageDay, UsageOfSync, store};
use crate::access::{Caller, Right};
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::SyncId;
use crate::page::LIMIT_MAX;
use crate::sync;

/// Days that one question may span.
pub const DAYS_MAX: i64 = 366;
/// Days that it spans when nobody says.
const DAYS: i64 = 30;

/// The days from `since` to `until`, both counted; up to today and 30 of them when not said.
///
/// # Errors
/// `request.invalid` for days in the wrong order, or more than [`DAYS_MAX`] of them.
pub fn days(app: &App, since: Option<NaiveDate>, until: Option<NaiveDate>) -> Result<Days> {
    let until = until.unwrap_or_else(|| app.clock.now().date_naive());
    let first = || until.checked_sub_signed(Duration::days(DAYS - 1));
    let since = since.or_else(first).ok_or_else(|| Error::invalid("/until", "is before all time"))?;
    if !(1970..=9999).contains(&since.year()) || !(1970..=9999).contains(&until.year()) {
        return Err(Error::invalid("/since", "must be within the years 1970 to 9999, and `until` too"));
    }
    match (until - since).num_days() {
        0..DAYS_MAX => Ok(Days { since, until }),
        ..0 => Err(Error::invalid("/since", "must not be after `until`")),
        _ => Err(Error::invalid("/since", format!("must be within {DAYS_MAX} days of `until`"))),
    }
}

/// Each day that something ended on, newest first; of one sync if named.
///
/// # Errors
/// `request.not_found` for the sync.
pub async fn by_day(app: &App, caller: &Caller, days: Days, sync_id: Option<SyncId>) -> Result<Vec<UsageDay>> {
    caller.may(Right::RunsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    if let Some(id) = sync_id {
        sync::ops::read(&mut tx, id).await?;
    }
    store::by_day(&mut tx, days, sync_id).await
}

/// The syncs that moved the most records, 200 of them at most, the greatest first.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn by_sync(app: &App, caller: &Caller, days: Days) -> Result<Vec<UsageOfSync>> {
    caller.may(Right::RunsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    store::by_sync(&mut tx, days, LIMIT_MAX).await
}
