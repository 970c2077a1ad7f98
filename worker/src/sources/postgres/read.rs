//! Streaming a batch: one statement in strict order, from a token on.
//!
//! Mode `full` reads by key: first the rows without one, which become dead letters, then the rest. Mode
//! `incremental` reads by cursor and key, up to the bound that was sealed. A token is never given
//! between two rows of one key, so a repeated key is seen as such whatever the chunks. Keys that the
//! server takes for one although their texts differ, `1.0` and `1.00`, are ordered by their texts too.

use freshet_core::connector::{Cell, Change, Column, Flow, Op, ReadEnd, ReadMode, ReadPlan, ReadRequest, Row, Sink};
use freshet_core::error::{Code, Error, Result};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};

use super::catalogue::{column_types, fill, is_key, not_a_key, quoted, refuse_changed};
use super::seal::{Bound, is_unique};
use super::session::{Session, failed};
use super::sql::{identifier, identifiers, relation, select};
use super::types::PgType;
use crate::formats::json;

/// A place in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    /// Rows without a key that are passed; only while `key` is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nulls: Option<i64>,
    /// The cursor of the last row passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
    /// The key of the last row passed, in the server's own texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Vec<String>>,
}

impl Token {
    pub(super) fn parse(token: &Value) -> Result<Self> {
        serde_json::from_value(token.clone())
            .map_err(|error| Error::new(Code::Internal, "the sync's position does not read").caused_by(error))
    }

    fn write(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Reads a batch.
pub(super) async fn read(session: &mut Session, request: &ReadRequest, sink: &mut dyn Sink) -> Result<ReadEnd> {
    let connection = session.open().await?;
    let done = read_on(connection, request, sink).await;
    if done.is_err() {
        // A statement may still be running on it.
        session.forget();
    }
    done
}

async fn read_on(connection: &mut PgConnection, request: &ReadRequest, sink: &mut dyn Sink) -> Result<ReadEnd> {
    let plan = &request.plan;
    refuse_changed(connection, plan).await?;
    let from = request.from.as_ref().map(Token::parse).transpose()?;
    match &plan.mode {
        ReadMode::Full => read_full(connection, plan, from, None, sink).await,
        ReadMode::Changes { .. } => Err(super::sql::no_streams()),
        ReadMode::Diff => Err(Error::new(Code::Internal, "a difference is read by its ordinals")),
        ReadMode::Incremental { cursor } => {
            let bound = Bound::parse(&request.batch)?;
            read_incremental(connection, plan, cursor, bound, from, None, sink).await
        }
    }
}

/// Reads up to a bound, from a token on, `limit` rows at most.
pub(super) async fn read_incremental(
    connection: &mut PgConnection,
    plan: &ReadPlan,
    cursor: &String,
    bound: Bound,
    from: Option<Token>,
    limit: Option<usize>,
    sink: &mut dyn Sink,
) -> Result<ReadEnd> {
    let types = column_types(connection, &select(&plan.model, &plan.columns)).await?;
    let order = Order::new(connection, plan, &types, Some(cursor)).await?;
    let upper = bound.condition(cursor);
    let sql = limited(order.statement(plan, from.or(bound.after).as_ref(), Some(&upper)), limit);
    let token = stream(connection, plan, &types, &order, Op::Update, &sql, sink).await?;
    Ok(ReadEnd { token: token.map(|token| token.write()) })
}

/// The statement of the rows up to a bound.
pub(super) async fn incremental_rows(
    connection: &mut PgConnection,
    plan: &ReadPlan,
    cursor: &String,
    bound: &Bound,
) -> Result<String> {
    let types = column_types(connection, &select(&plan.model, &plan.columns)).await?;
    let order = Order::new(connection, plan, &types, Some(cursor)).await?;
    Ok(order.statement(plan, bound.after.as_ref(), Some(&bound.condition(cursor))))
}

fn limited(sql: String, limit: Option<usize>) -> String {
    match limit {
        Some(limit) => format!("{sql} limit {limit}"),
        None => sql,
    }
}

/// Reads every row, from a token on; `limit` rows at most of those without a key, and of the others.
pub(super) async fn read_full(
    connection: &mut PgConnection,
    plan: &ReadPlan,
    from: Option<Token>,
    limit: Option<usize>,
    sink: &mut dyn Sink,
) -> Result<ReadEnd> {
    let types = column_types(connection, &select(&plan.model, &plan.columns)).await?;
    let order = Order::new(connection, plan, &types, None).await?;
    let from_key = from.clone().filter(|token| token.key.is_some());
    let mut end = None;
    if from_key.is_none() && order.may_be_null {
        let passed = from.and_then(|token| token.nulls).unwrap_or(0);
        end = stream_without_key(connection, plan, &types, &order, (passed, limit), sink).await?;
    }
    let sql = limited(order.statement(plan, from_key.as_ref(), None), limit);
    let token = stream(connection, plan, &types, &order, Op::Read, &sql, sink).await?;
    Ok(ReadEnd { token: token.or(end).map(|token| token.write()) })
}

/// The columns that a batch is ordered by.
struct Order {
    /// Cursor first, if any; then the key.
    names: Vec<String>,
    /// Their places among the plan's columns.
    places: Vec<usize>,
    has_cursor: bool,
    may_be_null: bool,
    ties: Vec<Tie>,
}

/// A column of the key that may have equal values of different texts.
struct Tie {
    /// Its place among the order's names.
    place: usize,
    /// The type through which its value gets the server's own text.
    cast: &'static str,
}

impl Tie {
    fn of(&self, value: &str) -> String {
        format!("{value}::{}::text collate \"C\"", self.cast)
    }
}

impl Order {
    async fn new(
        connection: &mut PgConnection,
        plan: &ReadPlan,
        types: &[PgType],
        cursor: Option<&String>,
    ) -> Result<Self> {
        let names: Vec<String> = cursor.into_iter().chain(&plan.key).cloned().collect();
        let place = |name: &String| {
            plan.columns
                .iter()
                .position(|column| column.name == *name)
                .ok_or_else(|| Error::new(Code::ModelKeyMissing, format!("the column `{name}` is not in the model")))
        };
        let places = names.iter().map(place).collect::<Result<Vec<_>>>()?;
        let may_be_null =
            plan.key.iter().any(|name| plan.columns.iter().any(|column| column.name == *name && column.nullable));
        let mut order = Self { names, places, has_cursor: cursor.is_some(), may_be_null, ties: Vec::new() };
        order.refuse_unordered(types, &plan.columns)?;
        if let [only] = plan.key.as_slice()
            && is_unique(connection, &plan.model, only).await?
        {
            return Ok(order);
        }
        for place in usize::from(order.has_cursor)..order.names.len() {
            let column = &plan.columns[order.places[place]];
            if let Some(cast) = equal_texts(connection, plan, column).await? {
                order.ties.push(Tie { place, cast });
            }
        }
        Ok(order)
    }

    fn statement(&self, plan: &ReadPlan, from: Option<&Token>, upper: Option<&str>) -> String {
        let mut conditions: Vec<String> = Vec::new();
        if let Some(texts) = from.and_then(|token| self.texts(token)) {
            let mut texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
            texts.extend(self.ties.iter().map(|tie| tie.of(&texts[tie.place])).collect::<Vec<_>>());
            conditions.push(format!("({}) > ({})", self.expressions(), texts.join(", ")));
        }
        if self.may_be_null {
            // A row with NULL in a later column of the key compares as greater by the columns before it.
            conditions.extend(self.names.iter().map(|name| format!("{} is not null", identifier(name))));
        }
        conditions.extend(upper.map(str::to_owned));
        let condition =
            if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) };
        format!("{}{condition} order by {}", select(&plan.model, &plan.columns), self.expressions())
    }

