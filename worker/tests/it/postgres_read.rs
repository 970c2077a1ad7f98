//! Reading a batch: strict order, tokens to go on from, and the late-commit horizon.

use freshet_core::connector::{BatchName, ModelSpec, ReadMode, ReadPlan, SealRequest, Sealed, Source};
use freshet_core::error::Code;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

use crate::postgres::{Bench, Keeper, open, read_request, seal_request, select, table};

fn incremental(cursor: &str) -> ReadMode {
    ReadMode::Incremental { cursor: cursor.into() }
}

async fn seal(source: &mut Box<dyn Source>, plan: &ReadPlan) -> Sealed {
    source.seal(&seal_request(plan, None, None)).await.unwrap()
}

/// Reads a sealed batch whole, then once from each of its tokens: what was sent before and what comes then is
/// always the same. Returns the rows.
async fn read_from_every_token(bench: &Bench, plan: &ReadPlan, sealed: &Sealed) -> Vec<String> {
    let mut source = bench.source().await;
    let mut whole = Keeper::always_full(plan);
    let end = source.read(&read_request(plan, sealed, None), &mut whole).await.unwrap();

    let last = end.token.map(|token| (token, whole.sent.len()));
    for (token, count) in whole.tokens.iter().cloned().chain(last) {
        let mut rest = Keeper::new(plan);
        source.read(&read_request(plan, sealed, Some(token.clone())), &mut rest).await.unwrap();
        let rows: Vec<_> = whole.sent[..count].iter().chain(&rest.sent).map(|sent| sent.row.clone()).collect();
        assert_eq!(rows, whole.rows(), "from {token}");
    }
    whole.rows().into_iter().map(str::to_owned).collect()
}

