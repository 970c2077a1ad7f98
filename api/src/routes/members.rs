//! Who belongs to the organization, and who is invited.

use axum::extract::State;
use axum::http::StatusCode;
use freshet_core::access::Role;
use freshet_core::id::{InvitationId, MembershipId, WorkspaceId};
use freshet_core::member::{Invitation, Member, ops};
use freshet_core::page::Page;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, PageQuery, no_content, ok, shown_once, versioned};
use crate::Api;
use crate::auth::By;
use crate::extract::{IfMatch, Json, Path, Query};
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_members))
        .routes(routes!(get_member, update_member, remove_member))
        .routes(routes!(list_invitations, create_invitation))
        .routes(routes!(revoke_invitation))
}

/// What a member is to be.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct MemberPatch {
    /// As what; no role that may do more than the caller.
    role: Role,
}

/// A new invitation.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct InvitationNew {
    /// To whom.
    #[schema(format = Email, max_length = 254)]
    email: String,
    /// As what; no role that may do more than the caller.
    role: Role,
    /// For this workspace; for the whole organization if not given.
    workspace_id: Option<WorkspaceId>,
}

/// An invitation just made.
#[derive(Serialize, utoipa::ToSchema)]
struct MadeInvitation {
    #[serde(flatten)]
    invitation: Invitation,
    /// Where it is accepted, shown this once; null where it went out by mail.
    url: Option<String>,
}

/// The members, newest first; of a caller for one workspace, those whose roles count there.
#[utoipa::path(
    get,
    path = "/members",
    tag = "members",
    params(PageQuery),
    security(("key" = ["members:read"])),
    responses((status = 200, body = Page<Member>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_members(State(api): State<Api>, By(caller): By, Query(page): Query<PageQuery>) -> Answer {
    ok(&ops::list(&api.app, &caller.in_organization()?, page.request()?).await?)
}

/// One member.
#[utoipa::path(
    get,
    path = "/members/{id}",
    tag = "members",
    params(("id" = MembershipId, Path)),
    security(("key" = ["members:read"])),
    responses((status = 200, body = Member), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_member(State(api): State<Api>, By(caller): By, Path(id): Path<MembershipId>) -> Answer {
    let found = ops::get(&api.app, &caller.in_organization()?, id).await?;
    versioned(StatusCode::OK, found.row_version, &found)
}

/// Gives a member another role; wants `If-Match`. An organization keeps an owner.
#[utoipa::path(
    patch,
    path = "/members/{id}",
    tag = "members",
    params(("id" = MembershipId, Path), ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#)),
    security(("key" = ["members:write"])),
    request_body = MemberPatch,
    responses((status = 200, body = Member), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn update_member(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<MembershipId>,
    IfMatch(version): IfMatch,
    Json(patch): Json<MemberPatch>,
) -> Answer {
    let changed = ops::set_role(&api.app, &caller.in_organization()?, id, version, patch.role).await?;
    versioned(StatusCode::OK, changed.row_version, &changed)
}

/// Takes a member away: from the next request on they may nothing there. Wants `members:write`, but of oneself.
#[utoipa::path(
    delete,
    path = "/members/{id}",
    tag = "members",
    params(("id" = MembershipId, Path)),
    security(("key" = [])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn remove_member(State(api): State<Api>, By(caller): By, Path(id): Path<MembershipId>) -> Answer {
    ops::remove(&api.app, &caller.in_organization()?, id).await?;
    no_content()
}

/// The invitations, newest first, those that are over among them.
#[utoipa::path(
    get,
    path = "/invitations",
    tag = "members",
    params(PageQuery),
    security(("key" = ["members:read"])),
    responses((status = 200, body = Page<Invitation>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_invitations(State(api): State<Api>, By(caller): By, Query(page): Query<PageQuery>) -> Answer {
    ok(&ops::invitations(&api.app, &caller.in_organization()?, page.request()?).await?)
}

/// Offers a role to an address, by mail where the installation has mail.
#[utoipa::path(
    post,
    path = "/invitations",
    tag = "members",
    security(("key" = ["members:write"])),
    request_body = InvitationNew,
    responses((status = 201, body = MadeInvitation), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn create_invitation(State(api): State<Api>, By(caller): By, Json(new): Json<InvitationNew>) -> Answer {
    let made = ops::invite(&api.app, &caller.in_organization()?, &new.email, new.workspace_id, new.role).await?;
    let url = made.url.map(|url| url.expose().to_owned());
    let kept = MadeInvitation { invitation: made.invitation.clone(), url: None };
    shown_once(&MadeInvitation { invitation: made.invitation, url }, &kept)
}

/// Takes an invitation back. Harmless when repeated.
#[utoipa::path(
    delete,
    path = "/invitations/{id}",
    tag = "members",
    params(("id" = InvitationId, Path)),
    security(("key" = ["members:write"])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn revoke_invitation(State(api): State<Api>, By(caller): By, Path(id): Path<InvitationId>) -> Answer {
    ops::revoke_invitation(&api.app, &caller.in_organization()?, id).await?;
    no_content()
}
