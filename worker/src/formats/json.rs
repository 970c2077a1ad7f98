//! JSON: rows straight to bytes, in one pass, without a tree.
//!
//! | cell | JSON |
//! |---|---|
//! | decimal | a number with all its digits, or a string (`numbers`) |
//! | float | a number, the shortest text that reads back the same; NaN and infinities are strings |
//! | date, time | ISO 8601; years past 9999 or before 0 with a sign, as the standard asks; year 0 is 1 BC |
//! | fraction of a second | none when zero, else 3, 6 or 9 digits |
//! | bytes | base64 with padding |
//! | json | as it came |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use freshet_core::connector::{
    Cell, Change, ChangeMeta, EncodeError, EncodePlan, Encoder, Envelope, FormatKind, KeyForm, NumberForm, Row,
};
use freshet_core::error::{Code, Result};

/// The kind `json`.
#[derive(Debug, Clone, Copy)]
pub struct Kind;

impl FormatKind for Kind {
    const NAME: &'static str = "json";

    fn encoder(&self, plan: EncodePlan) -> Result<Box<dyn Encoder>> {
        let names = plan.schema.columns.iter().map(|column| column.name.as_str());
        Ok(Box::new(JsonEncoder {
            members: members(names),
            key_members: members(plan.key.iter().map(|place| plan.schema.columns[*place].name.as_str())),
            key_names: plan.key.iter().map(|place| plan.schema.columns[*place].name.clone()).collect(),
            key: plan.key,
            envelope: plan.envelope,
            key_form: plan.key_form,
            quoted: plan.numbers == NumberForm::String,
            source: source_prefix(&plan.source),
        }))
    }
}

struct JsonEncoder {
    /// `{"first":`, `,"second":` …
    members: Vec<Vec<u8>>,
    key: Vec<usize>,
    key_members: Vec<Vec<u8>>,
    key_names: Vec<String>,
    envelope: Envelope,
    key_form: KeyForm,
    quoted: bool,
    source: Vec<u8>,
}

fn members<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Vec<u8>> {
    names
        .enumerate()
        .map(|(place, name)| {
            let mut member = vec![if place == 0 { b'{' } else { b',' }];
            text(name.as_bytes(), &mut member);
            member.push(b':');
            member
        })
        .collect()
}

/// `"source":{…,"batch":`, ready for the numbers.
fn source_prefix(source: &str) -> Vec<u8> {
    let inside = source.trim_start_matches('{').trim_end_matches('}');
    let comma = if inside.is_empty() { "" } else { "," };
    format!(",\"source\":{{{inside}{comma}\"batch\":").into_bytes()
}

impl Encoder for JsonEncoder {
    fn key(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        for (place, name) in self.key.iter().zip(&self.key_names) {
            if row.cells()[*place] == Cell::Null {
                let reason = "a key column is NULL".to_owned();
                return Err(EncodeError { code: Code::ModelKeyNull, column: name.clone(), reason });
            }
        }
        if self.key_form == KeyForm::Bare && self.key.len() == 1 {
            cell_text(row, self.key[0], out);
            return Ok(());
        }
        for (place, member) in self.key.iter().zip(&self.key_members) {
            out.extend_from_slice(member);
            cell(row, *place, out);
        }
        out.push(b'}');
        Ok(())
    }

    fn value(&mut self, change: &Change<'_>, meta: ChangeMeta, out: &mut Vec<u8>) -> Result<bool, EncodeError> {
        match self.envelope {
            Envelope::Row => match change.after {
                Some(after) => self.row(after, out),
                None => return Ok(false),
            },
            Envelope::Debezium => {
                out.extend_from_slice(b"{\"before\":");
                self.row_or_null(change.before, out);
                out.extend_from_slice(b",\"after\":");
                self.row_or_null(change.after, out);
                out.extend_from_slice(b",\"op\":\"");
                out.extend_from_slice(change.op.letter().as_bytes());
                out.extend_from_slice(b"\",\"ts_ms\":");
                int(meta.ts_ms, out);
                out.extend_from_slice(&self.source);
                int(meta.batch_seq, out);
                out.extend_from_slice(b",\"ordinal\":");
                int(meta.ordinal, out);
                out.extend_from_slice(b"}}");
            }
        }
        Ok(true)
    }

    fn row(&mut self, row: &Row, out: &mut Vec<u8>) {
        if self.members.is_empty() {
            out.push(b'{');
        }
        for (place, member) in self.members.iter().enumerate() {
            out.extend_from_slice(member);
            match row.cells()[place] {
                Cell::Number(span) if self.quoted => text(row.bytes(span), out),
                _ => cell(row, place, out),
            }
        }
        out.push(b'}');
    }
}

impl JsonEncoder {
    fn row_or_null(&mut self, row: Option<&Row>, out: &mut Vec<u8>) {
        match row {
            Some(row) => self.row(row, out),
            None => out.extend_from_slice(b"null"),
        }
    }
}

