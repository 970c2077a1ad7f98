//! Connecting to a source, and what its errors mean.

use std::net::SocketAddr;
use std::time::Duration;

use freshet_core::error::{Code, Error, Result};
use secrecy::ExposeSecret;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::net::TcpStream;

use super::settings::{PostgresSettings, TlsMode};

/// How long to wait for an address to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is opened when it is first used.
pub(super) struct Session {
    pub(super) settings: PostgresSettings,
    connection: Option<PgConnection>,
}

impl Session {
    pub(super) fn new(settings: PostgresSettings) -> Self {
        Self { settings, connection: None }
    }

    /// The connection: read-only, in UTC, with texts in their one exact form.
    ///
    /// # Errors
    /// `postgres.unreachable`, `postgres.tls_failed`, `postgres.login_failed`.
    pub(super) async fn open(&mut self) -> Result<&mut PgConnection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.reach().await?;
                connect(&self.settings).await?
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Finds the host and knocks at its port.
    ///
    /// # Errors
    /// `postgres.unreachable`.
    pub(super) async fn reach(&self) -> Result<SocketAddr> {
        let (host, port) = (self.settings.host.as_str(), self.settings.port);
        let unreachable = |what: &str| Error::new(Code::PostgresUnreachable, format!("{host}:{port} {what}"));
        let addresses: Vec<_> = tokio::net::lookup_host((host, port))
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

    /// Forgets the connection, after an error that leaves it in an unknown state.
    pub(super) fn forget(&mut self) {
        self.connection = None;
    }
}

async fn connect(settings: &PostgresSettings) -> Result<PgConnection> {
    match connect_once(settings, settings.tls.mode).await {
        // The driver takes `allow` for `disable`.
        Err(error) if settings.tls.mode == TlsMode::Allow && error.code == Code::PostgresLogin => {
            connect_once(settings, TlsMode::Require).await
        }
        connected => connected,
    }
}

async fn connect_once(settings: &PostgresSettings, mode: TlsMode) -> Result<PgConnection> {
    let options = options(settings, mode);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT * 2, PgConnection::connect_with(&options)).await;
    let told = |code, what: &str| Error::new(code, format!("{}:{} {what}", settings.host, settings.port));
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
        Ok(Err(error)) => Err(told(Code::PostgresUnreachable, "broke the connection off").caused_by(error)),
        Err(_) => Err(told(Code::PostgresUnreachable, "does not finish the login within 20 s")),
    }
}

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
        .host(&settings.host)
        .port(settings.port)
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
