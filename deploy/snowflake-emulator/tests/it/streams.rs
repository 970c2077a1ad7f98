//! Streams: the golden tables of Snowflake's documents (streams-examples, streams-intro, changes), and the rules of locks.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::bench::{Bench, cells};

/// Sorted lines of a stream without the row id.
async fn read(bench: &Bench, columns: &str, stream: &str) -> Vec<String> {
    bench
        .lines(&format!(
            "select {columns}, metadata$action, metadata$isupdate from {stream} order by 1, 2, metadata$action"
        ))
        .await
}

#[tokio::test]
async fn the_members_example_nets_inserts_and_updates_into_inserts() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create or replace table members (id number(8) not null, name varchar(255) default null, fee number(3) null)",
            "create or replace stream member_check on table members",
            "create or replace table signup (id number(8), dt date)",
            "insert into members (id, name, fee) values (1,'Joe',0), (2,'Jane',0), (3,'George',0), (4,'Betty',0), (5,'Sally',0)",
            "insert into signup values (1,'2018-01-01'), (2,'2018-02-15'), (3,'2018-05-01'), (4,'2018-07-16'), (5,'2018-08-21')",
        ])
        .await;
    let first = read(&bench, "id, name, fee", "member_check").await;
    assert_eq!(
        first,
        [
            "1|Joe|0|INSERT|false",
            "2|Jane|0|INSERT|false",
            "3|George|0|INSERT|false",
            "4|Betty|0|INSERT|false",
            "5|Sally|0|INSERT|false"
        ]
    );

    bench
        .run(
            "merge into members m using (select id, dt from signup s where datediff(day, '2018-08-15'::date, s.dt::date) < -30) s \
             on m.id = s.id when matched then update set m.fee = 90",
        )
        .await;
    let merged = read(&bench, "id, name, fee", "member_check").await;
    assert_eq!(
        merged,
        [
            "1|Joe|90|INSERT|false",
            "2|Jane|90|INSERT|false",
            "3|George|90|INSERT|false",
            "4|Betty|0|INSERT|false",
            "5|Sally|0|INSERT|false"
        ]
    );

    bench.run("create or replace table members_prod (id number(8) not null, name varchar(255), fee number(3))").await;
    bench.run("insert into members_prod (id, name, fee) select id, name, fee from member_check where metadata$action = 'INSERT'").await;
    assert_eq!(bench.one("select count(*) from member_check").await, "0");
    bench.run("update members set fee = fee + 15 where fee > 0").await;
    let updated = read(&bench, "id, name, fee", "member_check").await;
    assert_eq!(
        updated,
        [
            "1|Joe|90|DELETE|true",
            "1|Joe|105|INSERT|true",
            "2|Jane|90|DELETE|true",
            "2|Jane|105|INSERT|true",
            "3|George|90|DELETE|true",
            "3|George|105|INSERT|true"
        ]
    );
}

#[tokio::test]
async fn the_changes_example_of_the_documents() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create or replace table t1 (id number(8) not null, c1 varchar(255) default null)",
            "alter table t1 set change_tracking = true",
        ])
        .await;
    let moment = bench.one("select current_timestamp()::timestamp_tz::varchar").await;
    bench
        .all(&[
            "insert into t1 (id, c1) values (1,'red'), (2,'blue'), (3,'green')",
            "delete from t1 where id = 1",
            "update t1 set c1 = 'purple' where id = 2",
        ])
        .await;

    let net = read(
        &bench,
        "id, c1",
        &format!("t1 changes (information => default) at (timestamp => '{moment}'::timestamp_ltz)"),
    )
    .await;
    let appended = read(
        &bench,
        "id, c1",
        &format!("t1 changes (information => append_only) at (timestamp => '{moment}'::timestamp_ltz)"),
    )
    .await;

    assert_eq!(net, ["2|purple|INSERT|false", "3|green|INSERT|false"]);
    assert_eq!(appended, ["1|red|INSERT|false", "2|blue|INSERT|false", "3|green|INSERT|false"]);
}

#[tokio::test]
async fn changes_from_where_a_stream_stands_are_the_streams_and_leave_it_there() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table t (id number, v varchar)",
            "insert into t values (1, 'a')",
            "create stream \"s 1\" on table t",
            "insert into t values (2, 'b')",
            "update t set v = 'z' where id = 1",
        ])
        .await;

    let read_by = async |from: &str| {
        let mut rows = read(&bench, "id, v", from).await;
        rows.sort();
        rows
    };
    let changes = read_by("t changes (information => default) at (stream => 'public.\"s 1\"')").await;
    let again = read_by("t changes (information => default) at (stream => '\"s 1\"')").await;
    let stream = read_by("\"s 1\"").await;

    assert_eq!(changes, ["1|a|DELETE|true", "1|z|INSERT|true", "2|b|INSERT|false"]);
    assert_eq!((&again, &stream), (&changes, &changes));
}

