//! What stands before every page: its headers, the origin of changes, and how often one address may knock.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use freshet_core::error::{Code, Error};
use freshet_core::id::RequestId;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tracing::Instrument as _;

use crate::Web;
use crate::pages::error;

/// Tries to sign in, sign up or reset from one address a minute.
const KNOCKS_PER_MINUTE: u32 = 30;
const REQUEST_ID: HeaderName = HeaderName::from_static("freshet-request-id");

/// No script at all so far; nothing from elsewhere; framed by nobody; forms go home alone.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// How often each address has knocked. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Doors(Arc<DefaultKeyedRateLimiter<IpAddr>>);

impl Default for Doors {
    fn default() -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(KNOCKS_PER_MINUTE).unwrap_or(NonZeroU32::MIN));
        Self(Arc::new(RateLimiter::keyed(quota)))
    }
}

impl Doors {
    /// Lets an address knock.
    ///
    /// # Errors
    /// `request.limited`.
    pub(crate) fn knock(&self, from: Option<IpAddr>) -> Result<(), Error> {
        let Some(from) = from else { return Ok(()) };
        if self.0.len() > 10_000 {
            self.0.retain_recent();
        }
        self.0
            .check_key(&from)
            .map_err(|_| Error::new(Code::Limited, "too many tries from your address; wait a minute"))
    }
}

/// Gives each answer its id and the headers that hold for every page.
pub(crate) async fn dress(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    let id = RequestId::new();
    request.extensions_mut().insert(id);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::error_span!("request", request.id = %id, http.request.method = %method);
    let mut response = next.run(request).instrument(span.clone()).await;
    let _within = span.entered();
    tracing::info!(%method, path, status = response.status().as_u16(), "answered");
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_https(&web) {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Whether browsers reach us over TLS.
pub(crate) fn is_https(web: &Web) -> bool {
    web.app.settings.public_url().starts_with("https://")
}

/// Refuses a change that another site's page asks for: by what the browser says of the request (Fetch Metadata), or, of
/// one that says nothing, by its `Origin`. A request with neither is no browser's form.
pub(crate) async fn refuse_foreign(State(web): State<Web>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) || is_ours(&web, request.headers()) {
        return next.run(request).await;
    }
    error::page(&Error::new(Code::Forbidden, "the form was sent from another site's page"))
}

fn is_ours(web: &Web, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    match text(HeaderName::from_static("sec-fetch-site")) {
        Some(site) => site == "same-origin",
        None => text(header::ORIGIN).is_some_and(|origin| origin == web.app.settings.public_url()),
    }
}

/// The address at the other end of the connection.
pub(crate) fn peer(extensions: &axum::http::Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip())
}
