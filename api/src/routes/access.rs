//! Who the caller is, and what roles there are.

use axum::extract::State;
use freshet_core::access::{Actor, Credential, Right, Role};
use freshet_core::id::{ApiKeyId, OrganizationId, PersonalTokenId, ServiceAccountId, WorkspaceId};
use freshet_core::member::{self, Place};
use freshet_core::user::{self, User};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::sessions::person;
use super::{Answer, ok};
use crate::Api;
use crate::auth::By;
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_me)).routes(routes!(list_my_workspaces)).routes(routes!(list_roles))
}

/// Who asks.
#[derive(Serialize, utoipa::ToSchema)]
struct Me {
    /// The workspace that everything happens in.
    workspace_id: WorkspaceId,
    /// Its organization.
    organization_id: Option<OrganizationId>,
    /// Whose key it is, if it is a service account's.
    service_account_id: Option<ServiceAccountId>,
    /// The key.
    api_key_id: Option<ApiKeyId>,
    /// Whose token it is, if it is a person's.
    user: Option<User>,
    /// The token.
    personal_token_id: Option<PersonalTokenId>,
    /// What it may do in the workspace.
    scopes: Vec<&'static str>,
    /// Whether it may so in the whole organization, or something else there.
    organization_scopes: Vec<&'static str>,
}

/// The workspaces.
#[derive(Serialize, utoipa::ToSchema)]
struct Places {
    /// By the names of organizations and workspaces, 1000 at most.
    data: Vec<Place>,
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
    tag = "me",
    security(("key" = [])),
    responses((status = 200, body = Me), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_me(State(api): State<Api>, By(caller): By) -> Answer {
    let words = |rights: &[Right]| rights.iter().map(|right| right.as_str()).collect();
    let mut me = Me {
        workspace_id: caller.workspace,
        organization_id: caller.organization(),
        service_account_id: None,
        api_key_id: None,
        user: None,
        personal_token_id: None,
        scopes: words(caller.rights()),
        organization_scopes: caller
            .in_organization()
            .ok()
            .filter(|caller| caller.only.is_none())
            .map(|caller| words(caller.rights()))
            .unwrap_or_default(),
    };
    match caller.actor {
        Actor::ApiKey { key, service_account } => {
            (me.api_key_id, me.service_account_id) = (Some(key), Some(service_account));
        }
        Actor::User { user, by } => {
            me.user = Some(user::ops::get(&api.app, user).await?);
            me.personal_token_id = match by {
                Credential::Token(token) => Some(token),
                Credential::Session(_) | Credential::None => None,
            };
        }
        Actor::Command | Actor::Consent | Actor::Stranger => {}
    }
    ok(&me)
}

/// The workspaces that the person can work in. This path alone wants no `Freshet-Workspace`.
#[utoipa::path(
    get,
    path = "/me/workspaces",
    tag = "me",
    security(("key" = [])),
    responses((status = 200, body = Places), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_my_workspaces(State(api): State<Api>, By(caller): By) -> Answer {
    let by = match caller.actor {
        Actor::User { by, .. } => by,
        Actor::ApiKey { .. } | Actor::Command | Actor::Consent | Actor::Stranger => Credential::None,
    };
    ok(&Places { data: member::ops::places(&api.app, (person(&caller)?, by)).await? })
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
