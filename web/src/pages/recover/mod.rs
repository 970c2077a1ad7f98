//! Proving an address, and a new password for one that was forgotten.

use askama::Template;
use axum::Router;
use axum::extract::{Form, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use freshet_core::{session, user};
use serde::Deserialize;

use super::{Hidden, Word, again, page};
use crate::Web;
use crate::layout::Trouble;
use crate::visitor::From;

pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/forgot", get(show_forgot).post(forgot))
        .route("/reset", get(show_reset).post(reset))
        .route("/verify", get(show_verify).post(verify))
}

#[derive(Template)]
#[template(path = "pages/recover/forgot.html")]
struct ForgotPage<'a> {
    trouble: Option<Trouble>,
    email: &'a str,
    sent: bool,
}

#[derive(Deserialize)]
struct Address {
    #[serde(default)]
    email: String,
}

async fn show_forgot() -> Response {
    page(StatusCode::OK, &ForgotPage { trouble: None, email: "", sent: false })
}

async fn forgot(State(web): State<Web>, From(_, ip): From, Form(typed): Form<Address>) -> Response {
    let asked = match web.doors.knock(ip) {
        Ok(()) => user::ops::ask_reset(&web.app, &typed.email).await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(()) => page(StatusCode::OK, &ForgotPage { trouble: None, email: &typed.email, sent: true }),
        Err(error) => again(error, |trouble| ForgotPage { trouble: Some(trouble), email: &typed.email, sent: false }),
    }
}

#[derive(Template)]
#[template(path = "pages/recover/reset.html")]
struct ResetPage<'a> {
    trouble: Option<Trouble>,
    word: &'a str,
    done: bool,
}

#[derive(Deserialize)]
struct NewPassword {
    #[serde(default)]
    word: Hidden,
    #[serde(default)]
    password: Hidden,
}

async fn show_reset(Query(word): Query<Word>) -> Response {
    page(StatusCode::OK, &ResetPage { trouble: None, word: word.word.0.expose(), done: false })
}

async fn reset(State(web): State<Web>, From(_, ip): From, Form(typed): Form<NewPassword>) -> Response {
    let done = match web.doors.knock(ip) {
        Ok(()) => session::ops::reset(&web.app, &typed.word.0, &typed.password.0).await,
        Err(error) => Err(error),
    };
    let word = typed.word.0.expose();
    match done {
        Ok(_) => page(StatusCode::OK, &ResetPage { trouble: None, word, done: true }),
        Err(error) => again(error, |trouble| ResetPage { trouble: Some(trouble), word, done: false }),
    }
}

#[derive(Template)]
#[template(path = "pages/recover/verify.html")]
struct VerifyPage<'a> {
    trouble: Option<Trouble>,
    word: &'a str,
    done: bool,
}

/// A page with a button: programs that look into mail follow links, and would spend the word.
async fn show_verify(Query(word): Query<Word>) -> Response {
    page(StatusCode::OK, &VerifyPage { trouble: None, word: word.word.0.expose(), done: false })
}

async fn verify(State(web): State<Web>, From(_, ip): From, Form(typed): Form<Word>) -> Response {
    let done = match web.doors.knock(ip) {
        Ok(()) => user::ops::verify(&web.app, &typed.word.0).await,
        Err(error) => Err(error),
    };
    let word = typed.word.0.expose();
    match done {
        Ok(_) => page(StatusCode::OK, &VerifyPage { trouble: None, word, done: true }),
        Err(error) => again(error, |trouble| VerifyPage { trouble: Some(trouble), word, done: false }),
    }
}
