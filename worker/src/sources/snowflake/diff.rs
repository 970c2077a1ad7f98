//! Mode `diff`: what changed since the last snapshot, found by the warehouse in Freshet's schema.
//!
//! ~~~text
//! create table SNAP N if not exists as the model's rows now
//! create table DIFF N if not exists as SNAP N against the last snapshot, ordered and numbered
//! delivered:   DIFF N and the last snapshot are dropped; SNAP N is the last one
//! ~~~
//!
//! Each statement is atomic, and harmless when repeated: whatever became of an attempt, the same statements go on where it
//! ended. Nothing is taken from the model, so tables of a seal that nobody wrote down are only left over.
//!
//! A table's name ends with a mark of the run and of what it was made from. So another run, after a key was refused or the
//! sync was reset, makes tables of its own, and **no attempt ever drops a table of the number in hand**: before a seal
//! those of earlier numbers go, all but the last snapshot. A late statement makes a table that nobody looks for, and the
//! next seal drops it.

use freshet_core::connector::{
    Ahead, BatchName, Cell, Change, Column, Flow, Op, ReadEnd, ReadPlan, ReadRequest, Row, SealRequest, Sealed, Sink,
};
use freshet_core::error::{Code, Error, Result};
use freshet_core::failpoint::{self, Step};
use serde::{Deserialize, Serialize};

use super::catalogue::{column_of, refuse_changed, refuse_differing};
use super::client::{QueryTag, Rows, Statement};
use super::decode::RowType;
use super::read::{self, Token};
use super::seal::{Batch, count, staged};
use super::session::Session;
use super::sql::{BatchTable, Stage, diff as statements, identifier, plan_mark, relation};

/// A difference, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Difference {
    /// The schema of its tables.
    schema: String,
    /// Its table.
    difference: String,
    /// The snapshot it was taken from; none for a first one.
    base: Option<String>,
    /// Its changes.
    rows: u64,
}

/// The snapshot that the next difference is taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Base {
    schema: String,
    snapshot: String,
    /// The columns and the key it was made for: [`plan_mark`].
    plan: String,
}

impl Base {
    fn table(&self) -> BatchTable {
        BatchTable { schema: self.schema.clone(), name: self.snapshot.clone() }
    }
}

impl Difference {
    fn table(&self) -> BatchTable {
        BatchTable { schema: self.schema.clone(), name: self.difference.clone() }
    }
}

/// Fixes the next batch.
pub(super) async fn seal(session: &mut Session, request: &SealRequest) -> Result<Sealed> {
    let (plan, tag) = (&request.plan, QueryTag::of_batch(&request.name));
    refuse_what_cannot(session, plan).await?;
    let base = base(request)?;
    let schema = session.work_schema();
    refuse_gone(session, request, base.as_ref(), &tag).await?;
    drop_left_over(session, request, base.as_ref(), &tag).await;

    let mark = mark(&request.name, plan, base.as_ref());
    let table = |stage| BatchTable::marked(stage, &schema, &request.name.sync, request.name.seq, &mark);
    let (snapshot, difference) = (table(Stage::Snapshot), table(Stage::Difference));
    create(session, &snapshot, statements::take_snapshot(&snapshot, plan), &tag).await?;
    refuse_keys(session, statements::check_keys(&snapshot, plan), &tag).await?;
    let last = base.as_ref().map(Base::table);
    create(session, &difference, statements::take_difference(&difference, plan, &snapshot, last.as_ref()), &tag)
        .await?;

    let (rows, _) = count(session, &difference, difference.count(), &tag).await?;
    if rows == 0 {
        // The last snapshot is as good as the new one, which the next seal drops.
        return Ok(Sealed { carry: request.carry.clone(), ..empty() });
    }
    let new = Base { schema: schema.clone(), snapshot: snapshot.name, plan: plan_mark(&plan.columns, &plan.key) };
    let batch = Difference { schema, difference: difference.name, base: base.map(|base| base.snapshot), rows };
    Ok(Sealed { carry: serde_json::to_value(new).ok(), ..Batch::Diff(batch).sealed(false) })
}

