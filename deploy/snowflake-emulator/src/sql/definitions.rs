//! DDL: databases, schemas, tables, views, streams, tasks, warehouses.

use sqlparser::ast::{self, ColumnOption, Statement, TableConstraint};
use sqlparser::tokenizer::Token;
use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::bind::{self, Binder, Known};
use super::catalog::{self, Relation, ViewDefinition};
use super::cursor::Cursor;
use super::error::SqlError;
use super::names::{self, FullName, fold, printed, quoted};
use super::parse::{self, Piece};
use super::sessions::Session;
use super::types::{Column, Type};
use crate::results::ResultSet;

/// Runs a DDL statement.
///
/// # Errors
/// Snowflake's error; 001003 for what this emulator does not know.
pub async fn run(session: &mut Session, piece: &Piece) -> Result<ResultSet, SqlError> {
    let mut cursor = Cursor::new(&piece.tokens);
    if cursor.take("create") {
        return create(session, piece, cursor).await;
    }
    if cursor.take("drop") {
        return drop(session, cursor).await;
    }
    if cursor.take("truncate") {
        return truncate(session, cursor).await;
    }
    if cursor.take("alter") {
        return alter(session, piece, cursor).await;
    }
    if cursor.take("comment") {
        return comment(session, cursor).await;
    }
    Err(match parse::statement(&piece.tokens) {
        Ok(known) => SqlError::unsupported(known),
        Err(error) => error,
    })
}

/// What CREATE begins with.
#[derive(Debug, Clone, Copy, Default)]
struct Prefix {
    or_replace: bool,
    transient: bool,
    if_not_exists: bool,
}

async fn create(session: &mut Session, piece: &Piece, mut cursor: Cursor<'_>) -> Result<ResultSet, SqlError> {
    let mut prefix = Prefix { or_replace: cursor.take("or replace"), ..Prefix::default() };
    let transient = cursor.take("transient");
    prefix.transient = transient;
    if cursor.take("stream") {
        prefix.if_not_exists = cursor.take("if not exists");
        return create_stream(session, prefix, cursor).await;
    }
    if cursor.take("database") {
        prefix.if_not_exists = cursor.take("if not exists");
        return create_database(session, prefix, cursor).await;
    }
    if cursor.take("schema") {
        prefix.if_not_exists = cursor.take("if not exists");
        return create_schema(session, prefix, cursor).await;
    }
    if cursor.take("warehouse") {
        prefix.if_not_exists = cursor.take("if not exists");
        return create_warehouse(session, prefix, cursor).await;
    }
    if cursor.take("task") {
        prefix.if_not_exists = cursor.take("if not exists");
        return create_task(session, prefix, piece, cursor).await;
    }
    match parse::statement(&piece.tokens)? {
        Statement::CreateTable(table) => create_table(session, &table).await,
        Statement::CreateView(view) => create_view(session, &view, piece).await,
        other => Err(SqlError::unsupported(other)),
    }
}

/// Whether the statement must stop here because the name is taken; OR REPLACE drops what has it.
async fn make_room(
    session: &mut Session,
    kind: &str,
    name: &FullName,
    prefix: Prefix,
) -> Result<Option<ResultSet>, SqlError> {
    catalog::require_schema(session.connection(), name).await?;
    let id = session.id;
    let Some((object, has)) = catalog::object(session.connection(), name, id).await? else { return Ok(None) };
    if prefix.if_not_exists {
        return session
            .status(&format!("{} already exists, statement succeeded.", printed(&name.name)))
            .await
            .map(Some);
    }
    if !prefix.or_replace {
        return Err(SqlError::exists(&name.to_string()));
    }
    if has != kind {
        return Err(SqlError::compilation("002002", "42710", format!("Object '{name}' already exists as {has}")));
    }
    drop_object(session.connection(), object, &has).await?;
    Ok(None)
}

/// Only one session at a time makes an object of one name.
async fn lock_name(session: &mut Session, name: &FullName) -> Result<(), SqlError> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(name.to_string())
        .execute(session.connection())
        .await?;
    Ok(())
}

async fn create_table(session: &mut Session, table: &ast::CreateTable) -> Result<ResultSet, SqlError> {
    refuse_table_extras(table)?;
    let name = session.around.context.complete(&names::parts(&table.name)?)?;
    let prefix =
        Prefix { or_replace: table.or_replace, transient: table.transient, if_not_exists: table.if_not_exists };
    if !table.temporary {
        lock_name(session, &name).await?;
    }
    // A temporary table hides a permanent one of its name.
    let id = session.id;
    let hides = table.temporary && !catalog::is_of_session(session.connection(), &name, id).await?;
    if hides {
        catalog::require_schema(session.connection(), &name).await?;
    } else if let Some(stop) = make_room(session, "TABLE", &name, prefix).await? {
        return Ok(stop);
    }
    let bound = match &table.query {
        Some(query) => {
            let known = session.consume(query.as_ref()).await?;
            Some(Binder::new(&known, &session.around, session.stream_end()).query(query)?)
        }
        None => None,
    };
    let columns = match (&bound, &table.like) {
        (Some(bound), _) => columns_of_query(table, &bound.columns)?,
        (None, Some(ast::CreateTableLikeKind::Plain(like))) => columns_like(session, &like.name).await?,
        (None, None) => columns_of_definition(table)?,
        (None, Some(other)) => return Err(SqlError::unsupported(format!("{other:?}"))),
    };
    let id = add_table(session, &name, table, &columns).await?;
    if let Some(bound) = bound {
        let cells = bound.columns.iter().zip(&columns).enumerate().map(|(at, (from, to))| {
            bind::cast(&bind::Typed::new(format!("q.c{}", at + 1), from.ty), to.column.ty, &session.around.zone)
        });
        let cells = cells.collect::<Result<Vec<_>, _>>()?.join(", ");
        let list = columns.iter().map(|made| quoted(&made.column.name)).collect::<Vec<_>>().join(", ");
        catalog::run(
            session.connection(),
            format!("insert into snow.t{id} ({list}) select {cells} from ({}) q", bound.sql),
        )
        .await?;
    }
    session.status(&format!("Table {} successfully created.", printed(&name.name))).await
}

