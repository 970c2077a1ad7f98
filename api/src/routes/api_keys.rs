//! Service accounts and their API keys.

use axum::extract::State;
use axum::http::StatusCode;
use freshet_core::access::Right;
use freshet_core::api_key::{ApiKey, NewKey, ServiceAccount, ops};
use freshet_core::error::{Error, Result as CoreResult};
use freshet_core::id::{ApiKeyId, ServiceAccountId};
use freshet_core::page::{Page, PageRequest};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, PageQuery, answer, no_content, ok, shown_once};
use crate::Api;
use crate::auth::By;
use crate::extract::{Json, Path, Query};
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_service_accounts, create_service_account))
        .routes(routes!(get_service_account, archive_service_account))
        .routes(routes!(list_api_keys, create_api_key))
        .routes(routes!(get_api_key, revoke_api_key))
        .routes(routes!(roll_api_key))
}

/// A new service account.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewServiceAccount {
    /// Unique in the workspace, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
}

/// A new key.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewApiKey {
    /// Whose key it is to be.
    service_account_id: ServiceAccountId,
    /// What it may do, at least one; none that the maker's own key lacks.
    scopes: Vec<String>,
    /// Whether it may so in every workspace of the organization, which a request names by `Freshet-Workspace`.
    #[serde(default)]
    of_organization: bool,
    /// Days until it expires, 1 to 3650; 365 if not given.
    #[serde(default = "year")]
    #[schema(minimum = 1, maximum = 3650)]
    days: i64,
}

fn year() -> i64 {
    365
}

/// How a key is rolled.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Roll {
    /// Hours that the old key goes on working, 0 to 168; 24 if not given.
    #[serde(default = "day")]
    #[schema(minimum = 0, maximum = 168)]
    overlap_hours: i64,
}

fn day() -> i64 {
    24
}

/// A key just made.
#[derive(Serialize, utoipa::ToSchema)]
struct MadeApiKey {
    #[serde(flatten)]
    key: ApiKey,
    /// The key's text, shown this once; null when an answer is given again for an `Idempotency-Key`.
    secret: Option<String>,
}

/// Which keys.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct KeysQuery {
    /// Rows, 1 to 200; 50 if not given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `next_cursor` of the page before.
    #[param(pattern = r"^v1\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    cursor: Option<String>,
    /// Only this account's.
    #[param(value_type = Option<ServiceAccountId>)]
    service_account_id: Option<ServiceAccountId>,
}

/// The service accounts, newest first.
#[utoipa::path(
    get,
    path = "/service-accounts",
    tag = "keys",
    params(PageQuery),
    security(("key" = ["keys:read"])),
    responses((status = 200, body = Page<ServiceAccount>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_service_accounts(State(api): State<Api>, By(caller): By, Query(page): Query<PageQuery>) -> Answer {
    ok(&ops::list_accounts(&api.app, &caller, page.request()?).await?)
}

/// Makes a service account, which has no key yet.
#[utoipa::path(
    post,
    path = "/service-accounts",
    tag = "keys",
    security(("key" = ["keys:write"])),
    request_body = NewServiceAccount,
    responses((status = 201, body = ServiceAccount), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn create_service_account(State(api): State<Api>, By(caller): By, Json(new): Json<NewServiceAccount>) -> Answer {
    answer(StatusCode::CREATED, &ops::create_account(&api.app, &caller, &new.name).await?)
}

/// One service account.
#[utoipa::path(
    get,
    path = "/service-accounts/{id}",
    tag = "keys",
    params(("id" = ServiceAccountId, Path)),
    security(("key" = ["keys:read"])),
    responses((status = 200, body = ServiceAccount), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_service_account(State(api): State<Api>, By(caller): By, Path(id): Path<ServiceAccountId>) -> Answer {
    ok(&ops::get_account(&api.app, &caller, id).await?)
}

/// Takes a service account away, and revokes its keys at once.
#[utoipa::path(
    delete,
    path = "/service-accounts/{id}",
    tag = "keys",
    params(("id" = ServiceAccountId, Path)),
    security(("key" = ["keys:write"])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn archive_service_account(State(api): State<Api>, By(caller): By, Path(id): Path<ServiceAccountId>) -> Answer {
    ops::archive_account(&api.app, &caller, id).await?;
    no_content()
}

/// The keys, newest first, those that work no more among them.
#[utoipa::path(
    get,
    path = "/api-keys",
    tag = "keys",
    params(KeysQuery),
    security(("key" = ["keys:read"])),
    responses((status = 200, body = Page<ApiKey>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_api_keys(State(api): State<Api>, By(caller): By, Query(query): Query<KeysQuery>) -> Answer {
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    ok(&ops::list(&api.app, &caller, query.service_account_id, page).await?)
}

/// Makes a key. Its text is in this answer and nowhere else.
#[utoipa::path(
    post,
    path = "/api-keys",
    tag = "keys",
    security(("key" = ["keys:write"])),
    request_body = NewApiKey,
    responses((status = 201, body = MadeApiKey), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn create_api_key(State(api): State<Api>, By(caller): By, Json(new): Json<NewApiKey>) -> Answer {
    let rights = new.scopes.iter().enumerate().map(|(place, scope)| {
        Right::parse(scope).map_err(|error| Error::invalid(format!("/scopes/{place}"), error.fields[0].detail.clone()))
    });
    let rights = rights.collect::<CoreResult<Vec<_>>>()?;
    let grant = ops::Grant { rights: &rights, of_organization: new.of_organization, days: new.days };
    made(ops::make(&api.app, &caller, new.service_account_id, grant).await?)
}

/// One key, without its text.
#[utoipa::path(
    get,
    path = "/api-keys/{id}",
    tag = "keys",
    params(("id" = ApiKeyId, Path)),
    security(("key" = ["keys:read"])),
    responses((status = 200, body = ApiKey), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_api_key(State(api): State<Api>, By(caller): By, Path(id): Path<ApiKeyId>) -> Answer {
    ok(&ops::get(&api.app, &caller, id).await?)
}

/// Revokes a key at once. Harmless when repeated.
#[utoipa::path(
    delete,
    path = "/api-keys/{id}",
    tag = "keys",
    params(("id" = ApiKeyId, Path)),
    security(("key" = ["keys:write"])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn revoke_api_key(State(api): State<Api>, By(caller): By, Path(id): Path<ApiKeyId>) -> Answer {
    ops::revoke(&api.app, &caller, id).await?;
    no_content()
}

/// Makes a key that takes another's place: same account and scopes; the old one goes on for a while.
#[utoipa::path(
    post,
    path = "/api-keys/{id}/roll",
    tag = "keys",
    params(("id" = ApiKeyId, Path)),
    security(("key" = ["keys:write"])),
    request_body = Roll,
    responses((status = 201, body = MadeApiKey), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn roll_api_key(
    State(api): State<Api>,
    By(caller): By,
    Path(id): Path<ApiKeyId>,
    Json(roll): Json<Roll>,
) -> Answer {
    made(ops::roll(&api.app, &caller, id, roll.overlap_hours).await?)
}

fn made(new: NewKey) -> Answer {
    let secret = new.text.expose().to_owned();
    shown_once(&MadeApiKey { key: new.key.clone(), secret: Some(secret) }, &MadeApiKey { key: new.key, secret: None })
}
