//! What cannot be shown: not found, not allowed, broken.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use freshet_core::error::{Class, Code, Error};

#[derive(Template)]
#[template(path = "pages/error/page.html")]
struct Page<'a> {
    title: &'static str,
    told: &'a str,
    action: &'a str,
}

/// A failure as a page.
pub(crate) fn page(error: &Error) -> Response {
    let (status, title) = match error.code {
        Code::NotFound => (StatusCode::NOT_FOUND, "There is no such page"),
        Code::Forbidden => (StatusCode::FORBIDDEN, "That is not allowed"),
        Code::Limited => (StatusCode::TOO_MANY_REQUESTS, "Too many tries"),
        code => match code.class() {
            Class::User => (StatusCode::UNPROCESSABLE_ENTITY, "That did not work"),
            Class::Transient => (StatusCode::SERVICE_UNAVAILABLE, "Not at the moment"),
            Class::System => {
                tracing::error!(error = %error.chain(), "a page failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "Something is broken")
            }
        },
    };
    let action = match error.code {
        Code::Forbidden => "Go back, load the page again and repeat it.",
        Code::NotFound => "The address may be mistyped, or what it showed is gone.",
        code => code.action(),
    };
    super::page(status, &Page { title, told: &error.message, action })
}

/// No page has this path.
pub(crate) async fn not_found() -> Response {
    page(&Error::new(Code::NotFound, "no page has this address"))
}
