//! What a connection reaches: the test, the list, a model's columns, its first rows, its key.

use std::collections::HashSet;

use freshet_core::connector::{
    Catalogue, CatalogueColumn, CatalogueTable, Column, KeyCheck, ModelSpec, Preview, ReadPlan, Row, Schema, Step,
};
use freshet_core::error::{Code, Error, Result};
use futures::TryStreamExt;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgConnection, PgStatement};
use sqlx::{AssertSqlSafe, Column as _, Executor, Row as _, SqlSafeStr, Statement, TypeInfo as _, ValueRef};

use super::session::{Session, failed, is_unread};
use super::settings::TlsMode;
use super::sql::{identifiers, literal, relation};
use super::types::{PgType, SIMPLE};
use crate::formats::json;

/// Tables of a listing, at most.
const TABLES_MAX: usize = 1_000;
/// Bytes of a cell in a preview, at most.
const CELL_BYTES_MAX: usize = 64 * 1024;
/// The oldest server that is supported: `xid8` and `pg_current_snapshot` came with it.
const VERSION_MIN: i32 = 130_000;

/// Tries a connection: address, TLS, login, version, rights, read.
pub(super) async fn check(session: &mut Session) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Err(error) = try_steps(session, &mut steps).await {
        let order = ["address", "tls", "login", "version", "rights", "read"];
        // TLS and login are one call; the error says which of them it was.
        let failed_at = match error.code {
            Code::PostgresUnreachable if steps.is_empty() => "address",
            Code::PostgresTls => "tls",
            Code::PostgresLogin | Code::PostgresUnreachable => "login",
            Code::PostgresVersion => "version",
            Code::PostgresSuperuser => "rights",
            _ => order[steps.len().min(order.len() - 1)],
        };
        for name in order {
            if name == failed_at {
                steps.push(Step::failed(name, &error));
            } else if !steps.iter().any(|step| step.name == name) {
                let after =
                    order.iter().position(|step| *step == failed_at) < order.iter().position(|step| *step == name);
                if after {
                    steps.push(Step::skipped(name, format!("not tried: {failed_at} failed")));
                } else if name == "tls" && session.settings.tls.mode == TlsMode::Disable {
                    steps.push(Step::warning(name, "not encrypted"));
                } else {
                    steps.push(Step::passed(name, "went well"));
                }
            }
        }
    }
    steps
}

async fn try_steps(session: &mut Session, steps: &mut Vec<Step>) -> Result<()> {
    let address = session.reach().await?;
    steps.push(Step::passed("address", format!("{address} answers")));
    let allowed = session.settings.allow_superuser;
    let user = session.settings.user.clone();
    let connection = session.open().await?;
    let tls: Option<(bool, Option<String>)> =
        sqlx::query_as("select ssl, version from pg_stat_ssl where pid = pg_backend_pid()")
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed("cannot read the connection's TLS"))?;
    steps.push(match tls {
        Some((true, version)) => Step::passed("tls", format!("encrypted with {}", version.unwrap_or_default())),
        _ => Step::warning("tls", "not encrypted"),
    });
    steps.push(Step::passed("login", format!("logged in as {user}")));

    let (version, text): (i32, String) =
        sqlx::query_as("select current_setting('server_version_num')::int, current_setting('server_version')")
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("cannot read the server's version"))?;
    if version < VERSION_MIN {
        return Err(Error::new(Code::PostgresVersion, format!("the server is PostgreSQL {text}")));
    }
    steps.push(Step::passed("version", format!("PostgreSQL {text}")));
    steps.push(check_rights(connection, allowed).await?);
    steps.push(check_read(connection).await?);
    Ok(())
}

async fn check_rights(connection: &mut PgConnection, allowed: bool) -> Result<Step> {
    let strong: Vec<String> = sqlx::query_scalar(
        "select 'superuser' from pg_roles where rolname = current_user and rolsuper
         union all
         select rolname from pg_roles
         where rolname in ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
           and not exists (select 1 from pg_roles where rolname = current_user and rolsuper)
           and pg_has_role(current_user, oid, 'member')",
    )
    .fetch_all(connection)
    .await
    .map_err(failed("cannot read the login's rights"))?;
    let told = format!("the login is {}", strong.join(", "));
    match (strong.is_empty(), allowed) {
        (true, _) => Ok(Step::passed("rights", "the login cannot run programs or read the server's files")),
        (false, true) => Ok(Step::warning("rights", told)),
        (false, false) => Err(Error::new(Code::PostgresSuperuser, told)),
    }
}

