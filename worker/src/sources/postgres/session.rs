//! Connecting to a source, and what its errors mean.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use freshet_core::egress::Egress;
use freshet_core::error::{Code, Error, Result};
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::net::TcpStream;

use super::relay;
use super::settings::{PostgresSettings, TlsMode};

/// How long a login may take.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection that is opened when it is first used.
pub(super) struct Session {
    pub(super) settings: PostgresSettings,
    egress: Arc<Egress>,
    connection: Option<PgConnection>,
}

impl Session {
    pub(super) fn new(settings: PostgresSettings, egress: Arc<Egress>) -> Self {
        Self { settings, egress, connection: None }
    }

    /// The connection: read-only, in UTC, with texts in their one exact form.
    ///
    /// # Errors
    /// `platform.egress_blocked`, `postgres.unreachable`, `postgres.tls_failed`, `postgres.login_failed`.
    pub(super) async fn open(&mut self) -> Result<&mut PgConnection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(self.connection.insert(connection))
    }

    /// Finds the host and knocks at its port.
    ///
    /// # Errors
    /// `platform.egress_blocked`, `postgres.unreachable`.
    pub(super) async fn reach(&self) -> Result<SocketAddr> {
        self.dial().await?.peer_addr().map_err(|error| self.told(Code::PostgresUnreachable, BROKE_OFF).caused_by(error))
    }

    /// Forgets the connection, after an error that leaves it in an unknown state.
    pub(super) fn forget(&mut self) {
        self.connection = None;
    }

    async fn dial(&self) -> Result<TcpStream> {
        self.egress.connect(&self.settings.host, self.settings.port, Code::PostgresUnreachable).await
    }

    async fn connect(&self) -> Result<PgConnection> {
        let mode = self.settings.tls.mode;
        match self.connect_once(mode).await {
            // The driver takes `allow` for `disable`.
            Err(error) if mode == TlsMode::Allow && error.code == Code::PostgresLogin => {
                self.connect_once(TlsMode::Require).await
            }
            connected => connected,
        }
    }

    async fn connect_once(&self, mode: TlsMode) -> Result<PgConnection> {
        let told = |code, what: &str| self.told(code, what);
        let options = self.aim(options(&self.settings, mode), mode).await?;
        let connected = tokio::time::timeout(LOGIN_TIMEOUT, PgConnection::connect_with(&options)).await;
        match connected {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(sqlx::Error::Database(error))) => Err(told(
                login_code(error.code().as_deref()),
                &format!("refuses the login: SQLSTATE {}", error.code().as_deref().unwrap_or("unknown")),
            )
            .caused_by(sqlx::Error::Database(error))),
            Ok(Err(error)) if is_tls(&error) => {
                Err(told(Code::PostgresTls, "cannot agree on TLS, or its certificate is not trusted").caused_by(error))
            }
            Ok(Err(error)) => Err(told(Code::PostgresUnreachable, BROKE_OFF).caused_by(error)),
            Err(_) => Err(told(Code::PostgresUnreachable, "does not finish the login within 20 s")),
        }
    }

    /// Points the driver at an address that was judged: at the address itself where no name is needed, else through a
    /// relay, for the name then belongs to TLS.
    async fn aim(&self, options: PgConnectOptions, mode: TlsMode) -> Result<PgConnectOptions> {
        let (host, port) = (&self.settings.host, self.settings.port);
        let is_encrypted = match mode {
            TlsMode::Disable | TlsMode::Allow => false,
            TlsMode::Prefer | TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => true,
        };
        let stream = self.dial().await?;
        if is_encrypted && host.parse::<IpAddr>().is_err() {
            let socket = relay::to(stream, port)
                .map_err(|error| Error::new(Code::Internal, "no socket for a connection").caused_by(error))?;
            return Ok(options.host(host).port(port).socket(socket));
        }
        let broke = |error| self.told(Code::PostgresUnreachable, BROKE_OFF).caused_by(error);
        Ok(options.host(&stream.peer_addr().map_err(broke)?.ip().to_string()).port(port))
    }

    fn told(&self, code: Code, what: &str) -> Error {
        Error::new(code, format!("{}:{} {what}", self.settings.host, self.settings.port))
    }
}

