//! Asks for TXT records: of the system's resolver, or of the one that `dns_server` names.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

use crate::error::{Code, Error, Result};

/// How long to wait for the answer.
const WAIT: Duration = Duration::from_secs(10);

/// The texts that stand at a name; none for a name that is not there, and where nobody answers.
pub(super) async fn texts(server: &str, name: &str) -> Result<Vec<String>> {
    let resolver = resolver(server)?;
    // With the dot at its end it is looked up as it is, and in no search domain of this machine.
    let found = tokio::time::timeout(WAIT, resolver.txt_lookup(format!("{name}."))).await;
    let Ok(Ok(found)) = found else { return Ok(Vec::new()) };
    let texts = found.answers().iter().filter_map(|record| match &record.data {
        RData::TXT(text) => Some(text.txt_data.iter().flatten().copied().collect::<Vec<u8>>()),
        _ => None,
    });
    Ok(texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect())
}

pub(super) fn resolver(server: &str) -> Result<TokioResolver> {
    let told = |what: &str| Error::new(Code::Settings, format!("FRESHET_DNS_SERVER: {what}"));
    let builder = if server.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| told("the system's resolver cannot be read").caused_by(error))?
    } else {
        let server: SocketAddr = server.parse().map_err(|_| told("must be `address:port`"))?;
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        let server = NameServerConfig::new(server.ip(), true, connections.into());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    builder.build().map_err(|error| told("the resolver cannot be made").caused_by(error))
}
