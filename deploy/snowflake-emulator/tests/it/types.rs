//! How each type is described and written: `rowType` and the cells.

use serde_json::{Value, json};

use crate::bench::Bench;

/// `rowType` of the first column without its name, and the cell.
async fn cell(bench: &Bench, expression: &str) -> (Value, Value) {
    let body = bench.run(&format!("select {expression} as x")).await;
    (body["resultSetMetaData"]["rowType"][0].clone(), body["data"][0][0].clone())
}

#[tokio::test]
async fn every_type_is_a_text_in_the_published_encoding() {
    let bench = Bench::new().await;
    for (expression, kind, text) in [
        ("1.50::number(10,2)", "fixed", "1.50"),
        ("99999999999999999999999999999999999999::number(38,0)", "fixed", "99999999999999999999999999999999999999"),
        (
            "-12345678901234567890.123456789012345678::number(38,18)",
            "fixed",
            "-12345678901234567890.123456789012345678",
        ),
        ("1.5::float", "real", "1.5"),
        ("'NaN'::float", "real", "NaN"),
        ("'-inf'::float", "real", "-inf"),
        ("'a\"b'::varchar(10)", "text", "a\"b"),
        ("true", "boolean", "true"),
        ("1 = 2", "boolean", "false"),
        ("to_binary('00ff7A')", "binary", "00FF7A"),
        ("'2019-03-27'::date", "date", "17982"),
        ("'1969-12-31'::date", "date", "-1"),
        ("'23:01:59'::time", "time", "82919.000000000"),
        ("'2024-06-05 12:30:00.123456789'::timestamp_ntz", "timestamp_ntz", "1717590600.123456789"),
        ("'1969-12-31 23:59:59.5'::timestamp_ntz", "timestamp_ntz", "-0.500000000"),
        ("'0001-01-01 00:00:00'::timestamp_ntz", "timestamp_ntz", "-62135596800.000000000"),
        ("'9999-12-31 23:59:59.999999999'::timestamp_ntz", "timestamp_ntz", "253402300799.999999999"),
        ("'2024-06-05 12:30:00 +00:00'::timestamp_ltz", "timestamp_ltz", "1717590600.000000000"),
        ("'2021-03-19 18:06:59 +01:00'::timestamp_tz", "timestamp_tz", "1616173619.000000000 1500"),
        ("'2021-03-19 00:06:59 -17:00'::timestamp_tz", "timestamp_tz", "1616173619.000000000 420"),
        ("parse_json('{\"a\":1.50,\"b\":[]}')", "variant", "{\n  \"a\": 1.50,\n  \"b\": []\n}"),
        ("to_variant('text')", "variant", "\"text\""),
        ("object_construct('a', 1)", "object", "{\n  \"a\": 1\n}"),
        ("array_construct(1, 'x')", "array", "[\n  1,\n  \"x\"\n]"),
    ] {
        let (row_type, cell) = cell(&bench, expression).await;
        assert_eq!((row_type["type"].as_str(), cell.as_str()), (Some(kind), Some(text)), "{expression}");
    }
}

#[tokio::test]
async fn precision_scale_and_length_are_null_where_they_mean_nothing() {
    let bench = Bench::new().await;
    bench.run("create table t (n number(12,3) not null, v varchar(20), d date, b binary(8), at timestamp_ntz)").await;

    let body = bench.run("select n, v, d, b, at from t").await;

    let described = |at: usize| body["resultSetMetaData"]["rowType"][at].clone();
    assert_eq!(
        described(0),
        json!({"name": "N", "database": "", "schema": "", "table": "", "type": "fixed", "nullable": false, "precision": 12,
               "scale": 3, "length": null, "byteLength": null, "collation": null})
    );
    assert_eq!(
        (&described(1)["length"], &described(1)["byteLength"], &described(1)["precision"]),
        (&json!(20), &json!(80), &Value::Null)
    );
    assert_eq!((&described(2)["length"], &described(2)["scale"]), (&Value::Null, &Value::Null));
    assert_eq!(described(3)["length"], 8);
    assert_eq!((&described(4)["precision"], &described(4)["scale"]), (&json!(0), &json!(9)));
}

#[tokio::test]
async fn values_come_back_as_they_were_inserted() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table t (n number(38,10), f float, v varchar, b boolean, x binary, d date, t time, a timestamp_ntz, l timestamp_ltz, z timestamp_tz, j variant)",
            "insert into t select '1234567890123456789012345678.0123456789', 2.5, 'ü', false, 'ff', '0001-01-01', '01:02:03.000000004', \
             '1677-09-21 00:12:43.145224192', '2000-01-01 00:00:00 +0000', '2000-01-01 00:00:00 -0330', parse_json('[1]')",
            "insert into t select null, null, null, null, null, null, null, null, null, null, null",
        ])
        .await;

    let rows = bench.rows("select * from t order by n").await;

    let written = |text: &str| Some(text.to_owned());
    assert_eq!(
        rows[0],
        [
            written("1234567890123456789012345678.0123456789"),
            written("2.5"),
            written("ü"),
            written("false"),
            written("FF"),
            written("-719162"),
            written("3723.000000004"),
            written("-9223372036.854775808"),
            written("946684800.000000000"),
            written("946697400.000000000 1230"),
            written("[\n  1\n]"),
        ]
    );
    assert!(rows[1].iter().all(Option::is_none));
}

#[tokio::test]
async fn null_is_a_word_only_when_asked_for() {
    let bench = Bench::new().await;

    let (_, plain) = bench.submit("", "select null", json!({})).await;
    let (_, worded) = bench.submit("nullable=false", "select null", json!({})).await;

    assert_eq!((&plain["data"][0][0], &worded["data"][0][0]), (&Value::Null, &json!("null")));
}

#[tokio::test]
async fn bindings_are_texts_in_milliseconds_and_nanoseconds() {
    let bench = Bench::new().await;
    let bindings = json!({
        "1": {"type": "FIXED", "value": "123"},
        "2": {"type": "TEXT", "value": "it's"},
        "3": {"type": "DATE", "value": "1553644800000"},
        "4": {"type": "TIMESTAMP_NTZ", "value": "1717590600123456789"},
        "5": {"type": "TIMESTAMP_TZ", "value": "1616173619000000000 960"},
        "6": {"type": "BOOLEAN", "value": "true"},
        "7": {"type": "BINARY", "value": "00ff"},
        "8": {"type": "TEXT", "value": null},
        "9": {"type": "REAL", "value": "0.25"},
        "10": {"type": "TIME", "value": "1000000001"},
    });

    let (status, body) = bench.submit("", "select ?, ?, ?, ?, ?, ?, ?, ?, ?, ?", json!({"bindings": bindings})).await;

    assert_eq!(status, 200, "{body}");
    assert_eq!(
        body["data"][0],
        json!([
            "123",
            "it's",
            "17982",
            "1717590600.123456789",
            "1616173619.000000000 960",
            "true",
            "00FF",
            null,
            "0.25",
            "1.000000001"
        ])
    );
    let (status, body) =
        bench.submit("", "select ?", json!({"bindings": {"1": {"type": "FIXED", "value": "x"}}})).await;
    assert_eq!((status.as_u16(), &body["code"], &body["sqlState"]), (422, &json!("100037"), &json!("22018")));
}
