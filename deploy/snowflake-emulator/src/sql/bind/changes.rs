//! Reading a stream: the net change between its offset and now, as SQL over the change log.
//!
//! A change log row carries its transaction's id; an offset is a Postgres snapshot. What a snapshot did not
//! see came later, whatever the order of commits, so nothing is lost between two reads.

use sqlparser::ast;

use super::{Binder, Known, Typed};
use crate::sql::catalog::{Relation, Stream, Table, View};
use crate::sql::error::SqlError;
use crate::sql::names::{Context, literal, quoted};
use crate::sql::types::{Column, Type};

/// The three columns that a stream adds.
fn metadata_columns() -> [Column; 3] {
    [
        Column { name: "METADATA$ACTION".into(), ty: Type::Text { length: 6 }, nullable: true },
        Column { name: "METADATA$ISUPDATE".into(), ty: Type::Boolean, nullable: true },
        Column { name: "METADATA$ROW_ID".into(), ty: Type::Text { length: 40 }, nullable: true },
    ]
}

/// Returns the condition for log rows that the snapshot did not see.
pub fn changed_after(snapshot: &str) -> String {
    let oldest = snapshot.split(':').next().unwrap_or("0");
    // The first half lets the index on "$xid" skip the past.
    format!("\"$xid\" >= '{oldest}'::xid8 and not pg_visible_in_snapshot(\"$xid\", '{snapshot}')")
}

fn seen_by(end: Option<&str>) -> String {
    end.map_or_else(|| "true".into(), |end| format!("pg_visible_in_snapshot(\"$xid\", '{end}')"))
}

/// Returns SQL for a table's rows, `"$rid"` included, as they were at a snapshot.
pub(super) fn rows_at(table: &Table, snapshot: &str) -> String {
    let (data, log, columns, later) = (table.data(), table.log(), table.column_list(), changed_after(snapshot));
    format!(
        "(select {columns}, \"$rid\" from {data} t where not exists \
         (select from {log} g where g.\"$rid\" = t.\"$rid\" and {later}) \
         union all select {columns}, \"$rid\" from (select distinct on (\"$rid\") * from {log} where {later} \
         order by \"$rid\", \"$seq\") f where f.\"$image\" = 'B')"
    )
}

/// Returns SQL and columns for what a stream holds; the columns keep their own names.
///
/// # Errors
/// Snowflake's error when the stream is stale or its source is gone.
pub fn stream_rows(binder: &mut Binder<'_>, stream: &Stream) -> Result<(String, Vec<Column>), SqlError> {
    if stream.stale {
        return Err(stale(stream));
    }
    let end = binder.end.clone();
    match stream.source.as_deref().map_err(Clone::clone)? {
        Relation::Table(table) => {
            let sql = if stream.initial {
                initial(table, &rows_at(table, &stream.seen))
            } else if stream.append_only {
                appended(table, &stream.seen, end.as_deref())
            } else {
                net_changes(table, &stream.seen, end.as_deref())
            };
            Ok((sql, with_metadata(&table.columns)))
        }
        Relation::View(view) => view_changes(binder, stream, view, end.as_deref()),
        Relation::Stream(_) => Err(SqlError::unsupported("stream on a stream")),
    }
}

/// The error for a stream that waited too long.
fn stale(stream: &Stream) -> SqlError {
    SqlError::compilation(
        "091901",
        "0A000",
        format!(
            "Stream {} is stale. The change tracking information is not available anymore; recreate the stream to read it again.",
            stream.name
        ),
    )
}

fn with_metadata(columns: &[Column]) -> Vec<Column> {
    columns.iter().cloned().chain(metadata_columns()).collect()
}

fn initial(table: &Table, rows: &str) -> String {
    let (columns, id) = (table.column_list(), table.id);
    format!(
        "select {columns}, 'INSERT' as \"METADATA$ACTION\", false as \"METADATA$ISUPDATE\", \
         emulator.row_id({id}, \"$rid\"::text) as \"METADATA$ROW_ID\" from {rows} i"
    )
}

