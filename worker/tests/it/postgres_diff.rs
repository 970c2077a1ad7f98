//! Mode `diff`: snapshots and differences in a real server, and what becomes of them when an attempt is cut off.

use freshet_core::connector::{BatchName, ModelSpec, ReadMode, ReadPlan, ReadRequest, SealRequest, Sealed, Source};
use freshet_core::error::{Code, Result};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::postgres::{Bench, Keeper, open, select, table};

const SYNC: &str = "snc_01jd0000000000000000000000";

fn name(seq: i64) -> BatchName {
    BatchName { workspace: "wsp".into(), sync: SYNC.into(), run: "run".into(), seq }
}

async fn bench(sql: &str) -> Bench {
    Bench::with(&format!("create schema freshet; {sql}")).await
}

async fn plan(bench: &Bench, model: &ModelSpec, key: &[&str]) -> ReadPlan {
    bench.plan(model, key, ReadMode::Diff).await
}

async fn seal(source: &mut dyn Source, plan: &ReadPlan, seq: i64, carry: Option<Value>) -> Result<Sealed> {
    source.seal(&SealRequest { name: name(seq), plan: plan.clone(), position: None, carry }).await
}

/// What a batch sends from a token on, a token after every change.
async fn sent(source: &mut dyn Source, plan: &ReadPlan, seq: i64, sealed: &Sealed, from: Option<Value>) -> Keeper {
    let mut keeper = Keeper::always_full(plan);
    let request = ReadRequest { name: name(seq), plan: plan.clone(), batch: sealed.batch.clone(), from };
    source.read(&request, &mut keeper).await.unwrap();
    keeper
}

/// Each change as its operation, its row before, and its row after.
fn changes(keeper: &Keeper) -> Vec<(&'static str, Value, Value)> {
    let image = |text: &str, name: &str| serde_json::from_str::<Value>(text).unwrap()[name].clone();
    let change =
        |sent: &crate::postgres::Sent| (sent.op, image(&sent.debezium, "before"), image(&sent.debezium, "after"));
    keeper.sent.iter().map(change).collect()
}

async fn tables(bench: &mut Bench) -> Vec<String> {
    sqlx::query_scalar(
        "select relname::text from pg_class where relname like 'freshet\\_%' and relkind = 'r' order by 1",
    )
    .fetch_all(&mut bench.admin)
    .await
    .unwrap()
}

/// The numbers of the snapshots and of the differences that there are.
async fn numbers(bench: &mut Bench) -> (Vec<i64>, Vec<i64>) {
    let found = tables(bench).await;
    let of = |word: &str| {
        let prefix = format!("freshet_{word}_{SYNC}_");
        let number = |name: &String| name.strip_prefix(&prefix)?.split_once('_')?.0.parse().ok();
        found.iter().filter_map(number).collect()
    };
    (of("snap"), of("diff"))
}

#[tokio::test]
async fn what_changed_is_told_with_both_images_and_read_on_from_every_token() {
    let sql = "create table orders (id int primary key, name text);
               insert into orders select n, 'order ' || n from generate_series(1, 5) as n;";
    let mut bench = bench(sql).await;
    let plan = plan(&bench, &table("orders"), &["id"]).await;
    let mut source = bench.source().await;
    let first = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    let created = sent(source.as_mut(), &plan, 1, &first, None).await;
    source.release(&name(1), &first.batch).await.unwrap();
    bench
        .sql(
            "insert into orders values (6, 'new'); delete from orders where id = 2;
             update orders set name = null where id = 4; update orders set id = 7 where id = 5",
        )
        .await;

    let second = seal(source.as_mut(), &plan, 2, first.carry).await.unwrap();
    let all = sent(source.as_mut(), &plan, 2, &second, None).await;

    assert_eq!(created.sent.iter().map(|sent| sent.op).collect::<String>(), "ccccc");
    let row = |id: i64, name: &str| json!({"id": id, "name": name});
    let expected = [
        ("d", row(2, "order 2"), Value::Null),
        ("u", row(4, "order 4"), json!({"id": 4, "name": null})),
        ("d", row(5, "order 5"), Value::Null),
        ("c", Value::Null, row(6, "new")),
        ("c", Value::Null, row(7, "order 5")),
    ];
    assert_eq!(changes(&all), expected);
    assert_eq!(all.tokens.len(), expected.len());
    for (token, passed) in &all.tokens {
        let rest = sent(source.as_mut(), &plan, 2, &second, Some(token.clone())).await;
        assert_eq!(changes(&rest), expected[*passed..], "after {token}");
    }
}

