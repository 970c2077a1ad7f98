//! Every type is sent as the server itself writes it, or refused by name. The server is asked what is right.

use freshet_core::error::Code;
use freshet_core::testing::with_database;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::runtime::Runtime;

use crate::postgres::{Bench, select, table, unique};

/// The server's own text, as a JSON string.
const TEXT: &str = "to_json(v::text)::text";
/// The server's own JSON.
const JSON: &str = "to_json(v)::text";

/// The fraction of a second as we write it, of anything that has microseconds.
fn fraction(v: &str) -> String {
    format!(
        "(select case when us = 0 then '' when us % 1000 = 0 then '.' || lpad((us / 1000)::text, 3, '0')
                      else '.' || lpad(us::text, 6, '0') end
          from (select mod(extract(microseconds from {v})::bigint, 1000000) as us) as part)"
    )
}

/// ISO 8601's year: 0 is 1 BC, and a sign stands before what is not 0 to 9999.
fn year(v: &str) -> String {
    format!(
        "(select case when y between 0 and 9999 then lpad(y::text, 4, '0')
                      else case when y < 0 then '-' else '+' end || lpad(abs(y)::text, greatest(4, length(abs(y)::text)), '0')
                 end
          from (select extract(year from {v})::int + case when extract(year from {v}) < 0 then 1 else 0 end as y) as part)"
    )
}

fn date(v: &str) -> String {
    // Not every date is a timestamp, which to_char() would need.
    let month_and_day = format!("right(regexp_replace({v}::text, ' BC$', ''), 6)");
    format!("case when isfinite({v}) then {} || {month_and_day} else {v}::text end", year(v))
}

fn timestamp(v: &str, zone: &str) -> String {
    let (year, fraction) = (year(v), fraction(v));
    format!(
        "case when isfinite({v}) then {year} || to_char({v}, '-MM-DD\"T\"HH24:MI:SS') || {fraction} || '{zone}'
              else {v}::text end"
    )
}

fn time(v: &str) -> String {
    format!("left({v}::text, 8) || {}", fraction(v))
}

/// A range, with bounds as `bound` says.
fn range(bound: impl Fn(&str) -> String) -> String {
    let (lower, upper) = (bound("lower(v)"), bound("upper(v)"));
    format!(
        "to_json(case when isempty(v) then 'empty' else
             case when lower_inc(v) then '[' else '(' end || case when lower_inf(v) then '' else {lower} end || ',' ||
             case when upper_inf(v) then '' else {upper} end || case when upper_inc(v) then ']' else ')' end end)::text"
    )
}

fn string(expression: &str) -> String {
    format!("to_json({expression})::text")
}

/// A server that is given values and asked what each is to be sent as.
struct Given {
    bench: Bench,
}

impl Given {
    async fn new() -> Self {
        // Each session of this database writes intervals as ISO 8601 does.
        let bench = Bench::with(
            "do $$ begin execute format('alter database %I set intervalstyle = iso_8601', current_database()); end $$;
             create extension citext; create type mood as enum ('so-so', 'we\"ird, \\ one');
             create domain email as text check (value like '%@%'); create domain codes as int[];
             create type textrange as range (subtype = text);",
        )
        .await;
        Self { bench }
    }

    /// Sends `texts` as values of a type; each is to come as `said` has it, an expression over `v` that gives JSON.
    async fn check(&mut self, pg_type: &str, said: &str, texts: &[&str]) {
        self.make(pg_type).await;
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        self.compare(pg_type, said, &texts).await.unwrap();
    }

    async fn make(&mut self, pg_type: &str) {
        self.bench
            .sql(&format!("drop table if exists given; create table given (n int primary key, v {pg_type})"))
            .await;
    }

    async fn compare(&mut self, pg_type: &str, said: &str, texts: &[String]) -> Result<(), TestCaseError> {
        let sent = self.send(pg_type, said, texts).await;
        prop_assert_eq!(sent.len(), texts.len());
        for ((value, said), text) in sent.iter().zip(texts) {
            prop_assert_eq!(value, said, "{} {}", pg_type, text);
        }
        Ok(())
    }

