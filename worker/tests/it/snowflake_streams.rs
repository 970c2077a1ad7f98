//! Models of the kind `stream` against the emulator: sealed once whatever happens, read as changes.

use std::time::Duration;

use freshet_core::connector::{
    BatchName, DuplicateKeys, ModelSpec, NewStream, ReadMode, ReadPlan, ReadRequest, SealRequest, Sealed, Source,
    StreamBase, StreamOn,
};
use freshet_core::error::{Code, Result};
use freshet_core::testing::EGRESS;
use freshet_worker::sources::snowflake::client::http_client;
use freshet_worker::sources::snowflake::sql::{BatchTable, Stage};
use serde_json::{Value, json};

use crate::snowflake_emulator::Emulator;
use crate::snowflake_source::Recorder;

/// The Stream `name` in Freshet's own schema.
fn stream(name: &str) -> ModelSpec {
    ModelSpec::Stream { schema: "FRESHET".into(), stream: name.into() }
}

pub fn new_stream(name: &str, table: &str) -> NewStream {
    let on = StreamBase { kind: StreamOn::Table, schema: "PUBLIC".into(), name: table.into() };
    NewStream { schema: None, name: name.into(), on, append_only: false, show_initial_rows: false, replace: false }
}

/// An emulator with the table ORDERS, three rows in it, and the Stream FRESHET.S on it.
struct Shop {
    emulator: Emulator,
    source: Box<dyn Source>,
    plan: ReadPlan,
}

const CHANGES: ReadMode = ReadMode::Changes { duplicate_keys: DuplicateKeys::DeadLetter };

impl Shop {
    async fn new() -> Self {
        Self::with(new_stream("S", "ORDERS"), json!({})).await
    }

    async fn with(new: NewStream, settings: Value) -> Self {
        let emulator = Emulator::start().await;
        emulator
            .sql(
                "create table ORDERS (ID number(38,0) primary key, NAME varchar);
                 insert into ORDERS values (1, 'one'), (2, 'two'), (3, 'three')",
            )
            .await;
        let mut source = emulator.open_with(settings).await;
        source.make_stream(&new, false).await.unwrap();
        let plan = plan(source.as_mut(), stream(&new.name)).await;
        Self { emulator, source, plan }
    }

    async fn sql(&self, statements: &str) -> String {
        self.emulator.sql(statements).await
    }

    async fn try_seal(&mut self, seq: i64) -> Result<Sealed> {
        self.try_seal_after(seq, None).await
    }

    async fn try_seal_after(&mut self, seq: i64, carry: Option<Value>) -> Result<Sealed> {
        let request = SealRequest { name: batch(seq), plan: self.plan.clone(), position: None, carry };
        self.source.seal(&request).await
    }

    async fn seal(&mut self, seq: i64) -> Sealed {
        self.try_seal(seq).await.unwrap()
    }

    async fn read_from(&mut self, sealed: &Sealed, from: Option<Value>, chunk: usize) -> (Recorder, Option<Value>) {
        let mut sink = Recorder::of(chunk);
        let request = ReadRequest { name: batch(1), plan: self.plan.clone(), batch: sealed.batch.clone(), from };
        let end = self.source.read(&request, &mut sink).await.unwrap();
        (sink, end.token)
    }

    async fn rows(&mut self, sealed: &Sealed) -> Vec<String> {
        self.read_from(sealed, None, 1_000).await.0.rows
    }

    /// Seals, reads and gives back a batch.
    async fn deliver(&mut self, seq: i64) -> Vec<String> {
        let sealed = self.seal(seq).await;
        if sealed.empty {
            return Vec::new();
        }
        let rows = self.rows(&sealed).await;
        self.source.release(&batch(seq), &sealed.batch).await.unwrap();
        rows
    }

    /// The statement of a batch's seal, as an attempt that nobody waits for any more runs it.
    async fn late_seal(&self, seq: i64) {
        let table = BatchTable::new(Stage::Stream, "FRESHET", "snc_1", seq);
        self.sql(&table.seal_stream("\"FRESHET\".\"S\"", &self.plan.columns, &self.plan.key)).await;
    }

    async fn tables(&self) -> String {
        self.sql("show tables in schema FRESHET").await
    }
}

fn batch(seq: i64) -> BatchName {
    BatchName { workspace: "ws_1".into(), sync: "snc_1".into(), run: "run_1".into(), seq }
}

