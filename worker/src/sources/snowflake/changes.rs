//! A Stream's changes: taken out of it into numbered tables, read from those, given back when they are delivered.
//!
//! ~~~text
//! HAS_DATA ─► tables with rows? ─── yes ──────────────► the oldest is the batch
//!                 │ no                                        ▲
//!                 └─► data? ─ yes ─► create table N if not exists as select … from the Stream
//!                        └─ no: nothing to send, no warehouse woken
//! ~~~
//!
//! `create table … as select` is one atomic step: that table N is there and that the Stream has moved is the same
//! fact, so whatever became of an attempt, the same statement decides.
//!
//! A delivered table is emptied and left standing: while it stands, a statement that comes late takes nothing. One that
//! comes after it was dropped makes it anew, with changes that nobody waits for; so before anything else goes out
//! the tables are looked at, and whichever has rows goes first, in the order they were made. Nothing is lost, and no
//! change overtakes another.

use chrono::{DateTime, TimeDelta, Utc};
use freshet_core::clock::Clock;
use freshet_core::connector::{
    Ahead, DuplicateKeys, Kind, ModelSpec, Note, Op, ReadEnd, ReadPlan, ReadRequest, Row, SealRequest, Sealed, Sink,
    StreamFacts,
};
use freshet_core::error::{Code, Error, Result};
use freshet_core::failpoint::{self, Step};
use freshet_core::planted::{Bug, planted};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalogue::{column_of, refuse_changed, refuse_differing};
use super::client::{QueryTag, Rows, Statement};
use super::fold::{Action, Fold};
use super::read::{self, Token, table_gone};
use super::seal::{Batch, batch_tables, count, drop_tables};
use super::session::Session;
use super::sql::{self, BatchTable, FoundTable, Stage, oldest_with_rows, plan_mark, relation};
use super::streams::{self, boolean, printed};

/// A Stream is looked at again after this long without a batch.
const LOOK_EVERY: TimeDelta = TimeDelta::hours(1);
/// A Stream whose history is kept for less than this is warned of.
const STALE_SOON: TimeDelta = TimeDelta::hours(48);

/// A batch table that took a Stream's changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    /// Its schema.
    pub(super) schema: String,
    /// Its name; of another number than the batch's when it was adopted.
    pub(super) table: String,
    /// Its rows.
    pub(super) rows: u64,
    /// It was made for an earlier version of the model, with other columns or in another order.
    #[serde(default)]
    pub(super) of_earlier_model: bool,
}

impl Taken {
    pub(super) fn table(&self) -> BatchTable {
        BatchTable { schema: self.schema.clone(), name: self.table.clone() }
    }
}

/// What is carried from one seal to the next, and shown with the sync's position.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Watch {
    /// What Snowflake said of the Stream.
    stream: StreamFacts,
    /// When.
    looked_at: DateTime<Utc>,
}

/// Fixes the next batch of a Stream.
pub(super) async fn seal(session: &mut Session, request: &SealRequest, schema: &str, stream: &str) -> Result<Sealed> {
    let (name, tag) = (&request.name, QueryTag::of_batch(&request.name));
    let quoted = relation(&request.plan.model);
    let mut watch = request.carry.clone().and_then(|carry| serde_json::from_value::<Watch>(carry).ok());
    let mut notes = Vec::new();
    // Before the tables are looked at: what is taken in between is found there.
    let has_data = has_data(session, &request.plan, &tag).await;
    let mut tables = batch_tables(session, Stage::Stream, &name.sync, &tag).await?;
    drop_spent(session, &tables, request, &tag).await;
    if oldest_with_rows(&tables).is_none() {
        let has_data = match has_data {
            Ok(has_data) => has_data,
            Err(error) => return Err(explained(session, schema, stream, &tag, error).await),
        };
        let now = Clock::system().now();
        if watch.as_ref().is_none_or(|watch| now - watch.looked_at > LOOK_EVERY) {
            look(session, schema, stream, &tag, &mut watch, &mut notes).await?;
        }
        if !has_data {
            return Ok(sealed(None, watch, notes));
        }
        take(session, request, &quoted, &tag, &mut tables).await?;
        // It is kept for longer again.
        look(session, schema, stream, &tag, &mut watch, &mut Vec::new()).await?;
    }
    let Some(oldest) = oldest_with_rows(&tables) else {
        // The Stream held nothing after all, and the table stands empty.
        return Ok(sealed(None, watch, notes));
    };
    let table = BatchTable::new(Stage::Stream, &session.work_schema(), &name.sync, oldest.seq);
    let taken = taken(session, table, &request.plan, &tag).await?;
    if oldest.seq != name.seq {
        let Taken { table, rows, .. } = &taken;
        let sentence = format!("{rows} rows that an earlier statement took out of the Stream go first: {table}");
        notes.push(Note { level: "warning", code: "source.table_adopted", sentence });
    }
    Ok(sealed(Some(taken), watch, notes))
}

