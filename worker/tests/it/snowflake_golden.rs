//! What goes out of each type of Snowflake: one file per type and envelope under `worker/tests/golden/snowflake/`.
//!
//! From the bytes of an answer, through client and decoder, to the bytes of a message. After a change that is meant:
//! `INSTA_UPDATE=always cargo test -p freshet-worker --test it golden`.

use freshet_core::connector::{Change, Column, Encoder, Envelope, NumberForm, Op, Row};
use freshet_core::error::Code;
use freshet_worker::sources::snowflake::client::{Rows, Statement};
use freshet_worker::sources::snowflake::decode::CellType;
use serde_json::json;

use crate::golden::{compare, value};
use crate::postgres::encoder;
use crate::snowflake::{Answer, Server};

/// A type as `rowType` describes it, and texts as Snowflake writes its cells.
struct Type {
    name: &'static str,
    wire: &'static str,
    precision: Option<i64>,
    scale: Option<i64>,
    texts: &'static [&'static str],
}

const fn plain(name: &'static str, wire: &'static str, texts: &'static [&'static str]) -> Type {
    Type { name, wire, precision: None, scale: None, texts }
}

const fn number(name: &'static str, precision: i64, scale: i64, texts: &'static [&'static str]) -> Type {
    Type { name, wire: "fixed", precision: Some(precision), scale: Some(scale), texts }
}

const fn timed(name: &'static str, texts: &'static [&'static str]) -> Type {
    Type { name, wire: name, precision: Some(0), scale: Some(9), texts }
}

const TYPES: &[Type] = &[
    number("number_18_0", 18, 0, &["0", "-999999999999999999", "999999999999999999"]),
    number(
        "number_38_0",
        38,
        0,
        &["9223372036854775808", "-99999999999999999999999999999999999999", "99999999999999999999999999999999999999"],
    ),
    number(
        "number_38_10",
        38,
        10,
        &["0.0000000001", "-9999999999999999999999999999.9999999999", "9999999999999999999999999999.9999999999"],
    ),
    number(
        "number_38_37",
        38,
        37,
        &["0.0000000000000000000000000000000000000", "-9.9999999999999999999999999999999999999"],
    ),
    plain(
        "float",
        "real",
        &["0.1", "-0", "1", "9007199254740993", "5e-324", "1.7976931348623157e+308", "NaN", "inf", "-inf"],
    ),
    plain(
        "decfloat",
        "decfloat",
        &["12345678901234567890123456789012345678", "1.5", "1.25e+4", "-1.25E-10", "1e40", "NaN", "-inf"],
    ),
    plain("varchar", "text", &["", "a\"b\\c", "line\nfeed", "żółć 🦀", "\u{0}\u{1f}\u{7f}\u{2028}", "null"]),
    plain("boolean", "boolean", &["true", "false"]),
    plain("binary", "binary", &["", "00FF10", "deadbeef"]),
    plain("date", "date", &["17982", "0", "-1", "-719162", "-719528", "2932896"]),
    timed("time", &["0.000000000", "82919.000000000", "86399.999999999", "0.250000000"]),
    timed(
        "timestamp_ntz",
        &[
            "1611871777.123456789",
            "-0.500000000",
            "-0.000000001",
            "-62135596800.000000000",
            "253402300799.999999999",
            "-9223372036.854775808",
            "1700000000",
        ],
    ),
    timed("timestamp_ltz", &["1611871777.123000000", "-1.000000001", "-62135596800.000000000"]),
    timed(
        "timestamp_tz",
        &[
            "1616173619.000000000 1500",
            "1616173619.123456789 2280",
            "1616173619.000000000 720",
            "-0.500000000 2280",
            "-86400.000000000 720",
            "1616173619.000000000 1230",
            "1616173619.000000000 1440",
        ],
    ),
    plain(
        "variant",
        "variant",
        &[
            "{\n  \"a\": {\n    \"b\": [\n      1,\n      {\n        \"c\": null\n      }\n    ]\n  }\n}",
            "12345678901234567890123456789012345678901234567890.000000000000000000001",
            "1e999",
            "\"a text: [1, 2]\"",
            "null",
            "[NaN, -Infinity, undefined]",
        ],
    ),
    plain("object", "object", &["{}", "{\n  \"a \\\"b\\\"\": 1.50,\n  \"a\": \"x\"\n}"]),
    plain("array", "array", &["[]", "[\n  1,\n  undefined,\n  \"x\"\n]"]),
    plain("map", "map", &["{\"k\":1}"]),
    plain("vector", "vector", &["[1.500000,-2.000000]"]),
    plain(
        "geography",
        "geography",
        &["{\n  \"coordinates\": [\n    -122.35,\n    37.55\n  ],\n  \"type\": \"Point\"\n}"],
    ),
    plain("geometry", "geometry", &["{\"coordinates\":[1,2],\"type\":\"Point\"}"]),
];

/// Types that have no order.
const NO_KEYS: &[&str] = &["variant", "object", "array", "map", "vector", "geography", "geometry"];

impl Type {
    /// Rows of `ID` and `V`, one for each text: the rows of an answer of Snowflake's.
    async fn select(&self, texts: &[Option<&str>]) -> freshet_core::error::Result<Rows> {
        let id = json!({"name": "ID", "type": "fixed", "precision": 18, "scale": 0, "nullable": false});
        let column =
            json!({"name": "V", "type": self.wire, "precision": self.precision, "scale": self.scale, "nullable": true});
        let data: Vec<_> =
            texts.iter().enumerate().map(|(place, text)| json!([(place + 1).to_string(), text])).collect();
        let body = json!({
            "resultSetMetaData": {"numRows": data.len(), "rowType": [id, column], "partitionInfo": [{"rowCount": data.len()}]},
            "data": data, "code": "090001", "statementHandle": "h1",
        });
        let server = Server::start(move |_| Answer::json(200, &body).gzip()).await;
        server.client().rows(&Statement::large("select ID, V from T")).await
    }

    /// Its columns, and every text as a row; NULL is the last.
    async fn rows(&self) -> (Vec<Column>, Vec<Row>) {
        let texts: Vec<_> = self.texts.iter().copied().map(Some).chain([None]).collect();
        let mut found = self.select(&texts).await.unwrap();
        let columns = found.columns().iter().map(|column| Column {
            name: column.name.clone(),
            kind: CellType::of(column).unwrap().kind(),
            source_type: column.source_type(),
            nullable: column.nullable,
        });
        let (columns, mut rows) = (columns.collect(), Vec::new());
        loop {
            let mut row = Row::default();
            if !found.next(&mut row).await.unwrap() {
                assert_eq!(rows.len(), texts.len());
                return (columns, rows);
            }
            rows.push(row);
        }
    }
}

#[tokio::test]
async fn each_type_of_snowflake_in_each_envelope() {
    for of in TYPES {
        let (columns, rows) = of.rows().await;
        let (first, null) = (&rows[0], rows.last().unwrap());
        let creates = rows.iter().map(|row| Change { op: Op::Create, before: None, after: Some(row) });
        let changes: Vec<_> = creates
            .chain([
                Change { op: Op::Read, before: None, after: Some(first) },
                Change { op: Op::Update, before: Some(first), after: Some(null) },
                Change { op: Op::Delete, before: Some(first), after: None },
            ])
            .collect();
        for (name, envelope) in [("debezium", Envelope::Debezium), ("row", Envelope::Row), ("stream", Envelope::Stream)]
        {
            let mut encoder = encoder(&columns, &["ID".to_owned()], envelope, NumberForm::Number);
            let mut lines = String::new();
            for (place, change) in changes.iter().enumerate() {
                let value = value(encoder.as_mut(), change, place as i64 + 1);
                assert!(
                    change.op == Op::Delete || serde_json::from_str::<Box<serde_json::value::RawValue>>(&value).is_ok()
                );
                lines += &format!("{} {value}\n", change.op.letter());
            }

            compare("../golden/snowflake", &format!("{}.{name}", of.name), &lines);
        }
    }
}

#[tokio::test]
async fn each_type_of_snowflake_as_a_key() {
    let mut lines = String::new();
    for of in TYPES.iter().filter(|of| !NO_KEYS.contains(&of.name)) {
        let (columns, rows) = of.rows().await;
        let mut encoder: Box<dyn Encoder> = encoder(&columns, &["V".to_owned()], Envelope::Row, NumberForm::Number);
        for row in &rows {
            let mut key = Vec::new();
            let told = match encoder.key(row, &mut key) {
                Ok(()) => String::from_utf8(key).unwrap(),
                Err(error) => format!("{}: {}", error.code.as_str(), error.reason),
            };
            lines += &format!("{}: {told}\n", of.name);
        }
    }

    compare("../golden/snowflake", "keys", &lines);
}

/// What is no value of its type ends the read with its column and place: nothing is guessed, nothing is left out.
#[tokio::test]
async fn a_text_that_is_no_value_of_its_type_is_refused_with_its_column_and_place() {
    for (name, text) in [
        ("number_18_0", "1.5"),
        ("number_38_0", "1e5"),
        ("number_38_10", "NaN"),
        ("number_38_10", "0x1F"),
        ("float", "1e309"),
        ("float", "1,5"),
        ("decfloat", "1e99999"),
        ("boolean", "yes"),
        ("binary", "00F"),
        ("binary", "zz"),
        ("date", "2019-03-27"),
        ("date", "99999999999"),
        ("time", "86400.000000000"),
        ("time", "-0.5"),
        ("timestamp_ntz", "1.0000000001"),
        ("timestamp_ntz", "inf"),
        ("timestamp_tz", "1616173619.000000000"),
        ("timestamp_tz", "1616173619.000000000 2881"),
        ("variant", "{\"a\":}"),
        ("variant", ""),
    ] {
        let of = TYPES.iter().find(|of| of.name == name).unwrap();
        let mut found = of.select(&[Some(of.texts[0]), Some(text)]).await.unwrap();
        let mut row = Row::default();
        assert!(found.next(&mut row).await.unwrap());

        let error = found.next(&mut row).await.unwrap_err();

        assert_eq!(error.code, Code::SnowflakeAnswer, "{name} {text}");
        assert!(error.message.contains("column `V` does not read (partition 0, row 1"), "{error}");
        assert!(error.chain().contains("expected"), "{}", error.chain());
        assert!(text.is_empty() || !error.chain().contains(text), "a row's value is in an error: {}", error.chain());
    }
}

#[tokio::test]
async fn a_type_that_cannot_be_sent_exactly_is_refused_by_its_columns_name() {
    for wire in ["file", "interval_year_month", "interval_day_time", "a_type_of_next_year"] {
        let of = plain("unknown", wire, &[]);

        let error = of.select(&[Some("1")]).await.err().unwrap();

        assert_eq!(error.code, Code::ModelTypeUnsupported);
        assert!(error.message.contains("`V`") && error.message.contains(wire), "{error}");
    }
}
