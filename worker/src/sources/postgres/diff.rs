//! Mode `diff`: what changed since the last snapshot, found by the server itself in Freshet's schema there.
//!
//! ~~~text
//! one transaction:  snapshot N := the model's rows now
//!                   difference N := snapshot N against the last one, ordered and numbered
//! delivered:        difference N and every older snapshot are dropped; snapshot N is the last one
//! ~~~
//!
//! Both tables or neither are there, so whatever became of an attempt the difference of that number decides: a seal
//! that finds it takes it as it is. A name ends with a mark of what it was made for, last snapshot, model and key: after a
//! reset, what an attempt before it left under the same number is another table. The tables are logged ones: unlogged
//! ones are empty after a crash of the server, and every row would be taken for deleted.
//!
//! Rows are the same when their images or their texts are (`*<>`): equal is not enough, for `1.0` and `1.00` are other messages, and
//! json has no equality at all. Keys are the same when their texts are, as they are in Kafka.

use freshet_core::connector::{
    Ahead, BatchName, Change, Flow, Op, ReadEnd, ReadPlan, ReadRequest, Row, SealRequest, Sealed, Sink,
};
use freshet_core::error::{Code, Error, Result};
use freshet_core::failpoint::{self, Step};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Executor, Row as _};
use xxhash_rust::xxh3::Xxh3Default;

use super::catalogue::{column_types, fill_from, refuse_changed};
use super::seal::refuse_standby;
use super::session::{Session, failed};
use super::sql::{identifier, literal, relation};

/// Columns of a model, at most: a table has 1 600, the difference each of them twice.
const COLUMNS_MAX: usize = 799;

/// A batch, as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename = "diff")]
struct Batch {
    /// Its table, in Freshet's schema.
    difference: String,
    /// Its changes.
    rows: i64,
}

/// Whether a sealed batch is a difference.
pub(super) fn is_of(batch: &Value) -> bool {
    batch.get("kind").and_then(Value::as_str) == Some("diff")
}

/// The snapshot that the next difference is taken from.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Base {
    /// Its table, in Freshet's schema.
    snapshot: String,
    /// Its columns, `name type`, and which of them are the key.
    columns: Vec<String>,
    key: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    ordinal: i64,
}

/// What a table of Freshet's schema holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Snapshot,
    Difference,
}

/// The tables of a sync.
struct Tables {
    schema: String,
    /// The sync's id, in lower case.
    sync: String,
}

/// A table that is there.
struct Found {
    part: Part,
    seq: i64,
    name: String,
}

impl Tables {
    fn of(session: &Session, name: &BatchName) -> Self {
        Self { schema: session.settings.work_schema.clone(), sync: name.sync.to_lowercase() }
    }

    fn prefix(&self, part: Part) -> String {
        let word = match part {
            Part::Snapshot => "snap",
            Part::Difference => "diff",
        };
        format!("freshet_{word}_{}_", self.sync)
    }

    /// At most 63 bytes, the server's limit, while a number has at most 10 digits.
    fn name(&self, part: Part, seq: i64, mark: &str) -> String {
        format!("{}{seq}_{mark}", self.prefix(part))
    }

    fn quoted(&self, name: &str) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(name))
    }

    async fn found(&self, connection: &mut PgConnection) -> Result<Vec<Found>> {
        let names: Vec<String> = sqlx::query_scalar(
            "select c.relname::text
             from pg_class as c
             join pg_namespace as n on n.oid = c.relnamespace
             where n.nspname = $1
               and c.relkind = 'r'
               and (starts_with(c.relname::text, $2) or starts_with(c.relname::text, $3))",
        )
        .bind(&self.schema)
        .bind(self.prefix(Part::Snapshot))
        .bind(self.prefix(Part::Difference))
        .fetch_all(connection)
        .await
        .map_err(failed("cannot look the sync's tables up"))?;
        Ok(names.into_iter().filter_map(|name| self.parse(name)).collect())
    }

    fn parse(&self, name: String) -> Option<Found> {
        [Part::Snapshot, Part::Difference].into_iter().find_map(|part| {
            let (seq, _) = name.strip_prefix(&self.prefix(part))?.split_once('_')?;
            Some(Found { part, seq: seq.parse().ok()?, name: name.clone() })
        })
    }
}

