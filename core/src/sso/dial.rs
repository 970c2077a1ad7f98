//! The one way to an issuer: TLS by rustls with ring, the system's certificates, no redirects, no proxy of the environment,
//! addresses that the egress policy allows alone, answers of 256 KiB and 10 s at most.
//!
//! It is the one place where the process that serves pages dials what a tenant named. A person waits before the browser, so
//! it cannot be an operation of a worker.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use url::{Host, Url};

use crate::egress::Egress;
use crate::egress::http::{Clients, check_literal};
use crate::error::{Code, Error, Result};

/// How long a request may take, from the name's look-up to the answer's last byte.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer, at most: a document, some keys, a token.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// The way to issuers under one egress policy. Cheap to make.
pub(super) struct Dial {
    http: reqwest::Client,
    egress: Arc<Egress>,
}

impl Dial {
    /// # Errors
    /// `platform.internal` when TLS cannot be set up.
    pub(super) fn new(egress: &Arc<Egress>) -> Result<Self> {
        static CLIENTS: Clients = Clients::new(Code::SsoIssuer, |client| client.timeout(TIMEOUT));
        Ok(Self { http: CLIENTS.of(egress)?, egress: Arc::clone(egress) })
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let (parts, body) = request.into_parts();
        // What is judged is what is dialled; a name is judged by what it leads to.
        let url = parse(&parts.uri.to_string())?;
        check_literal(&self.egress, &url)?;
        let failed = |what: &str| Error::new(Code::SsoIssuer, what.to_owned());
        let mut answer = self
            .http
            .request(parts.method, url)
            .headers(parts.headers)
            .body(body)
            .send()
            .await
            .map_err(|error| failed("an issuer does not answer").caused_by(error.without_url()))?;
        let mut response = http::Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            response = response.header(name, value);
        }
        let mut bytes = Vec::new();
        loop {
            let piece = answer.chunk().await;
            let piece = piece.map_err(|error| failed("an issuer breaks off").caused_by(error.without_url()))?;
            let Some(piece) = piece else { break };
            if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(failed("an issuer's answer is longer than 256 KiB"));
            }
            bytes.extend_from_slice(&piece);
        }
        response.body(bytes).map_err(|error| failed("an issuer's answer cannot be read").caused_by(error))
    }
}

/// Reads an address of an issuer: `https`, or `http` of this machine alone, with a host and no user in it.
///
/// # Errors
/// `auth.issuer_failed`.
pub(super) fn parse(url: &str) -> Result<Url> {
    let refused = || Error::new(Code::SsoIssuer, "an issuer names an address that is not dialled");
    let parsed = Url::parse(url).map_err(|_| refused())?;
    let is_loopback = match parsed.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err(refused()),
    };
    let is_safe = parsed.scheme() == "https" || (parsed.scheme() == "http" && is_loopback);
    let names_nobody = parsed.username().is_empty() && parsed.password().is_none();
    if is_safe && names_nobody { Ok(parsed) } else { Err(refused()) }
}

impl<'c> AsyncHttpClient<'c> for Dial {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}
