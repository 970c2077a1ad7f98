//! The kind `snowflake` against scripted answers: the connection test, the catalogue, sealing, reading, releasing.

use async_trait::async_trait;
use freshet_core::connector::{
    BatchName, Change, Column, EncodeError, Flow, Kind, ModelSpec, ReadMode, ReadPlan, ReadRequest, Registry,
    SealRequest, Sink, Source, StepState,
};
use freshet_core::error::{Code, Result};
use freshet_core::settings::Settings;
use freshet_core::testing::EGRESS;
use freshet_worker::formats::json;
use freshet_worker::sources;
use serde_json::{Value, json};

use crate::snowflake::{Answer, Seen, Server};

/// A result in one partition: columns as `name type`, rows of texts.
fn table(columns: &[&str], rows: Value) -> Answer {
    let column = |text: &&str| {
        let (name, kind) = text.split_once(' ').unwrap();
        let number = kind == "fixed";
        json!({"name": name, "type": kind, "nullable": true,
               "precision": number.then_some(38), "scale": number.then_some(0)})
    };
    let count = rows.as_array().unwrap().len();
    let metadata = json!({
        "numRows": count,
        "rowType": columns.iter().map(column).collect::<Vec<_>>(),
        "partitionInfo": [{"rowCount": count}],
    });
    let body = json!({"resultSetMetaData": metadata, "data": rows, "code": "090001", "statementHandle": "h1"});
    Answer::json(200, &body)
}

fn done() -> Answer {
    table(&["status text"], json!([["done"]]))
}

/// The statement of a request; empty for a look at a statement.
fn statement(seen: &Seen) -> String {
    if seen.body.is_empty() { String::new() } else { seen.json()["statement"].as_str().unwrap().to_owned() }
}

/// A server that answers each statement, and knows no statement by its handle.
async fn server(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Server {
    Server::start(move |seen| match statement(seen) {
        sql if sql.is_empty() => Answer::json(422, &json!({"code": "000709", "sqlState": "02000"})),
        sql => answer(&sql),
    })
    .await
}

async fn open_with(server: &Server, changes: Value) -> Box<dyn Source> {
    let hosts = server.url.trim_start_matches("http://").to_owned();
    let settings = Settings::with(&[("snowflake_hosts", &hosts)]).unwrap();
    let registry = sources::configure(Registry::default(), &settings).unwrap();
    let mut connection = json!({
        "account": "org-acct", "host": server.url, "user": "loader", "role": "loader", "warehouse": "wh",
        "database": "shop", "late_commit_s": 0, "sign_in": {"kind": "access_token", "token": "token-1"},
    });
    for (name, value) in changes.as_object().unwrap() {
        connection[name] = value.clone();
    }
    let kind = registry.find_source("snowflake").unwrap();
    let connection = kind.validate(connection).unwrap();
    kind.open(connection, &EGRESS).await.unwrap()
}

async fn open(server: &Server) -> Box<dyn Source> {
    open_with(server, json!({})).await
}

/// What a healthy account says to the connection test.
fn healthy(sql: &str) -> Answer {
    match sql {
        sql if sql.starts_with("select current_user()") => table(
            &["CURRENT_USER() text", "CURRENT_ROLE() text", "CURRENT_WAREHOUSE() text", "CURRENT_DATABASE() text"],
            json!([["LOADER", "LOADER", "WH", "SHOP"]]),
        ),
        sql if sql.starts_with("select count(*)") => table(&["COUNT(*) fixed"], json!([["7"]])),
        sql if sql.starts_with("show schemas") => table(&["name text"], json!([["FRESHET"]])),
        other => panic!("not expected: {other}"),
    }
}

/// The steps that did not pass.
async fn findings(mut source: Box<dyn Source>) -> Vec<(String, StepState, Option<Code>)> {
    let steps = source.check().await;
    let names: Vec<_> = steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["address", "tls", "sign_in", "role", "warehouse", "database", "read", "work_schema"]);
    assert!(!format!("{steps:?}").contains("token-1"));
    let failed = steps.iter().position(|step| step.state == StepState::Failed);
    let later = steps.iter().skip(failed.unwrap_or(steps.len()) + 1);
    assert!(later.into_iter().all(|step| step.state == StepState::Skipped), "{steps:?}");
    let wrong = steps.into_iter().filter(|step| matches!(step.state, StepState::Failed | StepState::Warning));
    wrong.map(|step| (step.name, step.state, step.code)).collect()
}

