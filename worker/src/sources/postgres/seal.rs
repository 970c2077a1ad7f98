//! The bound of an incremental batch, below the late-commit horizon: a row committed late is never lost.
//!
//! A transaction can take a cursor value, a later one a greater value, and the later one can commit first.
//! Reading up to the greatest value seen would then pass over the row that comes late. So:
//!
//! 1. At a moment A a *candidate* is taken: a bound, and the transactions open at A.
//! 2. The candidate is *settled* once none of them is open any more. A transaction that begins after A
//!    can only write greater values, so nothing below the bound can appear any more.
//! 3. A batch reads up to the newest settled candidate. One that does not settle in time is carried to
//!    the next seal: its rows come later, never not at all.
//!
//! The bound is a clock's reading for timestamps, today for dates, and the greatest value for whole
//! numbers, which are to come from a sequence. Open transactions of the database are known by their
//! virtual ids, which every login may see in `pg_locks`. Who writes no row of a model does not count: Freshet's own
//! sessions, processes of no role (autovacuum), and VACUUM, which may take hours and never runs beside anything else in
//! its transaction. While a transaction is prepared nothing settles, for its virtual id is gone. A row whose cursor is
//! NULL lies below no bound and is never sent.

use std::time::{Duration, Instant};

use freshet_core::connector::{Kind, ModelSpec, ReadMode, ReadPlan, SealRequest, Sealed};
use freshet_core::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::catalogue::{quoted, refuse_changed};
use super::read::{Token, source_of};
use super::session::{Session, failed};
use super::sql::identifier;

/// A batch of mode `incremental`: after one row, up to a bound.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bound {
    /// The last row of the batch before; none for the beginning.
    pub(super) after: Option<Token>,
    /// The bound, in the server's text.
    pub(super) upper: String,
    /// Whether the bound itself belongs to the batch.
    pub(super) inclusive: bool,
}

impl Bound {
    pub(super) fn parse(batch: &Value) -> Result<Self> {
        serde_json::from_value(batch.clone())
            .map_err(|error| Error::new(Code::Internal, "the sealed batch does not read").caused_by(error))
    }

    pub(super) fn condition(&self, cursor: &str) -> String {
        let operator = if self.inclusive { "<=" } else { "<" };
        format!("{} {operator} {}", identifier(cursor), quoted(&self.upper))
    }
}

/// A bound, and who could still write below it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Candidate {
    upper: String,
    inclusive: bool,
    /// The virtual ids of the transactions open at that moment.
    open: Vec<String>,
    /// When that was.
    at: String,
}

/// Fixes the next batch.
pub(super) async fn seal(session: &mut Session, request: &SealRequest) -> Result<Sealed> {
    let wait = Duration::from_secs(session.settings.horizon_wait_s.into());
    let plan = &request.plan;
    let cursor = match &plan.mode {
        ReadMode::Incremental { cursor } => cursor,
        ReadMode::Full => {
            return Ok(Sealed { batch: json!({ "kind": "full" }), carry: None, empty: false, notes: Vec::new() });
        }
        ReadMode::Changes { .. } => return Err(super::sql::no_streams()),
        ReadMode::Diff => return super::diff::seal(session, request).await,
    };
    let connection = session.open().await?;
    refuse_changed(connection, plan).await?;
    let kind = cursor_kind(plan, cursor)?;
    refuse_standby(connection, "it cannot show open transactions").await?;
    let after = request.position.as_ref().map(Token::parse).transpose()?;

    let pending: Option<Candidate> = request.carry.clone().and_then(|carry| serde_json::from_value(carry).ok());
    let fresh = candidate(connection, plan, cursor, kind).await?;
    let settled = wait_until_settled(connection, &fresh, wait).await?;
    let mut notes = Vec::new();
    let (usable, carry) = if settled {
        (fresh, None)
    } else {
        notes.push(held_back(connection, &fresh).await.into());
        match pending {
            Some(pending) if is_settled(connection, &pending).await? => (Some(pending), fresh),
            // The older of two that wait settles first.
            pending => (None, pending.or(fresh)),
        }
    };
    let carry = carry.and_then(|carry| serde_json::to_value(carry).ok());
    let Some(usable) = usable else {
        return Ok(Sealed { batch: Value::Null, carry, empty: true, notes });
    };
    let bound = Bound { after, upper: usable.upper, inclusive: usable.inclusive };
    let empty = !has_rows(connection, plan, cursor, &bound).await?;
    let batch = serde_json::to_value(bound).unwrap_or_default();
    Ok(Sealed { batch, carry, empty, notes })
}