    /// What is sent for each text, and what the server says.
    async fn send(&mut self, pg_type: &str, said: &str, texts: &[String]) -> Vec<(String, String)> {
        self.bench.sql("truncate given").await;
        let sql =
            format!("insert into given select n, t::{pg_type} from unnest($1::text[]) with ordinality as texts (t, n)");
        sqlx::query(AssertSqlSafe(sql)).bind(texts).execute(&mut self.bench.admin).await.unwrap();
        let sent = self.bench.sent(&select(&format!("select n, v, ({said}) as said from given")), &["n"]).await;
        sent.iter().map(|sent| (sent.member("v"), serde_json::from_str(&sent.member("said")).unwrap())).collect()
    }
}

/// As [`Given::check`], with texts drawn at random: 12 times up to 100 of them.
fn check_random(pg_type: &str, said: &str, texts: impl Strategy<Value = String>) {
    let runtime = Runtime::new().unwrap();
    let mut given = runtime.block_on(Given::new());
    runtime.block_on(given.make(pg_type));
    run(texts, |texts| runtime.block_on(given.compare(pg_type, said, &texts)));
}

fn run(texts: impl Strategy<Value = String>, test: impl FnMut(Vec<String>) -> Result<(), TestCaseError>) {
    let config = Config { cases: 12, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let test = std::cell::RefCell::new(test);
    TestRunner::new(config).run(&vec(texts, 1..100), |texts| test.borrow_mut()(texts)).unwrap();
}

#[tokio::test]
async fn whole_numbers_and_booleans() {
    let mut given = Given::new().await;
    given.check("smallint", JSON, &["-32768", "-1", "0", "32767"]).await;
    given.check("integer", JSON, &["-2147483648", "0", "2147483647"]).await;
    given.check("bigint", JSON, &["-9223372036854775808", "9007199254740993", "9223372036854775807"]).await;
    given.check("oid", "v::text", &["0", "4294967295"]).await;
    given.check("boolean", JSON, &["true", "false"]).await;
}

#[tokio::test]
async fn numerics_keep_every_digit() {
    let mut given = Given::new().await;
    let long = format!("-{}.{}", "9876543210".repeat(400), "0123456789".repeat(300));
    // More than 32 767 digits of base 10 000: the count does not fit a signed word.
    let longest = format!("{}.{}", "7".repeat(131_072), "3".repeat(16_383));
    let texts = [
        "0",
        "0.00",
        "-0.0",
        "1e-16383",
        "1e131071",
        "0.0001",
        "0.00010",
        "10000",
        "100000000",
        "99999999.9999",
        "NaN",
        "Infinity",
        "-Infinity",
        &long,
        &longest,
    ];
    given.check("numeric", JSON, &texts).await;
    given.check("numeric(12,2)", JSON, &["0", "-1.5", "9999999999.99", "NaN"]).await;
    given.check("numeric(3,-2)", JSON, &["12345", "-50", "99900"]).await;
    given.check("numeric(2,5)", JSON, &["0.00012", "-0.00001"]).await;
}

#[test]
fn random_numerics_keep_every_digit() {
    check_random("numeric", JSON, "-?[0-9]{1,30}(\\.[0-9]{1,30})?(e-?[0-9]{1,2})?");
}

#[test]
fn random_numerics_with_many_zeros_keep_every_digit() {
    check_random("numeric", JSON, "-?[1-9]?0{0,40}[1-9]?(\\.0{0,40}[1-9]?0{0,9})?1");
}

/// What is sent reads back as the same bits, and has no more digits than what the server writes.
fn same_floats<F: std::str::FromStr + Copy>(
    sent: &[(String, String)],
    bits: fn(F) -> u64,
) -> Result<(), TestCaseError> {
    let digits = |text: &str| {
        let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_matches('0').len()
    };
    for (value, said) in sent {
        match (value.parse::<F>(), said.parse::<F>()) {
            (Ok(ours), Ok(theirs)) => {
                prop_assert_eq!(bits(ours), bits(theirs), "{} {}", value, said);
                prop_assert!(digits(value) <= digits(said), "{} {}", value, said);
            }
            _ => prop_assert_eq!(value, said),
        }
    }
    Ok(())
}

fn float_text(value: f64) -> String {
    value.to_string().replace("inf", "Infinity")
}

fn double_bits(value: f64) -> u64 {
    value.to_bits()
}

fn single_bits(value: f32) -> u64 {
    value.to_bits().into()
}

#[test]
fn random_floats_read_back_as_the_same_bits() {
    let runtime = Runtime::new().unwrap();
    let mut given = runtime.block_on(Given::new());
    runtime.block_on(given.make("float8"));
    run(any::<u64>().prop_map(|bits| float_text(f64::from_bits(bits))), |texts| {
        same_floats(&runtime.block_on(given.send("float8", JSON, &texts)), double_bits)
    });
    runtime.block_on(given.make("float4"));
    run(any::<u32>().prop_map(|bits| float_text(f32::from_bits(bits).into())), |texts| {
        same_floats(&runtime.block_on(given.send("float4", JSON, &texts)), single_bits)
    });
}

#[tokio::test]
async fn the_ends_of_floats_read_back_as_the_same_bits() {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let mut given = Given::new().await;
    given.make("float8").await;
    let texts = [
        "NaN",
        "Infinity",
        "-Infinity",
        "0",
        "-0",
        "5e-324",
        "-5e-324",
        "2.2250738585072014e-308",
        "1.7976931348623157e308",
        "0.1",
        "1e22",
        "1e23",
        "9007199254740993",
        "123456789012345680",
        "1e15",
        "1e16",
    ];
    same_floats(&given.send("float8", JSON, &owned(&texts)).await, double_bits).unwrap();
    given.make("float4").await;
    let texts = ["NaN", "-Infinity", "-0", "1e-45", "1.17549435e-38", "3.4028235e38", "0.1", "16777217", "0.3"];
    same_floats(&given.send("float4", JSON, &owned(&texts)).await, single_bits).unwrap();
}

#[tokio::test]
async fn texts_and_what_is_text() {
    let mut given = Given::new().await;
    let texts =
        ["", " ", "a\"b\\c/d", "line\nfeed\ttab\r\u{8}\u{c}\u{1}\u{1f}\u{7f}", "żółć 🦀 \u{2028}\u{feff}", "'); --"];
    for pg_type in ["text", "varchar", "varchar(40)", "char(30)", "name", "citext"] {
        // A cast of char(n) to text drops the spaces that belong to the value.
        let said = if pg_type == "char(30)" { "to_json(rpad(v::text, 30))::text" } else { TEXT };
        given.check(pg_type, said, &texts).await;
    }
    given.check("\"char\"", TEXT, &["a", "", "\""]).await;
    given.check("mood", TEXT, &["so-so", "we\"ird, \\ one"]).await;
    given.check("email", TEXT, &["a@b", "\"@\\"]).await;
    given.check("xml", TEXT, &["<a b=\"c\">ż&amp;</a>", "text only"]).await;
    // The server sends a declaration only if it says more than the defaults.
    let declared = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>";
    given.check("xml", "to_json('<a/>'::text)::text", &[declared]).await;
    given
        .check("bytea", &string("replace(encode(v, 'base64'), E'\\n', '')"), &["", "\\x00", "\\x00ff10", "\\xdeadbeef"])
        .await;
    given.check("uuid", TEXT, &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "00000000-0000-0000-0000-000000000000"]).await;
    given.check("pg_lsn", TEXT, &["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"]).await;
}

