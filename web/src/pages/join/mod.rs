//! Accepting an invitation: as somebody new, or as whoever has signed in.

use askama::Template;
use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use freshet_core::error::{Code, Error};
use freshet_core::member::{self, Offer};
use freshet_core::session;
use serde::Deserialize;

use super::{Hidden, Word, again, error, page};
use crate::Web;
use crate::layout::Trouble;
use crate::visitor::{From, Here, enter, query};

pub(super) fn routes() -> Router<Web> {
    Router::new().route("/invitation", get(show).post(accept))
}

#[derive(Template)]
#[template(path = "pages/join/page.html")]
struct Page<'a> {
    trouble: Option<Trouble>,
    offer: &'a Offer,
    word: &'a str,
    name: &'a str,
    form_token: &'a str,
    back: String,
}

#[derive(Deserialize)]
struct Typed {
    #[serde(default)]
    word: Hidden,
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: Hidden,
    #[serde(default)]
    form_token: String,
}

async fn show(State(web): State<Web>, here: Result<Here, Response>, Query(word): Query<Word>) -> Response {
    match member::ops::look_at(&web.app, &word.word.0).await {
        Ok(offer) => page(StatusCode::OK, &form(&offer, &word.word, "", here.ok().as_ref(), None)),
        Err(error) => error::page(&error),
    }
}

fn form<'a>(
    offer: &'a Offer,
    word: &'a Hidden,
    name: &'a str,
    here: Option<&'a Here>,
    trouble: Option<Trouble>,
) -> Page<'a> {
    let word = word.0.expose();
    let back = query(&format!("/invitation?word={word}"));
    Page { trouble, offer, word, name, form_token: here.map_or("", |here| &here.form_token), back }
}

async fn accept(
    State(web): State<Web>,
    here: Result<Here, Response>,
    From(origin, ip): From,
    Form(typed): Form<Typed>,
) -> Response {
    let offer = match member::ops::look_at(&web.app, &typed.word.0).await {
        Ok(offer) => offer,
        Err(error) => return error::page(&error),
    };
    let here = here.ok();
    let accepted: Result<Response, Error> = async {
        web.doors.knock(ip)?;
        if offer.is_known {
            let Some(here) = &here else { return Ok(Redirect::to("/sign-in").into_response()) };
            here.check(&typed.form_token)?;
            member::ops::accept(&web.app, here.known.user, &typed.word.0).await?;
            return Ok(Redirect::to("/").into_response());
        }
        member::ops::accept_as_new(&web.app, &typed.word.0, &typed.name, &typed.password.0).await?;
        match session::ops::sign_in(&web.app, &offer.email, &typed.password.0, &origin).await {
            Ok(begun) => Ok(enter(&web, &begun, "/")),
            // They are a member, of an organization that opens by its own issuer's word alone.
            Err(error) if error.code == Code::SsoRequired => {
                Ok(Redirect::to(&format!("/sso?email={}", query(&offer.email))).into_response())
            }
            Err(error) => Err(error),
        }
    }
    .await;
    accepted.unwrap_or_else(|error| {
        again(error, |trouble| form(&offer, &typed.word, &typed.name, here.as_ref(), Some(trouble)))
    })
}
