//! Mode `diff` of the kind `snowflake` against the emulator: snapshots, differences, and what is left over.

use freshet_core::connector::{BatchName, ModelSpec, ReadMode, ReadPlan, ReadRequest, SealRequest, Sealed, Source};
use freshet_core::error::{Code, Result};
use freshet_core::testing::EGRESS;
use freshet_worker::sources::snowflake::client::http_client;
use serde_json::{Value, json};

use crate::snowflake_emulator::Emulator;
use crate::snowflake_source::Recorder;

const SYNC: &str = "snc_1";

fn table(name: &str) -> ModelSpec {
    ModelSpec::Table { schema: "PUBLIC".into(), table: name.into() }
}

fn name(run: &str, seq: i64) -> BatchName {
    BatchName { workspace: "ws_1".into(), sync: SYNC.into(), run: run.into(), seq }
}

async fn plan(source: &mut dyn Source, model: ModelSpec, key: &[&str]) -> ReadPlan {
    let (schema, _) = source.describe(&model).await.unwrap();
    let key = key.iter().map(|name| (*name).to_owned()).collect();
    ReadPlan { model, columns: schema.columns, key, mode: ReadMode::Diff }
}

async fn seal_by(
    source: &mut dyn Source,
    run: &str,
    plan: &ReadPlan,
    seq: i64,
    last: &Option<Value>,
) -> Result<Sealed> {
    let request = SealRequest { name: name(run, seq), plan: plan.clone(), position: None, carry: last.clone() };
    source.seal(&request).await
}

async fn seal(source: &mut dyn Source, plan: &ReadPlan, seq: i64, last: &Option<Value>) -> Result<Sealed> {
    seal_by(source, "run_1", plan, seq, last).await
}

async fn read(source: &mut dyn Source, plan: &ReadPlan, sealed: &Sealed, from: Option<Value>) -> Recorder {
    let mut sink = Recorder::of(1);
    let request = ReadRequest { name: name("run_1", 1), plan: plan.clone(), batch: sealed.batch.clone(), from };
    source.read(&request, &mut sink).await.unwrap();
    sink
}

async fn release(source: &mut dyn Source, seq: i64, sealed: &Sealed) {
    source.release(&name("run_1", seq), &sealed.batch).await.unwrap();
}

/// The numbers of the snapshots and of the differences that there are.
async fn numbers(emulator: &Emulator) -> (Vec<i64>, Vec<i64>) {
    let shown = emulator.sql("show tables in schema FRESHET").await;
    let of = |prefix: &str| {
        let names = shown.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let digits = names.filter_map(|name| name.strip_prefix(prefix)?.split('_').next()?.parse().ok());
        let mut found: Vec<i64> = digits.collect();
        found.sort_unstable();
        found
    };
    (of("FRESHET_SNAP_SNC_1_"), of("FRESHET_DIFF_SNC_1_"))
}

