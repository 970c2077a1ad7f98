//! What a person may set on a Kafka destination, and the rules beyond the types.

use std::collections::BTreeMap;
use std::fmt;

use freshet_core::connector::{Field, FieldKind, KEPT_SECRET};
use freshet_core::error::{Code, Error, Result};
use serde::{Deserialize, Deserializer, Serialize};

/// A password or a private key: serialized for the vault, never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text that must not be shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for librdkafka alone.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How a connection is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Neither encrypted nor logged in. Must be chosen.
    Plaintext,
    /// Encrypted; with a client certificate, logged in by it.
    #[default]
    Tls,
    /// Logged in by SASL, not encrypted. Must be chosen.
    SaslPlaintext,
    /// Encrypted, and logged in by SASL.
    SaslTls,
}

impl Protocol {
    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        match self {
            Self::Tls | Self::SaslTls => true,
            Self::Plaintext | Self::SaslPlaintext => false,
        }
    }

    /// Whether SASL logs in.
    #[must_use]
    pub fn has_login(self) -> bool {
        match self {
            Self::SaslPlaintext | Self::SaslTls => true,
            Self::Plaintext | Self::Tls => false,
        }
    }

    /// librdkafka's word for it.
    pub(super) fn native(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Tls => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslTls => "sasl_ssl",
        }
    }
}

/// How SASL proves who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// The password itself; only sensible inside TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A challenge over SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// A challenge over SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    /// The registered name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Encryption and login. Certificates and keys are PEM texts, never paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    /// `tls` if not given.
    #[serde(default)]
    pub protocol: Protocol,
    /// Certificates that sign the brokers'; the system's own list if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The client's certificate, with the chain above it if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The client certificate's private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// For the `sasl_` protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<Mechanism>,
    /// For the `sasl_` protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For the `sasl_` protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

/// How `{prefix}.progress` is created when it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgressTopic {
    /// 1 to 1 000; 16 if not given.
    #[serde(default = "progress_partitions")]
    pub partitions: i32,
    /// 3, or the number of brokers when that is less, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<i32>,
}

fn progress_partitions() -> i32 {
    16
}

impl Default for ProgressTopic {
    fn default() -> Self {
        Self { partitions: progress_partitions(), replication_factor: None }
    }
}

/// How batches are packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    None,
    /// About a fifth of the bytes for 8 % more CPU.
    #[default]
    Lz4,
    /// The smallest, for 25 % more CPU.
    Zstd,
    /// Like `lz4`.
    Snappy,
    /// For readers that know nothing else.
    Gzip,
}

impl Compression {
    pub(super) fn native(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Snappy => "snappy",
            Self::Gzip => "gzip",
        }
    }
}

/// A Kafka cluster: where it is, how to log in, and how to write to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, several with commas between them.
    pub bootstrap_servers: String,
    /// Encryption and login.
    #[serde(default)]
    pub security: Security,
    /// What transactional ids and the progress topic begin with, so that one prefixed ACL grants both; `freshet` if
    /// not given.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// How the progress topic is created.
    #[serde(default)]
    pub progress_topic: ProgressTopic,
    /// `lz4` if not given.
    #[serde(default)]
    pub compression: Compression,
    /// Further settings of librdkafka, from [`PROPERTIES`] alone: an object, or lines `name=value`.
    #[serde(default, deserialize_with = "properties")]
    pub properties: BTreeMap<String, String>,
}

fn default_prefix() -> String {
    "freshet".into()
}

/// Reads `{"linger.ms": 5}` as well as the form's text `linger.ms=5`, a line each.
fn properties<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Number(i64),
        Bool(bool),
    }
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an object of texts and numbers, or lines name=value")]
    enum Form {
        Lines(String),
        Map(BTreeMap<String, Value>),
    }
    let text = |value| match value {
        Value::Text(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(bool) => bool.to_string(),
    };
    let line = |line: &str| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (name.trim().to_owned(), value.trim().to_owned())
    };
    Ok(match Form::deserialize(deserializer)? {
        Form::Map(map) => map.into_iter().map(|(name, value)| (name, text(value))).collect(),
        Form::Lines(lines) => lines.lines().filter(|l| !l.trim().is_empty()).map(line).collect(),
    })
}

/// What a value of an allowed setting may be.
#[derive(Debug, Clone, Copy)]
pub enum Allowed {
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Letters, digits and `._-`, at most 100.
    Name,
}