/// Values of a type in the server's order, each as a key.
const KEYS: &[(&str, &[&str])] = &[
    ("boolean", &["false", "true"]),
    ("smallint", &["-32768", "0", "7"]),
    ("bigint", &["-9223372036854775808", "-1", "9223372036854775807"]),
    ("oid", &["0", "4294967295"]),
    ("real", &["-Infinity", "-1e-45", "0.1", "3.4028235e38", "Infinity", "NaN"]),
    ("double precision", &["-1.7976931348623157e308", "5e-324", "0.1", "1e22", "NaN"]),
    ("numeric", &["-Infinity", "-1e200", "0.00010", "1.5", "123456789012345678901234567890.5", "Infinity", "NaN"]),
    ("text", &["", " ", "'", "\"", "a\\b", "a'b", "żółć", "🦀"]),
    ("varchar(9)", &["", "a", "b"]),
    ("char(5)", &["a", "ab", "b"]),
    ("name", &["a", "b"]),
    ("\"char\"", &["", "a", "b"]),
    ("citext", &["A", "b", "C"]),
    ("mood", &["zebra", "ant", "we'ird"]),
    ("bytea", &["", "\\x00", "\\x00ff", "\\xff"]),
    ("uuid", &["00000000-0000-0000-0000-000000000001", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    (
        "date",
        &["-infinity", "4714-11-24 BC", "0001-12-31 BC", "2026-01-01", "12026-01-01", "5874897-12-31", "infinity"],
    ),
    ("time", &["00:00", "13:37:00.25", "24:00"]),
    ("timetz", &["12:00+05:30", "24:00:00-15:59"]),
    (
        "timestamp",
        &[
            "-infinity",
            "4714-11-24 00:00 BC",
            "0044-03-15 12:00:00.5 BC",
            "2026-01-01 00:00:00.000001",
            "294276-12-31",
            "infinity",
        ],
    ),
    (
        "timestamptz",
        &["-infinity", "4714-11-24 00:00+00 BC", "2026-01-01 00:00:00.5+02", "294276-12-31 UTC", "infinity"],
    ),
    ("inet", &["1.2.3.4/24", "1.2.3.4", "::1.2.3.4", "::ffff:1.2.3.4/100"]),
    ("cidr", &["10.0.0.0/8", "2001:db8::/32"]),
    ("macaddr", &["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"]),
    ("pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF"]),
];

#[tokio::test]
async fn a_read_goes_on_from_every_token_whatever_the_keys_type() {
    let mut bench = Bench::with("create extension citext; create type mood as enum ('zebra', 'ant', 'we''ird')").await;
    for (key_type, values) in KEYS {
        let rows = values.iter().map(|value| format!("('{}')", value.replace('\'', "''"))).rev();
        bench
            .sql(&format!(
                "drop table if exists keyed; create table keyed (k {key_type} primary key, n int);
                 insert into keyed values {}; update keyed set n = place
                 from (select k as of, row_number() over (order by k) as place from keyed) as ordered where k = of",
                rows.collect::<Vec<_>>().join(", ")
            ))
            .await;
        for model in [table("keyed"), select("select * from keyed")] {
            let plan = bench.plan(&model, &["k"], ReadMode::Full).await;
            let sealed = seal(&mut bench.source().await, &plan).await;

            let rows = read_from_every_token(&bench, &plan, &sealed).await;

            let places: Vec<_> =
                rows.iter().map(|row| serde_json::from_str::<Value>(row).unwrap()["n"].as_i64().unwrap()).collect();
            assert_eq!(places, (1..=values.len() as i64).collect::<Vec<_>>(), "{key_type}");
        }
    }
}

#[tokio::test]
async fn a_key_of_several_columns_is_one_order() {
    let bench = Bench::with(
        "create table lines (at date, name text, n int, primary key (name, at, n));
         insert into lines select date '2026-01-01' + d, name, n
         from generate_series(0, 2) as d, unnest(array['a', 'b''c', '']) as name, generate_series(1, 2) as n",
    )
    .await;
    let plan = bench.plan(&table("lines"), &["name", "at", "n"], ReadMode::Full).await;
    let sealed = seal(&mut bench.source().await, &plan).await;

    let rows = read_from_every_token(&bench, &plan, &sealed).await;

    assert_eq!(rows.len(), 18);
    assert_eq!(rows[0], "{\"at\":\"2026-01-01\",\"name\":\"\",\"n\":1}");
}

#[tokio::test]
async fn rows_of_one_key_are_never_parted_by_a_token() {
    let bench = Bench::with(
        "create table orders (id int, n int); insert into orders values (1, 1), (2, 2), (2, 3), (2, 4), (3, 5)",
    )
    .await;
    let plan = bench.plan(&table("orders"), &["id"], ReadMode::Full).await;
    let sealed = seal(&mut bench.source().await, &plan).await;
    let mut sink = Keeper::always_full(&plan);

    bench.source().await.read(&read_request(&plan, &sealed, None), &mut sink).await.unwrap();

    let counts: Vec<_> = sink.tokens.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [1, 4]);
}

/// The server takes these for one key, their texts differ.
#[tokio::test]
async fn keys_that_the_server_takes_for_one_are_not_lost_at_a_token() {
    let mut bench = Bench::with(
        "create extension citext;
         create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);",
    )
    .await;
    for (key_type, values) in [
        ("numeric", "('1.0'), ('1.00'), ('1'), ('2')"),
        ("citext", "('A'), ('a'), ('b')"),
        ("text collate blind", "('A'), ('a'), ('b')"),
        ("char(2) collate blind", "('A'), ('a'), ('b')"),
        ("double precision", "('0'), ('-0'), ('1')"),
    ] {
        // Names that the statements around the model use themselves.
        for (name, model) in
            [("one", table("one")), ("model", table("model")), ("keyed", select("select * from keyed"))]
        {
            bench
            .sql(&format!(
                "drop table if exists {name}; create table {name} (k {key_type}); insert into {name} values {values}"
            ))
            .await;
            let plan = bench.plan(&model, &["k"], ReadMode::Full).await;
            let sealed = seal(&mut bench.source().await, &plan).await;

            let rows = read_from_every_token(&bench, &plan, &sealed).await;

            assert_eq!(rows.len(), values.split(',').count(), "{key_type}");
        }
    }
}