fn refuse_table_extras(table: &ast::CreateTable) -> Result<(), SqlError> {
    let kinds = table.external || table.iceberg || table.dynamic || table.volatile || table.snapshot;
    let other = table.clone.is_some() || table.version.is_some() || table.with_row_access_policy.is_some();
    if kinds || other || table.inherits.is_some() || table.partition_by.is_some() {
        return Err(SqlError::unsupported(table));
    }
    Ok(())
}

/// A column about to be made.
struct NewColumn {
    column: Column,
    default: Option<String>,
    comment: Option<String>,
    key_position: Option<i32>,
    identity: bool,
}

impl NewColumn {
    fn plain(column: Column) -> Self {
        Self { column, default: None, comment: None, key_position: None, identity: false }
    }
}

fn columns_of_query(table: &ast::CreateTable, found: &[Column]) -> Result<Vec<NewColumn>, SqlError> {
    let named: Vec<NewColumn> = table.columns.iter().map(new_column).collect::<Result<_, _>>()?;
    if !named.is_empty() && named.len() != found.len() {
        return Err(SqlError::compilation("002025", "42601", "the column list and the query have different lengths"));
    }
    let columns: Vec<NewColumn> =
        if named.is_empty() { found.iter().cloned().map(NewColumn::plain).collect() } else { named };
    refuse_doubles(&columns)?;
    Ok(columns)
}

fn refuse_doubles(columns: &[NewColumn]) -> Result<(), SqlError> {
    for (at, made) in columns.iter().enumerate() {
        if columns[..at].iter().any(|before| before.column.name == made.column.name) {
            return Err(SqlError::compilation(
                "002025",
                "42S21",
                format!("duplicate column name '{}'", made.column.name),
            ));
        }
        if made.column.name.len() > 63 {
            return Err(SqlError::unsupported(format!("a column name of {} bytes", made.column.name.len())));
        }
    }
    Ok(())
}

fn columns_of_definition(table: &ast::CreateTable) -> Result<Vec<NewColumn>, SqlError> {
    let mut columns: Vec<NewColumn> = table.columns.iter().map(new_column).collect::<Result<_, _>>()?;
    for constraint in &table.constraints {
        match constraint {
            TableConstraint::PrimaryKey(key) => {
                for (at, part) in key.columns.iter().enumerate() {
                    let name = part.column.expr.to_string();
                    let name = names::parse(&name)?.concat();
                    let column = columns
                        .iter_mut()
                        .find(|made| made.column.name == name)
                        .ok_or_else(|| SqlError::identifier(&name))?;
                    column.key_position = Some(at as i32 + 1);
                    column.column.nullable = false;
                }
            }
            // Declared, never enforced: so it is in Snowflake.
            TableConstraint::Unique(_) | TableConstraint::ForeignKey(_) => {}
            other => return Err(SqlError::unsupported(other)),
        }
    }
    if columns.is_empty() {
        return Err(SqlError::syntax("unexpected end: a table needs columns"));
    }
    refuse_doubles(&columns)?;
    Ok(columns)
}

async fn columns_like(session: &mut Session, like: &ast::ObjectName) -> Result<Vec<NewColumn>, SqlError> {
    let (context, id) = (session.around.context.clone(), session.id);
    match catalog::relation(session.connection(), &context, &names::parts(like)?, id).await? {
        Relation::Table(table) => Ok(table.columns.into_iter().map(NewColumn::plain).collect()),
        Relation::View(_) | Relation::Stream(_) => Err(SqlError::unsupported("LIKE a view")),
    }
}

fn new_column(written: &ast::ColumnDef) -> Result<NewColumn, SqlError> {
    let mut made = NewColumn::plain(Column::new(&fold(&written.name), Type::parse(&written.data_type)?));
    for option in &written.options {
        match &option.option {
            ColumnOption::Null => {}
            ColumnOption::NotNull => made.column.nullable = false,
            ColumnOption::Default(value) => made.default = Some(value.to_string()),
            ColumnOption::PrimaryKey(_) => {
                made.key_position = Some(1);
                made.column.nullable = false;
            }
            ColumnOption::Unique(_) | ColumnOption::ForeignKey(_) => {}
            ColumnOption::Comment(text) => made.comment = Some(text.clone()),
            ColumnOption::Identity(_) => made.identity = true,
            other => return Err(SqlError::unsupported(other)),
        }
    }
    Ok(made)
}

async fn add_table(
    session: &mut Session,
    name: &FullName,
    table: &ast::CreateTable,
    columns: &[NewColumn],
) -> Result<i64, SqlError> {
    let comment = table.comment.as_ref().map_or(String::new(), |comment| match comment {
        ast::CommentDef::WithEq(text) | ast::CommentDef::WithoutEq(text) => text.clone(),
    });
    let now = session.clock.now_ms();
    // A temporary table must not meet a permanent one in the unique index, so its session goes in at once.
    let owner = table.temporary.then_some(session.id);
    let id: i64 = sqlx::query_scalar(
        "insert into emulator.object (kind, database, schema, name, created_ms, comment, transient, session, retention_days)
         values ('TABLE', $1, $2, $3, $4, $5, $6, $7, $8)
         returning id",
    )
    .bind(&name.database)
    .bind(&name.schema)
    .bind(&name.name)
    .bind(now)
    .bind(comment)
    .bind(table.transient)
    .bind(owner)
    .bind(table.data_retention_time_in_days.map_or(1, |days| days as i64))
    .fetch_one(session.connection())
    .await?;
    if owner.is_some() {
        session.note_temporary();
    }
    for (at, made) in columns.iter().enumerate() {
        add_column_row(session.connection(), id, at as i32 + 1, made).await?;
    }
    let list = columns.iter().map(|made| column_sql(id, made)).collect::<Vec<_>>().join(", ");
    for made in columns.iter().filter(|made| made.identity) {
        catalog::run(session.connection(), format!("create sequence {}", sequence(id, &made.column.name))).await?;
    }
    catalog::run(
        session.connection(),
        format!("create table snow.t{id} ({list}, \"$rid\" bigint not null default nextval('emulator.row_id'))"),
    )
    .await?;
    if table.change_tracking == Some(true) {
        track(session.connection(), id).await?;
    }
    Ok(id)
}

