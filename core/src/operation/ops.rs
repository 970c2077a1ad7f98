//! Asking operations, and answering them.

use serde_json::Value;
use uuid::Uuid;

use super::{Operation, OperationClaim, Question, store};
use crate::access::{Caller, Right};
use crate::app::App;
use crate::audit::ops::{Entry, record};
use crate::db::Db;
use crate::endpoint::{Connection, Destination, ops as endpoint};
use crate::error::{Error, Result};
use crate::id::OperationId;
use crate::{model, sync};

/// Attempts at an operation whose workers are lost, at most.
pub const ATTEMPTS_MAX: i32 = 3;

/// Asks a question; a worker answers it.
///
/// # Errors
/// `request.not_found` for what is asked about.
pub async fn ask(app: &App, caller: &Caller, question: Question) -> Result<Operation> {
    caller.may(right(&question))?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let (target_kind, target) = match &question {
        Question::TestConnection { connection }
        | Question::ListCatalogue { connection, .. }
        | Question::MakeStream { connection, .. }
        | Question::FinishConsent { connection, .. } => {
            endpoint::kind::<Connection>(&mut tx, *connection).await?;
            ("connection", connection.uuid())
        }
        Question::DescribeModel { model } | Question::PreviewModel { model } | Question::CheckKey { model, .. } => {
            model::ops::read(&mut tx, *model).await?;
            ("model", model.uuid())
        }
        Question::TestDestination { destination } => {
            endpoint::kind::<Destination>(&mut tx, *destination).await?;
            ("destination", destination.uuid())
        }
        Question::CheckSync { sync }
        | Question::PreviewRecords { sync }
        | Question::PlanRun { sync }
        | Question::ResyncSync { sync, .. } => {
            sync::ops::read(&mut tx, *sync).await?;
            ("sync", sync.uuid())
        }
    };
    let id = OperationId::new();
    store::insert(&mut tx, id, &question, caller.actor.id()).await?;
    let action = format!("operation.{}", question.kind());
    let entry = Entry { action: &action, target_kind, target, changes: Value::Object(serde_json::Map::new()) };
    record(&mut tx, caller, entry).await?;
    let operation = store::get(&mut tx, id).await?.ok_or_else(|| Error::not_found("operation"))?;
    tx.commit().await?;
    Ok(operation)
}

/// One operation, with its answer if there is one.
///
/// # Errors
/// `request.not_found`; answers are deleted an hour after they were asked for.
pub async fn get(app: &App, caller: &Caller, id: OperationId) -> Result<Operation> {
    let mut tx = app.db.tenant(caller.workspace).await?;
    let operation = store::get(&mut tx, id).await?.ok_or_else(|| Error::not_found("operation"))?;
    caller.may(right(&operation.question))?;
    Ok(operation)
}

/// What one must be allowed to ask it, and to see its answer.
fn right(question: &Question) -> Right {
    match question {
        Question::TestConnection { .. }
        | Question::ListCatalogue { .. }
        | Question::MakeStream { .. }
        | Question::FinishConsent { .. } => Right::ConnectionsWrite,
        Question::DescribeModel { .. } | Question::CheckKey { .. } => Right::ModelsWrite,
        Question::PreviewModel { .. } | Question::PreviewRecords { .. } => Right::RowsRead,
        Question::PlanRun { .. } => Right::SyncsRun,
        Question::TestDestination { .. } => Right::DestinationsWrite,
        Question::CheckSync { .. } | Question::ResyncSync { .. } => Right::SyncsWrite,
    }
}

/// Claims at most `slots` operations, one workspace after the other.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn claim(db: &Db, slots: usize, worker: &str, lease_s: f64) -> Result<Vec<OperationClaim>> {
    store::claim(db, i32::try_from(slots).unwrap_or(i32::MAX), worker, lease_s).await
}

/// Extends leases; of each still held, whether a person asked to cancel.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn extend(db: &Db, ids: &[Uuid], epochs: &[i64], lease_s: f64) -> Result<Vec<(Uuid, bool)>> {
    store::extend(db, ids, epochs, lease_s).await
}

/// Hands operations of lost workers to others, and deletes answers past their time.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn reap(db: &Db) -> Result<()> {
    store::reap(db, ATTEMPTS_MAX).await
}

/// Gives back operations that were claimed and not begun.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn give_back(db: &Db, ids: &[Uuid], epochs: &[i64]) -> Result<()> {
    store::give_back(db, ids, epochs).await
}

/// Writes the answer; false when another worker has the operation now. A NUL in a row's text, which Postgres cannot keep,
/// is shown as `␀`.
///
/// # Errors
/// [`crate::error::Code::Database`].
pub async fn answer(app: &App, claim: &OperationClaim, answer: Result<Value>) -> Result<bool> {
    let mut tx = app.db.tenant(claim.workspace).await?;
    let answer = answer.map(without_nul);
    let held = store::answer(&mut tx, claim, &answer).await?;
    tx.commit().await?;
    Ok(held)
}

fn without_nul(answer: Value) -> Value {
    let text = |text: String| if text.contains('\0') { text.replace('\0', "\u{2400}") } else { text };
    match answer {
        Value::String(known) => Value::String(text(known)),
        Value::Array(values) => values.into_iter().map(without_nul).collect(),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (text(name), without_nul(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => answer,
    }
}
