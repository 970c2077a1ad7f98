//! Bugs planted on purpose: `deploy/torture` must find each of them, or it proves nothing.
//!
//! With the feature `planted_bugs`, `FRESHET_PLANTED_BUG=<name>` has the program make that one mistake, at the place where a
//! person could have made it. Without the feature [`planted`] is `false` at compile time, nothing of a mistake is in the
//! program, and the variable is refused as one that is no setting.

/// A mistake, and what it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Postgres is told of a chunk before Kafka has it.
    PostgresBeforeKafka,
    /// A worker's writes do not name the epoch of its claim.
    NoFenceInUpdate,
    /// A successor takes the lane over under an id of its own, so that its predecessor is not fenced.
    NoInitOnTakeover,
    /// A commit whose answer did not come is taken for one that did, and the producer goes on.
    CommitRetried,
    /// A successor goes on from where Postgres is and does not ask Kafka.
    DoubtNotResolved,
    /// The progress record has a transaction of its own, after its chunk's.
    MarkerOutside,
    /// The source's copy of a batch is released before the last chunk is committed.
    ReleasedBeforeCommit,
    /// A Stream is read by one statement, and its offset is moved by a second one.
    SelectThenInsert,
    /// The run's counts grow before the chunk is committed.
    CountsBeforeDelivery,
    /// The batch is written down after it is delivered.
    JournalAfterCommit,
    /// A read that broke off is taken for the whole batch.
    PartialRead,
    /// A result's partition may have fewer rows than announced.
    RowsNotCounted,
}

impl Bug {
    /// Every bug.
    pub const ALL: &'static [Self] = &[
        Self::PostgresBeforeKafka,
        Self::NoFenceInUpdate,
        Self::NoInitOnTakeover,
        Self::CommitRetried,
        Self::DoubtNotResolved,
        Self::MarkerOutside,
        Self::ReleasedBeforeCommit,
        Self::SelectThenInsert,
        Self::CountsBeforeDelivery,
        Self::JournalAfterCommit,
        Self::PartialRead,
        Self::RowsNotCounted,
    ];

    /// Its word in `FRESHET_PLANTED_BUG`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PostgresBeforeKafka => "postgres_before_kafka",
            Self::NoFenceInUpdate => "no_fence_in_update",
            Self::NoInitOnTakeover => "no_init_on_takeover",
            Self::CommitRetried => "commit_retried",
            Self::DoubtNotResolved => "doubt_not_resolved",
            Self::MarkerOutside => "marker_outside",
            Self::ReleasedBeforeCommit => "released_before_commit",
            Self::SelectThenInsert => "select_then_insert",
            Self::CountsBeforeDelivery => "counts_before_delivery",
            Self::JournalAfterCommit => "journal_after_commit",
            Self::PartialRead => "partial_read",
            Self::RowsNotCounted => "rows_not_counted",
        }
    }
}

/// Whether the program is to make this mistake.
#[cfg(not(feature = "planted_bugs"))]
#[inline(always)]
#[must_use]
pub const fn planted(_: Bug) -> bool {
    false
}

/// Whether the program is to make this mistake.
#[cfg(feature = "planted_bugs")]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    const VARIABLE: &str = "FRESHET_PLANTED_BUG";
    static PLANTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let read = || {
        #[expect(clippy::disallowed_methods, reason = "no setting of the service: it is refused in a normal build")]
        let text = std::env::var(VARIABLE).ok()?;
        Some(Bug::ALL.iter().copied().find(|bug| bug.as_str() == text).unwrap_or_else(|| {
            let words: Vec<_> = Bug::ALL.iter().map(|bug| bug.as_str()).collect();
            eprintln!("{VARIABLE}=`{text}` is none of: {}", words.join(", "));
            std::process::exit(2)
        }))
    };
    *PLANTED.get_or_init(read) == Some(bug)
}