/// Fixes the next batch.
pub(super) async fn seal(session: &mut Session, request: &SealRequest) -> Result<Sealed> {
    let tables = Tables::of(session, &request.name);
    let user = session.settings.user.clone();
    let done = seal_at_once(session.open().await?, request, &tables, &user).await;
    if done.is_err() {
        // Its transaction ends with it.
        session.forget();
    }
    done
}

async fn seal_at_once(
    connection: &mut PgConnection,
    request: &SealRequest,
    tables: &Tables,
    user: &str,
) -> Result<Sealed> {
    let Compared { snapshot, difference, rows } = compare(connection, request, tables, user).await?;
    if rows == 0 {
        run(connection, "rollback", "cannot give the snapshot up").await?;
        return Ok(Sealed { batch: Value::Null, carry: request.carry.clone(), empty: true, notes: Vec::new() });
    }
    failpoint::during(Step::SealSent, run(connection, "commit", "cannot keep the snapshot")).await?;
    let base = Base { snapshot, columns: columns(&request.plan), key: request.plan.key.clone() };
    let (batch, carry) = (serde_json::to_value(Batch { difference, rows }), serde_json::to_value(base));
    Ok(Sealed { batch: batch.unwrap_or_default(), carry: carry.ok(), empty: false, notes: Vec::new() })
}

/// A snapshot and its difference, in a transaction that is still open.
struct Compared {
    snapshot: String,
    difference: String,
    rows: i64,
}

/// Begins a transaction, and takes a snapshot and its difference in it, unless they are there already.
async fn compare(
    connection: &mut PgConnection,
    request: &SealRequest,
    tables: &Tables,
    user: &str,
) -> Result<Compared> {
    let (plan, seq) = (&request.plan, request.name.seq);
    if plan.columns.len() > COLUMNS_MAX {
        let told = format!("mode `diff` takes at most {COLUMNS_MAX} columns; the model has {}", plan.columns.len());
        return Err(Error::new(Code::ModelTypeUnsupported, told));
    }
    refuse_standby(connection, "it takes no snapshots").await?;
    refuse_changed(connection, plan).await?;
    let base = base(request)?;
    refuse_schema(connection, tables, user).await?;
    begin(connection, tables).await?;
    let mark = mark(plan, base.as_ref());
    let snapshot = tables.name(Part::Snapshot, seq, &mark);
    let difference = tables.name(Part::Difference, seq, &mark);
    let found = tables.found(connection).await?;
    let is_there = |name: &str| found.iter().any(|table| table.name == name);
    refuse_later(&found, seq)?;
    if !is_there(&difference) {
        if is_there(&snapshot) {
            // By a worker that has the run now, or before Freshet's own database was restored.
            let told = format!("batch {seq} is delivered already: its snapshot is there and its difference is not");
            return Err(Error::new(Code::PostgresSnapshotGone, told));
        }
        if let Some(base) = base.as_ref().filter(|base| !is_there(&base.snapshot)) {
            let told = format!("the last snapshot, {}, is gone", tables.quoted(&base.snapshot));
            return Err(Error::new(Code::PostgresSnapshotGone, told));
        }
        let new = tables.quoted(&snapshot);
        let last = base.map(|base| tables.quoted(&base.snapshot));
        run(connection, &take_snapshot(plan, &new), "cannot take a snapshot of the model").await?;
        refuse_keys(connection, plan, &new).await?;
        let statement = take_difference(plan, &tables.quoted(&difference), &new, last.as_deref());
        run(connection, &statement, "cannot take the difference").await?;
    }
    let rows = count(connection, &tables.quoted(&difference)).await?;
    Ok(Compared { snapshot, difference, rows })
}

/// Hands on the first changes of what the next batch would be. The transaction stays open: the caller gives the connection
/// up, and the server rolls it back.
pub(super) async fn look_ahead(session: &mut Session, request: &SealRequest, sink: &mut dyn Sink) -> Result<()> {
    let (tables, user) = (Tables::of(session, &request.name), session.settings.user.clone());
    let connection = session.open().await?;
    let Compared { difference, rows, .. } = compare(connection, request, &tables, &user).await?;
    read_rows(connection, &request.plan, &tables, &Batch { difference, rows }, 0, sink).await.map(|_| ())
}

