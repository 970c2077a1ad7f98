//! Reading a batch: one statement in strict order, from a token on.
//!
//! Modes `full`, `changes` and `diff` read their batch table by ordinal; every ordinal is looked at, so a missing row cannot go unnoticed. Mode
//! `incremental` reads by cursor and key, up to the bound that was sealed. A token is never given between two
//! rows of one key, so a repeated key is seen as such whatever the chunks.

use freshet_core::connector::{
    Cell, Change, Column, Flow, Kind, Op, ReadEnd, ReadMode, ReadPlan, ReadRequest, Row, Sink,
};
use freshet_core::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalogue::{column_of, refuse_differing};
use super::changes;
use super::client::{QueryTag, Rows, Statement};
use super::diff;
use super::seal::{Batch, Bound, cursor_kind};
use super::session::Session;
use super::sql::{self, BatchTable, Stage, identifiers, typed_literal};
use crate::formats::json;

/// A place in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum Token {
    /// After a row of a batch table.
    Ordinal {
        /// Its ordinal.
        ordinal: i64,
    },
    /// After a row of a model.
    Row {
        /// The cursor.
        cursor: String,
        /// The columns of the key.
        key: Vec<String>,
    },
}

impl Token {
    pub(super) fn parse(token: &Value) -> Result<Self> {
        serde_json::from_value(token.clone())
            .map_err(|error| Error::new(Code::Internal, "the sync's position does not read").caused_by(error))
    }

    pub(super) fn write(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The last row of a batch table that was handed on; 0 for none.
    pub(super) fn ordinal(from: Option<&Self>) -> Result<i64> {
        match from {
            None => Ok(0),
            Some(Self::Ordinal { ordinal }) => Ok(*ordinal),
            Some(Self::Row { .. }) => Err(Error::new(Code::Internal, "the sync's position is of another mode")),
        }
    }

    /// The rows after this place, in an incremental model.
    pub(super) fn condition(&self, plan: &ReadPlan) -> Result<String> {
        let (Self::Row { cursor, key }, ReadMode::Incremental { cursor: name }) = (self, &plan.mode) else {
            return Err(Error::new(Code::Internal, "the sync's position is of another mode"));
        };
        let names: Vec<_> = std::iter::once(name).chain(&plan.key).cloned().collect();
        let texts = std::iter::once(cursor).chain(key);
        let literals = names.iter().zip(texts).map(|(name, text)| Ok(typed_literal(column(plan, name)?.kind, text)));
        let literals = literals.collect::<Result<Vec<_>>>()?;
        if literals.len() != names.len() {
            return Err(Error::new(Code::Internal, "the sync's position is of another key"));
        }
        Ok(sql::after(&names, &literals))
    }
}

fn column<'a>(plan: &'a ReadPlan, name: &str) -> Result<&'a Column> {
    plan.columns
        .iter()
        .find(|column| column.name == name)
        .ok_or_else(|| Error::new(Code::ModelKeyMissing, format!("the column `{name}` is not in the model")))
}

/// Reads a batch.
pub(super) async fn read(session: &mut Session, request: &ReadRequest, sink: &mut dyn Sink) -> Result<ReadEnd> {
    let plan = &request.plan;
    let from = request.from.as_ref().map(Token::parse).transpose()?;
    let tag = QueryTag::of_batch(&request.name);
    refuse_unordered(plan)?;
    match (Batch::parse(&request.batch)?, &plan.mode) {
        (Batch::Full { schema, table, rows }, ReadMode::Full) => {
            let table = BatchTable { schema, name: table };
            let from = Token::ordinal(from.as_ref())?;
            let statement = Statement::large(table.read(&plan.columns, Stage::Full, from)).tagged(tag);
            let found = session.client()?.rows(&statement).await.map_err(table_gone)?;
            read_full(found, plan, from, Some(rows), sink).await
        }
        (Batch::Incremental(bound), ReadMode::Incremental { cursor }) => {
            let statement = Statement::large(incremental(plan, cursor, &bound, from)?).tagged(tag);
            read_incremental(session.client()?.rows(&statement).await?, plan, cursor, sink).await
        }
        (Batch::Changes(taken), ReadMode::Changes { duplicate_keys }) => {
            changes::read(session, request, &taken, *duplicate_keys, from, sink).await
        }
        (Batch::Diff(difference), ReadMode::Diff) => diff::read(session, request, &difference, from, sink).await,
        _ => Err(Error::new(Code::Internal, "the sealed batch is of another mode")),
    }
}

