//! Who the caller is, and what roles there are.

use freshet_core::access::{Actor, Right, Role};
use freshet_core::id::{ApiKeyId, ServiceAccountId, WorkspaceId};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, ok};
use crate::Api;
use crate::auth::By;
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_me)).routes(routes!(list_roles))
}

/// Who asks.
#[derive(Serialize, utoipa::ToSchema)]
struct Me {
    /// The workspace that everything happens in.
    workspace_id: WorkspaceId,
    /// Whose key it is.
    service_account_id: Option<ServiceAccountId>,
    /// The key.
    api_key_id: Option<ApiKeyId>,
    /// What it may do.
    scopes: Vec<&'static str>,
}

/// A role.
#[derive(Serialize, utoipa::ToSchema)]
struct RoleBody {
    /// Its word.
    role: Role,
    /// What it may do.
    rights: Vec<RightBody>,
}

/// A right.
#[derive(Serialize, utoipa::ToSchema)]
struct RightBody {
    /// Its word, also a scope of keys.
    right: &'static str,
    /// What it is.
    description: &'static str,
}

/// The roles.
#[derive(Serialize, utoipa::ToSchema)]
struct Roles {
    /// The weakest first; each may do what those before it may.
    data: Vec<RoleBody>,
}

/// Who the key is, and what it may do.
#[utoipa::path(
    get,
    path = "/me",
    tag = "access",
    security(("key" = [])),
    responses((status = 200, body = Me), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_me(By(caller): By) -> Answer {
    let (api_key_id, service_account_id) = match caller.actor {
        Actor::ApiKey { key, service_account } => (Some(key), Some(service_account)),
        Actor::Command | Actor::Consent => (None, None),
    };
    let scopes = caller.rights().iter().map(|right| right.as_str()).collect();
    ok(&Me { workspace_id: caller.workspace, service_account_id, api_key_id, scopes })
}

/// The roles there are, with what each may do.
#[utoipa::path(
    get,
    path = "/roles",
    tag = "access",
    security(("key" = [])),
    responses((status = 200, body = Roles), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_roles(_caller: By) -> Answer {
    let right = |right: Right| RightBody { right: right.as_str(), description: right.doc() };
    let role = |role: &Role| RoleBody { role: *role, rights: role.rights().into_iter().map(right).collect() };
    ok(&Roles { data: Role::ALL.iter().map(role).collect() })
}
