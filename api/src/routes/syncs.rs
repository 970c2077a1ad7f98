//! Syncs: a model sent to a topic of a destination.

use axum::extract::State;
use axum::http::StatusCode;
use freshet_core::connector::StreamFacts;
use freshet_core::id::{DestinationId, ModelId, SyncId};
use freshet_core::operation::{self, Operation, Question};
use freshet_core::page::Page;
use freshet_core::run::{self, Run};
use freshet_core::sync::health::Health;
use freshet_core::sync::{Consequence, Position, Resync, Sync, SyncConfig, ops};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, PageQuery, accepted, answer, created, ok, versioned};
use crate::Api;
use crate::auth::By;
use crate::extract::{IfMatch, Json, Path, Query};
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_syncs, create_sync))
        .routes(routes!(get_sync, update_sync))
        .routes(routes!(activate_sync))
        .routes(routes!(pause_sync))
        .routes(routes!(resume_sync))
        .routes(routes!(archive_sync))
        .routes(routes!(reset_sync))
        .routes(routes!(adopt_position))
        .routes(routes!(resync_sync))
        .routes(routes!(check_sync))
        .routes(routes!(preview_records))
        .routes(routes!(plan_run))
        .routes(routes!(list_sync_runs, run_sync))
}

/// A new sync.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSync {
    /// Unique in the workspace, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// What is read.
    model_id: ModelId,
    /// Where it goes.
    destination_id: DestinationId,
    /// How it is done.
    config: SyncConfig,
}

/// A change of a sync; absent keeps.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct SyncPatch {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// A merge patch (RFC 7396) of the configuration.
    #[schema(value_type = Option<Object>)]
    config: Option<Value>,
    /// Read the model's current version from now on.
    #[serde(default)]
    take_current_model: bool,
    /// The consequence that was read; needed for `new_generation`.
    accept_consequence: Option<Consequence>,
}

/// Whether to save.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct PatchQuery {
    /// Say the consequence and save nothing.
    #[serde(default)]
    dry_run: bool,
}

/// A sync and how it is doing.
#[derive(Serialize, utoipa::ToSchema)]
struct SyncBody {
    #[serde(flatten)]
    sync: Sync,
    /// Derived from its state and its runs.
    health: Health,
    /// Where it is; none before the first run.
    position: Option<Position>,
    /// What the source said of its Stream when it was looked at last, `stale_after` among it.
    stream: Option<StreamFacts>,
}

/// A changed sync, and what the change means.
#[derive(Serialize, utoipa::ToSchema)]
struct ChangedSync {
    #[serde(flatten)]
    sync: Sync,
    /// What the change means for the records.
    consequence: Consequence,
    /// The same, in a sentence.
    consequence_text: &'static str,
    /// Nothing was saved.
    dry_run: bool,
}

