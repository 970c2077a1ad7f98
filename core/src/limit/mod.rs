//! Limits: how much an organization may have, by its plan. What is over one is refused in the transaction that would make
//! it, one after the other: requests at once do not get past it together.
pub mod ops;
pub(crate) mod store;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Values by the limits' words; none for one that is lifted.
pub type Limits = BTreeMap<String, Option<i64>>;

macro_rules! limits {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $per:literal;)*) => {
        /// What is limited.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Limit { $($(#[doc = $doc])* $name,)* }

        impl Limit {
            /// Every limit there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it is for: `workspace` or `organization`.
            #[must_use]
            pub fn per(self) -> &'static str {
                match self { $(Self::$name => $per,)* }
            }

            /// What it is, for people.
            #[must_use]
            pub fn doc(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)*).trim_ascii(),)* }
            }
        }
    };
}

limits! {
    /// Workspaces, those that are to be deleted among them.
    Workspaces = "workspaces", "organization";
    /// People who belong to it, and invitations that can be accepted.
    Members = "members", "organization";
    /// Records that the runs of a month moved, in UTC. Over it no run begins; one under way is not cut.
    RecordsPerMonth = "records_per_month", "organization";
    /// Days that history may be kept.
    RetentionDays = "retention_days", "organization";
    /// Service accounts.
    ServiceAccounts = "service_accounts", "workspace";
    /// Keys that work.
    ApiKeys = "api_keys", "workspace";
    /// Connections.
    Connections = "connections", "workspace";
    /// Models.
    Models = "models", "workspace";
    /// Destinations.
    Destinations = "destinations", "workspace";
    /// Syncs that are active.
    ActiveSyncs = "active_syncs", "workspace";
    /// Runs that work at once; more wait.
    RunsAtOnce = "runs_at_once", "workspace";
}

impl Limit {
    /// The limit of a word.
    ///
    /// # Errors
    /// `request.invalid`, listing the limits there are.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|limit| limit.as_str() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|limit| limit.as_str()).collect();
            Error::invalid("/limit", format!("must be among {}", all.join(", ")))
        })
    }
}

impl Limit {
    /// A word and a value of the form `connections=20`, or `connections=none` for no limit.
    ///
    /// # Errors
    /// `request.invalid`.
    pub fn setting(text: &str) -> Result<(String, Option<i64>)> {
        let (word, value) = text.split_once('=').unwrap_or((text, ""));
        let limit = Self::parse(word)?;
        let told = || Error::invalid("/limit", format!("`{word}` must be 0 or more, or `none`"));
        let value = match value {
            "none" => None,
            number => Some(number.parse().ok().filter(|number: &i64| *number >= 0).ok_or_else(told)?),
        };
        Ok((limit.as_str().to_owned(), value))
    }
}

/// A limit as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct LimitState {
    /// Which.
    pub limit: Limit,
    /// What it is.
    pub description: &'static str,
    /// What it is for: `workspace` or `organization`.
    pub per: &'static str,
    /// The most there may be; none for no limit.
    pub value: Option<i64>,
    /// How much there is.
    pub used: i64,
    /// Whether four fifths are used.
    pub warning: bool,
}

/// Whether four fifths of a value are used.
pub(crate) fn is_near(used: i64, value: i64) -> bool {
    used.saturating_mul(5) >= value.saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_are_near() {
        assert!(!is_near(3, 5) && is_near(4, 5) && is_near(5, 5));
        assert!(!is_near(0, 1) && is_near(1, 1));
        assert!(is_near(0, 0), "nothing may be had, and that is used up");
    }

    #[test]
    fn a_limit_reads_back() {
        for limit in Limit::ALL {
            assert_eq!(Limit::parse(limit.as_str()).unwrap(), *limit);
            assert!(limit.doc().ends_with('.'));
        }
        assert!(Limit::parse("cups_of_tea").is_err());
    }
}
