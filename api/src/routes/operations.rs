//! Operations: questions that a worker answers.

use axum::extract::State;
use freshet_core::id::OperationId;
use freshet_core::operation::{Operation, ops};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, ok};
use crate::Api;
use crate::auth::By;
use crate::extract::Path;
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_operation))
}

/// One operation, with its answer once there is one; forgotten after an hour.
#[utoipa::path(
    get,
    path = "/operations/{id}",
    tag = "operations",
    params(("id" = OperationId, Path)),
    security(("key" = [])),
    responses((status = 200, body = Operation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_operation(State(api): State<Api>, By(caller): By, Path(id): Path<OperationId>) -> Answer {
    ok(&ops::get(&api.app, &caller, id).await?)
}
