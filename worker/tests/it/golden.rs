//! What goes out of each type of Postgres, in each envelope: one file per type under `worker/tests/golden/`.
//!
//! After a change that is meant: `INSTA_UPDATE=always cargo test -p freshet-worker --test it golden`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use freshet_core::connector::{
    Cell, Change, ChangeMeta, Column, Encoder, Envelope, Kind, NumberForm, Op, ReadMode, Row,
};

use crate::postgres::{Bench, Keeper, encoder, read_request, seal_request, table};

/// Each type with some of its values, as the server's texts; NULL comes last by itself.
const TYPES: &[(&str, &str, &[&str])] = &[
    ("bool", "boolean", &["true", "false"]),
    ("int2", "smallint", &["-32768", "32767"]),
    ("int4", "integer", &["-2147483648", "2147483647"]),
    ("int8", "bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("oid", "oid", &["4294967295"]),
    ("float4", "real", &["0.1", "-0", "1e-45", "3.4028235e38", "NaN", "-Infinity"]),
    ("float8", "double precision", &["0.1", "-0", "5e-324", "1.7976931348623157e308", "NaN", "Infinity"]),
    ("numeric", "numeric", &["0", "-12.50", "0.00010", "123456789012345678901234567890.123456789", "NaN", "-Infinity"]),
    ("text", "text", &["", "a\"b\\c", "line\nfeed", "żółć 🦀"]),
    ("varchar", "varchar(9)", &["a"]),
    ("bpchar", "char(4)", &["a"]),
    ("char", "\"char\"", &["a", ""]),
    ("name", "name", &["a"]),
    ("citext", "citext", &["Ab"]),
    ("enum", "mood", &["so-so"]),
    ("domain", "email", &["a@b"]),
    ("xml", "xml", &["<a b=\"c\"/>"]),
    ("bytea", "bytea", &["", "\\x00ff10", "\\xdeadbeef"]),
    ("uuid", "uuid", &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"]),
    ("json", "json", &["{\"a\" : 1, \"a\":2}", "1e999"]),
    ("jsonb", "jsonb", &["{\"b\":1.10,\"a\":[null,true]}"]),
    ("date", "date", &["2026-11-23", "0044-03-15 BC", "0001-12-31 BC", "5874897-12-31", "infinity"]),
    ("time", "time", &["00:00", "13:37:00.25", "23:59:59.999999", "24:00:00"]),
    ("timetz", "timetz", &["13:37:00.25+05:30", "00:00-00:00:01"]),
    (
        "timestamp",
        "timestamp",
        &["2026-11-23 09:32:13", "2026-11-23 09:32:13.250001", "0044-03-15 12:00 BC", "-infinity"],
    ),
    ("timestamptz", "timestamptz", &["2026-11-23 09:32:13.25+02", "294276-12-31 23:59:59.999999Z", "infinity"]),
    ("interval", "interval", &["0", "1 year 2 months -3 days 04:05:06.7", "-00:00:00.5", "36:00:00"]),
    ("inet", "inet", &["192.168.0.1", "192.168.0.1/24", "::1", "::1.2.3.4"]),
    ("cidr", "cidr", &["10.0.0.0/8", "2001:db8::/32"]),
    ("macaddr", "macaddr", &["08:00:2b:01:02:03"]),
    ("macaddr8", "macaddr8", &["08:00:2b:01:02:03:04:05"]),
    ("bit", "bit(5)", &["10101"]),
    ("varbit", "varbit", &["", "101"]),
    ("pg_lsn", "pg_lsn", &["16/B374D848"]),
    ("array", "text[]", &["{}", "{a,NULL,\"b\\\"c\"}", "{{a,b},{c,d}}"]),
    ("array_of_numeric", "numeric[]", &["{1.50,NaN,NULL}", "[5:6]={7,8}"]),
    ("array_of_jsonb", "jsonb[]", &["{\"{\\\"a\\\":1}\"}"]),
    ("int4range", "int4range", &["[1,5)", "(,5)", "empty"]),
    ("tstzrange", "tstzrange", &["[2026-01-01 10:00+02,)"]),
    ("range_of_text", "textrange", &["[\"a,b\",c]"]),
];

/// Accepts what goes out now as what is to go out.
const ACCEPT: &str = "INSTA_UPDATE=always cargo test -p freshet-worker --test it golden";

/// Compares with the file `name`.snap in a folder, which stands from here.
pub fn compare(folder: &str, name: &str, lines: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let compared = catch_unwind(AssertUnwindSafe(|| settings.bind(|| insta::assert_snapshot!(name, lines))));
    assert!(compared.is_ok(), "other bytes go out than `{name}.snap` says; if that is meant, accept it: {ACCEPT}");
}

#[tokio::test]
async fn each_type_in_each_envelope() {
    let mut bench = Bench::with(
        "create extension citext; create type mood as enum ('so-so');
         create domain email as text; create type textrange as range (subtype = text);",
    )
    .await;
    for (name, pg_type, values) in TYPES {
        let rows: Vec<_> = values
            .iter()
            .map(|value| format!("'{}'::{pg_type}", value.replace('\'', "''")))
            .chain(["null".to_owned()])
            .enumerate()
            .map(|(place, value)| format!("({}, {value})", place + 1))
            .collect();
        bench
            .sql(&format!(
                "drop table if exists golden; create table golden (id int primary key, v {pg_type});
                 insert into golden values {}",
                rows.join(", ")
            ))
            .await;

        let sent = bench.sent(&table("golden"), &["id"]).await;

        assert_eq!(sent.len(), values.len() + 1);
        let mut lines = String::from("row\n");
        sent.iter().for_each(|sent| lines += &format!("{}\n", sent.row));
        lines += "\ndebezium\n";
        sent.iter().for_each(|sent| lines += &format!("{}\n", sent.debezium));
        compare("../golden", name, &lines);
    }
}

#[tokio::test]
async fn each_type_as_a_key() {
    let mut bench = Bench::with("create extension citext; create type mood as enum ('so-so')").await;
    let mut lines = String::new();
    for (name, pg_type, values) in TYPES.iter().filter(|(name, ..)| !NO_KEYS.contains(name)) {
        let pg_type = if *name == "domain" { "text" } else { pg_type };
        let rows: Vec<_> = values.iter().map(|value| format!("('{}')", value.replace('\'', "''"))).collect();
        bench
            .sql(&format!(
                "drop table if exists golden; create table golden (id {pg_type} primary key);
                 insert into golden values {}",
                rows.join(", ")
            ))
            .await;
        for sent in bench.sent(&table("golden"), &["id"]).await {
            lines += &format!("{name}: {}\n", sent.key.unwrap());
        }
    }

    compare("../golden", "keys", &lines);
}

/// Types that have no order, or none that can be gone on from.
const NO_KEYS: &[&str] = &[
    "xml",
    "json",
    "jsonb",
    "interval",
    "bit",
    "varbit",
    "array",
    "array_of_numeric",
    "array_of_jsonb",
    "int4range",
    "tstzrange",
    "range_of_text",
];

fn row(id: i64, price: Option<&str>) -> Row {
    let mut row = Row::default();
    row.push(Cell::Int(id));
    match price {
        Some(text) => row.push_bytes(Cell::Number, text.as_bytes()),
        None => row.push(Cell::Null),
    }
    row
}

fn column(name: &str, kind: Kind) -> Column {
    Column { name: name.into(), kind, source_type: String::new(), nullable: true }
}

#[test]
fn each_operation_in_each_envelope() {
    let columns = [column("id", Kind::Int), column("pr\"ice", Kind::Decimal)];
    let (old, new) = (row(1, Some("1.50")), row(1, None));
    let changes = [
        Change { op: Op::Read, before: None, after: Some(&old) },
        Change { op: Op::Create, before: None, after: Some(&old) },
        Change { op: Op::Update, before: Some(&old), after: Some(&new) },
        Change { op: Op::Delete, before: Some(&old), after: None },
    ];
    let mut lines = String::new();
    for (name, envelope, numbers) in [
        ("row", Envelope::Row, NumberForm::Number),
        ("row, numbers as strings", Envelope::Row, NumberForm::String),
        ("stream", Envelope::Stream, NumberForm::Number),
        ("debezium", Envelope::Debezium, NumberForm::Number),
        ("debezium, numbers as strings", Envelope::Debezium, NumberForm::String),
    ] {
        lines += &format!("{name}\n");
        let mut encoder = encoder(&columns, &["id".to_owned()], envelope, numbers);
        for (place, change) in changes.iter().enumerate() {
            lines += &format!("{} {}\n", change.op.letter(), value(encoder.as_mut(), change, place as i64 + 1));
        }
        lines.push('\n');
    }

    compare("../golden", "operations", &lines);
}

/// The value of a message; `(null)` for none.
pub fn value(encoder: &mut dyn Encoder, change: &Change<'_>, ordinal: i64) -> String {
    let mut out = Vec::new();
    let meta = ChangeMeta { ts_ms: 1_700_000_000_000, batch_seq: 7, ordinal };
    match encoder.value(change, meta, &mut out).unwrap() {
        true => String::from_utf8(out).unwrap(),
        false => {
            assert!(out.is_empty());
            "(null)".to_owned()
        }
    }
}

#[tokio::test]
async fn an_incremental_read_is_an_update() {
    let bench =
        Bench::with("create table golden (id int primary key, at date); insert into golden values (1, '2026-01-01')")
            .await;
    let plan = bench.plan(&table("golden"), &["id"], ReadMode::Incremental { cursor: "at".into() }).await;
    let mut source = bench.source().await;
    let sealed = source.seal(&seal_request(&plan, None, None)).await.unwrap();
    let mut sink = Keeper::new(&plan);

    source.read(&read_request(&plan, &sealed, None), &mut sink).await.unwrap();

    compare("../golden", "incremental", &format!("{}\n{}\n", sink.sent[0].row, sink.sent[0].debezium));
}
