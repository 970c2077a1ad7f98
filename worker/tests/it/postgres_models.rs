//! What a connection reaches: the list, a model's columns, its first rows, its key, and what is refused.

use freshet_core::connector::{BatchName, Kind, ModelSpec, ReadEnd, ReadMode, ReadPlan, ReadRequest};
use freshet_core::error::{Code, Error};
use serde_json::{Value, json};

use crate::postgres::{Bench, Keeper, open, select, table, validate};

const ORDERS: &str = "create table orders (id int primary key, name text);
                      insert into orders select n, 'order ' || n from generate_series(1, 5) as n;";

#[tokio::test]
async fn the_catalogue_lists_what_can_be_read() {
    let bench = Bench::with(
        "create schema shop;
         create table shop.orders (line int, id bigint, name text not null, price money, primary key (id, line));
         insert into shop.orders select n, n, 'a' from generate_series(1, 70) as n; analyze shop.orders;
         create view shop.names as select name from shop.orders;
         create materialized view shop.totals as select count(*) as total from shop.orders;
         create table shop.parts (at date primary key) partition by range (at);
         create extension file_fdw; create server files foreign data wrapper file_fdw;
         create foreign table shop.file (line text) server files options (filename '/dev/null');
         create table other (id int); create sequence shop.numbers; create index on shop.orders (name);",
    )
    .await;

    let mut source = bench.source().await;
    let all = source.catalogue(None).await.unwrap();
    let shop = source.catalogue(Some("shop")).await.unwrap();
    let none = source.catalogue(Some("nothing")).await.unwrap();

    let names = |tables: &[freshet_core::connector::CatalogueTable]| {
        tables.iter().map(|table| format!("{}.{} {}", table.schema, table.name, table.kind)).collect::<Vec<_>>()
    };
    let expected = [
        "shop.file foreign_table",
        "shop.names view",
        "shop.orders table",
        "shop.parts partitioned_table",
        "shop.totals materialized_view",
    ];
    assert_eq!(names(&shop.tables), expected);
    assert_eq!(names(&all.tables)[0], "public.other table");
    assert_eq!(names(&all.tables)[1..], expected);
    assert_eq!((none.tables.len(), all.truncated), (0, false));
    let orders = &shop.tables[2];
    assert_eq!(orders.primary_key, ["id", "line"]);
    assert_eq!(orders.rows_estimated, Some(70));
    let columns: Vec<_> = orders
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.source_type.as_str(), column.nullable, column.supported))
        .collect();
    assert_eq!(
        columns,
        [
            ("line", "integer", false, true),
            ("id", "bigint", false, true),
            ("name", "text", false, true),
            ("price", "money", true, false),
        ]
    );
}

#[tokio::test]
async fn a_catalogue_of_more_than_a_thousand_tables_is_cut() {
    let mut bench = Bench::with(
        "do $$ begin for n in 1..1000 loop execute format('create table t%s (id int)', n); end loop; end $$",
    )
    .await;

    let exact = bench.source().await.catalogue(None).await.unwrap();
    bench.sql("create table one_more (id int)").await;
    let cut = bench.source().await.catalogue(None).await.unwrap();

    assert_eq!((exact.tables.len(), exact.truncated), (1_000, false));
    assert_eq!((cut.tables.len(), cut.truncated), (1_000, true));
}

#[tokio::test]
async fn a_description_has_columns_in_order_and_the_key() {
    let bench = Bench::with(
        "create table orders (b text, gone int, price numeric(12,2) not null, a bigint, at timestamptz,
                              tags text[], primary key (a, b));
         alter table orders drop column gone;",
    )
    .await;

    let mut source = bench.source().await;
    let (schema, key) = source.describe(&table("orders")).await.unwrap();
    let (selected, no_key) = source.describe(&select("select a, a + 1 as next from orders; -- all")).await.unwrap();

    let columns: Vec<_> =
        schema.columns.iter().map(|column| (column.name.as_str(), column.kind, column.nullable)).collect();
    assert_eq!(
        columns,
        [
            ("b", Kind::Text, false),
            ("price", Kind::Decimal, false),
            ("a", Kind::Int, false),
            ("at", Kind::TimestampTz, true),
            ("tags", Kind::Json, true),
        ]
    );
    assert_eq!(key, ["a", "b"]);
    assert!(selected.columns.iter().all(|column| column.nullable && column.kind == Kind::Int));
    assert_eq!(no_key, Vec::<String>::new());
}

