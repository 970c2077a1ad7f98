//! Errors as problem documents (RFC 9457): the only place that names status codes of failures.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use freshet_core::error::{Class, Code, Error, FieldError};
use serde::Serialize;

/// A failure, as a problem document.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// `urn:freshet:error:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What failed, on what.
    detail: String,
    /// One of a closed list.
    code: String,
    /// What to do.
    action: String,
    /// Whether the same request may work later.
    retryable: bool,
    /// The request, as in the log; also the header `Freshet-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// Which fields are at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ProblemField>,
}

/// One field at fault.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ProblemField {
    /// JSON pointer into the body, or the name of a parameter.
    pointer: String,
    /// The rule that is broken.
    detail: String,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = status(error.code);
        if status.is_server_error() {
            tracing::error!(code = error.code.as_str(), error = %error.chain(), "a request failed");
        }
        let field = |field: FieldError| ProblemField { pointer: field.pointer, detail: field.detail };
        Self {
            kind: format!("urn:freshet:error:{}", error.code),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            code: error.code.to_string(),
            action: error.code.action().to_owned(),
            retryable: error.class() == Class::Transient,
            request_id: None,
            errors: error.fields.into_iter().map(field).collect(),
            detail: error.message,
        }
    }
}

impl Problem {
    /// What failed.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether it is of this code.
    pub(crate) fn is(&self, code: Code) -> bool {
        self.code == code.as_str()
    }

    /// Names the request.
    pub(crate) fn of_request(mut self, id: &str) -> Self {
        self.request_id = Some(id.to_owned());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(std::sync::Arc::new(self));
        response
    }
}

fn status(code: Code) -> StatusCode {
    match code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Forbidden | Code::ProofTooOld | Code::SsoRequired => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Code::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
        Code::Conflict
        | Code::WrongState
        | Code::InUse
        | Code::QuotaExceeded
        | Code::StreamInUse
        | Code::IdempotencyInFlight
        | Code::ConsequenceNotAccepted => StatusCode::CONFLICT,
        Code::Limited => StatusCode::TOO_MANY_REQUESTS,
        Code::Database | Code::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal | Code::Vault | Code::Settings => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Invalid | Code::WorkspaceMissing => StatusCode::BAD_REQUEST,
        // What is wrong with what the request names: a model, a setting, a source, a cluster.
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// A panic is a defect: the log has it, the caller gets a problem like any other.
pub(crate) fn from_panic(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::from(Error::new(Code::Internal, "the request broke off by a defect")).into_response()
}
