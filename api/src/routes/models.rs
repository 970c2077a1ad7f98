//! Models: what is read through a connection.

use axum::extract::State;
use axum::http::StatusCode;
use freshet_core::connector::ModelSpec;
use freshet_core::id::{ConnectionId, ModelId};
use freshet_core::model::{Model, ModelVersion, ops};
use freshet_core::operation::{self, Operation, Question};
use freshet_core::page::Page;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, PageQuery, accepted, created, no_content, ok, versioned};
use crate::Api;
use crate::auth::By;
use crate::extract::{IfMatch, Json, Path, Query};
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_models, create_model))
        .routes(routes!(get_model, update_model, archive_model))
        .routes(routes!(list_model_versions))
        .routes(routes!(describe_model))
        .routes(routes!(preview_model))
        .routes(routes!(check_model_key))
}

/// A new model.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewModel {
    /// Where it is read.
    connection_id: ConnectionId,
    /// Unique in the workspace, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// A table, one SELECT, or a Stream.
    spec: ModelSpec,
    /// The key's columns; a table's own key if not given.
    #[serde(default)]
    primary_key: Vec<String>,
}

/// A change of a model; absent keeps. What is read changes by a new version.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ModelPatch {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    spec: Option<ModelSpec>,
    primary_key: Option<Vec<String>>,
}

/// A model, and the operation that finds its columns.
#[derive(Serialize, utoipa::ToSchema)]
struct ModelBody {
    #[serde(flatten)]
    model: Model,
    /// Finds columns and key; a sync can be activated once it has succeeded.
    describe_operation: Option<Operation>,
}

/// A model's versions.
#[derive(Serialize, utoipa::ToSchema)]
struct ModelVersions {
    data: Vec<ModelVersion>,
}

/// Which key to check.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyToCheck {
    /// The model's own if not given.
    #[serde(default)]
    primary_key: Vec<String>,
}

/// The models, newest first.
#[utoipa::path(
    get,
    path = "/models",
    tag = "models",
    params(PageQuery),
    security(("key" = ["models:read"])),
    responses((status = 200, body = Page<Model>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_models(State(api): State<Api>, By(caller): By, Query(page): Query<PageQuery>) -> Answer {
    ok(&ops::list(&api.app, &caller, page.request()?).await?)
}

/// Makes a model, and asks a worker for its columns.
#[utoipa::path(
    post,
    path = "/models",
    tag = "models",
    security(("key" = ["models:write"])),
    request_body = NewModel,
    responses((status = 201, body = ModelBody), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn create_model(State(api): State<Api>, By(caller): By, Json(new): Json<NewModel>) -> Answer {
    let made = ops::create(&api.app, &caller, new.connection_id, &new.name, &new.spec, &new.primary_key).await?;
    let asked = operation::ops::ask(&api.app, &caller, Question::DescribeModel { model: made.id }).await?;
    let (location, version) = (format!("/v1/models/{}", made.id), made.row_version);
    created(location, version, &ModelBody { model: made, describe_operation: Some(asked) })
}

/// One model.
#[utoipa::path(
    get,
    path = "/models/{id}",
    tag = "models",
    params(("id" = ModelId, Path)),
    security(("key" = ["models:read"])),
    responses((status = 200, body = Model), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_model(State(api): State<Api>, By(caller): By, Path(id): Path<ModelId>) -> Answer {
    let found = ops::get(&api.app, &caller, id).await?;
    versioned(StatusCode::OK, found.row_version, &found)
}

/// Changes a model; wants `If-Match`. Syncs stay with their version until they take the new one.
#[utoipa::path(
    patch,
    path = "/models/{id}",
    tag = "models",
    params(("id" = ModelId, Path), ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#)),
    security(("key" = ["models:write"])),
    request_body = ModelPatch,
    responses((status = 200, body = ModelBody), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn update_model(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<ModelId>,
    IfMatch(version): IfMatch,
    Json(patch): Json<ModelPatch>,
) -> Answer {
    let patch = ops::ModelPatch { name: patch.name, spec: patch.spec, primary_key: patch.primary_key };
    let changed = patch.spec.is_some() || patch.primary_key.is_some();
    let model = ops::update(&api.app, &caller, id, version, patch).await?;
    let question = Question::DescribeModel { model: id };
    let describe_operation = if changed { Some(operation::ops::ask(&api.app, &caller, question).await?) } else { None };
    versioned(StatusCode::OK, model.row_version, &ModelBody { model, describe_operation })
}

/// Archives a model that no sync uses; wants `If-Match`.
#[utoipa::path(
    delete,
    path = "/models/{id}",
    tag = "models",
    params(("id" = ModelId, Path), ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#)),
    security(("key" = ["models:write"])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn archive_model(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<ModelId>,
    IfMatch(version): IfMatch,
) -> Answer {
    ops::archive(&api.app, &caller, id, version).await?;
    no_content()
}

/// A model's versions, newest first, 200 at most.
#[utoipa::path(
    get,
    path = "/models/{id}/versions",
    tag = "models",
    params(("id" = ModelId, Path)),
    security(("key" = ["models:read"])),
    responses((status = 200, body = ModelVersions), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_model_versions(State(api): State<Api>, By(caller): By, Path(id): Path<ModelId>) -> Answer {
    ok(&ModelVersions { data: ops::versions(&api.app, &caller, id).await? })
}

/// Finds a model's columns and key; a worker answers.
#[utoipa::path(
    post,
    path = "/models/{id}/describe",
    tag = "models",
    params(("id" = ModelId, Path)),
    security(("key" = ["models:write"])),
    responses((status = 202, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn describe_model(State(api): State<Api>, By(caller): By, Path(id): Path<ModelId>) -> Answer {
    accepted(&operation::ops::ask(&api.app, &caller, Question::DescribeModel { model: id }).await?)
}

/// Shows a model's first 100 rows, and leaves a Stream's offset alone; a worker answers, and the answer is deleted after an hour.
#[utoipa::path(
    post,
    path = "/models/{id}/preview",
    tag = "models",
    params(("id" = ModelId, Path)),
    security(("key" = ["rows:read"])),
    responses((status = 202, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn preview_model(State(api): State<Api>, By(caller): By, Path(id): Path<ModelId>) -> Answer {
    accepted(&operation::ops::ask(&api.app, &caller, Question::PreviewModel { model: id }).await?)
}

/// Counts rows without key and keys that repeat, of a Stream in what it follows; a worker answers.
#[utoipa::path(
    post,
    path = "/models/{id}/key-check",
    tag = "models",
    params(("id" = ModelId, Path)),
    security(("key" = ["models:write"])),
    request_body = KeyToCheck,
    responses((status = 202, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn check_model_key(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<ModelId>,
    Json(asked): Json<KeyToCheck>,
) -> Answer {
    let question = Question::CheckKey { model: id, key: asked.primary_key };
    accepted(&operation::ops::ask(&api.app, &caller, question).await?)
}
