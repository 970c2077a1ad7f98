//! The SQL that is known, and the errors for what is not.

use serde_json::json;

use crate::bench::Bench;

#[tokio::test]
async fn the_statements_that_freshet_sends() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create schema db.freshet",
            "create table db.public.t (id number primary key, v varchar)",
            "create view db.public.v as select id, v from db.public.t where id > 0",
            "CREATE STREAM IF NOT EXISTS db.freshet.s1 ON TABLE db.public.t APPEND_ONLY = FALSE SHOW_INITIAL_ROWS = TRUE COMMENT = 'freshet'",
            "CREATE STREAM IF NOT EXISTS db.freshet.s1 ON TABLE db.public.t APPEND_ONLY = FALSE SHOW_INITIAL_ROWS = TRUE COMMENT = 'freshet'",
            "CREATE STREAM db.freshet.s2 ON VIEW db.public.v",
            "insert into t values (1, 'a'), (2, 'b')",
            "CREATE OR REPLACE STREAM db.freshet.s1 ON TABLE db.public.t AT (STREAM => 'db.freshet.s1')",
            "CREATE TRANSIENT TABLE IF NOT EXISTS db.freshet.b_000000000001 DATA_RETENTION_TIME_IN_DAYS = 0 AS SELECT * FROM db.freshet.s1",
            "SELECT SYSTEM$STREAM_HAS_DATA('db.freshet.s1')",
            "SELECT id, METADATA$ACTION, METADATA$ISUPDATE, METADATA$ROW_ID FROM db.freshet.b_000000000001 ORDER BY METADATA$ROW_ID, METADATA$ACTION",
            "SHOW STREAMS LIKE 's1' IN SCHEMA db.freshet",
            "DESCRIBE STREAM db.freshet.s1",
            "TRUNCATE TABLE db.freshet.b_000000000001",
            "DROP TABLE IF EXISTS db.freshet.b_000000000001",
            "DROP TABLE IF EXISTS db.freshet.b_000000000001",
            "create table db.freshet.outbox (b varchar, id number, v varchar, a varchar, u boolean, r varchar)",
            "ALTER TABLE db.public.t SET CHANGE_TRACKING = TRUE",
            "SELECT SYSTEM$STREAM_GET_TABLE_TIMESTAMP('db.freshet.s1')",
            "SELECT * FROM TABLE(SYSTEM$STREAM_BACKLOG('db.freshet.s1'))",
            "SELECT * FROM db.public.t CHANGES (INFORMATION => DEFAULT) AT (TIMESTAMP => '2024-06-05 12:30:00'::TIMESTAMP_LTZ) END (TIMESTAMP => '2024-06-05 12:31:00'::TIMESTAMP_LTZ)",
            "CREATE TASK db.freshet.bell WAREHOUSE = wh WHEN SYSTEM$STREAM_HAS_DATA('db.freshet.s1') AS CALL db.freshet.ring('s1')",
        ])
        .await;

    let text = "BEGIN TRANSACTION; INSERT INTO db.freshet.outbox SELECT 'b1', s.* FROM db.freshet.s2 AS s; COMMIT;";
    let (status, body) = bench.submit("", text, json!({"parameters": {"MULTI_STATEMENT_COUNT": "3"}})).await;

    assert_eq!(status, 200, "{body}");
    assert_eq!(
        bench.lines("select b, id, v, a from db.freshet.outbox order by id").await,
        ["b1|1|a|INSERT", "b1|2|b|INSERT"]
    );
    assert_eq!(bench.code("CREATE STREAM db.freshet.s3 ON DYNAMIC TABLE db.public.dt").await, "002003");
}

