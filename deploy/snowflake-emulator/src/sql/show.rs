//! SHOW and DESCRIBE: answered from the catalog, no warehouse needed.

use super::catalog::{self, Relation};
use super::cursor::Cursor;
use super::error::SqlError;
use super::names::{self, literal};
use super::parse::Piece;
use super::sessions::Session;
use super::types::{Column, Type};
use crate::results::{self, ResultSet};

/// Rows of a SHOW without LIMIT, at most.
const SHOW_ROWS_MAX: u64 = 10_000;

/// A column of a SHOW: its name, its type, the Postgres expression of its wire text.
type Listed = (Column, String);

fn text(name: &str, sql: &str) -> Listed {
    (Column::text(name), format!("({sql})::text"))
}

fn time(name: &str, sql: &str) -> Listed {
    (Column::new(name, Type::TimestampLtz), format!("round(({sql})::numeric / 1000, 9)::text"))
}

fn number(name: &str, sql: &str) -> Listed {
    (Column::new(name, Type::Fixed { precision: 38, scale: 0 }), format!("({sql})::text"))
}

/// What follows the kind in SHOW.
#[derive(Default)]
struct Filter {
    like: Option<String>,
    database: Option<String>,
    schema: Option<String>,
    table: Option<Vec<String>>,
    starts_with: Option<String>,
    limit: Option<u64>,
    from: Option<String>,
}

/// Runs a SHOW.
///
/// # Errors
/// 002043 when the named database, schema or table does not exist; 001003 for a SHOW that is not known.
pub async fn show(session: &mut Session, piece: &Piece) -> Result<ResultSet, SqlError> {
    let mut cursor = Cursor::new(&piece.tokens);
    cursor.expect("show")?;
    let _ = cursor.take("terse");
    if cursor.take("grants") {
        return grants(session, cursor).await;
    }
    let kinds = [
        "streams",
        "tables",
        "views",
        "schemas",
        "databases",
        "columns",
        "primary keys",
        "warehouses",
        "objects",
        "tasks",
    ];
    let kind = kinds.into_iter().find(|kind| cursor.take(kind)).ok_or_else(|| SqlError::unsupported(&piece.text))?;
    let _ = cursor.take("history");
    let mut filter = filter(session, &mut cursor, kind)?;
    require_scope(session, &filter).await?;
    if let Some(parts) = filter.table.take() {
        let name = session.around.context.complete(&parts)?;
        let id = session.id;
        if catalog::object(session.connection(), &name, id).await?.is_none() {
            return Err(missing("Table", &name.to_string()));
        }
        (filter.database, filter.schema, filter.table) =
            (Some(name.database), Some(name.schema), Some(vec![name.name]));
    }
    let (columns, from, name, order) = listing(kind);
    let now = session.clock.now_ms();
    let columns: Vec<Listed> =
        columns.into_iter().map(|(column, sql)| (column, sql.replace("{now}", &now.to_string()))).collect();
    let mut conditions = conditions(kind, &filter, name);
    if kind == "columns" || kind == "primary keys" {
        conditions.extend(filter.table.iter().map(|table| format!("o.name = {}", literal(&table[0]))));
    }
    list(session, columns, from, &conditions, order, &filter).await
}

async fn list(
    session: &mut Session,
    columns: Vec<Listed>,
    from: &str,
    conditions: &[String],
    order: &str,
    filter: &Filter,
) -> Result<ResultSet, SqlError> {
    let cells =
        columns.iter().enumerate().map(|(at, (_, sql))| format!("{sql} as c{}", at + 1)).collect::<Vec<_>>().join(", ");
    let limit = filter.limit.unwrap_or(SHOW_ROWS_MAX + 1);
    let sql = format!("select {cells} from {from} where {} order by {order} limit {limit}", conditions.join(" and "));
    let found = session.fetch(sql, columns.into_iter().map(|(column, _)| column).collect()).await?;
    if filter.limit.is_none() && found.row_count as u64 > SHOW_ROWS_MAX {
        return Err(SqlError::new(
            "090153",
            "22000",
            "The result set size exceeded the max number of rows(10000) supported for SHOW statements. Use LIMIT option to limit result set to a smaller number.",
        ));
    }
    Ok(found)
}

