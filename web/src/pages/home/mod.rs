//! The start: where a person can work.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use freshet_core::access::Credential;
use freshet_core::error::Error;
use freshet_core::member::{self, Place};
use freshet_core::user;

use super::{error, page};
use crate::Web;
use crate::visitor::Here;

pub(super) fn routes() -> Router<Web> {
    Router::new().route("/", get(show))
}

#[derive(Template)]
#[template(path = "pages/home/page.html")]
struct Page {
    who: String,
    form_token: String,
    places: Vec<Place>,
    /// Whether another organization's issuer vouched for them: then their own proof opens the rest.
    confined: bool,
}

async fn show(State(web): State<Web>, here: Result<Here, Response>) -> Response {
    let here = match here {
        Ok(here) => here,
        Err(elsewhere) => {
            return match user::ops::is_to_be_set_up(&web.app).await {
                Ok(true) => Redirect::to("/set-up").into_response(),
                Ok(false) => elsewhere,
                Err(error) => error::page(&error),
            };
        }
    };
    shown(&web, &here).await.unwrap_or_else(|error| error::page(&error))
}

async fn shown(web: &Web, here: &Here) -> Result<Response, Error> {
    let who = user::ops::get(&web.app, here.known.user).await?.name;
    let places = member::ops::places(&web.app, (here.known.user, Credential::Session(here.known.session))).await?;
    let confined = here.known.confined_to.is_some();
    Ok(page(StatusCode::OK, &Page { who, form_token: here.form_token.clone(), places, confined }))
}
