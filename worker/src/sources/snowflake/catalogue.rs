//! What a connection reaches: the test, the list, a model's columns, its first rows, its key.
//!
//! Everything here reads with SELECT, SHOW and information_schema alone: a SELECT never moves a Stream.

use std::collections::{BTreeMap, BTreeSet};

use freshet_core::connector::{
    Catalogue, CatalogueColumn, CatalogueTable, Column, KeyCheck, ModelSpec, Preview, ReadPlan, Row, Schema, Step,
    StreamFacts,
};
use freshet_core::error::{Code, Error, Result};

use super::client::{QueryTag, Statement, Texts};
use super::decode::{CellType, RowType};
use super::session::Session;
use super::sql::{ACTION, IS_UPDATE, ROW_ID, identifier, identifiers, literal, name_parts, relation};
use super::streams;
use crate::sources::postgres::preview_row;

/// Tables of a listing, at most.
const TABLES_MAX: usize = 1_000;
/// Columns of a listing, at most.
const COLUMNS_MAX: usize = 200_000;
/// Rows that SHOW gives without a LIMIT.
const SHOW_MAX: usize = 10_000;

const STEPS: [&str; 8] = ["address", "tls", "sign_in", "role", "warehouse", "database", "read", "work_schema"];

/// Tries a connection step by step.
pub(super) async fn check(session: &mut Session) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Err(error) = try_steps(session, &mut steps).await {
        let failed_at = failed_at(error.code, &steps);
        // A warehouse that is named well may still not start when something is read.
        steps.truncate(failed_at);
        for (place, name) in STEPS.iter().enumerate().skip(steps.len()) {
            steps.push(match place.cmp(&failed_at) {
                std::cmp::Ordering::Less => Step::passed(name, "went well"),
                std::cmp::Ordering::Equal => Step::failed(name, &error),
                std::cmp::Ordering::Greater => Step::skipped(name, format!("not tried: {} failed", STEPS[failed_at])),
            });
        }
    }
    steps
}

/// The step that an error belongs to: its code says so, or it is the one that was tried.
fn failed_at(code: Code, steps: &[Step]) -> usize {
    let named = match code {
        Code::SnowflakeTls => Some("tls"),
        Code::SnowflakeLogin | Code::SnowflakeConsent | Code::SnowflakeRefused => Some("sign_in"),
        Code::SnowflakeRole => Some("role"),
        Code::SnowflakeWarehouse => Some("warehouse"),
        Code::SnowflakeDatabase => Some("database"),
        _ => None,
    };
    let place = named.and_then(|name| STEPS.iter().position(|step| *step == name));
    place.unwrap_or(steps.len().min(STEPS.len() - 1))
}

async fn try_steps(session: &mut Session, steps: &mut Vec<Step>) -> Result<()> {
    let base_url = session.base_url()?;
    let address = session.reach().await?;
    steps.push(Step::passed("address", format!("{address} answers")));
    let client = session.client()?;
    client.knock().await?;
    steps.push(if base_url.starts_with("https:") {
        Step::passed("tls", "encrypted, and the certificate is the account's")
    } else {
        Step::warning("tls", "not encrypted")
    });
    let sql = "select current_user(), current_role(), current_warehouse(), current_database()".to_owned();
    let told = session.texts(sql, &QueryTag::default(), 1).await?;
    let cell = |place: usize| told.rows.first().and_then(|row| row.get(place)).cloned().flatten();
    let context = session.settings.context();
    steps.push(Step::passed("sign_in", format!("signed in as {}", cell(0).unwrap_or_default())));
    for (name, place, wanted, code) in [
        ("role", 1, &context.role, Code::SnowflakeRole),
        ("warehouse", 2, &context.warehouse, Code::SnowflakeWarehouse),
        ("database", 3, &context.database, Code::SnowflakeDatabase),
    ] {
        steps.push(in_use(name, cell(place), wanted.as_deref(), code)?);
    }
    steps.push(check_read(session).await?);
    steps.push(check_work_schema(session).await?);
    Ok(())
}