    /// What the rows are ordered by, with commas.
    fn expressions(&self) -> String {
        let ties = self.ties.iter().map(|tie| tie.of(&identifier(&self.names[tie.place])));
        std::iter::once(identifiers(&self.names)).chain(ties).collect::<Vec<_>>().join(", ")
    }

    fn texts(&self, token: &Token) -> Option<Vec<String>> {
        let key = token.key.clone()?;
        match (self.has_cursor, token.cursor.clone()) {
            (true, Some(cursor)) => Some(std::iter::once(cursor).chain(key).collect()),
            (true, None) => None,
            (false, _) => Some(key),
        }
    }

    /// The token after a row.
    fn token(&self, row: &Row) -> Token {
        let mut texts: Vec<_> = self.places.iter().map(|place| server_text(row, *place)).collect();
        let cursor = self.has_cursor.then(|| texts.remove(0));
        Token { nulls: None, cursor, key: Some(texts) }
    }

    fn refuse_unordered(&self, types: &[PgType], columns: &[Column]) -> Result<()> {
        match self.places.iter().find(|place| !is_key(&types[**place], &columns[**place].source_type)) {
            None => Ok(()),
            Some(place) => {
                let column = &columns[*place];
                Err(not_a_key(&column.name, &column.source_type))
            }
        }
    }
}