#[tokio::test]
async fn a_repeated_seal_finds_the_batch_and_not_what_changed_since() {
    let mut bench = bench("create table orders (id int primary key); insert into orders values (1), (2)").await;
    let plan = plan(&bench, &table("orders"), &["id"]).await;
    let first = seal(bench.source().await.as_mut(), &plan, 1, None).await.unwrap();
    bench.sql("insert into orders values (3)").await;

    let again = seal(bench.source().await.as_mut(), &plan, 1, None).await.unwrap();

    assert_eq!((&again.batch, &again.carry), (&first.batch, &first.carry));
    assert_eq!(sent(bench.source().await.as_mut(), &plan, 1, &again, None).await.sent.len(), 2);
    let next = seal(bench.source().await.as_mut(), &plan, 2, again.carry).await.unwrap();
    assert_eq!(sent(bench.source().await.as_mut(), &plan, 2, &next, None).await.rows(), ["{\"id\":3}"]);
}

#[tokio::test]
async fn an_unchanged_model_makes_an_empty_batch_and_leaves_its_snapshot_alone() {
    let mut bench = bench("create table orders (id int primary key); insert into orders values (1)").await;
    let plan = plan(&bench, &table("orders"), &["id"]).await;
    let mut source = bench.source().await;
    let first = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    source.release(&name(1), &first.batch).await.unwrap();

    let empty = seal(source.as_mut(), &plan, 2, first.carry.clone()).await.unwrap();

    assert!(empty.empty && empty.carry == first.carry);
    assert_eq!(numbers(&mut bench).await, (vec![1], vec![]));
    let none = plan_of_nothing(&bench).await;
    let nothing = seal(source.as_mut(), &none, 3, None).await.unwrap();
    assert!(nothing.empty && nothing.carry.is_none(), "a first difference of no rows begins nothing");
}

async fn plan_of_nothing(bench: &Bench) -> ReadPlan {
    plan(bench, &select("select id from orders where id < 0"), &["id"]).await
}

#[tokio::test]
async fn a_release_may_be_repeated_and_a_seal_that_comes_after_it_makes_nothing() {
    let mut bench = bench("create table orders (id int primary key); insert into orders values (1)").await;
    let plan = plan(&bench, &table("orders"), &["id"]).await;
    let mut source = bench.source().await;
    let first = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    source.release(&name(1), &first.batch).await.unwrap();
    bench.sql("insert into orders values (2)").await;
    let second = seal(source.as_mut(), &plan, 2, first.carry.clone()).await.unwrap();

    source.release(&name(2), &second.batch).await.unwrap();
    source.release(&name(2), &second.batch).await.unwrap();
    let left = tables(&mut bench).await;
    let late = seal(bench.source().await.as_mut(), &plan, 2, first.carry.clone()).await.unwrap_err();
    let later = seal(bench.source().await.as_mut(), &plan, 1, None).await.unwrap_err();
    // An earlier attempt that is late with its release takes nothing that is wanted.
    source.release(&name(1), &first.batch).await.unwrap();

    assert_eq!(numbers(&mut bench).await, (vec![2], vec![]));
    assert_eq!(tables(&mut bench).await, left);
    assert_eq!((late.code, later.code), (Code::PostgresSnapshotGone, Code::PostgresSnapshotGone));
    assert!(late.message.contains("batch 2 is delivered already"), "{}", late.message);
    assert!(later.message.contains(&left[0]), "{}", later.message);
}