/// Counts the changes of what the next batch would be; see [`look_ahead`].
pub(super) async fn count_ahead(session: &mut Session, request: &SealRequest) -> Result<Ahead> {
    let (tables, user) = (Tables::of(session, &request.name), session.settings.user.clone());
    let connection = session.open().await?;
    let Compared { difference, .. } = compare(connection, request, &tables, &user).await?;
    let of = |letter: &str| format!("count(*) filter (where op = '{letter}')");
    let sql = format!("select {}, {}, {} from {}", of("c"), of("u"), of("d"), tables.quoted(&difference));
    let (created, updated, deleted) = sqlx::query_as(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .map_err(failed("cannot count the difference"))?;
    Ok(Ahead::new([(Op::Create, created), (Op::Update, updated), (Op::Delete, deleted)], 0))
}

/// Stands for what a batch's tables are made from.
fn mark(plan: &ReadPlan, base: Option<&Base>) -> String {
    let mut mark = Xxh3Default::new();
    let (model, texts) = (relation(&plan.model), columns(plan));
    let last = base.map_or("", |base| base.snapshot.as_str());
    let parts = [last, &model].into_iter().chain(texts.iter().chain(&plan.key).map(String::as_str));
    for part in parts {
        mark.update(&(part.len() as u64).to_le_bytes());
        mark.update(part.as_bytes());
    }
    format!("{:08x}", mark.digest() as u32)
}

/// Numbers only grow. Tables of later ones are there when the batch is long over, or when Freshet's own database was
/// restored: then a number comes twice, and must not find the tables of its first time.
fn refuse_later(found: &[Found], seq: i64) -> Result<()> {
    let later: Vec<_> = found.iter().filter(|table| table.seq > seq).map(|table| table.name.as_str()).collect();
    if later.is_empty() {
        return Ok(());
    }
    let told = format!("batch {seq} is next, and the source has tables of later ones: {}", later.join(", "));
    Err(Error::new(Code::PostgresSnapshotGone, told))
}

fn columns(plan: &ReadPlan) -> Vec<String> {
    plan.columns.iter().map(|column| format!("{} {}", column.name, column.source_type)).collect()
}

/// The last snapshot, if there is one, which has to have the plan's columns.
fn base(request: &SealRequest) -> Result<Option<Base>> {
    let Some(carry) = &request.carry else { return Ok(None) };
    let base: Base = serde_json::from_value(carry.clone())
        .map_err(|error| Error::new(Code::Internal, "the last snapshot's record does not read").caused_by(error))?;
    if base.columns != columns(&request.plan) || base.key != request.plan.key {
        let told = "the model has other columns or another key than the last snapshot; reset the sync to begin anew";
        return Err(Error::new(Code::ModelColumnsChanged, told));
    }
    Ok(Some(base))
}

async fn refuse_schema(connection: &mut PgConnection, tables: &Tables, user: &str) -> Result<()> {
    let ours: Option<bool> = sqlx::query_scalar(
        "select has_schema_privilege(oid, 'create') and has_schema_privilege(oid, 'usage')
         from pg_namespace
         where nspname = $1",
    )
    .bind(&tables.schema)
    .fetch_optional(connection)
    .await
    .map_err(failed("cannot look the schema up"))?;
    let (schema, user) = (identifier(&tables.schema), identifier(user));
    let (what, script) = match ours {
        Some(true) => return Ok(()),
        Some(false) => ("may not be written to", format!("grant usage, create on schema {schema} to {user}")),
        None => ("is not there", format!("create schema {schema} authorization {user}")),
    };
    let told = format!("mode `diff` keeps its snapshots in the schema {schema}, which {what}; run: {script}");
    Err(Error::new(Code::PostgresPrivilege, told))
}

/// Begins to write; one at a time for a sync. A worker that freezes, or is cut off, keeps the next one waiting for no
/// longer than its statement and a minute.
async fn begin(connection: &mut PgConnection, tables: &Tables) -> Result<()> {
    let begin = "begin isolation level read committed read write;
                 set local idle_in_transaction_session_timeout = '60s';
                 select set_config(name, '10s', true) from pg_settings where name = 'client_connection_check_interval'";
    run(connection, begin, "cannot begin").await?;
    let lock = format!("select pg_advisory_xact_lock(hashtextextended({}, 0))", literal(&tables.quoted(&tables.sync)));
    run(connection, &lock, "cannot lock the sync's tables").await
}

async fn run(connection: &mut PgConnection, sql: &str, what: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(|_| ()).map_err(failed(what))
}

async fn count(connection: &mut PgConnection, table: &str) -> Result<i64> {
    sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}")))
        .fetch_one(connection)
        .await
        .map_err(failed("cannot count the difference"))
}