#[tokio::test]
async fn a_preview_has_the_first_rows_and_says_whether_there_are_more() {
    let bench = Bench::with(
        "create table orders (id int primary key); insert into orders select generate_series(1, 101);
         create table nothing (id int primary key)",
    )
    .await;
    let mut source = bench.source().await;

    let more = source.preview(&table("orders"), 100).await.unwrap();
    let exact = source.preview(&select("select * from orders where id <= 100"), 100).await.unwrap();
    let none = source.preview(&table("nothing"), 100).await.unwrap();

    assert_eq!((more.rows.len(), more.truncated), (100, true));
    assert_eq!((exact.rows.len(), exact.truncated), (100, false));
    assert_eq!((none.rows.len(), none.truncated, none.columns.len()), (0, false, 1));
}

#[tokio::test]
async fn a_preview_keeps_digits_and_cuts_large_cells() {
    let bench = Bench::new().await;
    let model = select(
        "select 9007199254740993 as large, 1.10 as price, null as nothing, true as yes,
                '{\"a\": [1, 0.12345678901234567890]}'::jsonb as exact, '{\"a\": [1, null]}'::jsonb as tree,
                '1e999'::json as huge, array['a', null] as tags, repeat('x', 65534) as fits, repeat('x', 65535) as cut",
    );

    let preview = bench.source().await.preview(&model, 100).await.unwrap();

    let row = &preview.rows[0];
    assert_eq!(row["large"], "9007199254740993");
    assert_eq!(row["price"], "1.10");
    assert_eq!((&row["nothing"], &row["yes"]), (&Value::Null, &Value::Bool(true)));
    assert_eq!(row["exact"], "{\"a\": [1, 0.12345678901234567890]}");
    assert_eq!(row["tree"], json!({"a": [1, null]}));
    assert_eq!(row["huge"], "1e999");
    assert_eq!(row["tags"], json!(["a", null]));
    assert_eq!(row["fits"].as_str().unwrap().len(), 65_534);
    assert_eq!(row["cut"], "(cut: 65537 bytes)");
}

#[tokio::test]
async fn a_key_check_counts_rows_without_key_and_keys_that_repeat() {
    let bench = Bench::with(
        "create table orders (a int, b text, \"we\"\"ird\" int);
         insert into orders values (1, 'x', 1), (1, 'x', 2), (1, 'y', 3), (null, 'x', 4), (null, 'x', 5), (2, null, 6);
         create table nothing (id int)",
    )
    .await;
    let mut source = bench.source().await;
    let mut counts = async |model: &str, key: &[&str]| {
        let key: Vec<_> = key.iter().map(|name| (*name).to_owned()).collect();
        let found = source.key_check(&table(model), &key).await.unwrap();
        assert_eq!(found.key, key);
        (found.rows, found.null_rows, found.duplicate_keys)
    };

    assert_eq!(counts("orders", &["a"]).await, (6, 2, 1));
    assert_eq!(counts("orders", &["a", "b"]).await, (6, 3, 1));
    assert_eq!(counts("orders", &["we\"ird"]).await, (6, 0, 0));
    assert_eq!(counts("nothing", &["id"]).await, (0, 0, 0));
    for (model, key, code) in [
        (table("orders"), "id", Code::ModelKeyMissing),
        (table("gone"), "id", Code::ModelObjectMissing),
        (select("select '{}'::json as j"), "j", Code::ModelTypeUnsupported),
        (select("select array[1] as a"), "a", Code::ModelTypeUnsupported),
        (select("select 1::money as m"), "m", Code::ModelTypeUnsupported),
    ] {
        let error = source.key_check(&model, &[key.to_owned()]).await.unwrap_err();
        assert_eq!(error.code, code, "{model:?}");
    }
}