const NO_TLS: (&str, StepState, Option<Code>) = ("tls", StepState::Warning, None);

fn named(steps: &[(&str, StepState, Option<Code>)]) -> Vec<(String, StepState, Option<Code>)> {
    steps.iter().map(|(name, state, code)| ((*name).to_owned(), *state, *code)).collect()
}

#[tokio::test]
async fn a_connection_that_works_passes_every_step() {
    let server = server(healthy).await;

    assert_eq!(findings(open(&server).await).await, named(&[NO_TLS]));
}

#[tokio::test]
async fn each_way_to_fail_has_a_step_and_a_code() {
    let session = |row: Value| {
        let columns = ["U text", "R text", "W text", "D text"];
        move |sql: &str| match sql.starts_with("select current_user()") {
            true => table(&columns, json!([row])),
            false => healthy(sql),
        }
    };
    for (row, step, code) in [
        (json!(["LOADER", "PUBLIC", "WH", "SHOP"]), "role", Code::SnowflakeRole),
        (json!(["LOADER", "LOADER", null, "SHOP"]), "warehouse", Code::SnowflakeWarehouse),
        (json!(["LOADER", "LOADER", "WH", null]), "database", Code::SnowflakeDatabase),
    ] {
        let server = server(session(row)).await;
        let expected = named(&[NO_TLS, (step, StepState::Failed, Some(code))]);
        assert_eq!(findings(open(&server).await).await, expected);
    }

    let nothing_to_read = server(|sql| match sql.starts_with("select count(*)") {
        true => table(&["COUNT(*) fixed"], json!([["0"]])),
        false => healthy(sql),
    })
    .await;
    let read = ("read", StepState::Failed, Some(Code::SnowflakePrivilege));
    assert_eq!(findings(open(&nothing_to_read).await).await, named(&[NO_TLS, read]));

    let no_warehouse = server(|sql| match sql.starts_with("select count(*)") {
        true => Answer::json(422, &json!({"code": "000606", "sqlState": "57P03", "message": "No active warehouse"})),
        false => healthy(sql),
    })
    .await;
    let warehouse = ("warehouse", StepState::Failed, Some(Code::SnowflakeWarehouse));
    assert_eq!(findings(open(&no_warehouse).await).await, named(&[NO_TLS, warehouse]));

    let no_schema = server(|sql| match sql.starts_with("show schemas") {
        true => table(&["name text"], json!([["FRESHETS"]])),
        false => healthy(sql),
    })
    .await;
    let schema = ("work_schema", StepState::Warning, None);
    assert_eq!(findings(open(&no_schema).await).await, named(&[NO_TLS, schema]));

    let refused = Server::start(|_| Answer::json(401, &json!({"code": "390303"}))).await;
    let sign_in = ("sign_in", StepState::Failed, Some(Code::SnowflakeLogin));
    assert_eq!(findings(open(&refused).await).await, named(&[sign_in]));

    let mut gone = refused.clone();
    gone.url = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let address = ("address", StepState::Failed, Some(Code::SnowflakeUnreachable));
    assert_eq!(findings(open(&gone).await).await, named(&[address]));
}

#[tokio::test]
async fn a_host_that_is_not_allowed_is_refused_before_anything_is_dialled() {
    let registry = freshet_worker::register(Registry::default());
    let connection = json!({
        "account": "org-acct", "host": "http://127.0.0.1:9", "user": "u", "database": "d",
        "sign_in": {"kind": "access_token", "token": "t"},
    });

    let error = registry.find_source("snowflake").unwrap().validate(connection).unwrap_err();

    assert_eq!(error.fields[0].pointer, "/settings/host");
}

fn orders() -> ModelSpec {
    ModelSpec::Table { schema: "PUBLIC".into(), table: "ORDERS".into() }
}

fn column(name: &str, kind: Kind, source_type: &str) -> Column {
    Column { name: name.into(), kind, source_type: source_type.into(), nullable: true }
}