#[tokio::test]
async fn a_seal_cut_off_between_snapshot_and_difference_leaves_neither() {
    let mut bench = bench(
        "create table orders (id int primary key); insert into orders values (1);
         create table wait (here bool);
         create function wait_a_while() returns event_trigger language plpgsql as $$
         begin
             if exists (select from wait) and exists (select from pg_event_trigger_ddl_commands()
                                                      where object_identity like '%freshet_diff%') then
                 perform pg_sleep(60);
             end if;
         end $$;
         create event trigger cut on ddl_command_end execute function wait_a_while();",
    )
    .await;
    let plan = plan(&bench, &table("orders"), &["id"]).await;
    let first = seal(bench.source().await.as_mut(), &plan, 1, None).await.unwrap();
    bench.source().await.release(&name(1), &first.batch).await.unwrap();
    bench.sql("insert into orders values (2); insert into wait values (true)").await;
    let (mut cut, mut admin) = (bench.source().await, bench.connect().await);
    let ending = async {
        let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                     where datname = current_database() and application_name = 'freshet' and wait_event = 'PgSleep'";
        while sqlx::query_scalar::<_, i64>(ended).fetch_one(&mut admin).await.unwrap() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };

    let (broken, ()) = tokio::join!(seal(cut.as_mut(), &plan, 2, first.carry.clone()), ending);
    let left = numbers(&mut bench).await;
    bench.sql("delete from wait").await;
    let second = seal(cut.as_mut(), &plan, 2, first.carry).await.unwrap();

    assert_eq!(broken.unwrap_err().code, Code::PostgresConnectionLost);
    assert_eq!(left, (vec![1], vec![]));
    assert_eq!(sent(cut.as_mut(), &plan, 2, &second, None).await.rows(), ["{\"id\":2}"]);
}

#[tokio::test]
async fn two_attempts_at_once_seal_one_batch() {
    let bench = bench("create table orders (id int primary key); insert into orders values (1)").await;
    let plan = plan(&bench, &table("orders"), &["id"]).await;
    let (mut one, mut other) = (bench.source().await, bench.source().await);

    let (one, other) = tokio::join!(seal(one.as_mut(), &plan, 1, None), seal(other.as_mut(), &plan, 1, None));

    assert_eq!(one.unwrap().batch, other.unwrap().batch);
}

#[tokio::test]
async fn what_an_attempt_before_a_reset_left_is_not_taken_for_the_batch() {
    let mut bench = bench("create table orders (id int primary key); insert into orders values (1)").await;
    let plan = plan(&bench, &table("orders"), &["id"]).await;
    let mut source = bench.source().await;
    let first = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    source.release(&name(1), &first.batch).await.unwrap();
    bench.sql("insert into orders values (2)").await;
    let unrecorded = seal(source.as_mut(), &plan, 2, first.carry).await.unwrap();

    let anew = seal(source.as_mut(), &plan, 2, None).await.unwrap();

    assert_ne!(anew.batch, unrecorded.batch);
    assert_eq!(sent(source.as_mut(), &plan, 2, &anew, None).await.rows(), ["{\"id\":1}", "{\"id\":2}"]);
    source.release(&name(2), &anew.batch).await.unwrap();
    let third = seal(source.as_mut(), &plan, 3, anew.carry).await.unwrap();
    assert!(third.empty);
}

