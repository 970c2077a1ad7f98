//! A session: one request's statements on one Postgres connection.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt;
use sqlparser::ast::{SetExpr, Statement};
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Postgres, Row};
use uuid::Uuid;

use super::bind::{Binder, Known, Surroundings};
use super::cursor::Cursor;
use super::error::SqlError;
use super::parse::Piece;
use super::types::Column;
use super::{definitions, manipulation, parse, show};
use crate::clock::Clock;
use crate::results::{self, Cut, ResultSet, Writer};

/// An explicit transaction.
#[derive(Debug, Default)]
struct Transaction {
    /// What was visible when it began: where reads of streams end.
    snapshot: String,
    /// Streams that a DML read: their offsets move at COMMIT.
    consumed: BTreeSet<i64>,
    /// Begun by BEGIN, not by a single statement.
    explicit: bool,
    /// A statement may have changed rows.
    writes: bool,
}

/// One request's session.
pub struct Session {
    connection: PoolConnection<Postgres>,
    pub clock: Arc<Clock>,
    pub around: Surroundings,
    pub id: Uuid,
    pub cut: Cut,
    transaction: Option<Transaction>,
    has_temporary: bool,
}

/// What a statement needs and does; decides about locks, commits and warehouses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SHOW, DESCRIBE, USE, SYSTEM$STREAM_HAS_DATA alone: no warehouse.
    Metadata,
    /// SELECT.
    Query,
    /// INSERT, UPDATE, DELETE, MERGE.
    Manipulation,
    /// CREATE, DROP, ALTER without rows: no warehouse.
    Definition,
    /// CREATE TABLE … AS SELECT.
    DefinitionWithRows,
    /// BEGIN, COMMIT, ROLLBACK.
    Transaction,
}

impl Kind {
    /// Whether a warehouse must run.
    pub fn needs_warehouse(self) -> bool {
        matches!(self, Self::Query | Self::Manipulation | Self::DefinitionWithRows)
    }
}

/// Says what kind of statement it is, by its tokens alone.
pub fn kind(piece: &Piece) -> Kind {
    let mut cursor = Cursor::new(&piece.tokens);
    for words in ["show", "describe", "desc", "use"] {
        if cursor.take(words) {
            return Kind::Metadata;
        }
    }
    for words in ["begin", "start", "commit", "rollback"] {
        if cursor.take(words) {
            return Kind::Transaction;
        }
    }
    for words in ["insert", "update", "delete", "merge"] {
        if cursor.take(words) {
            return Kind::Manipulation;
        }
    }
    if cursor.take("select") || cursor.take("with") || cursor.take("values") || piece.text.starts_with('(') {
        return if only_asks_the_catalog(piece) { Kind::Metadata } else { Kind::Query };
    }
    let makes_rows = piece.tokens.windows(2).any(|pair| {
        let word = |token: &sqlparser::tokenizer::Token, wanted: &str| matches!(token, sqlparser::tokenizer::Token::Word(word) if word.value.eq_ignore_ascii_case(wanted));
        word(&pair[0], "as") && (word(&pair[1], "select") || word(&pair[1], "with") || pair[1] == sqlparser::tokenizer::Token::LParen)
    });
    let view = piece.tokens.iter().take(5).any(|token| matches!(token, sqlparser::tokenizer::Token::Word(word) if word.value.eq_ignore_ascii_case("view") || word.value.eq_ignore_ascii_case("task")));
    if cursor.take("create") && makes_rows && !view { Kind::DefinitionWithRows } else { Kind::Definition }
}

/// `SELECT SYSTEM$STREAM_HAS_DATA('s')`, `SELECT CURRENT_USER()`: a SELECT without FROM over such functions.
fn only_asks_the_catalog(piece: &Piece) -> bool {
    let Ok(Statement::Query(query)) = parse::statement(&piece.tokens) else { return false };
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let asks = |text: String| {
        let text = text.to_uppercase();
        text.starts_with("SYSTEM$STREAM_") || text.starts_with("CURRENT_")
    };
    select.from.is_empty() && select.selection.is_none() && select.projection.iter().all(|item| asks(item.to_string()))
}

impl Session {
    /// Opens a session on a connection.
    pub fn new(connection: PoolConnection<Postgres>, clock: Arc<Clock>, around: Surroundings, cut: Cut) -> Self {
        Self { connection, clock, around, id: Uuid::new_v4(), cut, transaction: None, has_temporary: false }
    }

    /// The Postgres connection.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// The process id of the Postgres back end, for cancelling.
    ///
    /// # Errors
    /// What Postgres answers.
    pub async fn backend(&mut self) -> Result<i32, SqlError> {
        Ok(sqlx::query_scalar("select pg_backend_pid()").fetch_one(self.connection()).await?)
    }