/// What is said of a server that hangs up.
const BROKE_OFF: &str = "broke the connection off";

fn login_code(sqlstate: Option<&str>) -> Code {
    match sqlstate {
        Some("53300" | "57P03" | "57P01" | "57P02") => Code::PostgresUnreachable,
        _ => Code::PostgresLogin,
    }
}

fn is_tls(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        // rustls hands its refusals through the stream.
        sqlx::Error::Io(error) => {
            matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput)
        }
        _ => false,
    }
}

fn options(settings: &PostgresSettings, mode: TlsMode) -> PgConnectOptions {
    let mode = match mode {
        TlsMode::Disable => PgSslMode::Disable,
        TlsMode::Allow => PgSslMode::Allow,
        TlsMode::Prefer => PgSslMode::Prefer,
        TlsMode::Require => PgSslMode::Require,
        TlsMode::VerifyCa => PgSslMode::VerifyCa,
        TlsMode::VerifyFull => PgSslMode::VerifyFull,
    };
    let timeout = format!("{}s", settings.statement_timeout_s);
    let mut options = PgConnectOptions::new_without_pgpass()
        .database(&settings.database)
        .username(&settings.user)
        .password(settings.password.as_ref().map_or("", ExposeSecret::expose_secret))
        .ssl_mode(mode)
        .application_name("freshet")
        .statement_cache_capacity(16)
        .extra_float_digits(1)
        .options([
            ("default_transaction_read_only", "on"),
            ("standard_conforming_strings", "on"),
            ("bytea_output", "hex"),
            ("DateStyle", "ISO"),
            ("statement_timeout", timeout.as_str()),
            ("TimeZone", "UTC"),
        ])
        .disable_statement_logging();
    if let Some(ca) = &settings.tls.ca {
        options = options.ssl_root_cert_from_pem(ca.clone().into_bytes());
    }
    if let (Some(certificate), Some(key)) = (&settings.tls.certificate, &settings.tls.key) {
        options = options.ssl_client_cert_from_pem(certificate).ssl_client_key_from_pem(key.expose_secret());
    }
    options
}

/// Names what a statement's error means, by its SQLSTATE.
///
/// The server's own sentence is shown for class 42 alone, where it speaks of names and syntax; elsewhere it may
/// quote a value.
pub(super) fn failed(what: &str) -> impl FnOnce(sqlx::Error) -> Error {
    let what = what.to_owned();
    move |error| {
        let database = match &error {
            sqlx::Error::Database(database) => database,
            unread if is_unread(unread) => {
                let told = format!("{what}: the server's answer cannot be read");
                return Error::new(Code::PostgresQuery, told).caused_by(error);
            }
            _ => {
                let told = format!("{what}: the connection to the source broke");
                return Error::new(Code::PostgresConnectionLost, told).caused_by(error);
            }
        };
        let state = database.code().unwrap_or_default().into_owned();
        let code = match state.as_str() {
            "42501" => Code::PostgresPrivilege,
            "42P01" | "42703" | "3F000" | "42883" => Code::ModelObjectMissing,
            "42601" => Code::ModelSyntax,
            "57014" => Code::PostgresTimeout,
            "57P01" | "57P02" | "57P03" | "57P05" | "53300" => Code::PostgresConnectionLost,
            other if other.starts_with("08") => Code::PostgresConnectionLost,
            // A standby cancels a long query when its primary needs the rows gone; asking again helps.
            "40001" | "40P01" => Code::PostgresConnectionLost,
            _ => Code::PostgresQuery,
        };
        let told = if state.starts_with("42") {
            format!("{what}: {}", database.message())
        } else {
            format!("{what}: SQLSTATE {state}")
        };
        Error::new(code, told).caused_by(error)
    }
}

/// Whether an answer came and the driver has no word for it: a type of a kind that it does not know.
pub(super) fn is_unread(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::TypeNotFound { .. })
}