/// What the session has of one kind, against what the settings ask for.
fn in_use(name: &str, found: Option<String>, wanted: Option<&str>, code: Code) -> Result<Step> {
    match (found, wanted) {
        (Some(found), Some(wanted)) if found != wanted => {
            Err(Error::new(code, format!("the {name} {wanted} cannot be used; the session has {found}")))
        }
        (Some(found), _) => Ok(Step::passed(name, format!("{found} is in use"))),
        (None, Some(wanted)) => Err(Error::new(code, format!("the {name} {wanted} cannot be used"))),
        (None, None) => Err(Error::new(code, format!("there is no {name}: none is set, and the user has no default"))),
    }
}

async fn check_read(session: &mut Session) -> Result<Step> {
    let sql = "select count(*) from information_schema.tables where table_schema <> 'INFORMATION_SCHEMA'".to_owned();
    let tables = session.value(sql, &QueryTag::default()).await?.unwrap_or_default();
    if tables == "0" {
        return Err(Error::new(Code::SnowflakePrivilege, "the role can read no table of this database"));
    }
    Ok(Step::passed("read", format!("{tables} tables and views can be seen")))
}

async fn check_work_schema(session: &mut Session) -> Result<Step> {
    let schema = session.work_schema();
    let database = session.settings.context().database.unwrap_or_default();
    let sql = format!("show schemas like {} in database {}", literal(&schema), identifier(&database));
    let found = session.texts(sql, &QueryTag::default(), SHOW_MAX).await?;
    let there = column(&found, "name").any(|name| name == schema);
    Ok(if there {
        Step::passed("work_schema", format!("{schema} is there"))
    } else {
        let told =
            format!("the schema {schema} is not there, or not to be seen; only mode incremental works without it");
        Step::warning("work_schema", told)
    })
}

/// The cells of one column of a small result.
fn column<'a>(texts: &'a Texts, name: &str) -> impl Iterator<Item = &'a str> {
    let place = texts.position(name);
    texts.rows.iter().filter_map(move |row| row.get(place?)?.as_deref())
}

/// Lists tables, views and Streams that can be seen. Of Freshet's own schema only the Streams: the rest are batches.
pub(super) async fn list(session: &mut Session, schema: Option<&str>) -> Result<Catalogue> {
    let tag = QueryTag::default();
    let work = literal(&session.work_schema());
    let mut within = format!("table_schema <> 'INFORMATION_SCHEMA' and table_schema <> {work}");
    if let Some(schema) = schema {
        within.push_str(&format!(" and table_schema = {}", literal(schema)));
    }
    let sql = format!(
        "select table_schema, table_name, table_type, row_count from information_schema.tables where {within} \
         order by table_schema, table_name limit {}",
        TABLES_MAX + 1
    );
    let found = session.texts(sql, &tag, TABLES_MAX + 1).await?;
    let mut tables: Vec<_> = found.rows.iter().filter_map(|row| table(row)).collect();
    let streams = streams(session, schema).await;
    let truncated = tables.len() + streams.len() > TABLES_MAX;
    tables.truncate(TABLES_MAX);
    let columns = columns(session, &within, tables.last(), &streams).await?;
    let keys = primary_keys(session, schema.filter(|_| streams.is_empty())).await;
    let of =
        |name: &Name| (columns.get(name).cloned().unwrap_or_default(), keys.get(name).cloned().unwrap_or_default());
    for table in &mut tables {
        (table.columns, table.primary_key) = of(&(table.schema.clone(), table.name.clone()));
    }
    tables.extend(streams.into_iter().map(|(mut stream, base)| {
        (stream.columns, stream.primary_key) = base.as_ref().map(of).unwrap_or_default();
        stream.columns.extend(metadata_columns());
        stream
    }));
    tables.sort_by(|one, other| (&one.schema, &one.name).cmp(&(&other.schema, &other.name)));
    tables.truncate(TABLES_MAX);
    Ok(Catalogue { tables, truncated })
}

/// Schema and name.
type Name = (String, String);