fn plan(mode: ReadMode) -> ReadPlan {
    let columns = vec![column("ID", Kind::Decimal, "number(38,0)"), column("NAME", Kind::Text, "text")];
    ReadPlan { model: orders(), columns, key: vec!["ID".into()], mode }
}

fn name() -> BatchName {
    BatchName { workspace: "ws_1".into(), sync: "snc_1".into(), run: "run_1".into(), seq: 3 }
}

/// Takes changes, `u 1 old > 1 new`; asks for a flush after so many.
#[derive(Default)]
pub struct Recorder {
    pub rows: Vec<String>,
    /// Rows so far and the token, at each flush.
    pub flushed: Vec<(usize, Value)>,
    chunk: usize,
    waiting: usize,
}

impl Recorder {
    pub fn of(chunk: usize) -> Self {
        Self { chunk, ..Self::default() }
    }
}

#[async_trait]
impl Sink for Recorder {
    fn push(&mut self, change: Change<'_>) -> Result<Flow> {
        let mut out = change.op.letter().as_bytes().to_vec();
        for (image, row) in [("", change.before), (" >", change.after)] {
            let Some(row) = row else { continue };
            out.extend_from_slice(if change.before.is_some() { image.as_bytes() } else { b"" });
            for place in 0..row.cells().len() {
                out.push(b' ');
                json::cell(row, place, &mut out);
            }
        }
        self.rows.push(String::from_utf8(out).unwrap());
        self.waiting += 1;
        Ok(if self.waiting >= self.chunk { Flow::Full } else { Flow::More })
    }

    fn bury(&mut self, change: Change<'_>, reason: EncodeError) -> Result<Flow> {
        let flow = self.push(change)?;
        let line = self.rows.pop().unwrap_or_default();
        self.rows.push(format!("{} {line}", reason.code));
        Ok(flow)
    }

    async fn flush(&mut self, token: Value) -> Result<()> {
        self.waiting = 0;
        self.flushed.push((self.rows.len(), token));
        Ok(())
    }
}

async fn read(
    source: &mut dyn Source,
    plan: &ReadPlan,
    batch: &Value,
    from: Option<Value>,
) -> Result<(Recorder, Value)> {
    let mut sink = Recorder::of(2);
    let request = ReadRequest { name: name(), plan: plan.clone(), batch: batch.clone(), from };
    let end = source.read(&request, &mut sink).await?;
    Ok((sink, end.token.unwrap_or_default()))
}

/// The rows of the batch table: two of them have one key.
const STAGED: [&str; 6] = ["10", "20", "20", "20", "30", "40"];

/// An account with a table of orders, and its batch table once it is made.
fn full(sql: &str) -> Answer {
    if sql.starts_with("create transient table") || sql.starts_with("drop table") {
        return done();
    }
    if sql.starts_with("select count(*)") {
        return table(&["COUNT(*) fixed", "MAX fixed"], json!([["6", "6"]]));
    }
    if sql.starts_with("show tables") {
        return table(&["created_on timestamp_ltz", "name text"], json!([]));
    }
    if sql.starts_with("select *") {
        return table(&["ID fixed", "NAME text"], json!([]));
    }
    let after: usize = sql.split("> ").nth(1).unwrap().split('\n').next().unwrap().parse().unwrap();
    let row = |(place, id): (usize, &&str)| json!([id, format!("row {place}"), (place + 1).to_string()]);
    let rows: Vec<_> = STAGED.iter().enumerate().skip(after).map(row).collect();
    table(&["ID fixed", "NAME text", "FRESHET_ORDINAL fixed"], rows.into())
}

