//! HTTP clients that dial what a policy allows: TLS by rustls with ring, the system's certificates, no redirects, no proxy
//! of the environment.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use super::Egress;
use crate::error::{Code, Error, Result};

/// The clients of one purpose: one for each policy that somebody holds, so that all of a policy share their connections.
pub struct Clients {
    unreachable: Code,
    limits: fn(ClientBuilder) -> ClientBuilder,
    made: Mutex<Vec<(Weak<Egress>, Client)>>,
}

impl Clients {
    /// `unreachable` is the error of a name that leads nowhere; `limits` says how long things may take.
    #[must_use]
    pub const fn new(unreachable: Code, limits: fn(ClientBuilder) -> ClientBuilder) -> Self {
        Self { unreachable, limits, made: Mutex::new(Vec::new()) }
    }

    /// The client of a policy, good as long as that lives. It judges names alone: [`check_literal`] comes before each request.
    ///
    /// # Errors
    /// `platform.internal` when TLS cannot be set up.
    pub fn of(&self, egress: &Arc<Egress>) -> Result<Client> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|(policy, _)| policy.strong_count() > 0);
        if let Some((_, client)) = made.iter().find(|(policy, _)| policy.as_ptr() == Arc::as_ptr(egress)) {
            return Ok(client.clone());
        }
        let judged = Judged { egress: Arc::downgrade(egress), unreachable: self.unreachable };
        let client = Client::builder()
            .tls_backend_preconfigured(tls()?)
            .user_agent(concat!("freshet/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(judged);
        let client = (self.limits)(client)
            .build()
            .map_err(|error| Error::new(Code::Internal, "the HTTP client cannot be made").caused_by(error))?;
        made.push((Arc::downgrade(egress), client.clone()));
        Ok(client)
    }
}

/// Judges a host that is an address: the client asks nobody for it.
///
/// # Errors
/// `platform.egress_blocked`.
pub fn check_literal(egress: &Egress, url: &Url) -> Result<()> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::from(address),
        Some(Host::Ipv6(address)) => IpAddr::from(address),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    egress.check(url.host_str().unwrap_or_default(), [address])
}

/// Looks names up for the client, which dials what comes of it. The clients of a policy go when it goes.
struct Judged {
    egress: Weak<Egress>,
    unreachable: Code,
}

impl Resolve for Judged {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, unreachable) = (self.egress.upgrade(), self.unreachable);
        Box::pin(async move {
            let egress = egress.ok_or("nobody holds the policy any more")?;
            // The client puts its own port in place of 0.
            let addresses = egress.addresses(name.as_str(), 0, unreachable).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
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