fn table(row: &[Option<String>]) -> Option<CatalogueTable> {
    let [schema, name, kind, rows] = row else { return None };
    let kind = match kind.as_deref()? {
        "BASE TABLE" => "table".to_owned(),
        other => other.to_lowercase().replace(' ', "_"),
    };
    Some(CatalogueTable {
        schema: schema.clone()?,
        name: name.clone()?,
        kind,
        primary_key: Vec::new(),
        rows_estimated: rows.as_deref().and_then(|rows| rows.parse().ok()),
        columns: Vec::new(),
        stream: None,
    })
}

type ByTable<T> = BTreeMap<Name, Vec<T>>;

/// The columns of all tables up to the last one listed, and of those that Streams follow.
async fn columns(
    session: &mut Session,
    within: &str,
    last: Option<&CatalogueTable>,
    streams: &[(CatalogueTable, Option<Name>)],
) -> Result<ByTable<CatalogueColumn>> {
    let listed = last.map(|last| {
        let (schema, name) = (literal(&last.schema), literal(&last.name));
        format!("({within} and (table_schema < {schema} or (table_schema = {schema} and table_name <= {name})))")
    });
    let followed: BTreeSet<_> = streams.iter().filter_map(|(_, base)| base.as_ref()).collect();
    let followed = followed
        .into_iter()
        .map(|(schema, name)| format!("(table_schema = {} and table_name = {})", literal(schema), literal(name)));
    let wanted: Vec<_> = listed.into_iter().chain(followed).collect();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = format!(
        "select table_schema, table_name, column_name, data_type, is_nullable, numeric_precision, numeric_scale \
         from information_schema.columns where {} order by table_schema, table_name, ordinal_position",
        wanted.join(" or ")
    );
    let found = session.client()?.texts(&Statement::large(sql), COLUMNS_MAX).await?;
    let mut columns: ByTable<CatalogueColumn> = BTreeMap::new();
    for row in found.rows {
        let [Some(schema), Some(table), Some(name), Some(data_type), nullable, precision, scale] = row.as_slice()
        else {
            continue;
        };
        let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        let column = RowType {
            name: name.clone(),
            type_name: wire_name(data_type),
            scale: number(scale),
            precision: number(precision),
            nullable: nullable.as_deref() != Some("NO"),
        };
        columns.entry((schema.clone(), table.clone())).or_default().push(CatalogueColumn {
            source_type: column.source_type(),
            supported: CellType::of(&column).is_some(),
            name: column.name,
            nullable: column.nullable,
        });
    }
    Ok(columns)
}

/// The word that `rowType` has for a type of information_schema.
fn wire_name(data_type: &str) -> String {
    match data_type {
        "NUMBER" => "fixed".to_owned(),
        "FLOAT" => "real".to_owned(),
        other => other.to_lowercase(),
    }
}

/// The primary keys that are declared; none where they cannot be listed, for a listing does not need them.
async fn primary_keys(session: &mut Session, schema: Option<&str>) -> ByTable<String> {
    let within = match schema {
        Some(schema) => format!("schema {}", identifier(schema)),
        None => format!("database {}", identifier(&session.settings.context().database.unwrap_or_default())),
    };
    match session.texts(format!("show primary keys in {within}"), &QueryTag::default(), SHOW_MAX).await {
        Ok(found) => keys_of(&found),
        Err(error) => {
            tracing::debug!(error = %error.chain(), "primary keys cannot be listed");
            BTreeMap::new()
        }
    }
}

fn keys_of(found: &Texts) -> ByTable<String> {
    let mut keys: BTreeMap<(String, String), Vec<(u32, String)>> = BTreeMap::new();
    let place = |name| found.position(name);
    for row in &found.rows {
        let cell = |name| place(name).and_then(|place| row.get(place)).cloned().flatten();
        if let (Some(schema), Some(table), Some(column)) =
            (cell("schema_name"), cell("table_name"), cell("column_name"))
        {
            let sequence = cell("key_sequence").and_then(|text| text.parse().ok()).unwrap_or(0);
            keys.entry((schema, table)).or_default().push((sequence, column));
        }
    }
    let in_order = |mut columns: Vec<(u32, String)>| {
        columns.sort_unstable();
        columns.into_iter().map(|(_, column)| column).collect()
    };
    keys.into_iter().map(|(table, columns)| (table, in_order(columns))).collect()
}