#[tokio::test]
async fn a_row_that_comes_and_goes_leaves_nothing_and_n_updates_are_one_pair() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table t (id number, v varchar)",
            "insert into t values (1, 'a'), (2, 'b')",
            "create stream s on table t",
        ])
        .await;

    bench
        .all(&[
            "insert into t values (3, 'c')",
            "delete from t where id = 3",
            "update t set v = 'x' where id = 1",
            "update t set v = 'y' where id = 1",
        ])
        .await;

    assert_eq!(read(&bench, "id, v", "s").await, ["1|a|DELETE|true", "1|y|INSERT|true"]);
    let ids = bench.rows("select distinct metadata$row_id from s").await;
    assert_eq!(ids.len(), 1);
    assert_eq!(ids[0][0].as_ref().map(String::len), Some(40));
    // False positives are allowed; false negatives are not.
    assert_eq!(bench.one("select system$stream_has_data('db.public.s')").await, "true");
}

#[tokio::test]
async fn a_truncate_is_deletes_and_a_reload_has_new_row_ids() {
    let bench = Bench::new().await;
    bench
        .all(&["create table t (id number, v varchar)", "insert into t values (1, 'a')", "create stream s on table t"])
        .await;

    bench.all(&["truncate table t", "insert into t values (1, 'a')"]).await;

    assert_eq!(read(&bench, "id, v", "s").await, ["1|a|DELETE|false", "1|a|INSERT|false"]);
    assert_eq!(bench.rows("select distinct metadata$row_id from s").await.len(), 2);
}

#[tokio::test]
async fn a_select_never_moves_the_offset_and_a_filtering_dml_always_does() {
    let bench = Bench::new().await;
    bench.all(&["create table t (id number)", "create stream s on table t", "insert into t values (1), (2)"]).await;

    assert_eq!(bench.one("select count(*) from s").await, "2");
    assert_eq!(bench.one("select count(*) from s").await, "2");
    bench.run("create temporary table unused as select * from s where 1 = 0").await;

    assert_eq!(bench.one("select count(*) from s").await, "0");
    assert_eq!(bench.one("select system$stream_has_data('s')").await, "false");
}

#[tokio::test]
async fn a_failing_dml_leaves_the_offset_where_it_was() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table t (id number)",
            "create stream s on table t",
            "insert into t values (0)",
            "create table target (n number not null)",
        ])
        .await;

    assert_eq!(bench.code("insert into target select 1 / id from s").await, "100051");
    assert_eq!(bench.code("insert into target select null from s").await, "100072");

    assert_eq!(bench.one("select count(*) from s").await, "1");
}

#[tokio::test]
async fn a_batch_table_that_exists_consumes_nothing() {
    let bench = Bench::new().await;
    bench.all(&["create table t (id number)", "create stream s on table t", "insert into t values (1)"]).await;
    bench
        .run("create transient table if not exists b_000000000001 data_retention_time_in_days = 0 as select * from s")
        .await;
    bench.run("insert into t values (2)").await;

    let again = bench
        .run("create transient table if not exists b_000000000001 data_retention_time_in_days = 0 as select * from s")
        .await;

    assert_eq!(again["data"][0][0], "B_000000000001 already exists, statement succeeded.");
    assert_eq!(bench.lines("select id from b_000000000001").await, ["1"]);
    assert_eq!(bench.lines("select id from s").await, ["2"]);
}

#[tokio::test]
async fn an_append_only_stream_keeps_inserts_and_knows_nothing_else() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table t (id number, v varchar)",
            "insert into t values (0, 'old')",
            "create stream s on table t append_only = true",
            "update t set v = 'new'",
            "insert into t values (1, 'a')",
            "update t set v = 'b' where id = 1",
            "delete from t",
        ])
        .await;

    assert_eq!(read(&bench, "id, v", "s").await, ["1|a|INSERT|false"]);
    assert_eq!(bench.rows("show streams").await[0][11].as_deref(), Some("APPEND_ONLY"));
}