async fn read(bench: &Bench, plan: &ReadPlan) -> Result<(Keeper, ReadEnd), Error> {
    let mut sink = Keeper::new(plan);
    let request =
        ReadRequest { name: BatchName::default(), plan: plan.clone(), batch: json!({"kind": "full"}), from: None };
    let end = bench.source().await.read(&request, &mut sink).await?;
    Ok((sink, end))
}

#[tokio::test]
async fn a_column_that_changed_since_the_model_was_saved_is_refused_by_name() {
    let changes = [
        ("alter table orders drop column name", Some("`name` is gone")),
        ("alter table orders rename column name to title", Some("`name` is gone")),
        ("alter table orders alter column name type varchar(9)", Some("`name` was text and is varchar")),
        ("alter table orders alter column id type bigint", Some("`id` was int4 and is int8")),
        ("alter table orders drop constraint orders_pkey, alter column id drop not null", Some("`id` of the key")),
        ("alter table orders add column added int default 1", None),
        ("alter table orders alter column name set not null", None),
    ];
    let mut bench = Bench::new().await;
    for (change, told) in changes {
        bench.sql(&format!("drop table if exists orders; {ORDERS}")).await;
        let plan = bench.plan(&table("orders"), &["id"], ReadMode::Full).await;
        bench.sql(change).await;

        let found = read(&bench, &plan).await;

        match told {
            Some(told) => {
                let error = found.err().unwrap_or_else(|| panic!("taken: {change}"));
                assert_eq!(error.code, Code::ModelColumnsChanged, "{change}");
                assert!(error.message.contains(told), "{change}: {}", error.message);
            }
            None => assert_eq!(found.unwrap().0.rows()[0], "{\"id\":1,\"name\":\"order 1\"}", "{change}"),
        }
    }
}

#[tokio::test]
async fn a_model_that_the_server_refuses_has_the_right_code() {
    let bench = Bench::with(ORDERS).await;
    let mut source = bench.source().await;
    let cases = [
        (table("nothing"), Code::ModelObjectMissing),
        (ModelSpec::Table { schema: "nowhere".into(), table: "orders".into() }, Code::ModelObjectMissing),
        (table("Orders"), Code::ModelObjectMissing),
        (select("select * from nothing"), Code::ModelObjectMissing),
        (select("select price from orders"), Code::ModelObjectMissing),
        (select("select nothing(id) from orders"), Code::ModelObjectMissing),
        (select("select id from orders group by"), Code::ModelSyntax),
        (select("select id, id from orders"), Code::ModelDuplicateColumns),
        (select("select 1, 2"), Code::ModelDuplicateColumns),
        (select("select from orders"), Code::ModelObjectMissing),
    ];

    for (model, code) in cases {
        let error = source.describe(&model).await.unwrap_err();
        assert_eq!(error.code, code, "{model:?}: {error:?}");
        let again = source.preview(&model, 1).await.unwrap_err();
        assert_eq!(again.code, code, "{model:?}: {again:?}");
    }
}

#[tokio::test]
async fn a_table_that_the_login_may_not_read_is_refused_before_it_is_saved() {
    let mut bench = Bench::with(ORDERS).await;
    let login = bench.login().await;
    let mut settings = bench.settings();
    (settings["user"], settings["password"]) = (login.clone().into(), login.clone().into());
    let mut source = open(settings).await;

    let nothing = source.describe(&table("orders")).await.unwrap_err();
    bench.sql(&format!("grant select (id) on orders to {login}")).await;
    let one_column = source.describe(&table("orders")).await.unwrap_err();
    let selected = source.describe(&select("select id from orders")).await;

    assert_eq!((nothing.code, one_column.code), (Code::PostgresPrivilege, Code::PostgresPrivilege));
    assert_eq!(selected.unwrap().0.columns.len(), 1);
}

