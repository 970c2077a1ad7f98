//! The ends of each type, and names that need their quotes.

use std::collections::BTreeSet;

use freshet_core::run::RunState;
use serde_json::{Value, json};

use super::Account;
use crate::shop::Seen;

const COLUMNS: &[(&str, &str)] = &[
    ("id", "number(38,0) primary key"),
    ("price", "number(38,10)"),
    ("ratio", "float"),
    ("ntz", "timestamp_ntz(9)"),
    ("ltz", "timestamp_ltz(9)"),
    ("tz", "timestamp_tz(9)"),
    ("doc", "variant"),
    ("list", "array"),
    ("thing", "object"),
    ("bytes", "binary"),
    ("day", "date"),
    ("at", "time(9)"),
    ("ok", "boolean"),
    ("note", "varchar"),
];

/// All columns: those above and, up to here, numbers that are NULL but for the last.
const COLUMN_COUNT: usize = 1_000;

/// What is inserted into [`COLUMNS`], and the members that go out.
const ROWS: &[(&str, &str)] = &[
    (
        r#"1, 9999999999999999999999999999.9999999999, 'NaN'::float, '1969-12-31 23:59:59.5'::timestamp_ntz,
           '1969-12-31 23:59:59.999999999 +00:00'::timestamp_ltz, '2021-03-20 07:06:59.123456789 +14:00'::timestamp_tz,
           parse_json('{"deep":[[[{"a":null}]]],"huge":99999999999999999999999999999999999999}'),
           array_construct(1, 'x'), object_construct('a', 1.5), to_binary('00FF10', 'HEX'), '1969-12-31'::date,
           '23:59:59.999999999'::time, true, 'żółć 🦀 "so" \\ it''s'"#,
        r#""id":1,"price":9999999999999999999999999999.9999999999,"ratio":"NaN","ntz":"1969-12-31T23:59:59.500","ltz":"1969-12-31T23:59:59.999999999Z","tz":"2021-03-20T07:06:59.123456789+14:00","doc":{"deep":[[[{"a":null}]]],"huge":99999999999999999999999999999999999999},"list":[1,"x"],"thing":{"a":1.5},"bytes":"AP8Q","day":"1969-12-31","at":"23:59:59.999999999","ok":true,"note":"żółć 🦀 \"so\" \\ it's""#,
    ),
    (
        r#"2, -9999999999999999999999999999.9999999999, 'inf'::float, '0001-01-01 00:00:00'::timestamp_ntz,
           '0001-01-01 00:00:00 +00:00'::timestamp_ltz, '2021-03-19 05:06:59 -12:00'::timestamp_tz, parse_json('[]'),
           array_construct(), object_construct(), to_binary('', 'HEX'), '0001-01-01'::date, '00:00:00'::time, false, ''"#,
        r#""id":2,"price":-9999999999999999999999999999.9999999999,"ratio":"Infinity","ntz":"0001-01-01T00:00:00","ltz":"0001-01-01T00:00:00Z","tz":"2021-03-19T05:06:59-12:00","doc":[],"list":[],"thing":{},"bytes":"","day":"0001-01-01","at":"00:00:00","ok":false,"note":"""#,
    ),
    (
        r#"3, 0.0000000001, '-inf'::float, '9999-12-31 23:59:59.999999999'::timestamp_ntz,
           '1677-09-21 00:12:43.145224192 +00:00'::timestamp_ltz, '1970-01-01 13:59:59.5 +14:00'::timestamp_tz,
           parse_json('"a text"'), array_construct(array_construct(1, null)),
           object_construct('a "b"', object_construct('c', -1)), to_binary('FF', 'HEX'), '9999-12-31'::date,
           '12:00:00.5'::time, null, 'null'"#,
        r#""id":3,"price":0.0000000001,"ratio":"-Infinity","ntz":"9999-12-31T23:59:59.999999999","ltz":"1677-09-21T00:12:43.145224192Z","tz":"1970-01-01T13:59:59.500+14:00","doc":"a text","list":[[1,null]],"thing":{"a \"b\"":{"c":-1}},"bytes":"/w==","day":"9999-12-31","at":"12:00:00.500","ok":null,"note":"null""#,
    ),
    (
        "4, null, null, null, null, null, null::variant, null::array, null::object, null, null, null, null, null",
        r#""id":4,"price":null,"ratio":null,"ntz":null,"ltz":null,"tz":null,"doc":null,"list":null,"thing":null,"bytes":null,"day":null,"at":null,"ok":null,"note":null"#,
    ),
];

/// The row as it goes out, all of its columns.
fn image(members: &str) -> String {
    let rest = (COLUMNS.len()..COLUMN_COUNT).map(|place| match place + 1 {
        COLUMN_COUNT => format!(r#","c{place}":7"#),
        _ => format!(r#","c{place}":null"#),
    });
    format!("{{{members}{}}}", rest.collect::<String>())
}

/// The records that came since, by key.
fn since<'a>(known: &[Seen], seen: &'a [Seen]) -> Vec<&'a Seen> {
    let id = |record: &Seen| record.headers["freshet-id"].clone();
    let known: BTreeSet<_> = known.iter().map(id).collect();
    let mut new: Vec<_> = seen.iter().filter(|record| !known.contains(&id(record))).collect();
    new.sort_by_key(|record| record.key.as_ref().unwrap()["id"].as_i64());
    new
}