/// The Streams, each with what it follows if that is in the connection's database. Without the right to list them there
/// are none: a listing goes on without.
async fn streams(session: &mut Session, schema: Option<&str>) -> Vec<(CatalogueTable, Option<Name>)> {
    let found = match streams::all(session, schema).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(error = %error.chain(), "Streams cannot be listed");
            return Vec::new();
        }
    };
    let database = session.database();
    let listed = found.into_iter().map(|stream| {
        let base = match <[String; 3]>::try_from(name_parts(&stream.facts.on)) {
            Ok([of, schema, name]) if of == database => Some((schema, name)),
            _ => None,
        };
        let table = CatalogueTable {
            schema: stream.schema,
            name: stream.name,
            kind: "stream".into(),
            primary_key: Vec::new(),
            rows_estimated: None,
            columns: Vec::new(),
            stream: Some(stream.facts),
        };
        (table, base)
    });
    listed.take(TABLES_MAX + 1).collect()
}

fn metadata_columns() -> [CatalogueColumn; 3] {
    [(ACTION, "text"), (IS_UPDATE, "boolean"), (ROW_ID, "text")].map(|(name, source_type)| CatalogueColumn {
        name: name.into(),
        source_type: source_type.into(),
        nullable: false,
        supported: true,
    })
}

/// A model's columns, and a table's primary key.
pub(super) async fn describe(session: &mut Session, model: &ModelSpec) -> Result<(Schema, Vec<String>)> {
    let columns = columns_now(session, model).await?;
    let key = match model {
        ModelSpec::Table { schema, table } => {
            let mut keys = primary_keys(session, Some(schema)).await;
            keys.remove(&(schema.clone(), table.clone())).unwrap_or_default()
        }
        ModelSpec::Stream { schema, stream } => {
            let facts = streams::facts(session, schema, stream, &QueryTag::default()).await?;
            base_key(session, &facts).await
        }
        ModelSpec::Sql { .. } => Vec::new(),
    };
    Ok((Schema { columns }, key))
}

/// The primary key of the table that a Stream follows; none of a view, of another database, or without the right.
async fn base_key(session: &mut Session, facts: &StreamFacts) -> Vec<String> {
    let Ok([database, schema, table]) = <[String; 3]>::try_from(name_parts(&facts.on)) else { return Vec::new() };
    if database != session.database() {
        return Vec::new();
    }
    primary_keys(session, Some(&schema)).await.remove(&(schema, table)).unwrap_or_default()
}

/// A model's columns as they are now; a Stream's without those that it adds.
async fn columns_now(session: &mut Session, model: &ModelSpec) -> Result<Vec<Column>> {
    let sql = format!("select * from {} limit 0", relation(model));
    let rows = session.client()?.rows(&Statement::small(sql)).await?;
    let mut columns: Vec<Column> = rows.columns().iter().map(column_of).collect::<Result<_>>()?;
    let known = columns.len();
    columns.retain(|column| !is_metadata(&column.name));
    let of_stream = columns.len() < known;
    match model {
        ModelSpec::Stream { schema, stream } if !of_stream => {
            let told = format!("{} is no Stream; make a model of kind `table`", streams::printed(schema, stream));
            return Err(Error::new(Code::ModelObjectMissing, told));
        }
        ModelSpec::Table { schema, table } if of_stream => {
            return Err(streams::reads_a_stream(&streams::printed(schema, table)));
        }
        ModelSpec::Sql { .. } if of_stream => return Err(streams::reads_a_stream("what the model reads")),
        ModelSpec::Sql { sql } => streams::refuse_in(session, sql).await?,
        ModelSpec::Table { .. } | ModelSpec::Stream { .. } => {}
    }
    for (place, column) in columns.iter().enumerate() {
        let name = &column.name;
        if columns[..place].iter().any(|known| known.name == *name) {
            return Err(Error::new(Code::ModelDuplicateColumns, format!("two columns are named `{name}`")));
        }
    }
    if columns.is_empty() {
        return Err(Error::new(Code::ModelObjectMissing, "the model has no columns"));
    }
    Ok(columns)
}

