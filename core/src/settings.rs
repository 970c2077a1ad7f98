//! Every setting: its type, unit, default and one line of doc.
//!
//! A setting comes from the environment, `FRESHET_<NAME>`, or from the TOML file that `FRESHET_CONFIG` names; the
//! environment wins. An unknown key in the file, or a `FRESHET_` variable that is no setting, is an error: a typo
//! must not be taken for a default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};

use crate::error::{Code, Error, Result};

/// Variables with our prefix that belong to the development scripts and tests, not to the service.
const NOT_SETTINGS: &[&str] = &[
    "FRESHET_TEST_",
    "FRESHET_DEV_",
    "FRESHET_BENCH_",
    "FRESHET_CONFIG",
    #[cfg(feature = "failpoints")]
    "FRESHET_FAILPOINT",
    #[cfg(feature = "planted_bugs")]
    "FRESHET_PLANTED_BUG",
];

/// A text that is kept out of logs and of `Debug`.
#[derive(Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    /// The text itself, for the one place that uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(SecretString::from(text.to_owned())))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// One setting, as the table of docs and `freshet doctor` show it.
#[derive(Debug, Clone, Copy)]
pub struct SettingDoc {
    /// Its name in the TOML file; `FRESHET_` and the same in capitals in the environment.
    pub name: &'static str,
    /// Its default, as text.
    pub default: &'static str,
    /// What it does, with its unit.
    pub doc: &'static str,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty = $default:literal;)*) => {
        /// All settings, checked.
        #[derive(Debug, Clone)]
        pub struct Settings { $($(#[doc = $doc])* pub $name: $type,)* }

        impl Settings {
            /// Every setting there is.
            pub const DOCS: &'static [SettingDoc] = &[$(SettingDoc {
                name: stringify!($name), default: $default, doc: concat!($($doc),*),
            },)*];

            fn from_values(mut values: BTreeMap<String, String>) -> Result<Self> {
                let settings = Self {
                    $($name: parse::<$type>(stringify!($name), values.remove(stringify!($name)), $default)?,)*
                };
                match values.into_keys().next() {
                    None => Ok(settings),
                    Some(unknown) => Err(Error::new(
                        Code::Settings,
                        format!("`{unknown}` is not a setting; `freshet settings` lists them"),
                    )),
                }
            }
        }
    };
}

settings! {
    /// Freshet's own Postgres, as the role `freshet_app`: `postgres://freshet_app:…@host:5432/freshet`.
    database_url: Secret = "";
    /// The same database as its owner; for `freshet migrate` alone.
    owner_database_url: Secret = "";
    /// Connections to Freshet's own Postgres, at most.
    database_connections_max: u32 = "20";
    /// Master keys that wrap the data keys of secrets: `name=<32 bytes in base64>`, comma-separated; the first seals, all open.
    master_keys: Secret = "";
    /// A file with the master keys instead, one `name=base64` a line; it is looked at again every 2 s and on SIGHUP, without a restart.
    master_keys_file: String = "";
    /// Where the API listens.
    api_listen: std::net::SocketAddr = "127.0.0.1:8470";
    /// Where `/metrics` listens, for Prometheus: `127.0.0.1:8471`; nowhere if empty. No key is asked for: keep it from strangers.
    metrics_listen: String = "";
    /// The address under which browsers reach the API, to come back to from a consent; `http://` and `api_listen` if empty.
    public_url: String = "";
    /// Whether people may sign up by themselves: `closed`, or `open`.
    sign_up: SignUp = "closed";
    /// The way mail goes out: `smtps://user:password@host`, or `smtp://host?tls=required`; no mail is sent if empty.
    smtp_url: Secret = "";
    /// Whom mail is from: `Freshet <freshet@example.com>`.
    mail_from: String = "";
    /// The DNS server that is asked for the proof of a domain, `address:port`; the system's if empty.
    dns_server: String = "";
    /// Requests that the API works on at once, at most; more get 503.
    api_requests_max: usize = "256";
    /// Requests that only read, per key and per workspace and minute.
    api_reads_per_minute: u32 = "600";
    /// Requests that change something, per key and per workspace and minute.
    api_writes_per_minute: u32 = "120";
    /// Requests that have a worker ask a source or a cluster, and exports, per key and per workspace and minute.
    api_expensive_per_minute: u32 = "20";
    /// Runs that one worker process works on at once.
    worker_runs_max: usize = "4";
    /// Operations (connection tests, previews) that one worker process works on at once.
    worker_operations_max: usize = "4";
    /// How far a process that is a worker alone steps back for others of its machine, as `nice` has it: 0 to 19.
    worker_nice: i32 = "10";
    /// How long a claim holds without being extended, in seconds; a dead worker's run is taken over after this.
    lease_s: f64 = "15";
    /// How often an idle worker looks for work that no notification announced, in milliseconds.
    poll_ms: u64 = "1000";
    /// Wait before the second attempt of a run, in seconds; each further wait is three times as long, with full jitter.
    retry_base_s: f64 = "10";
    /// The longest wait between two attempts, in seconds.
    retry_max_s: f64 = "1800";
    /// Attempts in a row without progress after which a run fails.
    retry_fruitless_max: i32 = "8";
    /// Days for which a workspace that is deleted can be restored; then its secrets are destroyed and its rows go.
    workspace_undo_days: u32 = "7";
    /// Days that the timeline of a run is kept, where the workspace does not say.
    retention_run_event_days: u32 = "30";
    /// Days that a run is kept, where the workspace does not say; its day's usage stays.
    retention_run_days: u32 = "400";
    /// Days that a line of the audit log is kept, where the organization does not say.
    retention_audit_days: u32 = "400";
    /// Rows of one chunk, which is one Kafka transaction, at most.
    chunk_rows_max: usize = "10000";
    /// Bytes of one chunk, at most; memory for three chunks is held per run.
    chunk_bytes_max: usize = "8388608";
    /// How long a stopping worker waits for its runs to finish their chunk, in seconds.
    stop_grace_s: f64 = "30";
    /// Hosts besides Snowflake's own that a Snowflake connection may use: `host:port`, comma-separated; `http` for loopback alone.
    snowflake_hosts: String = "";
    /// Which networks a worker dials for users: `private`, the private ones too, or `public`, for an installation that strangers use.
    egress_reach: Reach = "private";
    /// Networks and addresses that are dialled besides, comma-separated: `127.0.0.0/8,::1` for servers of this machine.
    egress_allow: String = "";
    /// Where traces go, by OTLP over HTTP: `http://collector:4318`; none are taken if empty.
    otlp_endpoint: String = "";
    /// Headers that the collector wants, for one a token: `name=value`, comma-separated.
    otlp_headers: Secret = "";
    /// How many of the traces that begin here are taken, 0 to 1; one that a request goes on with is taken as its caller says.
    otlp_ratio: f64 = "1";
    /// `json` or `text`.
    log_format: LogFormat = "text";
    /// What to log, in the form of `RUST_LOG`.
    log: String = "info,sqlx=warn,apalis_core=warn";
}