#[tokio::test]
async fn what_is_not_known_fails_with_snowflakes_error_and_never_pretends() {
    let bench = Bench::new().await;
    bench.all(&["create table t (id number)", "create task bell as select 1"]).await;

    for (statement, code) in [
        ("selec 1", "001003"),
        ("select 1 +", "001003"),
        ("", "000900"),
        ("select * from nope", "002003"),
        ("select * from nope.public.t", "002003"),
        ("select * from db.nope.t", "002003"),
        ("select nope from t", "000904"),
        ("select frobnicate(1)", "002140"),
        ("select system$frobnicate('x')", "002141"),
        ("select id from t a, t b", "000906"),
        ("create table t (id number)", "002002"),
        ("create table u (id number, ID varchar)", "002025"),
        ("create table u (id frobnicate)", "002040"),
        ("insert into t values (1, 2)", "001757"),
        ("insert into t values ('x')", "100038"),
        ("insert into t select 1 / 0", "100051"),
        ("drop table nope", "002003"),
        ("drop stream t", "002003"),
        ("describe table nope", "002043"),
        ("show tables in schema db.nope", "002043"),
        ("select 1 union select 1, 2", "001789"),
        ("copy into t from @stage", "001003"),
        ("create procedure p() returns number language sql as 'select 1'", "001003"),
        ("call ring()", "001003"),
        ("alter task bell resume", "001003"),
        ("grant select on table t to role public", "001003"),
        ("undrop table t", "001003"),
        ("create dynamic table d target_lag = '1 minute' warehouse = wh as select 1", "001003"),
        ("select * from t sample (10)", "001003"),
        ("select to_char(current_date, 'YYYY')", "001003"),
        ("alter session set autocommit = false", "001003"),
    ] {
        assert_eq!(bench.code(statement).await, code, "{statement}");
    }
    assert_eq!(bench.one("select count(*) from t").await, "0");
}

#[tokio::test]
async fn quoted_and_unquoted_names_and_keywords_as_names() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table \"Mixed \"\"x\" (\"select\" number, \"lower\" varchar, Upper number, \"order\" date)",
            "insert into \"Mixed \"\"x\" (\"select\", \"lower\", UPPER) values (1, 'a', 2)",
            "create stream \"s.1\" on table \"Mixed \"\"x\"",
            "insert into \"Mixed \"\"x\" (\"select\") values (5)",
        ])
        .await;

    let body = bench.run("select \"select\", \"lower\", upper, m.\"order\" from \"Mixed \"\"x\" m order by 1").await;

    let names: Vec<_> = body["resultSetMetaData"]["rowType"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|column| column["name"].clone())
        .collect();
    assert_eq!(names, [json!("select"), json!("lower"), json!("UPPER"), json!("order")]);
    assert_eq!(bench.one("select system$stream_has_data('db.public.\"s.1\"')").await, "true");
    assert_eq!(bench.lines("select \"select\" from \"s.1\"").await, ["5"]);
    assert_eq!(bench.code("select lower from \"Mixed \"\"x\"").await, "000904");
}

#[tokio::test]
async fn joins_ctes_windows_and_subqueries() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table a (id number, g varchar)",
            "create table b (id number, n number(10,2))",
            "insert into a values (1, 'x'), (2, 'x'), (3, 'y'), (4, null)",
            "insert into b values (1, 1.5), (1, 2.5), (3, 4)",
        ])
        .await;

    for (query, expected) in [
        (
            "select a.id, sum(b.n) from a left join b on a.id = b.id group by a.id order by 1",
            vec!["1|4.00", "2|NULL", "3|4.00", "4|NULL"],
        ),
        ("select id, n from a join b using (id) order by n", vec!["1|1.50", "1|2.50", "3|4.00"]),
        (
            "with c as (select g, count(*) as k from a group by g) select g, k from c order by k desc, g",
            vec!["x|2", "y|1", "NULL|1"],
        ),
        ("select id from a where id in (select id from b) order by id", vec!["1", "3"]),
        ("select id from a where exists (select 1 from b where b.id = a.id and b.n > 2) order by id", vec!["1", "3"]),
        (
            "select id, (select max(n) from b where b.id = a.id) as m from a where id < 3 order by id",
            vec!["1|2.50", "2|NULL"],
        ),
        (
            "select id from a qualify row_number() over (partition by g order by id desc) = 1 order by id",
            vec!["2", "3", "4"],
        ),
        (
            "select g, sum(id) over (partition by g) as s from a where g is not null order by id",
            vec!["x|3", "x|3", "y|3"],
        ),
        ("select distinct g from a order by g nulls first limit 2 offset 1", vec!["x", "y"]),
        ("select id from a minus select id from b order by id", vec!["2", "4"]),
        (
            "select coalesce(a.id, b.id) as i, a.id is null as l from a full outer join (select 9 as id) b on a.id = b.id order by i desc limit 2",
            vec!["9|true", "4|false"],
        ),
        ("select id * 2 as twice, twice + 1 as more from a where twice > 6", vec!["8|9"]),
        (
            "select count(distinct g), count_if(g = 'x'), listagg(g, ',') within group (order by id) from a",
            vec!["2|2|x,x,y"],
        ),
        ("select * exclude (g) from a where g ilike 'Y%'", vec!["3"]),
        ("select id from a where id not in (1, 2) and g is distinct from 'y'", vec!["4"]),
        ("select case g when 'x' then 1 when 'y' then 2.5 end from a order by id", vec!["1.0", "1.0", "2.5", "NULL"]),
        ("select iff(id > 2, 'big', 'small'), nvl(g, '-') from a order by id desc limit 1", vec!["big|-"]),
        ("select column1, column2 from values (1, 'a'), (2, null) order by 1 desc", vec!["2|NULL", "1|a"]),
        ("select 'B' < 'a', 'Z' < 'ä', upper('ß')", vec!["true|true|ß"]),
        (
            "select substr('hello', -3, 2), left('hello', 2), split_part('a.b.c', '.', 2), length('äö')",
            vec!["ll|he|b|2"],
        ),
        ("select 7 / 2, 10 / 3, 5 % 3, round(2.567, 2), 0.1 + 0.2", vec!["3.500000|3.333333|2|2.570|0.3"]),
        (
            "select dateadd(day, 3, '2024-02-27'::date), datediff(hour, '2024-01-01 01:30:00'::timestamp_ntz, '2024-01-01 03:00:00'::timestamp_ntz)",
            vec!["19783|2"],
        ),
        ("select parse_json('{\"a\":{\"b\":[1,2]}}'):a.b[1]::number + 1", vec!["3"]),
        (
            "select equal_null(null, null), hash(1) = hash(1.00), hash('a') = hash('b'), try_cast('x' as number)",
            vec!["true|true|false|NULL"],
        ),
    ] {
        assert_eq!(bench.lines(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn a_hash_over_all_rows_does_not_depend_on_their_order() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table a (n number, v varchar)",
            "create table b (n number, v varchar)",
            "insert into a values (1, 'x'), (2, null)",
            "insert into b values (2, null), (1, 'x')",
        ])
        .await;

    let of = async |table: &str| bench.one(&format!("select hash_agg(*) from {table}")).await;

    assert_eq!(of("a").await, of("b").await);
    bench.run("insert into b values (1, 'x')").await;
    assert_ne!(of("a").await, of("b").await);
}