fn appended(table: &Table, seen: &str, end: Option<&str>) -> String {
    let rows = format!(
        "(select * from {} where \"$operation\" = 'I' and {} and {})",
        table.log(),
        changed_after(seen),
        seen_by(end)
    );
    initial(table, &rows)
}

/// First image before and last image after: insert + delete is nothing, n updates are one pair.
fn net_changes(table: &Table, seen: &str, end: Option<&str>) -> String {
    net_changes_in(table, &format!("{} and {}", changed_after(seen), seen_by(end)))
}

fn net_changes_in(table: &Table, window: &str) -> String {
    let (log, id) = (table.log(), table.id);
    let columns =
        |of: &str| table.columns.iter().map(|column| format!("{of}.{}, ", quoted(&column.name))).collect::<String>();
    format!(
        "with d as materialized (select * from {log} where {window}), \
         f as (select distinct on (\"$rid\") * from d order by \"$rid\", \"$seq\"), \
         z as (select distinct on (\"$rid\") * from d order by \"$rid\", \"$seq\" desc) \
         select {old}'DELETE' as \"METADATA$ACTION\", z.\"$image\" = 'A' as \"METADATA$ISUPDATE\", \
         emulator.row_id({id}, f.\"$rid\"::text) as \"METADATA$ROW_ID\" \
         from f join z on f.\"$rid\" = z.\"$rid\" where f.\"$image\" = 'B' \
         union all select {new}'INSERT', f.\"$image\" = 'B', emulator.row_id({id}, f.\"$rid\"::text) \
         from f join z on f.\"$rid\" = z.\"$rid\" where z.\"$image\" = 'A'",
        old = columns("f"),
        new = columns("z"),
    )
}

/// A view's changes: its rows then against its rows now, paired by the identities of the base rows.
fn view_changes(
    binder: &mut Binder<'_>,
    stream: &Stream,
    view: &View,
    end: Option<&str>,
) -> Result<(String, Vec<Column>), SqlError> {
    let (then, columns) = view_rows(binder, view, Some(stream.seen.clone()))?;
    let list = |of: &str| (1..=columns.len()).map(|at| format!("{of}.c{at}, ")).collect::<String>();
    let names = with_metadata(&columns);
    let row_id = |of: &str| format!("emulator.row_id({}, {of}.rid)", view.id);
    let inner = if stream.initial {
        format!("select {}'INSERT', false, {} from ({then}) n", list("n"), row_id("n"))
    } else {
        let (now, _) = view_rows(binder, view, end.map(str::to_owned))?;
        let same = if stream.append_only { "false" } else { "true" };
        format!(
            "select {old}'DELETE', n.rid is not null, {id_old} from ({then}) o left join ({now}) n on n.rid = o.rid \
             where {same} and (n.rid is null or ({old_row}) is distinct from ({new_row})) \
             union all select {new}'INSERT', {same} and o.rid is not null, {id_new} from ({now}) n left join ({then}) o on n.rid = o.rid \
             where o.rid is null or ({same} and ({old_row}) is distinct from ({new_row}))",
            old = list("o"),
            new = list("n"),
            id_old = row_id("o"),
            id_new = row_id("n"),
            old_row = row(columns.len(), "o"),
            new_row = row(columns.len(), "n"),
        )
    };
    let aliases = names.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ");
    Ok((format!("select * from ({inner}) v({aliases})"), names))
}

fn row(count: usize, of: &str) -> String {
    format!("row({})", (1..=count).map(|at| format!("{of}.c{at}")).collect::<Vec<_>>().join(", "))
}