#[tokio::test]
async fn rows_without_a_key_come_first_and_once() {
    let mut bench = Bench::with(
        "create table orders (a int, b int, note text);
         insert into orders values (2, 2, 'x'), (null, 1, 'b'), (3, null, 'c'), (1, 1, 'y'), (null, null, 'a'),
                                   (null, null, null), (1, null, 'd');",
    )
    .await;
    let plan = bench.plan(&table("orders"), &["a", "b"], ReadMode::Full).await;
    let sealed = seal(&mut bench.source().await, &plan).await;
    let mut sink = Keeper::always_full(&plan);
    bench.source().await.read(&read_request(&plan, &sealed, None), &mut sink).await.unwrap();

    // The rows now lie in another order on disk.
    bench.sql("update orders set note = note where note in ('b', 'c', 'x')").await;
    let rows = read_from_every_token(&bench, &plan, &sealed).await;

    let keyed: Vec<_> = sink.sent.iter().map(|sent| sent.key.is_some()).collect();
    assert_eq!(keyed, [false, false, false, false, false, true, true]);
    assert_eq!(rows, sink.rows());
    assert_eq!(rows[5..], ["{\"a\":1,\"b\":1,\"note\":\"y\"}", "{\"a\":2,\"b\":2,\"note\":\"x\"}"]);
}

#[tokio::test]
async fn a_key_that_has_no_order_is_refused() {
    let bench = Bench::with("create table orders (j jsonb, a int[], i interval, r int4range, x xml)").await;
    for key in ["j", "a", "i", "r", "x"] {
        let plan = bench.plan(&table("orders"), &[key], ReadMode::Full).await;
        let mut source = bench.source().await;
        let sealed = seal(&mut source, &plan).await;

        let error = source.read(&read_request(&plan, &sealed, None), &mut Keeper::new(&plan)).await.unwrap_err();

        assert_eq!(error.code, Code::ModelTypeUnsupported, "{key}: {error:?}");
        assert!(error.message.contains(&format!("`{key}`")), "{}", error.message);
    }
    // Outside the search path `>` would be the operator of text, and the order citext's own.
    let apart = Bench::with("create schema \"Apart\"; create extension citext schema \"Apart\"").await;
    let model = select("select 'a'::\"Apart\".citext as c");
    let plan = apart.plan(&model, &["c"], ReadMode::Full).await;
    let mut source = apart.source().await;
    let sealed = seal(&mut source, &plan).await;
    let error = source.read(&read_request(&plan, &sealed, None), &mut Keeper::new(&plan)).await.unwrap_err();
    assert_eq!(error.code, Code::ModelTypeUnsupported);
    let error = source.key_check(&model, &["c".to_owned()]).await.unwrap_err();
    assert_eq!(error.code, Code::ModelTypeUnsupported);

    let mut plan = bench.plan(&table("orders"), &["a"], ReadMode::Full).await;
    plan.key = vec!["gone".into()];
    let mut source = bench.source().await;
    let sealed = Sealed { batch: json!({"kind": "full"}), carry: None, empty: false, notes: Vec::new() };
    let plan_of_rows = ReadPlan { key: vec!["a".into()], ..plan.clone() };
    let error = source.read(&read_request(&plan, &sealed, None), &mut Keeper::new(&plan_of_rows)).await.unwrap_err();
    assert_eq!(error.code, Code::ModelKeyMissing);
}

const EVENTS: &str =
    "create table events (id int primary key, at timestamptz, day date, n bigint, s smallint, local timestamp);";

/// What one seal gives, read to its end.
async fn batch(
    source: &mut Box<dyn Source>,
    plan: &ReadPlan,
    position: Option<Value>,
    carry: Option<Value>,
) -> (Vec<i64>, Option<Value>, Sealed) {
    let request = SealRequest { name: BatchName::default(), plan: plan.clone(), position: position.clone(), carry };
    let sealed = source.seal(&request).await.unwrap();
    if sealed.empty {
        return (Vec::new(), position, sealed);
    }
    let mut sink = Keeper::new(plan);
    let end = source.read(&read_request(plan, &sealed, None), &mut sink).await.unwrap();
    assert!(sink.sent.iter().all(|sent| sent.op == "u"));
    let ids = sink.sent.iter().map(|sent| sent.member("id").parse().unwrap()).collect();
    (ids, end.token.or(position), sealed)
}