#[tokio::test]
async fn initial_rows_come_first_and_alone_and_then_all_changes_since_creation() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table t (id number, v varchar)",
            "insert into t values (1, 'a'), (2, 'b')",
            "create stream s on table t show_initial_rows = true",
            "update t set v = 'x' where id = 1",
            "insert into t values (3, 'c')",
        ])
        .await;

    assert_eq!(bench.one("select system$stream_has_data('s')").await, "true");
    bench.run("create table first as select * from s").await;
    bench.run("create table second as select * from s").await;

    assert_eq!(read(&bench, "id, v", "first").await, ["1|a|INSERT|false", "2|b|INSERT|false"]);
    assert_eq!(read(&bench, "id, v", "second").await, ["1|a|DELETE|true", "1|x|INSERT|true", "3|c|INSERT|false"]);
    assert_eq!(bench.one("select count(*) from s").await, "0");
}

#[tokio::test]
async fn a_stream_on_a_view_follows_its_filter_and_its_join() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table orders (id number, item number, price number(10,2))",
            "create table items (item number, name varchar)",
            "insert into items values (1, 'apple'), (2, 'pear')",
            "insert into orders values (10, 1, 5), (11, 2, 50)",
            "create view dear as select o.id, i.name, o.price from orders o join items i on o.item = i.item where o.price > 10",
            "create stream s on view dear",
            "update orders set price = 20 where id = 10",
            "update orders set price = 60 where id = 11",
            "insert into orders values (12, 1, 1)",
        ])
        .await;

    assert_eq!(
        read(&bench, "id, name, price", "s").await,
        ["10|apple|20.00|INSERT|false", "11|pear|50.00|DELETE|true", "11|pear|60.00|INSERT|true"]
    );
    bench.run("create table b as select * from s").await;
    bench.run("update items set name = 'quince' where item = 2").await;
    assert_eq!(
        read(&bench, "id, name, price", "s").await,
        ["11|pear|60.00|DELETE|true", "11|quince|60.00|INSERT|true"]
    );
    assert_eq!(bench.one("select system$stream_has_data('s')").await, "true");
}

#[tokio::test]
async fn a_stream_on_a_grouping_view_is_refused() {
    let bench = Bench::new().await;
    bench.all(&["create table t (id number)", "create view v as select id, count(*) as n from t group by id"]).await;

    assert_eq!(bench.code("create stream s on view v").await, "002203");
    assert_eq!(bench.rows("show streams").await.len(), 0);
}

#[tokio::test]
async fn in_a_transaction_a_stream_ends_at_the_start_and_its_reads_repeat() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table t (id number)",
            "create stream s on table t",
            "insert into t values (1)",
            "create table target (id number)",
        ])
        .await;

    let text = "begin; insert into t values (2); insert into target select id from s; select id from s; commit";
    let (status, body) = bench.submit("", text, json!({"parameters": {"MULTI_STATEMENT_COUNT": "5"}})).await;

    assert_eq!(status, 200, "{body}");
    let child = body["statementHandles"][3].as_str().expect("a handle").to_owned();
    let (_, read) = bench.get(&format!("/api/v2/statements/{child}")).await;
    assert_eq!(cells(&read["data"]), [[Some("1".to_owned())]]);
    assert_eq!(bench.lines("select id from target").await, ["1"]);
    assert_eq!(bench.lines("select id from s").await, ["2"]);
}

#[tokio::test]
async fn a_rolled_back_read_consumes_nothing() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table t (id number)",
            "create stream s on table t",
            "insert into t values (1)",
            "create table target (id number)",
        ])
        .await;

    let text = "begin; insert into target select id from s; rollback";
    let (status, _) = bench.submit("", text, json!({"parameters": {"multi_statement_count": 3}})).await;

    assert_eq!(status, 200);
    assert_eq!(bench.one("select count(*) from target").await, "0");
    assert_eq!(bench.lines("select id from s").await, ["1"]);
}

#[tokio::test]
async fn two_streams_on_one_table_are_independent_and_one_can_take_over_the_offset_of_another() {
    let bench = Bench::new().await;
    bench
        .all(&[
            "create table t (id number)",
            "create stream a on table t",
            "create stream b on table t",
            "insert into t values (1)",
        ])
        .await;

    bench.run("create table x as select * from a").await;
    bench.run("create stream c on table t at (stream => 'db.public.b')").await;
    bench.run("create or replace stream b on table t at (stream => 'db.public.b')").await;

    assert_eq!(bench.one("select count(*) from a").await, "0");
    assert_eq!(bench.one("select count(*) from b").await, "1");
    assert_eq!(bench.one("select count(*) from c").await, "1");
}