/// What a table holds, and whether that was taken as the plan would take it.
async fn taken(session: &mut Session, table: BatchTable, plan: &ReadPlan, tag: &QueryTag) -> Result<Taken> {
    let (rows, mark) = count(session, &table, table.count_changes(), tag).await?;
    let of_earlier_model = mark != Some(plan_mark(&plan.columns, &plan.key));
    Ok(Taken { schema: table.schema, table: table.name, rows, of_earlier_model })
}

async fn has_data(session: &mut Session, plan: &ReadPlan, tag: &QueryTag) -> Result<bool> {
    let answer = session.value(sql::has_data(&relation(&plan.model)), tag).await?;
    // Taken for no, an answer that does not read would let the Stream go stale unseen.
    answer
        .as_deref()
        .and_then(boolean)
        .ok_or_else(|| Error::new(Code::SnowflakeAnswer, "whether the Stream has data is neither true nor false"))
}

/// What the next batch would be taken from.
enum Next {
    /// A table that has rows already.
    Taken(Taken),
    /// The Stream.
    Stream,
    /// There is nothing.
    Nothing,
}

async fn next(
    session: &mut Session,
    request: &SealRequest,
    schema: &str,
    stream: &str,
    tag: &QueryTag,
) -> Result<Next> {
    let tables = batch_tables(session, Stage::Stream, &request.name.sync, tag).await?;
    if let Some(oldest) = oldest_with_rows(&tables) {
        let table = BatchTable::new(Stage::Stream, &session.work_schema(), &request.name.sync, oldest.seq);
        return Ok(Next::Taken(taken(session, table, &request.plan, tag).await?));
    }
    match has_data(session, &request.plan, tag).await {
        Ok(true) => {
            refuse_changed(session, &request.plan).await?;
            Ok(Next::Stream)
        }
        Ok(false) => Ok(Next::Nothing),
        Err(error) => Err(explained(session, schema, stream, tag, error).await),
    }
}

/// Hands on the first changes of what the next batch would be; the Stream stays where it is.
pub(super) async fn look_ahead(
    session: &mut Session,
    request: &SealRequest,
    (schema, stream): (&str, &str),
    duplicates: DuplicateKeys,
    changes_max: usize,
    sink: &mut dyn Sink,
) -> Result<()> {
    let (plan, tag) = (&request.plan, QueryTag::of_batch(&request.name));
    let taken = match next(session, request, schema, stream, &tag).await? {
        Next::Taken(taken) => taken,
        Next::Stream => {
            // Two rows make an update; what the last ones fold into is not known when there are more.
            let limit = 2 * changes_max + 2;
            let sql = sql::look_stream(&relation(&plan.model), &plan.columns, &plan.key, limit);
            let rows = session.client()?.rows(&Statement::large(sql).tagged(tag)).await?;
            let (last, mut fold) = fold_all(rows, plan, duplicates, 0, 0, sink).await?;
            return if usize::try_from(last) == Ok(limit) { Ok(()) } else { fold.close(sink) };
        }
        Next::Nothing => return Ok(()),
    };
    let batch = serde_json::to_value(Batch::Changes(taken.clone())).unwrap_or_default();
    let request = ReadRequest { name: request.name.clone(), plan: plan.clone(), batch, from: None };
    read(session, &request, &taken, duplicates, None, sink).await.map(|_| ())
}