#[tokio::test]
async fn a_full_batch_is_staged_once_and_read_again_from_any_token() {
    let server = server(full).await;
    let mut source = open(&server).await;
    let plan = plan(ReadMode::Full);
    let request = SealRequest { name: name(), plan: plan.clone(), position: None, carry: None };

    let sealed = source.seal(&request).await.unwrap();
    let (whole, end) = read(source.as_mut(), &plan, &sealed.batch, None).await.unwrap();

    assert!(!sealed.empty);
    assert_eq!(source.seal(&request).await.unwrap().batch, sealed.batch);
    let made = server.seen().into_iter().find(|seen| statement(seen).starts_with("create")).unwrap();
    assert_eq!(made.query["async"], "true");
    let made = statement(&made);
    assert_eq!(
        made,
        "create transient table if not exists \"FRESHET\".\"FRESHET_FULL_SNC_1_000000000003\" as\n\
         select \"ID\", \"NAME\", row_number() over (order by \"ID\") as \"FRESHET_ORDINAL\"\n\
         from \"PUBLIC\".\"ORDERS\""
    );
    assert_eq!(whole.rows[5], "r 40 \"row 5\"");
    assert_eq!(end, json!({"ordinal": 6}));
    // Never between two rows of one key, however small the chunks.
    let places: Vec<_> = whole.flushed.iter().map(|(rows, _)| *rows).collect();
    assert_eq!(places, [4]);
    for (rows, token) in whole.flushed {
        let (rest, end) = read(source.as_mut(), &plan, &sealed.batch, Some(token)).await.unwrap();
        assert_eq!(rest.rows, whole.rows[rows..]);
        assert_eq!(end, json!({"ordinal": 6}));
    }
}

#[tokio::test]
async fn a_row_that_is_missing_from_a_batch_table_fails_the_read() {
    for rows in [json!([["1", "a", "1"], ["3", "c", "3"]]), json!([["1", "a", "1"]]), json!([["1", "a", null]])] {
        let server = server(move |_| table(&["ID fixed", "NAME text", "FRESHET_ORDINAL fixed"], rows.clone())).await;
        let batch = json!({"kind": "full", "schema": "FRESHET", "table": "T", "rows": 3});

        let error = read(open(&server).await.as_mut(), &plan(ReadMode::Full), &batch, None).await.err().unwrap();

        assert_eq!(error.code, Code::SnowflakeAnswer);
    }
}

#[tokio::test]
async fn a_model_without_rows_seals_empty_and_leaves_no_table() {
    let server = server(|sql| match sql.starts_with("select count(*)") {
        true => table(&["COUNT(*) fixed", "MAX fixed"], json!([["0", null]])),
        false => full(sql),
    })
    .await;
    let request = SealRequest { name: name(), plan: plan(ReadMode::Full), position: None, carry: None };

    let sealed = open(&server).await.seal(&request).await.unwrap();

    assert!(sealed.empty);
    let dropped = "drop table if exists \"FRESHET\".\"FRESHET_FULL_SNC_1_000000000003\"";
    assert_eq!(statement(server.seen().last().unwrap()), dropped);
}

#[tokio::test]
async fn copies_that_earlier_batches_left_behind_are_dropped_and_no_others() {
    let server = server(|sql| match sql.starts_with("show tables") {
        true => table(
            &["name text", "rows fixed"],
            json!([
                ["FRESHET_FULL_SNC_1_000000000001", "5"],
                ["FRESHET_FULL_SNC_1_000000000003", "5"],
                ["FRESHET_FULL_SNC_1X_000000000001", "5"],
                ["FRESHET_STG_SNC_1_000000000001", "5"],
            ]),
        ),
        false => full(sql),
    })
    .await;
    let request = SealRequest { name: name(), plan: plan(ReadMode::Full), position: None, carry: None };

    open(&server).await.seal(&request).await.unwrap();

    let seen = server.seen();
    let dropped: Vec<_> = seen.iter().map(statement).filter(|sql| sql.starts_with("drop")).collect();
    assert_eq!(dropped, ["drop table if exists \"FRESHET\".\"FRESHET_FULL_SNC_1_000000000001\""]);
}

#[tokio::test]
async fn a_delivered_batch_gives_its_table_back() {
    let server = server(full).await;
    let batch = json!({"kind": "full", "schema": "FRESHET", "table": "FRESHET_FULL_SNC_1_000000000003", "rows": 6});

    open(&server).await.release(&name(), &batch).await.unwrap();

    let dropped = "drop table if exists \"FRESHET\".\"FRESHET_FULL_SNC_1_000000000003\"";
    assert_eq!(statement(&server.seen()[0]), dropped);
}