/// How often each fault struck.
async fn struck(emulator: &Emulator) -> Vec<i64> {
    let http = http_client(&EGRESS, &emulator.url).unwrap();
    let asked = http.get(format!("{}/emulator/faults", emulator.url)).send().await.unwrap();
    let told: Value = asked.json().await.unwrap();
    told["rules"].as_array().unwrap().iter().map(|rule| rule["struck"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn what_changed_is_told_with_both_images_and_read_on_from_every_token() {
    let emulator = Emulator::start().await;
    emulator
        .sql("create table O (ID number(9,0), NAME varchar); insert into O values (1, 'a'), (2, 'b'), (3, 'c')")
        .await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("O"), &["ID"]).await;
    let first = seal(source.as_mut(), &plan, 1, &None).await.unwrap();
    let created = read(source.as_mut(), &plan, &first, None).await;
    release(source.as_mut(), 1, &first).await;
    emulator
        .sql(
            "update O set NAME = null where ID = 1; delete from O where ID = 2; update O set ID = 9 where ID = 3;
             insert into O values (4, 'd')",
        )
        .await;

    let second = seal(source.as_mut(), &plan, 2, &first.carry).await.unwrap();
    let all = read(source.as_mut(), &plan, &second, None).await;

    assert_eq!(created.rows, ["c 1 \"a\"", "c 2 \"b\"", "c 3 \"c\""]);
    let expected = ["u 1 \"a\" > 1 null", "d 2 \"b\"", "d 3 \"c\"", "c 4 \"d\"", "c 9 \"c\""];
    assert_eq!(all.rows, expected);
    assert_eq!(all.flushed.len(), expected.len());
    for (passed, token) in &all.flushed {
        let rest = read(source.as_mut(), &plan, &second, Some(token.clone())).await;
        assert_eq!(rest.rows, expected[*passed..], "after {token}");
    }
}

#[tokio::test]
async fn a_repeated_seal_finds_its_batch_and_a_seal_cut_off_between_goes_on() {
    let emulator = Emulator::start().await;
    emulator.sql("create table O (ID number(9,0)); insert into O values (1)").await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("O"), &["ID"]).await;
    let first = seal(source.as_mut(), &plan, 1, &None).await.unwrap();
    release(source.as_mut(), 1, &first).await;
    emulator.sql("insert into O values (2)").await;
    let refused = json!({"kind": "fail", "code": "100183", "sql_state": "P0000", "message": "no",
                         "statement": "full outer join"});
    emulator.faults(json!([refused])).await;

    let cut = seal(source.as_mut(), &plan, 2, &first.carry).await;
    let left = numbers(&emulator).await;
    emulator.faults(json!([])).await;
    emulator.sql("insert into O values (3)").await;
    let second = seal(source.as_mut(), &plan, 2, &first.carry).await.unwrap();
    emulator.sql("insert into O values (4)").await;
    let again = seal(source.as_mut(), &plan, 2, &first.carry).await.unwrap();

    assert_eq!(cut.unwrap_err().code, Code::SnowflakeQuery);
    assert_eq!(left, (vec![1, 2], vec![]), "the snapshot is there, the difference not");
    assert_eq!((&again.batch, &again.carry), (&second.batch, &second.carry));
    assert_eq!(read(source.as_mut(), &plan, &second, None).await.rows, ["c 2"], "of the snapshot, not of now");
    release(source.as_mut(), 2, &second).await;
    let third = seal(source.as_mut(), &plan, 3, &second.carry).await.unwrap();
    assert_eq!(read(source.as_mut(), &plan, &third, None).await.rows, ["c 3", "c 4"]);
}

#[tokio::test]
async fn an_answer_lost_on_the_way_is_found_again() {
    let emulator = Emulator::start().await;
    emulator.sql("create table O (ID number(9,0)); insert into O values (1)").await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("O"), &["ID"]).await;
    let cut = |of: &str| json!({"kind": "cut", "moment": "after", "on": ["submit"], "statement": of, "count": 1});
    emulator.faults(json!([cut("create transient"), cut("full outer join")])).await;

    let first = match seal(source.as_mut(), &plan, 1, &None).await {
        Ok(sealed) => sealed,
        // As the next attempt does.
        Err(_) => seal(source.as_mut(), &plan, 1, &None).await.unwrap(),
    };

    assert_eq!(struck(&emulator).await, [1, 1]);
    assert_eq!(read(source.as_mut(), &plan, &first, None).await.rows, ["c 1"]);
    assert_eq!(numbers(&emulator).await, (vec![1], vec![1]));
}

#[tokio::test]
async fn an_unchanged_model_makes_an_empty_batch_and_its_snapshots_do_not_pile_up() {
    let emulator = Emulator::start().await;
    emulator.sql("create table O (ID number(9,0)); insert into O values (1)").await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("O"), &["ID"]).await;
    let first = seal(source.as_mut(), &plan, 1, &None).await.unwrap();
    release(source.as_mut(), 1, &first).await;

    for seq in 2..6 {
        let idle = seal(source.as_mut(), &plan, seq, &first.carry).await.unwrap();

        assert!(idle.empty && idle.carry == first.carry);
        assert_eq!(numbers(&emulator).await, (vec![1, seq], vec![seq]));
    }
    emulator.sql("insert into O values (2)").await;
    let last = seal(source.as_mut(), &plan, 6, &first.carry).await.unwrap();
    assert_eq!(read(source.as_mut(), &plan, &last, None).await.rows, ["c 2"]);
}

