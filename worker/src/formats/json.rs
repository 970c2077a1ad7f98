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
    Cell, Change, ChangeMeta, EncodeError, EncodePlan, Encoder, Envelope, FormatKind, KeyForm, NumberForm, Op, Row,
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
    let inside = source.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
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
            Envelope::Stream => {
                let Some(row) = change.row() else { return Ok(false) };
                out.extend_from_slice(b"{\"timestamp\":\"");
                instant(meta.ts_ms, out);
                out.extend_from_slice(match change.op {
                    Op::Create | Op::Read => b"\",\"action\":\"INSERT\",\"is_update\":false,\"data\":".as_slice(),
                    Op::Update => b"\",\"action\":\"INSERT\",\"is_update\":true,\"data\":",
                    Op::Delete => b"\",\"action\":\"DELETE\",\"is_update\":false,\"data\":",
                });
                self.row(row, out);
                out.push(b'}');
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

/// Milliseconds since the Unix epoch as an instant in UTC, always with three digits of the second's fraction.
fn instant(ms: i64, out: &mut Vec<u8>) {
    let millis = ms.rem_euclid(1_000) as u32;
    timestamp(ms.div_euclid(1_000), 0, out);
    out.push(b'.');
    out.push(b'0' + (millis / 100) as u8);
    two(millis % 100, out);
    out.push(b'Z');
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

#[cfg(test)]
mod tests {
    use freshet_core::connector::{Column, Kind as ColumnKind, Schema};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn one(cell: Cell) -> Row {
        let mut row = Row::default();
        row.push(cell);
        row
    }

    fn json(row: &Row) -> Value {
        let mut out = Vec::new();
        cell(row, 0, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_text_reads_back(text in "\\PC{0,9}|[\u{0}-\u{ff}]{0,40}|.{0,40}") {
            let mut row = Row::default();
            row.push_bytes(Cell::Text, text.as_bytes());

            prop_assert_eq!(json(&row), Value::from(text));
        }

        #[test]
        fn bytes_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut row = Row::default();
            row.push_bytes(Cell::Bytes, &bytes);

            prop_assert_eq!(BASE64.decode(json(&row).as_str().unwrap()).unwrap(), bytes);
        }

        #[test]
        fn a_float_reads_back_as_the_same_bits(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let mut out = Vec::new();

            cell(&one(Cell::Float(value)), 0, &mut out);

            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
            prop_assert!(serde_json::from_str::<Value>(&text).unwrap().is_number());
        }

        #[test]
        fn a_date_is_the_calendars(days in -96_465_292..95_026_236_i32) {
            let date = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap() + chrono::Duration::days(days.into());

            prop_assert_eq!(json(&one(Cell::Date(days))), date.format("%Y-%m-%d").to_string());
        }

        #[test]
        fn an_instant_is_the_clocks_in_its_zone(
            seconds in -62_167_132_800..253_402_214_400_i64, nanos in 0..1_000_000_000_u32, offset in -840..=840_i16,
        ) {
            let zone = chrono::FixedOffset::east_opt(i32::from(offset) * 60).unwrap();
            let time = chrono::DateTime::from_timestamp(seconds, nanos).unwrap().with_timezone(&zone);

            let text = json(&one(Cell::TimestampTz(seconds, nanos, offset)));

            prop_assert_eq!(text.as_str().unwrap(), time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
        }
    }

    #[test]
    fn a_source_with_objects_in_it_stays_whole() {
        let columns =
            vec![Column { name: "id".into(), kind: ColumnKind::Int, source_type: "int8".into(), nullable: true }];
        for source in ["{\"a\":{\"b\":{}}}", "{}"] {
            let plan = EncodePlan {
                schema: Schema { columns: columns.clone() },
                key: vec![0],
                envelope: Envelope::Debezium,
                key_form: KeyForm::Bare,
                numbers: NumberForm::Number,
                source: source.into(),
            };
            let row = one(Cell::Int(1));
            let mut out = Vec::new();

            let change = Change { op: Op::Read, before: None, after: Some(&row) };
            let meta = ChangeMeta { ts_ms: 1, batch_seq: 2, ordinal: 3 };
            Kind.encoder(plan).unwrap().value(&change, meta, &mut out).unwrap();

            let mut expected: Value = serde_json::from_str(source).unwrap();
            expected["batch"] = 2.into();
            expected["ordinal"] = 3.into();
            let value: Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(value["source"], expected);
        }
    }
}