/// Counts the changes of what the next batch would be.
pub(super) async fn count_ahead(
    session: &mut Session,
    request: &SealRequest,
    (schema, stream): (&str, &str),
    duplicates: DuplicateKeys,
) -> Result<Ahead> {
    let (plan, tag) = (&request.plan, QueryTag::of_batch(&request.name));
    let from = match next(session, request, schema, stream, &tag).await? {
        Next::Taken(taken) => taken.table().quoted(),
        Next::Stream => relation(&plan.model),
        Next::Nothing => return Ok(Ahead::default()),
    };
    let found = session.texts(sql::count_folded(&from, &plan.key), &tag, 1).await?;
    let number = |place: usize| {
        let number = found.rows.first().and_then(|row| row.get(place)?.as_deref()?.parse::<i64>().ok());
        number.ok_or_else(|| Error::new(Code::SnowflakeAnswer, "the count of changes does not read"))
    };
    let (created, updated, deleted) = (number(0)?, number(1)?, number(2)?);
    let repeated = if duplicates == DuplicateKeys::DeadLetter { number(3)? } else { 0 };
    let (without_key, deleted_without_key) = (number(4)?, number(5)?);
    let changes = [
        (Op::Create, created + repeated + without_key),
        (Op::Update, updated),
        (Op::Delete, deleted + deleted_without_key),
    ];
    Ok(Ahead::new(changes, repeated + without_key + deleted_without_key))
}

fn sealed(taken: Option<Taken>, watch: Option<Watch>, notes: Vec<Note>) -> Sealed {
    let carry = watch.and_then(|watch| serde_json::to_value(watch).ok());
    match taken {
        Some(taken) => Sealed { carry, notes, ..Batch::Changes(taken).sealed(false) },
        None => Sealed { batch: Value::Null, carry, empty: true, notes },
    }
}