fn cursor_kind(plan: &ReadPlan, cursor: &str) -> Result<Kind> {
    let unsuitable = |what: &str| Error::new(Code::ModelCursor, format!("the cursor `{cursor}` {what}"));
    let column = plan.columns.iter().find(|column| column.name == cursor);
    let column = column.ok_or_else(|| unsuitable("is not a column of the model"))?;
    match column.kind {
        Kind::Int | Kind::Date | Kind::Timestamp | Kind::TimestampTz => Ok(column.kind),
        Kind::Bool
        | Kind::Float
        | Kind::Decimal
        | Kind::Text
        | Kind::Bytes
        | Kind::Json
        | Kind::Time
        | Kind::Interval => Err(unsuitable(&format!("has the type {}", column.source_type))),
    }
}

/// Refuses a standby, which lacks something; `what` says it.
pub(super) async fn refuse_standby(connection: &mut PgConnection, what: &str) -> Result<()> {
    let standby: bool = sqlx::query_scalar("select pg_is_in_recovery()")
        .fetch_one(connection)
        .await
        .map_err(failed("cannot ask whether the server is a standby"))?;
    if standby {
        return Err(Error::new(Code::PostgresStandby, format!("the server is a standby; {what}")));
    }
    Ok(())
}

/// The bound of a batch if no transaction were open now; none while the model has no rows.
///
/// # Errors
/// `model.key_null`, `model.cursor_invalid` and what asking fails with.
pub(super) async fn bound_now(
    connection: &mut PgConnection,
    plan: &ReadPlan,
    cursor: &str,
    after: Option<Token>,
) -> Result<Option<Bound>> {
    let kind = cursor_kind(plan, cursor)?;
    let candidate = candidate(connection, plan, cursor, kind).await?;
    let Some(Candidate { upper, inclusive, .. }) = candidate else { return Ok(None) };
    let bound = Bound { after, upper, inclusive };
    Ok(has_rows(connection, plan, cursor, &bound).await?.then_some(bound))
}

/// Takes a candidate; none while the model has no rows.
async fn candidate(
    connection: &mut PgConnection,
    plan: &ReadPlan,
    cursor: &str,
    kind: Kind,
) -> Result<Option<Candidate>> {
    let column = identifier(cursor);
    let greatest = format!("(select max({column}) from {})", source_of(plan));
    let (upper, inclusive) = match kind {
        Kind::TimestampTz => ("clock_timestamp()::text".to_owned(), false),
        Kind::Timestamp => ("(clock_timestamp() at time zone 'UTC')::text".to_owned(), false),
        Kind::Date => ("current_date::text".to_owned(), false),
        _ => (format!("{greatest}::text"), is_unique(connection, &plan.model, cursor).await?),
    };
    // The bound first, the open transactions after it: one that begins in between writes above the bound, and one
    // that ends in between is committed by the time the batch is read.
    let upper: Option<String> = sqlx::query_scalar(AssertSqlSafe(format!("select {upper}")))
        .fetch_one(&mut *connection)
        .await
        .map_err(failed("cannot read the cursor's bound"))?;
    let (at, open): (String, Vec<String>) = sqlx::query_as(
        "select clock_timestamp()::text,
                coalesce((select array_agg(distinct l.virtualxid)
                          from pg_locks as l
                          join pg_stat_activity as a on a.pid = l.pid
                          where l.locktype = 'virtualxid' and l.granted
                            and a.datid = (select oid from pg_database where datname = current_database())
                            and a.usesysid is not null
                            and a.pid not in (select pid from pg_stat_progress_vacuum)
                            and not (a.usename = current_user and a.application_name = 'freshet')), '{}')",
    )
    .fetch_one(connection)
    .await
    .map_err(failed("cannot read the open transactions"))?;
    Ok(upper.map(|upper| Candidate { upper, inclusive, open, at }))
}