#[tokio::test]
async fn a_release_may_be_repeated_and_late_statements_harm_nothing() {
    let emulator = Emulator::start().await;
    emulator.sql("create table O (ID number(9,0)); insert into O values (1)").await;
    let (mut source, mut zombie) = (emulator.open().await, emulator.open().await);
    let plan = plan(source.as_mut(), table("O"), &["ID"]).await;
    let first = seal(source.as_mut(), &plan, 1, &None).await.unwrap();
    release(source.as_mut(), 1, &first).await;
    emulator.sql("insert into O values (2)").await;
    let second = seal(source.as_mut(), &plan, 2, &first.carry).await.unwrap();
    // An attempt at the first batch, and its release, come only now.
    let late = seal(zombie.as_mut(), &plan, 1, &None).await;
    release(zombie.as_mut(), 1, &first).await;

    assert_eq!(read(source.as_mut(), &plan, &second, None).await.rows, ["c 2"]);
    release(source.as_mut(), 2, &second).await;
    release(source.as_mut(), 2, &second).await;
    let gone = seal(zombie.as_mut(), &plan, 2, &first.carry).await;
    emulator.sql("insert into O values (3)").await;
    let third = seal(source.as_mut(), &plan, 3, &second.carry).await.unwrap();

    assert!(late.is_ok(), "it takes nothing that is wanted");
    assert_eq!(gone.unwrap_err().code, Code::SnowflakeSnapshotGone);
    assert_eq!(read(source.as_mut(), &plan, &third, None).await.rows, ["c 3"]);
    release(source.as_mut(), 3, &third).await;
    assert_eq!(numbers(&emulator).await, (vec![3], vec![]));
}

#[tokio::test]
async fn what_a_run_before_a_reset_left_is_not_taken_for_the_batch() {
    let emulator = Emulator::start().await;
    emulator.sql("create table O (ID number(9,0)); insert into O values (1)").await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("O"), &["ID"]).await;
    let first = seal(source.as_mut(), &plan, 1, &None).await.unwrap();
    release(source.as_mut(), 1, &first).await;
    emulator.sql("insert into O values (2)").await;
    let unrecorded = seal(source.as_mut(), &plan, 2, &first.carry).await.unwrap();

    let anew = seal_by(source.as_mut(), "run_2", &plan, 2, &None).await.unwrap();

    assert_ne!(anew.batch, unrecorded.batch);
    assert_eq!(read(source.as_mut(), &plan, &anew, None).await.rows, ["c 1", "c 2"]);
    release(source.as_mut(), 2, &anew).await;
    seal_by(source.as_mut(), "run_3", &plan, 3, &anew.carry).await.unwrap();
    assert_eq!(numbers(&emulator).await, (vec![2, 3], vec![3]));
}

