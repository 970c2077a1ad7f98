//! The HTTP client: TLS by rustls with ring, the system's certificates, no redirects, no proxy of the environment.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use freshet_core::error::{Code, Error, Result};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// How long to wait for an address to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent while an answer is read.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// The process's HTTP client for Snowflake; made once, cheap to clone.
///
/// # Errors
/// `platform.internal` when TLS cannot be set up: the machine has no certificates.
pub fn http_client() -> Result<reqwest::Client> {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client.clone());
    }
    let client = build()?;
    Ok(CLIENT.get_or_init(|| client).clone())
}

fn build() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls()?)
        .user_agent(concat!("freshet/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .build()
        .map_err(|error| Error::new(Code::Internal, "the HTTP client cannot be made").caused_by(error))
}

fn tls() -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Code::Internal, "TLS cannot be set up").caused_by(error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