#[tokio::test]
async fn what_fails_while_it_is_read_tells_no_value() {
    let bench = Bench::with(ORDERS).await;
    let mut settings = bench.settings();
    settings["statement_timeout_s"] = 1.into();
    let mut source = open(settings).await;

    let value = source.preview(&select("select ('secret' || id)::int as n from orders"), 1).await.unwrap_err();
    let slow = source.preview(&select("select count(*) as n from generate_series(1, 1e15)"), 1).await.unwrap_err();
    let after = source.preview(&table("orders"), 1).await.unwrap();

    assert_eq!(value.code, Code::PostgresQuery);
    assert!(value.message.contains("22P02") && !value.message.contains("secret"), "{}", value.message);
    assert_eq!(slow.code, Code::PostgresTimeout);
    assert_eq!(after.rows.len(), 1);
}

#[test]
fn a_text_that_is_not_one_select_is_refused_before_it_is_saved() {
    let cases = [
        ("select 1; select 2", Code::ModelMultipleStatements),
        ("select 1; drop table orders", Code::ModelMultipleStatements),
        ("selec id from", Code::ModelSyntax),
        ("select 1) as model; drop table orders; --", Code::ModelSyntax),
        ("select 'open", Code::ModelSyntax),
        ("select 1 /* open", Code::ModelSyntax),
        ("", Code::Invalid),
        (" \n", Code::Invalid),
        ("select '\0'", Code::Invalid),
        ("-- nothing", Code::ModelNotSelect),
        ("update orders set id = 1", Code::ModelNotSelect),
        ("insert into orders values (1)", Code::ModelNotSelect),
        ("merge into orders using orders as o on true when matched then delete", Code::ModelNotSelect),
        ("truncate orders", Code::ModelNotSelect),
        ("create table copy as select * from orders", Code::ModelNotSelect),
        ("with gone as (delete from orders returning *) select * from gone", Code::ModelNotSelect),
        ("select * from (with gone as (delete from orders returning *) select * from gone) as g", Code::ModelNotSelect),
        ("select * into copy from orders", Code::ModelNotSelect),
        ("select 1 as a union select id into copy from orders", Code::ModelNotSelect),
        ("select id from orders for no key update", Code::ModelSyntax),
        ("table orders", Code::ModelSyntax),
        ("explain select 1", Code::ModelNotSelect),
        ("begin", Code::ModelNotSelect),
        ("do $$ begin end $$", Code::ModelSyntax),
        ("copy orders to stdout", Code::ModelNotSelect),
        ("set role postgres", Code::ModelNotSelect),
        ("select pg_catalog.\"set_config\"('a.b', '1', false)", Code::ModelNotSelect),
        ("select U&\"\\0073et_config\"('a.b', '1', false)", Code::ModelNotSelect),
        ("select SET_CONFIG('a.b', '1', false)", Code::ModelNotSelect),
        ("select id from orders order by nextval('numbers')", Code::ModelNotSelect),
        ("select id from orders where pg_sleep_for('1 s') is null", Code::ModelNotSelect),
        ("select query_to_xml_and_xmlschema('select 1', true, false, '')", Code::ModelNotSelect),
        ("select pg_try_advisory_lock(1)", Code::ModelNotSelect),
        ("select lo_from_bytea(0, 'x')", Code::ModelNotSelect),
        ("select * from dblink_send_query('a', 'b')", Code::ModelNotSelect),
        ("select * from pg_logical_slot_get_changes('s', null, null)", Code::ModelNotSelect),
        ("select (select pg_notify('a', 'b'))", Code::ModelNotSelect),
        ("values (setval('numbers', 1))", Code::ModelNotSelect),
    ];
    let mut wrong = Vec::new();

    for (sql, code) in cases {
        let found = validate(&select(sql)).map_err(|error| error.code);
        wrong.extend((found != Err(code)).then(|| format!("{sql}: {found:?}")));
    }
    assert_eq!(wrong, Vec::<String>::new());
    let long = format!("select '{}'", "x".repeat(100_000));
    assert_eq!(validate(&select(&long)).unwrap_err().code, Code::Invalid);
    for (schema, name) in [("", "a"), ("a", ""), ("a", "a\0"), ("a", "ż".repeat(32).as_str())] {
        let error = validate(&ModelSpec::Table { schema: schema.into(), table: name.into() }).unwrap_err();
        assert_eq!(error.code, Code::Invalid, "{name:?}");
    }
}

