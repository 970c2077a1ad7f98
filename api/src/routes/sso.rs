//! By which issuers the organization's people sign in, which domains it has, and whom issuers know a person as.

use axum::extract::State;
use axum::http::StatusCode;
use freshet_core::domain::{self, Domain};
use freshet_core::id::{DomainId, IdentityId, SsoConnectionId};
use freshet_core::identity::{self, Identity};
use freshet_core::page::Page;
use freshet_core::sso::{self, SsoConnection, SsoConnectionNew, SsoConnectionPatch};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::sessions::person;
use super::{Answer, PageQuery, created, no_content, ok, versioned};
use crate::Api;
use crate::auth::By;
use crate::extract::{IfMatch, Json, Path, Query};
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_sso_connections, create_sso_connection))
        .routes(routes!(get_sso_connection, update_sso_connection, delete_sso_connection))
        .routes(routes!(list_domains, claim_domain))
        .routes(routes!(get_domain, delete_domain))
        .routes(routes!(verify_domain))
        .routes(routes!(list_identities))
        .routes(routes!(unlink_identity))
}

/// The connections by which people sign in, newest first.
#[utoipa::path(
    get,
    path = "/sso-connections",
    tag = "sso",
    params(PageQuery),
    security(("key" = ["sso:read"])),
    responses((status = 200, body = Page<SsoConnection>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_sso_connections(State(api): State<Api>, By(caller): By, Query(page): Query<PageQuery>) -> Answer {
    ok(&sso::ops::list(&api.app, &caller.in_organization()?, page.request()?).await?)
}

/// Makes a connection. Nobody is asked yet: the first who signs in by it shows whether it works. The issuer has to know
/// `<public_url>/sso/callback` as where to send browsers back to.
#[utoipa::path(
    post,
    path = "/sso-connections",
    tag = "sso",
    security(("key" = ["sso:write"])),
    request_body = SsoConnectionNew,
    responses((status = 201, body = SsoConnection), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn create_sso_connection(State(api): State<Api>, By(caller): By, Json(new): Json<SsoConnectionNew>) -> Answer {
    let made = sso::ops::create(&api.app, &caller.in_organization()?, &new).await?;
    created(format!("/v1/sso-connections/{}", made.id), made.row_version, &made)
}

/// One connection.
#[utoipa::path(
    get,
    path = "/sso-connections/{id}",
    tag = "sso",
    params(("id" = SsoConnectionId, Path)),
    security(("key" = ["sso:read"])),
    responses((status = 200, body = SsoConnection), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_sso_connection(State(api): State<Api>, By(caller): By, Path(id): Path<SsoConnectionId>) -> Answer {
    let found = sso::ops::get(&api.app, &caller.in_organization()?, id).await?;
    versioned(StatusCode::OK, found.row_version, &found)
}

/// Changes what is named; wants `If-Match`. With `enforce` the organization's workspaces open by the issuer's word alone,
/// from the next request on.
#[utoipa::path(
    patch,
    path = "/sso-connections/{id}",
    tag = "sso",
    params(("id" = SsoConnectionId, Path), ("If-Match" = String, Header, pattern = r#"^"[0-9]{1,18}"$"#)),
    security(("key" = ["sso:write"])),
    request_body = SsoConnectionPatch,
    responses((status = 200, body = SsoConnection), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn update_sso_connection(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<SsoConnectionId>,
    IfMatch(version): IfMatch,
    Json(patch): Json<SsoConnectionPatch>,
) -> Answer {
    let changed = sso::ops::update(&api.app, &caller.in_organization()?, id, version, &patch).await?;
    versioned(StatusCode::OK, changed.row_version, &changed)
}

/// Archives a connection, unless it is enforced: nobody comes in by it any more.
#[utoipa::path(
    delete,
    path = "/sso-connections/{id}",
    tag = "sso",
    params(("id" = SsoConnectionId, Path)),
    security(("key" = ["sso:write"])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn delete_sso_connection(State(api): State<Api>, By(caller): By, Path(id): Path<SsoConnectionId>) -> Answer {
    sso::ops::archive(&api.app, &caller.in_organization()?, id).await?;
    no_content()
}

/// A domain to be claimed.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct DomainNew {
    /// The domain, in ASCII: `acme.example`.
    #[schema(max_length = 253)]
    name: String,
}

/// The domains, newest first, those that are only claimed among them.
#[utoipa::path(
    get,
    path = "/domains",
    tag = "sso",
    params(PageQuery),
    security(("key" = ["sso:read"])),
    responses((status = 200, body = Page<Domain>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_domains(State(api): State<Api>, By(caller): By, Query(page): Query<PageQuery>) -> Answer {
    ok(&domain::ops::list(&api.app, &caller.in_organization()?, page.request()?).await?)
}

/// Claims a domain: the answer says which TXT record proves it.
#[utoipa::path(
    post,
    path = "/domains",
    tag = "sso",
    security(("key" = ["sso:write"])),
    request_body = DomainNew,
    responses((status = 201, body = Domain), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn claim_domain(State(api): State<Api>, By(caller): By, Json(new): Json<DomainNew>) -> Answer {
    let made = domain::ops::claim(&api.app, &caller.in_organization()?, &new.name).await?;
    created(format!("/v1/domains/{}", made.id), 1, &made)
}

/// One domain.
#[utoipa::path(
    get,
    path = "/domains/{id}",
    tag = "sso",
    params(("id" = DomainId, Path)),
    security(("key" = ["sso:read"])),
    responses((status = 200, body = Domain), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_domain(State(api): State<Api>, By(caller): By, Path(id): Path<DomainId>) -> Answer {
    ok(&domain::ops::get(&api.app, &caller.in_organization()?, id).await?)
}

/// Looks for the TXT record, and has the organization have the domain. Harmless when repeated.
#[utoipa::path(
    post,
    path = "/domains/{id}/verify",
    tag = "sso",
    params(("id" = DomainId, Path)),
    security(("key" = ["sso:write"])),
    responses((status = 200, body = Domain), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn verify_domain(State(api): State<Api>, By(caller): By, Path(id): Path<DomainId>) -> Answer {
    ok(&domain::ops::verify(&api.app, &caller.in_organization()?, id).await?)
}

/// Gives a domain up, unless a connection names it.
#[utoipa::path(
    delete,
    path = "/domains/{id}",
    tag = "sso",
    params(("id" = DomainId, Path)),
    security(("key" = ["sso:write"])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn delete_domain(State(api): State<Api>, By(caller): By, Path(id): Path<DomainId>) -> Answer {
    domain::ops::delete(&api.app, &caller.in_organization()?, id).await?;
    no_content()
}

/// The identities.
#[derive(Serialize, utoipa::ToSchema)]
struct Identities {
    /// Newest first, 200 at most.
    data: Vec<Identity>,
}

/// Whom issuers know the person as, newest first. New ones are linked in the dashboard, where the person can be asked to
/// prove that it is them.
#[utoipa::path(
    get,
    path = "/identities",
    tag = "me",
    security(("key" = [])),
    responses((status = 200, body = Identities), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_identities(State(api): State<Api>, By(caller): By) -> Answer {
    ok(&Identities { data: identity::ops::list(&api.app, person(&caller)?).await? })
}

/// Takes an identity away, unless it is the only way in: the issuer's word for it opens nothing any more.
#[utoipa::path(
    delete,
    path = "/identities/{id}",
    tag = "me",
    params(("id" = IdentityId, Path)),
    security(("key" = [])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn unlink_identity(State(api): State<Api>, By(caller): By, Path(id): Path<IdentityId>) -> Answer {
    identity::ops::unlink(&api.app, person(&caller)?, id).await?;
    no_content()
}