#[test]
fn random_texts() {
    check_random("text", TEXT, "[^\u{0}]{0,40}");
}

#[tokio::test]
async fn json_comes_as_it_is() {
    let mut given = Given::new().await;
    let texts = [
        "null",
        "\"\\u0001\\ud83e\\udd80\"",
        "12345678901234567890.123456789012345678901234567890",
        "1e999",
        "{\"b\": 1, \"a\": [1, {\"ż\": null}]}",
        "[]",
    ];
    given.check("jsonb", "v::text", &texts).await;
    given.check("json", "v::text", &texts).await;
    given.check("json", "v::text", &["{\"a\" : 1,\n  \"a\":2}", "\"\\u0000\""]).await;
}

#[tokio::test]
async fn dates_and_times_at_their_ends() {
    let mut given = Given::new().await;
    given
        .check(
            "date",
            &string(&date("v")),
            &[
                "1970-01-01",
                "2000-02-29",
                "0001-01-01",
                "0001-12-31 BC",
                "0005-02-28 BC",
                "4714-11-24 BC",
                "9999-12-31",
                "10000-01-01",
                "5874897-12-31",
                "infinity",
                "-infinity",
            ],
        )
        .await;
    given
        .check(
            "timestamp",
            &string(&timestamp("v", "")),
            &[
                "1969-12-31 23:59:59.999999",
                "2000-01-01 00:00:00.1",
                "2026-11-23 09:32:13.25",
                "4714-11-24 00:00:00 BC",
                "0044-03-15 12:00:00.000001 BC",
                "294276-12-31 23:59:59.999999",
                "infinity",
                "-infinity",
            ],
        )
        .await;
    given
        .check(
            "timestamptz",
            &string(&timestamp("v", "Z")),
            &[
                "2026-11-23 09:32:13.25+05:30",
                "1969-12-31 23:59:59.999999Z",
                "4714-11-24 00:00:00+00 BC",
                "294276-12-31 23:59:59.999999Z",
                "0001-01-01 00:00:00+14",
                "infinity",
                "-infinity",
            ],
        )
        .await;
    given
        .check("time", &string(&time("v")), &["00:00", "24:00:00", "23:59:59.999999", "13:37:00.25", "00:00:00.000001"])
        .await;
    let zone = "(select z || case when z ~ '^.\\d\\d$' then ':00' else '' end
                 from (select substring(v::text from '[+-].*$') as z) as part)";
    given
        .check(
            "timetz",
            &string(&format!("{} || {zone}", time("v"))),
            &[
                "00:00+00",
                "24:00:00-15:59",
                "23:59:59.999999+05:30",
                "12:00-00:30",
                "12:00:00.5+15:59:59",
                "12:00-02:03:04",
            ],
        )
        .await;
}

