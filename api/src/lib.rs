//! The REST API: JSON under `/v1`, a workspace bound to each key, problem documents, keyset pages.
//!
//! Layers, from the outside in: panics, request id, metrics, body limit; around the routes of a key what is to go, room,
//! key, rate limits, scopes, waiting, idempotency.

mod auth;
mod deprecated;
mod examples;
mod extract;
mod idempotency;
mod limit;
mod metered;
mod problem;
mod routes;
mod scopes;
mod wait;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use freshet_core::app::App;
use freshet_core::error::{Code, Error};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;

use problem::Problem;

/// Bytes of a request's body, at most.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What every handler is given.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) app: App,
    /// Cancelled when the server stops: long answers end.
    pub(crate) drain: CancellationToken,
    pub(crate) limits: limit::Limits,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Freshet",
        description = "Moves tables and SQL models into Apache Kafka, exactly once.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Problem)),
    modifiers(&Bearer),
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, `fr_live_…`; `freshet key create` makes one."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

fn v1() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi()).nest("/v1", routes::v1())
}

/// The routes under `/v1`, and the document that they make.
fn v1_documented() -> (Router<Api>, utoipa::openapi::OpenApi) {
    let (router, mut document) = v1().split_for_parts();
    examples::put(&mut document);
    deprecated::mark(&mut document, deprecated::GOING);
    (router, document)
}

/// An operation of a document: `GET`, `/v1/syncs/{id}`.
fn operation<'a>(document: &'a mut utoipa::openapi::OpenApi, method: &str, path: &str) -> Option<&'a mut Operation> {
    let item = document.paths.paths.get_mut(path)?;
    match method {
        "GET" => item.get.as_mut(),
        "POST" => item.post.as_mut(),
        "PATCH" => item.patch.as_mut(),
        "PUT" => item.put.as_mut(),
        "DELETE" => item.delete.as_mut(),
        _ => None,
    }
}

/// The OpenAPI 3.1 document, as text.
///
/// # Errors
/// Never, in truth: the document is made of plain values.
pub fn openapi_json() -> serde_json::Result<String> {
    let (_, document) = v1_documented();
    document.to_pretty_json()
}

/// Whether a path is the API's; every other one is the dashboard's.
#[must_use]
pub fn serves(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/") || routes::health::serves(path) || path == routes::callback::PATH
}

/// The whole API.
pub fn router(app: App, drain: CancellationToken) -> Router {
    router_telling(app, drain, deprecated::GOING)
}

fn router_telling(app: App, drain: CancellationToken, going: &'static [deprecated::Going]) -> Router {
    let limits = limit::Limits::new(&app.settings);
    let api = Api { app, drain, limits };
    let (v1, document) = v1_documented();
    let keyed = v1
        .layer(middleware::from_fn_with_state(api.clone(), idempotency::answer_again))
        .layer(middleware::from_fn_with_state(api.clone(), wait::prefer_wait))
        .layer(middleware::from_fn_with_state(scopes::Scopes::of(&document), scopes::require))
        .layer(middleware::from_fn_with_state(api.clone(), limit::keep_within))
        .layer(middleware::from_fn_with_state(api.clone(), auth::require_key))
        .layer(middleware::from_fn_with_state(api.clone(), limit::keep_room))
        .layer(middleware::from_fn_with_state(going, deprecated::tell));
    Router::new()
        .merge(keyed)
        .merge(routes::health::router(document))
        .merge(routes::callback::router())
        .fallback(async || Problem::from(Error::new(Code::NotFound, "there is no such path")))
        .method_not_allowed_fallback(async || {
            Problem::from(Error::new(Code::MethodNotAllowed, "the path does not take this method"))
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(metered::meter))
        .layer(middleware::from_fn(auth::name_request))
        .layer(CatchPanicLayer::custom(problem::from_panic))
        .with_state(api)
}
