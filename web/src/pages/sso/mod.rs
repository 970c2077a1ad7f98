//! Signing in with an organization: from an address to its issuer, there, and back.
//!
//! A browser is sent to an issuer by a link and never as the answer to a form: the policy of pages keeps forms at home, and
//! where a form's answer leads is part of the form.

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use freshet_core::error::{Code, Error};
use freshet_core::id::SsoConnectionId;
use freshet_core::sso::Door;
use freshet_core::sso::sign_in::{Came, Purpose, Returned, Started, come_back, doors_for, doors_of, start};
use serde::Deserialize;

use super::{Hidden, again, error, page};
use crate::Web;
use crate::layout::Trouble;
use crate::visitor::{self, From, Here, enter, local, query};

pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/sso", get(show))
        .route("/sso/start", get(begin))
        .route(freshet_core::sso::CALLBACK, get(returned))
}

#[derive(Template)]
#[template(path = "pages/sso/page.html")]
struct Page<'a> {
    trouble: Option<Trouble>,
    email: &'a str,
    next: &'a str,
}

#[derive(Template)]
#[template(path = "pages/sso/doors.html")]
struct DoorsPage<'a> {
    doors: Vec<(&'a Door, String)>,
    organization: &'a str,
}

#[derive(Template)]
#[template(path = "pages/sso/leave.html")]
struct LeavePage<'a> {
    url: &'a str,
}

#[derive(Template)]
#[template(path = "pages/sso/refused.html")]
struct RefusedPage<'a> {
    told: &'a str,
    action: &'a str,
}

#[derive(Debug, Default, Deserialize)]
struct Asked {
    email: Option<String>,
    organization: Option<String>,
    connection: Option<String>,
    /// Whether it is to prove once more that it is them.
    again: Option<String>,
    next: Option<String>,
}

async fn show(State(web): State<Web>, From(_, ip): From, Query(asked): Query<Asked>) -> Response {
    let next = local(asked.next.as_deref());
    let Some(email) = asked.email.as_deref() else {
        return page(StatusCode::OK, &Page { trouble: None, email: "", next });
    };
    let found = match web.doors.knock(ip) {
        Ok(()) => doors_for(&web.app, email).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(doors) => choose(&doors, next),
        Err(error) => again(error, |trouble| Page { trouble: Some(trouble), email, next }),
    }
}

/// The ways in. Of a single one the page goes on by itself.
fn choose(doors: &[Door], next: &str) -> Response {
    let path = |door: &Door| format!("/sso/start?connection={}&next={}", door.id, query(next));
    let organization = doors.first().map_or("", |door| &door.organization_name);
    let doors = doors.iter().map(|door| (door, path(door))).collect();
    page(StatusCode::OK, &DoorsPage { doors, organization })
}

async fn begin(
    State(web): State<Web>,
    here: Result<Here, Response>,
    From(_, ip): From,
    Query(asked): Query<Asked>,
) -> Response {
    let (next, here) = (local(asked.next.as_deref()), here.ok());
    let started = async {
        web.doors.knock(ip)?;
        let id = match (&asked.connection, &asked.organization) {
            (Some(id), _) => id.parse::<SsoConnectionId>().map_err(|_| Error::not_found("sign-in connection"))?,
            (None, organization) => {
                let doors = doors_of(&web.app, organization.as_deref().unwrap_or_default()).await?;
                match doors.as_slice() {
                    [door] => door.id,
                    _ => return Ok(Err(choose(&doors, next))),
                }
            }
        };
        let purpose = match (&asked.again, &here) {
            (Some(_), Some(here)) => Purpose::Prove(&here.known),
            (Some(_), None) | (None, _) => Purpose::SignIn,
        };
        Ok(Ok(start(&web.app, id, purpose, next).await?))
    };
    match started.await {
        Ok(Ok(started)) => {
            let mut response = Redirect::to(&started.url).into_response();
            visitor::keep_attempt(&web, &mut response, &started.word);
            response
        }
        Ok(Err(choice)) => choice,
        Err(error) => refused(&error),
    }
}

/// The page that leads to an issuer after a form: by a link, which it follows by itself.
pub(super) fn leave(web: &Web, started: &Started) -> Response {
    let mut response = page(StatusCode::OK, &LeavePage { url: &started.url });
    visitor::keep_attempt(web, &mut response, &started.word);
    response
}

#[derive(Deserialize)]
struct Back {
    #[serde(default)]
    state: String,
    #[serde(default)]
    code: Hidden,
    iss: Option<String>,
    error: Option<String>,
}

async fn returned(
    State(web): State<Web>,
    here: Result<Here, Response>,
    From(origin, _): From,
    headers: HeaderMap,
    Query(back): Query<Back>,
) -> Response {
    let word = visitor::attempt(&web, &headers);
    let returned =
        Returned { state: &back.state, code: back.code.0, iss: back.iss.as_deref(), error: back.error.as_deref() };
    let known = here.ok().map(|here| here.known);
    // Who has no sign-in on its way is turned away before anybody is asked: there is nothing to knock at.
    let mut response = match come_back(&web.app, &word, &returned, known.as_ref(), &origin).await {
        Ok((Came::In(begun), next)) => enter(&web, &begun, local(Some(&next))),
        Ok((Came::Linked(token) | Came::Proved(token), next)) => {
            let mut response = Redirect::to(local(Some(&next))).into_response();
            visitor::keep(&web, &mut response, &token);
            response
        }
        Err(error) => refused(&error),
    };
    visitor::forget_attempt(&web, &mut response);
    response
}

fn refused(error: &Error) -> Response {
    let status = match error.code {
        Code::SsoRefused => StatusCode::UNPROCESSABLE_ENTITY,
        Code::SsoIssuer => {
            tracing::warn!(error = %error.chain(), "an issuer failed");
            StatusCode::BAD_GATEWAY
        }
        _ => return error::page(error),
    };
    page(status, &RefusedPage { told: &error.message, action: error.code.action() })
}
