//! Fixing a batch.
//!
//! | mode | the batch is |
//! |---|---|
//! | `full` | a numbered transient table, made in one statement from the model, its rows numbered by key |
//! | `incremental` | the rows after the last one delivered, up to a bound that no open transaction can write below |
//! | `changes` | a numbered transient table that takes a Stream's changes (`changes`) |
//! | `diff` | a numbered transient table of what differs between two snapshots (`diff`) |
//!
//! Snowflake shows nobody else's transactions to an ordinary role, so the bound rests on how long a transaction may
//! last, `late_commit_s`: an instant that lies so far back; for any other cursor the greatest value seen, and then
//! a wait of that length, after which whoever was writing has committed.

use std::time::Duration;

use freshet_core::connector::{Cell, Kind, ModelSpec, ReadMode, ReadPlan, Row, SealRequest, Sealed};
use freshet_core::error::{Code, Error, Result};
use freshet_core::failpoint::{self, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalogue::refuse_changed;
use super::changes::{self, Taken};
use super::client::{QueryTag, Statement};
use super::diff::{self, Difference};
use super::read::{Token, cell_text};
use super::session::Session;
use super::sql::{self, BatchTable, FoundTable, Stage, identifier, relation, typed_literal};
use super::streams::instant;

/// Batch tables asked for at once.
const TABLES_PAGE: usize = 1_000;

/// A batch, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Batch {
    /// A batch table.
    Full {
        /// Its schema.
        schema: String,
        /// Its name.
        table: String,
        /// Its rows.
        rows: u64,
    },
    /// A range of the cursor.
    Incremental(Bound),
    /// A batch table that took a Stream's changes.
    Changes(Taken),
    /// A table of what differs between two snapshots.
    Diff(Difference),
}

/// A range of the cursor: after one row, up to a bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bound {
    /// The last row of the batch before; none for the beginning.
    pub(super) after: Option<Token>,
    /// The bound, as [`cell_text`] writes it.
    pub(super) upper: String,
    /// Whether the bound itself belongs to the batch.
    pub(super) inclusive: bool,
}

impl Batch {
    pub(super) fn parse(batch: &Value) -> Result<Self> {
        serde_json::from_value(batch.clone())
            .map_err(|error| Error::new(Code::Internal, "the sealed batch does not read").caused_by(error))
    }

    pub(super) fn sealed(&self, empty: bool) -> Sealed {
        let batch = serde_json::to_value(self).unwrap_or_default();
        Sealed { batch, carry: None, empty, notes: Vec::new() }
    }
}

impl Bound {
    pub(super) fn condition(&self, cursor: &str, kind: Kind) -> String {
        let operator = if self.inclusive { "<=" } else { "<" };
        format!("{} {operator} {}", identifier(cursor), typed_literal(kind, &self.upper))
    }
}

/// Fixes the next batch.
pub(super) async fn seal(session: &mut Session, request: &SealRequest) -> Result<Sealed> {
    match (&request.plan.mode, &request.plan.model) {
        // A Stream is looked at only once it holds something: an idle one wakes no warehouse.
        (ReadMode::Changes { .. }, ModelSpec::Stream { schema, stream }) => {
            changes::seal(session, request, schema, stream).await
        }
        (ReadMode::Changes { .. }, _) | (_, ModelSpec::Stream { .. }) => Err(not_together()),
        (ReadMode::Diff, _) => diff::seal(session, request).await,
        (ReadMode::Full, _) => {
            refuse_changed(session, &request.plan).await?;
            seal_full(session, request).await
        }
        (ReadMode::Incremental { cursor }, _) => {
            refuse_changed(session, &request.plan).await?;
            seal_incremental(session, request, cursor).await
        }
    }
}

pub(super) fn not_together() -> Error {
    Error::invalid("/config/mode/kind", "must be `changes` for a model of kind `stream`, and for no other")
}

async fn seal_full(session: &mut Session, request: &SealRequest) -> Result<Sealed> {
    let (plan, tag) = (&request.plan, QueryTag::of_batch(&request.name));
    let table = BatchTable::new(Stage::Full, &session.work_schema(), &request.name.sync, request.name.seq);
    drop_left_over(session, request, &tag).await;
    let client = session.client()?;
    let statement = Statement::large(table.seal_full(&plan.model, &plan.columns, &plan.key)).tagged(tag.clone());
    failpoint::during(Step::SealSent, client.run(&statement)).await?;
    let (rows, _) = count(session, &table, table.count(), &tag).await?;
    if rows == 0 {
        client.run(&Statement::large(table.drop()).tagged(tag)).await?;
    }
    Ok(Batch::Full { schema: table.schema, table: table.name, rows }.sealed(rows == 0))
}