fn filter(session: &Session, cursor: &mut Cursor<'_>, kind: &str) -> Result<Filter, SqlError> {
    let context = &session.around.context;
    let mut found = Filter { database: context.database.clone(), schema: context.schema.clone(), ..Filter::default() };
    if cursor.take("like") {
        found.like = Some(cursor.string()?);
    }
    if cursor.take("in") {
        if cursor.take("account") {
            (found.database, found.schema) = (None, None);
        } else if cursor.take("database") || (kind == "schemas" && !cursor.take("schema")) {
            (found.database, found.schema) = (Some(cursor.name()?.concat()), None);
        } else if cursor.take("table") || cursor.take("view") {
            found.table = Some(cursor.name()?);
        } else {
            let said_schema = cursor.take("schema");
            let parts = cursor.name()?;
            if said_schema || parts.len() == 2 {
                let (database, schema) = context.complete_schema(&parts)?;
                (found.database, found.schema) = (Some(database), Some(schema));
            } else if matches!(kind, "columns" | "primary keys") {
                found.table = Some(parts);
            } else {
                (found.database, found.schema) =
                    context.complete_schema(&parts).map(|(database, schema)| (Some(database), Some(schema)))?;
            }
        }
    }
    if cursor.take("starts with") {
        found.starts_with = Some(cursor.string()?);
    }
    if cursor.take("limit") {
        found.limit = Some(cursor.number()?);
        if cursor.take("from") {
            found.from = Some(cursor.string()?);
        }
    }
    cursor.end()?;
    Ok(found)
}

async fn require_scope(session: &mut Session, filter: &Filter) -> Result<(), SqlError> {
    let Some(database) = &filter.database else { return Ok(()) };
    if !catalog::database_exists(session.connection(), database).await? {
        return Err(missing("Database", &names::printed(database)));
    }
    let Some(schema) = &filter.schema else { return Ok(()) };
    if !catalog::schema_exists(session.connection(), database, schema).await? {
        return Err(missing("Schema", &format!("{}.{}", names::printed(database), names::printed(schema))));
    }
    Ok(())
}

/// 002043: SHOW and DESCRIBE of what does not exist.
fn missing(kind: &str, name: &str) -> SqlError {
    SqlError::compilation("002043", "02000", format!("{kind} '{name}' does not exist or not authorized."))
}

fn conditions(kind: &str, filter: &Filter, name: &str) -> Vec<String> {
    let mut found = vec!["true".to_owned()];
    match kind {
        "warehouses" | "databases" => {}
        "schemas" => found.extend(filter.database.iter().map(|database| format!("o.database = {}", literal(database)))),
        _ => {
            found.extend(filter.database.iter().map(|database| format!("o.database = {}", literal(database))));
            found.extend(filter.schema.iter().map(|schema| format!("o.schema = {}", literal(schema))));
        }
    }
    // LIKE of SHOW does not mind case; STARTS WITH does.
    found.extend(filter.like.iter().map(|pattern| format!("{name} ilike {}", literal(pattern))));
    found.extend(filter.starts_with.iter().map(|start| format!("starts_with({name}, {})", literal(start))));
    found.extend(filter.from.iter().map(|from| format!("{name} collate \"C\" > {}", literal(from))));
    found
}

