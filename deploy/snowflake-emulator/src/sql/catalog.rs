//! The catalog: which databases, schemas, tables, views and streams there are, in schema `emulator` of Postgres.

use sqlparser::ast;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use super::error::SqlError;
use super::names::{Context, FullName};
use super::types::{Column, Type};

/// A table and the columns it has now.
#[derive(Debug, Clone)]
pub struct Table {
    pub id: i64,
    pub name: FullName,
    pub columns: Vec<Column>,
    /// Whether changes are written down.
    pub tracked: bool,
}

impl Table {
    /// The Postgres table with the rows.
    pub fn data(&self) -> String {
        format!("snow.t{}", self.id)
    }

    /// The Postgres table with the change log.
    pub fn log(&self) -> String {
        format!("snow.l{}", self.id)
    }

    /// The quoted column names, with a comma between.
    pub fn column_list(&self) -> String {
        self.columns.iter().map(|column| super::names::quoted(&column.name)).collect::<Vec<_>>().join(", ")
    }
}

/// A view: its text and the session it was made in.
#[derive(Debug, Clone)]
pub struct View {
    pub id: i64,
    pub name: FullName,
    pub columns: Vec<String>,
    pub query: Box<ast::Query>,
    pub context: Context,
}

/// A stream, with its source as it is now.
#[derive(Debug, Clone)]
pub struct Stream {
    pub id: i64,
    pub name: FullName,
    pub source: Result<Box<Relation>, SqlError>,
    pub append_only: bool,
    /// The offset, a Postgres snapshot.
    pub seen: String,
    /// When the offset was taken, nanoseconds since the epoch.
    pub seen_ns: i128,
    pub initial: bool,
    pub stale: bool,
}

/// What a name in FROM can mean.
#[derive(Debug, Clone)]
pub enum Relation {
    Table(Table),
    View(View),
    Stream(Stream),
}

/// Finds a table, view or stream; a temporary table of the session hides a permanent one.
///
/// # Errors
/// 002003 when there is none.
pub async fn relation(
    connection: &mut PgConnection,
    context: &Context,
    parts: &[String],
    session: Uuid,
) -> Result<Relation, SqlError> {
    let name = context.complete(parts)?;
    let found = sqlx::query(
        "select id, kind, tracked, definition
         from emulator.object
         where database = $1 and schema = $2 and name = $3 and kind <> 'TASK'
           and (session is null or session = $4)
         order by session nulls last
         limit 1",
    )
    .bind(&name.database)
    .bind(&name.schema)
    .bind(&name.name)
    .bind(session)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = found else {
        return Err(missing(connection, &name).await?);
    };
    let (id, kind): (i64, String) = (row.try_get("id")?, row.try_get("kind")?);
    match kind.as_str() {
        "TABLE" => Ok(Relation::Table(table(connection, id, name, row.try_get("tracked")?).await?)),
        "VIEW" => view(id, name, &row.try_get::<String, _>("definition")?).map(Relation::View),
        _ => Ok(Relation::Stream(Box::pin(stream(connection, id, name, session)).await?)),
    }
}

/// Says what is missing: the database, the schema or the object.
async fn missing(connection: &mut PgConnection, name: &FullName) -> Result<SqlError, SqlError> {
    if !database_exists(connection, &name.database).await? {
        return Ok(SqlError::missing("Database", super::names::printed(&name.database)));
    }
    if !schema_exists(connection, &name.database, &name.schema).await? {
        let schema = format!("{}.{}", super::names::printed(&name.database), super::names::printed(&name.schema));
        return Ok(SqlError::missing("Schema", schema));
    }
    Ok(SqlError::missing("Object", name))
}

/// Whether there is such a database.
///
/// # Errors
/// What Postgres answers.
pub async fn database_exists(connection: &mut PgConnection, database: &str) -> Result<bool, SqlError> {
    Ok(sqlx::query_scalar("select exists (select from emulator.database where name = $1)")
        .bind(database)
        .fetch_one(connection)
        .await?)
}

/// Whether there is such a schema.
///
/// # Errors
/// What Postgres answers.
pub async fn schema_exists(connection: &mut PgConnection, database: &str, schema: &str) -> Result<bool, SqlError> {
    Ok(sqlx::query_scalar("select exists (select from emulator.schema where database = $1 and name = $2)")
        .bind(database)
        .bind(schema)
        .fetch_one(connection)
        .await?)
}

/// Checks that a new object's database and schema exist.
///
/// # Errors
/// 002003 naming the one that does not.
pub async fn require_schema(connection: &mut PgConnection, name: &FullName) -> Result<(), SqlError> {
    if schema_exists(connection, &name.database, &name.schema).await? {
        return Ok(());
    }
    Err(missing(connection, name).await?)
}

/// An object's id and kind.
///
/// # Errors
/// What Postgres answers.
pub async fn object(
    connection: &mut PgConnection,
    name: &FullName,
    session: Uuid,
) -> Result<Option<(i64, String)>, SqlError> {
    Ok(sqlx::query_as(
        "select id, kind
         from emulator.object
         where database = $1 and schema = $2 and name = $3 and kind <> 'TASK'
           and (session is null or session = $4)
         order by session nulls last
         limit 1",
    )
    .bind(&name.database)
    .bind(&name.schema)
    .bind(&name.name)
    .bind(session)
    .fetch_optional(connection)
    .await?)
}

