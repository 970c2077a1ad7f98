//! One request and its answer: which are tried again, which end the call.
//!
//! | answer | what is done |
//! |---|---|
//! | 200, 202 | taken; 202 means that the statement runs |
//! | 401, 403 | once more with a new token |
//! | 408, 422 | the statement failed |
//! | 429 with a handle, to a GET | the statement runs |
//! | 429, 500, 502, 503, 504, none at all | the same request again, with its id and `retry=true`, after a jittered wait |
//! | anything else | an error |

use freshet_core::error::{Code, Error, Result};
use reqwest::header;
use secrecy::ExposeSecret;
use serde_json::Value;
use uuid::Uuid;

use super::answer::Refusal;
use super::{Client, ClientSettings, Statement};
use crate::sources::snowflake::decode::Inflater;

/// Bytes of an answer that is no result, at most.
const REFUSAL_BYTES_MAX: usize = 1024 * 1024;

/// What is asked of the server.
pub(super) enum Call {
    Submit { request_id: Uuid, body: Value, waits_for_handle: bool },
    Poll { handle: String },
    Partition { handle: String, number: usize },
    Cancel { handle: String },
}

impl Call {
    pub(super) fn submit(request_id: Uuid, statement: &Statement, settings: &ClientSettings) -> Self {
        let body = statement.body(&settings.context, settings.statement_timeout_s);
        Self::Submit { request_id, body, waits_for_handle: statement.waits_for_handle() }
    }

    pub(super) fn poll(handle: &str) -> Self {
        Self::Poll { handle: handle.to_owned() }
    }

    fn handle(&self) -> Option<&String> {
        match self {
            Self::Submit { .. } => None,
            Self::Poll { handle } | Self::Partition { handle, .. } | Self::Cancel { handle } => Some(handle),
        }
    }
}

/// What it says.
pub(super) enum Reply {
    /// The statement runs, under this handle.
    Running(String),
    /// A result, its body not yet read.
    Result(reqwest::Response),
}

enum Failed {
    /// Nothing will change by asking again.
    Final(Error),
    /// Another token may do.
    Token(Error),
    /// It may pass.
    Passing(Error),
}

impl Client {
    /// Sends a request until there is an answer that means something.
    pub(super) async fn call(&self, call: &Call) -> Result<Reply> {
        self.call_as(call, false).await
    }