/// Columns, FROM … WHERE, the name that LIKE looks at, the order.
fn listing(kind: &str) -> (Vec<Listed>, &'static str, &'static str, &'static str) {
    match kind {
        "streams" => (
            streams(),
            "emulator.stream s join emulator.object o on o.id = s.object_id left join emulator.object b on b.id = s.source_id",
            "o.name",
            "o.database collate \"C\", o.schema collate \"C\", o.name collate \"C\"",
        ),
        "tables" => (
            tables(),
            "(select * from emulator.object where kind = 'TABLE' and session is null) o",
            "o.name",
            "o.database collate \"C\", o.schema collate \"C\", o.name collate \"C\"",
        ),
        "objects" => (
            objects(),
            "(select * from emulator.object where kind in ('TABLE', 'VIEW') and session is null) o",
            "o.name",
            "o.database collate \"C\", o.schema collate \"C\", o.name collate \"C\"",
        ),
        "tasks" => (
            tasks(),
            "(select * from emulator.object where kind = 'TASK') o",
            "o.name",
            "o.database collate \"C\", o.schema collate \"C\", o.name collate \"C\"",
        ),
        "views" => (
            views(),
            "(select * from emulator.object where kind = 'VIEW') o",
            "o.name",
            "o.database collate \"C\", o.schema collate \"C\", o.name collate \"C\"",
        ),
        "schemas" => (schemas(), "emulator.schema o", "o.name", "o.database collate \"C\", o.name collate \"C\""),
        "databases" => (databases(), "emulator.database o", "o.name", "o.name collate \"C\""),
        "warehouses" => (warehouses(), "emulator.warehouse o", "o.name", "o.name collate \"C\""),
        "columns" => (
            columns(),
            "emulator.column c join emulator.object o on o.id = c.object_id",
            "c.name",
            "o.database collate \"C\", o.schema collate \"C\", o.name collate \"C\", c.ordinal",
        ),
        _ => (
            primary_keys(),
            "emulator.column c join emulator.object o on o.id = c.object_id and c.key_position is not null",
            "c.name",
            "o.database collate \"C\", o.schema collate \"C\", o.name collate \"C\", c.key_position",
        ),
    }
}

/// Days until an unread stream is stale, in milliseconds: MAX_DATA_EXTENSION_TIME_IN_DAYS by default.
const STALE_AFTER_MS: &str = "1209600000";

fn streams() -> Vec<Listed> {
    let stale = format!("s.stale or b.id is null or floor(s.seen_ns / 1000000) + {STALE_AFTER_MS} < {{now}}");
    vec![
        time("created_on", "o.created_ms"),
        text("name", "o.name"),
        text("database_name", "o.database"),
        text("schema_name", "o.schema"),
        text("owner", "'ACCOUNTADMIN'"),
        text("comment", "o.comment"),
        text("table_name", "s.source_name"),
        text("source_type", "case b.kind when 'VIEW' then 'View' else 'Table' end"),
        text("base_tables", "s.source_name"),
        text("type", "'DELTA'"),
        text("stale", &format!("case when {stale} then 'true' else 'false' end")),
        text("mode", "s.mode"),
        time("stale_after", &format!("floor(s.seen_ns / 1000000) + {STALE_AFTER_MS}")),
        text("invalid_reason", "case when b.id is null then 'Base table dropped' else 'N/A' end"),
        text("owner_role_type", "'ROLE'"),
    ]
}

fn tables() -> Vec<Listed> {
    vec![
        time("created_on", "o.created_ms"),
        text("name", "o.name"),
        text("database_name", "o.database"),
        text("schema_name", "o.schema"),
        text("kind", "case when o.transient then 'TRANSIENT' else 'TABLE' end"),
        text("comment", "o.comment"),
        text("cluster_by", "''"),
        number("rows", "emulator.row_count(o.id)"),
        number("bytes", "emulator.byte_count(o.id)"),
        text("owner", "'ACCOUNTADMIN'"),
        text("retention_time", "o.retention_days"),
        text("automatic_clustering", "'OFF'"),
        text("change_tracking", "case when o.tracked then 'ON' else 'OFF' end"),
        text("is_external", "'N'"),
        text("enable_schema_evolution", "'N'"),
        text("owner_role_type", "'ROLE'"),
        text("is_event", "'N'"),
        text("is_hybrid", "'N'"),
        text("is_iceberg", "'N'"),
        text("is_dynamic", "'N'"),
        text("is_immutable", "'N'"),
    ]
}

fn objects() -> Vec<Listed> {
    vec![
        time("created_on", "o.created_ms"),
        text("name", "o.name"),
        text("database_name", "o.database"),
        text("schema_name", "o.schema"),
        text("kind", "case when o.transient then 'TRANSIENT' else o.kind end"),
        text("comment", "o.comment"),
        text("cluster_by", "''"),
        number("rows", "case when o.kind = 'TABLE' then emulator.row_count(o.id) end"),
        number("bytes", "case when o.kind = 'TABLE' then emulator.byte_count(o.id) end"),
        text("owner", "'ACCOUNTADMIN'"),
        text("retention_time", "o.retention_days"),
        text("owner_role_type", "'ROLE'"),
    ]
}