fn sequence(id: i64, column: &str) -> String {
    format!("snow.{}", quoted(&format!("s{id}_{column}")))
}

fn column_sql(id: i64, made: &NewColumn) -> String {
    let null = if made.column.nullable { "" } else { " not null" };
    let default = if made.identity {
        format!(" default nextval({})", names::literal(&sequence(id, &made.column.name)))
    } else {
        String::new()
    };
    format!("{} {}{null}{default}", quoted(&made.column.name), made.column.ty.storage())
}

async fn add_column_row(
    connection: &mut PgConnection,
    id: i64,
    ordinal: i32,
    made: &NewColumn,
) -> Result<(), SqlError> {
    sqlx::query(
        "insert into emulator.column (object_id, ordinal, name, type, nullable, default_sql, comment, key_position)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(id)
    .bind(ordinal)
    .bind(&made.column.name)
    .bind(Json(made.column.ty))
    .bind(made.column.nullable)
    .bind(if made.identity { Some("IDENTITY START 1 INCREMENT 1") } else { made.default.as_deref() })
    .bind(&made.comment)
    .bind(made.key_position)
    .execute(connection)
    .await?;
    Ok(())
}

async fn create_view(session: &mut Session, view: &ast::CreateView, piece: &Piece) -> Result<ResultSet, SqlError> {
    if view.materialized || view.or_alter || view.to.is_some() || view.temporary {
        return Err(SqlError::unsupported(view));
    }
    let name = session.around.context.complete(&names::parts(&view.name)?)?;
    let prefix = Prefix { or_replace: view.or_replace, if_not_exists: view.if_not_exists, transient: false };
    lock_name(session, &name).await?;
    if let Some(stop) = make_room(session, "VIEW", &name, prefix).await? {
        return Ok(stop);
    }
    let (context, id) = (session.around.context.clone(), session.id);
    let known = Known::fetch(session.connection(), &context, id, view.query.as_ref()).await?;
    let bound = Binder::new(&known, &session.around, None).query(&view.query)?;
    let mut columns = bound.columns;
    if !view.columns.is_empty() {
        if view.columns.len() != columns.len() {
            return Err(SqlError::compilation(
                "002026",
                "42601",
                "the column list and the view's query have different lengths",
            ));
        }
        for (column, given) in columns.iter_mut().zip(&view.columns) {
            column.name = fold(&given.name);
        }
    }
    let definition = ViewDefinition {
        columns: columns.iter().map(|column| column.name.clone()).collect(),
        query: view.query.to_string(),
        database: Some(name.database.clone()),
        schema: Some(name.schema.clone()),
        text: piece.text.clone(),
    };
    let text =
        serde_json::to_string(&definition).map_err(|error| SqlError::new("000603", "XX000", error.to_string()))?;
    let now = session.clock.now_ms();
    let made: Vec<NewColumn> = columns.into_iter().map(NewColumn::plain).collect();
    refuse_doubles(&made)?;
    let object =
        catalog::add_object(session.connection(), "VIEW", &name, now, view.comment.as_deref().unwrap_or(""), &text)
            .await?;
    for (at, column) in made.iter().enumerate() {
        add_column_row(session.connection(), object, at as i32 + 1, column).await?;
    }
    session.status(&format!("View {} successfully created.", printed(&name.name))).await
}

async fn create_database(session: &mut Session, prefix: Prefix, mut cursor: Cursor<'_>) -> Result<ResultSet, SqlError> {
    let name = cursor.word()?;
    let comment = options(&mut cursor)?.comment;
    if catalog::database_exists(session.connection(), &name).await? {
        if prefix.if_not_exists {
            return session.status(&format!("{} already exists, statement succeeded.", printed(&name))).await;
        }
        if !prefix.or_replace {
            return Err(SqlError::exists(&printed(&name)));
        }
        drop_in(session.connection(), &name, None).await?;
        sqlx::query("delete from emulator.database where name = $1").bind(&name).execute(session.connection()).await?;
    }
    let now = session.clock.now_ms();
    add_database(session.connection(), &name, now, &comment).await?;
    session.status(&format!("Database {} successfully created.", printed(&name))).await
}

/// Makes a database with its schema PUBLIC.
///
/// # Errors
/// 002002 when there is one of that name.
pub async fn add_database(
    connection: &mut PgConnection,
    name: &str,
    now_ms: i64,
    comment: &str,
) -> Result<(), SqlError> {
    sqlx::query("insert into emulator.database (name, created_ms, comment) values ($1, $2, $3)")
        .bind(name)
        .bind(now_ms)
        .bind(comment)
        .execute(&mut *connection)
        .await?;
    sqlx::query("insert into emulator.schema (database, name, created_ms) values ($1, 'PUBLIC', $2)")
        .bind(name)
        .bind(now_ms)
        .execute(connection)
        .await?;
    Ok(())
}

async fn create_schema(session: &mut Session, prefix: Prefix, mut cursor: Cursor<'_>) -> Result<ResultSet, SqlError> {
    let (database, name) = session.around.context.complete_schema(&cursor.name()?)?;
    let comment = options(&mut cursor)?.comment;
    if !catalog::database_exists(session.connection(), &database).await? {
        return Err(SqlError::missing("Database", printed(&database)));
    }
    if catalog::schema_exists(session.connection(), &database, &name).await? {
        if prefix.if_not_exists {
            return session.status(&format!("{} already exists, statement succeeded.", printed(&name))).await;
        }
        if !prefix.or_replace {
            return Err(SqlError::exists(&printed(&name)));
        }
        drop_in(session.connection(), &database, Some(&name)).await?;
        sqlx::query("delete from emulator.schema where database = $1 and name = $2")
            .bind(&database)
            .bind(&name)
            .execute(session.connection())
            .await?;
    }
    let now = session.clock.now_ms();
    sqlx::query("insert into emulator.schema (database, name, created_ms, comment) values ($1, $2, $3, $4)")
        .bind(&database)
        .bind(&name)
        .bind(now)
        .bind(comment)
        .execute(session.connection())
        .await?;
    session.status(&format!("Schema {} successfully created.", printed(&name))).await
}

async fn create_warehouse(
    session: &mut Session,
    prefix: Prefix,
    mut cursor: Cursor<'_>,
) -> Result<ResultSet, SqlError> {
    let name = cursor.word()?;
    let _ = cursor.take("with");
    let options = options(&mut cursor)?;
    let now = session.clock.now_ms();
    let made = sqlx::query(
        "insert into emulator.warehouse (name, size, auto_suspend_s, created_ms)
         values ($1, $2, $3, $4)
         on conflict do nothing",
    )
    .bind(&name)
    .bind(options.size)
    .bind(options.auto_suspend_s)
    .bind(now)
    .execute(session.connection())
    .await?;
    if made.rows_affected() == 0 && !prefix.if_not_exists && !prefix.or_replace {
        return Err(SqlError::exists(&printed(&name)));
    }
    session.status(&format!("Warehouse {} successfully created.", printed(&name))).await
}

/// `NAME = value` pairs after a CREATE.
struct Options {
    comment: String,
    size: String,
    auto_suspend_s: i64,
    append_only: bool,
    show_initial_rows: bool,
}

fn options(cursor: &mut Cursor<'_>) -> Result<Options, SqlError> {
    let mut found = Options {
        comment: String::new(),
        size: "X-Small".into(),
        auto_suspend_s: 600,
        append_only: false,
        show_initial_rows: false,
    };
    while !cursor.is_done() {
        if cursor.mark(&Token::Comma) {
            continue;
        }
        let mut ahead = cursor.clone();
        let name = ahead.word()?;
        ahead.expect_mark(&Token::Eq)?;
        match name.as_str() {
            "COMMENT" => found.comment = ahead.string()?,
            "APPEND_ONLY" => found.append_only = ahead.boolean()?,
            "SHOW_INITIAL_ROWS" => found.show_initial_rows = ahead.boolean()?,
            "DATA_RETENTION_TIME_IN_DAYS"
            | "MAX_DATA_EXTENSION_TIME_IN_DAYS"
            | "MIN_CLUSTER_COUNT"
            | "MAX_CLUSTER_COUNT" => {
                ahead.number()?;
            }
            "WAREHOUSE_SIZE" => found.size = ahead.string().or_else(|_| ahead.word())?,
            "AUTO_SUSPEND" => found.auto_suspend_s = ahead.number()? as i64,
            "AUTO_RESUME" | "INITIALLY_SUSPENDED" => {
                ahead.boolean()?;
            }
            _ => return Err(cursor.unexpected()),
        }
        *cursor = ahead;
    }
    Ok(found)
}

async fn create_stream(session: &mut Session, prefix: Prefix, mut cursor: Cursor<'_>) -> Result<ResultSet, SqlError> {
    if prefix.transient {
        return Err(cursor.unexpected());
    }
    let name = session.around.context.complete(&cursor.name()?)?;
    let _ = cursor.take("copy grants");
    cursor.expect("on")?;
    let source_kind = ["table", "view", "dynamic table"].into_iter().find(|kind| cursor.take(kind));
    let source_kind = source_kind.ok_or_else(|| cursor.unexpected())?;
    let source_parts = cursor.name()?;
    let from = stream_origin(&mut cursor)?;
    let options = options(&mut cursor)?;
    let (context, id) = (session.around.context.clone(), session.id);
    // The old offset is read before OR REPLACE drops the stream that has it.
    let origin = match from {
        Some(parts) => match catalog::relation(session.connection(), &context, &parts, id).await? {
            Relation::Stream(stream) => Some(stream),
            Relation::Table(_) | Relation::View(_) => return Err(SqlError::missing("Stream", parts.join("."))),
        },
        None => None,
    };
    lock_name(session, &name).await?;
    if let Some(stop) = make_room(session, "STREAM", &name, prefix).await? {
        return Ok(stop);
    }
    let source = catalog::relation(session.connection(), &context, &source_parts, id).await?;
    let (source_id, source_name) = match (&source, source_kind) {
        (Relation::Table(table), "table") => (table.id, &table.name),
        (Relation::View(view), "view") => (view.id, &view.name),
        (Relation::Table(Table { name, .. }), kind) | (Relation::View(catalog::View { name, .. }), kind) => {
            return Err(SqlError::missing(
                if kind == "table" {
                    "Table"
                } else if kind == "view" {
                    "View"
                } else {
                    "Dynamic Table"
                },
                name,
            ));
        }
        (Relation::Stream(_), _) => return Err(SqlError::unsupported("a stream on a stream")),
    };
    track_below(session, &source).await?;
    let now = session.clock.now_ms();
    let object = catalog::add_object(session.connection(), "STREAM", &name, now, &options.comment, "").await?;
    let now_ns = session.clock.now_ns().to_string();
    sqlx::query(
        "insert into emulator.stream (object_id, source_id, source_name, mode, seen, seen_ns, initial)
         values ($1, $2, $3, $4, coalesce($5::pg_snapshot, pg_current_snapshot()), $6::numeric, $7)",
    )
    .bind(object)
    .bind(source_id)
    .bind(source_name.to_string())
    .bind(if options.append_only { "APPEND_ONLY" } else { "DEFAULT" })
    .bind(origin.as_ref().map(|stream| stream.seen.clone()))
    .bind(origin.as_ref().map_or(now_ns, |stream| stream.seen_ns.to_string()))
    .bind(options.show_initial_rows)
    .execute(session.connection())
    .await?;
    check_view_source(session, &name).await?;
    session.status(&format!("Stream {} successfully created.", printed(&name.name))).await
}

use super::catalog::Table;

/// `AT (STREAM => 's')`: the stream whose offset is taken over.
fn stream_origin(cursor: &mut Cursor<'_>) -> Result<Option<Vec<String>>, SqlError> {
    if !cursor.take("at") && !cursor.take("before") {
        return Ok(None);
    }
    cursor.expect_mark(&Token::LParen)?;
    cursor.expect("stream")?;
    cursor.expect_mark(&Token::RArrow)?;
    let parts = names::parse(&cursor.string()?)?;
    cursor.expect_mark(&Token::RParen)?;
    Ok(Some(parts))
}

/// Switches change tracking on for every table below a stream's source.
async fn track_below(session: &mut Session, source: &Relation) -> Result<(), SqlError> {
    let mut waiting = vec![source.clone()];
    while let Some(relation) = waiting.pop() {
        match relation {
            Relation::Table(table) if !table.tracked => track(session.connection(), table.id).await?,
            Relation::Table(_) => {}
            Relation::Stream(_) => return Err(SqlError::unsupported("a stream on a stream")),
            Relation::View(view) => {
                let mut found = Vec::new();
                let _ = ast::visit_relations(view.query.as_ref(), |name| {
                    found.push(name.clone());
                    std::ops::ControlFlow::<()>::Continue(())
                });
                for name in found {
                    let id = session.id;
                    waiting
                        .push(catalog::relation(session.connection(), &view.context, &names::parts(&name)?, id).await?);
                }
            }
        }
    }
    Ok(())
}

/// Refuses a stream on a view that streams cannot follow, by binding a read of it.
async fn check_view_source(session: &mut Session, name: &FullName) -> Result<(), SqlError> {
    let query = parse::query(&format!(
        "select * from {}.{}.{}",
        quoted(&name.database),
        quoted(&name.schema),
        quoted(&name.name)
    ))?;
    let (context, id) = (session.around.context.clone(), session.id);
    let known = Known::fetch(session.connection(), &context, id, query.as_ref()).await?;
    Binder::new(&known, &session.around, session.stream_end()).query(&query)?;
    Ok(())
}

/// Starts the change log of a table.
///
/// # Errors
/// What Postgres answers.
pub async fn track(connection: &mut PgConnection, id: i64) -> Result<(), SqlError> {
    let columns = catalog::columns(connection, id).await?;
    let list: String =
        columns.iter().map(|column| format!("{} {}, ", quoted(&column.name), column.ty.storage())).collect();
    catalog::run(
        connection,
        format!(
            "create table snow.l{id} ({list}\"$rid\" bigint not null, \
             \"$seq\" bigint not null default nextval('emulator.change_seq'), \
             \"$xid\" xid8 not null default pg_current_xact_id(), \"$operation\" \"char\" not null, \"$image\" \"char\" not null)"
        ),
    )
    .await?;
    catalog::run(connection, format!("create index on snow.l{id} (\"$xid\")")).await?;
    write_log_function(connection, id, &columns).await?;
    for (event, tables) in
        [("insert", "new table as n"), ("update", "old table as o new table as n"), ("delete", "old table as o")]
    {
        catalog::run(
            connection,
            format!("create trigger {event}_logged after {event} on snow.t{id} referencing {tables} for each statement execute function snow.f{id}()"),
        )
        .await?;
    }
    sqlx::query("update emulator.object set tracked = true where id = $1").bind(id).execute(connection).await?;
    Ok(())
}

async fn write_log_function(connection: &mut PgConnection, id: i64, columns: &[Column]) -> Result<(), SqlError> {
    let list: String = columns.iter().map(|column| format!("{}, ", quoted(&column.name))).collect();
    let log = |from: &str, operation: char, image: char| {
        format!(
            "insert into snow.l{id} ({list}\"$rid\", \"$operation\", \"$image\") select {list}\"$rid\", '{operation}', '{image}' from {from};"
        )
    };
    catalog::run(
        connection,
        format!(
            "create or replace function snow.f{id}() returns trigger language plpgsql as $f$ begin \
             if tg_op = 'INSERT' then {} elsif tg_op = 'DELETE' then {} else {} {} end if; return null; end $f$",
            log("n", 'I', 'A'),
            log("o", 'D', 'B'),
            log("o", 'U', 'B'),
            log("n", 'U', 'A'),
        ),
    )
    .await?;
    Ok(())
}

async fn create_task(
    session: &mut Session,
    prefix: Prefix,
    piece: &Piece,
    mut cursor: Cursor<'_>,
) -> Result<ResultSet, SqlError> {
    let name = session.around.context.complete(&cursor.name()?)?;
    catalog::require_schema(session.connection(), &name).await?;
    if !cursor.rest().iter().any(|token| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case("as"))) {
        return Err(SqlError::syntax("unexpected '<EOF>'."));
    }
    let taken: Option<i64> = sqlx::query_scalar(
        "select id from emulator.object where kind = 'TASK' and database = $1 and schema = $2 and name = $3",
    )
    .bind(&name.database)
    .bind(&name.schema)
    .bind(&name.name)
    .fetch_optional(session.connection())
    .await?;
    if let Some(id) = taken {
        if prefix.if_not_exists {
            return session.status(&format!("{} already exists, statement succeeded.", printed(&name.name))).await;
        }
        if !prefix.or_replace {
            return Err(SqlError::exists(&name.to_string()));
        }
        drop_object(session.connection(), id, "TASK").await?;
    }
    let now = session.clock.now_ms();
    // A task is made suspended. This emulator never runs one, and refuses ALTER TASK … RESUME.
    catalog::add_object(session.connection(), "TASK", &name, now, "", &piece.text).await?;
    session.status(&format!("Task {} successfully created.", printed(&name.name))).await
}