fn take_snapshot(plan: &ReadPlan, snapshot: &str) -> String {
    let columns = plan.columns.iter().enumerate();
    let columns: Vec<_> = columns.map(|(place, column)| format!("{} as c{place}", identifier(&column.name))).collect();
    format!("create table {snapshot} as select {} from {}", columns.join(", "), relation(&plan.model))
}

/// The texts of the key's columns in a snapshot; of `char`, whose text would lose the blanks that are sent, the bytes.
fn key_texts(plan: &ReadPlan, of: &str) -> Vec<String> {
    let places = plan.key.iter().filter_map(|name| plan.columns.iter().position(|column| column.name == *name));
    let text = |place: usize| match plan.columns[place].source_type.as_str() {
        "char" => format!("bpcharsend({of}.c{place})"),
        _ => format!("{of}.c{place}::text collate \"C\""),
    };
    places.map(text).collect()
}

async fn refuse_keys(connection: &mut PgConnection, plan: &ReadPlan, snapshot: &str) -> Result<()> {
    let key = key_texts(plan, "s");
    let nulls: Vec<_> = key.iter().map(|text| format!("({text}) is null")).collect();
    let sql = format!(
        "select (select count(*) from {snapshot} as s where {}),
                (select count(*) from (select from {snapshot} as s group by {} having count(*) > 1) as repeated)",
        nulls.join(" or "),
        key.join(", ")
    );
    let found = sqlx::query(AssertSqlSafe(sql)).fetch_one(connection).await.map_err(failed("cannot check the key"))?;
    let number = |place: usize| found.try_get::<i64, _>(place).map_err(failed("cannot check the key"));
    match (number(0)?, number(1)?) {
        (0, 0) => Ok(()),
        (0, keys) => Err(Error::new(Code::ModelKeyDuplicate, format!("{keys} keys occur more than once"))),
        (rows, _) => Err(Error::new(Code::ModelKeyNull, format!("{rows} rows have NULL in the key"))),
    }
}

/// `b…` is a row as it was, `a…` as it is; a first difference has every row as created.
fn take_difference(plan: &ReadPlan, difference: &str, snapshot: &str, last: Option<&str>) -> String {
    let last = match last {
        Some(last) => last.to_owned(),
        None => format!("(select * from {snapshot} where false)"),
    };
    let all = |of: &str, name: &str| {
        let columns = (0..plan.columns.len()).map(|place| format!("{of}.c{place} as {name}{place}"));
        columns.collect::<Vec<_>>().join(", ")
    };
    let pairs = || key_texts(plan, "o").into_iter().zip(key_texts(plan, "n"));
    let same: Vec<_> = pairs().map(|(old, new)| format!("({old}) = ({new})")).collect();
    let order: Vec<_> = pairs().map(|(old, new)| format!("coalesce({new}, {old})")).collect();
    format!(
        "create table {difference} as
         select row_number() over (order by {order}) as ord,
                case when o.here is null then 'c' when n.here is null then 'd' else 'u' end as op,
                {before}, {after}
         from (select true as here, s as image, s.* from {last} as s) as o
         full join (select true as here, s as image, s.* from {snapshot} as s) as n on {same}
         where o.here is null or n.here is null or (o.image *<> n.image and o.image::text is distinct from n.image::text);
         alter table {difference} add primary key (ord)",
        order = order.join(", "),
        before = all("o", "b"),
        after = all("n", "a"),
        same = same.join(" and "),
    )
}

/// Reads a batch from an ordinal on.
pub(super) async fn read(session: &mut Session, request: &ReadRequest, sink: &mut dyn Sink) -> Result<ReadEnd> {
    let tables = Tables::of(session, &request.name);
    let done = read_on(session.open().await?, request, &tables, sink).await;
    if done.is_err() {
        session.forget();
    }
    done
}

