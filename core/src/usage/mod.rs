//! Usage: what was moved, per day and sync. Days are UTC's; a run counts on the day of its end.
pub mod ops;
pub(crate) mod store;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::id::SyncId;

/// What was moved on one day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct UsageDay {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// Runs that ended.
    pub runs: i64,
    /// Those of them that failed.
    pub failed_runs: i64,
    /// Change records that Kafka committed.
    pub records: i64,
    /// Rows that became dead letters.
    pub dead_letters: i64,
    /// Bytes of keys and values.
    pub bytes: i64,
}

/// What one sync moved within some days.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct UsageOfSync {
    /// The sync.
    pub sync_id: SyncId,
    /// Its name.
    pub name: String,
    /// As of a day.
    pub runs: i64,
    /// As of a day.
    pub failed_runs: i64,
    /// As of a day.
    pub records: i64,
    /// As of a day.
    pub dead_letters: i64,
    /// As of a day.
    pub bytes: i64,
}

/// The first and the last day that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    pub(crate) since: NaiveDate,
    pub(crate) until: NaiveDate,
}
