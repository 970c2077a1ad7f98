//! The HTTP client: TLS by rustls with ring, the system's certificates, no redirects, no proxy of the environment, and no
//! address that the egress policy does not allow.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use freshet_core::egress::Egress;
use freshet_core::error::{Code, Error, Result};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

/// How long to wait for an address to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent while an answer is read.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// An HTTP client for the host of `url`, and for no other, as long as `egress` lives. Cheap: all clients of one policy
/// share their connections.
///
/// # Errors
/// `platform.egress_blocked` for an address that the policy does not allow, of a name each request says so;
/// `platform.internal` when TLS cannot be set up: the machine has no certificates.
pub fn http_client(egress: &Arc<Egress>, url: &str) -> Result<reqwest::Client> {
    static CLIENTS: Mutex<Vec<(Weak<Egress>, reqwest::Client)>> = Mutex::new(Vec::new());
    check_literal(egress, url)?;
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    clients.retain(|(policy, _)| policy.strong_count() > 0);
    if let Some((_, client)) = clients.iter().find(|(policy, _)| policy.as_ptr() == Arc::as_ptr(egress)) {
        return Ok(client.clone());
    }
    let client = build(egress)?;
    clients.push((Arc::downgrade(egress), client.clone()));
    Ok(client)
}

/// Judges a host that is an address: the client asks nobody for it.
fn check_literal(egress: &Egress, url: &str) -> Result<()> {
    let url =
        Url::parse(url).map_err(|error| Error::new(Code::Internal, "no address for a client").caused_by(error))?;
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::from(address),
        Some(Host::Ipv6(address)) => IpAddr::from(address),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    egress.check(url.host_str().unwrap_or_default(), [address])
}

/// Looks names up for the client, which dials what comes of it. The clients of a policy go when it goes.
struct Judged(Weak<Egress>);

impl Resolve for Judged {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = self.0.upgrade();
        Box::pin(async move {
            let egress = egress.ok_or("nobody holds the policy any more")?;
            // The client puts its own port in place of 0.
            let addresses = egress.addresses(name.as_str(), 0, Code::SnowflakeUnreachable).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

fn build(egress: &Arc<Egress>) -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls()?)
        .user_agent(concat!("freshet/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .dns_resolver(Judged(Arc::downgrade(egress)))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .build()
        .map_err(|error| Error::new(Code::Internal, "the HTTP client cannot be made").caused_by(error))
}

/// TLS by rustls with ring, and the certificates of the machine, which are read once.
///
/// # Errors
/// `platform.internal` when the machine cannot do TLS.
pub fn tls() -> Result<ClientConfig> {
    static CONFIG: OnceLock<ClientConfig> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Code::Internal, "TLS cannot be set up").caused_by(error))?;
    Ok(CONFIG.get_or_init(|| config.with_root_certificates(roots).with_no_client_auth()).clone())
}