async fn read_on(
    connection: &mut PgConnection,
    request: &ReadRequest,
    tables: &Tables,
    sink: &mut dyn Sink,
) -> Result<ReadEnd> {
    let unread = |what: &'static str| move |error| Error::new(Code::Internal, what).caused_by(error);
    let batch: Batch =
        serde_json::from_value(request.batch.clone()).map_err(unread("the sealed batch does not read"))?;
    let from: Option<Token> = request
        .from
        .clone()
        .map(serde_json::from_value)
        .transpose()
        .map_err(unread("the sync's position does not read"))?;
    let from = from.map_or(0, |token| token.ordinal);
    read_rows(connection, &request.plan, tables, &batch, from, sink).await
}

/// Reads a difference's changes from an ordinal on, up to the batch's last.
async fn read_rows(
    connection: &mut PgConnection,
    plan: &ReadPlan,
    tables: &Tables,
    batch: &Batch,
    from: i64,
    sink: &mut dyn Sink,
) -> Result<ReadEnd> {
    let (difference, width) = (tables.quoted(&batch.difference), plan.columns.len());
    if !tables.found(connection).await?.iter().any(|table| table.name == batch.difference) {
        return Err(Error::new(Code::PostgresSnapshotGone, format!("the batch's table, {difference}, is gone")));
    }
    let names = |letter: char| (0..width).map(|place| format!("{letter}{place}")).collect::<Vec<_>>().join(", ");
    let types = column_types(connection, &format!("select {} from {difference}", names('a'))).await?;
    let sql =
        format!("select ord, op, {}, {} from {difference} where ord > {from} order by ord", names('b'), names('a'));
    let (mut before, mut after, mut last) = (Row::default(), Row::default(), from);
    let mut rows = connection.fetch(sqlx::query(AssertSqlSafe(sql)));
    while let Some(found) = rows.try_next().await.map_err(failed("cannot read the difference"))? {
        let (ordinal, op) = head(&found)?;
        if ordinal != last + 1 {
            return Err(Error::new(Code::PostgresQuery, format!("row {} of {difference} is missing", last + 1)));
        }
        last = ordinal;
        fill_from(&found, 2, &types, &plan.columns, &mut before)?;
        fill_from(&found, 2 + width, &types, &plan.columns, &mut after)?;
        let change = match op {
            Op::Create => Change { op, before: None, after: Some(&after) },
            Op::Delete => Change { op, before: Some(&before), after: None },
            Op::Update | Op::Read => Change { op, before: Some(&before), after: Some(&after) },
        };
        if sink.push(change)? == Flow::Full {
            sink.flush(written(last)).await?;
        }
    }
    if last != batch.rows {
        return Err(Error::new(Code::PostgresQuery, format!("{difference} ends at row {last} of {}", batch.rows)));
    }
    Ok(ReadEnd { token: (last > from).then(|| written(last)) })
}

fn written(ordinal: i64) -> Value {
    serde_json::to_value(Token { ordinal }).unwrap_or_default()
}

fn head(found: &PgRow) -> Result<(i64, Op)> {
    let ordinal = found.try_get(0).map_err(failed("cannot read the difference"))?;
    let op: String = found.try_get(1).map_err(failed("cannot read the difference"))?;
    let op = match op.as_str() {
        "c" => Op::Create,
        "d" => Op::Delete,
        _ => Op::Update,
    };
    Ok((ordinal, op))
}

/// Gives back what a delivered batch took: its difference, and the snapshots before its own.
pub(super) async fn release(session: &mut Session, name: &BatchName) -> Result<()> {
    let tables = Tables::of(session, name);
    let done = release_at_once(session.open().await?, &tables, name.seq).await;
    if done.is_err() {
        session.forget();
    }
    done
}

async fn release_at_once(connection: &mut PgConnection, tables: &Tables, seq: i64) -> Result<()> {
    begin(connection, tables).await?;
    for table in tables.found(connection).await? {
        let spent = match table.part {
            Part::Snapshot => table.seq < seq,
            Part::Difference => table.seq <= seq,
        };
        if spent {
            let drop = format!("drop table {}", tables.quoted(&table.name));
            run(connection, &drop, "cannot drop a spent table").await?;
        }
    }
    run(connection, "commit", "cannot drop the spent tables").await
}