async fn refuse_what_cannot(session: &mut Session, plan: &ReadPlan) -> Result<()> {
    read::refuse_unordered(plan)?;
    refuse_incomparable(plan)?;
    refuse_changed(session, plan).await
}

fn refuse_incomparable(plan: &ReadPlan) -> Result<()> {
    let Some(column) = plan.columns.iter().find(|column| !statements::is_comparable(column)) else { return Ok(()) };
    let told = format!("the column `{}` of type {} cannot be compared exactly", column.name, column.source_type);
    Err(Error::new(Code::ModelTypeUnsupported, told))
}

fn empty() -> Sealed {
    Sealed { batch: serde_json::Value::Null, carry: None, empty: true, notes: Vec::new() }
}

/// The last snapshot, if there is one, which has to have the plan's columns.
fn base(request: &SealRequest) -> Result<Option<Base>> {
    let Some(carry) = &request.carry else { return Ok(None) };
    let base: Base = serde_json::from_value(carry.clone())
        .map_err(|error| Error::new(Code::Internal, "the last snapshot's record does not read").caused_by(error))?;
    if base.plan != plan_mark(&request.plan.columns, &request.plan.key) {
        let told = "the model has other columns or another key than the last snapshot; reset the sync to begin anew";
        return Err(Error::new(Code::ModelColumnsChanged, told));
    }
    Ok(Some(base))
}

/// Stands for the run and for what its batch is made from.
fn mark(name: &BatchName, plan: &ReadPlan, base: Option<&Base>) -> String {
    let mut mark = xxhash_rust::xxh3::Xxh3Default::new();
    let last = base.map_or("", |base| base.snapshot.as_str());
    for part in [&name.run, last, &relation(&plan.model), &plan_mark(&plan.columns, &plan.key)] {
        mark.update(&(part.len() as u64).to_le_bytes());
        mark.update(part.as_bytes());
    }
    format!("{:016X}", mark.digest())
}

/// Makes a table; one that another attempt made meanwhile is the same.
async fn create(session: &mut Session, table: &BatchTable, sql: String, tag: &QueryTag) -> Result<()> {
    let client = session.client()?;
    let statement = Statement::large(sql).tagged(tag.clone());
    match failpoint::during(Step::SealSent, client.run(&statement)).await {
        Ok(_) => Ok(()),
        Err(error) if exists(session, table, tag).await.unwrap_or(false) => {
            tracing::info!(error = %error.chain(), "another attempt made the table {}", table.name);
            Ok(())
        }
        Err(error) => Err(without_right(session, error)),
    }
}

/// The script with the error of a table that may not be made. That the model is there and may be read is known by then.
fn without_right(session: &Session, error: Error) -> Error {
    if !matches!(error.code, Code::SnowflakePrivilege | Code::SnowflakeDatabase | Code::ModelObjectMissing) {
        return error;
    }
    let schema = format!("{}.{}", identifier(&session.database()), identifier(&session.work_schema()));
    let role = session.settings.context().role.map_or("<role>".to_owned(), |role| identifier(&role));
    let told = format!(
        "mode `diff` keeps its snapshots in the schema {schema}, where no table can be made; run: \
         create schema if not exists {schema}; grant usage, create table on schema {schema} to role {role}"
    );
    Error::new(Code::SnowflakePrivilege, told).caused_by(error.chain())
}

async fn exists(session: &mut Session, table: &BatchTable, tag: &QueryTag) -> Result<bool> {
    let found = session.texts(statements::show_table(table), tag, 1_000).await?;
    Ok(found.rows.iter().any(|row| found.cell(row, "name") == Some(table.name.as_str())))
}

/// Refuses to go on without the last snapshot: every row would be created again, and no delete told.
async fn refuse_gone(session: &mut Session, request: &SealRequest, base: Option<&Base>, tag: &QueryTag) -> Result<()> {
    let Some(table) = base.map(Base::table) else { return Ok(()) };
    if exists(session, &table, tag).await? {
        return Ok(());
    }
    let told = format!("the last snapshot of {}, {}.{}, is gone", request.name.sync, table.schema, table.name);
    Err(Error::new(Code::SnowflakeSnapshotGone, told))
}

