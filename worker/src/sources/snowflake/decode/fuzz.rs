//! Answers of any content, in pieces of any size, against serde_json: what is read is what was written, and what
//! serde_json refuses is refused.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, FixedOffset, NaiveDate, SecondsFormat};
use flate2::{Compression, write::GzEncoder};
use freshet_core::connector::Row;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{CellType, Event, Inflater, Scanner};
use crate::formats::json;

/// A row's cells as JSON.
type Cells = Vec<String>;

/// The rows that come before the end or the first fault, and whether it was the end.
fn read(types: &[CellType], body: &[u8], gzip: bool, cuts: &[usize]) -> (Vec<Cells>, bool) {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    let mut pieces = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]);
    let (mut inflater, mut scanner) = (Inflater::new(gzip), Scanner::default());
    scanner.expect(types.to_vec());
    let (mut row, mut rows) = (Row::default(), Vec::new());
    loop {
        match scanner.next(&mut row) {
            Ok(Event::More) => {
                let mut take = |bytes: &[u8]| {
                    scanner.feed(bytes);
                    Ok::<_, std::io::Error>(())
                };
                let inflated = match pieces.next() {
                    Some(piece) => inflater.feed(piece, &mut take),
                    None => {
                        let whole = inflater.finish(&mut take);
                        scanner.end();
                        whole
                    }
                };
                if inflated.is_err() {
                    return (rows, false);
                }
            }
            Ok(Event::Row) => rows.push((0..row.cells().len()).map(|place| cell(&row, place)).collect()),
            Ok(Event::Member(..) | Event::Data) => {}
            Ok(Event::End) => return (rows, true),
            Err(_) => return (rows, false),
        }
    }
}

