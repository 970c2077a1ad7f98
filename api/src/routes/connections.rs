//! Connections: a source's settings and credentials.

use axum::extract::State;
use freshet_core::connector::NewStream;
use freshet_core::consent::{self, ConsentAsked};
use freshet_core::endpoint::{Connection, Endpoint, ops};
use freshet_core::id::ConnectionId;
use freshet_core::operation::{self, Operation, Question};
use freshet_core::page::Page;
use serde::{Deserialize, Serialize};
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
        .routes(routes!(list_connections, create_connection))
        .routes(routes!(get_connection, update_connection, archive_connection))
        .routes(routes!(test_connection))
        .routes(routes!(list_catalogue))
        .routes(routes!(make_stream))
        .routes(routes!(get_setup_script))
        .routes(routes!(draw_key_pair))
        .routes(routes!(ask_consent))
}

/// A new connection.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewConnection {
    /// `postgres`; `GET /v1/kinds` lists them.
    kind: String,
    /// Unique in the workspace, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// As the kind's form has them; secrets go to the vault and are never shown again.
    #[schema(value_type = Object)]
    settings: Value,
}

/// A change of a connection; absent keeps, null clears.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ConnectionPatch {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// A merge patch (RFC 7396); a secret not named stays.
    #[schema(value_type = Option<Object>)]
    settings: Option<Value>,
}

