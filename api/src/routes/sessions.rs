//! A person's own sessions and tokens, by a personal token. New ones are made in the dashboard, where the person can be
//! asked to prove that it is them.

use axum::extract::State;
use freshet_core::access::{Actor, Caller};
use freshet_core::error::{Code, Error, Result as CoreResult};
use freshet_core::id::{PersonalTokenId, SessionId, UserId};
use freshet_core::personal_token::{self, PersonalToken};
use freshet_core::session::{self, Session};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, no_content, ok};
use crate::Api;
use crate::auth::By;
use crate::extract::Path;
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_sessions))
        .routes(routes!(revoke_session))
        .routes(routes!(list_personal_tokens))
        .routes(routes!(revoke_personal_token))
}

/// The sessions.
#[derive(Serialize, utoipa::ToSchema)]
struct Sessions {
    /// Newest first, 200 at most.
    data: Vec<Session>,
}

/// The tokens.
#[derive(Serialize, utoipa::ToSchema)]
struct PersonalTokens {
    /// Newest first, 200 at most.
    data: Vec<PersonalToken>,
}

/// The person whose token it is.
///
/// # Errors
/// `auth.scope_missing` for a service account's key.
pub(crate) fn person(caller: &Caller) -> CoreResult<UserId> {
    match caller.actor {
        Actor::User { user, .. } => Ok(user),
        Actor::ApiKey { .. } | Actor::Command | Actor::Consent | Actor::Stranger => {
            Err(Error::new(Code::Forbidden, "this is a person's own: use a personal token, `fr_user_…`"))
        }
    }
}

/// The person's open sessions in the dashboard, newest first.
#[utoipa::path(
    get,
    path = "/sessions",
    tag = "me",
    security(("key" = [])),
    responses((status = 200, body = Sessions), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_sessions(State(api): State<Api>, By(caller): By) -> Answer {
    ok(&Sessions { data: session::ops::list(&api.app, person(&caller)?).await? })
}

/// Ends one of the person's sessions at once.
#[utoipa::path(
    delete,
    path = "/sessions/{id}",
    tag = "me",
    params(("id" = SessionId, Path)),
    security(("key" = [])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn revoke_session(State(api): State<Api>, By(caller): By, Path(id): Path<SessionId>) -> Answer {
    session::ops::revoke(&api.app, person(&caller)?, id).await?;
    no_content()
}

/// The person's tokens, newest first, those that work no more among them.
#[utoipa::path(
    get,
    path = "/personal-tokens",
    tag = "me",
    security(("key" = [])),
    responses((status = 200, body = PersonalTokens), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_personal_tokens(State(api): State<Api>, By(caller): By) -> Answer {
    ok(&PersonalTokens { data: personal_token::ops::list(&api.app, person(&caller)?).await? })
}

/// Ends one of the person's tokens at once. Harmless when repeated.
#[utoipa::path(
    delete,
    path = "/personal-tokens/{id}",
    tag = "me",
    params(("id" = PersonalTokenId, Path)),
    security(("key" = [])),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn revoke_personal_token(State(api): State<Api>, By(caller): By, Path(id): Path<PersonalTokenId>) -> Answer {
    personal_token::ops::revoke(&api.app, person(&caller)?, id).await?;
    no_content()
}