#[tokio::test]
async fn rows_are_the_same_exactly_when_their_messages_are() {
    let cases = [
        ("text", "null", "'x'", true),
        ("text", "'x'", "null", true),
        ("text", "''", "null", true),
        ("text", "null", "null", false),
        ("citext", "'A'", "'a'", true),
        ("char(3)", "'a'", "'a '", false),
        ("float8", "'NaN'", "'NaN'", false),
        ("float8", "0", "'-0'", true),
        ("float8", "'Infinity'", "'-Infinity'", true),
        ("numeric", "1.0", "1.00", true),
        ("numeric", "1.50", "1.50", false),
        ("numeric", "'NaN'", "'NaN'", false),
        ("json", "'{\"a\":1}'", "'{\"a\": 1}'", true),
        ("json", "'{\"a\":1}'", "'{\"a\":1}'", false),
        ("jsonb", "'{\"a\":1,\"b\":2}'", "'{\"b\": 2, \"a\": 1}'", false),
        ("jsonb", "'{\"a\":1.0}'", "'{\"a\":1.00}'", true),
        ("int[]", "'{1,2}'", "'{1,2}'", false),
        ("int[]", "'{1,2}'", "'{1,NULL}'", true),
        ("int[]", "'{}'", "null", true),
        ("interval", "'24 hours'", "'1 day'", true),
        ("timestamptz", "'2026-01-01 00:00+00'", "'2026-01-01 14:00+14'", false),
        ("bytea", "'\\x00'", "'\\x0000'", true),
        ("int4range", "'[1,3]'", "'[1,4)'", false),
        // Long enough to be kept out of line.
        ("text", "repeat('long ', 100000)", "repeat('long ', 100000)", false),
    ];
    let mut bench = bench("create extension citext").await;
    let mut source = bench.source().await;
    for (place, (kind, before, after, changed)) in cases.into_iter().enumerate() {
        let (orders, seq) = (format!("orders_{place}"), 2 * place as i64 + 1);
        bench
            .sql(&format!(
                "create table {orders} (id int primary key, v {kind}); insert into {orders} values (1, {before})"
            ))
            .await;
        let plan = plan(&bench, &table(&orders), &["id"]).await;
        let first = seal(source.as_mut(), &plan, seq, None).await.unwrap();
        bench.sql(&format!("update {orders} set v = {after}")).await;

        let second = seal(source.as_mut(), &plan, seq + 1, first.carry).await.unwrap();

        assert_eq!(!second.empty, changed, "{kind} from {before} to {after}");
        if changed {
            let keeper = sent(source.as_mut(), &plan, seq + 1, &second, None).await;
            let (op, was, is) = changes(&keeper).remove(0);
            assert!(op == "u" && was != Value::Null && is != Value::Null, "{kind}: {was} {is}");
        }
    }
}