#[tokio::test]
async fn dml_answers_counts() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table t (id number, v varchar default 'none')",
            "create table u (id number, v varchar)",
            "insert into u values (2, 'two'), (3, 'three')",
        ])
        .await;

    let inserted = bench.run("insert into t (id) values (1), (2)").await;
    let merged = bench
        .run("merge into t using u on t.id = u.id when matched and u.v = 'none' then delete when matched then update set t.v = u.v when not matched then insert (id, v) values (u.id, u.v)")
        .await;
    let updated = bench.run("update t set v = u.v || '!' from u where t.id = u.id and u.id = 3").await;
    let deleted = bench.run("delete from t using u where t.id = u.id and u.id = 2").await;

    assert_eq!((&inserted["data"], &inserted["stats"]["numRowsInserted"]), (&json!([["2"]]), &json!(2)));
    assert_eq!(merged["data"], json!([["1", "1", "0"]]));
    assert_eq!(updated["data"], json!([["1", "0"]]));
    assert_eq!(deleted["data"], json!([["1"]]));
    assert_eq!(bench.lines("select id, v from t order by id").await, ["1|none", "3|three!"]);
    bench.run("insert into u values (3, 'again')").await;
    assert_eq!(bench.code("merge into t using u on t.id = u.id when matched then update set v = u.v").await, "100090");
}