    /// The same; `repeat` for a request that was sent before.
    pub(super) async fn call_as(&self, call: &Call, mut repeat: bool) -> Result<Reply> {
        let (mut tries, mut signed_again) = (0, false);
        loop {
            match self.attempt(call, repeat).await {
                Ok(reply) => return Ok(reply),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Token(error)) => {
                    if signed_again || !self.0.settings.sign_in.refused().await {
                        return Err(error);
                    }
                    signed_again = true;
                }
                Err(Failed::Passing(error)) => {
                    tries += 1;
                    if tries >= self.0.settings.pace.tries {
                        return Err(error);
                    }
                    tracing::debug!(error = %error.chain(), tries, "Snowflake is asked again");
                    tokio::time::sleep(self.0.settings.pace.wait(tries)).await;
                }
            }
            repeat = true;
        }
    }

    async fn attempt(&self, call: &Call, repeat: bool) -> Result<Reply, Failed> {
        let settings = &self.0.settings;
        let bearer = settings.sign_in.bearer(&self.0.http, &settings.clock).await.map_err(Failed::Final)?;
        let response = self
            .request(call, repeat)
            .bearer_auth(bearer.secret.expose_secret())
            .header("X-Snowflake-Authorization-Token-Type", bearer.kind)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "gzip")
            .send()
            .await
            .map_err(|error| self.unsent(error))?;
        let status = response.status().as_u16();
        match (status, call) {
            (200, Call::Cancel { handle }) => Ok(Reply::Running(handle.clone())),
            (200, _) => Ok(Reply::Result(response)),
            (status, _) => {
                let refusal = Refusal::parse(&whole(response).await.map_err(Failed::Passing)?);
                self.refusal(status, call, refusal)
            }
        }
    }

    fn request(&self, call: &Call, repeat: bool) -> reqwest::RequestBuilder {
        let http = &self.0.http;
        match call {
            Call::Submit { request_id, body, waits_for_handle } => {
                let retry = if repeat { "&retry=true" } else { "" };
                let path = format!("?requestId={request_id}&async={waits_for_handle}{retry}");
                http.post(self.0.url(&path)).json(body)
            }
            Call::Poll { handle } => json(http.get(self.0.url(&format!("/{handle}")))),
            Call::Partition { handle, number } => json(http.get(self.0.url(&format!("/{handle}?partition={number}")))),
            Call::Cancel { handle } => json(http.post(self.0.url(&format!("/{handle}/cancel")))),
        }
    }

    fn refusal(&self, status: u16, call: &Call, refusal: Refusal) -> Result<Reply, Failed> {
        let code = refusal.code.clone().unwrap_or_else(|| "none".into());
        let told = |ours, what: &str| Error::new(ours, format!("{what} (status {status}, code {code})"));
        let on_statement = matches!(call, Call::Poll { .. } | Call::Partition { .. });
        Err(match status {
            202 => return running(call, refusal).ok_or(Failed::Final(told(Code::SnowflakeAnswer, "no handle"))),
            429 if matches!(call, Call::Poll { .. }) && refusal.statement_handle.is_some() => {
                return running(call, refusal).ok_or(Failed::Final(told(Code::SnowflakeAnswer, "no handle")));
            }
            429 => Failed::Passing(told(Code::SnowflakeBusy, "too many requests at once")),
            401 => Failed::Token(told(Code::SnowflakeLogin, "Snowflake does not take the token")),
            403 => Failed::Token(told(Code::SnowflakeRefused, "Snowflake refuses the request")),
            500 | 502 | 503 | 504 => Failed::Passing(told(Code::SnowflakeUnreachable, "Snowflake is in trouble")),
            422 => match call {
                // It is over already, or long forgotten.
                Call::Cancel { handle } => return Ok(Reply::Running(handle.clone())),
                _ => Failed::Final(self.0.refused(status, &refusal)),
            },
            408 => Failed::Final(told(Code::SnowflakeTimeout, "the statement took longer than its limit")),
            404 | 410 if on_statement => {
                Failed::Final(told(Code::SnowflakeResultGone, "the result is not kept any more"))
            }
            404 | 522 => Failed::Final(told(Code::SnowflakeRefused, "the account is not served at this address")),
            _ => Failed::Final(told(Code::SnowflakeRequest, "Snowflake does not take the request")),
        })
    }

    /// A request that found no answer.
    fn unsent(&self, error: reqwest::Error) -> Failed {
        let base = &self.0.settings.base_url;
        if let Some(blocked) = blocked(&error) {
            return Failed::Final(blocked);
        }
        if is_tls(&error) {
            let told = format!("{base} cannot agree on TLS, or its certificate is not trusted");
            return Failed::Final(Error::new(Code::SnowflakeTls, told).caused_by(error.without_url()));
        }
        let what = if error.is_connect() { "cannot be reached" } else { "broke the connection off" };
        Failed::Passing(Error::new(Code::SnowflakeUnreachable, format!("{base} {what}")).caused_by(error.without_url()))
    }
}

/// The documents ask for a content type on every request.
fn json(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    request.header(header::CONTENT_TYPE, "application/json")
}

fn running(call: &Call, refusal: Refusal) -> Option<Reply> {
    call.handle().cloned().or(refusal.statement_handle).map(Reply::Running)
}

/// The body of an answer that is no result.
async fn whole(mut response: reqwest::Response) -> Result<Vec<u8>> {
    let broke = |error: reqwest::Error| {
        Error::new(Code::SnowflakeConnectionLost, "an answer broke off").caused_by(error.without_url())
    };
    let mut inflater = Inflater::new(is_gzip(&response));
    let mut body = Vec::new();
    let mut take = |bytes: &[u8]| {
        body.extend_from_slice(bytes);
        if body.len() > REFUSAL_BYTES_MAX { Err(std::io::Error::other("too long")) } else { Ok(()) }
    };
    let unread = |error: std::io::Error| {
        Error::new(Code::SnowflakeConnectionLost, "an answer does not inflate, or is too long").caused_by(error)
    };
    while let Some(piece) = response.chunk().await.map_err(broke)? {
        inflater.feed(&piece, &mut take).map_err(unread)?;
    }
    inflater.finish(&mut take).map_err(unread)?;
    Ok(body)
}

/// Whether an answer's body is compressed.
pub(super) fn is_gzip(response: &reqwest::Response) -> bool {
    let encoding = response.headers().get(header::CONTENT_ENCODING);
    encoding.is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"gzip"))
}

/// The egress policy's refusal, if that is why a request found no answer.
pub(in crate::sources::snowflake) fn blocked(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let told = causes(error).find_map(|cause| cause.downcast_ref::<Error>())?;
    (told.code == Code::EgressBlocked).then(|| Error::new(told.code, told.message.clone()))
}

/// Whether rustls is at the bottom of an error; its refusals come wrapped in I/O errors, more than once.
fn is_tls(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| cause.is::<rustls::Error>())
}

/// An error and what is below it.
fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |inner| {
        // An I/O error's source is that of what it wraps: what it wraps is reached by `get_ref` alone.
        match inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => inner.source(),
        }
    })
}