async fn drop(session: &mut Session, mut cursor: Cursor<'_>) -> Result<ResultSet, SqlError> {
    let kind = ["table", "view", "stream", "task", "schema", "database", "warehouse"]
        .into_iter()
        .find(|kind| cursor.take(kind));
    let kind = kind.ok_or_else(|| cursor.unexpected())?;
    let if_exists = cursor.take("if exists");
    let parts = cursor.name()?;
    let _ = cursor.take("cascade") || cursor.take("restrict");
    cursor.end()?;
    let (shown, dropped) = match kind {
        "database" => (parts.concat(), drop_database(session, &parts.concat()).await?),
        "schema" => {
            let (database, name) = session.around.context.complete_schema(&parts)?;
            let dropped = drop_schema(session, &database, &name).await?;
            (name, dropped)
        }
        "warehouse" => {
            let name = parts.concat();
            let done = sqlx::query("delete from emulator.warehouse where name = $1")
                .bind(&name)
                .execute(session.connection())
                .await?;
            (name, done.rows_affected() > 0)
        }
        kind => {
            let name = session.around.context.complete(&parts)?;
            let dropped = drop_named(session, &kind.to_uppercase(), &name, if_exists).await?;
            (name.name, dropped)
        }
    };
    if dropped {
        return session.status(&format!("{} successfully dropped.", printed(&shown))).await;
    }
    if if_exists {
        return session
            .status(&format!("Drop statement executed successfully ({} already dropped).", printed(&shown)))
            .await;
    }
    let kind = format!("{}{}", kind[..1].to_uppercase(), &kind[1..]);
    Err(SqlError::missing(&kind, parts.iter().map(|part| printed(part)).collect::<Vec<_>>().join(".")))
}