/// A batch table that is gone is no fault of the model.
pub(super) fn table_gone(error: Error) -> Error {
    match error.code {
        Code::ModelObjectMissing => {
            Error::new(Code::SnowflakeResultGone, error.message.clone()).caused_by(error.chain())
        }
        _ => error,
    }
}

/// The statement of the rows up to a bound.
pub(super) fn incremental(plan: &ReadPlan, cursor: &str, bound: &Bound, from: Option<Token>) -> Result<String> {
    let kind = cursor_kind(plan, cursor)?;
    let upper = bound.condition(cursor, kind);
    let condition = match from.as_ref().or(bound.after.as_ref()) {
        Some(from) => format!("{upper} and {}", from.condition(plan)?),
        None => upper,
    };
    let order = identifiers(std::iter::once(cursor).chain(plan.key.iter().map(String::as_str)));
    Ok(format!("{}\nwhere {condition}\norder by {order}", sql::select(&plan.model, &plan.columns)))
}

/// Refuses a key that has no order.
pub(super) fn refuse_unordered(plan: &ReadPlan) -> Result<()> {
    for name in &plan.key {
        let column = column(plan, name)?;
        if matches!(column.kind, Kind::Json | Kind::Interval) {
            let told = format!("the column `{name}` of type {} cannot be a key", column.source_type);
            return Err(Error::new(Code::ModelTypeUnsupported, told));
        }
    }
    Ok(())
}

/// Hands on rows with ordinals; all that were announced, if it was said how many there are.
pub(super) async fn read_full(
    mut rows: Rows,
    plan: &ReadPlan,
    from: i64,
    announced: Option<u64>,
    sink: &mut dyn Sink,
) -> Result<ReadEnd> {
    let (found, _) = rows.columns().split_at(plan.columns.len().min(rows.columns().len()));
    refuse_differing(&plan.columns, &found.iter().map(column_of).collect::<Result<Vec<_>>>()?)?;
    let mut pusher = Pusher::new(plan)?;
    let mut row = Row::default();
    let mut last = from;
    while rows.next(&mut row).await? {
        let ordinal = ordinal(&mut row);
        if ordinal != Some(last + 1) {
            return Err(Error::new(Code::SnowflakeAnswer, format!("a batch table's row {} is missing", last + 1)));
        }
        let before = last;
        last += 1;
        pusher.push(Op::Read, &mut row, |_: &Row| Token::Ordinal { ordinal: before }, sink).await?;
    }
    if let Some(announced) = announced
        && u64::try_from(last).ok() != Some(announced)
    {
        let told = format!("a batch table ends at row {last} of {announced}");
        return Err(Error::new(Code::SnowflakeAnswer, told));
    }
    Ok(ReadEnd { token: (last > from).then(|| Token::Ordinal { ordinal: last }.write()) })
}

/// Takes the ordinal off a row of a batch table.
pub(super) fn ordinal(row: &mut Row) -> Option<i64> {
    match row.pop()? {
        Cell::Int(ordinal) => Some(ordinal),
        Cell::Number(span) => std::str::from_utf8(row.bytes(span)).ok()?.parse().ok(),
        _ => None,
    }
}

/// Hands on rows of a model as they are.
pub(super) async fn read_incremental(
    mut rows: Rows,
    plan: &ReadPlan,
    cursor: &str,
    sink: &mut dyn Sink,
) -> Result<ReadEnd> {
    refuse_differing(&plan.columns, &rows.columns().iter().map(column_of).collect::<Result<Vec<_>>>()?)?;
    let mut pusher = Pusher::new(plan)?;
    let cursor = place(plan, cursor)?;
    let key = pusher.key.clone();
    let token = |row: &Row| Token::Row {
        cursor: cell_text(row, cursor),
        key: key.iter().map(|k| cell_text(row, *k)).collect(),
    };
    let mut row = Row::default();
    while rows.next(&mut row).await? {
        pusher.push(Op::Update, &mut row, token, sink).await?;
    }
    Ok(ReadEnd { token: pusher.any.then(|| token(&pusher.last).write()) })
}

/// Hands rows to a sink, and a full chunk over once a row of another key comes.
struct Pusher {
    /// The places of the key's columns.
    key: Vec<usize>,
    last: Row,
    any: bool,
    full: bool,
}