/// The settings of librdkafka that a tenant may choose, each with its bounds.
///
/// Everything else is refused: some load code or run commands (`plugin.library.paths`,
/// `sasl.kerberos.kinit.cmd`), some read files of the worker (`*.location`), some dial other hosts
/// (`sasl.oauthbearer.token.endpoint.url`), some print what is secret (`debug`), and some would break the
/// guarantee (`enable.idempotence`, `acks`, `transaction.*`, `partitioner`, timeouts). The upper bounds keep one
/// destination from taking the worker's memory.
pub const PROPERTIES: &[(&str, Allowed)] = &[
    ("batch.num.messages", Allowed::Number(1, 100_000)),
    ("batch.size", Allowed::Number(1_024, 16_777_216)),
    ("broker.address.family", Allowed::Word(&["any", "v4", "v6"])),
    ("client.id", Allowed::Name),
    ("compression.level", Allowed::Number(-1, 12)),
    ("connections.max.idle.ms", Allowed::Number(0, 3_600_000)),
    ("linger.ms", Allowed::Number(0, 1_000)),
    ("message.max.bytes", Allowed::Number(1_024, 134_217_728)),
    ("metadata.max.age.ms", Allowed::Number(10_000, 86_400_000)),
    ("queue.buffering.max.kbytes", Allowed::Number(1_024, 262_144)),
    ("queue.buffering.max.messages", Allowed::Number(10, 1_000_000)),
    ("reconnect.backoff.max.ms", Allowed::Number(100, 60_000)),
    ("reconnect.backoff.ms", Allowed::Number(10, 10_000)),
    ("retry.backoff.max.ms", Allowed::Number(10, 10_000)),
    ("retry.backoff.ms", Allowed::Number(10, 10_000)),
    ("sticky.partitioning.linger.ms", Allowed::Number(0, 1_000)),
    ("topic.metadata.refresh.interval.ms", Allowed::Number(10_000, 3_600_000)),
];

/// The form of a Kafka destination.
pub(super) const FIELDS: &[Field] = &[
    Field {
        required: true,
        ..text("bootstrap_servers", "Bootstrap servers", "host:port, several with commas between.")
    },
    choice(
        "security.protocol",
        "Security",
        "How connections are protected; `tls` by default.",
        &["tls", "sasl_tls", "sasl_plaintext", "plaintext"],
    ),
    long("security.ca", "CA certificates", "PEM of what signs the brokers' certificates; the system's list if empty."),
    long("security.certificate", "Client certificate", "PEM, for mutual TLS."),
    Field { secret: true, ..long("security.key", "Client key", "PEM of the client certificate's private key.") },
    choice(
        "security.mechanism",
        "SASL mechanism",
        "For the SASL protocols.",
        &["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"],
    ),
    text("security.username", "User", "For the SASL protocols."),
    Field { secret: true, ..text("security.password", "Password", "For the SASL protocols.") },
    text("prefix", "Prefix", "What transactional ids and the progress topic begin with; `freshet` by default."),
    number("progress_topic.partitions", "Progress partitions", "Partitions of the progress topic; 16 by default."),
    number(
        "progress_topic.replication_factor",
        "Progress replicas",
        "Replication factor of the progress topic; 3, or the number of brokers, by default.",
    ),
    choice("compression", "Compression", "`lz4` by default.", &["lz4", "zstd", "snappy", "gzip", "none"]),
    long("properties", "Further settings", "librdkafka's own, name=value, a line each; only from a list of safe ones."),
];

const fn field(name: &'static str, label: &'static str, help: &'static str, kind: FieldKind) -> Field {
    Field { name, label, help, kind, required: false, secret: false }
}

const fn text(name: &'static str, label: &'static str, help: &'static str) -> Field {
    field(name, label, help, FieldKind::Text)
}

const fn long(name: &'static str, label: &'static str, help: &'static str) -> Field {
    field(name, label, help, FieldKind::LongText)
}

const fn number(name: &'static str, label: &'static str, help: &'static str) -> Field {
    field(name, label, help, FieldKind::Number)
}