async fn drop_named(session: &mut Session, kind: &str, name: &FullName, if_exists: bool) -> Result<bool, SqlError> {
    if !if_exists {
        catalog::require_schema(session.connection(), name).await?;
    }
    let own = session.id;
    let found: Option<i64> = sqlx::query_scalar(
        "select id
         from emulator.object
         where database = $1 and schema = $2 and name = $3 and kind = $4
           and (session is null or session = $5)
         order by session nulls last
         limit 1",
    )
    .bind(&name.database)
    .bind(&name.schema)
    .bind(&name.name)
    .bind(kind)
    .bind(own)
    .fetch_optional(session.connection())
    .await?;
    let Some(id) = found else { return Ok(false) };
    drop_object(session.connection(), id, kind).await?;
    Ok(true)
}

async fn drop_object(connection: &mut PgConnection, id: i64, kind: &str) -> Result<(), SqlError> {
    if kind == "TABLE" {
        catalog::run(connection, format!("drop table snow.t{id}")).await?;
        catalog::run(connection, format!("drop table if exists snow.l{id}")).await?;
        catalog::run(connection, format!("drop function if exists snow.f{id}()")).await?;
        let sequences: Vec<String> = sqlx::query_scalar(
            "select sequencename::text from pg_sequences where schemaname = 'snow' and sequencename like $1",
        )
        .bind(format!("s{id}\\_%"))
        .fetch_all(&mut *connection)
        .await?;
        for name in sequences {
            catalog::run(connection, format!("drop sequence snow.{}", quoted(&name))).await?;
        }
    }
    sqlx::query("delete from emulator.object where id = $1").bind(id).execute(connection).await?;
    Ok(())
}

