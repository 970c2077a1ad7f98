//! A connection: the client made when it is first used, and the small questions asked through it.

use std::net::SocketAddr;
use std::time::Duration;

use freshet_core::clock::Clock;
use freshet_core::connector::SourceQuery;
use freshet_core::error::{Code, Error, Result};
use tokio::net::TcpStream;

use super::client::{Client, ClientSettings, Pace, QueryTag, Statement, Texts};
use super::settings::{Hosts, SnowflakeSettings};

/// How long to wait for an address to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Session {
    pub(super) settings: SnowflakeSettings,
    hosts: Hosts,
    client: Option<Client>,
}

impl Session {
    pub(super) fn new(settings: SnowflakeSettings, hosts: Hosts) -> Self {
        Self { settings, hosts, client: None }
    }

    /// The client. Does not dial.
    ///
    /// # Errors
    /// `request.invalid` for settings that do not read.
    pub(super) fn client(&mut self) -> Result<Client> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let base_url = self.base_url()?;
        let client = Client::new(ClientSettings {
            sign_in: self.settings.sign_in(&base_url, None)?,
            base_url,
            context: self.settings.context(),
            statement_timeout_s: self.settings.statement_timeout_s,
            credits_per_hour: self.settings.credits_per_hour,
            pace: Pace::default(),
            clock: Clock::system(),
        })?;
        Ok(self.client.insert(client).clone())
    }

    pub(super) fn base_url(&self) -> Result<String> {
        self.hosts.base_url(&self.settings)
    }

    /// Finds the host and knocks at its port.
    ///
    /// # Errors
    /// `snowflake.unreachable`.
    pub(super) async fn reach(&self) -> Result<SocketAddr> {
        let base_url = self.base_url()?;
        let url = url::Url::parse(&base_url).map_err(|error| broken("the address does not read", error))?;
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(443));
        let unreachable = |what: &str| Error::new(Code::SnowflakeUnreachable, format!("{host}:{port} {what}"));
        let addresses: Vec<_> = tokio::net::lookup_host((host.trim_matches(['[', ']']), port))
            .await
            .map_err(|error| unreachable("does not resolve to an address").caused_by(error))?
            .collect();
        let mut last = unreachable("does not resolve to an address");
        for address in addresses {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(_)) => return Ok(address),
                Ok(Err(error)) => last = unreachable("refuses connections").caused_by(error),
                Err(_) => last = unreachable("does not answer within 10 s"),
            }
        }
        Err(last)
    }

    /// A small result as texts.
    ///
    /// # Errors
    /// As [`Client::rows`].
    pub(super) async fn texts(&mut self, sql: String, tag: &QueryTag, rows_max: usize) -> Result<Texts> {
        self.client()?.texts(&Statement::small(sql).tagged(tag.clone()), rows_max).await
    }

    /// The first cell of the first row; none for NULL and for no row.
    ///
    /// # Errors
    /// As [`Client::rows`].
    pub(super) async fn value(&mut self, sql: String, tag: &QueryTag) -> Result<Option<String>> {
        Ok(self.texts(sql, tag, 1).await?.first().map(str::to_owned))
    }

    /// The statements that were run since this was asked the last time.
    pub(super) fn queries(&mut self) -> Vec<SourceQuery> {
        self.client.as_ref().map(Client::take_queries).unwrap_or_default()
    }

    /// The database, as SHOW writes it.
    pub(super) fn database(&self) -> String {
        self.settings.context().database.unwrap_or_default()
    }

    /// Freshet's schema, as SHOW writes it.
    pub(super) fn work_schema(&self) -> String {
        super::settings::stored_name(&self.settings.work_schema)
    }
}

fn broken(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Code::Internal, what).caused_by(error)
}
