//! A connection: the client made when it is first used, and the small questions asked through it.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use freshet_core::clock::Clock;
use freshet_core::connector::{Granted, LockedSecret, SecretKeeper, SourceQuery};
use freshet_core::egress::Egress;
use freshet_core::error::{Code, Error, Result};
use freshet_core::settings::Secret;
use secrecy::{ExposeSecret, SecretString};

use super::client::{Client, ClientSettings, Pace, QueryTag, Statement, Texts, http_client};
use super::settings::{Hosts, REFRESH_TOKEN, SnowflakeSettings, no_consent};
use super::sign_in::oauth::{LockedToken, RefreshTokens};

pub(super) struct Session {
    pub(super) settings: SnowflakeSettings,
    hosts: Hosts,
    egress: Arc<Egress>,
    client: Option<Client>,
    keeper: Option<Arc<dyn SecretKeeper>>,
}

/// The connection's refresh token, where its secrets lie.
struct Stored(Arc<dyn SecretKeeper>);

struct StoredLock(Box<dyn LockedSecret>);

#[async_trait]
impl RefreshTokens for Stored {
    async fn lock(&self) -> Result<Box<dyn LockedToken>> {
        let locked = self.0.lock(REFRESH_TOKEN).await?.ok_or_else(no_consent)?;
        Ok(Box::new(StoredLock(locked)))
    }
}

#[async_trait]
impl LockedToken for StoredLock {
    fn token(&self) -> SecretString {
        SecretString::from(self.0.text().to_owned())
    }

    async fn replace(self: Box<Self>, token: SecretString) -> Result<()> {
        self.0.replace(token.expose_secret()).await
    }
}

impl Session {
    pub(super) fn new(settings: SnowflakeSettings, hosts: Hosts, egress: Arc<Egress>) -> Self {
        Self { settings, hosts, egress, client: None, keeper: None }
    }

    /// Takes and keeps the refresh token there.
    pub(super) fn keep_secrets(&mut self, keeper: Arc<dyn SecretKeeper>) {
        self.keeper = Some(keeper);
        self.client = None;
    }

    /// Gives the code of a consent for a refresh token.
    ///
    /// # Errors
    /// As [`OAuthApp::exchange`].
    pub(super) async fn finish_consent(&self, redirect_url: &str, code: &Secret, verifier: &Secret) -> Result<Granted> {
        let base_url = self.base_url()?;
        let http = http_client(&self.egress, &base_url)?;
        let app = self.settings.oauth_app(base_url)?;
        let text = |secret: &Secret| SecretString::from(secret.expose().to_owned());
        let (code, verifier) = (text(code), text(verifier));
        let tokens = app.exchange(&http, Clock::system().now(), &code, &verifier, redirect_url).await?;
        let refresh = tokens.refresh.ok_or_else(|| {
            let told = "the consent brought no refresh token; the integration needs OAUTH_ISSUE_REFRESH_TOKENS = TRUE";
            Error::new(Code::SnowflakeConsent, told)
        })?;
        Ok(Granted { field: REFRESH_TOKEN, text: refresh.expose_secret().parse().unwrap_or_default() })
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
        let tokens = self.keeper.clone().map(|keeper| Box::new(Stored(keeper)) as Box<dyn RefreshTokens>);
        let client = Client::new(ClientSettings {
            sign_in: self.settings.sign_in(&base_url, tokens)?,
            base_url,
            context: self.settings.context(),
            statement_timeout_s: self.settings.statement_timeout_s,
            credits_per_hour: self.settings.credits_per_hour,
            egress: Arc::clone(&self.egress),
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
    /// `platform.egress_blocked`, `snowflake.unreachable`.
    pub(super) async fn reach(&self) -> Result<SocketAddr> {
        let base_url = self.base_url()?;
        let url = url::Url::parse(&base_url).map_err(|error| broken("the address does not read", error))?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let stream = self.egress.connect(host, url.port_or_known_default().unwrap_or(443), Code::SnowflakeUnreachable);
        stream.await?.peer_addr().map_err(|error| {
            Error::new(Code::SnowflakeUnreachable, format!("{base_url} broke the connection off")).caused_by(error)
        })
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