#[tokio::test]
async fn each_kind_of_cursor_sends_what_is_new_once() {
    for (cursor, value) in [
        ("at", "timestamptz '2026-01-01' + id * interval '1 s'"),
        ("local", "timestamp '2026-01-01' + id * interval '1 s'"),
        ("day", "date '2026-01-01' + id"),
    ] {
        let mut bench = Bench::with(EVENTS).await;
        let insert = |from: i32, to: i32| {
            format!("insert into events (id, {cursor}) select id, {value} from generate_series({from}, {to}) as id")
        };
        bench.sql(&insert(1, 20)).await;
        let plan = bench.plan(&table("events"), &["id"], incremental(cursor)).await;
        let mut source = bench.source().await;

        let (first, position, _) = batch(&mut source, &plan, None, None).await;
        let (idle, position, _) = batch(&mut source, &plan, position, None).await;
        bench.sql(&insert(21, 25)).await;
        let (second, _, _) = batch(&mut source, &plan, position, None).await;

        assert_eq!(first, (1..=20).collect::<Vec<_>>(), "{cursor}");
        assert_eq!((idle.len(), second), (0, (21..=25).collect::<Vec<_>>()), "{cursor}");
    }
}

#[tokio::test]
async fn a_whole_number_is_a_bound_of_its_own_only_where_it_is_unique() {
    for cursor in ["n", "s"] {
        let mut bench = Bench::with(EVENTS).await;
        bench.sql(&format!("insert into events (id, {cursor}) values (1, 1), (2, 2), (3, 2), (4, 3)")).await;
        let plan = bench.plan(&table("events"), &["id"], incremental(cursor)).await;
        let mut source = bench.source().await;

        // Another row with 3 may still come.
        let (first, position, _) = batch(&mut source, &plan, None, None).await;
        bench.sql(&format!("insert into events (id, {cursor}) values (5, 3), (6, 4)")).await;
        let (second, _, _) = batch(&mut source, &plan, position, None).await;

        assert_eq!((first, second), (vec![1, 2, 3], vec![4, 5]), "{cursor}");
    }
    let bench = Bench::with(EVENTS).await;
    let mut admin = bench.connect().await;
    admin.execute("create unique index on events (n); insert into events (id, n) values (1, 1), (2, 2)").await.unwrap();
    let plan = bench.plan(&table("events"), &["id"], incremental("n")).await;

    let (all, _, _) = batch(&mut bench.source().await, &plan, None, None).await;

    assert_eq!(all, [1, 2]);
}

#[tokio::test]
async fn rows_of_one_cursor_value_go_by_their_key() {
    let bench = Bench::with(EVENTS).await;
    let mut admin = bench.connect().await;
    admin
        .execute("insert into events (id, at) select id, timestamptz '2026-01-01' + (id / 4) * interval '1 s' from generate_series(1, 13) as id")
        .await
        .unwrap();
    let plan = bench.plan(&table("events"), &["id"], incremental("at")).await;
    let sealed = seal(&mut bench.source().await, &plan).await;

    let rows = read_from_every_token(&bench, &plan, &sealed).await;

    assert_eq!(rows.len(), 13);
}

#[tokio::test]
async fn a_batch_reads_the_same_again_whatever_comes_meanwhile() {
    let mut bench = Bench::with(EVENTS).await;
    bench.sql("insert into events (id, at) select id, now() - interval '1 h' from generate_series(1, 5) as id").await;
    let plan = bench.plan(&table("events"), &["id"], incremental("at")).await;
    let mut source = bench.source().await;
    let sealed = seal(&mut source, &plan).await;

    let before = read_from_every_token(&bench, &plan, &sealed).await;
    bench.sql("insert into events (id, at) values (6, now()), (7, now() + interval '1 day')").await;
    let after = read_from_every_token(&bench, &plan, &sealed).await;

    assert_eq!((before.len(), before), (5, after));
}

#[tokio::test]
async fn rows_without_a_cursor_are_not_sent_and_rows_without_a_key_are_refused() {
    let mut bench = Bench::with(
        "create table events (id int, at timestamptz);
         insert into events values (1, '2026-01-01'), (2, null), (3, 'infinity'), (4, '-infinity');",
    )
    .await;
    let plan = bench.plan(&table("events"), &["id"], incremental("at")).await;
    let mut source = bench.source().await;

    let (sent, _, _) = batch(&mut source, &plan, None, None).await;
    bench.sql("insert into events values (null, '2026-01-01')").await;
    let refused = source.seal(&seal_request(&plan, None, None)).await.unwrap_err();

    assert_eq!(sent, [4, 1]);
    assert_eq!(refused.code, Code::ModelKeyNull);
}

