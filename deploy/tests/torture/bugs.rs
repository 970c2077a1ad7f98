//! Which fault finds which planted bug. A torture that lets one of them pass proves nothing.

use freshet_core::failpoint::Step;
use freshet_core::planted::Bug;

use crate::fault::{Fault, trouble};
use crate::scene::Origin;

/// What finds a bug.
pub struct Trap {
    pub bug: Bug,
    pub fault: Fault,
    pub origin: Origin,
    /// Settings of the workers that the case needs.
    pub settings: &'static [(&'static str, &'static str)],
}

/// Batches of one chunk: what happens before the last happens before the first.
const ONE_CHUNK: &[(&str, &str)] = &[("FRESHET_CHUNK_ROWS_MAX", "100000")];

/// The trap for each bug.
pub fn traps() -> Vec<Trap> {
    Bug::ALL.iter().map(|bug| trap(*bug)).collect()
}

fn trap(bug: Bug) -> Trap {
    let stream = |fault| Trap { bug, fault, origin: Origin::SnowflakeStream, settings: &[] };
    match bug {
        // Postgres leads Kafka, where the worker died.
        Bug::PostgresBeforeKafka | Bug::CountsBeforeDelivery => stream(Fault::Kill(Step::Encoded, 1)),
        // The one that was replaced writes, once it wakes.
        Bug::NoFenceInUpdate => stream(Fault::Twins(Step::Committed)),
        // It sends its chunk, and its successor has sent it too.
        Bug::NoInitOnTakeover => stream(Fault::Freeze(Step::Encoded, 1)),
        // The held commit ends a later transaction in its middle.
        Bug::CommitRetried => stream(Fault::CommitHeld),
        // The chunk that Postgres does not know of is sent again.
        Bug::DoubtNotResolved | Bug::JournalAfterCommit => stream(Fault::Kill(Step::Committed, 1)),
        // The records' commit is the first of the two.
        Bug::MarkerOutside => stream(Fault::Kill(Step::CommitSent, 1)),
        // The rows are gone before they are in Kafka.
        Bug::ReleasedBeforeCommit => Trap { settings: ONE_CHUNK, ..stream(Fault::Kill(Step::Encoded, 1)) },
        // What changes between the two statements.
        Bug::SelectThenInsert => stream(Fault::Nothing),
        // The rest of the batch.
        Bug::PartialRead => stream(Fault::Snowflake(trouble("partitions short or damaged"))),
        // A row that no ordinal misses.
        Bug::RowsNotCounted => Trap {
            origin: Origin::SnowflakeIncremental,
            ..stream(Fault::Snowflake(trouble("partitions short or damaged")))
        },
    }
}