async fn check_read(connection: &mut PgConnection) -> Result<Step> {
    let tables: i64 = sqlx::query_scalar(
        "select count(*)
         from pg_class as c
         join pg_namespace as n on n.oid = c.relnamespace
         where c.relkind in ('r', 'p', 'v', 'm', 'f')
           and n.nspname not in ('pg_catalog', 'information_schema')
           and n.nspname not like 'pg\\_%'
           and has_schema_privilege(n.oid, 'usage')
           and has_table_privilege(c.oid, 'select')",
    )
    .fetch_one(connection)
    .await
    .map_err(failed("cannot list tables"))?;
    if tables == 0 {
        return Err(Error::new(Code::PostgresPrivilege, "the login can read no table of this database"));
    }
    Ok(Step::passed("read", format!("{tables} tables and views can be read")))
}

type TableRow = (String, String, String, Vec<String>, Option<i64>, Vec<String>, Vec<String>, Vec<bool>, Vec<Oid>);

/// Lists tables and views that can be read.
pub(super) async fn list(session: &mut Session, schema: Option<&str>) -> Result<Catalogue> {
    let connection = session.open().await?;
    let rows: Vec<TableRow> = sqlx::query_as(
        "select n.nspname::text, c.relname::text,
                case c.relkind when 'r' then 'table' when 'p' then 'partitioned_table' when 'v' then 'view'
                               when 'm' then 'materialized_view' else 'foreign_table' end,
                coalesce((select array_agg(a.attname::text order by k.place)
                          from pg_index as i
                          cross join lateral unnest(i.indkey::int2[]) with ordinality as k (number, place)
                          join pg_attribute as a on a.attrelid = c.oid and a.attnum = k.number
                          where i.indrelid = c.oid and i.indisprimary), '{}'),
                case when c.reltuples >= 0 then c.reltuples::bigint end,
                array_agg(a.attname::text order by a.attnum),
                array_agg(format_type(a.atttypid, a.atttypmod) order by a.attnum),
                array_agg(not a.attnotnull order by a.attnum),
                array_agg(a.atttypid order by a.attnum)
         from pg_class as c
         join pg_namespace as n on n.oid = c.relnamespace
         join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relkind in ('r', 'p', 'v', 'm', 'f')
           and n.nspname not in ('pg_catalog', 'information_schema')
           and n.nspname not like 'pg\\_%'
           and ($1::text is null or n.nspname = $1)
           and has_schema_privilege(n.oid, 'usage')
           and has_table_privilege(c.oid, 'select')
         group by n.nspname, c.relname, c.relkind, c.oid, c.reltuples
         order by 1, 2
         limit $2",
    )
    .bind(schema)
    .bind(TABLES_MAX as i64 + 1)
    .fetch_all(&mut *connection)
    .await
    .map_err(failed("cannot list tables"))?;
    let types: HashSet<Oid> = rows.iter().flat_map(|row| row.8.iter().copied()).collect();
    let sendable = sendable(connection, &types.into_iter().collect::<Vec<_>>()).await?;
    let truncated = rows.len() > TABLES_MAX;
    let tables = rows.into_iter().take(TABLES_MAX).map(|row| table(row, &sendable)).collect();
    Ok(Catalogue { tables, truncated })
}

fn table(row: TableRow, sendable: &HashSet<Oid>) -> CatalogueTable {
    let (schema, name, kind, primary_key, rows_estimated, names, types, nullable, oids) = row;
    let columns = names
        .into_iter()
        .zip(types)
        .zip(nullable)
        .zip(oids)
        .map(|(((name, source_type), nullable), oid)| CatalogueColumn {
            name,
            source_type,
            nullable,
            supported: sendable.contains(&oid),
        })
        .collect();
    CatalogueTable { schema, name, kind, primary_key, rows_estimated, columns, stream: None }
}