async fn plan(source: &mut dyn Source, model: ModelSpec) -> ReadPlan {
    let (schema, key) = source.describe(&model).await.unwrap();
    let key = if key.is_empty() { vec!["ID".into()] } else { key };
    ReadPlan { model, columns: schema.columns, key, mode: CHANGES }
}

/// A number of the emulator's own account of what it ran.
async fn accounted(emulator: &Emulator, member: &str) -> i64 {
    let url = format!("{}/emulator/accounting", emulator.url);
    let answer: Value = http_client(&EGRESS, &url).unwrap().get(url).send().await.unwrap().json().await.unwrap();
    answer[member].as_i64().unwrap()
}

#[tokio::test]
async fn changes_come_folded_by_key_with_their_images_and_from_any_token_on() {
    let mut shop = Shop::new().await;
    shop.sql(
        "update ORDERS set NAME = 'uno' where ID = 1; delete from ORDERS where ID = 2;
         update ORDERS set ID = 30 where ID = 3; insert into ORDERS values (4, 'four'), (5, 'gone');
         delete from ORDERS where ID = 5",
    )
    .await;

    let sealed = shop.seal(1).await;
    shop.sql("delete from ORDERS").await;
    let (whole, end) = shop.read_from(&sealed, None, 2).await;

    assert_eq!(shop.plan.key, ["ID"]);
    assert_eq!(
        whole.rows,
        [r#"u 1 "one" > 1 "uno""#, r#"d 2 "two""#, r#"d 3 "three""#, r#"c 4 "four""#, r#"c 30 "three""#,]
    );
    assert_eq!(end, Some(json!({"ordinal": 6})));
    assert_eq!(whole.flushed, [(2, json!({"ordinal": 3})), (4, json!({"ordinal": 5}))]);
    for (handed_on, token) in &whole.flushed {
        let (rest, end) = shop.read_from(&sealed, Some(token.clone()), 2).await;
        assert_eq!(rest.rows, whole.rows[*handed_on..]);
        assert_eq!(end, Some(json!({"ordinal": 6})));
    }
    let (nothing, end) = shop.read_from(&sealed, end, 2).await;
    assert_eq!((nothing.rows.len(), end), (0, None));
}

#[tokio::test]
async fn a_row_made_again_under_its_key_is_an_update_and_keys_that_swap_are_two() {
    let mut shop = Shop::new().await;
    shop.sql(
        "delete from ORDERS where ID = 1; insert into ORDERS values (1, 'uno');
         update ORDERS set ID = case ID when 2 then 3 when 3 then 2 else ID end",
    )
    .await;

    let rows = shop.deliver(1).await;

    assert_eq!(rows, [r#"u 1 "one" > 1 "uno""#, r#"u 2 "two" > 2 "three""#, r#"u 3 "three" > 3 "two""#]);
}

#[tokio::test]
async fn batches_follow_one_another_and_an_idle_stream_wakes_no_warehouse() {
    let mut shop = Shop::new().await;
    shop.sql("insert into ORDERS values (4, 'four')").await;
    assert_eq!(shop.deliver(1).await, [r#"c 4 "four""#]);
    let before = accounted(&shop.emulator, "warehouse_count").await;

    for seq in 2..6 {
        assert!(shop.seal(seq).await.empty);
    }

    assert_eq!(accounted(&shop.emulator, "warehouse_count").await, before);
    shop.sql("update ORDERS set NAME = 'vier' where ID = 4").await;
    assert_eq!(shop.deliver(6).await, [r#"u 4 "four" > 4 "vier""#]);
}

#[tokio::test]
async fn an_attempt_whose_answer_was_lost_has_sealed_the_batch_once() {
    let mut shop = Shop::new().await;
    shop.sql("insert into ORDERS values (4, 'four')").await;
    // The first attempt takes the changes, hears that it failed, and cannot look; the next one is told to wait.
    let taken =
        json!({"kind": "status", "status": 422, "moment": "after", "count": 1, "statement": "create transient"});
    let blind = json!({"kind": "status", "status": 422, "skip": 1, "count": 1, "statement": "show tables"});
    shop.emulator.faults(json!([taken, blind])).await;
    let unclear = shop.try_seal(1).await.map(|sealed| sealed.empty);
    shop.emulator.faults(json!([{"kind": "accepted", "delay_ms": 300}])).await;
    shop.sql("insert into ORDERS values (5, 'five')").await;

    let sealed = shop.seal(1).await;
    let again = shop.seal(1).await;
    let rows = shop.rows(&sealed).await;

    assert!(unclear.is_err(), "{unclear:?}");
    assert_eq!(again.batch, sealed.batch);
    assert_eq!(rows, [r#"c 4 "four""#]);
    shop.source.release(&batch(1), &sealed.batch).await.unwrap();
    assert_eq!(shop.deliver(2).await, [r#"c 5 "five""#]);
}

#[tokio::test]
async fn a_seal_that_fails_beside_one_that_went_well_has_its_table() {
    let mut shop = Shop::new().await;
    shop.sql("insert into ORDERS values (4, 'four')").await;
    let done = json!({"kind": "status", "status": 422, "moment": "after", "count": 1, "statement": "create transient"});
    let slow = json!({"kind": "slow", "delay_ms": 500, "statement": "show tables"});
    shop.emulator.faults(json!([done, slow])).await;

    assert_eq!(shop.deliver(1).await, [r#"c 4 "four""#]);

    let refused =
        json!({"kind": "fail", "code": "100183", "sql_state": "P0000", "message": "no", "statement": "create tr"});
    shop.emulator.faults(json!([refused])).await;
    shop.sql("insert into ORDERS values (5, 'five')").await;
    assert_eq!(shop.try_seal(2).await.err().unwrap().code, Code::SnowflakeQuery);
}

#[tokio::test]
async fn a_delivered_table_stands_empty_so_that_a_late_seal_takes_nothing() {
    let mut shop = Shop::new().await;
    shop.sql("insert into ORDERS values (4, 'four')").await;
    shop.deliver(1).await;
    shop.sql("insert into ORDERS values (5, 'five')").await;

    shop.late_seal(1).await;

    assert!(shop.tables().await.contains("FRESHET_STG_SNC_1_000000000001"));
    assert_eq!(shop.deliver(2).await, [r#"c 5 "five""#]);
}

#[tokio::test]
async fn a_spent_table_is_dropped_once_no_statement_can_be_as_old() {
    let mut shop = Shop::new().await;
    shop.sql("insert into ORDERS values (4, 'four')").await;
    shop.deliver(1).await;
    assert!(shop.seal(2).await.empty);
    assert!(shop.tables().await.contains("FRESHET_STG_SNC_1_000000000001"));
    tokio::time::sleep(Duration::from_millis(6_100)).await;

    shop.source = shop.emulator.open_with(json!({"statement_timeout_s": 3})).await;
    assert!(shop.seal(3).await.empty);

    assert!(!shop.tables().await.contains("FRESHET_STG_SNC_1_000000000001"));
}

#[tokio::test]
async fn what_a_late_seal_took_goes_out_first_and_in_its_order() {
    let mut shop = Shop::new().await;
    shop.sql("insert into ORDERS values (4, 'four')").await;
    shop.deliver(1).await;
    shop.sql("drop table FRESHET.\"FRESHET_STG_SNC_1_000000000001\"").await;
    shop.sql("update ORDERS set NAME = 'vier' where ID = 4").await;
    shop.late_seal(1).await;
    shop.sql("update ORDERS set NAME = 'quatre' where ID = 4").await;
    // Of a batch that was never planned: a database restored from a backup leaves such.
    shop.late_seal(9).await;
    shop.sql("delete from ORDERS where ID = 4").await;

    let first = shop.seal(2).await;
    let again = shop.seal(2).await;
    let rows = shop.rows(&first).await;
    shop.source.release(&batch(2), &first.batch).await.unwrap();

    assert_eq!(again.batch, first.batch);
    assert_eq!(rows, [r#"u 4 "four" > 4 "vier""#]);
    let warned: Vec<_> = first.notes.iter().map(|note| (note.level, note.code)).collect();
    assert_eq!(warned, [("warning", "source.table_adopted")]);
    assert_eq!(shop.deliver(3).await, [r#"u 4 "vier" > 4 "quatre""#]);
    assert_eq!(shop.deliver(4).await, [r#"d 4 "quatre""#]);
    assert!(shop.seal(5).await.empty);
}

#[tokio::test]
async fn a_batch_taken_for_an_earlier_model_is_read_by_the_key_and_columns_of_now() {
    let mut shop = Shop::new().await;
    shop.sql("alter table ORDERS add column CODE varchar; update ORDERS set CODE = 'z' || (9 - ID)").await;
    shop.sql("update ORDERS set NAME = 'new ' || NAME").await;
    shop.plan = plan(shop.source.as_mut(), stream("S")).await;
    shop.deliver(1).await;
    shop.sql("update ORDERS set NAME = 'x', CODE = case ID when 1 then 'z7' when 2 then 'z8' else CODE end").await;
    shop.seal(2).await;
    // A new version of the model: another key, and a column more.
    shop.sql("alter table ORDERS add column LATER varchar").await;
    shop.plan = plan(shop.source.as_mut(), stream("S")).await;
    shop.plan.key = vec!["CODE".into()];

    let sealed = shop.seal(2).await;
    let (whole, _) = shop.read_from(&sealed, None, 1).await;

    assert_eq!(
        whole.rows,
        [
            r#"u 3 "new three" "z6" null > 3 "x" "z6" null"#,
            r#"u 2 "new two" "z7" null > 1 "x" "z7" null"#,
            r#"u 1 "new one" "z8" null > 2 "x" "z8" null"#,
        ]
    );
    for (handed_on, token) in &whole.flushed {
        let (rest, _) = shop.read_from(&sealed, Some(token.clone()), 1).await;
        assert_eq!(rest.rows, whole.rows[*handed_on..]);
    }
    shop.plan.key = vec!["LATER".into()];
    let request = ReadRequest { name: batch(2), plan: shop.plan.clone(), batch: sealed.batch, from: None };
    let refused = shop.source.read(&request, &mut Recorder::of(1)).await.err().unwrap();
    assert_eq!(refused.code, Code::SnowflakeBatchLost);
}

#[tokio::test]
async fn initial_rows_are_the_first_batch_and_what_changed_since_the_next() {
    let initial = NewStream { show_initial_rows: true, ..new_stream("S", "ORDERS") };
    let mut shop = Shop::with(initial, json!({})).await;
    shop.sql("update ORDERS set NAME = 'uno' where ID = 1").await;

    let first = shop.deliver(1).await;
    let second = shop.deliver(2).await;

    assert_eq!(first, [r#"c 1 "one""#, r#"c 2 "two""#, r#"c 3 "three""#]);
    assert_eq!(second, [r#"u 1 "one" > 1 "uno""#]);
}

#[tokio::test]
async fn an_append_only_stream_gives_every_insert_and_repeats_of_a_key_by_policy() {
    let append_only = NewStream { append_only: true, ..new_stream("S", "ORDERS") };
    let mut shop = Shop::with(append_only, json!({})).await;
    shop.sql("insert into ORDERS values (4, 'a'); delete from ORDERS where ID = 4; insert into ORDERS values (4, 'b')")
        .await;
    shop.sql("insert into ORDERS values (5, 'c'); update ORDERS set NAME = 'd' where ID = 5").await;
    let sealed = shop.seal(1).await;

    let buried = shop.rows(&sealed).await;
    shop.plan.mode = ReadMode::Changes { duplicate_keys: DuplicateKeys::LastWins };
    let won = shop.rows(&sealed).await;

    let (first, last) = (buried[0].clone(), buried[1].clone());
    assert!(last.starts_with("model.key_duplicate c 4 "), "{buried:?}");
    assert_eq!(buried[2..], [r#"c 5 "c""#]);
    assert_eq!(won, [last.trim_start_matches("model.key_duplicate "), r#"c 5 "c""#]);
    assert_ne!(first, won[0]);
}

#[tokio::test]
async fn a_stream_on_a_view_is_followed_too() {
    let mut shop = Shop::new().await;
    shop.sql("create view SMALL as select ID, upper(NAME) as NAME from ORDERS where ID < 3").await;
    let mut new = new_stream("V", "SMALL");
    new.on.kind = StreamOn::View;
    let made = shop.source.make_stream(&new, false).await.unwrap();
    shop.plan = plan(shop.source.as_mut(), stream("V")).await;
    shop.sql("update ORDERS set NAME = 'uno' where ID = 1; update ORDERS set ID = 9 where ID = 2; delete from ORDERS where ID = 3").await;

    let rows = shop.deliver(1).await;

    assert_eq!(made.facts.unwrap().on_kind, "view");
    assert_eq!(rows, [r#"u 1 "ONE" > 1 "UNO""#, r#"d 2 "TWO""#]);
}

#[tokio::test]
async fn a_stale_stream_says_so_and_is_made_anew_with_every_row_or_none() {
    let mut shop = Shop::new().await;
    shop.sql("delete from ORDERS where ID = 1").await;
    let url = format!("{}/emulator/streams/stale", shop.emulator.url);
    let make_stale = async || {
        let stale = json!({"stream": "SHOP.FRESHET.S"});
        let answer = http_client(&EGRESS, &url).unwrap().post(&url).json(&stale).send().await.unwrap();
        assert!(answer.status().is_success());
    };
    make_stale().await;

    let error = shop.try_seal(1).await.err().unwrap();
    let model = shop.plan.model.clone();
    let renewed = shop.source.renew_stream(&model, true).await.unwrap();
    let every = shop.deliver(1).await;
    shop.sql("insert into ORDERS values (4, 'four')").await;
    make_stale().await;
    shop.source.renew_stream(&model, false).await.unwrap();
    let none = shop.seal(2).await;

    assert_eq!(error.code, Code::SnowflakeStale);
    assert!(error.message.contains("FRESHET.S on SHOP.PUBLIC.ORDERS is stale"), "{error}");
    assert!(
        renewed.statement.starts_with("create or replace stream \"FRESHET\".\"S\" on table"),
        "{}",
        renewed.statement
    );
    assert_eq!(every, [r#"c 2 "two""#, r#"c 3 "three""#]);
    assert!(none.empty);
    shop.sql("delete from ORDERS where ID = 4").await;
    assert_eq!(shop.deliver(3).await, [r#"d 4 "four""#]);
}

#[tokio::test]
async fn what_was_taken_before_a_stream_went_stale_is_still_delivered() {
    let mut shop = Shop::new().await;
    shop.sql("insert into ORDERS values (4, 'four')").await;
    shop.late_seal(1).await;
    let url = format!("{}/emulator/streams/stale", shop.emulator.url);
    http_client(&EGRESS, &url).unwrap().post(url).json(&json!({"stream": "SHOP.FRESHET.S"})).send().await.unwrap();

    let rows = shop.deliver(2).await;
    let error = shop.try_seal(3).await.err().unwrap();

    assert_eq!(rows, [r#"c 4 "four""#]);
    assert_eq!(error.code, Code::SnowflakeStale);
}

#[tokio::test]
async fn a_stream_that_is_almost_stale_or_was_made_anew_is_warned_of() {
    let emulator_days = async |emulator: &Emulator, days: i64| {
        let wind = json!({"advance_ms": days * 86_400_000});
        let url = format!("{}/emulator/clock", emulator.url);
        http_client(&EGRESS, &url).unwrap().post(url).json(&wind).send().await.unwrap();
    };
    let mut shop = Shop::new().await;
    // A key's token would be of another time than the wound clock's.
    let token = shop.emulator.command(&["create-token", "LOADER"]).await;
    let sign_in = json!({"sign_in": {"kind": "access_token", "token": token.trim()}});
    shop.source = shop.emulator.open_with(sign_in).await;
    let calm = shop.seal(1).await;
    // The Stream was read 13 days ago, and history is kept for 14.
    emulator_days(&shop.emulator, -13).await;
    let model = shop.plan.model.clone();
    shop.source.renew_stream(&model, false).await.unwrap();
    emulator_days(&shop.emulator, 13).await;

    let mut stale = calm.carry.clone().unwrap();
    stale["looked_at"] = json!("2020-01-01T00:00:00Z");
    let warned = shop.try_seal_after(2, Some(stale)).await.unwrap();
    let unlooked = shop.try_seal_after(2, calm.carry.clone()).await.unwrap();

    let carry = calm.carry.unwrap();
    assert_eq!(carry["stream"]["on"], "SHOP.PUBLIC.ORDERS");
    assert_eq!(carry["stream"]["mode"], "standard");
    assert!(carry["stream"]["stale_after"].is_string(), "{carry}");
    assert!(calm.notes.is_empty() && unlooked.notes.is_empty());
    let codes: Vec<_> = warned.notes.iter().map(|note| (note.level, note.code)).collect();
    assert_eq!(codes, [("warning", "source.stream_renewed"), ("warning", "source.stream_stale_soon")]);
}

#[tokio::test]
async fn a_stream_is_made_once_and_the_statement_is_shown() {
    let mut shop = Shop::new().await;
    let new = NewStream { append_only: true, ..new_stream("T", "ORDERS") };

    let planned = shop.source.make_stream(&new, true).await.unwrap();
    let made = shop.source.make_stream(&new, false).await.unwrap();
    let again = shop.source.make_stream(&new, false).await.unwrap();
    let other = shop.source.make_stream(&new_stream("T", "ORDERS"), false).await.unwrap_err();
    let nowhere = shop.source.make_stream(&new_stream("U", "NOWHERE"), false).await.unwrap_err();

    assert_eq!(
        planned.statement,
        "create stream if not exists \"FRESHET\".\"T\" on table \"PUBLIC\".\"ORDERS\" append_only = true \
         comment = 'made by Freshet'"
    );
    assert!(planned.facts.is_none());
    assert_eq!(made.facts.as_ref().map(|facts| facts.mode.as_str()), Some("append_only"));
    assert_eq!(again, made);
    assert_eq!(other.code, Code::Conflict);
    assert_eq!(nowhere.code, Code::ModelObjectMissing);
}

#[tokio::test]
async fn looking_at_a_stream_moves_nothing() {
    let mut shop = Shop::new().await;
    shop.sql("insert into ORDERS values (3, 'drei'); update ORDERS set NAME = 'uno' where ID = 1").await;

    let preview = shop.source.preview(&shop.plan.model, 10).await.unwrap();
    let check = shop.source.key_check(&shop.plan.model, &["ID".into()]).await.unwrap();
    let listed = shop.source.catalogue(Some("FRESHET")).await.unwrap();

    let actions: Vec<_> = preview.rows.iter().map(|row| row["METADATA$ACTION"].as_str().unwrap()).collect();
    assert_eq!(actions.len(), 3);
    assert!(actions.contains(&"DELETE"));
    // The table is what has keys: the Stream holds three rows, and one of them repeats.
    assert_eq!((check.rows, check.duplicate_keys), (4, 1));
    let found = &listed.tables[0];
    assert_eq!((found.kind.as_str(), found.name.as_str()), ("stream", "S"));
    assert_eq!(found.primary_key, ["ID"]);
    assert_eq!(found.columns.len(), 5);
    let facts = found.stream.as_ref().unwrap();
    assert_eq!((facts.on.as_str(), facts.mode.as_str(), facts.stale), ("SHOP.PUBLIC.ORDERS", "standard", false));
    assert!(facts.stale_after.is_some());
    assert_eq!(shop.deliver(1).await.len(), 2);
}

#[tokio::test]
async fn a_model_that_reads_a_stream_is_refused_unless_it_is_of_that_kind() {
    let mut shop = Shop::new().await;
    shop.sql("insert into ORDERS values (4, 'four')").await;
    let table = |name: &str| ModelSpec::Table { schema: "FRESHET".into(), table: name.into() };
    let sql = |sql: &str| ModelSpec::Sql { sql: sql.into() };

    for (model, code) in [
        (table("S"), Code::ModelNotSelect),
        (sql("select * from FRESHET.S"), Code::ModelNotSelect),
        (sql("select ID from SHOP.FRESHET.\"S\""), Code::ModelNotSelect),
        (
            sql("with s as (select ID from freshet.s) select o.ID from PUBLIC.ORDERS o join s on s.ID = o.ID"),
            Code::ModelNotSelect,
        ),
        (sql("select ID from PUBLIC.ORDERS where ID in (select ID from FRESHET.S)"), Code::ModelNotSelect),
        (ModelSpec::Stream { schema: "PUBLIC".into(), stream: "ORDERS".into() }, Code::ModelObjectMissing),
        (stream("NOWHERE"), Code::ModelObjectMissing),
    ] {
        let described = shop.source.describe(&model).await.unwrap_err();
        let previewed = shop.source.preview(&model, 1).await.unwrap_err();
        assert_eq!((described.code, previewed.code), (code, code), "{model:?}: {described}");
    }
    shop.source
        .describe(&sql("with s as (select 1 as ID) select o.ID from PUBLIC.ORDERS o join s on s.ID = o.ID"))
        .await
        .unwrap();

    assert_eq!(shop.deliver(1).await, [r#"c 4 "four""#]);
}

#[tokio::test]
async fn columns_that_changed_stop_the_seal_before_anything_is_taken() {
    let mut shop = Shop::new().await;
    shop.sql("insert into ORDERS values (4, 'four')").await;
    let columns = shop.plan.columns.clone();
    shop.plan.columns[1].source_type = "number(9,0)".into();

    let error = shop.try_seal(1).await.err().unwrap();
    shop.plan.columns = columns;

    assert_eq!(error.code, Code::ModelColumnsChanged);
    assert_eq!(shop.deliver(1).await, [r#"c 4 "four""#]);
}