/// The cast for a key's column whose equal values can have different texts: `1.0` and `1.00`, `0` and `-0`, or what a
/// collation takes for equal; none for any other.
async fn equal_texts(connection: &mut PgConnection, plan: &ReadPlan, column: &Column) -> Result<Option<&'static str>> {
    let cast = match column.source_type.as_str() {
        "numeric" => return Ok(Some("numeric")),
        "float4" => return Ok(Some("float4")),
        "float8" => return Ok(Some("float8")),
        "citext" => return Ok(Some("text")),
        "text" | "varchar" => "text",
        // The driver's name of `char(n)`.
        "char" => "bpchar",
        _ => return Ok(None),
    };
    let sql = format!(
        "select exists (
             select 1
             from (select) as one
             left join (select * from {}) as model on false
             join pg_collation as c on c.oid = (collation for (model.{}))::regcollation
             where not c.collisdeterministic)",
        relation(&plan.model),
        identifier(&column.name),
    );
    let ignores: bool = sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .map_err(failed("cannot read the key's collation"))?;
    Ok(ignores.then_some(cast))
}

async fn stream(
    connection: &mut PgConnection,
    plan: &ReadPlan,
    types: &[PgType],
    order: &Order,
    op: Op,
    sql: &str,
    sink: &mut dyn Sink,
) -> Result<Option<Token>> {
    let mut rows = connection.fetch(sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(false));
    let (mut row, mut last) = (Row::default(), Row::default());
    let mut any = false;
    // The place after which the chunk is full; the next row of another key lets it go.
    let mut full: Option<Token> = None;
    while let Some(found) = rows.try_next().await.map_err(failed("reading the model broke off"))? {
        fill(&found, types, &plan.columns, &mut row)?;
        if let Some(token) = full.take() {
            if order.token(&row) == token {
                full = Some(token);
            } else {
                sink.flush(token.write()).await?;
            }
        }
        let flow = sink.push(Change { op, before: None, after: Some(&row) })?;
        if flow == Flow::Full && full.is_none() {
            full = Some(order.token(&row));
        }
        any = true;
        std::mem::swap(&mut row, &mut last);
    }
    Ok(any.then(|| order.token(&last)))
}

/// Rows with a NULL in the key, in the order of their whole texts: the token counts them. `passed` of them are left out,
/// `limit` are read at most.
async fn stream_without_key(
    connection: &mut PgConnection,
    plan: &ReadPlan,
    types: &[PgType],
    order: &Order,
    (passed, limit): (i64, Option<usize>),
    sink: &mut dyn Sink,
) -> Result<Option<Token>> {
    let missing: Vec<_> = order.names.iter().map(|name| format!("{} is null", identifier(name))).collect();
    let columns: Vec<_> = plan.columns.iter().map(|column| column.name.clone()).collect();
    let sql = format!(
        "{} where {} order by row({})::text collate \"C\" offset {passed}",
        select(&plan.model, &plan.columns),
        missing.join(" or "),
        identifiers(&columns),
    );
    let sql = limited(sql, limit);
    let mut rows = connection.fetch(sqlx::query(AssertSqlSafe(sql)).persistent(false));
    let mut row = Row::default();
    let mut token = None;
    let mut count = passed;
    while let Some(found) = rows.try_next().await.map_err(failed("reading the model broke off"))? {
        fill(&found, types, &plan.columns, &mut row)?;
        count += 1;
        let place = Token { nulls: Some(count), cursor: None, key: None };
        if sink.push(Change { op: Op::Read, before: None, after: Some(&row) })? == Flow::Full {
            sink.flush(place.write()).await?;
        }
        token = Some(place);
    }
    Ok(token)
}

/// A cell in a text that the server reads back as exactly the same value.
fn server_text(row: &Row, place: usize) -> String {
    let mut out = Vec::new();
    match row.cells()[place] {
        Cell::Bytes(span) => {
            out.extend_from_slice(b"\\x");
            out.extend(row.bytes(span).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
        }
        _ => json::cell_text(row, place, &mut out),
    }
    let text = String::from_utf8_lossy(&out).into_owned();
    match row.cells()[place] {
        Cell::Date(_) | Cell::Timestamp(..) | Cell::TimestampTz(..) => server_era(&text),
        _ => text,
    }
}

/// ISO 8601's signed year in the server's words: year 0 is 1 BC.
fn server_era(text: &str) -> String {
    if let Some(later) = text.strip_prefix('+') {
        return later.to_owned();
    }
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let Some((year, tail)) = rest.split_once('-') else { return text.to_owned() };
    match year.parse::<i64>() {
        Ok(year) if negative || year == 0 => format!("{:04}-{tail} BC", year + 1),
        _ => text.to_owned(),
    }
}

/// The FROM of a plan, for counts.
pub(super) fn source_of(plan: &ReadPlan) -> String {
    relation(&plan.model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_before_christ_read_back() {
        assert_eq!(server_era("0000-03-15"), "0001-03-15 BC");
        assert_eq!(server_era("-0043-03-15T00:00:00Z"), "0044-03-15T00:00:00Z BC");
        assert_eq!(server_era("+12026-01-01"), "12026-01-01");
        assert_eq!(server_era("2026-01-01"), "2026-01-01");
    }
}