/// Which of these types can be sent: what [`PgType::of`] says, for a whole listing in one statement.
async fn sendable(connection: &mut PgConnection, types: &[Oid]) -> Result<HashSet<Oid>> {
    let names: Vec<_> = SIMPLE.iter().map(|(name, _)| *name).collect();
    let found: Vec<Oid> = sqlx::query_scalar(
        "with recursive chain (asked, reached, path) as (
             select asked, asked, '' from unnest($1::oid[]) as asked
             union all
             select c.asked,
                    case t.typtype when 'd' then t.typbasetype when 'r' then r.rngsubtype else t.typelem end,
                    c.path || case t.typtype when 'd' then '' when 'r' then 'r' else 'a' end
             from chain as c
             join pg_type as t on t.oid = c.reached
             left join pg_range as r on r.rngtypid = t.oid
             where t.typtype in ('d', 'r')
                or t.typtype = 'b' and t.typcategory = 'A' and t.typelem <> 0
         )
         select c.asked
         from chain as c
         join pg_type as t on t.oid = c.reached
         where c.path not like '%aa%'
           and (t.typtype = 'e'
                or t.typtype = 'b' and t.typname = any ($2)
                   and (t.typname = 'citext' or t.typnamespace = 'pg_catalog'::regnamespace))",
    )
    .bind(types)
    .bind(names)
    .fetch_all(connection)
    .await
    .map_err(failed("cannot list types"))?;
    Ok(found.into_iter().collect())
}

/// A model's columns, and a table's primary key.
pub(super) async fn describe(session: &mut Session, model: &ModelSpec) -> Result<(Schema, Vec<String>)> {
    let connection = session.open().await?;
    let what = "cannot describe the model";
    let statement = prepare(connection, &format!("select * from {} limit 0", relation(model)), what).await?;
    // Rights are looked at when a statement starts, not when it is prepared.
    statement.query().fetch_optional(&mut *connection).await.map_err(failed(what))?;
    let (not_null, primary_key) = match model {
        ModelSpec::Table { .. } => constraints(connection, &relation(model)).await?,
        ModelSpec::Sql { .. } | ModelSpec::Stream { .. } => (Vec::new(), Vec::new()),
    };
    let mut columns: Vec<Column> = Vec::new();
    for found in statement.columns() {
        let (name, source_type) = (found.name().to_owned(), found.type_info().name().to_lowercase());
        if columns.iter().any(|known| known.name == name) {
            return Err(Error::new(Code::ModelDuplicateColumns, format!("two columns are named `{name}`")));
        }
        let Some(pg_type) = PgType::of(found.type_info()) else {
            return Err(unsupported(&name, &source_type));
        };
        let nullable = !not_null.contains(&name);
        columns.push(Column { name, kind: pg_type.kind(), source_type, nullable });
    }
    if columns.is_empty() {
        return Err(Error::new(Code::ModelObjectMissing, "the model has no columns"));
    }
    Ok((Schema { columns }, primary_key))
}

fn unsupported(column: &str, source_type: &str) -> Error {
    let told = format!("the column `{column}` has the type {source_type}, which cannot be sent exactly");
    Error::new(Code::ModelTypeUnsupported, told)
}

/// Whether rows can be ordered and resumed by a column. Not by `citext` outside the search path: `>` would be the
/// operator of `text` there, and the order citext's own.
pub(super) fn is_key(pg_type: &PgType, source_type: &str) -> bool {
    pg_type.is_key() && !source_type.ends_with(".citext")
}

pub(super) fn not_a_key(column: &str, source_type: &str) -> Error {
    Error::new(Code::ModelTypeUnsupported, format!("the column `{column}` of type {source_type} cannot be a key"))
}

/// Prepares a statement of a model.
///
/// # Errors
/// `model.type_unsupported` for a type of a kind that the driver does not know, such as a multirange.
pub(super) async fn prepare(connection: &mut PgConnection, sql: &str, what: &str) -> Result<PgStatement> {
    match connection.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await {
        Ok(statement) => Ok(statement),
        Err(error) if is_unread(&error) => match unknown_column(connection, sql).await? {
            Some((column, source_type)) => Err(unsupported(&column, &source_type).caused_by(error)),
            None => Err(failed(what)(error)),
        },
        Err(error) => Err(failed(what)(error)),
    }
}