fn cell(row: &Row, place: usize) -> String {
    let mut out = Vec::new();
    json::cell(row, place, &mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// The texts of a row of texts.
fn texts(row: &Cells) -> Vec<Option<String>> {
    row.iter().map(|cell| serde_json::from_str(cell).expect("a string or null")).collect()
}

/// What serde_json reads; none if it refuses, or a row has another width.
fn theirs(body: &[u8], width: usize) -> Option<Vec<Vec<Option<String>>>> {
    let rows: Vec<Vec<Option<String>>> = serde_json::from_slice(body).ok()?;
    rows.iter().all(|row| row.len() == width).then_some(rows)
}

/// A value: its column, the text that Snowflake sends for it, and the JSON that is to come of it.
#[derive(Debug, Clone)]
struct Known {
    kind: CellType,
    text: String,
    json: Value,
}

fn known(kind: CellType, text: impl Into<String>, json: impl Into<Value>) -> Known {
    Known { kind, text: text.into(), json: json.into() }
}

/// Nanoseconds since an epoch as decimal seconds.
fn decimal(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    format!("{sign}{}.{:09}", nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000)
}

/// An instant, as the calendar of another crate writes it.
fn instant(nanos: i128, offset_minutes: i32) -> String {
    let (seconds, nanos) = (nanos.div_euclid(1_000_000_000) as i64, nanos.rem_euclid(1_000_000_000) as u32);
    let zone = FixedOffset::east_opt(offset_minutes * 60).expect("an offset of less than a day");
    let time = DateTime::from_timestamp(seconds, nanos).expect("years of four digits").with_timezone(&zone);
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |value| value.is_finite()).prop_map(Value::from),
        "\\PC{0,9}|[\u{0}-\u{1f}\"\\\\/ ]{0,6}|NaN|undefined|-Infinity".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,5}", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// 0001-01-01 to 9999-12-31, a day away from either end, in nanoseconds.
const TIMES: std::ops::Range<i128> = -62_135_510_400_000_000_000..253_402_214_400_000_000_000;

fn value() -> impl Strategy<Value = Known> {
    let date = |days: i32| NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date") + chrono::Duration::days(days.into());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    prop_oneof![
        (-999_999_999_999_999_999..=999_999_999_999_999_999_i64).prop_map(|number| known(
            CellType::Int,
            number.to_string(),
            number
        )),
        any::<bool>().prop_map(|flag| known(CellType::Bool, flag.to_string(), flag)),
        "\\PC{0,20}|.{0,9}|[\u{0}-\u{1f}\"\\\\/]{0,9}".prop_map(|text: String| known(
            CellType::Text,
            text.clone(),
            text
        )),
        (prop::collection::vec(any::<u8>(), 0..20), any::<bool>()).prop_map(move |(bytes, upper)| {
            let text = if upper { hex(&bytes).to_uppercase() } else { hex(&bytes) };
            known(CellType::Binary, text, BASE64.encode(bytes))
        }),
        (-719_162..2_932_897_i32).prop_map(move |days| known(CellType::Date, days.to_string(), date(days).to_string())),
        (0..86_400_000_000_000_i128).prop_map(|nanos| {
            let json = instant(nanos, 0);
            known(CellType::Time, decimal(nanos), &json["1970-01-01T".len()..json.len() - 1])
        }),
        TIMES.prop_map(|nanos| {
            known(CellType::TimestampNtz, decimal(nanos), instant(nanos, 0).trim_end_matches('Z'))
        }),
        TIMES.prop_map(|nanos| known(CellType::TimestampLtz, decimal(nanos), instant(nanos, 0))),
        (TIMES, -840..=840_i32).prop_map(|(nanos, offset)| {
            known(CellType::TimestampTz, format!("{} {}", decimal(nanos), offset + 1_440), instant(nanos, offset))
        }),
        // Floats that serde_json reads back to the bit; all others are compared below.
        any::<i32>()
            .prop_map(|eighths| f64::from(eighths) / 8.0)
            .prop_map(|number| { known(CellType::Float, format!("{number:e}"), number) }),
        (document(), any::<bool>()).prop_map(|(document, lines)| {
            let text = if lines { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
            let text = text.expect("a document is written");
            let json: Value = serde_json::from_str(&text).expect("a document is read");
            known(CellType::Json, text, json)
        }),
    ]
}

/// A JSON string of a text, every letter of it escaped in one of the ways there are, or not at all where it need not.
fn quoted(text: &str, style: u64) -> String {
    let mut style = style | 1;
    let mut out = String::from("\"");
    for letter in text.chars() {
        // A small generator of its own: enough to mix the ways, and the same again for the same case.
        style = style.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let short = match letter {
            '"' => Some("\\\""),
            '\\' => Some("\\\\"),
            '/' => Some("\\/"),
            '\u{8}' => Some("\\b"),
            '\u{c}' => Some("\\f"),
            '\n' => Some("\\n"),
            '\r' => Some("\\r"),
            '\t' => Some("\\t"),
            _ => None,
        };
        match (style >> 60, short) {
            (0..8, Some(short)) => out.push_str(short),
            (0..12, None) if letter >= ' ' => out.push(letter),
            (way, _) => letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                out.push_str(&if way % 2 == 0 { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") });
            }),
        }
    }
    out + "\""
}

/// The rows as an answer, with white space between.
fn body(rows: &[Vec<Option<Known>>], style: u64) -> Vec<u8> {
    let space = ["", " ", "\n\t", "\r "][(style % 4) as usize];
    let cell = |cell: &Option<Known>| match cell {
        Some(known) => quoted(&known.text, style),
        None => "null".to_owned(),
    };
    let row = |row: &Vec<Option<Known>>| {
        format!("{space}[{}]", row.iter().map(cell).collect::<Vec<_>>().join(&format!("{space},{space}")))
    };
    format!("{space}[{}{space}]{space}", rows.iter().map(row).collect::<Vec<_>>().join(",")).into_bytes()
}

/// Rows whose columns hold the types of the first one, and now and then NULL.
fn table() -> impl Strategy<Value = (Vec<CellType>, Vec<Vec<Option<Known>>>)> {
    (prop::collection::vec(value(), 1..5), prop::collection::vec(prop::collection::vec(any::<bool>(), 5), 0..6))
        .prop_map(|(first, nulls)| {
            let types = first.iter().map(|known| known.kind).collect();
            let row = |nulls: &Vec<bool>| {
                first.iter().zip(nulls).map(|(known, null)| (!null).then(|| known.clone())).collect()
            };
            (types, nulls.iter().map(row).collect())
        })
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// Any kind of column.
const KINDS: [CellType; 13] = [
    CellType::Int,
    CellType::Decimal,
    CellType::DecFloat,
    CellType::Float,
    CellType::Text,
    CellType::Bool,
    CellType::Binary,
    CellType::Date,
    CellType::Time,
    CellType::TimestampNtz,
    CellType::TimestampLtz,
    CellType::TimestampTz,
    CellType::Json,
];

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(any::<usize>(), 0..9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_type_is_read_as_it_was_written(
        (types, rows) in table(), style in any::<u64>(), zipped in any::<bool>(), cuts in cuts(),
    ) {
        let body = body(&rows, style);
        let texts: Vec<Vec<_>> =
            rows.iter().map(|row| row.iter().map(|cell| cell.as_ref().map(|known| known.text.clone())).collect()).collect();
        prop_assert_eq!(theirs(&body, types.len()), Some(texts), "serde_json reads what this test writes");

        let sent = if zipped { gzip(&body) } else { body };
        let (found, whole) = read(&types, &sent, zipped, &cuts);

        prop_assert!(whole);
        let found: Vec<Vec<Value>> =
            found.iter().map(|row| row.iter().map(|cell| serde_json::from_str(cell).expect("JSON")).collect()).collect();
        let expected: Vec<Vec<Value>> = rows
            .iter()
            .map(|row| row.iter().map(|cell| cell.as_ref().map_or(Value::Null, |known| known.json.clone())).collect())
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_truncated_body_gives_whole_rows_and_never_its_end(
        (types, rows) in table(), style in any::<u64>(), zipped in any::<bool>(), cuts in cuts(), length in any::<usize>(),
    ) {
        let body = body(&rows, style);
        let (all, _) = read(&types, &body, false, &[]);
        let sent = if zipped { gzip(&body) } else { body.trim_ascii_end().to_vec() };

        let (found, whole) = read(&types, &sent[..length % sent.len()], zipped, &cuts);

        prop_assert!(!whole);
        prop_assert!(all.starts_with(&found));
    }

    #[test]
    fn a_corrupt_body_gives_what_serde_json_reads_or_is_refused(
        (_, rows) in table(),
        style in any::<u64>(),
        cuts in cuts(),
        damage in prop::collection::vec((any::<usize>(), "[\"\\\\,\\[\\]{}:ul0dDn ]|[\u{0}-\u{ff}]", 0..3), 1..4),
    ) {
        let mut body = body(&rows, style);
        let width = rows.first().map_or(1, Vec::len);
        for (place, letter, how) in damage {
            let (place, byte) = (place % body.len(), letter.as_bytes()[0]);
            match how {
                0 => body[place] = byte,
                1 => body.insert(place, byte),
                _ if body.len() > 1 => { body.remove(place); }
                _ => {}
            }
        }

        let (found, whole) = read(&vec![CellType::Text; width], &body, false, &cuts);

        let theirs = theirs(&body, width);
        prop_assert_eq!(whole, theirs.is_some());
        if let Some(theirs) = theirs {
            prop_assert_eq!(found.iter().map(texts).collect::<Vec<_>>(), theirs);
        }
    }

    #[test]
    fn any_escapes_are_read_as_serde_json_reads_them(
        inside in prop::collection::vec(
            "\\\\u[dD][89abAB][0-9a-f]{2}\\\\u[dD][c-fC-F][0-9a-f]{2}|\\\\u[dD][89abc-fC-F][0-9a-f]{2}|\\\\u[0-9a-fA-F]{4}|\\\\u[0-9a-g]{1,4}|\\\\[\"\\\\/bfnrtxu0]|[a-zé🦀\u{0}-\u{20}]",
            0..6,
        ),
        cuts in cuts(),
    ) {
        let body = format!("[[\"{}\"]]", inside.concat()).into_bytes();

        let (found, whole) = read(&[CellType::Text], &body, false, &cuts);

        let theirs = theirs(&body, 1);
        prop_assert_eq!(whole, theirs.is_some());
        if let Some(theirs) = theirs {
            prop_assert_eq!(found.iter().map(texts).collect::<Vec<_>>(), theirs);
        }
    }

    #[test]
    fn of_any_text_in_any_column_comes_json_or_a_refusal(
        kind in prop::sample::select(&KINDS[..]),
        text in "-?[0-9]{0,20}|[-+]?[0-9]{0,40}(\\.[0-9]{0,12})?([eE][-+]?[0-9]{1,5})?|-?[0-9]{1,12}\\.[0-9]{1,9} [0-9]{1,4}|-?(nan|NaN|inf|Infinity)|[-+0-9.eE NaInfity:{}\\[\\]\"\\\\,undl]{0,14}|\\PC{0,6}",
        cuts in cuts(),
    ) {
        let body = serde_json::to_vec(&[[&text]]).expect("a text is written");

        let (found, whole) = read(&[kind], &body, false, &cuts);

        prop_assert_eq!(whole, found.len() == 1);
        let of = |found: &[Cells]| found.first().map(|row| row[0].clone());
        if let Some(out) = of(&found) {
            prop_assert!(serde_json::from_str::<IgnoredAny>(&out).is_ok(), "{:?} of {:?}", out, text);
        }
        match kind {
            CellType::Text => prop_assert_eq!(of(&found).map(|out| serde_json::from_str(&out).expect("JSON")), Some(text)),
            CellType::Int if text.len() < 19 => {
                let theirs: Option<i64> = text.parse().ok().filter(|_| !text.starts_with('+'));
                prop_assert_eq!(of(&found), theirs.map(|number| number.to_string()));
            }
            CellType::Decimal => {
                let plain = text.bytes().all(|byte| matches!(byte, b'-' | b'.' | b'0'..=b'9'));
                let is_number = plain && serde_json::from_str::<IgnoredAny>(&text).is_ok();
                prop_assert_eq!(of(&found), is_number.then_some(text));
            }
            CellType::Float => {
                let digits = text.bytes().all(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'));
                let theirs: Option<f64> = text.parse().ok().filter(|value: &f64| digits && value.is_finite());
                let ours = of(&found).filter(|_| digits).map(|out| out.parse::<f64>().expect("a number").to_bits());
                prop_assert_eq!(ours, theirs.map(f64::to_bits));
            }
            _ => {}
        }
    }
}
