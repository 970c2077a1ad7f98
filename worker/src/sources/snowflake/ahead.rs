//! What the next batch would hold, without fixing it: SELECTs alone, in the order that a seal would give the rows.

use freshet_core::connector::{Ahead, ModelSpec, Op, ReadMode, SealRequest, Sink};
use freshet_core::error::{Code, Error, Result};

use super::catalogue::refuse_changed;
use super::client::{QueryTag, Statement};
use super::read::{self, incremental};
use super::seal::{bound_now, not_together};
use super::session::Session;
use super::sql::{self, identifier, relation};
use super::{changes, diff};

/// Hands on the first changes.
pub(super) async fn look(
    session: &mut Session,
    request: &SealRequest,
    changes_max: usize,
    sink: &mut dyn Sink,
) -> Result<()> {
    let (plan, tag) = (&request.plan, QueryTag::of_batch(&request.name));
    read::refuse_unordered(plan)?;
    let (sql, cursor) = match (&plan.mode, &plan.model) {
        (ReadMode::Changes { duplicate_keys }, ModelSpec::Stream { schema, stream }) => {
            return changes::look_ahead(session, request, (schema, stream), *duplicate_keys, changes_max, sink).await;
        }
        (ReadMode::Changes { .. }, _) | (_, ModelSpec::Stream { .. }) => return Err(not_together()),
        (ReadMode::Diff, _) => return diff::look_ahead(session, request, changes_max, sink).await,
        (ReadMode::Full, _) => {
            refuse_changed(session, plan).await?;
            (sql::look_full(&plan.model, &plan.columns, &plan.key, changes_max), None)
        }
        (ReadMode::Incremental { cursor }, _) => {
            refuse_changed(session, plan).await?;
            let Some((bound, true)) = bound_now(session, request, cursor).await? else { return Ok(()) };
            (format!("{} limit {changes_max}", incremental(plan, cursor, &bound, None)?), Some(cursor))
        }
    };
    let rows = session.client()?.rows(&Statement::large(sql).tagged(tag)).await?;
    let read = match cursor {
        Some(cursor) => read::read_incremental(rows, plan, cursor, sink).await,
        None => read::read_full(rows, plan, 0, None, sink).await,
    };
    read.map(|_| ())
}

/// Counts the changes.
pub(super) async fn count(session: &mut Session, request: &SealRequest) -> Result<Ahead> {
    let (plan, tag) = (&request.plan, QueryTag::of_batch(&request.name));
    let (sql, op) = match (&plan.mode, &plan.model) {
        (ReadMode::Changes { duplicate_keys }, ModelSpec::Stream { schema, stream }) => {
            return changes::count_ahead(session, request, (schema, stream), *duplicate_keys).await;
        }
        (ReadMode::Changes { .. }, _) | (_, ModelSpec::Stream { .. }) => return Err(not_together()),
        (ReadMode::Diff, _) => return diff::count_ahead(session, request).await,
        (ReadMode::Full, _) => {
            let missing: Vec<_> = plan.key.iter().map(|name| format!("{} is null", identifier(name))).collect();
            let missing = format!("coalesce(sum(case when {} then 1 else 0 end), 0)", missing.join(" or "));
            (format!("select count(*), {missing} from {}", relation(&plan.model)), Op::Read)
        }
        (ReadMode::Incremental { cursor }, _) => {
            let Some((bound, true)) = bound_now(session, request, cursor).await? else { return Ok(Ahead::default()) };
            let rows = incremental(plan, cursor, &bound, None)?;
            (format!("select count(*), 0 from (\n{rows}\n) as batch"), Op::Update)
        }
    };
    let found = session.texts(sql, &tag, 1).await?;
    let number = |place: usize| found.rows.first()?.get(place)?.as_deref()?.parse::<i64>().ok();
    match (number(0), number(1)) {
        (Some(rows), Some(dead)) => Ok(Ahead::new([(op, rows)], dead)),
        _ => Err(Error::new(Code::SnowflakeAnswer, "the count of rows does not read")),
    }
}