/// A view's rows c1, c2, … and `rid` at a snapshot, or now.
fn view_rows(binder: &mut Binder<'_>, view: &View, at: Option<String>) -> Result<(String, Vec<Column>), SqlError> {
    let context = std::mem::replace(&mut binder.context, view.context.clone());
    let scopes = std::mem::take(&mut binder.scopes);
    let before = (std::mem::replace(&mut binder.as_of, at), std::mem::replace(&mut binder.with_rid, true));
    let bound = binder.query(&view.query);
    (binder.as_of, binder.with_rid) = before;
    binder.scopes = scopes;
    binder.context = context;
    let mut bound = bound?;
    for (column, name) in bound.columns.iter_mut().zip(&view.columns) {
        column.name.clone_from(name);
    }
    Ok((bound.sql, bound.columns))
}

/// The tables below a relation.
pub(super) fn base_tables<'k>(known: &'k Known, relation: &'k Relation) -> Vec<&'k Table> {
    match relation {
        Relation::Table(table) => vec![table],
        Relation::Stream(_) => vec![],
        Relation::View(view) => named_in(&view.query)
            .iter()
            .filter_map(|parts| known.get(&view.context, parts).ok())
            .flat_map(|found| base_tables(known, found))
            .collect(),
    }
}

fn named_in(query: &ast::Query) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let _ = ast::visit_relations(query, |name| {
        if let Ok(parts) = crate::sql::names::parts(name) {
            found.push(parts);
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    found
}

/// Returns the expression of SYSTEM$STREAM_HAS_DATA: never false when there is a change.
///
/// # Errors
/// Snowflake's error when the stream is stale or its source is gone.
pub(super) fn has_data(known: &Known, context: &Context, parts: &[String]) -> Result<Typed, SqlError> {
    let stream = named_stream(known, context, parts)?;
    if stream.stale {
        return Err(stale(stream));
    }
    let source = stream.source.as_deref().map_err(Clone::clone)?;
    let mut conditions = Vec::new();
    for table in base_tables(known, source) {
        let only = if stream.append_only { " and \"$operation\" = 'I'" } else { "" };
        conditions.push(format!("exists (select from {} where {}{only})", table.log(), changed_after(&stream.seen)));
        if stream.initial {
            conditions.push(format!("exists (select from {} e)", rows_at(table, &stream.seen)));
        }
    }
    Ok(Typed::solid(format!("({})", conditions.join(" or ")), Type::Boolean))
}

/// Returns the expression of SYSTEM$STREAM_GET_TABLE_TIMESTAMP, nanoseconds since the epoch.
///
/// # Errors
/// 002003 when there is no such stream.
pub(super) fn table_timestamp(known: &Known, context: &Context, parts: &[String]) -> Result<Typed, SqlError> {
    let stream = named_stream(known, context, parts)?;
    if matches!(stream.source.as_deref(), Ok(Relation::View(_))) {
        return Err(SqlError::compilation("091920", "0A000", "function not supported for streams on views"));
    }
    Ok(Typed::solid(
        format!("{}::numeric", literal(&stream.seen_ns.to_string())),
        Type::Fixed { precision: 38, scale: 0 },
    ))
}

/// The stream of that name.
pub(super) fn named_stream<'k>(known: &'k Known, context: &Context, parts: &[String]) -> Result<&'k Stream, SqlError> {
    match known.get(context, parts)? {
        Relation::Stream(stream) => Ok(stream),
        Relation::Table(table) => Err(SqlError::missing("Stream", &table.name)),
        Relation::View(view) => Err(SqlError::missing("Stream", &view.name)),
    }
}

/// Returns CHANGES between two moments, each an expression of type `pg_snapshot`.
pub(super) fn between(table: &Table, from: &str, until: Option<&str>, append_only: bool) -> (String, Vec<Column>) {
    let end =
        until.map_or_else(|| "true".to_owned(), |until| format!("pg_visible_in_snapshot(\"$xid\", (select {until}))"));
    let window = format!(
        "\"$xid\" >= (select pg_snapshot_xmin({from})) and not pg_visible_in_snapshot(\"$xid\", (select {from})) and {end}"
    );
    let sql = if append_only {
        initial(table, &format!("(select * from {} where \"$operation\" = 'I' and {window})", table.log()))
    } else {
        net_changes_in(table, &window)
    };
    (format!("({sql})"), with_metadata(&table.columns))
}