#[tokio::test]
async fn columns_that_changed_stop_the_seal_and_the_read() {
    let server = server(|sql| match sql.starts_with("select *") {
        true => table(&["ID fixed", "NAME boolean"], json!([])),
        false => table(&["ID text", "NAME text", "FRESHET_ORDINAL fixed"], json!([])),
    })
    .await;
    let mut source = open(&server).await;
    let plan = plan(ReadMode::Full);
    let request = SealRequest { name: name(), plan: plan.clone(), position: None, carry: None };
    let batch = json!({"kind": "full", "schema": "FRESHET", "table": "T", "rows": 0});

    let sealed = source.seal(&request).await.unwrap_err();
    let unread = read(source.as_mut(), &plan, &batch, None).await.err().unwrap();

    assert_eq!(
        (sealed.code, sealed.message.as_str()),
        (Code::ModelColumnsChanged, "the column `NAME` was text and is boolean")
    );
    assert_eq!(unread.code, Code::ModelColumnsChanged);
}

#[tokio::test]
async fn an_incremental_batch_goes_up_to_its_bound_and_on_from_its_last_row() {
    let server = server(|sql| match sql {
        sql if sql.starts_with("select *") => table(&["ID fixed", "NAME text"], json!([])),
        sql if sql.starts_with("select max(\"ID\")") => table(&["MAX fixed"], json!([["9"]])),
        sql if sql.contains("is null") => table(&["FOUND fixed"], json!([])),
        sql if sql.starts_with("select 1") => table(&["FOUND fixed"], json!([["1"]])),
        _ => table(&["ID fixed", "NAME text"], json!([["6", "a"], ["7", "b"], ["9", "c"]])),
    })
    .await;
    let mut source = open(&server).await;
    let plan = plan(ReadMode::Incremental { cursor: "ID".into() });
    let position = Some(json!({"cursor": "5", "key": ["5"]}));
    let request = SealRequest { name: name(), plan: plan.clone(), position, carry: None };

    let sealed = source.seal(&request).await.unwrap();
    let (found, end) = read(source.as_mut(), &plan, &sealed.batch, None).await.unwrap();

    assert!(!sealed.empty);
    assert_eq!(found.rows, ["u 6 \"a\"", "u 7 \"b\"", "u 9 \"c\""]);
    assert_eq!(end, json!({"cursor": "9", "key": ["9"]}));
    assert_eq!(found.flushed, [(2, json!({"cursor": "7", "key": ["7"]}))]);
    assert_eq!(
        statement(server.seen().last().unwrap()),
        "select \"ID\", \"NAME\" from \"PUBLIC\".\"ORDERS\"\n\
         where \"ID\" <= 9 and (\"ID\" > 5 or (\"ID\" = 5 and (\"ID\" > 5)))\norder by \"ID\", \"ID\""
    );
}

#[tokio::test]
async fn a_cursor_of_an_instant_ends_where_a_transaction_could_still_write() {
    let server = server(|sql| match sql {
        sql if sql.starts_with("select *") => table(&["ID fixed", "AT timestamp_ltz"], json!([])),
        "select current_timestamp()" => table(&["NOW timestamp_ltz"], json!([["1767225600.123456789"]])),
        _ => table(&["FOUND fixed"], json!([])),
    })
    .await;
    let mut plan = plan(ReadMode::Incremental { cursor: "AT".into() });
    plan.columns = vec![
        Column { nullable: false, ..column("ID", Kind::Decimal, "number(38,0)") },
        column("AT", Kind::TimestampTz, "timestamp_ltz"),
    ];
    let request = SealRequest { name: name(), plan, position: None, carry: None };

    let sealed = open_with(&server, json!({"late_commit_s": 90})).await.seal(&request).await.unwrap();

    assert!(sealed.empty);
    assert_eq!(sealed.batch["upper"], "2025-12-31T23:58:30.123456789+00:00");
    assert_eq!(sealed.batch["inclusive"], false);
}

