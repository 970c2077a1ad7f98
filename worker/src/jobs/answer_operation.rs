//! One question answered: a test, a list, a preview, a check.

use freshet_core::app::App;
use freshet_core::connector::{self, Source, Step, StepState};
use freshet_core::endpoint::{Connection, Destination, ops as endpoint};
use freshet_core::error::{Code, Error, Result};
use freshet_core::id::{ConnectionId, ConsentId, DestinationId, ModelId, SyncId, WorkspaceId};
use freshet_core::operation::{OperationClaim, Question, ops};
use freshet_core::organization::EgressTold;
use freshet_core::queue::Held;
use freshet_core::sync::Resync;
use freshet_core::{consent, model, organization, sync};
use serde_json::{Value, json};
use tracing::Instrument as _;

use crate::pipeline;

/// Rows of a preview, at most.
const PREVIEW_ROWS_MAX: usize = 100;
/// The longest an answer may take.
const ANSWER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// Answers, and writes the answer down.
pub(super) async fn answer(app: &App, held: Held<OperationClaim>) {
    let OperationClaim { workspace, id, .. } = held.job;
    let kind = held.job.question.kind();
    let span = tracing::error_span!("operation", workspace.id = %workspace, operation.id = %id, kind);
    answer_within(app, held).instrument(span).await;
}

async fn answer_within(app: &App, held: Held<OperationClaim>) {
    let claim = held.job.clone();
    let (inner, asked) = (app.clone(), claim.clone());
    let finding = async move { find(&inner, asked.workspace, asked.question).await };
    let mut task = tokio::spawn(finding.in_current_span());
    let answer = tokio::select! {
        done = &mut task => done.unwrap_or_else(|error| {
            Err(Error::new(Code::Internal, "the answer broke off by a defect").caused_by(error))
        }),
        () = tokio::time::sleep(ANSWER_TIMEOUT) => Err(Error::new(Code::PostgresTimeout, "no answer within 120 s")),
        () = held.stop.cancel.cancelled() => Err(Error::new(Code::Cancelled, "cancelled")),
        () = held.stop.lost.cancelled() => {
            task.abort();
            return;
        }
    };
    task.abort();
    if let Err(error) = &answer {
        tracing::info!(error = %error.chain(), "operation failed");
    }
    if let Err(error) = ops::answer(app, &claim, answer).await {
        tracing::warn!(error = %error.chain(), "cannot write the answer");
    }
}

async fn find(app: &App, workspace: WorkspaceId, question: Question) -> Result<Value> {
    match question {
        Question::TestConnection { connection } => test_connection(app, workspace, connection).await,
        Question::ListCatalogue { connection, schema } => {
            let (mut source, _) = open_source(app, workspace, connection).await?;
            written(&source.catalogue(schema.as_deref()).await?)
        }
        Question::MakeStream { connection, stream, dry_run } => {
            let (mut source, _) = open_source(app, workspace, connection).await?;
            written(&source.make_stream(&stream, dry_run).await?)
        }
        Question::FinishConsent { connection, consent } => finish_consent(app, workspace, connection, consent).await,
        Question::DescribeModel { model } => describe(app, workspace, model).await,
        Question::PreviewModel { model } => {
            let model = read_model(app, workspace, model).await?;
            let (mut source, _) = open_source(app, workspace, model.connection_id).await?;
            written(&source.preview(&model.spec, PREVIEW_ROWS_MAX).await?)
        }
        Question::CheckKey { model, key } => {
            let model = read_model(app, workspace, model).await?;
            let key = if key.is_empty() { model.primary_key.clone() } else { key };
            if key.is_empty() {
                return Err(Error::new(Code::ModelKeyMissing, "the model has no key, and none is asked about"));
            }
            let (mut source, _) = open_source(app, workspace, model.connection_id).await?;
            written(&source.key_check(&model.spec, &key).await?)
        }
        Question::TestDestination { destination } => test_destination(app, workspace, destination).await,
        Question::CheckSync { sync } => check_sync(app, workspace, sync).await,
        Question::PreviewRecords { sync } => pipeline::ahead::preview(app, workspace, sync).await,
        Question::PlanRun { sync } => pipeline::ahead::plan(app, workspace, sync).await,
        Question::ResyncSync { sync, how } => resync(app, workspace, sync, how).await,
    }
}

async fn test_connection(app: &App, workspace: WorkspaceId, id: ConnectionId) -> Result<Value> {
    let (mut source, told) = open_source(app, workspace, id).await?;
    let steps = source.check().await;
    let mut tx = app.db.tenant(workspace).await?;
    endpoint::record_check::<Connection>(&mut tx, id, &steps).await?;
    tx.commit().await?;
    let script = endpoint::setup_script(app, &freshet_core::access::Caller::command(workspace), id).await?;
    let mut found = found(&steps);
    found["setup_script"] = script.into();
    found["egress"] = written(&told)?;
    Ok(found)
}