/// The first column whose type the driver does not know, and that type.
async fn unknown_column(connection: &mut PgConnection, sql: &str) -> Result<Option<(String, String)>> {
    // A row of NULLs and the columns' type numbers: the simple protocol does not look types up.
    let sql = format!("select model.* from (select) as one left join (\n{sql}\n) as model on false");
    let row = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_one(&mut *connection)
        .await
        .map_err(failed("cannot describe the model"))?;
    for column in row.columns() {
        let Some(oid) = column.type_info().oid() else { continue };
        let source_type: String = sqlx::query_scalar("select format_type($1, null)")
            .bind(oid)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("cannot name a type"))?;
        let probe = AssertSqlSafe(format!("select null::{source_type}")).into_sql_str();
        if connection.prepare(probe).await.is_err_and(|error| is_unread(&error)) {
            return Ok(Some((column.name().to_owned(), source_type)));
        }
    }
    Ok(None)
}

/// The columns that cannot be NULL, and the primary key.
async fn constraints(connection: &mut PgConnection, relation: &str) -> Result<(Vec<String>, Vec<String>)> {
    sqlx::query_as(
        "select coalesce(array_agg(a.attname::text) filter (where a.attnotnull), '{}'),
                coalesce((select array_agg(k.attname::text order by n.place)
                          from pg_index as i
                          cross join lateral unnest(i.indkey::int2[]) with ordinality as n (number, place)
                          join pg_attribute as k on k.attrelid = i.indrelid and k.attnum = n.number
                          where i.indrelid = $1::regclass and i.indisprimary), '{}')
         from pg_attribute as a
         where a.attrelid = $1::regclass
           and a.attnum > 0",
    )
    .bind(relation)
    .fetch_one(connection)
    .await
    .map_err(failed("cannot read the table's constraints"))
}

/// The first rows of a model, as a `row` envelope would hold them.
pub(super) async fn preview(session: &mut Session, model: &ModelSpec, rows_max: usize) -> Result<Preview> {
    let (schema, _) = describe(session, model).await?;
    let connection = session.open().await?;
    let sql = format!("select * from {} limit {}", relation(model), rows_max + 1);
    let types = column_types(connection, &sql).await?;
    let mut rows = Vec::new();
    let mut stream = connection.fetch(sqlx::query(AssertSqlSafe(sql)));
    let mut row = Row::default();
    while let Some(found) = stream.try_next().await.map_err(failed("cannot read the model"))? {
        if rows.len() == rows_max {
            return Ok(Preview { columns: schema.columns, rows, truncated: true });
        }
        fill(&found, &types, &schema.columns, &mut row)?;
        rows.push(preview_row(&row, &schema.columns));
    }
    Ok(Preview { columns: schema.columns, rows, truncated: false })
}

/// One row of a preview: a JSON object, its large cells cut.
pub(in crate::sources) fn preview_row(row: &Row, columns: &[Column]) -> serde_json::Value {
    let mut out = Vec::new();
    let members = columns.iter().enumerate().map(|(place, column)| {
        out.clear();
        json::cell(row, place, &mut out);
        let value = if out.len() > CELL_BYTES_MAX {
            format!("(cut: {} bytes)", out.len()).into()
        } else {
            // Numbers keep their digits as text: a tree's number would be a float.
            match serde_json::from_slice::<serde_json::Value>(&out) {
                Ok(value) if !value.is_number() && is_exact(&value) => value,
                _ => String::from_utf8_lossy(&out).into_owned().into(),
            }
        };
        (column.name.clone(), value)
    });
    serde_json::Value::Object(members.collect())
}

/// Whether a tree holds a document without loss: no number of it became a float.
fn is_exact(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::String(_) => true,
        serde_json::Value::Number(number) => !number.is_f64(),
        serde_json::Value::Array(values) => values.iter().all(is_exact),
        serde_json::Value::Object(members) => members.values().all(is_exact),
    }
}