#[tokio::test]
async fn a_key_of_another_text_is_another_key() {
    let cases = [
        ("numeric", "1.0", "1.00"),
        ("text", "'a'", "'A'"),
        ("citext", "'a'", "'A'"),
        ("bpchar", "'a'", "'a '"),
        ("float8", "0", "'-0'"),
        ("uuid", "'6ecd8c99-4036-403d-bf84-cf8400f67836'", "'6ecd8c99-4036-403d-bf84-cf8400f67837'"),
        ("bytea", "'\\x00'", "'\\x0000'"),
    ];
    let mut bench = bench("create extension citext").await;
    let mut source = bench.source().await;
    for (place, (kind, before, after)) in cases.into_iter().enumerate() {
        let (orders, seq) = (format!("orders_{place}"), 2 * place as i64 + 1);
        bench
            .sql(&format!(
                "create table {orders} (n int, k {kind}); insert into {orders} values (1, {before}), (2, {before})"
            ))
            .await;
        let plan = plan(&bench, &table(&orders), &["n", "k"]).await;
        let first = seal(source.as_mut(), &plan, seq, None).await.unwrap();
        bench.sql(&format!("update {orders} set k = {after} where n = 1")).await;

        let second = seal(source.as_mut(), &plan, seq + 1, first.carry).await.unwrap();

        let mut ops: Vec<_> = sent(source.as_mut(), &plan, seq + 1, &second, None).await.sent;
        ops.sort_unstable_by_key(|sent| sent.op);
        assert_eq!(ops.iter().map(|sent| sent.op).collect::<String>(), "cd", "{kind}");
        assert_ne!(ops[0].key, ops[1].key, "{kind}");
    }
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_by_name_and_the_last_snapshot_stays() {
    let mut bench = bench("create table orders (id int, name text); insert into orders values (1, 'a')").await;
    let plan = plan(&bench, &table("orders"), &["id"]).await;
    let mut source = bench.source().await;
    let first = seal(source.as_mut(), &plan, 1, None).await.unwrap();
    source.release(&name(1), &first.batch).await.unwrap();
    for (bad, code) in [("(null, 'x')", Code::ModelKeyNull), ("(1, 'again')", Code::ModelKeyDuplicate)] {
        bench.sql(&format!("insert into orders values {bad}")).await;

        let refused = seal(source.as_mut(), &plan, 2, first.carry.clone()).await.unwrap_err();

        assert_eq!(refused.code, code);
        assert_eq!(numbers(&mut bench).await, (vec![1], vec![]));
        bench.sql("delete from orders where name <> 'a'").await;
    }
    bench.sql("alter table orders alter name type varchar(10)").await;
    let changed = seal(source.as_mut(), &plan, 2, first.carry).await.unwrap_err();
    assert_eq!(changed.code, Code::ModelColumnsChanged);
}

#[tokio::test]
async fn a_missing_right_comes_with_the_script_that_gives_it() {
    let mut bench = Bench::with("create table orders (id int primary key); insert into orders values (1)").await;
    let user = bench.login().await;
    bench.sql(&format!("grant select on orders to {user}")).await;
    let plan = plan(&bench, &table("orders"), &["id"]).await;
    let mut settings = bench.settings();
    (settings["user"], settings["password"]) = (json!(user), json!(user));
    let mut source = open(settings).await;
    for (prepare, says) in [("select", "create schema"), ("create schema freshet", "grant usage, create")] {
        bench.sql(prepare).await;

        let refused = seal(source.as_mut(), &plan, 1, None).await.unwrap_err();

        assert_eq!(refused.code, Code::PostgresPrivilege);
        let script = refused.message.split("run: ").nth(1).unwrap();
        assert!(script.starts_with(says), "{script}");
        if says.starts_with("grant") {
            bench.sql(script).await;
        }
    }
    assert!(!seal(source.as_mut(), &plan, 1, None).await.unwrap().empty);
    bench.admin.close().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_somebody_dropped_is_missed_by_name() {
    let mut bench = bench("create table orders (id int primary key); insert into orders values (1)").await;
    let plan = plan(&bench, &table("orders"), &["id"]).await;
    let first = seal(bench.source().await.as_mut(), &plan, 1, None).await.unwrap();
    bench.source().await.release(&name(1), &first.batch).await.unwrap();
    let snapshot = tables(&mut bench).await.remove(0);
    bench.sql(&format!("drop table freshet.{snapshot}")).await;

    let missed = seal(bench.source().await.as_mut(), &plan, 2, first.carry).await.unwrap_err();

    assert_eq!(missed.code, Code::PostgresSnapshotGone);
    assert!(missed.message.contains(&snapshot), "{}", missed.message);
}

#[tokio::test]
async fn the_server_ends_the_transaction_of_a_worker_that_freezes() {
    let mut bench = bench(
        "create table orders (id int primary key); insert into orders values (1);
         create table told (idle text);
         create function tell() returns event_trigger language plpgsql as $$
         begin insert into public.told values (current_setting('idle_in_transaction_session_timeout')); end $$;
         create event trigger tell on ddl_command_end when tag in ('CREATE TABLE AS') execute function tell();",
    )
    .await;
    let plan = plan(&bench, &table("orders"), &["id"]).await;

    seal(bench.source().await.as_mut(), &plan, 1, None).await.unwrap();

    let told: Vec<String> = sqlx::query_scalar("select idle from told").fetch_all(&mut bench.admin).await.unwrap();
    assert_eq!(told, ["1min", "1min"]);
}

#[tokio::test]
async fn a_wide_model_is_told_whole_and_a_wider_one_is_refused_by_name() {
    let columns = |count: usize| (0..count).map(|place| format!(", {place} as n{place}")).collect::<String>();
    let bench = bench("create table orders (id int primary key); insert into orders values (1), (2)").await;
    let (wide, wider) = (columns(798), columns(799));
    let wide = select(&format!("select id{wide} from orders"));
    let wider = select(&format!("select id{wider} from orders"));
    let wide = plan(&bench, &wide, &["id"]).await;
    let wider = plan(&bench, &wider, &["id"]).await;
    let mut source = bench.source().await;

    let sealed = seal(source.as_mut(), &wide, 1, None).await.unwrap();
    let refused = seal(source.as_mut(), &wider, 2, None).await.unwrap_err();

    let rows = sent(source.as_mut(), &wide, 1, &sealed, None).await;
    assert_eq!(rows.sent.len(), 2);
    assert_eq!(rows.sent[1].member("n797"), "797");
    assert_eq!(refused.code, Code::ModelTypeUnsupported);
    assert!(refused.message.contains("at most 799 columns"), "{}", refused.message);
}
