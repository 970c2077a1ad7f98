//! What flows: rows of cells, with all their text in one buffer, used again for the next row.

use serde::{Deserialize, Serialize};

/// What a column holds, in the words every source shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// True or false.
    Bool,
    /// A whole number of at most 64 bits.
    Int,
    /// A binary floating-point number.
    Float,
    /// A decimal number of any size, with all its digits.
    Decimal,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A JSON document; arrays are JSON too.
    Json,
    /// A day.
    Date,
    /// A time of day.
    Time,
    /// A date and time without zone.
    Timestamp,
    /// An instant.
    TimestampTz,
    /// A duration in months, days and microseconds.
    Interval,
}

/// One column of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Column {
    /// Its name, as the source writes it.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// The source's own word for its type, `numeric(12,2)`.
    pub source_type: String,
    /// Whether it may be NULL; true where the source does not say.
    pub nullable: bool,
}

/// The columns of a model, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct Schema {
    /// In the order the source returns them.
    pub columns: Vec<Column>,
}

impl Schema {
    /// The place of a column.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// A place in a byte buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes of this place in `buffer`.
    #[must_use]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.end as usize]
    }
}

/// One value of a row. Text of any length lies in the row's buffer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite float; NaN and the infinities come as [`Cell::Text`].
    Float(f64),
    /// A finite single-precision float, kept apart for its shortest text.
    Float32(f32),
    /// A decimal number as plain text, `-12.50`, without exponent; NaN and infinities come as [`Cell::Text`].
    Number(Span),
    /// UTF-8 text; also what has no other form here, such as `infinity` in a date column.
    Text(Span),
    /// Bytes.
    Bytes(Span),
    /// A whole JSON document, valid and UTF-8.
    Json(Span),
    /// Days since 1970-01-01.
    Date(i32),
    /// Nanoseconds since midnight; 24:00:00 is 86 400 000 000 000.
    Time(u64),
    /// Seconds since 1970-01-01T00:00:00 of a clock without zone, and nanoseconds (0..10⁹) above them.
    Timestamp(i64, u32),
    /// Seconds since the Unix epoch, nanoseconds (0..10⁹) above them, and the zone's offset in minutes.
    TimestampTz(i64, u32, i16),
}

/// One row: its cells in column order. Meant to be cleared and filled again.
#[derive(Debug, Clone, Default)]
pub struct Row {
    cells: Vec<Cell>,
    bytes: Vec<u8>,
}

impl Row {
    /// Forgets the cells and keeps the memory.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.bytes.clear();
    }

    /// Takes the last cell off; its bytes, if any, stay until [`Row::clear`].
    pub fn pop(&mut self) -> Option<Cell> {
        self.cells.pop()
    }

    /// Adds a cell that needs no bytes.
    pub fn push(&mut self, cell: Cell) {
        self.cells.push(cell);
    }

    /// Adds a cell whose bytes `write` appends; `cell` wraps their place, [`Cell::Text`] for one.
    pub fn push_with<R>(&mut self, cell: impl FnOnce(Span) -> Cell, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let start = self.bytes.len() as u32;
        let result = write(&mut self.bytes);
        let end = self.bytes.len() as u32;
        self.cells.push(cell(Span { start, end }));
        result
    }

    /// Adds a cell with a copy of `bytes`.
    pub fn push_bytes(&mut self, cell: impl FnOnce(Span) -> Cell, bytes: &[u8]) {
        self.push_with(cell, |buffer| buffer.extend_from_slice(bytes));
    }

    /// The cells, in column order.
    #[must_use]
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// The bytes of a span of this row.
    #[must_use]
    pub fn bytes(&self, span: Span) -> &[u8] {
        span.of(&self.bytes)
    }

    /// How many bytes of text the row holds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Created.
    #[serde(rename = "c")]
    Create,
    /// Updated, or present in an incremental read.
    #[serde(rename = "u")]
    Update,
    /// Deleted.
    #[serde(rename = "d")]
    Delete,
    /// Read in full.
    #[serde(rename = "r")]
    Read,
}

impl Op {
    /// Debezium's letter.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read => "r",
        }
    }
}

/// One operation on one row.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// What happened.
    pub op: Op,
    /// The row before; for updates and deletes of sources that know it.
    pub before: Option<&'a Row>,
    /// The row after; none for a delete.
    pub after: Option<&'a Row>,
}

impl<'a> Change<'a> {
    /// The row whose key names the change: after, or before for a delete.
    #[must_use]
    pub fn row(&self) -> Option<&'a Row> {
        self.after.or(self.before)
    }
}