/// The connections, newest first.
#[utoipa::path(
    get,
    path = "/connections",
    tag = "connections",
    params(PageQuery),
    security(("key" = ["connections:read"])),
    responses((status = 200, body = Page<Endpoint<ConnectionId>>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_connections(State(api): State<Api>, By(caller): By, Query(page): Query<PageQuery>) -> Answer {
    ok(&ops::list::<Connection>(&api.app, &caller, page.request()?).await?)
}

/// Makes a connection. Nothing is dialled; `test` does that.
#[utoipa::path(
    post,
    path = "/connections",
    tag = "connections",
    security(("key" = ["connections:write"])),
    request_body = NewConnection,
    responses((status = 201, body = Endpoint<ConnectionId>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn create_connection(State(api): State<Api>, By(caller): By, Json(new): Json<NewConnection>) -> Answer {
    let made = ops::create::<Connection>(&api.app, &caller, &new.kind, &new.name, new.settings).await?;
    created(format!("/v1/connections/{}", made.id), made.row_version, &made)
}

/// One connection.
#[utoipa::path(
    get,
    path = "/connections/{id}",
    tag = "connections",
    params(("id" = ConnectionId, Path)),
    security(("key" = ["connections:read"])),
    responses((status = 200, body = Endpoint<ConnectionId>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_connection(State(api): State<Api>, By(caller): By, Path(id): Path<ConnectionId>) -> Answer {
    let found = ops::get::<Connection>(&api.app, &caller, id).await?;
    versioned(axum::http::StatusCode::OK, found.row_version, &found)
}

/// Changes a connection; wants `If-Match`.
#[utoipa::path(
    patch,
    path = "/connections/{id}",
    tag = "connections",
    params(("id" = ConnectionId, Path), ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#)),
    security(("key" = ["connections:write"])),
    request_body = ConnectionPatch,
    responses((status = 200, body = Endpoint<ConnectionId>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn update_connection(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<ConnectionId>,
    IfMatch(version): IfMatch,
    Json(patch): Json<ConnectionPatch>,
) -> Answer {
    let settings = patch.settings.unwrap_or(Value::Object(serde_json::Map::new()));
    let updated = ops::update::<Connection>(&api.app, &caller, id, version, patch.name.as_deref(), settings).await?;
    versioned(axum::http::StatusCode::OK, updated.row_version, &updated)
}

/// Archives a connection that nothing uses; wants `If-Match`. Its secrets are destroyed.
#[utoipa::path(
    delete,
    path = "/connections/{id}",
    tag = "connections",
    params(("id" = ConnectionId, Path), ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#)),
    security(("key" = ["connections:write"])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn archive_connection(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<ConnectionId>,
    IfMatch(version): IfMatch,
) -> Answer {
    ops::archive::<Connection>(&api.app, &caller, id, version).await?;
    no_content()
}

/// Tries a connection step by step; a worker answers.
#[utoipa::path(
    post,
    path = "/connections/{id}/test",
    tag = "connections",
    params(("id" = ConnectionId, Path)),
    security(("key" = ["connections:write"])),
    responses((status = 202, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn test_connection(State(api): State<Api>, By(caller): By, Path(id): Path<ConnectionId>) -> Answer {
    accepted(&operation::ops::ask(&api.app, &caller, Question::TestConnection { connection: id }).await?)
}

/// Which part of a catalogue.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct CatalogueQuery {
    /// One schema; all if not given.
    schema: Option<String>,
}

/// Lists tables, views and Streams with their columns; a worker answers.
#[utoipa::path(
    post,
    path = "/connections/{id}/catalogue",
    tag = "connections",
    params(("id" = ConnectionId, Path), CatalogueQuery),
    security(("key" = ["connections:write"])),
    responses((status = 202, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_catalogue(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<ConnectionId>,
    Query(query): Query<CatalogueQuery>,
) -> Answer {
    let question = Question::ListCatalogue { connection: id, schema: query.schema };
    accepted(&operation::ops::ask(&api.app, &caller, question).await?)
}

/// Whether to make it.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct MakeQuery {
    /// Show the statement and make nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Makes a Stream on a table or view, for a model of kind `stream`; a worker answers, with the statement. Each sync wants
/// a Stream of its own. One that is there already, and the same, stays as it is.
#[utoipa::path(
    post,
    path = "/connections/{id}/streams",
    tag = "connections",
    params(("id" = ConnectionId, Path), MakeQuery),
    security(("key" = ["connections:write"])),
    request_body = NewStream,
    responses((status = 202, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn make_stream(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<ConnectionId>,
    Query(query): Query<MakeQuery>,
    Json(stream): Json<NewStream>,
) -> Answer {
    let question = Question::MakeStream { connection: id, stream, dry_run: query.dry_run };
    accepted(&operation::ops::ask(&api.app, &caller, question).await?)
}

/// A script.
#[derive(Serialize, utoipa::ToSchema)]
struct SetupScript {
    /// SQL, for an administrator to read and run.
    script: String,
}

/// The script that gives the login exactly the rights that Freshet needs.
#[utoipa::path(
    get,
    path = "/connections/{id}/setup-script",
    tag = "connections",
    params(("id" = ConnectionId, Path)),
    security(("key" = ["connections:read"])),
    responses((status = 200, body = SetupScript), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_setup_script(State(api): State<Api>, By(caller): By, Path(id): Path<ConnectionId>) -> Answer {
    ok(&SetupScript { script: ops::setup_script(&api.app, &caller, id).await? })
}

/// Which of the login's two keys.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct KeyPairWanted {
    /// The second: to turn keys over while the first goes on.
    #[serde(default)]
    second: bool,
}

/// Draws a key pair for the login. The private key goes into the vault; the answer has the statement that gives the public
/// key to the login.
#[utoipa::path(
    post,
    path = "/connections/{id}/key-pair",
    tag = "connections",
    params(("id" = ConnectionId, Path)),
    security(("key" = ["connections:write"])),
    request_body = KeyPairWanted,
    responses((status = 200, body = ops::KeyPairDrawn), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn draw_key_pair(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<ConnectionId>,
    Json(wanted): Json<KeyPairWanted>,
) -> Answer {
    ok(&ops::draw_key(&api.app, &caller, id, wanted.second).await?)
}

/// Begins a consent by OAuth: whoever opens the answer's `url` within 10 minutes, and consents, lets the connection sign in
/// with their rights.
#[utoipa::path(
    post,
    path = "/connections/{id}/consent",
    tag = "connections",
    params(("id" = ConnectionId, Path)),
    security(("key" = ["connections:write"])),
    responses((status = 200, body = ConsentAsked), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn ask_consent(State(api): State<Api>, By(caller): By, Path(id): Path<ConnectionId>) -> Answer {
    ok(&consent::ops::ask(&api.app, &caller, id).await?)
}