/// A Stream on a table of a thousand columns: while it is empty, with rows at the ends of each type, after an update
/// that changed no column, and after every row is deleted; then the table that is empty again, as a whole.
pub async fn edges_of_every_type_in_a_thousand_columns(account: &Account) {
    let edges = account.table("edges");
    let named = COLUMNS.iter().map(|(name, kind)| format!("\"{name}\" {kind}"));
    let numbers = (COLUMNS.len()..COLUMN_COUNT).map(|place| format!("\"c{place}\" number(9,0)"));
    account.sql(&format!("create table {edges} ({})", named.chain(numbers).collect::<Vec<_>>().join(", "))).await;
    account.sql(&format!("create stream {} on table {edges}", account.table("changes"))).await;
    let shop = account.sync_of(account.stream("changes"), &["id"], json!({"mode": {"kind": "changes"}})).await;
    let _worker = shop.worker();

    let empty = shop.run_to_the_end().await;
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    for (values, _) in ROWS {
        let insert =
            format!("insert into {edges} ({}, \"c{}\") select {values}, 7", names.join(", "), COLUMN_COUNT - 1);
        account.sql(&insert).await;
    }
    let created = shop.run_to_the_end().await;
    let creates = shop.committed();
    account.sql(&format!("update {edges} set \"price\" = \"price\" where \"id\" <= 2")).await;
    // Whether that is a change, the Stream decides.
    let pairs = account.rows(&format!("select count(*) from {}", account.table("changes"))).await;
    let updated = shop.run_to_the_end().await;
    let updates = shop.committed();
    account.sql(&format!("delete from {edges}")).await;
    let deleted = shop.run_to_the_end().await;
    let deletes = shop.committed();

    assert_eq!(empty.outcome.as_deref(), Some("no_changes"));
    assert_eq!((created.counts.created, created.counts.published, created.counts.dead), (4, 4, 0));
    for (record, (_, members)) in since(&[], &creates).iter().zip(ROWS) {
        let expected = format!(r#"{{"before":null,"after":{},"op":"c","#, image(members));
        assert!(record.text().starts_with(&expected), "{}\n{expected}", record.text());
    }
    let pairs: i64 = pairs[0][0].as_ref().unwrap().parse().unwrap();
    assert_eq!((updated.counts.updated, updated.counts.read), (pairs / 2, pairs / 2));
    for record in since(&creates, &updates) {
        let id = record.key.as_ref().unwrap()["id"].as_u64().unwrap() as usize;
        let same = image(ROWS[id - 1].1);
        assert!(
            record.text().starts_with(&format!(r#"{{"before":{same},"after":{same},"op":"u","#)),
            "{}",
            record.text()
        );
    }
    assert_eq!((deleted.counts.deleted, deleted.counts.published), (4, 8));
    let (gone, tombstones): (Vec<_>, Vec<_>) =
        since(&updates, &deletes).into_iter().partition(|record| record.value != Value::Null);
    assert_eq!((gone.len(), tombstones.len()), (4, 4));
    for (record, (_, members)) in gone.iter().zip(ROWS) {
        let expected = format!(r#"{{"before":{},"after":null,"op":"d","#, image(members));
        assert!(record.text().starts_with(&expected), "{}\n{expected}", record.text());
    }

    let whole = account.sync_of(account.model("edges"), &["id"], json!({"mode": {"kind": "full"}})).await;
    let _worker = whole.worker();
    let none = whole.run_to_the_end().await;
    assert_eq!((none.state, none.counts.read, none.counts.published), (RunState::Succeeded, 0, 0));
    assert!(whole.committed().is_empty());
}

const NAMES: &[&str] = &["select", "order", "FROM", "a.b", "a\"b", "it's", "back\\slash", " ", "żółć"];

/// A table, a Stream and columns whose names are keywords, hold quotes, dots and blanks, or are in lower case.
pub async fn names_that_are_keywords_and_names_with_quotes_and_dots(account: &Account) {
    let (table, stream) = ("where \"x\".y", "table 'of' \"changes\".s");
    let quoted: Vec<_> = NAMES.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    let columns: Vec<_> = quoted.iter().map(|name| format!("{name} number(9,0)")).collect();
    let at = account.table(table);
    account.sql(&format!("create table {at} (\"group\" varchar primary key, {})", columns.join(", "))).await;
    account.sql(&format!("create stream {} on table {at}", account.table(stream))).await;
    let numbers: Vec<_> = (0..NAMES.len()).map(|place| place.to_string()).collect();
    account.sql(&format!("insert into {at} values ('g', {})", numbers.join(", "))).await;
    let row = |group: &str| {
        let mut row = json!({ "group": group });
        NAMES.iter().enumerate().for_each(|(place, name)| row[*name] = place.into());
        row
    };

    let shop = account.sync_of(account.stream(stream), &["group"], json!({"mode": {"kind": "changes"}})).await;
    let worker = shop.worker();
    shop.run_to_the_end().await;
    drop(worker);
    let whole = account.sync_of(account.model(table), &["group", "a\"b"], json!({"mode": {"kind": "diff"}})).await;
    let _worker = whole.worker();
    whole.run_to_the_end().await;
    account.sql(&format!("update {at} set \"group\" = 'h'")).await;
    whole.run_to_the_end().await;

    assert_eq!(shop.committed()[0].value["after"], row("g"));
    let mut values: Vec<_> = whole.committed().into_iter().map(|seen| (seen.key.unwrap(), seen.value)).collect();
    values.sort_by_key(|(key, value)| (key["group"].to_string(), value["op"].to_string()));
    let (g, h) = (json!({"group": "g", "a\"b": 4}), json!({"group": "h", "a\"b": 4}));
    let keys: Vec<_> = values.iter().map(|(key, value)| (key, value["op"].as_str())).collect();
    assert_eq!(keys, [(&g, Some("c")), (&g, Some("d")), (&g, None), (&h, Some("c"))]);
    assert_eq!((&values[1].1["before"], &values[3].1["after"]), (&row("g"), &row("h")));
}
