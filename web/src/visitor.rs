//! Who is at the other end: the cookie, the session behind it, the token in every form.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use freshet_core::error::{Code, Error};
use freshet_core::id::RequestId;
use freshet_core::session::{self, Begun, Known, Origin};
use freshet_core::settings::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::pages::error;
use crate::{Web, guard};

/// A cookie's name over TLS, and over plain HTTP on one's own machine: browsers take `__Host-` for this host alone, over TLS
/// alone, for all of its paths.
type Name = (&'static str, &'static str);

const SESSION: Name = ("__Host-fr_s", "fr_s");
/// Of a sign-in that is on its way to an issuer.
const ATTEMPT: Name = ("__Host-fr_o", "fr_o");
/// As long as a person may take at the issuer.
const ATTEMPT_S: u32 = 600;

/// The token in the request's cookie; empty without one.
pub(crate) fn token(web: &Web, headers: &HeaderMap) -> Secret {
    cookie(web, headers, SESSION)
}

/// The word of the sign-in that is on its way; empty without one.
pub(crate) fn attempt(web: &Web, headers: &HeaderMap) -> Secret {
    cookie(web, headers, ATTEMPT)
}

fn cookie(web: &Web, headers: &HeaderMap, name: Name) -> Secret {
    let name = if guard::is_https(web) { name.0 } else { name.1 };
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
}

/// Has the browser keep the word of a sign-in that goes to an issuer.
pub(crate) fn keep_attempt(web: &Web, response: &mut Response, word: &Secret) {
    put(web, response, ATTEMPT, word.expose(), Some(ATTEMPT_S));
}

/// Has it forget the word: it is good once.
pub(crate) fn forget_attempt(web: &Web, response: &mut Response) {
    put(web, response, ATTEMPT, "", Some(0));
}

/// Has the browser keep a token, until it is closed or the session's time is over.
pub(crate) fn keep(web: &Web, response: &mut Response, token: &Secret) {
    put(web, response, SESSION, token.expose(), None);
}

/// Has the browser forget it, and whatever else it keeps of us.
pub(crate) fn forget(web: &Web, response: &mut Response) {
    put(web, response, SESSION, "", Some(0));
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\", \"cookies\", \"storage\""));
}

/// Sets a cookie, until the browser is closed or for so many seconds. `Lax`: one comes back by a link from an issuer.
fn put(web: &Web, response: &mut Response, name: Name, value: &str, age_s: Option<u32>) {
    let (name, secure) = if guard::is_https(web) { (name.0, "; Secure") } else { (name.1, "") };
    let age = age_s.map(|age_s| format!("; Max-Age={age_s}")).unwrap_or_default();
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{age}{secure}");
    if let Ok(value) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// Sends the browser on with a session just begun.
pub(crate) fn enter(web: &Web, begun: &Begun, next: &str) -> Response {
    let to = if begun.pending { format!("/second-factor?next={}", query(next)) } else { next.to_owned() };
    let mut response = Redirect::to(&to).into_response();
    keep(web, &mut response, &begun.token);
    response
}

/// A text as part of a query.
pub(crate) fn query(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// A path of ours to go on to: nothing that a browser could take for another host.
pub(crate) fn local(next: Option<&str>) -> &str {
    let is_local = |next: &&str| {
        next.starts_with('/')
            && !next.starts_with("//")
            && !next.contains('\\')
            && !next.contains(|letter: char| letter.is_control() || letter.is_whitespace())
    };
    next.filter(is_local).unwrap_or("/")
}

/// Where somebody signs in from.
pub(crate) struct From(pub(crate) Origin, pub(crate) Option<std::net::IpAddr>);

impl FromRequestParts<Web> for From {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Web) -> Result<Self, Self::Rejection> {
        let ip = guard::peer(&parts.extensions);
        let agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let request = parts.extensions.get::<RequestId>().copied();
        Ok(Self(Origin { ip: ip.map(|ip| ip.to_string()), user_agent: agent.map(str::to_owned), request }, ip))
    }
}

/// Somebody who has signed in.
pub(crate) struct Here {
    /// Who.
    pub(crate) known: Known,
    /// For their forms.
    pub(crate) form_token: String,
}

impl Here {
    /// Refuses a form that was not on a page of this session.
    pub(crate) fn check(&self, form_token: &str) -> Result<(), Error> {
        if bool::from(self.form_token.as_bytes().ct_eq(form_token.as_bytes())) {
            return Ok(());
        }
        Err(Error::new(Code::Forbidden, "the form is of another session; load the page again"))
    }
}

/// The token of a session's forms: who knows it does not know the session's.
fn form_token(token: &Secret) -> String {
    let mut digest = Sha256::new();
    digest.update(b"freshet form ");
    digest.update(token.expose().as_bytes());
    URL_SAFE_NO_PAD.encode(digest.finalize())
}

impl FromRequestParts<Web> for Here {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Response> {
        let token = token(web, &parts.headers);
        let request = parts.extensions.get::<RequestId>().copied();
        match session::ops::find(&web.app, &token, request).await {
            Ok(Some(known)) => Ok(Self { known, form_token: form_token(&token) }),
            Ok(None) => {
                let path = parts.uri.path_and_query().map_or("/", axum::http::uri::PathAndQuery::as_str);
                Err(Redirect::to(&format!("/sign-in?next={}", query(path))).into_response())
            }
            Err(error) => Err(error::page(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_redirect_in_next() {
        for evil in
            ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\n/b", "", "/\t/evil.example"]
        {
            assert_eq!(local(Some(evil)), "/", "{evil:?}");
        }
        assert_eq!(local(Some("/account?tab=1")), "/account?tab=1");
        assert_eq!(query("/a?b=c&d"), "/a%3Fb%3Dc%26d");
    }
}