impl Pusher {
    fn new(plan: &ReadPlan) -> Result<Self> {
        let key = plan.key.iter().map(|name| place(plan, name)).collect::<Result<_>>()?;
        Ok(Self { key, last: Row::default(), any: false, full: false })
    }

    /// Takes one row; `token` gives the place after the row before it.
    async fn push(
        &mut self,
        op: Op,
        row: &mut Row,
        token: impl FnOnce(&Row) -> Token,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        if self.full && !self.key.iter().all(|place| same(row, &self.last, *place)) {
            sink.flush(token(&self.last).write()).await?;
            self.full = false;
        }
        if sink.push(Change { op, before: None, after: Some(row) })? == Flow::Full {
            self.full = true;
        }
        self.any = true;
        std::mem::swap(row, &mut self.last);
        Ok(())
    }
}

pub(super) fn place(plan: &ReadPlan, name: &str) -> Result<usize> {
    let place = plan.columns.iter().position(|column| column.name == name);
    place.ok_or_else(|| Error::new(Code::ModelKeyMissing, format!("the column `{name}` is not in the model")))
}

fn same(one: &Row, other: &Row, place: usize) -> bool {
    cell_text(one, place) == cell_text(other, place)
}

/// A cell in a text that [`typed_literal`] makes the same value of again.
pub(super) fn cell_text(row: &Row, place: usize) -> String {
    let mut out = Vec::new();
    match row.cells()[place] {
        Cell::Bytes(span) => out.extend(row.bytes(span).iter().flat_map(|byte| format!("{byte:02X}").into_bytes())),
        // An instant: in UTC, its zone written in digits.
        Cell::TimestampTz(seconds, nanos, _) => {
            let mut utc = Row::default();
            utc.push(Cell::Timestamp(seconds, nanos));
            json::cell_text(&utc, 0, &mut out);
            out.extend_from_slice(b"+00:00");
        }
        _ => json::cell_text(row, place, &mut out),
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use freshet_core::connector::ModelSpec;

    fn plan() -> ReadPlan {
        let column = |name: &str, kind, source_type: &str| Column {
            name: name.into(),
            kind,
            source_type: source_type.into(),
            nullable: false,
        };
        ReadPlan {
            model: ModelSpec::Table { schema: "PUBLIC".into(), table: "ORDERS".into() },
            columns: vec![column("ID", Kind::Text, "text"), column("AT", Kind::TimestampTz, "timestamp_ltz(9)")],
            key: vec!["ID".into()],
            mode: ReadMode::Incremental { cursor: "AT".into() },
        }
    }

    #[test]
    fn an_incremental_read_goes_on_after_its_token_and_stops_at_its_bound() {
        let after = Token::Row { cursor: "2026-01-01T00:00:00+00:00".into(), key: vec!["o'clock".into()] };
        let bound = Bound { after: Some(after), upper: "2026-02-01T00:00:00.000000001+00:00".into(), inclusive: false };

        let sql = incremental(&plan(), "AT", &bound, None).unwrap();

        assert_eq!(
            sql,
            "select \"ID\", \"AT\" from \"PUBLIC\".\"ORDERS\"\n\
             where \"AT\" < '2026-02-01T00:00:00.000000001+00:00'::timestamp_tz \
             and (\"AT\" > '2026-01-01T00:00:00+00:00'::timestamp_tz \
             or (\"AT\" = '2026-01-01T00:00:00+00:00'::timestamp_tz and (\"ID\" > 'o''clock')))\n\
             order by \"AT\", \"ID\""
        );
    }

    #[test]
    fn tokens_read_back() {
        let tokens =
            [Token::Ordinal { ordinal: 7 }, Token::Row { cursor: "1".into(), key: vec!["a".into(), "b".into()] }];

        for token in tokens {
            assert_eq!(Token::parse(&token.write()).unwrap(), token);
        }
    }

    #[test]
    fn an_instant_is_written_in_utc_whatever_its_zone() {
        let mut row = Row::default();
        row.push(Cell::TimestampTz(1_616_173_619, 500_000_000, 60));
        row.push_bytes(Cell::Bytes, &[0, 255]);

        assert_eq!(cell_text(&row, 0), "2021-03-19T17:06:59.500+00:00");
        assert_eq!(cell_text(&row, 1), "00FF");
    }
}