/// Whether a session has an object of its own of that name.
///
/// # Errors
/// What Postgres answers.
pub async fn is_of_session(connection: &mut PgConnection, name: &FullName, session: Uuid) -> Result<bool, SqlError> {
    Ok(sqlx::query_scalar(
        "select exists (
             select 1 from emulator.object
             where database = $1 and schema = $2 and name = $3 and session = $4)",
    )
    .bind(&name.database)
    .bind(&name.schema)
    .bind(&name.name)
    .bind(session)
    .fetch_one(connection)
    .await?)
}

async fn table(connection: &mut PgConnection, id: i64, name: FullName, tracked: bool) -> Result<Table, SqlError> {
    Ok(Table { id, name, columns: columns(connection, id).await?, tracked })
}

/// The columns of an object in order.
///
/// # Errors
/// What Postgres answers.
pub async fn columns(connection: &mut PgConnection, id: i64) -> Result<Vec<Column>, SqlError> {
    let rows: Vec<(String, sqlx::types::Json<Type>, bool)> =
        sqlx::query_as("select name, type, nullable from emulator.column where object_id = $1 order by ordinal")
            .bind(id)
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().map(|(name, ty, nullable)| Column { name, ty: ty.0, nullable }).collect())
}

/// A view's definition as it is kept: names of columns, one a line in JSON, then the query.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct ViewDefinition {
    pub columns: Vec<String>,
    pub query: String,
    pub database: Option<String>,
    pub schema: Option<String>,
    /// The statement that made it.
    pub text: String,
}

fn view(id: i64, name: FullName, definition: &str) -> Result<View, SqlError> {
    let kept: ViewDefinition = serde_json::from_str(definition)
        .map_err(|error| SqlError::new("000603", "XX000", format!("view definition of {name}: {error}")))?;
    Ok(View {
        id,
        name,
        columns: kept.columns,
        query: super::parse::query(&kept.query)?,
        context: Context { database: kept.database, schema: kept.schema },
    })
}

async fn stream(connection: &mut PgConnection, id: i64, name: FullName, session: Uuid) -> Result<Stream, SqlError> {
    let row = sqlx::query(
        "select source_id, source_name, mode, seen::text as seen, seen_ns::text as seen_ns, initial, stale
         from emulator.stream
         where object_id = $1",
    )
    .bind(id)
    .fetch_one(&mut *connection)
    .await?;
    let source = by_id(connection, row.try_get("source_id")?, session).await?;
    let source_name: String = row.try_get("source_name")?;
    Ok(Stream {
        id,
        source: source.map(Box::new).ok_or_else(|| {
            SqlError::compilation(
                "091901",
                "42S02",
                format!("Base table '{source_name}' dropped, cannot read from stream '{name}'."),
            )
        }),
        append_only: row.try_get::<String, _>("mode")? == "APPEND_ONLY",
        seen: row.try_get("seen")?,
        seen_ns: row.try_get::<String, _>("seen_ns")?.parse().unwrap_or_default(),
        initial: row.try_get("initial")?,
        stale: row.try_get("stale")?,
        name,
    })
}

/// Finds a table or view by its id.
///
/// # Errors
/// What Postgres answers.
pub async fn by_id(connection: &mut PgConnection, id: i64, session: Uuid) -> Result<Option<Relation>, SqlError> {
    let found: Option<(String, String, String)> =
        sqlx::query_as("select database, schema, name from emulator.object where id = $1")
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?;
    let Some((database, schema, name)) = found else { return Ok(None) };
    let parts = [database, schema, name];
    match relation(connection, &Context::default(), &parts, session).await {
        Ok(found) => Ok(Some(found)),
        Err(_) => Ok(None),
    }
}

/// Writes an object down and gives its id.
///
/// # Errors
/// 002002 when another session was quicker.
pub async fn add_object(
    connection: &mut PgConnection,
    kind: &str,
    name: &FullName,
    now_ms: i64,
    comment: &str,
    definition: &str,
) -> Result<i64, SqlError> {
    sqlx::query_scalar(
        "insert into emulator.object (kind, database, schema, name, created_ms, comment, definition)
         values ($1, $2, $3, $4, $5, $6, $7)
         returning id",
    )
    .bind(kind)
    .bind(&name.database)
    .bind(&name.schema)
    .bind(&name.name)
    .bind(now_ms)
    .bind(comment)
    .bind(definition)
    .fetch_one(connection)
    .await
    .map_err(|error| match SqlError::from(error) {
        taken if taken.code == "002002" => SqlError::exists(&name.to_string()),
        other => other,
    })
}

/// Runs Postgres statements that this program wrote.
///
/// # Errors
/// What Postgres answers, in Snowflake's words.
pub async fn run(connection: &mut PgConnection, sql: String) -> Result<u64, SqlError> {
    Ok(sqlx::query(AssertSqlSafe(sql)).persistent(false).execute(connection).await?.rows_affected())
}