#[tokio::test]
async fn rows_are_the_same_exactly_when_their_messages_are() {
    let cases = [
        ("varchar", "null", "'x'", true),
        ("varchar", "''", "null", true),
        ("varchar", "null", "null", false),
        ("varchar", "'a'", "'A'", true),
        ("float", "'NaN'::float", "'NaN'::float", false),
        ("float", "1.5", "1.25", true),
        ("number(12,3)", "1.5", "1.500", false),
        ("number(38,10)", "0.0000000001", "0.0000000002", true),
        ("timestamp_tz", "'2026-01-01 00:00:00 +00:00'", "'2026-01-01 14:00:00 +14:00'", true),
        ("timestamp_tz", "'2026-01-01 14:00:00 +14:00'", "'2026-01-01 14:00:00 +14:00'", false),
        ("timestamp_ntz", "'1969-12-31 23:59:59.123456788'", "'1969-12-31 23:59:59.123456789'", true),
        ("binary", "to_binary('00', 'HEX')", "to_binary('0000', 'HEX')", true),
        ("variant", "parse_json('{\"a\": 1}')", "parse_json('{ \"a\":1 }')", false),
        ("variant", "parse_json('{\"a\": 1}')", "parse_json('{\"a\": \"1\"}')", true),
        ("variant", "parse_json('null')", "null", true),
        ("array", "array_construct(1, 2)", "array_construct(1, 2, null)", true),
        ("boolean", "true", "null", true),
    ];
    let emulator = Emulator::start().await;
    let mut source = emulator.open().await;
    for (place, (kind, before, after, changed)) in cases.into_iter().enumerate() {
        let (orders, seq) = (format!("O{place}"), 2 * place as i64 + 1);
        emulator
            .sql(&format!("create table {orders} (ID number(9,0), V {kind}); insert into {orders} select 1, {before}"))
            .await;
        let plan = plan(source.as_mut(), table(&orders), &["ID"]).await;
        let first = seal(source.as_mut(), &plan, seq, &None).await.unwrap();
        emulator.sql(&format!("update {orders} set V = {after}")).await;

        let second = seal(source.as_mut(), &plan, seq + 1, &first.carry).await.unwrap();

        assert_eq!(!second.empty, changed, "{kind} from {before} to {after}");
        if changed {
            let rows = read(source.as_mut(), &plan, &second, None).await.rows;
            assert!(rows.len() == 1 && rows[0].starts_with("u 1 "), "{kind}: {rows:?}");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_by_name_and_the_next_run_looks_again() {
    let emulator = Emulator::start().await;
    emulator.sql("create table O (ID number(9,0), NAME varchar); insert into O values (1, 'a')").await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("O"), &["ID"]).await;
    let first = seal(source.as_mut(), &plan, 1, &None).await.unwrap();
    release(source.as_mut(), 1, &first).await;
    for (run, bad, code) in
        [("run_2", "(null, 'x')", Code::ModelKeyNull), ("run_3", "(1, 'again')", Code::ModelKeyDuplicate)]
    {
        emulator.sql(&format!("insert into O values {bad}")).await;
        let refused = seal_by(source.as_mut(), run, &plan, 2, &first.carry).await.unwrap_err();
        emulator.sql("delete from O where NAME <> 'a'").await;

        assert_eq!(refused.code, code);
    }
    emulator.sql("update O set NAME = 'b'").await;
    let mended = seal_by(source.as_mut(), "run_4", &plan, 2, &first.carry).await.unwrap();

    assert_eq!(read(source.as_mut(), &plan, &mended, None).await.rows, ["u 1 \"a\" > 1 \"b\""]);
    emulator.sql("alter table O drop column NAME").await;
    let changed = seal_by(source.as_mut(), "run_5", &plan, 3, &mended.carry).await.unwrap_err();
    assert_eq!(changed.code, Code::ModelColumnsChanged);
}

#[tokio::test]
async fn without_freshets_schema_the_script_that_makes_it_is_told() {
    let emulator = Emulator::start().await;
    emulator.sql("create table O (ID number(9,0)); insert into O values (1); drop schema FRESHET").await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("O"), &["ID"]).await;

    let refused = seal(source.as_mut(), &plan, 1, &None).await.unwrap_err();

    assert_eq!(refused.code, Code::SnowflakePrivilege);
    let script = refused.message.split("run: ").nth(1).unwrap();
    let (create, grant) = script.split_once("; ").unwrap();
    assert!(grant.starts_with("grant usage, create table on schema \"SHOP\".\"FRESHET\" to role"), "{grant}");
    emulator.sql(create).await;
    assert!(!seal(source.as_mut(), &plan, 1, &None).await.unwrap().empty);
}

#[tokio::test]
async fn a_snapshot_that_somebody_dropped_is_missed_by_name() {
    let emulator = Emulator::start().await;
    emulator.sql("create table O (ID number(9,0)); insert into O values (1)").await;
    let mut source = emulator.open().await;
    let plan = plan(source.as_mut(), table("O"), &["ID"]).await;
    let first = seal(source.as_mut(), &plan, 1, &None).await.unwrap();
    let snapshot = first.carry.as_ref().unwrap()["snapshot"].as_str().unwrap().to_owned();
    emulator.sql(&format!("drop table FRESHET.{snapshot}")).await;

    let missed = seal(source.as_mut(), &plan, 2, &first.carry).await.unwrap_err();

    assert_eq!(missed.code, Code::SnowflakeSnapshotGone);
    assert!(missed.message.contains(&snapshot), "{}", missed.message);
}
