//! Where browsers come back from a consent. There is no key here: the state proves that we asked.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use freshet_core::consent::ops;
use freshet_core::error::Code;
use serde::Deserialize;

use crate::Api;

/// Where it is.
pub(crate) const PATH: &str = ops::CALLBACK;

pub(crate) fn router() -> Router<Api> {
    Router::new().route(ops::CALLBACK, get(come_back))
}

/// What a source's page sends back (RFC 6749, section 4.1.2).
#[derive(Deserialize)]
struct Returned {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
}

async fn come_back(State(api): State<Api>, Query(returned): Query<Returned>) -> Response {
    let told = match returned {
        Returned { state: Some(state), code: Some(code), error: None } => {
            match ops::come_back(&api.app, &state, &code.parse().unwrap_or_default()).await {
                Ok(_) => (StatusCode::OK, "Thank you. Freshet signs in now; this page can be closed.".to_owned()),
                Err(error) if error.code == Code::NotFound => {
                    (StatusCode::BAD_REQUEST, format!("Nothing was connected: {}. Begin again.", error.message))
                }
                Err(error) => {
                    tracing::error!(error = %error.chain(), "a consent could not be taken");
                    (StatusCode::SERVICE_UNAVAILABLE, "Freshet cannot take the consent now. Begin again.".to_owned())
                }
            }
        }
        // The word is the source's, from the address: it is not repeated on a page.
        Returned { error: Some(_), .. } => {
            (StatusCode::OK, "Nothing was connected: the consent was not given.".to_owned())
        }
        Returned { .. } => {
            (StatusCode::BAD_REQUEST, "Nothing was connected: `state` and `code` are missing.".to_owned())
        }
    };
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::REFERRER_POLICY, "no-referrer")];
    (told.0, plain, told.1).into_response()
}