fn tasks() -> Vec<Listed> {
    vec![
        time("created_on", "o.created_ms"),
        text("name", "o.name"),
        text("database_name", "o.database"),
        text("schema_name", "o.schema"),
        text("owner", "'ACCOUNTADMIN'"),
        text("comment", "o.comment"),
        text("state", "'suspended'"),
        text("definition", "o.definition"),
    ]
}

fn views() -> Vec<Listed> {
    vec![
        time("created_on", "o.created_ms"),
        text("name", "o.name"),
        text("reserved", "''"),
        text("database_name", "o.database"),
        text("schema_name", "o.schema"),
        text("owner", "'ACCOUNTADMIN'"),
        text("comment", "o.comment"),
        text("text", "o.definition::jsonb ->> 'text'"),
        text("is_secure", "'false'"),
        text("is_materialized", "'false'"),
        text("owner_role_type", "'ROLE'"),
        text("change_tracking", "'OFF'"),
    ]
}

fn schemas() -> Vec<Listed> {
    vec![
        time("created_on", "o.created_ms"),
        text("name", "o.name"),
        text("is_default", "'N'"),
        text("is_current", "'N'"),
        text("database_name", "o.database"),
        text("owner", "'ACCOUNTADMIN'"),
        text("comment", "o.comment"),
        text("options", "''"),
        text("retention_time", "'1'"),
        text("owner_role_type", "'ROLE'"),
    ]
}

fn databases() -> Vec<Listed> {
    vec![
        time("created_on", "o.created_ms"),
        text("name", "o.name"),
        text("is_default", "'N'"),
        text("is_current", "'N'"),
        text("origin", "''"),
        text("owner", "'ACCOUNTADMIN'"),
        text("comment", "o.comment"),
        text("options", "''"),
        text("retention_time", "'1'"),
        text("kind", "'STANDARD'"),
        text("owner_role_type", "'ROLE'"),
    ]
}

fn warehouses() -> Vec<Listed> {
    vec![
        text("name", "o.name"),
        text("state", "'SUSPENDED'"),
        text("type", "'STANDARD'"),
        text("size", "o.size"),
        number("running", "0"),
        number("queued", "0"),
        text("is_default", "'N'"),
        text("is_current", "'N'"),
        number("auto_suspend", "o.auto_suspend_s"),
        text("auto_resume", "'true'"),
        time("created_on", "o.created_ms"),
        text("owner", "'ACCOUNTADMIN'"),
        text("comment", "''"),
    ]
}

fn columns() -> Vec<Listed> {
    vec![
        text("table_name", "o.name"),
        text("schema_name", "o.schema"),
        text("column_name", "c.name"),
        text("data_type", "emulator.show_type(c.type, c.nullable)"),
        text("null?", "case when c.nullable then 'true' else 'NOT_NULL' end"),
        text("default", "coalesce(c.default_sql, '')"),
        text("kind", "'COLUMN'"),
        text("expression", "''"),
        text("comment", "coalesce(c.comment, '')"),
        text("database_name", "o.database"),
        text("autoincrement", "case when c.default_sql like 'IDENTITY%' then c.default_sql else '' end"),
    ]
}

fn primary_keys() -> Vec<Listed> {
    vec![
        time("created_on", "o.created_ms"),
        text("database_name", "o.database"),
        text("schema_name", "o.schema"),
        text("table_name", "o.name"),
        text("column_name", "c.name"),
        number("key_sequence", "c.key_position"),
        text("constraint_name", "'SYS_CONSTRAINT_' || o.id"),
        text("rely", "'false'"),
        text("comment", "null"),
    ]
}