#[tokio::test]
async fn statements_that_the_server_reads_otherwise_than_the_check_write_nothing() {
    let mut bench = Bench::with(ORDERS).await;
    bench
        .sql(
            "create sequence numbers;
             create function put() returns int language sql as 'insert into orders values (9) returning id';
             create function next() returns bigint language sql as 'select nextval(''numbers'')';
             create function calm() returns int language plpgsql stable as
             $$ begin execute 'delete from orders'; return 1; end $$;",
        )
        .await;
    let mut source = bench.source().await;

    for sql in ["select put() as n", "select next() as n", "select calm() as n"] {
        assert_eq!(validate(&select(sql)).map_err(|error| error.code), Ok(()), "{sql}");
        let error = source.preview(&select(sql), 1).await.unwrap_err();
        assert_eq!(error.code, Code::PostgresQuery, "{sql}: {error:?}");
    }
    // Even past the check, the server takes one SELECT in brackets and nothing else.
    for sql in [
        "delete from orders returning id",
        "select 1 as a) as model; delete from orders; --",
        "select 1 as a union select id into copy from orders",
        "select * from orders for update",
        "with gone as (delete from orders returning *) select * from gone",
    ] {
        assert!(source.preview(&select(sql), 1).await.is_err(), "{sql}");
    }

    let (rows, last): (i64, Option<i64>) =
        sqlx::query_as("select (select count(*) from orders), (select last_value from pg_sequences)")
            .fetch_one(&mut bench.admin)
            .await
            .unwrap();
    assert_eq!((rows, last), (5, None));
}

#[tokio::test]
async fn names_of_every_kind_are_read() {
    let names = [
        "select",
        "Order",
        "we\"ird",
        "with space",
        "semi;colon",
        "o'clock",
        "żółć🦀",
        "$1",
        "a.b",
        "--",
        "/*",
        "%s{}",
        "back\\slash",
        "\"",
        "é",
        "e\u{301}",
        "tab\tline\n",
    ];
    let mut bench = Bench::new().await;
    for name in names {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        bench
            .sql(&format!(
                "create schema {quoted}; create table {quoted}.{quoted} ({quoted} text primary key, plain int);
             insert into {quoted}.{quoted} values ('b', 2), ('a', 1);"
            ))
            .await;
        let model = ModelSpec::Table { schema: name.into(), table: name.into() };
        assert_eq!(validate(&model).map_err(|error| error.code), Ok(()));

        let mut source = bench.source().await;
        let (schema, key) = source.describe(&model).await.unwrap();
        let listed = source.catalogue(Some(name)).await.unwrap();
        let checked = source.key_check(&model, &key).await.unwrap();
        let preview = source.preview(&model, 5).await.unwrap();
        let from_table = bench.sent(&model, &[name]).await;
        let from_sql = bench.sent(&select(&format!("select * from {quoted}.{quoted}")), &[name]).await;

        assert_eq!((schema.columns[0].name.as_str(), key[0].as_str()), (name, name));
        assert_eq!((listed.tables.len(), listed.tables[0].primary_key[0].as_str()), (1, name));
        assert_eq!((checked.rows, checked.duplicate_keys), (2, 0));
        assert_eq!(preview.rows.len(), 2);
        let row: Value = serde_json::from_str(&from_table[0].row).unwrap();
        assert_eq!(row, json!({ name: "a", "plain": 1 }));
        assert_eq!(from_table, from_sql);
    }
}

#[tokio::test]
async fn a_thousand_columns_are_read() {
    let columns = |part: fn(usize) -> String| (1..=1_000).map(part).collect::<Vec<_>>().join(", ");
    let mut bench = Bench::with(&format!("create table wide ({})", columns(|n| format!("c{n} int")))).await;
    bench.sql(&format!("insert into wide values ({})", columns(|n| n.to_string()))).await;

    let listed = bench.source().await.catalogue(None).await.unwrap();
    let preview = bench.source().await.preview(&table("wide"), 1).await.unwrap();
    let sent = bench.sent(&table("wide"), &["c1000"]).await;

    assert_eq!(listed.tables[0].columns.len(), 1_000);
    assert_eq!(preview.rows[0]["c1000"], "1000");
    assert_eq!(
        sent[0].row,
        format!("{{{}}}", (1..=1_000).map(|n| format!("\"c{n}\":{n}")).collect::<Vec<_>>().join(","))
    );
}

