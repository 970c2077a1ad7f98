//! INSERT, UPDATE, DELETE, MERGE.

use sqlparser::ast::{
    self, AssignmentTarget, FromTable, MergeAction, MergeClauseKind, MergeInsertKind, Statement, TableFactor,
};

use super::bind::{self, Binder, Typed};
use super::catalog::{self, Relation, Table};
use super::definitions;
use super::error::SqlError;
use super::names::{self, quoted};
use super::parse::{self, Piece};
use super::sessions::Session;
use super::types::{Column, Type};
use crate::results::{self, ResultSet, Stats};

/// Runs a DML statement; the answer is one row of counts.
///
/// # Errors
/// Snowflake's error; 001003 for what this emulator does not know.
pub async fn run(session: &mut Session, piece: &Piece) -> Result<ResultSet, SqlError> {
    match parse::statement(&piece.tokens)? {
        Statement::Insert(insert) => self::insert(session, &insert).await,
        Statement::Update(update) => self::update(session, &update).await,
        Statement::Delete(delete) => self::delete(session, &delete).await,
        Statement::Merge(merge) => self::merge(session, &merge).await,
        other => Err(SqlError::unsupported(other)),
    }
}

async fn counts(session: &Session, columns: &[(&str, u64)], stats: Stats) -> ResultSet {
    let row = columns.iter().map(|(_, count)| Some(count.to_string())).collect();
    let number = Type::Fixed { precision: 19, scale: 0 };
    let columns = columns.iter().map(|(name, _)| Column { nullable: false, ..Column::new(name, number) }).collect();
    ResultSet { stats: Some(stats), ..results::small(columns, &[row], session.cut).await }
}

async fn target(session: &mut Session, name: &ast::ObjectName) -> Result<Table, SqlError> {
    let (context, id) = (session.around.context.clone(), session.id);
    let parts = names::parts(name)?;
    match catalog::relation(session.connection(), &context, &parts, id).await? {
        Relation::Table(table) => Ok(table),
        Relation::View(view) => Err(SqlError::missing("Table", &view.name)),
        Relation::Stream(stream) => Err(SqlError::missing("Table", &stream.name)),
    }
}

async fn insert(session: &mut Session, insert: &ast::Insert) -> Result<ResultSet, SqlError> {
    let ast::TableObject::TableName(name) = &insert.table else { return Err(SqlError::unsupported(insert)) };
    let extras = insert.on.is_some()
        || insert.returning.is_some()
        || insert.multi_table_insert_type.is_some()
        || insert.partitioned.is_some();
    if extras || insert.table_alias.is_some() || !insert.assignments.is_empty() {
        return Err(SqlError::unsupported(insert));
    }
    let Some(source) = &insert.source else { return Err(SqlError::unsupported(insert)) };
    let table = target(session, name).await?;
    let known = session.consume(source.as_ref()).await?;
    let bound = Binder::new(&known, &session.around, session.stream_end()).query(source)?;
    let columns = chosen(&table, &insert.columns)?;
    if columns.len() != bound.columns.len() {
        return Err(SqlError::compilation(
            "001757",
            "42601",
            format!(
                "Insert value list does not match column list expecting {} but got {}",
                columns.len(),
                bound.columns.len()
            ),
        ));
    }
    let mut names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
    let mut cells = Vec::new();
    for (at, (from, to)) in bound.columns.iter().zip(&columns).enumerate() {
        cells.push(bind::cast(&Typed::new(format!("q.c{}", at + 1), from.ty), to.ty, &session.around.zone)?);
    }
    for (name, default) in left_out_defaults(session, &table, &columns).await? {
        names.push(quoted(&name));
        cells.push(default);
    }
    if insert.overwrite {
        catalog::run(session.connection(), format!("delete from {}", table.data())).await?;
    }
    let sql = format!(
        "insert into {} ({}) select {} from ({}) q",
        table.data(),
        names.join(", "),
        cells.join(", "),
        bound.sql
    );
    let count = catalog::run(session.connection(), sql).await?;
    let stats = Stats { num_rows_inserted: count, ..Stats::default() };
    Ok(counts(session, &[("number of rows inserted", count)], stats).await)
}

/// The columns an INSERT names, in its order; all when it names none.
fn chosen(table: &Table, written: &[ast::ObjectName]) -> Result<Vec<Column>, SqlError> {
    if written.is_empty() {
        return Ok(table.columns.clone());
    }
    written.iter().map(|name| column(table, &last_part(name)?)).collect()
}