/// Takes the Stream's changes into the batch's table, and looks at the tables again: another statement may have come in
/// between, and what it took was there before.
async fn take(
    session: &mut Session,
    request: &SealRequest,
    stream: &str,
    tag: &QueryTag,
    tables: &mut Vec<FoundTable>,
) -> Result<()> {
    let (plan, name) = (&request.plan, &request.name);
    refuse_changed(session, plan).await?;
    let table = BatchTable::new(Stage::Stream, &session.work_schema(), &name.sync, name.seq);
    if planted(Bug::SelectThenInsert) {
        select_then_insert(session, request, stream, tag, &table).await?;
    }
    let statement = Statement::large(table.seal_stream(stream, &plan.columns, &plan.key)).tagged(tag.clone());
    let client = session.client()?;
    let taken = failpoint::during(Step::SealSent, client.run(&statement)).await;
    *tables = batch_tables(session, Stage::Stream, &name.sync, tag).await?;
    match taken {
        Ok(_) => Ok(()),
        // Two attempts may have met: the table of one is the table of both.
        Err(_) if tables.iter().any(|found| found.seq == name.seq) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The mistake of [`Bug::SelectThenInsert`]: the Stream is read by one statement and moved by another, and what changes in
/// between is in neither.
async fn select_then_insert(
    session: &mut Session,
    request: &SealRequest,
    stream: &str,
    tag: &QueryTag,
    table: &BatchTable,
) -> Result<()> {
    let ModelSpec::Stream { schema, stream: name } = &request.plan.model else { return Ok(()) };
    let base = streams::base(session, schema, name).await?;
    let read = format!("{base} changes (information => default) at (stream => {})", sql::literal(stream));
    let client = session.client()?;
    let seal = table.seal_stream(&read, &request.plan.columns, &request.plan.key);
    client.run(&Statement::large(seal).tagged(tag.clone())).await?;
    let acknowledged = BatchTable { schema: table.schema.clone(), name: "ACKNOWLEDGED".into() };
    let move_on =
        format!("create or replace transient table {} as select * from {stream} where 1 = 0", acknowledged.quoted());
    client.run(&Statement::large(move_on).tagged(tag.clone())).await.map(|_| ())
}

/// Drops tables that no late statement can ask for any more; one that cannot be dropped now is dropped another time.
async fn drop_spent(session: &mut Session, tables: &[FoundTable], request: &SealRequest, tag: &QueryTag) {
    let name = &request.name;
    // A statement's wait for a warehouse may not count to its time.
    let longest_s = 2 * i64::from(session.settings.statement_timeout_s);
    let now_ms = Clock::system().now().timestamp_millis();
    let spent = sql::spent(tables, name.seq, now_ms, longest_s);
    if let Err(error) = drop_tables(session, Stage::Stream, &name.sync, spent.into_iter(), tag).await {
        tracing::warn!(sync.id = name.sync, error = %error.chain(), "spent batch tables could not be dropped");
    }
}

/// Asks Snowflake what it says of the Stream, and notes what a person should know.
async fn look(
    session: &mut Session,
    schema: &str,
    stream: &str,
    tag: &QueryTag,
    watch: &mut Option<Watch>,
    notes: &mut Vec<Note>,
) -> Result<()> {
    let facts = streams::facts(session, schema, stream, tag).await?;
    let looked_at = Clock::system().now();
    let known = watch.replace(Watch { stream: facts.clone(), looked_at });
    let warn = |code, sentence| Note { level: "warning", code, sentence };
    if let Some(known) = known
        && known.stream.made_at != facts.made_at
        && let Some(made_at) = facts.made_at
    {
        let sentence = format!(
            "somebody made the Stream anew at {made_at}: what changed before is not in it, unless it took the old one's place"
        );
        notes.push(warn("source.stream_renewed", sentence));
    }
    if let Some(stale_after) = facts.stale_after.filter(|at| *at - looked_at < STALE_SOON) {
        let sentence = format!(
            "the Stream's history is kept until {stale_after} unless it is read before: run the sync more often, or raise \
             MAX_DATA_EXTENSION_TIME_IN_DAYS of {}",
            facts.on
        );
        notes.push(warn("source.stream_stale_soon", sentence));
    }
    Ok(())
}

/// An error of a Stream that is stale, with what Snowflake knows of it; any other error as it is.
async fn explained(session: &mut Session, schema: &str, stream: &str, tag: &QueryTag, error: Error) -> Error {
    if error.code != Code::SnowflakeStale {
        return error;
    }
    let name = printed(schema, stream);
    let told = match streams::facts(session, schema, stream, tag).await {
        Ok(StreamFacts { on, stale_after: Some(at), .. }) => {
            format!("the Stream {name} on {on} is stale: what changed since it was read last was kept until {at}")
        }
        Ok(_) | Err(_) => format!("the Stream {name} is stale: what changed since it was read last is gone"),
    };
    Error::new(Code::SnowflakeStale, told).caused_by(error.chain())
}

/// Reads a batch table's rows as changes. The last row that was handed on is read again: what follows may be of its key.
pub(super) async fn read(
    session: &mut Session,
    request: &ReadRequest,
    taken: &Taken,
    duplicates: DuplicateKeys,
    from: Option<Token>,
    sink: &mut dyn Sink,
) -> Result<ReadEnd> {
    let (plan, table, tag) = (&request.plan, taken.table(), QueryTag::of_batch(&request.name));
    let from = Token::ordinal(from.as_ref())?;
    let after = (from - 1).max(0);
    let sql = if taken.of_earlier_model {
        let missing = missing_columns(session, &table, plan, &tag).await?;
        table.read_anew(&plan.columns, &missing, &plan.key, after)
    } else {
        table.read(&plan.columns, Stage::Stream, after)
    };
    let rows = session.client()?.rows(&Statement::large(sql).tagged(tag)).await.map_err(table_gone)?;
    if !taken.of_earlier_model {
        let (found, _) = rows.columns().split_at(plan.columns.len().min(rows.columns().len()));
        refuse_differing(&plan.columns, &found.iter().map(column_of).collect::<Result<Vec<_>>>()?)?;
    }
    let (last, mut fold) = fold_all(rows, plan, duplicates, after, from, sink).await?;
    if u64::try_from(last).ok() != Some(taken.rows) {
        let told = format!("a batch table ends at row {last} of {}", taken.rows);
        return Err(Error::new(Code::SnowflakeAnswer, told));
    }
    fold.close(sink)?;
    Ok(ReadEnd { token: (last > from).then(|| Token::Ordinal { ordinal: last }.write()) })
}

/// Folds rows that come after the ordinal `after`; those up to `from` were handed on before. The last ordinal, and what
/// waits for more rows of its key.
async fn fold_all(
    mut rows: Rows,
    plan: &ReadPlan,
    duplicates: DuplicateKeys,
    after: i64,
    from: i64,
    sink: &mut dyn Sink,
) -> Result<(i64, Fold)> {
    let key = plan.key.iter().map(|name| read::place(plan, name)).collect::<Result<_>>()?;
    let mut fold = Fold::new(key, duplicates);
    let mut row = Row::default();
    let mut last = after;
    while rows.next(&mut row).await? {
        let ordinal = read::ordinal(&mut row);
        if ordinal != Some(last + 1) {
            return Err(Error::new(Code::SnowflakeAnswer, format!("a batch table's row {} is missing", last + 1)));
        }
        last += 1;
        let action = action(&mut row)?;
        if last <= from {
            fold.resume(action, &mut row);
        } else {
            fold.take(action, &mut row, last, sink).await?;
        }
    }
    Ok((last, fold))
}

/// Takes the action off a row.
fn action(row: &mut Row) -> Result<Action> {
    let unknown = || Error::new(Code::SnowflakeAnswer, "a batch table's row says neither INSERT nor DELETE");
    match row.pop() {
        Some(freshet_core::connector::Cell::Text(span)) => Action::parse(row.bytes(span)).ok_or_else(unknown),
        _ => Err(unknown()),
    }
}

/// The planned columns that a table lacks, which was taken for an earlier version of the model.
async fn missing_columns(
    session: &mut Session,
    table: &BatchTable,
    plan: &ReadPlan,
    tag: &QueryTag,
) -> Result<Vec<String>> {
    let statement = Statement::small(table.columns()).tagged(tag.clone());
    let rows = session.client()?.rows(&statement).await.map_err(table_gone)?;
    let found = rows.columns().iter().map(column_of).collect::<Result<Vec<_>>>()?;
    let find = |name: &String| found.iter().find(|column| column.name == *name);
    for name in &plan.key {
        let planned = plan.columns.iter().find(|column| column.name == *name);
        let fits = match (find(name), planned) {
            (Some(found), Some(planned)) => numeric(found.kind) == numeric(planned.kind),
            _ => false,
        };
        if !fits {
            let told =
                format!("{} holds {name} in another form, or not at all: it was taken for another key", table.name);
            return Err(Error::new(Code::SnowflakeBatchLost, told));
        }
    }
    Ok(plan.columns.iter().map(|column| &column.name).filter(|name| find(name).is_none()).cloned().collect())
}

/// Whole numbers of every size make the same key.
fn numeric(kind: Kind) -> Kind {
    if kind == Kind::Decimal { Kind::Int } else { kind }
}