const fn choice(name: &'static str, label: &'static str, help: &'static str, of: &'static [&'static str]) -> Field {
    field(name, label, help, FieldKind::Choice(of))
}

impl KafkaSettings {
    /// The topic that holds every lane's progress.
    #[must_use]
    pub fn progress_topic_name(&self) -> String {
        format!("{}.progress", self.prefix)
    }

    /// A lane's transactional id.
    #[must_use]
    pub fn transactional_id(&self, lane: &str) -> String {
        format!("{}.{lane}", self.prefix)
    }

    /// The addresses, host and port apart.
    ///
    /// # Errors
    /// `request.invalid` naming the address that is none.
    pub fn addresses(&self) -> Result<Vec<(String, u16)>> {
        let addresses: Result<Vec<_>> = self.bootstrap_servers.split(',').map(address).collect();
        addresses
            .and_then(|list| if list.len() > 64 { Err(not_an_address("more than 64 addresses")) } else { Ok(list) })
    }

    /// Checks what the types do not say.
    ///
    /// # Errors
    /// `request.invalid` with the field at fault; `kafka.setting_not_allowed` for a property outside [`PROPERTIES`].
    pub fn validate(&self) -> Result<()> {
        self.addresses()?;
        self.security.validate()?;
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.bytes().all(is_name_byte) {
            return Err(Error::invalid("/settings/prefix", "must be 1 to 64 letters, digits, `.`, `_` or `-`"));
        }
        if !(1..=1_000).contains(&self.progress_topic.partitions) {
            return Err(Error::invalid("/settings/progress_topic/partitions", "must be 1 to 1000"));
        }
        if self.progress_topic.replication_factor.is_some_and(|factor| !(1..=100).contains(&factor)) {
            return Err(Error::invalid("/settings/progress_topic/replication_factor", "must be 1 to 100"));
        }
        self.properties.iter().try_for_each(|(name, value)| validate_property(name, value))
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

fn not_an_address(detail: &str) -> Error {
    Error::invalid("/settings/bootstrap_servers", detail)
}

fn address(text: &str) -> Result<(String, u16)> {
    let text = text.trim();
    let (host, port) = text.rsplit_once(':').ok_or_else(|| not_an_address("each must be host:port"))?;
    let port = port.parse::<u16>().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| not_an_address("a port must be 1 to 65535"))?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = match bare {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.len() <= 253 && host.bytes().all(is_name_byte),
    };
    if !is_host {
        return Err(not_an_address("each must be host:port, without a scheme; an IPv6 address stands in brackets"));
    }
    Ok((bare.unwrap_or(host).to_owned(), port))
}

fn validate_property(name: &str, value: &str) -> Result<()> {
    let pointer = || format!("/settings/properties/{name}");
    let Some((_, allowed)) = PROPERTIES.iter().find(|(known, _)| *known == name) else {
        let names: Vec<_> = PROPERTIES.iter().map(|(name, _)| *name).collect();
        let mut error = Error::invalid(pointer(), format!("is not allowed; allowed are: {}", names.join(", ")));
        error.code = Code::KafkaSetting;
        return Err(error);
    };
    match *allowed {
        Allowed::Number(low, high) => match value.parse::<i64>() {
            Ok(number) if (low..=high).contains(&number) => Ok(()),
            Ok(_) | Err(_) => Err(Error::invalid(pointer(), format!("must be a whole number from {low} to {high}"))),
        },
        Allowed::Word(words) if words.contains(&value) => Ok(()),
        Allowed::Word(words) => Err(Error::invalid(pointer(), format!("must be one of: {}", words.join(", ")))),
        Allowed::Name if !value.is_empty() && value.len() <= 100 && value.bytes().all(is_name_byte) => Ok(()),
        Allowed::Name => Err(Error::invalid(pointer(), "must be 1 to 100 letters, digits, `.`, `_` or `-`")),
    }
}

impl Security {
    fn validate(&self) -> Result<()> {
        let encrypted = self.protocol.is_encrypted();
        pem("ca", self.ca.as_deref(), encrypted)?;
        pem("certificate", self.certificate.as_deref(), encrypted)?;
        pem("key", self.key.as_ref().map(Secret::reveal), encrypted)?;
        if self.certificate.is_some() != self.key.is_some() {
            let missing = if self.key.is_some() { "certificate" } else { "key" };
            return Err(at(missing, "certificate and key go together"));
        }
        let login = self.protocol.has_login();
        sasl("mechanism", self.mechanism.is_some(), login)?;
        sasl("username", self.username.as_ref().is_some_and(|text| !text.is_empty()), login)?;
        sasl("password", self.password.as_ref().is_some_and(|text| !text.reveal().is_empty()), login)
    }
}

fn at(field: &str, detail: &str) -> Error {
    Error::invalid(format!("/settings/security/{field}"), detail)
}

fn pem(field: &str, text: Option<&str>, encrypted: bool) -> Result<()> {
    match text {
        None => Ok(()),
        Some(_) if !encrypted => Err(at(field, "needs the protocol `tls` or `sasl_tls`")),
        // One that is in the vault already was looked at when it went in.
        Some(text) if text == KEPT_SECRET || text.trim_start().starts_with("-----BEGIN ") => Ok(()),
        Some(_) => Err(at(field, "must be the PEM text itself, beginning with -----BEGIN; a path is not read")),
    }
}

fn sasl(field: &str, given: bool, login: bool) -> Result<()> {
    match (given, login) {
        (true, true) | (false, false) => Ok(()),
        (false, true) => Err(at(field, "is needed for a `sasl_` protocol")),
        (true, false) => Err(at(field, "needs the protocol `sasl_tls` or `sasl_plaintext`")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: serde_json::Value) -> KafkaSettings {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_not_chosen_is_safe() {
        let settings = parse(json!({"bootstrap_servers": "kafka-1:9092, [::1]:9093"}));

        settings.validate().unwrap();
        assert_eq!(settings.security.protocol, Protocol::Tls);
        assert_eq!(settings.progress_topic_name(), "freshet.progress");
        assert_eq!(settings.addresses().unwrap(), [("kafka-1".into(), 9092), ("::1".into(), 9093)]);
    }

    #[test]
    fn a_dangerous_property_is_refused_with_the_list_of_allowed_ones() {
        for name in
            ["plugin.library.paths", "ssl.ca.location", "sasl.kerberos.kinit.cmd", "debug", "acks", "socket.timeout.ms"]
        {
            let settings = parse(json!({"bootstrap_servers": "k:1", "properties": {name: "1"}}));

            let error = settings.validate().unwrap_err();

            assert_eq!(error.code, Code::KafkaSetting, "{name}");
            assert!(error.message.contains("linger.ms"), "{error}");
        }
    }

    #[test]
    fn properties_come_as_an_object_or_as_lines() {
        let map = parse(json!({"bootstrap_servers": "k:1", "properties": {"linger.ms": 7, "client.id": "a"}}));
        let lines = parse(json!({"bootstrap_servers": "k:1", "properties": "linger.ms = 7\n\nclient.id=a\n"}));

        assert_eq!(map, lines);
        map.validate().unwrap();
    }

    #[test]
    fn rules_beyond_the_types_name_the_field() {
        let cases = [
            (json!({"bootstrap_servers": "k"}), "/settings/bootstrap_servers"),
            (json!({"bootstrap_servers": "https://k:1"}), "/settings/bootstrap_servers"),
            (json!({"bootstrap_servers": "k:0"}), "/settings/bootstrap_servers"),
            (json!({"bootstrap_servers": "k:1", "prefix": "a b"}), "/settings/prefix"),
            (json!({"bootstrap_servers": "k:1", "security": {"ca": "/etc/ca.pem"}}), "/settings/security/ca"),
            (
                json!({"bootstrap_servers": "k:1", "security": {"certificate": "-----BEGIN X"}}),
                "/settings/security/key",
            ),
            (json!({"bootstrap_servers": "k:1", "security": {"protocol": "sasl_tls"}}), "/settings/security/mechanism"),
            (json!({"bootstrap_servers": "k:1", "security": {"password": "x"}}), "/settings/security/password"),
            (json!({"bootstrap_servers": "k:1", "properties": {"linger.ms": 5000}}), "/settings/properties/linger.ms"),
        ];
        for (value, pointer) in cases {
            let error = parse(value).validate().unwrap_err();

            assert_eq!(error.fields[0].pointer, pointer, "{error}");
        }
    }

    #[test]
    fn a_secret_is_kept_and_never_printed() {
        let settings = parse(json!({"bootstrap_servers": "k:1", "security": {
            "protocol": "sasl_tls", "mechanism": "PLAIN", "username": "u", "password": "hunter2"}}));

        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(serde_json::to_value(&settings).unwrap()["security"]["password"], "hunter2");
    }

    #[test]
    fn every_field_of_the_form_is_a_setting() {
        let whole = json!({"bootstrap_servers": "k:1", "prefix": "p", "compression": "lz4", "properties": "",
            "progress_topic": {"partitions": 1, "replication_factor": 1},
            "security": {"protocol": "tls", "ca": "", "certificate": "", "key": "", "mechanism": "PLAIN",
                "username": "", "password": ""}});
        parse(whole.clone());
        for field in FIELDS {
            assert!(!whole.pointer(&format!("/{}", field.name.replace('.', "/"))).unwrap().is_null(), "{}", field.name);
        }
        let secrets: Vec<_> = FIELDS.iter().filter(|field| field.secret).map(|field| field.name).collect();
        assert_eq!(secrets, ["security.key", "security.password"]);
    }
}
