//! The key's own workspace.

use axum::extract::State;
use freshet_core::workspace::{self, Workspace};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, ok};
use crate::Api;
use crate::auth::By;
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_workspace))
}

/// The workspace that the key is bound to.
#[utoipa::path(
    get,
    path = "/workspace",
    tag = "workspace",
    security(("key" = [])),
    responses((status = 200, body = Workspace), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_workspace(State(api): State<Api>, By(caller): By) -> Answer {
    ok(&workspace::ops::get(&api.app, &caller).await?)
}