#[test]
fn random_dates_and_times() {
    let micros = -210_866_803_200_000_000_i64..9_223_371_331_200_000_000;
    let days = (-2_451_545..2_145_031_949).prop_map(|day: i32| format!("J{}", i64::from(day) + 2_451_545));
    check_random("date", &string(&date("v")), days);
    let clock = |micros: i64| {
        let (second, micro) = (micros.rem_euclid(86_400_000_000) / 1_000_000, micros.rem_euclid(1_000_000));
        format!("{:02}:{:02}:{:02}.{micro:06}", second / 3600, second / 60 % 60, second % 60)
    };
    let stamp =
        micros.prop_map(move |micros| format!("J{} {}", micros.div_euclid(86_400_000_000) + 2_451_545, clock(micros)));
    check_random("timestamp", &string(&timestamp("v", "")), stamp.clone());
    check_random("timestamptz", &string(&timestamp("v", "Z")), stamp);
    check_random("time", &string(&time("v")), (0..86_400_000_000_i64).prop_map(clock));
}

#[tokio::test]
async fn intervals_with_every_mix_of_signs() {
    let mut texts: Vec<String> = Vec::new();
    for months in [-14, -12, -1, 0, 1, 11, 25] {
        for days in [-3, 0, 40] {
            for time in ["-26:03:04.000005", "-00:00:00.5", "00:00:00", "00:00:10", "00:59:59.999999", "30:00:00"] {
                texts.push(format!("{months} months {days} days {time}"));
            }
        }
    }
    texts.extend(
        ["178000000 years 2147483647 days", "-178000000 years -2147483648 days", "2562047788:00:54.775807"]
            .map(str::to_owned),
    );
    let mut given = Given::new().await;
    given.make("interval").await;
    given.compare("interval", TEXT, &texts).await.unwrap();
}

