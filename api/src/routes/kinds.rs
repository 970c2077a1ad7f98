//! Which connectors there are, and their forms.

use axum::extract::State;
use freshet_core::connector::Field;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, ok};
use crate::Api;
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_kinds))
}

/// One kind of connector.
#[derive(Serialize, utoipa::ToSchema)]
struct KindBody {
    kind: &'static str,
    /// The fields of its settings; a dot goes one level down.
    fields: &'static [Field],
}

/// Every kind of connector.
#[derive(Serialize, utoipa::ToSchema)]
struct Kinds {
    sources: Vec<KindBody>,
    destinations: Vec<KindBody>,
    formats: Vec<&'static str>,
}

/// The kinds of sources, destinations and formats.
#[utoipa::path(
    get,
    path = "/kinds",
    tag = "kinds",
    security(("key" = [])),
    responses((status = 200, body = Kinds), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_kinds(State(api): State<Api>) -> Answer {
    let registry = &api.app.registry;
    let sources = registry
        .source_names()
        .map(|kind| Ok(KindBody { kind, fields: registry.find_source(kind)?.fields() }))
        .collect::<freshet_core::error::Result<_>>()?;
    let destinations = registry
        .destination_names()
        .map(|kind| Ok(KindBody { kind, fields: registry.find_destination(kind)?.fields() }))
        .collect::<freshet_core::error::Result<_>>()?;
    ok(&Kinds { sources, destinations, formats: registry.format_names().collect() })
}