/// Whether a table's column is unique by itself, as one fed by a sequence is.
pub(super) async fn is_unique(connection: &mut PgConnection, model: &ModelSpec, cursor: &str) -> Result<bool> {
    let ModelSpec::Table { .. } = model else { return Ok(false) };
    sqlx::query_scalar(
        "select exists (
             select 1
             from pg_index as i
             join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
             where i.indrelid = $1::regclass
               and i.indisunique and i.indpred is null and i.indnkeyatts = 1
               and a.attname = $2)",
    )
    .bind(super::sql::relation(model))
    .bind(cursor)
    .fetch_one(connection)
    .await
    .map_err(failed("cannot read the cursor's index"))
}

async fn is_settled(connection: &mut PgConnection, candidate: &Candidate) -> Result<bool> {
    sqlx::query_scalar(
        "select not exists (select 1 from pg_prepared_xacts where database = current_database())
                and not exists (select 1 from pg_locks
                                where locktype = 'virtualxid' and granted and virtualxid = any ($1))",
    )
    .bind(&candidate.open)
    .fetch_one(connection)
    .await
    .map_err(failed("cannot read the open transactions"))
}

async fn wait_until_settled(connection: &mut PgConnection, fresh: &Option<Candidate>, wait: Duration) -> Result<bool> {
    let Some(candidate) = fresh else { return Ok(true) };
    let since = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        if is_settled(connection, candidate).await? {
            return Ok(true);
        }
        if since.elapsed() >= wait {
            return Ok(false);
        }
        tokio::time::sleep(pause.min(wait.saturating_sub(since.elapsed()))).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// Says who holds rows back, as far as the login may see.
async fn held_back(connection: &mut PgConnection, candidate: &Option<Candidate>) -> String {
    let open = candidate.as_ref().map(|candidate| candidate.open.clone()).unwrap_or_default();
    let oldest: Option<(i32, Option<String>)> = sqlx::query_as(
        "select l.pid, to_char(a.xact_start, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
         from pg_locks as l
         left join pg_stat_activity as a on a.pid = l.pid
         where l.locktype = 'virtualxid' and l.granted and l.virtualxid = any ($1) and l.pid is not null
         order by a.xact_start nulls last
         limit 1",
    )
    .bind(&open)
    .fetch_optional(connection)
    .await
    .ok()
    .flatten();
    let who = match oldest {
        Some((pid, Some(since))) => format!("the transaction of process {pid}, open since {since},"),
        Some((pid, None)) => format!("the transaction of process {pid}"),
        None => "an open or prepared transaction".to_owned(),
    };
    format!("{who} could still write older rows; newer rows wait for its end and come with a later run")
}

async fn has_rows(connection: &mut PgConnection, plan: &ReadPlan, cursor: &str, bound: &Bound) -> Result<bool> {
    let column = identifier(cursor);
    let mut conditions = vec![bound.condition(cursor)];
    if let Some(after) = &bound.after
        && let (Some(from), Some(key)) = (&after.cursor, &after.key)
    {
        let names: Vec<_> = std::iter::once(column).chain(plan.key.iter().map(|name| identifier(name))).collect();
        let texts: Vec<_> = std::iter::once(from).chain(key).map(|text| quoted(text)).collect();
        conditions.push(format!("({}) > ({})", names.join(", "), texts.join(", ")));
    }
    let within = conditions.join(" and ");
    let nullable =
        plan.key.iter().filter(|name| plan.columns.iter().any(|column| column.name == **name && column.nullable));
    let missing: Vec<_> = nullable.map(|name| format!("{} is null", identifier(name))).collect();
    if !missing.is_empty() {
        let upper = bound.condition(cursor);
        let sql =
            format!("select exists (select 1 from {} where {upper} and ({}))", source_of(plan), missing.join(" or "));
        let without: bool = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("cannot look for rows"))?;
        if without {
            return Err(Error::new(Code::ModelKeyNull, "there are rows with NULL in the key"));
        }
    }
    let sql = format!("select exists (select 1 from {} where {within})", source_of(plan));
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.map_err(failed("cannot look for new rows"))
}