#[tokio::test]
async fn a_catalogue_has_tables_views_and_streams_with_their_columns_and_keys() {
    let server = server(|sql| match sql {
        sql if sql.contains("information_schema.tables") => table(
            &["TABLE_SCHEMA text", "TABLE_NAME text", "TABLE_TYPE text", "ROW_COUNT fixed"],
            json!([["PUBLIC", "ORDERS", "BASE TABLE", "12"], ["PUBLIC", "RECENT", "VIEW", null]]),
        ),
        sql if sql.contains("information_schema.columns") => table(
            &["S text", "T text", "C text", "D text", "N text", "P fixed", "X fixed"],
            json!([
                ["PUBLIC", "ORDERS", "ID", "NUMBER", "NO", "38", "0"],
                ["PUBLIC", "ORDERS", "SPAN", "INTERVAL DAY TO SECOND", "YES", null, null],
                ["PUBLIC", "RECENT", "AT", "TIMESTAMP_NTZ", "YES", null, null],
            ]),
        ),
        sql if sql.starts_with("show primary keys") => table(
            &[
                "created_on timestamp_ltz",
                "schema_name text",
                "table_name text",
                "column_name text",
                "key_sequence fixed",
            ],
            json!([["0.0", "PUBLIC", "ORDERS", "ID", "1"]]),
        ),
        _ => table(
            &["name text", "schema_name text", "table_name text"],
            json!([["CHANGES", "PUBLIC", "SHOP.PUBLIC.ORDERS"], ["OTHERS", "FRESHET", "OTHER.PUBLIC.ORDERS"]]),
        ),
    })
    .await;

    let found = open(&server).await.catalogue(None).await.unwrap();

    let lines: Vec<_> = found
        .tables
        .iter()
        .map(|table| {
            let columns = table.columns.iter();
            let columns: Vec<_> = columns
                .map(|c| format!("{}:{}{}", c.name, c.source_type, if c.supported { "" } else { "!" }))
                .collect();
            format!(
                "{} {}.{} [{}] {}",
                table.kind,
                table.schema,
                table.name,
                table.primary_key.join(","),
                columns.join(" ")
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "stream FRESHET.OTHERS [] METADATA$ACTION:text METADATA$ISUPDATE:boolean METADATA$ROW_ID:text",
            "stream PUBLIC.CHANGES [ID] ID:number(38,0) SPAN:interval day to second! METADATA$ACTION:text \
             METADATA$ISUPDATE:boolean METADATA$ROW_ID:text",
            "table PUBLIC.ORDERS [ID] ID:number(38,0) SPAN:interval day to second!",
            "view PUBLIC.RECENT [] AT:timestamp_ntz",
        ]
    );
    assert!(!found.truncated);
}

#[tokio::test]
async fn a_preview_shows_exact_values_and_only_ever_selects() {
    let columns = ["N fixed", "J variant", "T timestamp_tz"];
    let server = server(move |sql| match sql.ends_with("limit 0") {
        true => table(&columns, json!([])),
        false => table(
            &columns,
            json!([
                ["99999999999999999999999999999999999999", "{\"a\":[1]}", "0.5 1500"],
                [null, null, null],
                ["3", "3", "3.0 1440"],
            ]),
        ),
    })
    .await;

    let preview = open(&server).await.preview(&orders(), 2).await.unwrap();

    assert!(preview.truncated);
    assert_eq!(
        preview.rows,
        [
            json!({"N": "99999999999999999999999999999999999999", "J": {"a": [1]}, "T": "1970-01-01T01:00:00.500+01:00"}),
            json!({"N": null, "J": null, "T": null}),
        ]
    );
    assert!(server.seen().iter().all(|seen| statement(seen).starts_with("select ")));
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_when_it_is_described() {
    for (columns, code) in [
        (&["ID fixed", "METADATA$ACTION text"][..], Code::ModelNotSelect),
        (&["ID fixed", "ID text"], Code::ModelDuplicateColumns),
        (&["ID interval_day_time"], Code::ModelTypeUnsupported),
    ] {
        let server = server(move |_| table(columns, json!([]))).await;

        assert_eq!(open(&server).await.describe(&orders()).await.unwrap_err().code, code);
    }
}

#[tokio::test]
async fn keys_are_counted_in_the_warehouse() {
    let server = server(|_| table(&["A fixed", "B fixed", "C fixed"], json!([["10", "2", "1"]]))).await;

    let check = open(&server).await.key_check(&orders(), &["ID".into(), "AT".into()]).await.unwrap();

    assert_eq!((check.rows, check.null_rows, check.duplicate_keys), (10, 2, 1));
    let sql = statement(&server.seen()[0]);
    assert!(sql.contains("group by \"ID\", \"AT\""), "{sql}");
    assert!(sql.contains("\"ID\" is null or \"AT\" is null"), "{sql}");
}