/// The syncs, newest first.
#[utoipa::path(
    get,
    path = "/syncs",
    tag = "syncs",
    params(PageQuery),
    security(("key" = ["syncs:read"])),
    responses((status = 200, body = Page<Sync>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_syncs(State(api): State<Api>, By(caller): By, Query(page): Query<PageQuery>) -> Answer {
    ok(&ops::list(&api.app, &caller, page.request()?).await?)
}

/// Makes a sync as a draft.
#[utoipa::path(
    post,
    path = "/syncs",
    tag = "syncs",
    security(("key" = ["syncs:write"])),
    request_body = NewSync,
    responses((status = 201, body = Sync), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn create_sync(State(api): State<Api>, By(caller): By, Json(new): Json<NewSync>) -> Answer {
    let new = ops::NewSync { name: new.name, model: new.model_id, destination: new.destination_id, config: new.config };
    let made = ops::create(&api.app, &caller, new).await?;
    created(format!("/v1/syncs/{}", made.id), made.row_version, &made)
}

/// One sync, its health and its position.
#[utoipa::path(
    get,
    path = "/syncs/{id}",
    tag = "syncs",
    params(("id" = SyncId, Path)),
    security(("key" = ["syncs:read"])),
    responses((status = 200, body = SyncBody), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_sync(State(api): State<Api>, By(caller): By, Path(id): Path<SyncId>) -> Answer {
    let (sync, health, position) = ops::get(&api.app, &caller, id).await?;
    let carry = position.as_ref().and_then(|position| position.carry.as_ref());
    let stream = carry.and_then(|carry| StreamFacts::deserialize(carry.get("stream")?).ok());
    versioned(StatusCode::OK, sync.row_version, &SyncBody { sync, health, position, stream })
}

/// Changes a sync; wants `If-Match`. What the change means is said before it is saved.
#[utoipa::path(
    patch,
    path = "/syncs/{id}",
    tag = "syncs",
    params(("id" = SyncId, Path), ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#), PatchQuery),
    security(("key" = ["syncs:write"])),
    request_body = SyncPatch,
    responses((status = 200, body = ChangedSync), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn update_sync(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<SyncId>,
    IfMatch(version): IfMatch,
    Query(query): Query<PatchQuery>,
    Json(patch): Json<SyncPatch>,
) -> Answer {
    let patch = ops::SyncPatch {
        name: patch.name,
        config: patch.config,
        take_current_model: patch.take_current_model,
        accept: patch.accept_consequence,
        dry_run: query.dry_run,
    };
    let ops::Changed { sync, consequence } = ops::update(&api.app, &caller, id, version, patch).await?;
    let consequence_text = consequence.sentence(&sync.config.mode);
    let row_version = if query.dry_run { version } else { sync.row_version };
    versioned(StatusCode::OK, row_version, &ChangedSync { sync, consequence, consequence_text, dry_run: query.dry_run })
}

/// Lets a draft run.
#[utoipa::path(
    post,
    path = "/syncs/{id}/activate",
    tag = "syncs",
    params(("id" = SyncId, Path)),
    security(("key" = ["syncs:write"])),
    responses((status = 200, body = Sync), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn activate_sync(State(api): State<Api>, By(caller): By, Path(id): Path<SyncId>) -> Answer {
    changed(ops::activate(&api.app, &caller, id).await)
}

/// Keeps a sync from starting runs; one under way goes on.
#[utoipa::path(
    post,
    path = "/syncs/{id}/pause",
    tag = "syncs",
    params(("id" = SyncId, Path)),
    security(("key" = ["syncs:write"])),
    responses((status = 200, body = Sync), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn pause_sync(State(api): State<Api>, By(caller): By, Path(id): Path<SyncId>) -> Answer {
    changed(ops::pause(&api.app, &caller, id).await)
}

/// Lets a paused sync run again.
#[utoipa::path(
    post,
    path = "/syncs/{id}/resume",
    tag = "syncs",
    params(("id" = SyncId, Path)),
    security(("key" = ["syncs:write"])),
    responses((status = 200, body = Sync), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn resume_sync(State(api): State<Api>, By(caller): By, Path(id): Path<SyncId>) -> Answer {
    changed(ops::resume(&api.app, &caller, id).await)
}

/// Takes a sync from the lists; its history stays.
#[utoipa::path(
    post,
    path = "/syncs/{id}/archive",
    tag = "syncs",
    params(("id" = SyncId, Path)),
    security(("key" = ["syncs:write"])),
    responses((status = 200, body = Sync), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn archive_sync(State(api): State<Api>, By(caller): By, Path(id): Path<SyncId>) -> Answer {
    changed(ops::archive(&api.app, &caller, id).await)
}

/// Starts a sync from the beginning: the next run sends every row again. A sync of a Stream sends an unfinished batch
/// again, and goes on with what waits in the Stream; `resync` sends every row.
#[utoipa::path(
    post,
    path = "/syncs/{id}/reset",
    tag = "syncs",
    params(("id" = SyncId, Path)),
    security(("key" = ["syncs:write"])),
    responses((status = 200, body = Sync), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn reset_sync(State(api): State<Api>, By(caller): By, Path(id): Path<SyncId>) -> Answer {
    changed(ops::reset(&api.app, &caller, id).await)
}

/// Lets the next run adopt Kafka's position, after Freshet's database was restored from a back-up and a run ended with
/// `kafka.ledger_behind`. What Kafka's progress record says is delivered is delivered: the run goes on from there, without
/// loss or repeats.
#[utoipa::path(
    post,
    path = "/syncs/{id}/adopt-position",
    tag = "syncs",
    params(("id" = SyncId, Path)),
    security(("key" = ["syncs:write"])),
    responses((status = 200, body = Sync), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn adopt_position(State(api): State<Api>, By(caller): By, Path(id): Path<SyncId>) -> Answer {
    changed(ops::adopt_position(&api.app, &caller, id).await)
}

/// How to begin anew.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ResyncRequest {
    /// `full`: the Stream is made anew, and the next run sends every row there is, as created. `position`: the Stream is
    /// made anew, what is there is taken as sent, and what waited in the Stream is never sent.
    how: Resync,
    /// The sync's name; wanted for `position`, for it hides changes.
    #[serde(default)]
    confirm: Option<String>,
}

/// Makes a sync's Stream anew: the way out for one that is stale. A worker answers, with the statement. Rows that were
/// taken out of the Stream and not sent yet still go first; keys that were deleted while the Stream was stale stay in
/// the topic.
#[utoipa::path(
    post,
    path = "/syncs/{id}/resync",
    tag = "syncs",
    params(("id" = SyncId, Path)),
    security(("key" = ["syncs:write"])),
    request_body = ResyncRequest,
    responses((status = 202, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn resync_sync(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<SyncId>,
    Json(asked): Json<ResyncRequest>,
) -> Answer {
    ops::confirm_resync(&api.app, &caller, id, asked.how, asked.confirm.as_deref()).await?;
    accepted(&operation::ops::ask(&api.app, &caller, Question::ResyncSync { sync: id, how: asked.how }).await?)
}

/// Looks at everything a run needs: topics, rights, limits; a worker answers.
#[utoipa::path(
    post,
    path = "/syncs/{id}/check",
    tag = "syncs",
    params(("id" = SyncId, Path)),
    security(("key" = ["syncs:write"])),
    responses((status = 202, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn check_sync(State(api): State<Api>, By(caller): By, Path(id): Path<SyncId>) -> Answer {
    accepted(&operation::ops::ask(&api.app, &caller, Question::CheckSync { sync: id }).await?)
}

/// Shows the first records that the next run would send, byte for byte, and sends nothing; a worker answers.
///
/// Of the first 100 changes, 1 MiB at most: `topic`, `partition`, `key`, `headers`, `value`, `bytes` (key and value). What
/// only the run knows is named in `set_when_sent`; `stops_with` says why the run would end there. Position and Stream stay
/// where they are. The answer is deleted after an hour.
#[utoipa::path(
    post,
    path = "/syncs/{id}/preview",
    tag = "syncs",
    params(("id" = SyncId, Path)),
    security(("key" = ["rows:read"])),
    responses((status = 202, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn preview_records(State(api): State<Api>, By(caller): By, Path(id): Path<SyncId>) -> Answer {
    accepted(&operation::ops::ask(&api.app, &caller, Question::PreviewRecords { sync: id }).await?)
}

/// Counts what the next run would send, and sends nothing; a worker answers.
///
/// `creates`, `updates`, `deletes`, `refreshes`, `dead` and `records`; `bytes` from the sizes of the first records. A count
/// looks at the whole model, which may take the source as long as a run.
#[utoipa::path(
    post,
    path = "/syncs/{id}/plan",
    tag = "syncs",
    params(("id" = SyncId, Path)),
    security(("key" = ["syncs:run"])),
    responses((status = 202, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn plan_run(State(api): State<Api>, By(caller): By, Path(id): Path<SyncId>) -> Answer {
    accepted(&operation::ops::ask(&api.app, &caller, Question::PlanRun { sync: id }).await?)
}

/// A sync's runs, newest first.
#[utoipa::path(
    get,
    path = "/syncs/{id}/runs",
    tag = "runs",
    params(("id" = SyncId, Path), PageQuery),
    security(("key" = ["runs:read"])),
    responses((status = 200, body = Page<Run>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_sync_runs(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<SyncId>,
    Query(page): Query<PageQuery>,
) -> Answer {
    ok(&run::ops::list(&api.app, &caller, Some(id), &[], page.request()?).await?)
}

/// Asks for a run: 201 for a new one, 200 with the one that is already queued.
#[utoipa::path(
    post,
    path = "/syncs/{id}/runs",
    tag = "runs",
    params(("id" = SyncId, Path)),
    security(("key" = ["syncs:run"])),
    responses(
        (status = 201, body = Run),
        (status = 200, body = Run),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
async fn run_sync(State(api): State<Api>, By(caller): By, Path(id): Path<SyncId>) -> Answer {
    super::runs::requested(run::ops::request(&api.app, &caller, id).await)
}

fn changed(sync: freshet_core::error::Result<Sync>) -> Answer {
    let sync = sync?;
    versioned(StatusCode::OK, sync.row_version, &sync)
}

/// 201 for a new run with its place, 200 for one that was there.
pub(super) fn run_answer(run: &Run, new: bool) -> Answer {
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = answer(status, run)?;
    if let Ok(location) = axum::http::HeaderValue::from_str(&format!("/v1/runs/{}", run.id)) {
        response.headers_mut().insert(axum::http::header::LOCATION, location);
    }
    Ok(response)
}
