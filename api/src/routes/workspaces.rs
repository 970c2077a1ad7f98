//! The organization, and its workspaces.

use axum::extract::State;
use axum::http::StatusCode;
use freshet_core::deletion::{self, Deletion};
use freshet_core::id::WorkspaceId;
use freshet_core::organization::{self, EgressTold, Organization, OrganizationPatch};
use freshet_core::page::Page;
use freshet_core::workspace::{self, Workspace, WorkspacePatch};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, PageQuery, created, ok, versioned};
use crate::Api;
use crate::auth::By;
use crate::extract::{IfMatch, Json, Path, Query};
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(get_organization, update_organization))
        .routes(routes!(get_workspace, update_workspace))
        .routes(routes!(list_workspaces, create_workspace))
        .routes(routes!(get_one_workspace, update_one_workspace, delete_workspace))
        .routes(routes!(restore_workspace))
}

/// A new workspace.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewWorkspace {
    /// Its short name, 1 to 63 of a-z, 0-9 and -; unique in the organization.
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$")]
    slug: String,
    /// Its name on the screen, 1 to 200 characters; the slug if not given.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
}

/// The organization, and what is said of it elsewhere.
#[derive(Serialize, utoipa::ToSchema)]
struct OrganizationBody {
    #[serde(flatten)]
    organization: Organization,
    /// Where workers dial for it; set by whoever runs the installation.
    egress: EgressTold,
}