/// Whether people may sign up by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignUp {
    /// By invitation alone.
    Closed,
    /// Anybody, with an organization of their own.
    Open,
}

impl FromStr for SignUp {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "closed" => Ok(Self::Closed),
            "open" => Ok(Self::Open),
            _ => Err("must be `closed` or `open`"),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("must be `json` or `text`"),
        }
    }
}

/// Which networks are open to hosts that users name; `egress` says what never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Private networks too: brokers and databases live there.
    Private,
    /// None but the public ones: for an installation that strangers use.
    Public,
}

impl Reach {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
        }
    }
}

impl FromStr for Reach {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "private" => Ok(Self::Private),
            "public" => Ok(Self::Public),
            _ => Err("must be `private` or `public`"),
        }
    }
}

impl Settings {
    /// Reads the environment, and the file that `FRESHET_CONFIG` names if it is set.
    ///
    /// # Errors
    /// [`Code::Settings`], naming the setting; a secret's value is not repeated.
    pub fn load() -> Result<Self> {
        let environment = std::env::vars().collect::<BTreeMap<_, _>>();
        let mut values = match environment.get("FRESHET_CONFIG") {
            Some(path) => read_file(Path::new(path))?,
            None => BTreeMap::new(),
        };
        values.extend(environment.iter().filter_map(|(name, value)| {
            let ours = name.strip_prefix("FRESHET_")?;
            let foreign = NOT_SETTINGS.iter().any(|prefix| name.starts_with(prefix));
            (!foreign).then(|| (ours.to_ascii_lowercase(), value.clone()))
        }));
        Self::from_values(values)
    }

    /// The address under which browsers reach us, without a slash at its end.
    #[must_use]
    pub fn public_url(&self) -> String {
        match self.public_url.trim_end_matches('/') {
            "" => format!("http://{}", self.api_listen),
            url => url.to_owned(),
        }
    }

    /// The defaults, with some set: for tests and benchmarks.
    ///
    /// # Errors
    /// [`Code::Settings`], as [`Settings::load`].
    pub fn with(values: &[(&str, &str)]) -> Result<Self> {
        Self::from_values(values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }
}

fn parse<T: FromStr>(name: &str, value: Option<String>, default: &str) -> Result<T>
where
    T::Err: fmt::Display,
{
    value
        .as_deref()
        .unwrap_or(default)
        .parse()
        .map_err(|error: T::Err| Error::new(Code::Settings, format!("FRESHET_{}: {error}", name.to_ascii_uppercase())))
}

fn read_file(path: &Path) -> Result<BTreeMap<String, String>> {
    let told = |detail: &str| Error::new(Code::Settings, format!("FRESHET_CONFIG {}: {detail}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| told("cannot be read").caused_by(error))?;
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| told("is not TOML").caused_by(error.message().to_owned()))?;
    table
        .into_iter()
        .map(|(name, value)| match value {
            toml::Value::String(text) => Ok((name, text)),
            toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Ok((name, value.to_string())),
            toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
                Err(told(&format!("`{name}` must be a text or a number")))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let settings = Settings::with(&[]).unwrap();

        assert_eq!(settings.chunk_rows_max, 10_000);
    }

    #[test]
    fn a_typo_is_not_taken_for_a_default() {
        let error = Settings::with(&[("chunk_row_max", "5")]).unwrap_err();

        assert_eq!(error.message, "`chunk_row_max` is not a setting; `freshet settings` lists them");
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        let error = Settings::with(&[("lease_s", "soon")]).unwrap_err();

        assert_eq!(error.message, "FRESHET_LEASE_S: invalid float literal");
    }

    #[test]
    fn a_secret_does_not_show() {
        let settings = Settings::with(&[("database_url", "postgres://u:hunter2@h/d")]).unwrap();

        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