fn column(table: &Table, name: &str) -> Result<Column, SqlError> {
    table.columns.iter().find(|column| column.name == name).cloned().ok_or_else(|| SqlError::identifier(name))
}

fn last_part(name: &ast::ObjectName) -> Result<String, SqlError> {
    Ok(names::parts(name)?.pop().unwrap_or_default())
}

async fn left_out_defaults(
    session: &mut Session,
    table: &Table,
    given: &[Column],
) -> Result<Vec<(String, String)>, SqlError> {
    let mut found = Vec::new();
    for (name, text) in definitions::defaults(session.connection(), table.id).await? {
        // IDENTITY is a default of the Postgres table itself.
        if given.iter().any(|column| column.name == name) || text.starts_with("IDENTITY") {
            continue;
        }
        let sql = definitions::default_value(session, &text, column(table, &name)?.ty)?;
        found.push((name, sql));
    }
    Ok(found)
}

async fn update(session: &mut Session, update: &ast::Update) -> Result<ResultSet, SqlError> {
    let extras =
        update.returning.is_some() || update.or.is_some() || update.limit.is_some() || !update.order_by.is_empty();
    let TableFactor::Table { name, alias, .. } = &update.table.relation else {
        return Err(SqlError::unsupported(update));
    };
    if extras || !update.table.joins.is_empty() {
        return Err(SqlError::unsupported(update));
    }
    let table = target(session, name).await?;
    let known = session.consume(update).await?;
    let mut binder = Binder::new(&known, &session.around, session.stream_end());
    let made = binder.open_target(&table, alias.as_ref())?;
    let from = match &update.from {
        None => String::new(),
        Some(ast::UpdateTableFromKind::AfterSet(tables) | ast::UpdateTableFromKind::BeforeSet(tables)) => {
            format!(" from {}", binder.tables(tables)?)
        }
    };
    let set = assignments(&mut binder, &table, &update.assignments)?;
    let condition = match &update.selection {
        Some(selection) => format!(" where {}", binder.where_condition(selection)?),
        None => String::new(),
    };
    let count = catalog::run(session.connection(), format!("update {made} set {set}{from}{condition}")).await?;
    let stats = Stats { num_rows_updated: count, ..Stats::default() };
    let columns = [("number of rows updated", count), ("number of multi-joined rows updated", 0)];
    Ok(counts(session, &columns, stats).await)
}

fn assignments(binder: &mut Binder<'_>, table: &Table, written: &[ast::Assignment]) -> Result<String, SqlError> {
    let mut set = Vec::new();
    for assignment in written {
        let AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(SqlError::unsupported(assignment));
        };
        let column = column(table, &last_part(name)?)?;
        set.push(format!("{} = {}", quoted(&column.name), binder.value_as(&assignment.value, column.ty)?));
    }
    Ok(set.join(", "))
}

async fn delete(session: &mut Session, delete: &ast::Delete) -> Result<ResultSet, SqlError> {
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let [only] = from.as_slice() else { return Err(SqlError::unsupported(delete)) };
    let TableFactor::Table { name, alias, .. } = &only.relation else { return Err(SqlError::unsupported(delete)) };
    let extras = delete.returning.is_some()
        || delete.limit.is_some()
        || !delete.order_by.is_empty()
        || !delete.tables.is_empty();
    if extras || !only.joins.is_empty() {
        return Err(SqlError::unsupported(delete));
    }
    let table = target(session, name).await?;
    let known = session.consume(delete).await?;
    let mut binder = Binder::new(&known, &session.around, session.stream_end());
    let made = binder.open_target(&table, alias.as_ref())?;
    let using = match &delete.using {
        Some(tables) => format!(" using {}", binder.tables(tables)?),
        None => String::new(),
    };
    let condition = match &delete.selection {
        Some(selection) => format!(" where {}", binder.where_condition(selection)?),
        None => String::new(),
    };
    let count = catalog::run(session.connection(), format!("delete from {made}{using}{condition}")).await?;
    let stats = Stats { num_rows_deleted: count, ..Stats::default() };
    Ok(counts(session, &[("number of rows deleted", count)], stats).await)
}