#[tokio::test]
async fn an_empty_table_sends_nothing_and_one_without_columns_is_refused() {
    let bench = Bench::with("create table orders (id int primary key); create table bare ()").await;
    let plan = bench.plan(&table("orders"), &["id"], ReadMode::Full).await;

    let (sink, end) = read(&bench, &plan).await.unwrap();
    let bare = bench.source().await.describe(&table("bare")).await.unwrap_err();

    assert_eq!((sink.sent.len(), sink.tokens.len(), end.token), (0, 0, None));
    assert_eq!(bare.code, Code::ModelObjectMissing);
}

/// What a model might be made to do besides reading, each as it would be written.
const REACHING_OUT: [&str; 22] = [
    "copy (select 1) to program 'id'",
    "copy orders from program 'id'",
    "select pg_read_file('/etc/passwd')",
    "select pg_catalog.pg_read_binary_file('/etc/passwd')",
    "select pg_ls_dir('/')",
    "select * from dblink('host=127.0.0.1', 'select 1') as t (n int)",
    "select dblink_connect('host=127.0.0.1')",
    "select lo_import('/etc/passwd')",
    "select lo_export(1, '/tmp/x')",
    "select lo_from_bytea(0, 'x')",
    "select lo_unlink(1)",
    "set role postgres",
    "reset role",
    "set session authorization postgres",
    "select set_config('role', 'postgres', false)",
    "select set_config('default_transaction_read_only', 'off', false)",
    "select 1; select 2",
    "select 1 as n;--",
    "select 1 as n) as model; set role postgres; --",
    "select pg_sleep(60)",
    "select id from orders where pg_sleep(60) is null",
    "select pg_terminate_backend(1)",
];

#[tokio::test]
async fn sql_of_models_that_reaches_out_is_refused_and_past_the_check_does_nothing() {
    let mut bench = Bench::with(ORDERS).await;
    let login = bench.login().await;
    bench.sql(&format!("grant select on orders to {login}")).await;
    let mut settings = bench.settings();
    (settings["user"], settings["password"]) = (login.clone().into(), login.clone().into());
    let mut patient = open(settings.clone()).await;
    settings["statement_timeout_s"] = 1.into();
    let mut source = open(settings).await;

    for sql in REACHING_OUT {
        // A semicolon and a comment at the end change nothing, and are taken; all else is refused before it is saved.
        let checked = validate(&select(sql)).map_err(|error| error.code);
        assert_eq!(checked.is_ok(), sql == "select 1 as n;--", "{sql}: {checked:?}");
    }
    // Had the check not refused it: one SELECT, with the rights of who reads, in a transaction that only reads, for a
    // second. Large objects of their own PostgreSQL before 16 lets those make too: there the check is all.
    for sql in REACHING_OUT.iter().copied().filter(|sql| !sql.contains("lo_from_bytea")) {
        let since = std::time::Instant::now();
        let previewed = source.preview(&select(sql), 1).await;
        assert!(since.elapsed() < std::time::Duration::from_secs(30), "{sql} held the server");
        let is_undone = ["select 1 as n;--", "set_config('default", "backend(1)"].iter().any(|word| sql.contains(word));
        assert!(previewed.is_err() || is_undone, "{sql}: {previewed:?}");
        let who = select("select current_user::text as who, count(*)::int as n from orders");
        let after = serde_json::to_string(&patient.preview(&who, 1).await.unwrap().rows).unwrap();
        assert!(after.contains(&login) && after.contains('5'), "{sql}: {after}");
        assert!(source.preview(&select("delete from orders returning id"), 1).await.is_err(), "{sql} opened writing");
    }
    let objects: i64 =
        sqlx::query_scalar("select count(*) from pg_largeobject_metadata").fetch_one(&mut bench.admin).await.unwrap();
    assert_eq!(objects, 0, "a large object was made");
}
