//! The HTTP client, by the egress policy.

use std::sync::Arc;
use std::time::Duration;

use freshet_core::egress::Egress;
use freshet_core::egress::http::{Clients, check_literal};
use freshet_core::error::{Code, Error, Result};
use url::Url;

/// How long to wait for an address to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be silent while an answer is read.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// An HTTP client for the host of `url`, and for no other, as long as `egress` lives. Cheap: all clients of one policy
/// share their connections.
///
/// # Errors
/// `platform.egress_blocked` for an address that the policy does not allow, of a name each request says so;
/// `platform.internal` when TLS cannot be set up.
pub fn http_client(egress: &Arc<Egress>, url: &str) -> Result<reqwest::Client> {
    static CLIENTS: Clients = Clients::new(Code::SnowflakeUnreachable, |client| {
        client.connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT)
    });
    let url =
        Url::parse(url).map_err(|error| Error::new(Code::Internal, "no address for a client").caused_by(error))?;
    check_literal(egress, &url)?;
    CLIENTS.of(egress)
}
