//! The settings of a PostgreSQL connection.

use freshet_core::connector::{Field, FieldKind, KEPT_SECRET};
use freshet_core::error::{Error, Result};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::sql::identifier;

/// How TLS is used; libpq's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server offers it.
    Prefer,
    /// Always; the certificate is not checked.
    Require,
    /// Always; the certificate must be signed by the CA.
    VerifyCa,
    /// Always; and it must be the host's.
    #[default]
    VerifyFull,
}

/// TLS towards the server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// How it is used.
    pub mode: TlsMode,
    /// The CA's certificate, PEM; the system's CAs if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The client's certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The client's key, PEM.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub key: Option<SecretString>,
}

/// The settings of a PostgreSQL connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSettings {
    /// The server's name or address.
    pub host: String,
    /// Its port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The database.
    pub database: String,
    /// The login; needs CONNECT, USAGE on schemas and SELECT on tables, and no more.
    pub user: String,
    /// Its password.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub password: Option<SecretString>,
    /// TLS towards the server.
    #[serde(default)]
    pub tls: Tls,
    /// The longest a statement may take, in seconds; 0 for no limit.
    #[serde(default)]
    pub statement_timeout_s: u32,
    /// How long an incremental run waits for transactions open at its start, in seconds.
    #[serde(default = "default_horizon_wait_s")]
    pub horizon_wait_s: u32,
    /// Accept a login that can do more than read.
    #[serde(default)]
    pub allow_superuser: bool,
    /// The schema that belongs to Freshet: mode `diff` keeps its snapshots there.
    #[serde(default = "default_work_schema")]
    pub work_schema: String,
}

fn default_work_schema() -> String {
    "freshet".into()
}

fn default_port() -> u16 {
    5432
}

fn default_horizon_wait_s() -> u32 {
    10
}

/// Settings are written whole only between the API's check and the vault.
fn expose<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(ExposeSecret::expose_secret).serialize(serializer)
}

const MODES: &[&str] = &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

const fn field(name: &'static str, label: &'static str, help: &'static str, kind: FieldKind) -> Field {
    Field { name, label, help, kind, required: false, secret: false }
}

const fn required(field: Field) -> Field {
    Field { required: true, ..field }
}

const fn secret(field: Field) -> Field {
    Field { secret: true, ..field }
}

pub(super) const FIELDS: &[Field] = &[
    required(field("host", "Host", "Name or address of the server.", FieldKind::Text)),
    field("port", "Port", "5432 if not given.", FieldKind::Number),
    required(field("database", "Database", "The database to read.", FieldKind::Text)),
    required(field("user", "User", "A login that can only read.", FieldKind::Text)),
    secret(field("password", "Password", "Kept in the vault; opened by a worker alone.", FieldKind::Text)),
    field("tls.mode", "TLS", "As libpq names them; verify-full if not given.", FieldKind::Choice(MODES)),
    field("tls.ca", "CA certificate", "PEM; the system's CAs if not given.", FieldKind::LongText),
    field("tls.certificate", "Client certificate", "PEM.", FieldKind::LongText),
    secret(field("tls.key", "Client key", "PEM; kept in the vault.", FieldKind::LongText)),
    field(
        "statement_timeout_s",
        "Statement timeout",
        "Seconds a statement may take; 0, the default, for no limit.",
        FieldKind::Number,
    ),
    field(
        "horizon_wait_s",
        "Wait for open transactions",
        "Seconds an incremental run waits for transactions open at its start; 10 if not given.",
        FieldKind::Number,
    ),
    field(
        "work_schema",
        "Freshet's schema",
        "Where mode `diff` keeps snapshots; freshet if not given.",
        FieldKind::Text,
    ),
    field("allow_superuser", "Allow a superuser", "Accept a login that can do more than read.", FieldKind::Bool),
];

impl PostgresSettings {
    /// The script that gives the login what Freshet uses, and no more.
    pub(super) fn setup_script(&self) -> String {
        let (user, database) = (identifier(&self.user), identifier(&self.database));
        let schema = identifier(&self.work_schema);
        format!(
            "grant connect on database {database} to {user};\n\
             -- What is read; repeat for each schema, or name single tables and views.\n\
             grant usage on schema public to {user};\n\
             grant select on all tables in schema public to {user};\n\
             -- For syncs in mode `diff` alone: their snapshots lie there.\n\
             create schema if not exists {schema} authorization {user};\n"
        )
    }

    pub(super) fn validate(&self) -> Result<()> {
        for (pointer, text) in [
            ("/settings/host", &self.host),
            ("/settings/database", &self.database),
            ("/settings/user", &self.user),
            ("/settings/work_schema", &self.work_schema),
        ] {
            if text.is_empty() || text.len() > 255 || text.chars().any(char::is_control) {
                return Err(Error::invalid(pointer, "must have 1 to 255 characters"));
            }
        }
        if self.work_schema.len() > 63 || self.work_schema.starts_with("pg_") {
            let rule = "must have at most 63 bytes, and not begin with `pg_`, which is the server's own";
            return Err(Error::invalid("/settings/work_schema", rule));
        }
        if self.host.contains('/') {
            return Err(Error::invalid("/settings/host", "must be a name or an address, not a socket's path"));
        }
        if self.port == 0 {
            return Err(Error::invalid("/settings/port", "must be 1 to 65535"));
        }
        let key = self.tls.key.as_ref().map(ExposeSecret::expose_secret);
        for (pointer, pem, label) in [
            ("/settings/tls/ca", self.tls.ca.as_deref(), "CERTIFICATE"),
            ("/settings/tls/certificate", self.tls.certificate.as_deref(), "CERTIFICATE"),
            ("/settings/tls/key", key, "PRIVATE KEY"),
        ] {
            if pem.is_some_and(|pem| pem != KEPT_SECRET && !is_pem(pem, label)) {
                return Err(Error::invalid(pointer, format!("must be PEM text with a {label}")));
            }
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return Err(Error::invalid("/settings/tls", "certificate and key go together"));
        }
        Ok(())
    }
}

fn is_pem(text: &str, label: &str) -> bool {
    text.contains("-----BEGIN ") && text.contains(&format!("{label}-----")) && text.contains("-----END ")
}