/// Drops the objects of a database or of one schema.
async fn drop_in(connection: &mut PgConnection, database: &str, schema: Option<&str>) -> Result<(), SqlError> {
    let found: Vec<(i64, String)> = sqlx::query_as(
        "select id, kind from emulator.object where database = $1 and ($2::text is null or schema = $2)",
    )
    .bind(database)
    .bind(schema)
    .fetch_all(&mut *connection)
    .await?;
    for (id, kind) in found {
        drop_object(connection, id, &kind).await?;
    }
    Ok(())
}

async fn drop_database(session: &mut Session, name: &str) -> Result<bool, SqlError> {
    drop_in(session.connection(), name, None).await?;
    let done =
        sqlx::query("delete from emulator.database where name = $1").bind(name).execute(session.connection()).await?;
    Ok(done.rows_affected() > 0)
}

async fn drop_schema(session: &mut Session, database: &str, name: &str) -> Result<bool, SqlError> {
    drop_in(session.connection(), database, Some(name)).await?;
    let done = sqlx::query("delete from emulator.schema where database = $1 and name = $2")
        .bind(database)
        .bind(name)
        .execute(session.connection())
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Drops the temporary tables of a session that ends.
///
/// # Errors
/// What Postgres answers.
pub async fn drop_temporary(connection: &mut PgConnection, session: Uuid) -> Result<(), SqlError> {
    let found: Vec<i64> = sqlx::query_scalar("select id from emulator.object where session = $1")
        .bind(session)
        .fetch_all(&mut *connection)
        .await?;
    for id in found {
        drop_object(connection, id, "TABLE").await?;
    }
    Ok(())
}

/// Drops what sessions of an earlier process left behind.
///
/// # Errors
/// What Postgres answers.
pub async fn drop_all_temporary(connection: &mut PgConnection) -> Result<(), SqlError> {
    let found: Vec<i64> = sqlx::query_scalar("select id from emulator.object where session is not null")
        .fetch_all(&mut *connection)
        .await?;
    for id in found {
        drop_object(connection, id, "TABLE").await?;
    }
    Ok(())
}

async fn truncate(session: &mut Session, mut cursor: Cursor<'_>) -> Result<ResultSet, SqlError> {
    let _ = cursor.take("table");
    let if_exists = cursor.take("if exists");
    let parts = cursor.name()?;
    cursor.end()?;
    let (context, id) = (session.around.context.clone(), session.id);
    match catalog::relation(session.connection(), &context, &parts, id).await {
        Ok(Relation::Table(table)) => {
            // A tracked table's rows are deleted one by one: streams see the deletes.
            let word = if table.tracked { "delete from" } else { "truncate" };
            catalog::run(session.connection(), format!("{word} {}", table.data())).await?;
        }
        Ok(Relation::View(_) | Relation::Stream(_)) => return Err(SqlError::missing("Table", parts.join("."))),
        Err(error) if if_exists && error.code == "002003" => {}
        Err(error) => return Err(error),
    }
    session.status("Statement executed successfully.").await
}

async fn alter(session: &mut Session, piece: &Piece, mut cursor: Cursor<'_>) -> Result<ResultSet, SqlError> {
    if cursor.take("session") {
        return alter_session(session, cursor).await;
    }
    if !cursor.take("table") {
        return Err(SqlError::unsupported(&piece.text));
    }
    let if_exists = cursor.take("if exists");
    let parts = cursor.name()?;
    let (context, id) = (session.around.context.clone(), session.id);
    let table = match catalog::relation(session.connection(), &context, &parts, id).await {
        Ok(Relation::Table(table)) => table,
        Ok(Relation::View(_) | Relation::Stream(_)) => return Err(SqlError::missing("Table", parts.join("."))),
        Err(error) if if_exists && error.code == "002003" => {
            return session.status("Statement executed successfully.").await;
        }
        Err(error) => return Err(error),
    };
    if cursor.take("set") {
        alter_set(session, &table, cursor).await?;
    } else if cursor.take("rename to") {
        let name = context.complete(&cursor.name()?)?;
        cursor.end()?;
        rename_table(session, &table, &name).await?;
    } else {
        alter_columns(session, &table, piece).await?;
    }
    session.status("Statement executed successfully.").await
}

async fn alter_session(session: &mut Session, mut cursor: Cursor<'_>) -> Result<ResultSet, SqlError> {
    cursor.expect("set")?;
    while !cursor.is_done() {
        let name = cursor.word()?;
        cursor.expect_mark(&Token::Eq)?;
        match name.as_str() {
            "TIMEZONE" => session.around.zone = cursor.string()?,
            "QUERY_TAG" => {
                cursor.string()?;
            }
            "LOCK_TIMEOUT" | "STATEMENT_TIMEOUT_IN_SECONDS" => {
                cursor.number()?;
            }
            _ => return Err(SqlError::unsupported(format!("ALTER SESSION SET {name}"))),
        }
        let _ = cursor.mark(&Token::Comma);
    }
    session.status("Statement executed successfully.").await
}

async fn alter_set(session: &mut Session, table: &Table, mut cursor: Cursor<'_>) -> Result<(), SqlError> {
    if cursor.take("change_tracking") {
        cursor.expect_mark(&Token::Eq)?;
        let on = cursor.boolean()?;
        cursor.end()?;
        return match (on, table.tracked) {
            (true, false) => track(session.connection(), table.id).await,
            (true, true) | (false, false) => Ok(()),
            (false, true) => untrack(session.connection(), table.id).await,
        };
    }
    if cursor.take("comment") {
        cursor.expect_mark(&Token::Eq)?;
        let text = cursor.string()?;
        cursor.end()?;
        return set_comment(session, table.id, &text).await;
    }
    if cursor.take("data_retention_time_in_days") {
        cursor.expect_mark(&Token::Eq)?;
        let days = cursor.number()? as i64;
        cursor.end()?;
        sqlx::query("update emulator.object set retention_days = $2 where id = $1")
            .bind(table.id)
            .bind(days)
            .execute(session.connection())
            .await?;
        return Ok(());
    }
    Err(cursor.unexpected())
}

/// Ends the change log; streams on the table become stale.
async fn untrack(connection: &mut PgConnection, id: i64) -> Result<(), SqlError> {
    for event in ["insert", "update", "delete"] {
        catalog::run(connection, format!("drop trigger {event}_logged on snow.t{id}")).await?;
    }
    catalog::run(connection, format!("drop function snow.f{id}()")).await?;
    catalog::run(connection, format!("drop table snow.l{id}")).await?;
    sqlx::query("update emulator.object set tracked = false where id = $1").bind(id).execute(&mut *connection).await?;
    sqlx::query("update emulator.stream set stale = true where source_id = $1").bind(id).execute(connection).await?;
    Ok(())
}

async fn set_comment(session: &mut Session, id: i64, text: &str) -> Result<(), SqlError> {
    sqlx::query("update emulator.object set comment = $2 where id = $1")
        .bind(id)
        .bind(text)
        .execute(session.connection())
        .await?;
    Ok(())
}

async fn rename_table(session: &mut Session, table: &Table, name: &FullName) -> Result<(), SqlError> {
    catalog::require_schema(session.connection(), name).await?;
    let id = session.id;
    if catalog::object(session.connection(), name, id).await?.is_some() {
        return Err(SqlError::exists(&name.to_string()));
    }
    sqlx::query("update emulator.object set database = $2, schema = $3, name = $4 where id = $1")
        .bind(table.id)
        .bind(&name.database)
        .bind(&name.schema)
        .bind(&name.name)
        .execute(session.connection())
        .await?;
    Ok(())
}

async fn alter_columns(session: &mut Session, table: &Table, piece: &Piece) -> Result<(), SqlError> {
    let Statement::AlterTable(altered) = parse::statement(&piece.tokens)? else {
        return Err(SqlError::unsupported(&piece.text));
    };
    for operation in &altered.operations {
        match operation {
            ast::AlterTableOperation::AddColumn { if_not_exists, column_def, .. } => {
                add_column(session, table, column_def, *if_not_exists).await?;
            }
            ast::AlterTableOperation::DropColumn { column_names, if_exists, .. } => {
                for name in column_names {
                    drop_column(session, table, &fold(name), *if_exists).await?;
                }
            }
            ast::AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
                rename_column(session, table, &fold(old_column_name), &fold(new_column_name)).await?;
            }
            other => return Err(SqlError::unsupported(other)),
        }
    }
    if table.tracked {
        let columns = catalog::columns(session.connection(), table.id).await?;
        write_log_function(session.connection(), table.id, &columns).await?;
    }
    Ok(())
}