#[tokio::test]
async fn show_and_describe_have_the_documented_columns() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table t (id number primary key, v varchar(10) comment 'c')",
            "create view w as select id from t",
            "create stream s on table t comment = 'mine'",
        ])
        .await;

    for (statement, first) in [
        (
            "show streams",
            "created_on,name,database_name,schema_name,owner,comment,table_name,source_type,base_tables,type,stale,mode,stale_after,invalid_reason,owner_role_type",
        ),
        (
            "show tables",
            "created_on,name,database_name,schema_name,kind,comment,cluster_by,rows,bytes,owner,retention_time,automatic_clustering,change_tracking",
        ),
        (
            "show views",
            "created_on,name,reserved,database_name,schema_name,owner,comment,text,is_secure,is_materialized",
        ),
        ("show schemas", "created_on,name,is_default,is_current,database_name,owner,comment,options,retention_time"),
        ("show databases", "created_on,name,is_default,is_current,origin,owner,comment,options,retention_time"),
        (
            "show columns in table t",
            "table_name,schema_name,column_name,data_type,null?,default,kind,expression,comment,database_name,autoincrement",
        ),
        (
            "show primary keys in table t",
            "created_on,database_name,schema_name,table_name,column_name,key_sequence,constraint_name,rely,comment",
        ),
        ("show warehouses", "name,state,type,size"),
        (
            "show grants to role accountadmin",
            "created_on,privilege,granted_on,name,granted_to,grantee_name,grant_option,granted_by",
        ),
        (
            "show grants on table t",
            "created_on,privilege,granted_on,name,granted_to,grantee_name,grant_option,granted_by",
        ),
        ("describe table t", "name,type,kind,null?,default,primary key,unique key,check,expression,comment"),
        ("describe view w", "name,type,kind,null?"),
        ("describe stream s", "created_on,name,database_name,schema_name,owner,comment,table_name"),
        ("select * from information_schema.tables", "TABLE_CATALOG,TABLE_SCHEMA,TABLE_NAME,TABLE_OWNER,TABLE_TYPE"),
        (
            "select * from db.information_schema.columns",
            "TABLE_CATALOG,TABLE_SCHEMA,TABLE_NAME,COLUMN_NAME,ORDINAL_POSITION",
        ),
    ] {
        let body = bench.run(statement).await;
        let names: Vec<&str> = body["resultSetMetaData"]["rowType"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|column| column["name"].as_str())
            .collect();
        assert!(names.join(",").starts_with(first), "{statement}: {names:?}");
        assert!(body["resultSetMetaData"]["numRows"].as_u64() > Some(0), "{statement}");
    }
    assert_eq!(bench.rows("show tables like 'T'").await.len(), 1);
    assert_eq!(bench.rows("show tables starts with 'X'").await.len(), 0);
    assert_eq!(bench.rows("show primary keys in table t").await[0][4].as_deref(), Some("ID"));
    let columns = bench.rows("show columns in table t").await;
    assert_eq!(columns[0][3].as_deref(), Some(r#"{"type":"FIXED","precision":38,"scale":0,"nullable":false}"#));
}

#[tokio::test]
async fn tables_come_go_and_change() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create database other",
            "create schema other.x",
            "create table other.x.t (id number autoincrement, v varchar)",
            "insert into other.x.t (v) values ('a'), ('b')",
            "alter table other.x.t add column n number(5,1)",
            "alter table other.x.t rename column v to w",
            "alter table other.x.t drop column n",
            "comment on table other.x.t is 'kept'",
            "create table copy like other.x.t",
            "create or replace transient table made (a number, b varchar) as select 1, 'x'",
        ])
        .await;

    assert_eq!(bench.lines("select id, w from other.x.t order by 1").await, ["1|a", "2|b"]);
    assert_eq!(bench.rows("describe table copy").await.len(), 2);
    assert_eq!(bench.lines("select a, b from made").await, ["1|x"]);
    assert_eq!(bench.rows("show tables in schema other.x").await[0][5].as_deref(), Some("kept"));
    bench.run("drop schema other.x").await;
    assert_eq!(bench.code("select * from other.x.t").await, "002003");
    bench.run("drop database other").await;
    assert_eq!(bench.rows("show databases").await.len(), 1);
}

#[tokio::test]
async fn temporary_tables_end_with_their_request() {
    let bench = Bench::new().await;
    bench.run("create table t as select 1 as id").await;

    let text = "create temporary table t as select 2 as id; select id from t";
    let (_, body) = bench.submit("", text, json!({"parameters": {"MULTI_STATEMENT_COUNT": "2"}})).await;
    let child = body["statementHandles"][1].as_str().expect("a handle").to_owned();

    assert_eq!(bench.get(&format!("/api/v2/statements/{child}")).await.1["data"], json!([["2"]]));
    assert_eq!(bench.lines("select id from t").await, ["1"]);
}

#[tokio::test]
async fn a_dry_difference_of_two_snapshots() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create transient table snap_1 as select column1 as id, column2 as v from values (1, 'a'), (2, 'b'), (3, 'c')",
            "create transient table snap_2 as select column1 as id, column2 as v from values (1, 'a'), (2, 'x'), (4, 'd')",
            "create transient table diff as select case when o.id is null then 'c' when n.id is null then 'd' else 'u' end as op, \
             coalesce(n.id, o.id) as id, o.v as old, n.v as new, row_number() over (order by coalesce(n.id, o.id)) as ord \
             from snap_1 o full outer join snap_2 n on o.id = n.id where o.id is null or n.id is null or hash(o.*) <> hash(n.*)",
        ])
        .await;

    assert_eq!(bench.lines("select * from diff order by ord").await, ["u|2|b|x|1", "d|3|c|NULL|2", "c|4|NULL|d|3"]);
}
