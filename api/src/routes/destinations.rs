//! Destinations: Kafka clusters.

use axum::extract::State;
use freshet_core::endpoint::{Destination, Endpoint, ops};
use freshet_core::id::DestinationId;
use freshet_core::operation::{self, Operation, Question};
use freshet_core::page::Page;
use serde::Deserialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, PageQuery, accepted, created, no_content, ok, versioned};
use crate::Api;
use crate::auth::By;
use crate::extract::{IfMatch, Json, Path, Query};
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_destinations, create_destination))
        .routes(routes!(get_destination, update_destination, archive_destination))
        .routes(routes!(test_destination))
}

/// A new destination.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewDestination {
    /// `kafka`; `GET /v1/kinds` lists them.
    kind: String,
    /// Unique in the workspace, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// As the kind's form has them; secrets go to the vault and are never shown again.
    #[schema(value_type = Object)]
    settings: Value,
}

/// A change of a destination; absent keeps, null clears.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct DestinationPatch {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// A merge patch (RFC 7396); a secret not named stays.
    #[schema(value_type = Option<Object>)]
    settings: Option<Value>,
}

/// The destinations, newest first.
#[utoipa::path(
    get,
    path = "/destinations",
    tag = "destinations",
    params(PageQuery),
    security(("key" = ["destinations:read"])),
    responses((status = 200, body = Page<Endpoint<DestinationId>>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_destinations(State(api): State<Api>, By(caller): By, Query(page): Query<PageQuery>) -> Answer {
    ok(&ops::list::<Destination>(&api.app, &caller, page.request()?).await?)
}

/// Makes a destination. Nothing is dialled; `test` does that.
#[utoipa::path(
    post,
    path = "/destinations",
    tag = "destinations",
    security(("key" = ["destinations:write"])),
    request_body = NewDestination,
    responses((status = 201, body = Endpoint<DestinationId>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn create_destination(State(api): State<Api>, By(caller): By, Json(new): Json<NewDestination>) -> Answer {
    let made = ops::create::<Destination>(&api.app, &caller, &new.kind, &new.name, new.settings).await?;
    created(format!("/v1/destinations/{}", made.id), made.row_version, &made)
}

/// One destination.
#[utoipa::path(
    get,
    path = "/destinations/{id}",
    tag = "destinations",
    params(("id" = DestinationId, Path)),
    security(("key" = ["destinations:read"])),
    responses((status = 200, body = Endpoint<DestinationId>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_destination(State(api): State<Api>, By(caller): By, Path(id): Path<DestinationId>) -> Answer {
    let found = ops::get::<Destination>(&api.app, &caller, id).await?;
    versioned(axum::http::StatusCode::OK, found.row_version, &found)
}

/// Changes a destination; wants `If-Match`.
#[utoipa::path(
    patch,
    path = "/destinations/{id}",
    tag = "destinations",
    params(("id" = DestinationId, Path), ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#)),
    security(("key" = ["destinations:write"])),
    request_body = DestinationPatch,
    responses((status = 200, body = Endpoint<DestinationId>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn update_destination(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<DestinationId>,
    IfMatch(version): IfMatch,
    Json(patch): Json<DestinationPatch>,
) -> Answer {
    let settings = patch.settings.unwrap_or(Value::Object(serde_json::Map::new()));
    let updated = ops::update::<Destination>(&api.app, &caller, id, version, patch.name.as_deref(), settings).await?;
    versioned(axum::http::StatusCode::OK, updated.row_version, &updated)
}

/// Archives a destination that nothing uses; wants `If-Match`. Its secrets are destroyed.
#[utoipa::path(
    delete,
    path = "/destinations/{id}",
    tag = "destinations",
    params(("id" = DestinationId, Path), ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#)),
    security(("key" = ["destinations:write"])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn archive_destination(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<DestinationId>,
    IfMatch(version): IfMatch,
) -> Answer {
    ops::archive::<Destination>(&api.app, &caller, id, version).await?;
    no_content()
}

/// Tries a destination step by step; a worker answers.
#[utoipa::path(
    post,
    path = "/destinations/{id}/test",
    tag = "destinations",
    params(("id" = DestinationId, Path)),
    security(("key" = ["destinations:write"])),
    responses((status = 202, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn test_destination(State(api): State<Api>, By(caller): By, Path(id): Path<DestinationId>) -> Answer {
    accepted(&operation::ops::ask(&api.app, &caller, Question::TestDestination { destination: id }).await?)
}
