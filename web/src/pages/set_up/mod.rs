//! Becoming known: the first person of an installation, and those who sign up.

use askama::Template;
use axum::Router;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use freshet_core::error::{Code, Error};
use freshet_core::session;
use freshet_core::settings::SignUp;
use freshet_core::user::{self, ops::NewUser};
use serde::Deserialize;

use super::{Hidden, again, error, page};
use crate::Web;
use crate::layout::Trouble;
use crate::visitor::{From, enter};

pub(super) fn routes() -> Router<Web> {
    Router::new().route("/set-up", get(show).post(set_up)).route("/sign-up", get(show_sign_up).post(sign_up))
}

#[derive(Template)]
#[template(path = "pages/set_up/page.html")]
struct Page<'a> {
    trouble: Option<Trouble>,
    first: bool,
    typed: &'a Typed,
}

#[derive(Template)]
#[template(path = "pages/set_up/sent.html")]
struct SentPage<'a> {
    email: &'a str,
}

#[derive(Default, Deserialize)]
struct Typed {
    #[serde(default)]
    word: Hidden,
    #[serde(default)]
    email: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: Hidden,
    #[serde(default)]
    organization: String,
}

impl Typed {
    fn new_user(&self) -> NewUser<'_> {
        NewUser { email: self.email.trim(), name: self.name.trim(), password: &self.password.0 }
    }

    /// The organization's short name, of its letters and digits.
    fn slug(&self) -> String {
        let letters = self.organization.trim().to_lowercase();
        let parts = letters.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
        let slug = parts.collect::<Vec<_>>().join("-");
        slug.chars().take(63).collect()
    }

    /// # Errors
    /// `request.invalid` for what is missing.
    fn check(&self) -> Result<(), Error> {
        if self.slug().is_empty() {
            return Err(Error::invalid("/organization", "must have a letter or a digit of the Latin alphabet"));
        }
        Ok(())
    }
}

async fn show(State(web): State<Web>) -> Response {
    match user::ops::is_to_be_set_up(&web.app).await {
        Ok(true) => page(StatusCode::OK, &Page { trouble: None, first: true, typed: &Typed::default() }),
        Ok(false) => Redirect::to("/").into_response(),
        Err(error) => error::page(&error),
    }
}

async fn set_up(State(web): State<Web>, From(origin, ip): From, Form(typed): Form<Typed>) -> Response {
    let made = async {
        web.doors.knock(ip)?;
        typed.check()?;
        let new = typed.new_user();
        user::ops::set_up(&web.app, &typed.word.0, &new, &typed.slug(), typed.organization.trim()).await?;
        session::ops::sign_in(&web.app, &typed.email, &typed.password.0, &origin).await
    };
    match made.await {
        Ok(begun) => enter(&web, &begun, "/"),
        Err(error) => again(told_of_slug(error), |trouble| Page { trouble: Some(trouble), first: true, typed: &typed }),
    }
}

async fn show_sign_up(State(web): State<Web>) -> Response {
    match web.app.settings.sign_up {
        SignUp::Open => page(StatusCode::OK, &Page { trouble: None, first: false, typed: &Typed::default() }),
        SignUp::Closed => {
            error::page(&Error::new(Code::SignUpClosed, "this installation takes people by invitation alone"))
        }
    }
}

async fn sign_up(State(web): State<Web>, From(origin, ip): From, Form(typed): Form<Typed>) -> Response {
    let made = async {
        web.doors.knock(ip)?;
        typed.check()?;
        user::ops::sign_up(&web.app, &typed.new_user(), &typed.slug(), typed.organization.trim()).await?;
        if web.app.mailer.is_there() {
            return Ok(None);
        }
        session::ops::sign_in(&web.app, &typed.email, &typed.password.0, &origin).await.map(Some)
    };
    match made.await {
        Ok(Some(begun)) => enter(&web, &begun, "/"),
        Ok(None) => page(StatusCode::OK, &SentPage { email: typed.email.trim() }),
        Err(error) => {
            again(told_of_slug(error), |trouble| Page { trouble: Some(trouble), first: false, typed: &typed })
        }
    }
}

/// The form asks for a name where the error speaks of the slug made of it.
fn told_of_slug(error: Error) -> Error {
    if error.code == Code::Conflict && error.message.contains("organization") {
        return Error::invalid("/organization", "is taken; choose another name");
    }
    error
}
