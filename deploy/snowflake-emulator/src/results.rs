//! Results: rows cut into partitions, each encoded once and kept until the result expires.

use std::io::Write;

use axum::body::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::task::JoinHandle;

use crate::sql::types::Column;

/// Text of partition 0, bytes: it goes out inside the first answer.
const FIRST_PARTITION_BYTES: usize = 256 << 10;
/// Text of a later partition, bytes, unless `client_result_chunk_size` asks for less.
const PARTITION_BYTES_MAX: usize = 10 << 20;

/// Rows changed by a DML statement.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub num_rows_inserted: u64,
    pub num_rows_updated: u64,
    pub num_rows_deleted: u64,
    pub num_duplicate_rows_updated: u64,
}

/// A part of a result.
#[derive(Debug, Clone)]
pub struct Partition {
    pub row_count: usize,
    pub uncompressed_size: usize,
    /// `{"data":[…]}`; plain in partition 0, gzip in the others.
    pub body: Bytes,
}

/// A finished statement's result.
#[derive(Debug, Clone, Default)]
pub struct ResultSet {
    pub columns: Vec<Column>,
    pub partitions: Vec<Partition>,
    pub row_count: usize,
    pub stats: Option<Stats>,
}

/// How a result is cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cut {
    /// Rows of each partition; none: by size.
    pub rows_max: Option<usize>,
    /// Text of a partition, bytes; none: 10 MiB.
    pub bytes_max: Option<usize>,
    /// NULL as the word `"null"` (`nullable=false`).
    pub null_as_text: bool,
}

/// Takes rows and makes partitions of them.
pub struct Writer {
    cut: Cut,
    columns: Vec<Column>,
    semi_structured: Vec<bool>,
    buffer: Vec<u8>,
    rows: usize,
    total: usize,
    done: Vec<JoinHandle<Partition>>,
}

impl Writer {
    /// Starts a result with these columns.
    pub fn new(columns: Vec<Column>, cut: Cut) -> Self {
        let semi_structured = columns.iter().map(|column| column.ty.is_semi_structured()).collect();
        Self { cut, columns, semi_structured, buffer: b"{\"data\":[".to_vec(), rows: 0, total: 0, done: Vec::new() }
    }

    /// Adds a row of cells in wire text.
    pub fn push<'c>(&mut self, cells: impl Iterator<Item = Option<&'c str>>) {
        if self.is_full() {
            self.close();
        }
        self.buffer.extend_from_slice(if self.rows == 0 { b"[" } else { b",[" });
        for (at, cell) in cells.enumerate() {
            if at > 0 {
                self.buffer.push(b',');
            }
            match cell {
                Some(text) if self.semi_structured.get(at) == Some(&true) => {
                    write_text(&mut self.buffer, &pretty(text))
                }
                Some(text) => write_text(&mut self.buffer, text),
                None if self.cut.null_as_text => self.buffer.extend_from_slice(b"\"null\""),
                None => self.buffer.extend_from_slice(b"null"),
            }
        }
        self.buffer.push(b']');
        self.rows += 1;
        self.total += 1;
    }

    fn is_full(&self) -> bool {
        if self.rows == 0 {
            return false;
        }
        let bytes_max = self.cut.bytes_max.unwrap_or(PARTITION_BYTES_MAX);
        // Partitions grow: 256 KiB, 512 KiB, 1 MiB … as Snowflake's do.
        let bytes = (FIRST_PARTITION_BYTES << self.done.len().min(6)).min(bytes_max);
        self.cut.rows_max.is_some_and(|rows| self.rows >= rows) || self.buffer.len() >= bytes
    }

    fn close(&mut self) {
        let mut text = std::mem::replace(&mut self.buffer, b"{\"data\":[".to_vec());
        text.extend_from_slice(b"]}");
        let (row_count, plain) = (std::mem::take(&mut self.rows), self.done.is_empty());
        self.done.push(tokio::task::spawn_blocking(move || Partition {
            row_count,
            uncompressed_size: text.len(),
            body: if plain { text.into() } else { gzip(&text).into() },
        }));
    }

    /// Ends the result; an empty one has one partition without rows.
    pub async fn finish(mut self) -> ResultSet {
        if self.rows > 0 || self.done.is_empty() {
            self.close();
        }
        let mut partitions = Vec::with_capacity(self.done.len());
        for partition in self.done {
            partitions.push(partition.await.expect("encoding a partition does not panic"));
        }
        ResultSet { columns: self.columns, partitions, row_count: self.total, stats: None }
    }
}

/// Makes a small result from rows at hand.
pub async fn small(columns: Vec<Column>, rows: &[Vec<Option<String>>], cut: Cut) -> ResultSet {
    let mut writer = Writer::new(columns, cut);
    for row in rows {
        writer.push(row.iter().map(Option::as_deref));
    }
    writer.finish().await
}

/// A gzip partition with its last row left out, for the fault of that name.
pub fn without_last_row(body: &Bytes) -> Bytes {
    let mut text = Vec::new();
    if std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(body.as_ref()), &mut text).is_err() {
        return body.clone();
    }
    let mut kept: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    if let Some(rows) = kept["data"].as_array_mut() {
        rows.pop();
    }
    gzip(kept.to_string().as_bytes()).into()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    encoder.write_all(text).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail")
}

fn write_text(buffer: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(&mut *buffer, text).expect("writing to memory does not fail");
}

/// JSON text as Snowflake prints a VARIANT: a line per member, two blanks a level. Numbers are left as written.
pub fn pretty(compact: &str) -> String {
    let mut made = String::with_capacity(compact.len() * 2);
    let (mut level, mut quoted, mut escaped) = (0_usize, false, false);
    let mut characters = compact.chars().peekable();
    while let Some(character) = characters.next() {
        if quoted {
            made.push(character);
            quoted = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            '"' => {
                quoted = true;
                made.push('"');
            }
            '{' | '[' => {
                made.push(character);
                let end = if character == '{' { '}' } else { ']' };
                if characters.peek() == Some(&end) {
                    made.push(end);
                    characters.next();
                } else {
                    level += 1;
                    new_line(&mut made, level);
                }
            }
            '}' | ']' => {
                level = level.saturating_sub(1);
                new_line(&mut made, level);
                made.push(character);
            }
            ',' => {
                made.push(',');
                new_line(&mut made, level);
            }
            ':' => made.push_str(": "),
            ' ' => {}
            other => made.push(other),
        }
    }
    made
}

fn new_line(made: &mut String, level: usize) {
    made.push('\n');
    made.extend(std::iter::repeat_n("  ", level));
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn json_is_printed_a_member_a_line_and_numbers_stay_as_they_are() {
        assert_eq!(
            pretty(r#"{"a": 1.50, "b": ["x, {y}", {}]}"#),
            "{\n  \"a\": 1.50,\n  \"b\": [\n    \"x, {y}\",\n    {}\n  ]\n}"
        );
        assert_eq!(pretty(r#""a \" : b""#), r#""a \" : b""#);
    }
}