/// Appends one cell as JSON.
pub fn cell(row: &Row, place: usize, out: &mut Vec<u8>) {
    match row.cells()[place] {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Bool(true) => out.extend_from_slice(b"true"),
        Cell::Bool(false) => out.extend_from_slice(b"false"),
        Cell::Int(value) => int(value, out),
        Cell::Float(value) => out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes()),
        Cell::Float32(value) => out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes()),
        Cell::Number(span) | Cell::Json(span) => out.extend_from_slice(row.bytes(span)),
        Cell::Text(span) => text(row.bytes(span), out),
        Cell::Bytes(_) | Cell::Date(_) | Cell::Time(_) | Cell::Timestamp(..) | Cell::TimestampTz(..) => {
            out.push(b'"');
            cell_text(row, place, out);
            out.push(b'"');
        }
    }
}

/// Appends one cell as plain text: what JSON has, without quotes or escapes.
pub fn cell_text(row: &Row, place: usize, out: &mut Vec<u8>) {
    match row.cells()[place] {
        Cell::Text(span) => out.extend_from_slice(row.bytes(span)),
        Cell::Bytes(span) => base64(row.bytes(span), out),
        Cell::Date(days) => date(days.into(), out),
        Cell::Time(nanos) => time(nanos, out),
        Cell::Timestamp(seconds, nanos) => timestamp(seconds, nanos, out),
        Cell::TimestampTz(seconds, nanos, offset) => {
            timestamp(seconds + i64::from(offset) * 60, nanos, out);
            zone(offset, out);
        }
        Cell::Null
        | Cell::Bool(_)
        | Cell::Int(_)
        | Cell::Float(_)
        | Cell::Float32(_)
        | Cell::Number(_)
        | Cell::Json(_) => cell(row, place, out),
    }
}

fn int(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// For each byte: 0 to copy, the letter of its short escape, or `u`.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0A] = b'n';
    table[0x0C] = b'f';
    table[0x0D] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends UTF-8 text as a JSON string (RFC 8259, section 7).
pub fn text(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut copied = 0;
    for (place, byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[usize::from(*byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&bytes[copied..place]);
        copied = place + 1;
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(&[b'\\', escape]);
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The room is exactly what base64 with padding takes.
    let written = BASE64.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

fn two(value: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, which PostgreSQL and ISO 8601 share.
fn date(days: i64, out: &mut Vec<u8>) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    match year {
        0..=9_999 => {
            two((year / 100) as u32, out);
            two((year % 100) as u32, out);
        }
        _ => {
            out.push(if year < 0 { b'-' } else { b'+' });
            let digits = year.unsigned_abs();
            (digits..1_000).take(1).for_each(|_| out.push(b'0'));
            (digits..100).take(1).for_each(|_| out.push(b'0'));
            (digits..10).take(1).for_each(|_| out.push(b'0'));
            out.extend_from_slice(itoa::Buffer::new().format(digits).as_bytes());
        }
    }
    out.push(b'-');
    two(month as u32, out);
    out.push(b'-');
    two(day as u32, out);
}

/// Appends a time of day, `13:37:00.250`.
pub fn time(nanos: u64, out: &mut Vec<u8>) {
    let seconds = (nanos / 1_000_000_000) as u32;
    two(seconds / 3_600, out);
    out.push(b':');
    two(seconds / 60 % 60, out);
    out.push(b':');
    two(seconds % 60, out);
    fraction((nanos % 1_000_000_000) as u32, out);
}

fn fraction(nanos: u32, out: &mut Vec<u8>) {
    if nanos == 0 {
        return;
    }
    let (value, digits) = match nanos {
        _ if nanos.is_multiple_of(1_000_000) => (nanos / 1_000_000, 3),
        _ if nanos.is_multiple_of(1_000) => (nanos / 1_000, 6),
        _ => (nanos, 9),
    };
    out.push(b'.');
    let start = out.len();
    out.resize(start + digits, b'0');
    let mut left = value;
    for place in out[start..].iter_mut().rev() {
        *place = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

fn timestamp(seconds: i64, nanos: u32, out: &mut Vec<u8>) {
    date(seconds.div_euclid(86_400), out);
    out.push(b'T');
    time(seconds.rem_euclid(86_400) as u64 * 1_000_000_000 + u64::from(nanos), out);
}

fn zone(offset_minutes: i16, out: &mut Vec<u8>) {
    if offset_minutes == 0 {
        out.push(b'Z');
        return;
    }
    out.push(if offset_minutes < 0 { b'-' } else { b'+' });
    let minutes = u32::from(offset_minutes.unsigned_abs());
    two(minutes / 60, out);
    out.push(b':');
    two(minutes % 60, out);
}