/// Drops the tables of earlier numbers, all but the last snapshot; one that cannot be dropped now is dropped another time.
async fn drop_left_over(session: &mut Session, request: &SealRequest, base: Option<&Base>, tag: &QueryTag) {
    let name = &request.name;
    let dropped = async {
        for stage in [Stage::Snapshot, Stage::Difference] {
            for found in staged(session, stage, &name.sync, tag).await? {
                let is_earlier =
                    BatchTable::marked_number(stage, &name.sync, &found.name).is_some_and(|seq| seq < name.seq);
                if is_earlier && base.is_none_or(|base| base.snapshot != found.name) {
                    let table = BatchTable { schema: session.work_schema(), name: found.name };
                    session.client()?.run(&Statement::large(table.drop()).tagged(tag.clone())).await?;
                }
            }
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = dropped.await {
        tracing::warn!(sync.id = name.sync, error = %error.chain(), "left-over snapshots could not be dropped");
    }
}

async fn refuse_keys(session: &mut Session, check: String, tag: &QueryTag) -> Result<()> {
    let told = session.texts(check, tag, 1).await?;
    let number = |place: usize| told.rows.first()?.get(place)?.as_deref()?.parse::<u64>().ok();
    match (number(0), number(1)) {
        (Some(0), Some(0)) => Ok(()),
        (Some(0), Some(keys)) => Err(Error::new(Code::ModelKeyDuplicate, format!("{keys} keys occur more than once"))),
        (Some(rows), Some(_)) => Err(Error::new(Code::ModelKeyNull, format!("{rows} rows have NULL in the key"))),
        _ => Err(Error::new(Code::SnowflakeAnswer, "the count of keys does not read")),
    }
}

/// Reads a difference from an ordinal on; every ordinal is looked at, so a missing row cannot go unnoticed.
pub(super) async fn read(
    session: &mut Session,
    request: &ReadRequest,
    batch: &Difference,
    from: Option<Token>,
    sink: &mut dyn Sink,
) -> Result<ReadEnd> {
    let (plan, tag) = (&request.plan, QueryTag::of_batch(&request.name));
    let from = Token::ordinal(from.as_ref())?;
    let statement = Statement::large(statements::read(&batch.table(), plan.columns.len(), from)).tagged(tag);
    let rows = session.client()?.rows(&statement).await.map_err(gone)?;
    let last = push_all(rows, plan, from, sink).await?;
    if u64::try_from(last).ok() != Some(batch.rows) {
        let told = format!("{} ends at row {last} of {}", batch.difference, batch.rows);
        return Err(Error::new(Code::SnowflakeAnswer, told));
    }
    Ok(ReadEnd { token: (last > from).then(|| Token::Ordinal { ordinal: last }.write()) })
}

/// Hands a difference's changes on; the last ordinal.
async fn push_all(mut rows: Rows, plan: &ReadPlan, from: i64, sink: &mut dyn Sink) -> Result<i64> {
    let width = plan.columns.len();
    refuse_differing(&plan.columns, &images(rows.columns().get(width..2 * width), plan)?)?;
    let (mut row, mut before, mut after) = (Row::default(), Row::default(), Row::default());
    let mut last = from;
    while rows.next(&mut row).await? {
        if read::ordinal(&mut row) != Some(last + 1) {
            return Err(Error::new(Code::SnowflakeAnswer, format!("row {} of the difference is missing", last + 1)));
        }
        last += 1;
        let op = op(&mut row)?;
        copy(&row, 0..width, &mut before);
        copy(&row, width..2 * width, &mut after);
        let (before, after) = (Some(&before), Some(&after));
        let change = match op {
            Op::Create => Change { op, before: None, after },
            Op::Delete => Change { op, before, after: None },
            Op::Update | Op::Read => Change { op, before, after },
        };
        if sink.push(change)? == Flow::Full {
            sink.flush(Token::Ordinal { ordinal: last }.write()).await?;
        }
    }
    Ok(last)
}

/// Hands on the first changes of what the next difference would be.
pub(super) async fn look_ahead(
    session: &mut Session,
    request: &SealRequest,
    changes_max: usize,
    sink: &mut dyn Sink,
) -> Result<()> {
    let (base, tag) = comparable(session, request).await?;
    let sql = statements::look(&request.plan, base.as_ref(), changes_max);
    let rows = session.client()?.rows(&Statement::large(sql).tagged(tag)).await?;
    push_all(rows, &request.plan, 0, sink).await.map(|_| ())
}

/// Counts the changes of what the next difference would be.
pub(super) async fn count_ahead(session: &mut Session, request: &SealRequest) -> Result<Ahead> {
    let (base, tag) = comparable(session, request).await?;
    let found = session.texts(statements::count_now(&request.plan, base.as_ref()), &tag, 3).await?;
    let of = |op: Op| {
        let row = found.rows.iter().find(|row| row.first().and_then(Option::as_deref) == Some(op.letter()));
        row.and_then(|row| row.get(1)?.as_deref()?.parse().ok()).unwrap_or(0)
    };
    Ok(Ahead::new([Op::Create, Op::Update, Op::Delete].map(|op| (op, of(op))), 0))
}

/// The last snapshot, once everything that would keep a seal from comparing is looked at.
async fn comparable(session: &mut Session, request: &SealRequest) -> Result<(Option<BatchTable>, QueryTag)> {
    let (plan, tag) = (&request.plan, QueryTag::of_batch(&request.name));
    refuse_what_cannot(session, plan).await?;
    let base = base(request)?;
    refuse_gone(session, request, base.as_ref(), &tag).await?;
    refuse_keys(session, statements::check_keys_now(plan), &tag).await?;
    Ok((base.as_ref().map(Base::table), tag))
}

/// A difference that is gone can be read no more, and the last snapshot may be gone with it.
fn gone(error: Error) -> Error {
    match error.code {
        Code::ModelObjectMissing => {
            Error::new(Code::SnowflakeSnapshotGone, error.message.clone()).caused_by(error.chain())
        }
        _ => error,
    }
}

/// The columns of one image, by the names that the plan gives them.
fn images(found: Option<&[RowType]>, plan: &ReadPlan) -> Result<Vec<Column>> {
    let named = |(column, planned): (_, &Column)| Ok(Column { name: planned.name.clone(), ..column_of(column)? });
    found.unwrap_or_default().iter().zip(&plan.columns).map(named).collect()
}

/// Takes the operation off a row.
fn op(row: &mut Row) -> Result<Op> {
    let unknown = || Error::new(Code::SnowflakeAnswer, "a difference's row says neither c, u nor d");
    let Some(Cell::Text(span)) = row.pop() else { return Err(unknown()) };
    match row.bytes(span) {
        b"c" => Ok(Op::Create),
        b"u" => Ok(Op::Update),
        b"d" => Ok(Op::Delete),
        _ => Err(unknown()),
    }
}

/// Copies some cells of a row, with their bytes.
fn copy(row: &Row, places: std::ops::Range<usize>, into: &mut Row) {
    into.clear();
    for cell in &row.cells()[places] {
        match *cell {
            Cell::Number(span) => into.push_bytes(Cell::Number, row.bytes(span)),
            Cell::Text(span) => into.push_bytes(Cell::Text, row.bytes(span)),
            Cell::Bytes(span) => into.push_bytes(Cell::Bytes, row.bytes(span)),
            Cell::Json(span) => into.push_bytes(Cell::Json, row.bytes(span)),
            Cell::Null
            | Cell::Bool(_)
            | Cell::Int(_)
            | Cell::Float(_)
            | Cell::Float32(_)
            | Cell::Date(_)
            | Cell::Time(_)
            | Cell::Timestamp(..)
            | Cell::TimestampTz(..) => into.push(*cell),
        }
    }
}

/// Gives back what a delivered difference took: its table, and the snapshot it was taken from.
pub(super) async fn release(session: &mut Session, tag: QueryTag, batch: &Difference) -> Result<()> {
    let base = batch.base.iter().map(|name| BatchTable { schema: batch.schema.clone(), name: name.clone() });
    for table in base.chain([batch.table()]) {
        session.client()?.run(&Statement::large(table.drop()).tagged(tag.clone())).await?;
    }
    Ok(())
}
