//! How a sync is doing: derived from its state and its runs each time, never stored.

use serde::{Deserialize, Serialize};

use super::SyncState;
use crate::error::{Class, Code};

/// How a sync is doing; the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Gone from the lists.
    Archived,
    /// Never activated.
    Draft,
    /// A person paused it.
    Paused,
    /// A run is under way.
    Running,
    /// A run is waiting.
    Queued,
    /// The last run failed and a person must act.
    Blocked,
    /// The last run failed.
    Failing,
    /// The last run had dead letters.
    Degraded,
    /// No run has ended yet.
    NeverRun,
    /// The last run went well.
    Healthy,
}

/// What is known of a sync's runs.
#[derive(Debug, Clone, Default, sqlx::FromRow)]
pub struct RunsSeen {
    /// One is under way.
    pub working: bool,
    /// One is queued.
    pub queued: bool,
    /// How the last one that ended did.
    pub last_state: Option<String>,
    /// Why it failed.
    pub last_failure_code: Option<String>,
}

/// Derives a sync's health.
#[must_use]
pub fn derive(state: SyncState, runs: &RunsSeen) -> Health {
    match state {
        SyncState::Archived => return Health::Archived,
        SyncState::Draft => return Health::Draft,
        SyncState::Paused => return Health::Paused,
        SyncState::Active => {}
    }
    if runs.working {
        return Health::Running;
    }
    if runs.queued {
        return Health::Queued;
    }
    let code = runs.last_failure_code.as_deref().and_then(Code::parse);
    match runs.last_state.as_deref() {
        Some("failed") if code.is_some_and(|code| code.class() == Class::User) => Health::Blocked,
        Some("failed") => Health::Failing,
        Some("succeeded_with_errors") => Health::Degraded,
        Some(_) => Health::Healthy,
        None => Health::NeverRun,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(state: &str, code: Option<&str>) -> RunsSeen {
        RunsSeen { last_state: Some(state.into()), last_failure_code: code.map(Into::into), ..RunsSeen::default() }
    }

    #[test]
    fn the_first_rule_that_applies_wins() {
        let active = SyncState::Active;

        assert_eq!(derive(SyncState::Paused, &ended("failed", None)), Health::Paused);
        assert_eq!(derive(active, &RunsSeen::default()), Health::NeverRun);
        assert_eq!(derive(active, &ended("failed", Some("kafka.login_failed"))), Health::Blocked);
        assert_eq!(derive(active, &ended("failed", Some("kafka.unreachable"))), Health::Failing);
        assert_eq!(derive(active, &ended("succeeded", None)), Health::Healthy);
        assert_eq!(derive(active, &RunsSeen { working: true, ..ended("failed", None) }), Health::Running);
    }
}
