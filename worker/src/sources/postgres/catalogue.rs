//! What a connection reaches: the test, the list, a model's columns, its first rows, its key.

use freshet_core::connector::{
    Catalogue, CatalogueColumn, CatalogueTable, Column, KeyCheck, ModelSpec, Preview, Row, Schema, Step,
};
use freshet_core::error::{Code, Error, Result};
use futures::TryStreamExt;
use sqlx::postgres::{PgConnection, PgStatement};
use sqlx::{AssertSqlSafe, Column as _, Executor, Row as _, SqlSafeStr, Statement, TypeInfo as _, ValueRef};

use super::session::{Session, failed};
use super::sql::{identifiers, literal, relation};
use super::types::PgType;
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

type TableRow = (String, String, String, Vec<String>, Option<i64>, Vec<String>, Vec<String>, Vec<bool>, Vec<String>);

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
                array_agg(t.typname::text order by a.attnum)
         from pg_class as c
         join pg_namespace as n on n.oid = c.relnamespace
         join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         join pg_type as t on t.oid = a.atttypid
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
    .fetch_all(connection)
    .await
    .map_err(failed("cannot list tables"))?;
    let truncated = rows.len() > TABLES_MAX;
    let tables = rows.into_iter().take(TABLES_MAX).map(table).collect();
    Ok(Catalogue { tables, truncated })
}

fn table(row: TableRow) -> CatalogueTable {
    let (schema, name, kind, primary_key, rows_estimated, names, types, nullable, internal) = row;
    let columns = names
        .into_iter()
        .zip(types)
        .zip(nullable)
        .zip(internal)
        .map(|(((name, source_type), nullable), internal)| CatalogueColumn {
            name,
            source_type,
            nullable,
            supported: !UNSUPPORTED.contains(&internal.trim_start_matches('_')),
        })
        .collect();
    CatalogueTable { schema, name, kind, primary_key, rows_estimated, columns }
}

/// Built-in types that are refused; a listing says so without asking for each column's description.
const UNSUPPORTED: &[&str] = &[
    "money",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
    "tsvector",
    "tsquery",
    "txid_snapshot",
    "pg_snapshot",
    "xid",
    "xid8",
    "cid",
    "tid",
    "jsonpath",
    "record",
    "hstore",
    "int4multirange",
    "int8multirange",
    "nummultirange",
    "tsmultirange",
    "tstzmultirange",
    "datemultirange",
    "geometry",
    "geography",
    "regclass",
];

/// A model's columns, and a table's primary key.
pub(super) async fn describe(session: &mut Session, model: &ModelSpec) -> Result<(Schema, Vec<String>)> {
    let connection = session.open().await?;
    let statement =
        prepare(connection, &format!("select * from {}", relation(model)), "cannot describe the model").await?;
    let (not_null, primary_key) = match model {
        ModelSpec::Table { .. } => constraints(connection, &relation(model)).await?,
        ModelSpec::Sql { .. } => (Vec::new(), Vec::new()),
    };
    let mut columns: Vec<Column> = Vec::new();
    for found in statement.columns() {
        let (name, source_type) = (found.name().to_owned(), found.type_info().name().to_lowercase());
        if columns.iter().any(|known| known.name == name) {
            return Err(Error::new(Code::ModelDuplicateColumns, format!("two columns are named `{name}`")));
        }
        let Some(pg_type) = PgType::of(found.type_info()) else {
            let told = format!("the column `{name}` has the type {source_type}, which cannot be sent exactly");
            return Err(Error::new(Code::ModelTypeUnsupported, told));
        };
        let nullable = !not_null.contains(&name);
        columns.push(Column { name, kind: pg_type.kind(), source_type, nullable });
    }
    if columns.is_empty() {
        return Err(Error::new(Code::ModelObjectMissing, "the model has no columns"));
    }
    Ok((Schema { columns }, primary_key))
}

pub(super) async fn prepare(connection: &mut PgConnection, sql: &str, what: &str) -> Result<PgStatement> {
    connection.prepare(AssertSqlSafe(sql.to_owned()).into_sql_str()).await.map_err(failed(what))
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
            match serde_json::from_slice(&out) {
                Ok(serde_json::Value::Number(_)) | Err(_) => String::from_utf8_lossy(&out).into_owned().into(),
                Ok(value) => value,
            }
        };
        (column.name.clone(), value)
    });
    serde_json::Value::Object(members.collect())
}

/// Counts rows without key and keys that repeat.
pub(super) async fn key_check(session: &mut Session, model: &ModelSpec, key: &[String]) -> Result<KeyCheck> {
    let connection = session.open().await?;
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
    let statement = prepare(connection, sql, "cannot prepare the model's statement").await?;
    statement
        .columns()
        .iter()
        .map(|column| {
            PgType::of(column.type_info()).ok_or_else(|| {
                let told = format!("the column `{}` has a type that cannot be sent exactly", column.name());
                Error::new(Code::ModelTypeUnsupported, told)
            })
        })
        .collect()
}

/// Reads one row of the server into ours.
pub(super) fn fill(found: &sqlx::postgres::PgRow, types: &[PgType], columns: &[Column], row: &mut Row) -> Result<()> {
    row.clear();
    for (place, pg_type) in types.iter().enumerate() {
        let value = found.try_get_raw(place).map_err(failed("cannot read a column"))?;
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

/// What of a plan's columns is no longer so.
pub(super) async fn refuse_changed(connection: &mut PgConnection, model: &ModelSpec, planned: &[Column]) -> Result<()> {
    let statement =
        prepare(connection, &format!("select * from {}", relation(model)), "cannot describe the model").await?;
    for column in planned {
        let told = match statement.columns().iter().find(|found| found.name() == column.name) {
            None => format!("the column `{}` is gone", column.name),
            Some(found) if found.type_info().name().to_lowercase() != column.source_type => {
                let now = found.type_info().name().to_lowercase();
                format!("the column `{}` was {} and is {now}", column.name, column.source_type)
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