/// Before release 17 the ends of an interval are a time; from then on they are the infinities.
#[tokio::test]
async fn the_ends_of_an_interval_are_what_the_server_says() {
    let mut given = Given::new().await;
    let version: i32 = sqlx::query_scalar("select current_setting('server_version_num')::int")
        .fetch_one(&mut given.bench.admin)
        .await
        .unwrap();
    let ends = if version >= 170_000 {
        ["infinity", "-infinity"]
    } else {
        [
            "2147483647 months 2147483647 days 2562047788:00:54.775807",
            "-2147483648 months -2147483648 days -9223372036854775808 microseconds",
        ]
    };
    given.check("interval", TEXT, &ends).await;
    given.check("interval[]", JSON, &[&format!("{{\"{}\"}}", ends[0])]).await;
}

#[test]
fn random_intervals() {
    let text = (any::<i32>(), any::<i32>(), -9_000_000_000_000_000_000..9_000_000_000_000_000_000_i64)
        .prop_map(|(months, days, micros)| format!("{} months {days} days {micros} microseconds", months / 2));
    check_random("interval", TEXT, text);
}

#[tokio::test]
async fn addresses_and_bits() {
    let mut given = Given::new().await;
    let addresses = [
        "0.0.0.0",
        "255.255.255.255/0",
        "192.168.0.1/24",
        "::",
        "::1",
        "::/0",
        "1::",
        "2001:db8::ff00:42:8329/64",
        "::ffff:192.168.0.1",
        "::192.168.0.1",
        "::ffff:1:0",
        "::1:0",
        "1:0:0:2:0:0:0:3",
        "1:0:2:0:3:0:4:0",
        "64:ff9b::192.0.2.33",
        "::ffff:0:1.2.3.4",
        "0:0:0:0:0:ffff:0:0/96",
        "::2/128",
    ];
    given.check("inet", JSON, &addresses).await;
    given
        .check("cidr", JSON, &["10.0.0.0/8", "10.1.2.3/32", "0.0.0.0/0", "::/0", "2001:db8::/32", "::ffff:1.2.3.4/128"])
        .await;
    given.check("macaddr", TEXT, &["08:00:2b:01:02:03", "FF-FF-FF-FF-FF-FF"]).await;
    given.check("macaddr8", TEXT, &["08:00:2b:01:02:03:04:05", "08002b010203"]).await;
    given.check("bit(5)", TEXT, &["00000", "10101", "11111"]).await;
    given.check("varbit", TEXT, &["", "1", "00000000", "101010101"]).await;
}

#[test]
fn random_addresses() {
    // Groups that are often zero, as real ones are.
    let group = prop_oneof![3 => Just(0u16), 1 => Just(0xffff), 1 => Just(1), 2 => any::<u16>()];
    let text = (vec(group, 8), 0..=128u8).prop_map(|(groups, bits)| {
        let groups: Vec<_> = groups.iter().map(|group| format!("{group:x}")).collect();
        format!("{}/{bits}", groups.join(":"))
    });
    check_random("inet", JSON, text);
}

#[tokio::test]
async fn arrays_nest_and_hold_nulls() {
    let mut given = Given::new().await;
    given.check("int[]", JSON, &["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "{{{1},{2}},{{3},{NULL}}}", "[5:6]={7,8}"]).await;
    given.check("codes", JSON, &["{}", "{1,NULL}"]).await;
    given.check("numeric[]", JSON, &["{1.50,NaN,-Infinity,1e40,NULL}"]).await;
    given.check("text[]", JSON, &["{NULL,\"NULL\",\"\",\"a,b\",\"{c}\",\"d\\\"e\\\\f\",ż}", "{{\" \"},{NULL}}"]).await;
    given.check("bool[]", JSON, &["{t,f,NULL}"]).await;
    given.check("uuid[]", JSON, &["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}"]).await;
    given.check("mood[]", JSON, &["{so-so,\"we\\\"ird, \\\\ one\"}"]).await;
    given.check("jsonb[]", JSON, &["{\"{\\\"a\\\":[1]}\",\"null\",NULL}"]).await;
    given.check("inet[]", JSON, &["{1.2.3.4,::1/64}"]).await;
    given.check("int4range[]", JSON, &["{\"[1,5)\",empty,NULL}"]).await;
    given.check("int2vector", "'[' || replace(v::text, ' ', ',') || ']'", &["1 2 3"]).await;
    let said = format!("'[' || (select string_agg({}, ',') from unnest(v) as e) || ']'", string(&timestamp("e", "Z")));
    given.check("timestamptz[]", &said, &["{2026-11-23 09:32:13.25+05:30,infinity}"]).await;
    let said = "'[' || (select string_agg(to_json(encode(e, 'base64'))::text, ',') from unnest(v) as e) || ']'";
    given.check("bytea[]", said, &["{\"\\\\x00ff\",\"\\\\x\"}"]).await;
}

#[test]
fn random_arrays_of_texts() {
    let element = prop_oneof![
        1 => Just("NULL".to_owned()),
        4 => "[^\u{0}]{0,12}".prop_map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))),
    ];
    check_random("text[]", JSON, vec(element, 0..8).prop_map(|elements| format!("{{{}}}", elements.join(","))));
}