/// Drops copies of earlier batches: one that a reset left behind, or that a repeat of a seal made after its release.
/// Nothing reads them any more; one that cannot be dropped now is dropped another time.
async fn drop_left_over(session: &mut Session, request: &SealRequest, tag: &QueryTag) {
    let name = &request.name;
    let dropped = async {
        let found = batch_tables(session, Stage::Full, &name.sync, tag).await?;
        let earlier = found.iter().map(|table| table.seq).filter(|seq| *seq < name.seq);
        drop_tables(session, Stage::Full, &name.sync, earlier, tag).await
    };
    if let Err(error) = dropped.await {
        tracing::warn!(sync.id = name.sync, error = %error.chain(), "left-over batch tables could not be dropped");
    }
}

/// The batch tables of a sync that there are.
pub(super) async fn batch_tables(
    session: &mut Session,
    stage: Stage,
    sync: &str,
    tag: &QueryTag,
) -> Result<Vec<FoundTable>> {
    let mut tables = Vec::new();
    for Staged { name, rows, made_ms } in staged(session, stage, sync, tag).await? {
        let Some(seq) = BatchTable::number(stage, sync, &name) else { continue };
        let rows = rows.ok_or_else(|| Error::new(Code::SnowflakeAnswer, format!("{name} has no count of rows")))?;
        tables.push(FoundTable { seq, rows, made_ms });
    }
    Ok(tables)
}

/// A table in Freshet's schema.
pub(super) struct Staged {
    pub(super) name: String,
    rows: Option<u64>,
    made_ms: Option<i64>,
}

/// The tables whose names may be a stage's of a sync: the pattern's `_` matches any letter.
pub(super) async fn staged(session: &mut Session, stage: Stage, sync: &str, tag: &QueryTag) -> Result<Vec<Staged>> {
    let schema = session.work_schema();
    let mut tables = Vec::new();
    let mut last: Option<String> = None;
    loop {
        let sql = sql::show_batch_tables(stage, &schema, sync, TABLES_PAGE, last.as_deref());
        let page = session.texts(sql, tag, TABLES_PAGE).await?;
        for row in &page.rows {
            let name = page.cell(row, "name").unwrap_or_default();
            let rows = page.cell(row, "rows").and_then(|rows| rows.parse().ok());
            let made_ms = page.cell(row, "created_on").and_then(instant).map(|at| at.timestamp_millis());
            tables.push(Staged { name: name.to_owned(), rows, made_ms });
        }
        if page.rows.len() < TABLES_PAGE {
            return Ok(tables);
        }
        last = page.rows.last().and_then(|row| page.cell(row, "name")).map(str::to_owned);
    }
}

/// Drops batch tables by their numbers.
pub(super) async fn drop_tables(
    session: &mut Session,
    stage: Stage,
    sync: &str,
    numbers: impl Iterator<Item = i64>,
    tag: &QueryTag,
) -> Result<()> {
    let schema = session.work_schema();
    for seq in numbers {
        let drop = BatchTable::new(stage, &schema, sync, seq).drop();
        session.client()?.run(&Statement::large(drop).tagged(tag.clone())).await?;
    }
    Ok(())
}

/// How many rows a batch table holds, by a statement of its own, and what else that answers; the ordinals must be gapless.
pub(super) async fn count(
    session: &mut Session,
    table: &BatchTable,
    statement: String,
    tag: &QueryTag,
) -> Result<(u64, Option<String>)> {
    let texts = session.texts(statement, tag, 1).await?;
    let cell = |place: usize| texts.rows.first()?.get(place)?.as_deref();
    let number = |place: usize| cell(place)?.parse::<u64>().ok();
    match (number(0), number(1)) {
        (Some(0), None) => Ok((0, None)),
        (Some(rows), Some(last)) if rows == last => Ok((rows, cell(2).map(str::to_owned))),
        _ => Err(Error::new(Code::SnowflakeAnswer, format!("the ordinals of {} have gaps", table.name))),
    }
}

async fn seal_incremental(session: &mut Session, request: &SealRequest, cursor: &str) -> Result<Sealed> {
    let Some((bound, any)) = bound_now(session, request, cursor).await? else {
        return Ok(Sealed { batch: Value::Null, carry: None, empty: true, notes: Vec::new() });
    };
    if any && waits(cursor_kind(&request.plan, cursor)?) {
        tokio::time::sleep(Duration::from_secs(session.settings.late_commit_s.into())).await;
    }
    Ok(Batch::Incremental(bound).sealed(!any))
}

/// The bound that a batch would have now, and whether there is anything new below it; none while the model has no rows.
pub(super) async fn bound_now(
    session: &mut Session,
    request: &SealRequest,
    cursor: &str,
) -> Result<Option<(Bound, bool)>> {
    let (plan, tag) = (&request.plan, QueryTag::of_batch(&request.name));
    let kind = cursor_kind(plan, cursor)?;
    let after = request.position.as_ref().map(Token::parse).transpose()?;
    let Some((upper, inclusive)) = upper_bound(session, plan, cursor, kind, &tag).await? else { return Ok(None) };
    let bound = Bound { after, upper, inclusive };
    let any = has_rows(session, plan, cursor, kind, &bound, &tag).await?;
    Ok(Some((bound, any)))
}