/// The data table and, when there is one, the change log.
fn tables_of(table: &Table) -> Vec<String> {
    if table.tracked { vec![table.data(), table.log()] } else { vec![table.data()] }
}

async fn add_column(
    session: &mut Session,
    table: &Table,
    written: &ast::ColumnDef,
    if_not_exists: bool,
) -> Result<(), SqlError> {
    let made = new_column(written)?;
    if table.columns.iter().any(|column| column.name == made.column.name) {
        if if_not_exists {
            return Ok(());
        }
        return Err(SqlError::compilation("001430", "42601", format!("column '{}' already exists", made.column.name)));
    }
    let default = match &made.default {
        Some(text) => Some(default_value(session, text, made.column.ty)?),
        None => None,
    };
    for of in tables_of(table) {
        let default = default.as_ref().map_or(String::new(), |sql| format!(" default {sql}"));
        let null = if made.column.nullable || of == table.log() { "" } else { " not null" };
        let name = quoted(&made.column.name);
        catalog::run(
            session.connection(),
            format!("alter table {of} add column {name} {}{default}{null}", made.column.ty.storage()),
        )
        .await?;
    }
    let ordinal: i32 =
        sqlx::query_scalar("select coalesce(max(ordinal), 0) + 1 from emulator.column where object_id = $1")
            .bind(table.id)
            .fetch_one(session.connection())
            .await?;
    add_column_row(session.connection(), table.id, ordinal, &made).await
}