#[tokio::test]
async fn a_cursor_of_another_type_is_refused_by_name() {
    let bench = Bench::with(
        "create table events (id int primary key, name text, price numeric, part real, j jsonb, t time, yes bool)",
    )
    .await;
    for cursor in ["name", "price", "part", "j", "t", "yes", "gone"] {
        let plan = bench.plan(&table("events"), &["id"], incremental(cursor)).await;

        let error = bench.source().await.seal(&seal_request(&plan, None, None)).await.unwrap_err();

        assert_eq!(error.code, Code::ModelCursor, "{cursor}");
        assert!(error.message.contains(&format!("`{cursor}`")), "{}", error.message);
    }
}

/// A transaction that has written `id` with the present as its cursor, and is still open.
async fn late(bench: &Bench, id: i32) -> PgConnection {
    let mut connection = bench.connect().await;
    connection.execute("begin").await.unwrap();
    sqlx::query("insert into events (id, at) values ($1, clock_timestamp())")
        .bind(id)
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

async fn now(bench: &mut Bench, id: i32) {
    sqlx::query("insert into events (id, at) values ($1, clock_timestamp())")
        .bind(id)
        .execute(&mut bench.admin)
        .await
        .unwrap();
}

#[tokio::test]
async fn newer_rows_wait_for_an_open_transaction_and_the_run_says_so() {
    let mut bench = Bench::with(EVENTS).await;
    let plan = bench.plan(&table("events"), &["id"], incremental("at")).await;
    let mut source = bench.source().await;
    now(&mut bench, 1).await;
    let (first, position, sealed) = batch(&mut source, &plan, None, None).await;
    assert_eq!((first, sealed.notes.len()), (vec![1], 0));

    let mut open = late(&bench, 2).await;
    now(&mut bench, 3).await;
    let (none, position, waiting) = batch(&mut source, &plan, position, None).await;
    open.execute("commit").await.unwrap();
    let (both, position, _) = batch(&mut source, &plan, position, waiting.carry.clone()).await;
    let (idle, _, _) = batch(&mut source, &plan, position, None).await;

    assert_eq!((none, both, idle), (vec![], vec![2, 3], vec![]));
    assert_eq!(waiting.notes.len(), 1);
    assert!(waiting.notes[0].sentence.contains("could still write older rows"), "{:?}", waiting.notes);
    assert!(waiting.carry.is_some());
}

#[tokio::test]
async fn what_was_settled_by_an_earlier_seal_is_read_while_a_newer_transaction_is_open() {
    let mut bench = Bench::with(EVENTS).await;
    let plan = bench.plan(&table("events"), &["id"], incremental("at")).await;
    let mut source = bench.source().await;
    let mut first = late(&bench, 1).await;
    now(&mut bench, 2).await;
    let (none, position, sealed) = batch(&mut source, &plan, None, None).await;
    let second = late(&bench, 3).await;
    first.execute("commit").await.unwrap();
    now(&mut bench, 4).await;

    let (older, position, sealed) = batch(&mut source, &plan, position, sealed.carry).await;
    drop_transaction(second).await;
    let (newer, _, _) = batch(&mut source, &plan, position, sealed.carry).await;

    assert_eq!((none, older, newer), (vec![], vec![1, 2], vec![4]));
}

async fn drop_transaction(mut connection: PgConnection) {
    connection.execute("rollback").await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_prepared_transaction_holds_rows_back_too() {
    let mut bench = Bench::with(EVENTS).await;
    let plan = bench.plan(&table("events"), &["id"], incremental("at")).await;
    let mut source = bench.source().await;
    let mut open = late(&bench, 1).await;
    let name = format!("prepared_{}", bench.database);
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("prepare transaction '{name}'"))).execute(&mut open).await.unwrap();
    now(&mut bench, 2).await;

    let (none, position, sealed) = batch(&mut source, &plan, None, None).await;
    bench.sql(&format!("commit prepared '{name}'")).await;
    let (both, _, _) = batch(&mut source, &plan, position, sealed.carry).await;

    assert_eq!((none, both), (vec![], vec![1, 2]));
}