/// What a cursor may be: what only grows, and is read back exactly from its text.
pub(super) fn cursor_kind(plan: &ReadPlan, cursor: &str) -> Result<Kind> {
    let unsuitable = |what: &str| Error::new(Code::ModelCursor, format!("the cursor `{cursor}` {what}"));
    let column = plan.columns.iter().find(|column| column.name == cursor);
    let column = column.ok_or_else(|| unsuitable("is not a column of the model"))?;
    match column.kind {
        Kind::Int | Kind::Date | Kind::Timestamp | Kind::TimestampTz => Ok(column.kind),
        Kind::Decimal if column.source_type.ends_with(",0)") => Ok(column.kind),
        Kind::Decimal
        | Kind::Bool
        | Kind::Float
        | Kind::Text
        | Kind::Bytes
        | Kind::Json
        | Kind::Time
        | Kind::Interval => Err(unsuitable(&format!("has the type {}", column.source_type))),
    }
}

/// Whether the bound is the greatest value seen, so that those who were writing then must be waited for.
fn waits(kind: Kind) -> bool {
    !matches!(kind, Kind::TimestampTz | Kind::Date)
}

/// The bound and whether it belongs to the batch; none while the model has no rows.
async fn upper_bound(
    session: &mut Session,
    plan: &ReadPlan,
    cursor: &str,
    kind: Kind,
    tag: &QueryTag,
) -> Result<Option<(String, bool)>> {
    let sql = match kind {
        Kind::TimestampTz => "select current_timestamp()".to_owned(),
        // Today is not over: its rows come tomorrow.
        Kind::Date => "select current_date()".to_owned(),
        _ => format!("select max({}) from {}", identifier(cursor), relation(&plan.model)),
    };
    let mut rows = session.client()?.rows(&Statement::small(sql).tagged(tag.clone())).await?;
    let mut row = Row::default();
    if !rows.next(&mut row).await? {
        return Err(Error::new(Code::SnowflakeAnswer, "no bound came"));
    }
    match row.cells().first().copied() {
        None | Some(Cell::Null) => Ok(None),
        Some(Cell::TimestampTz(seconds, nanos, _)) if kind == Kind::TimestampTz => {
            let mut earlier = Row::default();
            let late_commit_s = i64::from(session.settings.late_commit_s);
            earlier.push(Cell::TimestampTz(seconds - late_commit_s, nanos, 0));
            Ok(Some((cell_text(&earlier, 0), false)))
        }
        Some(_) => Ok(Some((cell_text(&row, 0), kind != Kind::Date))),
    }
}

async fn has_rows(
    session: &mut Session,
    plan: &ReadPlan,
    cursor: &str,
    kind: Kind,
    bound: &Bound,
    tag: &QueryTag,
) -> Result<bool> {
    let upper = bound.condition(cursor, kind);
    let nullable =
        plan.key.iter().filter(|name| plan.columns.iter().any(|column| column.name == **name && column.nullable));
    let missing: Vec<_> = nullable.map(|name| format!("{} is null", identifier(name))).collect();
    if !missing.is_empty() && any(session, plan, &format!("{upper} and ({})", missing.join(" or ")), tag).await? {
        return Err(Error::new(Code::ModelKeyNull, "there are rows with NULL in the key"));
    }
    let condition = match &bound.after {
        Some(after) => format!("{upper} and {}", after.condition(plan)?),
        None => upper,
    };
    any(session, plan, &condition, tag).await
}

async fn any(session: &mut Session, plan: &ReadPlan, condition: &str, tag: &QueryTag) -> Result<bool> {
    let sql = format!("select 1 as found from {} where {condition} limit 1", relation(&plan.model));
    Ok(session.value(sql, tag).await?.is_some())
}

/// Gives back what a delivered batch took: the copy of its rows.
pub(super) async fn release(session: &mut Session, tag: QueryTag, batch: &Value) -> Result<()> {
    match Batch::parse(batch)? {
        Batch::Full { schema, table, .. } => {
            let drop = sql::BatchTable { schema, name: table }.drop();
            session.client()?.run(&Statement::large(drop).tagged(tag)).await.map(|_| ())
        }
        Batch::Incremental(_) => Ok(()),
        Batch::Diff(difference) => diff::release(session, tag, &difference).await,
        Batch::Changes(taken) => {
            let truncate = taken.table().truncate();
            session.client()?.run(&Statement::large(truncate).tagged(tag)).await.map(|_| ())
        }
    }
}