/// Counts rows without key and keys that repeat.
///
/// # Errors
/// `model.key_missing` for a column that the model does not have, `model.type_unsupported` for one without an order.
pub(super) async fn key_check(session: &mut Session, model: &ModelSpec, key: &[String]) -> Result<KeyCheck> {
    let connection = session.open().await?;
    let statement =
        prepare(connection, &format!("select * from {}", relation(model)), "cannot describe the model").await?;
    for name in key {
        let column = statement.columns().iter().find(|column| column.name() == name);
        let column = column
            .ok_or_else(|| Error::new(Code::ModelKeyMissing, format!("the column `{name}` is not in the model")))?;
        let source_type = column.type_info().name().to_lowercase();
        if !PgType::of(column.type_info()).is_some_and(|pg_type| is_key(&pg_type, &source_type)) {
            return Err(not_a_key(name, &source_type));
        }
    }
    let missing = key.iter().map(|name| format!("{} is null", super::sql::identifier(name))).collect::<Vec<_>>();
    let sql = format!(
        "select coalesce(sum(times), 0)::bigint,
                coalesce(sum(times) filter (where without), 0)::bigint,
                count(*) filter (where times > 1 and not without)
         from (select count(*) as times, bool_or({}) as without from {} group by {}) as keys",
        missing.join(" or "),
        relation(model),
        identifiers(key),
    );
    let (rows, null_rows, duplicate_keys): (i64, i64, i64) =
        sqlx::query_as(AssertSqlSafe(sql)).fetch_one(connection).await.map_err(failed("cannot count the keys"))?;
    Ok(KeyCheck { key: key.to_vec(), rows, null_rows, duplicate_keys })
}

/// The types of a statement's columns.
pub(super) async fn column_types(connection: &mut PgConnection, sql: &str) -> Result<Vec<PgType>> {
    // A server that does not say is one of the newest.
    let version = connection.server_version_num().unwrap_or(u32::MAX);
    let statement = prepare(connection, sql, "cannot prepare the model's statement").await?;
    statement
        .columns()
        .iter()
        .map(|column| {
            PgType::of(column.type_info())
                .map(|pg_type| pg_type.at_version(version))
                .ok_or_else(|| unsupported(column.name(), &column.type_info().name().to_lowercase()))
        })
        .collect()
}

/// Reads one row of the server into ours.
pub(super) fn fill(found: &sqlx::postgres::PgRow, types: &[PgType], columns: &[Column], row: &mut Row) -> Result<()> {
    fill_from(found, 0, types, columns, row)
}

/// Reads one row of the server into ours, from its column `first` on.
pub(super) fn fill_from(
    found: &sqlx::postgres::PgRow,
    first: usize,
    types: &[PgType],
    columns: &[Column],
    row: &mut Row,
) -> Result<()> {
    row.clear();
    for (place, pg_type) in types.iter().enumerate() {
        let value = found.try_get_raw(first + place).map_err(failed("cannot read a column"))?;
        if value.is_null() {
            row.push(freshet_core::connector::Cell::Null);
            continue;
        }
        let decoded = value.as_bytes().ok().and_then(|bytes| pg_type.decode(bytes, row).ok());
        if decoded.is_none() {
            let name = columns.get(place).map_or("?", |column| column.name.as_str());
            let told = format!("a value of the column `{name}` does not have its type's form");
            return Err(Error::new(Code::PostgresQuery, told));
        }
    }
    Ok(())
}

/// Compares the columns of a plan with the server's; what was added meanwhile is not read.
///
/// # Errors
/// `model.columns_changed`: a column is gone, has another type, or is of the key and may now be NULL.
pub(super) async fn refuse_changed(connection: &mut PgConnection, plan: &ReadPlan) -> Result<()> {
    let relation = relation(&plan.model);
    let statement = prepare(connection, &format!("select * from {relation}"), "cannot describe the model").await?;
    let not_null = match &plan.model {
        ModelSpec::Table { .. } => constraints(connection, &relation).await?.0,
        ModelSpec::Sql { .. } | ModelSpec::Stream { .. } => Vec::new(),
    };
    for column in &plan.columns {
        let told = match statement.columns().iter().find(|found| found.name() == column.name) {
            None => format!("the column `{}` is gone", column.name),
            Some(found) if found.type_info().name().to_lowercase() != column.source_type => {
                let now = found.type_info().name().to_lowercase();
                format!("the column `{}` was {} and is {now}", column.name, column.source_type)
            }
            // Such rows sort last and have no place to go on from.
            Some(_) if !column.nullable && plan.key.contains(&column.name) && !not_null.contains(&column.name) => {
                format!("the column `{}` of the key may now be NULL", column.name)
            }
            Some(_) => continue,
        };
        return Err(Error::new(Code::ModelColumnsChanged, told));
    }
    Ok(())
}

/// For a literal in a statement that compares with a column.
pub(super) fn quoted(text: &str) -> String {
    literal(text)
}