    /// Notes that the session has temporary tables to drop.
    pub fn note_temporary(&mut self) {
        self.has_temporary = true;
    }

    /// Runs one statement. Outside of BEGIN … COMMIT it is a transaction of its own.
    ///
    /// # Errors
    /// The statement's error; its own changes are undone.
    pub async fn run(&mut self, piece: &Piece) -> Result<ResultSet, SqlError> {
        self.around.now_ns = self.clock.now_ns();
        let kind = kind(piece);
        let is_use = Cursor::new(&piece.tokens).take("use");
        match kind {
            Kind::Transaction => return self.transaction_control(piece).await,
            // DDL commits what is open, and so does CTAS.
            Kind::Definition | Kind::DefinitionWithRows => self.commit().await?,
            Kind::Metadata if is_use => return self.use_context(piece).await,
            Kind::Metadata | Kind::Query | Kind::Manipulation => {}
        }
        if self.transaction.is_some() {
            return self.run_in_transaction(kind, piece).await;
        }
        self.begin(false).await?;
        let outcome = self.run_in_transaction(kind, piece).await;
        match outcome {
            Ok(result) => {
                self.commit().await?;
                Ok(result)
            }
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    async fn run_in_transaction(&mut self, kind: Kind, piece: &Piece) -> Result<ResultSet, SqlError> {
        if let Some(transaction) = &mut self.transaction {
            transaction.writes |= matches!(kind, Kind::Manipulation | Kind::Definition | Kind::DefinitionWithRows);
        }
        match kind {
            Kind::Metadata if Cursor::new(&piece.tokens).take("show") => show::show(self, piece).await,
            Kind::Metadata if !Cursor::new(&piece.tokens).take("select") => show::describe(self, piece).await,
            Kind::Metadata | Kind::Query => self.query(piece).await,
            Kind::Manipulation => manipulation::run(self, piece).await,
            Kind::Definition | Kind::DefinitionWithRows => definitions::run(self, piece).await,
            Kind::Transaction => self.transaction_control(piece).await,
        }
    }

    async fn begin(&mut self, explicit: bool) -> Result<(), SqlError> {
        self.connection().execute("begin").await?;
        let snapshot = sqlx::query_scalar("select pg_current_snapshot()::text").fetch_one(self.connection()).await?;
        self.transaction = Some(Transaction { snapshot, consumed: BTreeSet::new(), explicit, writes: false });
        Ok(())
    }

    /// Commits what is open, if anything, and moves the offsets of consumed streams.
    ///
    /// # Errors
    /// What Postgres answers; nothing is kept then.
    pub async fn commit(&mut self) -> Result<(), SqlError> {
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        for stream in &transaction.consumed {
            self.advance(*stream, &transaction.snapshot).await?;
        }
        self.connection().execute("commit").await?;
        if transaction.writes {
            self.note_moment().await?;
        }
        Ok(())
    }

    /// Remembers what is visible now, for CHANGES … AT.
    async fn note_moment(&mut self) -> Result<(), SqlError> {
        let now = self.clock.now_ns().to_string();
        sqlx::query("insert into emulator.moment (at_ns, seen) values ($1::numeric, pg_current_snapshot())")
            .bind(now)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Undoes what is open, if anything.
    pub async fn roll_back(&mut self) {
        if self.transaction.take().is_some() {
            // When Postgres is gone there is nothing left to undo.
            let _ = self.connection().execute("rollback").await;
        }
    }

    async fn advance(&mut self, stream: i64, end: &str) -> Result<(), SqlError> {
        let now = self.clock.now_ns().to_string();
        sqlx::query(
            "update emulator.stream
             set seen = case
                   when initial then seen
                   when pg_snapshot_xmax(seen) > pg_snapshot_xmax($2::pg_snapshot) then seen
                   else $2::pg_snapshot end,
                 seen_ns = $3::numeric,
                 initial = false
             where object_id = $1",
        )
        .bind(stream)
        .bind(end)
        .bind(now)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    async fn transaction_control(&mut self, piece: &Piece) -> Result<ResultSet, SqlError> {
        let mut cursor = Cursor::new(&piece.tokens);
        if cursor.take("commit") {
            let _ = cursor.take("work") || cursor.take("transaction");
            cursor.end()?;
            self.commit().await?;
        } else if cursor.take("rollback") {
            let _ = cursor.take("work") || cursor.take("transaction");
            cursor.end()?;
            self.roll_back().await;
        } else {
            let _ =
                (cursor.take("begin") || cursor.take("start")) && (cursor.take("transaction") || cursor.take("work"));
            if cursor.take("name") {
                cursor.word()?;
            }
            cursor.end()?;
            // A BEGIN inside a transaction is ignored, as Snowflake documents.
            if self.transaction.is_none() {
                self.begin(true).await?;
            }
        }
        self.status("Statement executed successfully.").await
    }

    async fn use_context(&mut self, piece: &Piece) -> Result<ResultSet, SqlError> {
        let mut cursor = Cursor::new(&piece.tokens);
        cursor.expect("use")?;
        if cursor.take("warehouse") {
            self.around.warehouse = Some(cursor.word()?);
        } else if cursor.take("role") {
            self.around.role = cursor.word()?;
        } else {
            let schema_alone = cursor.take("schema");
            let _ = !schema_alone && cursor.take("database");
            let parts = cursor.name()?;
            match parts.as_slice() {
                [schema] if schema_alone => self.around.context.schema = Some(schema.clone()),
                [database] => {
                    self.around.context.database = Some(database.clone());
                    self.around.context.schema = Some("PUBLIC".into());
                }
                [database, schema] => {
                    self.around.context.database = Some(database.clone());
                    self.around.context.schema = Some(schema.clone());
                }
                _ => return Err(cursor.unexpected()),
            }
        }
        cursor.end()?;
        self.status("Statement executed successfully.").await
    }

    /// Fetches what a consuming statement names, with its streams locked until the end of the transaction.
    ///
    /// # Errors
    /// What Postgres answers.
    pub async fn consume<T: sqlparser::ast::Visit>(&mut self, part: &T) -> Result<Known, SqlError> {
        let context = self.around.context.clone();
        let id = self.id;
        let known = Known::fetch(self.connection(), &context, id, part).await?;
        if known.streams_read.is_empty() {
            return Ok(known);
        }
        sqlx::query("select 1 from emulator.stream where object_id = any($1) order by object_id for update")
            .bind(&known.streams_read)
            .execute(self.connection())
            .await?;
        // Another consumer may have moved the offset while this one waited.
        let known = Known::fetch(self.connection(), &context, id, part).await?;
        let now: String = sqlx::query_scalar("select pg_current_snapshot()::text").fetch_one(self.connection()).await?;
        if let Some(transaction) = &mut self.transaction {
            transaction.consumed.extend(&known.streams_read);
            // A single statement reads up to when it got the lock; a transaction up to its start.
            if !transaction.explicit {
                transaction.snapshot = now;
            }
        }
        Ok(known)
    }

    /// Where reads of streams end.
    pub fn stream_end(&self) -> Option<String> {
        self.transaction.as_ref().map(|transaction| transaction.snapshot.clone())
    }

    async fn query(&mut self, piece: &Piece) -> Result<ResultSet, SqlError> {
        let Statement::Query(query) = parse::statement(&piece.tokens)? else {
            return Err(SqlError::unsupported(&piece.text));
        };
        let (context, id) = (self.around.context.clone(), self.id);
        let known = Known::fetch(self.connection(), &context, id, query.as_ref()).await?;
        let bound = Binder::new(&known, &self.around, self.stream_end()).query(&query)?;
        let cells: Vec<String> = bound
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| format!("{} as c{}", column.ty.encode(&format!("q.c{}", at + 1)), at + 1))
            .collect();
        let sql = format!("select {} from ({}) q", cells.join(", "), bound.sql);
        tracing::debug!(%sql, "bound");
        self.fetch(sql, bound.columns).await
    }

    /// Runs Postgres SQL whose cells are wire text and makes a result of its rows.
    ///
    /// # Errors
    /// What Postgres answers.
    pub async fn fetch(&mut self, sql: String, columns: Vec<Column>) -> Result<ResultSet, SqlError> {
        let width = columns.len();
        let mut writer = Writer::new(columns, self.cut);
        let mut rows = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch(&mut *self.connection);
        while let Some(row) = rows.try_next().await? {
            let mut cells: Vec<Option<&str>> = Vec::with_capacity(width);
            for at in 0..width {
                cells.push(row.try_get(at)?);
            }
            writer.push(cells.into_iter());
        }
        drop(rows);
        Ok(writer.finish().await)
    }

    /// The one-row answer of DDL.
    ///
    /// # Errors
    /// Never; a Result so that callers can return it.
    pub async fn status(&self, message: &str) -> Result<ResultSet, SqlError> {
        Ok(results::small(vec![Column::text("status")], &[vec![Some(message.to_owned())]], self.cut).await)
    }

    /// Ends the session: what is open is rolled back, temporary tables go.
    pub async fn close(mut self) {
        self.roll_back().await;
        if self.has_temporary {
            let id = self.id;
            if let Err(error) = definitions::drop_temporary(self.connection(), id).await {
                tracing::warn!(%error, "temporary tables of session {id} are left");
            }
        }
    }
}