async fn merge(session: &mut Session, merge: &ast::Merge) -> Result<ResultSet, SqlError> {
    let TableFactor::Table { name, alias, .. } = &merge.table else { return Err(SqlError::unsupported(merge)) };
    let table = target(session, name).await?;
    let known = session.consume(merge).await?;
    let mut binder = Binder::new(&known, &session.around, session.stream_end());
    let made = binder.open_target(&table, alias.as_ref())?;
    let source = binder.tables(&[ast::TableWithJoins { relation: merge.source.clone(), joins: Vec::new() }])?;
    let on = binder.where_condition(&merge.on)?;
    let mut sql = format!("merge into {made} using {source} on {on}");
    for clause in &merge.clauses {
        sql.push_str(&merge_clause(&mut binder, &table, clause)?);
    }
    // Postgres 15 says only how many rows a MERGE touched; the two tallies tell them apart.
    catalog::run(
        session.connection(),
        "select set_config('emulator.inserted', '0', true), set_config('emulator.updated', '0', true)".into(),
    )
    .await?;
    let total = catalog::run(session.connection(), sql).await.map_err(duplicate_row)?;
    let (inserted, updated): (i64, i64) = sqlx::query_as(
        "select current_setting('emulator.inserted')::bigint, current_setting('emulator.updated')::bigint",
    )
    .fetch_one(session.connection())
    .await?;
    let (inserted, updated) = (inserted as u64, updated as u64);
    let stats = Stats {
        num_rows_inserted: inserted,
        num_rows_updated: updated,
        num_rows_deleted: total.saturating_sub(inserted + updated),
        num_duplicate_rows_updated: 0,
    };
    let deleted = stats.num_rows_deleted;
    let has = |wanted: fn(&MergeAction) -> bool| merge.clauses.iter().any(|clause| wanted(&clause.action));
    let mut columns = Vec::new();
    if has(|action| matches!(action, MergeAction::Insert(_))) {
        columns.push(("number of rows inserted", inserted));
    }
    if has(|action| matches!(action, MergeAction::Update(_))) {
        columns.push(("number of rows updated", updated));
    }
    if has(|action| matches!(action, MergeAction::Delete { .. })) {
        columns.push(("number of rows deleted", deleted));
    }
    Ok(counts(session, &columns, stats).await)
}

fn duplicate_row(error: SqlError) -> SqlError {
    if error.code == "090150" {
        return SqlError::new("100090", "42P18", "Duplicate row detected during DML action");
    }
    error
}

fn merge_clause(binder: &mut Binder<'_>, table: &Table, clause: &ast::MergeClause) -> Result<String, SqlError> {
    let mut sql = match clause.clause_kind {
        MergeClauseKind::Matched => " when matched".to_owned(),
        MergeClauseKind::NotMatched | MergeClauseKind::NotMatchedByTarget => " when not matched".to_owned(),
        MergeClauseKind::NotMatchedBySource => return Err(SqlError::unsupported("WHEN NOT MATCHED BY SOURCE")),
    };
    if let Some(predicate) = &clause.predicate {
        sql.push_str(&format!(" and {}", binder.where_condition(predicate)?));
    }
    match &clause.action {
        MergeAction::Delete { .. } => sql.push_str(" then delete"),
        MergeAction::Update(update) => {
            let ast::MergeUpdateKind::Set(written) = &update.kind else {
                return Err(SqlError::unsupported("UPDATE ALL BY NAME"));
            };
            if update.update_predicate.is_some() || update.delete_predicate.is_some() {
                return Err(SqlError::unsupported("MERGE with conditions on the UPDATE"));
            }
            let set = assignments(binder, table, written)?;
            let rid = binder.target_rid();
            sql.push_str(&format!(" then update set {set}, \"$rid\" = emulator.tally('updated', {rid})"));
        }
        MergeAction::Insert(insert) => {
            let MergeInsertKind::Values(values) = &insert.kind else {
                return Err(SqlError::unsupported("INSERT without VALUES"));
            };
            let [row] = values.rows.as_slice() else { return Err(SqlError::unsupported("INSERT of several rows")) };
            let columns = chosen(table, &insert.columns)?;
            if columns.len() != row.content.len() {
                return Err(SqlError::compilation("001757", "42601", "Insert value list does not match column list"));
            }
            let names = columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ");
            let cells = row.content.iter().zip(&columns).map(|(cell, column)| binder.value_as(cell, column.ty));
            let cells = cells.collect::<Result<Vec<_>, _>>()?.join(", ");
            sql.push_str(&format!(
                " then insert ({names}, \"$rid\") values ({cells}, emulator.tally('inserted', nextval('emulator.row_id')))"
            ));
        }
        MergeAction::DoNothing { .. } => return Err(SqlError::unsupported("DO NOTHING")),
    }
    Ok(sql)
}