/// Whether a Stream adds a column of this name.
fn is_metadata(name: &str) -> bool {
    [ACTION, IS_UPDATE, ROW_ID].contains(&name)
}

/// A column of a result in the words every source shares.
pub(super) fn column_of(column: &RowType) -> Result<Column> {
    let cell = CellType::of(column).ok_or_else(|| super::client::unsupported(column))?;
    Ok(Column {
        name: column.name.clone(),
        kind: cell.kind(),
        source_type: column.source_type(),
        nullable: column.nullable,
    })
}

/// Refuses a model whose columns are not those of the plan any more.
pub(super) async fn refuse_changed(session: &mut Session, plan: &ReadPlan) -> Result<()> {
    let now = columns_now(session, &plan.model).await?;
    for planned in &plan.columns {
        let found = now.iter().find(|column| column.name == planned.name);
        refuse_other(planned, found)?;
    }
    Ok(())
}

/// Refuses a result that does not hold the plan's columns, in their order.
pub(super) fn refuse_differing(planned: &[Column], found: &[Column]) -> Result<()> {
    for (place, column) in planned.iter().enumerate() {
        refuse_other(column, found.get(place).filter(|found| found.name == column.name))?;
    }
    Ok(())
}

fn refuse_other(planned: &Column, found: Option<&Column>) -> Result<()> {
    let told = match found {
        None => format!("the column `{}` is gone", planned.name),
        Some(found) if found.source_type != planned.source_type => {
            format!("the column `{}` was {} and is {}", planned.name, planned.source_type, found.source_type)
        }
        Some(_) => return Ok(()),
    };
    Err(Error::new(Code::ModelColumnsChanged, told))
}

/// The first rows of a model, as a `row` envelope would hold them; of a Stream with what happened to each. It is read
/// with SELECT alone, so its offset stays.
pub(super) async fn preview(session: &mut Session, model: &ModelSpec, rows_max: usize) -> Result<Preview> {
    let planned = columns_now(session, model).await?;
    let sql = format!("select * from {} limit {}", relation(model), rows_max + 1);
    let mut found = session.client()?.rows(&Statement::small(sql)).await?;
    let columns: Vec<_> = found.columns().iter().map(column_of).collect::<Result<_>>()?;
    refuse_differing(&planned, &columns)?;
    let mut rows = Vec::new();
    let mut row = Row::default();
    while found.next(&mut row).await? {
        if rows.len() == rows_max {
            return Ok(Preview { columns, rows, truncated: true });
        }
        rows.push(preview_row(&row, &columns));
    }
    Ok(Preview { columns, rows, truncated: false })
}

/// Counts rows without key and keys that repeat; of a Stream, in what it follows.
pub(super) async fn key_check(session: &mut Session, model: &ModelSpec, key: &[String]) -> Result<KeyCheck> {
    let from = match model {
        ModelSpec::Stream { schema, stream } => streams::base(session, schema, stream).await?,
        ModelSpec::Table { .. } | ModelSpec::Sql { .. } => relation(model),
    };
    let missing = key.iter().map(|name| format!("{} is null", identifier(name))).collect::<Vec<_>>().join(" or ");
    let sql = format!(
        "select coalesce(sum(times), 0), \
         coalesce(sum(case when missing > 0 then times else 0 end), 0), \
         coalesce(sum(case when times > 1 and missing = 0 then 1 else 0 end), 0) \
         from (select count(*) as times, sum(case when {missing} then 1 else 0 end) as missing from {from} group by {}) as keys",
        identifiers(key.iter().map(String::as_str)),
    );
    let found = session.texts(sql, &QueryTag::default(), 1).await?;
    let number = |place: usize| found.rows.first()?.get(place)?.as_deref()?.parse::<i64>().ok();
    match (number(0), number(1), number(2)) {
        (Some(rows), Some(null_rows), Some(duplicate_keys)) => {
            Ok(KeyCheck { key: key.to_vec(), rows, null_rows, duplicate_keys })
        }
        _ => Err(Error::new(Code::SnowflakeAnswer, "the count of keys does not read")),
    }
}