/// SHOW GRANTS: the one role of this emulator owns everything.
async fn grants(session: &mut Session, mut cursor: Cursor<'_>) -> Result<ResultSet, SqlError> {
    let now = session.clock.now_ms();
    let stamp = Some(format!("{}.{:03}000000", now / 1000, now % 1000));
    let role = session.around.role.clone();
    let some = |text: &str| Some(text.to_owned());
    if cursor.take("to user") || cursor.is_done() {
        let user = if cursor.is_done() { session.around.user.clone() } else { cursor.word()? };
        cursor.end()?;
        let columns = vec![
            Column::new("created_on", Type::TimestampLtz),
            Column::text("role"),
            Column::text("granted_to"),
            Column::text("grantee_name"),
            Column::text("granted_by"),
        ];
        let row = vec![stamp, Some(role), some("USER"), Some(user), some("")];
        return Ok(results::small(columns, &[row], session.cut).await);
    }
    let names =
        ["created_on", "privilege", "granted_on", "name", "granted_to", "grantee_name", "grant_option", "granted_by"];
    let columns: Vec<Column> = names
        .iter()
        .map(|name| if *name == "created_on" { Column::new(name, Type::TimestampLtz) } else { Column::text(name) })
        .collect();
    if cursor.take("on") {
        let kind = cursor.word()?;
        let parts = cursor.name()?;
        cursor.end()?;
        let row = vec![
            stamp,
            some("OWNERSHIP"),
            Some(kind),
            Some(parts.join(".")),
            some("ROLE"),
            some("ACCOUNTADMIN"),
            some("true"),
            some("ACCOUNTADMIN"),
        ];
        return Ok(results::small(columns, &[row], session.cut).await);
    }
    cursor.expect("to role")?;
    let grantee = cursor.word()?;
    cursor.end()?;
    let found: Vec<(String, String)> = sqlx::query_as(
        "select 'DATABASE', name from emulator.database
         union all select 'SCHEMA', database || '.' || name from emulator.schema
         union all select 'WAREHOUSE', name from emulator.warehouse
         union all select kind, database || '.' || schema || '.' || name from emulator.object where session is null
         order by 1, 2",
    )
    .fetch_all(session.connection())
    .await?;
    let rows: Vec<Vec<Option<String>>> = found
        .into_iter()
        .map(|(kind, name)| {
            vec![
                stamp.clone(),
                some("OWNERSHIP"),
                Some(kind),
                Some(name),
                some("ROLE"),
                Some(grantee.clone()),
                some("true"),
                some("ACCOUNTADMIN"),
            ]
        })
        .collect();
    Ok(results::small(columns, &rows, session.cut).await)
}

/// Runs a DESCRIBE.
///
/// # Errors
/// 002043 when the object does not exist; 001003 for a kind that is not known.
pub async fn describe(session: &mut Session, piece: &Piece) -> Result<ResultSet, SqlError> {
    let mut cursor = Cursor::new(&piece.tokens);
    let _ = cursor.take("describe") || cursor.take("desc");
    let kind = ["table", "view", "stream"].into_iter().find(|kind| cursor.take(kind));
    let kind = kind.ok_or_else(|| SqlError::unsupported(&piece.text))?;
    let parts = cursor.name()?;
    cursor.end()?;
    let (context, id) = (session.around.context.clone(), session.id);
    let found = catalog::relation(session.connection(), &context, &parts, id).await.map_err(|error| SqlError {
        code: "002043".into(),
        state: "02000".into(),
        ..error
    })?;
    let object = match (&found, kind) {
        (Relation::Table(table), "table" | "view") => table.id,
        (Relation::View(view), "table" | "view") => view.id,
        (Relation::Stream(stream), "stream") => stream.id,
        _ => {
            return Err(missing(
                &format!("{}{}", kind[..1].to_uppercase(), &kind[1..]),
                &context.complete(&parts)?.to_string(),
            ));
        }
    };
    if kind == "stream" {
        let now = session.clock.now_ms();
        let columns =
            streams().into_iter().map(|(column, sql)| (column, sql.replace("{now}", &now.to_string()))).collect();
        let (_, from, _, order) = listing("streams");
        return list(session, columns, from, &[format!("o.id = {object}")], order, &Filter::default()).await;
    }
    list(
        session,
        described(),
        "emulator.column c",
        &[format!("c.object_id = {object}")],
        "c.ordinal",
        &Filter::default(),
    )
    .await
}

fn described() -> Vec<Listed> {
    vec![
        text("name", "c.name"),
        text("type", "emulator.sql_type(c.type)"),
        text("kind", "'COLUMN'"),
        text("null?", "case when c.nullable then 'Y' else 'N' end"),
        text("default", "c.default_sql"),
        text("primary key", "case when c.key_position is null then 'N' else 'Y' end"),
        text("unique key", "'N'"),
        text("check", "null"),
        text("expression", "null"),
        text("comment", "c.comment"),
        text("policy name", "null"),
        text("privacy domain", "null"),
    ]
}
