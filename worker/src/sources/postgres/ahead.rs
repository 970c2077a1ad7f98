//! What the next batch would hold, without fixing it.
//!
//! Modes `full` and `incremental` are read as a run reads them, with a LIMIT; no open transaction is waited for. Mode `diff`
//! takes its snapshot and its difference as a seal does, and rolls both back.

use freshet_core::connector::{Ahead, Op, ReadMode, ReadPlan, SealRequest, Sink};
use freshet_core::error::Result;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::catalogue::refuse_changed;
use super::read::{self, Token};
use super::seal::{self, Bound};
use super::session::{Session, failed};
use super::sql::{identifier, relation};
use super::{diff, sql};

/// Hands on the first changes.
pub(super) async fn look(
    session: &mut Session,
    request: &SealRequest,
    changes_max: usize,
    sink: &mut dyn Sink,
) -> Result<()> {
    let done = match &request.plan.mode {
        ReadMode::Diff => diff::look_ahead(session, request, sink).await,
        ReadMode::Full | ReadMode::Incremental { .. } | ReadMode::Changes { .. } => {
            look_on(session.open().await?, request, changes_max, sink).await
        }
    };
    // A statement may still be running on it, or a transaction be open.
    session.forget();
    done
}

async fn look_on(
    connection: &mut PgConnection,
    request: &SealRequest,
    changes_max: usize,
    sink: &mut dyn Sink,
) -> Result<()> {
    let (plan, limit) = (&request.plan, Some(changes_max));
    refuse_changed(connection, plan).await?;
    match &plan.mode {
        ReadMode::Incremental { cursor } => match bound(connection, request, cursor).await? {
            Some(bound) => read::read_incremental(connection, plan, cursor, bound, None, limit, sink).await.map(|_| ()),
            None => Ok(()),
        },
        ReadMode::Full => read::read_full(connection, plan, None, limit, sink).await.map(|_| ()),
        ReadMode::Changes { .. } => Err(sql::no_streams()),
        ReadMode::Diff => Ok(()),
    }
}

/// Up to where a batch could be read if no transaction were open now; none while the model has no rows.
async fn bound(connection: &mut PgConnection, request: &SealRequest, cursor: &str) -> Result<Option<Bound>> {
    let after = request.position.as_ref().map(Token::parse).transpose()?;
    seal::bound_now(connection, &request.plan, cursor, after).await
}

/// Counts the changes.
pub(super) async fn count(session: &mut Session, request: &SealRequest) -> Result<Ahead> {
    let done = match &request.plan.mode {
        ReadMode::Diff => diff::count_ahead(session, request).await,
        ReadMode::Full | ReadMode::Incremental { .. } | ReadMode::Changes { .. } => {
            count_on(session.open().await?, request).await
        }
    };
    session.forget();
    done
}

async fn count_on(connection: &mut PgConnection, request: &SealRequest) -> Result<Ahead> {
    let plan = &request.plan;
    refuse_changed(connection, plan).await?;
    match &plan.mode {
        ReadMode::Full => {
            let missing: Vec<_> = plan.key.iter().map(|name| format!("{} is null", identifier(name))).collect();
            let missing = missing.join(" or ");
            let sql = format!("select count(*), count(*) filter (where {missing}) from {}", relation(&plan.model));
            let (rows, dead) = sqlx::query_as::<_, (i64, i64)>(AssertSqlSafe(sql))
                .fetch_one(connection)
                .await
                .map_err(failed("cannot count the model's rows"))?;
            Ok(Ahead::new([(Op::Read, rows)], dead))
        }
        ReadMode::Incremental { cursor } => {
            let Some(bound) = bound(connection, request, cursor).await? else { return Ok(Ahead::default()) };
            let rows = count_incremental(connection, plan, cursor, &bound).await?;
            Ok(Ahead::new([(Op::Update, rows)], 0))
        }
        ReadMode::Changes { .. } => Err(sql::no_streams()),
        ReadMode::Diff => Ok(Ahead::default()),
    }
}

async fn count_incremental(
    connection: &mut PgConnection,
    plan: &ReadPlan,
    cursor: &String,
    bound: &Bound,
) -> Result<i64> {
    let rows = read::incremental_rows(connection, plan, cursor, bound).await?;
    sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from ({rows}) as batch")))
        .fetch_one(connection)
        .await
        .map_err(failed("cannot count the new rows"))
}