async fn finish_consent(app: &App, workspace: WorkspaceId, id: ConnectionId, asked: ConsentId) -> Result<Value> {
    let returned = consent::ops::returned(app, workspace, asked).await?;
    let (mut source, _) = open_source(app, workspace, id).await?;
    let granted = source.finish_consent(&returned.redirect_url, &returned.code, &returned.verifier).await?;
    consent::ops::finish(app, workspace, asked, id, &granted).await?;
    Ok(json!({ "settings": [granted.field] }))
}

async fn test_destination(app: &App, workspace: WorkspaceId, id: DestinationId) -> Result<Value> {
    let (mut destination, told) = open_destination(app, workspace, id).await?;
    let steps = destination.check().await;
    let mut tx = app.db.tenant(workspace).await?;
    endpoint::record_check::<Destination>(&mut tx, id, &steps).await?;
    tx.commit().await?;
    let mut found = found(&steps);
    found["egress"] = written(&told)?;
    Ok(found)
}

async fn describe(app: &App, workspace: WorkspaceId, id: ModelId) -> Result<Value> {
    let model = read_model(app, workspace, id).await?;
    let (mut source, _) = open_source(app, workspace, model.connection_id).await?;
    let (schema, source_key) = source.describe(&model.spec).await?;
    let mut tx = app.db.tenant(workspace).await?;
    model::ops::record_columns(&mut tx, model.version_id, &model.primary_key, &schema, &source_key).await?;
    tx.commit().await?;
    let key = if model.primary_key.is_empty() { source_key } else { model.primary_key };
    Ok(json!({ "columns": schema, "primary_key": key }))
}

/// The look before a run, without one: topics are created where the sync says so, its own lane is left alone.
async fn check_sync(app: &App, workspace: WorkspaceId, id: SyncId) -> Result<Value> {
    let mut tx = app.db.tenant(workspace).await?;
    let work = sync::work::current(&mut tx, id).await?;
    tx.commit().await?;
    let (mut destination, _) = open_destination(app, workspace, work.destination_id).await?;
    let mut plan = pipeline::topic_plan(app.db.installation().await?, workspace, &work, None);
    let prepared = destination.prepare(&plan).await?;
    let mut steps = prepared.steps;
    // A lane of its own: fencing the sync's would end a run under way.
    plan.lane.name.push_str(".probe");
    steps.push(match destination.lane(&plan).await?.fence().await {
        Ok(()) => Step::passed("transactional_id", "the login may use it"),
        Err(error) => Step::failed("transactional_id", &error),
    });
    Ok(found(&steps))
}

/// Lets a sync begin anew with its Stream. The new generation comes first: a run that slips in between still sends what
/// the old Stream holds, and the new one's rows follow it.
async fn resync(app: &App, workspace: WorkspaceId, id: SyncId, how: Resync) -> Result<Value> {
    let mut tx = app.db.tenant(workspace).await?;
    let work = sync::work::current(&mut tx, id).await?;
    tx.commit().await?;
    let (mut source, _) = open_source(app, workspace, work.connection_id).await?;
    let reset = sync::ops::reset(app, &freshet_core::access::Caller::command(workspace), id).await?;
    let made = source.renew_stream(&work.spec, how == Resync::Full).await?;
    Ok(json!({ "generation": reset.generation, "stream": written(&made)? }))
}

async fn read_model(app: &App, workspace: WorkspaceId, id: ModelId) -> Result<model::Model> {
    model::ops::get(app, &freshet_core::access::Caller::command(workspace), id).await
}

/// The source, and the policy that it dials by.
async fn open_source(app: &App, workspace: WorkspaceId, id: ConnectionId) -> Result<(Box<dyn Source>, EgressTold)> {
    let mut tx = app.db.tenant(workspace).await?;
    let (kind, settings) = endpoint::open::<Connection>(app, &mut tx, id).await?;
    tx.commit().await?;
    let (egress, told) = organization::ops::egress_of(app, workspace).await?;
    let mut source = app.registry.find_source(&kind)?.open(settings, &egress).await?;
    source.keep_secrets(pipeline::keeper(app, workspace, id));
    Ok((source, told))
}

/// The destination, and the policy that it dials by.
async fn open_destination(
    app: &App,
    workspace: WorkspaceId,
    id: DestinationId,
) -> Result<(Box<dyn connector::Destination>, EgressTold)> {
    let mut tx = app.db.tenant(workspace).await?;
    let (kind, settings) = endpoint::open::<Destination>(app, &mut tx, id).await?;
    tx.commit().await?;
    let (egress, told) = organization::ops::egress_of(app, workspace).await?;
    Ok((app.registry.find_destination(&kind)?.open(settings, &egress).await?, told))
}

fn found(steps: &[Step]) -> Value {
    let ok = steps.iter().all(|step| step.state != StepState::Failed);
    json!({ "ok": ok, "steps": steps })
}

fn written<T: serde::Serialize>(answer: &T) -> Result<Value> {
    serde_json::to_value(answer)
        .map_err(|error| Error::new(Code::Internal, "the answer cannot be written").caused_by(error))
}