/// The organization of the key's workspace.
#[utoipa::path(
    get,
    path = "/organization",
    tag = "organization",
    security(("key" = ["organization:read"])),
    responses((status = 200, body = OrganizationBody), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_organization(State(api): State<Api>, By(caller): By) -> Answer {
    let caller = caller.in_organization()?;
    let organization = organization::ops::get(&api.app, &caller).await?;
    let egress = organization::ops::told_egress(&api.app, &caller).await?;
    versioned(StatusCode::OK, organization.row_version, &OrganizationBody { organization, egress })
}

/// Changes the organization; wants `If-Match`, and rights in the whole of it.
#[utoipa::path(
    patch,
    path = "/organization",
    tag = "organization",
    params(("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#)),
    security(("key" = ["organization:write"])),
    request_body = OrganizationPatch,
    responses((status = 200, body = OrganizationBody), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn update_organization(
    State(api): State<Api>,
    By(caller): By,
    IfMatch(version): IfMatch,
    Json(patch): Json<OrganizationPatch>,
) -> Answer {
    let caller = caller.in_organization()?;
    let organization = organization::ops::update(&api.app, &caller, version, &patch).await?;
    let egress = organization::ops::told_egress(&api.app, &caller).await?;
    versioned(StatusCode::OK, organization.row_version, &OrganizationBody { organization, egress })
}

/// The workspace that the request is for.
#[utoipa::path(
    get,
    path = "/workspace",
    tag = "workspaces",
    security(("key" = [])),
    responses((status = 200, body = Workspace), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_workspace(State(api): State<Api>, By(caller): By) -> Answer {
    let found = workspace::ops::get(&api.app, &caller).await?;
    versioned(StatusCode::OK, found.row_version, &found)
}

/// Changes the workspace that the request is for: its name, and how long its history is kept. Wants `If-Match`.
#[utoipa::path(
    patch,
    path = "/workspace",
    tag = "workspaces",
    params(("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#)),
    security(("key" = ["workspaces:write"])),
    request_body = WorkspacePatch,
    responses((status = 200, body = Workspace), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn update_workspace(
    State(api): State<Api>,
    By(caller): By,
    IfMatch(version): IfMatch,
    Json(patch): Json<WorkspacePatch>,
) -> Answer {
    let of = caller.in_organization()?;
    let changed = workspace::ops::update(&api.app, &of, caller.workspace, version, &patch).await?;
    versioned(StatusCode::OK, changed.row_version, &changed)
}

/// One workspace of the organization.
#[utoipa::path(
    get,
    path = "/workspaces/{id}",
    tag = "workspaces",
    params(("id" = WorkspaceId, Path)),
    security(("key" = [])),
    responses((status = 200, body = Workspace), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_one_workspace(State(api): State<Api>, By(caller): By, Path(id): Path<WorkspaceId>) -> Answer {
    let found = workspace::ops::get_of(&api.app, &caller.in_organization()?, id).await?;
    versioned(StatusCode::OK, found.row_version, &found)
}

/// Changes a workspace of the organization; wants `If-Match`.
#[utoipa::path(
    patch,
    path = "/workspaces/{id}",
    tag = "workspaces",
    params(("id" = WorkspaceId, Path), ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#)),
    security(("key" = ["workspaces:write"])),
    request_body = WorkspacePatch,
    responses((status = 200, body = Workspace), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn update_one_workspace(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<WorkspaceId>,
    IfMatch(version): IfMatch,
    Json(patch): Json<WorkspacePatch>,
) -> Answer {
    let changed = workspace::ops::update(&api.app, &caller.in_organization()?, id, version, &patch).await?;
    versioned(StatusCode::OK, changed.row_version, &changed)
}

/// What makes sure that this workspace is meant.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    /// The workspace's slug.
    confirm: Option<String>,
}

/// Deletes a workspace and all that is in it. At once its keys work no more, nothing starts, and runs under way are
/// cancelled; until `delete_after` it can be restored. Then its secrets are destroyed and its rows go, and a line of the
/// organization's audit log says how many. What it wrote at clusters and sources stays, and is listed.
#[utoipa::path(
    delete,
    path = "/workspaces/{id}",
    tag = "workspaces",
    params(("id" = WorkspaceId, Path), DeleteQuery),
    security(("key" = ["workspaces:delete"])),
    responses((status = 200, body = Deletion), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn delete_workspace(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<WorkspaceId>,
    Query(query): Query<DeleteQuery>,
) -> Answer {
    ok(&deletion::ops::request(&api.app, &caller.in_organization()?, id, query.confirm.as_deref()).await?)
}

/// Restores a workspace that is deleted, until `delete_after`. A person may ask from within it; its own keys may not.
#[utoipa::path(
    post,
    path = "/workspaces/{id}/restore",
    tag = "workspaces",
    params(("id" = WorkspaceId, Path)),
    security(("key" = ["workspaces:delete"])),
    responses((status = 200, body = Workspace), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn restore_workspace(State(api): State<Api>, By(caller): By, Path(id): Path<WorkspaceId>) -> Answer {
    let restored = deletion::ops::restore(&api.app, &caller.in_organization()?, id).await?;
    versioned(StatusCode::OK, restored.row_version, &restored)
}

/// The workspaces of the organization, newest first; of a key for one workspace, that one.
#[utoipa::path(
    get,
    path = "/workspaces",
    tag = "workspaces",
    params(PageQuery),
    security(("key" = [])),
    responses((status = 200, body = Page<Workspace>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_workspaces(State(api): State<Api>, By(caller): By, Query(page): Query<PageQuery>) -> Answer {
    ok(&workspace::ops::list(&api.app, &caller.in_organization()?, page.request()?).await?)
}

/// Makes a workspace; wants rights in the whole organization.
#[utoipa::path(
    post,
    path = "/workspaces",
    tag = "workspaces",
    security(("key" = ["workspaces:write"])),
    request_body = NewWorkspace,
    responses((status = 201, body = Workspace), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn create_workspace(State(api): State<Api>, By(caller): By, Json(new): Json<NewWorkspace>) -> Answer {
    let name = new.name.as_deref().unwrap_or(&new.slug);
    let made = workspace::ops::create(&api.app, &caller.in_organization()?, &new.slug, name).await?;
    created(format!("/v1/workspaces/{}", made.id), made.row_version, &made)
}
