//! Limits: how much there may be, and how much there is.

use axum::extract::State;
use freshet_core::limit::{LimitState, ops};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, ok};
use crate::Api;
use crate::auth::By;
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_limits))
}

/// The limits.
#[derive(Serialize, utoipa::ToSchema)]
struct LimitStates {
    /// Each limit there is.
    data: Vec<LimitState>,
}

/// The plan's limits for the organization and the workspace, with what is used of them. Four fifths are a warning.
#[utoipa::path(
    get,
    path = "/limits",
    tag = "limits",
    security(("key" = ["organization:read"])),
    responses((status = 200, body = LimitStates), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_limits(State(api): State<Api>, By(caller): By) -> Answer {
    ok(&LimitStates { data: ops::list(&api.app, &caller).await? })
}