#[tokio::test]
async fn transactions_of_other_databases_hold_nothing_back() {
    let mut bench = Bench::with(EVENTS).await;
    let other = Bench::with(EVENTS).await;
    let plan = bench.plan(&table("events"), &["id"], incremental("at")).await;
    let open = late(&other, 1).await;
    now(&mut bench, 1).await;

    let (sent, _, sealed) = batch(&mut bench.source().await, &plan, None, None).await;

    assert_eq!((sent, sealed.notes.len()), (vec![1], 0));
    drop_transaction(open).await;
}

#[tokio::test]
async fn an_empty_model_seals_an_empty_batch() {
    let bench = Bench::with(EVENTS).await;
    for (model, cursor) in
        [(table("events"), "at"), (table("events"), "n"), (select("select * from events where false"), "day")]
    {
        let plan = bench.plan(&model, &["id"], incremental(cursor)).await;

        let sealed = seal(&mut bench.source().await, &plan).await;

        assert!(sealed.empty, "{cursor}");
    }
    let full = ModelSpec::Table { schema: "public".into(), table: "events".into() };
    let plan = bench.plan(&full, &["id"], ReadMode::Full).await;
    assert!(!seal(&mut bench.source().await, &plan).await.empty);
}

#[tokio::test]
async fn a_login_that_can_only_read_sees_the_transactions_of_others() {
    let mut bench = Bench::with(EVENTS).await;
    let login = bench.login().await;
    bench.sql(&format!("grant select on events to {login}")).await;
    let plan = bench.plan(&table("events"), &["id"], incremental("at")).await;
    let mut settings = bench.settings();
    settings["user"] = login.as_str().into();
    settings["password"] = login.as_str().into();
    let mut source = open(settings).await;
    let mut late = late(&bench, 1).await;
    now(&mut bench, 2).await;

    let (none, position, sealed) = batch(&mut source, &plan, None, None).await;
    late.execute("commit").await.unwrap();
    let (both, _, _) = batch(&mut source, &plan, position, sealed.carry).await;

    assert_eq!((none, both), (vec![], vec![1, 2]));
}

#[tokio::test]
async fn settings_of_the_database_change_nothing_that_is_sent() {
    let make = "create table events (id int primary key, at timestamptz, day date, f float8, b bytea, i interval, t text);
                insert into events select n, timestamptz '2026-02-03 04:05:06.7Z' + n * interval '1 day', date '2026-02-03' + n,
                                          1.0 / n, '\\x00ff', '1 day -2 hours', 'a\\''b' from generate_series(1, 9) as n;";
    let plain = Bench::with(make).await;
    let mut odd = Bench::with(make).await;
    for setting in [
        "datestyle = 'SQL, DMY'",
        "intervalstyle = 'sql_standard'",
        "timezone = 'Asia/Kathmandu'",
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
        "backslash_quote = on",
        "extra_float_digits = -15",
        "default_transaction_isolation = 'serializable'",
        "enable_sort = off",
        "transform_null_equals = on",
        "quote_all_identifiers = on",
        "array_nulls = off",
    ] {
        let sql = format!("alter database {} set {setting}", odd.database);
        odd.sql(&sql).await;
    }
    for (key, mode) in [
        ("id", ReadMode::Full),
        ("day", ReadMode::Full),
        ("b", ReadMode::Full),
        ("t", ReadMode::Full),
        ("id", incremental("at")),
        ("id", incremental("day")),
    ] {
        let mut read = Vec::new();
        for bench in [&plain, &odd] {
            let plan = bench.plan(&table("events"), &[key], mode.clone()).await;
            let mut source = bench.source().await;
            let sealed = seal(&mut source, &plan).await;
            // Every row has the same `b` and `t`: there is no token between them.
            let mut rows = read_from_every_token(bench, &plan, &sealed).await;
            rows.sort();
            read.push(rows);
        }

        assert_eq!(read[0].len(), 9, "{key} {mode:?}");
        assert_eq!(read[0], read[1], "{key} {mode:?}");
    }
}