#[tokio::test]
async fn a_replaced_or_dropped_source_makes_the_stream_unreadable_and_a_rename_does_not() {
    let bench = Bench::new().await;
    bench.all(&["create table t (id number)", "create stream s on table t", "insert into t values (1)"]).await;
    bench.run("alter table t rename to renamed").await;
    assert_eq!(bench.lines("select id from s").await, ["1"]);

    bench.run("create or replace table renamed (id number)").await;

    assert_eq!(bench.code("select * from s").await, "091901");
    assert_eq!(bench.code("select system$stream_has_data('s')").await, "091901");
    assert_eq!(bench.rows("show streams").await[0][10].as_deref(), Some("true"));
}

#[tokio::test]
async fn a_stream_made_stale_can_not_be_read() {
    let bench = Bench::new().await;
    bench.all(&["create table t (id number)", "create stream s on table t"]).await;

    bench.admin(reqwest::Method::POST, "/emulator/streams/stale", &json!({"stream": "DB.PUBLIC.S"})).await;

    assert_eq!(bench.code("create table b as select * from s").await, "091901");
    assert_eq!(bench.code("select * from b").await, "002003");
}

#[tokio::test]
async fn a_stream_unread_for_a_fortnight_is_shown_as_stale() {
    let bench = Bench::new().await;
    bench.all(&["create table t (id number)", "create stream s on table t"]).await;

    bench.admin(reqwest::Method::POST, "/emulator/clock", &json!({"advance_ms": 13 * 86_400_000_u64})).await;
    let young = bench.emulator.create_token("JDOE", "programmatic", 90 * 86_400, "").await.expect("a token");
    let bench = Bench { token: young, ..bench };
    assert_eq!(bench.rows("show streams").await[0][10].as_deref(), Some("false"));
    bench.admin(reqwest::Method::POST, "/emulator/clock", &json!({"advance_ms": 2 * 86_400_000_u64})).await;

    assert_eq!(bench.rows("show streams").await[0][10].as_deref(), Some("true"));
}

#[tokio::test]
async fn a_column_added_to_the_source_is_in_the_stream() {
    let bench = Bench::new().await;
    bench.all(&["create table t (id number)", "create stream s on table t", "insert into t values (1)"]).await;

    bench.all(&["alter table t add column v varchar default 'none'", "insert into t values (2, 'two')"]).await;

    assert_eq!(read(&bench, "id, v", "s").await, ["1|none|INSERT|false", "2|two|INSERT|false"]);
}

/// Batches applied in order to an empty table give the source, whatever writers did at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn batches_add_up_to_the_table_while_writers_write_and_two_consumers_compete() {
    let bench = Arc::new(Bench::new().await);
    bench.all(&["create table t (id number, v number)", "create stream s on table t"]).await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let bench = bench.clone();
            tokio::spawn(async move {
                for round in 0..12 {
                    let id = writer * 100 + round;
                    let text = format!(
                        "begin; insert into t values ({id}, 0), ({id} + 50, 0); update t set v = v + 1 where id = {id}; \
                         delete from t where id = {id} + 49; commit"
                    );
                    let (status, body) = bench.submit("", &text, json!({"parameters": {"MULTI_STATEMENT_COUNT": "0"}})).await;
                    assert_eq!(status, 200, "{body}");
                }
            })
        })
        .collect();
    let consumers: Vec<_> = (0..2)
        .map(|_| {
            let bench = bench.clone();
            tokio::spawn(async move {
                for batch in 0..15 {
                    bench.run(&format!("create transient table if not exists b_{batch} as select * from s")).await;
                }
            })
        })
        .collect();

    for task in writers.into_iter().chain(consumers) {
        task.await.expect("no task fails");
    }
    bench.run("create transient table b_15 as select * from s").await;

    let mut state: BTreeMap<String, String> = BTreeMap::new();
    for batch in 0..=15 {
        let sql = format!("select id, v, metadata$action from b_{batch} order by metadata$action, id");
        for row in bench.rows(&sql).await {
            let [Some(id), Some(v), Some(action)] = row.as_slice() else { panic!("{row:?}") };
            if action == "DELETE" {
                assert_eq!(state.remove(id).as_ref(), Some(v), "batch {batch}: the old image of {id}");
            } else {
                assert_eq!(state.insert(id.clone(), v.clone()), None, "batch {batch}: {id} twice");
            }
        }
    }
    let table: BTreeMap<String, String> = bench
        .rows("select id, v from t")
        .await
        .into_iter()
        .map(|row| (row[0].clone().expect("id"), row[1].clone().expect("v")))
        .collect();
    assert_eq!(state, table);
}