#[tokio::test]
async fn ranges() {
    let mut given = Given::new().await;
    given.check("int4range", TEXT, &["empty", "[1,5)", "(1,5]", "(,5)", "[1,)", "(,)"]).await;
    given.check("int8range", TEXT, &["[-9223372036854775808,9223372036854775806]"]).await;
    given.check("numrange", TEXT, &["[1.50,2.500]", "(-Infinity,NaN)", "[,1]"]).await;
    given.check("daterange", &range(date), &["[2026-01-01,2026-02-01)", "[0044-03-15 BC,infinity]", "(,)"]).await;
    given.check("tsrange", &range(|v| timestamp(v, "")), &["[2026-01-01 10:00,2026-02-01 11:30:00.5]", "empty"]).await;
    given.check("tstzrange", &range(|v| timestamp(v, "Z")), &["(2026-01-01 10:00+02,)", "[-infinity,infinity]"]).await;
    let texts = ["[a,b]", "[\"\",\"a,b\"]", "[\"(\",\"[\\\"\\\\]\"]", "(\" a\",\"b c\")", "[NULL,ż)", "(,\"\"]"];
    given.check("textrange", TEXT, &texts).await;
}

/// What a type is refused with, and by what name.
#[tokio::test]
async fn a_type_that_cannot_be_sent_exactly_is_refused_by_name() {
    let mut bench = Bench::with(
        "create extension hstore; create extension ltree; create extension cube;
         create type pair as (a int, b text); create domain price as money; create domain codes as int[];
         create type floatrange as range (subtype = float8, multirange_type_name = floatmulti);",
    )
    .await;
    let values = [
        ("money", "1"),
        ("money[]", "{1}"),
        ("point", "(1,2)"),
        ("line", "{1,2,3}"),
        ("lseg", "[(0,0),(1,1)]"),
        ("box", "(1,1),(0,0)"),
        ("path", "[(0,0)]"),
        ("polygon", "((0,0))"),
        ("circle", "<(0,0),1>"),
        ("box[]", "{(1,1),(0,0)}"),
        ("tsvector", "a b"),
        ("tsquery", "a & b"),
        ("pair", "(1,x)"),
        ("pair[]", "{\"(1,x)\"}"),
        ("hstore", "a=>1"),
        ("ltree", "a.b"),
        ("cube", "(1,2)"),
        ("int4multirange", "{[1,2)}"),
        ("datemultirange", "{}"),
        ("floatmulti", "{}"),
        ("int4multirange[]", "{}"),
        ("codes[]", "{\"{1}\"}"),
        ("regclass", "pg_class"),
        ("regtype", "int"),
        ("xid", "1"),
        ("xid8", "1"),
        ("tid", "(0,1)"),
        ("cid", "1"),
        ("jsonpath", "$.a"),
        ("pg_snapshot", "1:1:"),
        ("refcursor", "a"),
    ];
    let mut source = bench.source().await;
    for (place, (pg_type, value)) in values.iter().enumerate() {
        bench
            .sql(&format!(
                "create table t{place} (id int primary key, odd {pg_type}); insert into t{place} values (1, '{value}')"
            ))
            .await;

        let errors = [
            source.describe(&table(&format!("t{place}"))).await.unwrap_err(),
            source.describe(&select(&format!("select id, odd from t{place}"))).await.unwrap_err(),
            source.preview(&table(&format!("t{place}")), 10).await.unwrap_err(),
        ];

        for error in errors {
            assert_eq!(error.code, Code::ModelTypeUnsupported, "{pg_type}: {error:?}");
            assert!(error.message.contains("`odd`"), "{pg_type}: {}", error.message);
            assert!(error.message.contains(pg_type), "{pg_type}: {}", error.message);
        }
    }
    // The server describes a domain as the type below it.
    for (sql, name) in [("select row(1, 'a') as odd", "record"), ("select 1::money::price as odd", "money")] {
        let error = source.describe(&select(sql)).await.unwrap_err();

        assert_eq!(error.code, Code::ModelTypeUnsupported);
        assert!(error.message.contains("`odd`") && error.message.contains(name), "{}", error.message);
    }
}

