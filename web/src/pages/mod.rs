//! The pages, a folder each.

mod account;
pub(crate) mod error;
mod home;
mod join;
mod recover;
mod set_up;
mod sign_in;
mod sso;

use askama::Template;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use freshet_core::error::{Class, Code, Error};
use freshet_core::settings::Secret;
use serde::Deserialize;

use crate::Web;

pub(crate) fn routes() -> Router<Web> {
    Router::new()
        .merge(home::routes())
        .merge(sign_in::routes())
        .merge(sso::routes())
        .merge(set_up::routes())
        .merge(join::routes())
        .merge(recover::routes())
        .merge(account::routes())
}

/// A page.
fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "The page cannot be written; the log says why.").into_response()
        }
    }
}

/// A form once more, with what was wrong; a failure that is not the visitor's gets the page of failures.
fn again<T: Template>(error: Error, form: impl FnOnce(crate::layout::Trouble) -> T) -> Response {
    match (error.code.class(), error.code) {
        (Class::User, _) | (_, Code::Limited) => {
            let status = if error.code == Code::Limited {
                StatusCode::TOO_MANY_REQUESTS
            } else {
                StatusCode::UNPROCESSABLE_ENTITY
            };
            page(status, &form(crate::layout::Trouble::of(&error)))
        }
        (Class::Transient | Class::System, _) => error::page(&error),
    }
}

/// A form field that is kept out of logs.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "String")]
struct Hidden(Secret);

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text.parse().unwrap_or_default())
    }
}

/// Where to go on to.
#[derive(Debug, Default, Deserialize)]
struct Next {
    next: Option<String>,
}

/// A word that came by mail or from the log.
#[derive(Debug, Default, Deserialize)]
struct Word {
    #[serde(default)]
    word: Hidden,
}
