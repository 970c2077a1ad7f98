//! Retention: how long history is kept, and the chore that prunes it, in small transactions, one at a time over all workers.
//!
//! | what | days | whose word |
//! |---|---|---|
//! | timelines of runs | `retention_run_event_days`, 30 | the workspace's `run_event_days` |
//! | runs, with attempts, partitions, dead letters by reason, queries | `retention_run_days`, 400 | the workspace's `run_days` |
//! | the audit log | `retention_audit_days`, 400 | the organization's `audit_days` |
//! | the feed; sessions that ended | 30 | |
//! | kept answers; consents that nobody gave, with their secrets | 1 | |
//!
//! The plan's `retention_days` bounds timelines and runs. Usage stays. A sync's last run stays, and the last that succeeded
//! or failed; so does one that has not ended, or whose batch is not released.
pub mod ops;
pub(crate) mod store;