/// The list of tables and the description of one agree on every type that the server knows.
#[tokio::test]
async fn the_catalogue_says_of_every_type_whether_it_can_be_sent() {
    let mut bench = Bench::with(
        "create extension hstore; create schema other; create extension citext schema other;
         create type mood as enum ('a'); create type pair as (a int); create domain price as money;
         create domain email as other.citext; create domain codes as int[]; create domain moods as mood[];
         create type moodrange as range (subtype = mood);",
    )
    .await;
    let types: Vec<String> = sqlx::query_scalar(
        "select format_type(t.oid, null) from pg_type as t join pg_namespace as n on n.oid = t.typnamespace
         where n.nspname in ('pg_catalog', 'public', 'other') and t.typtype <> 'p' and t.typname <> 'gtsvector'
           and (t.typrelid = 0 or t.typname = 'pair')
           and not (t.typelem <> 0 and exists (select from pg_type as e where e.oid = t.typelem
                                                and (e.typtype = 'p' or e.typrelid <> 0 and e.typname <> 'pair')))
         order by 1",
    )
    .fetch_all(&mut bench.admin)
    .await
    .unwrap();
    assert!(types.len() > 100, "{types:?}");
    let columns: Vec<_> = types.iter().enumerate().map(|(place, name)| format!("c{place} {name}")).collect();
    bench.sql(&format!("create table every ({})", columns.join(", "))).await;

    let mut source = bench.source().await;
    let listed = source.catalogue(Some("public")).await.unwrap();
    let every = listed.tables.iter().find(|table| table.name == "every").unwrap();
    assert_eq!(every.columns.len(), types.len());

    let mut wrong = Vec::new();
    for (place, name) in types.iter().enumerate() {
        let described = source.describe(&select(&format!("select c{place} from every"))).await;
        if let Err(error) = &described {
            assert_eq!(error.code, Code::ModelTypeUnsupported, "{name}: {error:?}");
        }
        if described.is_ok() != every.columns[place].supported {
            wrong.push(format!(
                "{name}: listed as {}, described as {}",
                every.columns[place].supported,
                described.is_ok()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_database_in_another_encoding_is_read_as_utf_8_or_refused() {
    let mut admin = Bench::new().await;
    for (encoding, bytes, sent) in [("LATIN1", "\\xe9", Some("\"é\"")), ("SQL_ASCII", "\\xe9", None)] {
        let database = unique("encoded");
        let sql = format!(
            "create database {database} encoding '{encoding}' locale 'C' template template0 strategy file_copy"
        );
        admin.sql(&sql).await;
        let url = with_database(&admin.url, &database);
        let mut bench = Bench { admin: PgConnection::connect(&url).await.unwrap(), url, database };
        bench
            .sql(&format!(
                "create table given (n int primary key, v text);
                 insert into given values (1, convert_from('{bytes}', '{encoding}'))"
            ))
            .await;

        let mut source = bench.source().await;
        let read = source.preview(&table("given"), 1).await;

        match sent {
            Some(sent) => assert_eq!(bench.sent(&table("given"), &["n"]).await[0].member("v"), sent),
            None => assert_eq!(read.unwrap_err().code, Code::PostgresQuery),
        }
    }
}