/// Binds a DEFAULT.
///
/// # Errors
/// 001003 for an expression that is not supported.
pub fn default_value(session: &Session, text: &str, ty: Type) -> Result<String, SqlError> {
    let query = parse::query(&format!("select {text}"))?;
    let known = Known::default();
    let mut binder = Binder::new(&known, &session.around, None);
    let bound = binder.query(&query)?;
    let [column] = bound.columns.as_slice() else { return Err(SqlError::unsupported(text)) };
    let value = bind::Typed::new(format!("({})", bound.sql), column.ty);
    // ADD COLUMN wants an expression without a subquery.
    let plain =
        value.sql.strip_prefix("(select ").and_then(|rest| rest.strip_suffix(" as c1)")).map(|sql| format!("({sql})"));
    bind::cast(&bind::Typed { sql: plain.unwrap_or(value.sql), ..value }, ty, &session.around.zone)
}

async fn drop_column(session: &mut Session, table: &Table, name: &str, if_exists: bool) -> Result<(), SqlError> {
    if !table.columns.iter().any(|column| column.name == name) {
        return if if_exists { Ok(()) } else { Err(SqlError::identifier(name)) };
    }
    for of in tables_of(table) {
        catalog::run(session.connection(), format!("alter table {of} drop column {}", quoted(name))).await?;
    }
    sqlx::query("delete from emulator.column where object_id = $1 and name = $2")
        .bind(table.id)
        .bind(name)
        .execute(session.connection())
        .await?;
    Ok(())
}

async fn rename_column(session: &mut Session, table: &Table, old: &str, new: &str) -> Result<(), SqlError> {
    if !table.columns.iter().any(|column| column.name == old) {
        return Err(SqlError::identifier(old));
    }
    for of in tables_of(table) {
        catalog::run(
            session.connection(),
            format!("alter table {of} rename column {} to {}", quoted(old), quoted(new)),
        )
        .await?;
    }
    sqlx::query("update emulator.column set name = $3 where object_id = $1 and name = $2")
        .bind(table.id)
        .bind(old)
        .bind(new)
        .execute(session.connection())
        .await?;
    Ok(())
}

async fn comment(session: &mut Session, mut cursor: Cursor<'_>) -> Result<ResultSet, SqlError> {
    let if_exists = cursor.take("if exists");
    cursor.expect("on")?;
    if !["table", "view", "stream"].into_iter().any(|kind| cursor.take(kind)) {
        return Err(cursor.unexpected());
    }
    let name = session.around.context.complete(&cursor.name()?)?;
    cursor.expect("is")?;
    let text = cursor.string()?;
    cursor.end()?;
    let id = session.id;
    match catalog::object(session.connection(), &name, id).await? {
        Some((object, _)) => set_comment(session, object, &text).await?,
        None if if_exists => {}
        None => return Err(SqlError::missing("Object", &name)),
    }
    session.status("Statement executed successfully.").await
}

/// A table's defaults by column.
///
/// # Errors
/// What Postgres answers.
pub async fn defaults(connection: &mut PgConnection, id: i64) -> Result<Vec<(String, String)>, SqlError> {
    let rows = sqlx::query("select name, default_sql from emulator.column where object_id = $1 and default_sql is not null order by ordinal")
        .bind(id)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
