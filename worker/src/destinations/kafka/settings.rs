//! The settings of a Kafka cluster. librdkafka has settings that load code, run commands and read files: what may
//! be set is an allow-list, and certificates are PEM texts, never paths.

use std::collections::BTreeMap;

use freshet_core::connector::{Field, FieldKind, KEPT_SECRET};
use freshet_core::error::{Code, Error, Result};
use rdkafka::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

/// librdkafka's settings that may be set: batching, and how the client calls itself.
const ALLOWED: &[&str] = &[
    "batch.num.messages",
    "batch.size",
    "client.id",
    "compression.level",
    "linger.ms",
    "message.max.bytes",
    "metadata.max.age.ms",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
];

/// How the brokers are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Without encryption or login.
    Plaintext,
    /// TLS; with a client certificate, mutual TLS.
    #[default]
    Tls,
    /// Login without encryption.
    SaslPlaintext,
    /// Login over TLS.
    SaslTls,
}

/// How the client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// User and password as they are: over TLS only, by rights.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// How records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not.
    None,
    /// Little work, about five times smaller.
    #[default]
    Lz4,
    /// More work, smaller still.
    Zstd,
    /// As old consumers may want it.
    Snappy,
    /// As very old consumers may want it.
    Gzip,
}

/// Encryption and login.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// How the brokers are spoken to.
    pub protocol: Protocol,
    /// The CA's certificate, PEM; the system's CAs if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The client's certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The client's key, PEM.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub key: Option<SecretString>,
    /// How the client proves who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<Mechanism>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The user's password.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    pub password: Option<SecretString>,
}

/// The progress topic, where it must be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProgressTopic {
    /// 16 if not given.
    pub partitions: i32,
    /// The smaller of 3 and the number of brokers if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<i32>,
}

impl Default for ProgressTopic {
    fn default() -> Self {
        Self { partitions: 16, replication_factor: None }
    }
}

/// The settings of a Kafka cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// Encryption and login.
    #[serde(default)]
    pub security: Security,
    /// Before every transactional id and the progress topic's name: one prefixed ACL grants both.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// The progress topic, where it must be made.
    #[serde(default)]
    pub progress_topic: ProgressTopic,
    /// How records are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Further settings of librdkafka, from the allow-list.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

fn default_prefix() -> String {
    "freshet".into()
}

/// Settings are written whole only between the API's check and the vault.
fn expose<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(ExposeSecret::expose_secret).serialize(serializer)
}

const PROTOCOLS: &[&str] = &["plaintext", "tls", "sasl_plaintext", "sasl_tls"];
const MECHANISMS: &[&str] = &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
const COMPRESSIONS: &[&str] = &["none", "lz4", "zstd", "snappy", "gzip"];

const fn field(name: &'static str, label: &'static str, help: &'static str, kind: FieldKind) -> Field {
    Field { name, label, help, kind, required: false, secret: false }
}

const fn secret(field: Field) -> Field {
    Field { secret: true, ..field }
}

pub(super) const FIELDS: &[Field] = &[
    Field {
        required: true,
        ..field("bootstrap_servers", "Bootstrap servers", "host:port, comma-separated.", FieldKind::Text)
    },
    field("security.protocol", "Protocol", "tls if not given.", FieldKind::Choice(PROTOCOLS)),
    field("security.ca", "CA certificate", "PEM; the system's CAs if not given.", FieldKind::LongText),
    field("security.certificate", "Client certificate", "PEM, for mutual TLS.", FieldKind::LongText),
    secret(field("security.key", "Client key", "PEM; kept in the vault.", FieldKind::LongText)),
    field("security.mechanism", "SASL mechanism", "How the client proves who it is.", FieldKind::Choice(MECHANISMS)),
    field("security.username", "User", "For SASL.", FieldKind::Text),
    secret(field("security.password", "Password", "Kept in the vault; opened by a worker alone.", FieldKind::Text)),
    field("prefix", "Prefix", "Of transactional ids and the progress topic; freshet if not given.", FieldKind::Text),
    field("progress_topic.partitions", "Progress partitions", "16 if not given.", FieldKind::Number),
    field("progress_topic.replication_factor", "Progress replicas", "3, or all brokers.", FieldKind::Number),
    field("compression", "Compression", "lz4 if not given.", FieldKind::Choice(COMPRESSIONS)),
];

impl KafkaSettings {
    pub(super) fn validate(&self) -> Result<()> {
        let servers: Vec<_> = self.bootstrap_servers.split(',').map(str::trim).collect();
        let is_server = |server: &&str| {
            server.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains(['/', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        if servers.len() > 32 || !servers.iter().all(is_server) {
            let rule = "must be 1 to 32 of `host:port`, comma-separated";
            return Err(Error::invalid("/settings/bootstrap_servers", rule));
        }
        let prefix_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.chars().all(prefix_char) {
            return Err(Error::invalid("/settings/prefix", "must be 1 to 64 of a-z, A-Z, 0-9, `.`, `_` and `-`"));
        }
        if !(1..=256).contains(&self.progress_topic.partitions) {
            return Err(Error::invalid("/settings/progress_topic/partitions", "must be 1 to 256"));
        }
        if let Some(name) = self.properties.keys().find(|name| !ALLOWED.contains(&name.as_str())) {
            let told = format!("`{name}` may not be set; allowed are {}", ALLOWED.join(", "));
            return Err(Error::new(Code::KafkaSetting, told));
        }
        self.validate_security()
    }

    fn validate_security(&self) -> Result<()> {
        let security = &self.security;
        let key = security.key.as_ref().map(ExposeSecret::expose_secret);
        for (pointer, pem, label) in [
            ("/settings/security/ca", security.ca.as_deref(), "CERTIFICATE"),
            ("/settings/security/certificate", security.certificate.as_deref(), "CERTIFICATE"),
            ("/settings/security/key", key, "PRIVATE KEY"),
        ] {
            let is_pem = |pem: &str| pem.contains("-----BEGIN ") && pem.contains(&format!("{label}-----"));
            if pem.is_some_and(|pem| pem != KEPT_SECRET && !is_pem(pem)) {
                return Err(Error::invalid(pointer, format!("must be PEM text with a {label}")));
            }
        }
        if security.certificate.is_some() != security.key.is_some() {
            return Err(Error::invalid("/settings/security", "certificate and key go together"));
        }
        let wants_login = matches!(security.protocol, Protocol::SaslPlaintext | Protocol::SaslTls);
        let login = (security.mechanism.is_some(), security.username.is_some(), security.password.is_some());
        match (wants_login, login) {
            (true, (true, true, true)) | (false, (false, false, false)) => Ok(()),
            (true, _) => Err(Error::invalid("/settings/security", "SASL wants mechanism, username and password")),
            (false, _) => {
                Err(Error::invalid("/settings/security/protocol", "a login wants sasl_tls or sasl_plaintext"))
            }
        }
    }

    /// The name of the progress topic.
    pub(super) fn progress_topic_name(&self) -> String {
        format!("{}.progress", self.prefix)
    }

    /// What every client of this cluster has in common.
    pub(super) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", "freshet")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "2000")
            .set("topic.metadata.refresh.sparse", "true");
        let security = &self.security;
        config.set(
            "security.protocol",
            match security.protocol {
                Protocol::Plaintext => "plaintext",
                Protocol::Tls => "ssl",
                Protocol::SaslPlaintext => "sasl_plaintext",
                Protocol::SaslTls => "sasl_ssl",
            },
        );
        if let Some(ca) = &security.ca {
            config.set("ssl.ca.pem", ca);
        }
        if let (Some(certificate), Some(key)) = (&security.certificate, &security.key) {
            config.set("ssl.certificate.pem", certificate).set("ssl.key.pem", key.expose_secret());
        }
        if let (Some(mechanism), Some(user), Some(password)) =
            (security.mechanism, &security.username, &security.password)
        {
            let mechanism = match mechanism {
                Mechanism::Plain => "PLAIN",
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha512 => "SCRAM-SHA-512",
            };
            config
                .set("sasl.mechanism", mechanism)
                .set("sasl.username", user)
                .set("sasl.password", password.expose_secret());
        }
        config
    }

    /// What a producer has besides: idempotent, every replica's word awaited, Java's partitioner.
    pub(super) fn producer_config(&self) -> ClientConfig {
        let mut config = self.client_config();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "5")
            .set("message.timeout.ms", "55000")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            // The topic's own limit decides, and is looked at before a record is handed over.
            .set("message.max.bytes", "104857600")
            .set("batch.size", "1000000")
            .set("batch.num.messages", "10000")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "32768")
            .set("sticky.partitioning.linger.ms", "0")
            .set(
                "compression.type",
                match self.compression {
                    Compression::None => "none",
                    Compression::Lz4 => "lz4",
                    Compression::Zstd => "zstd",
                    Compression::Snappy => "snappy",
                    Compression::Gzip => "gzip",
                },
            );
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(settings: serde_json::Value) -> Result<KafkaSettings> {
        let settings: KafkaSettings =
            serde_json::from_value(settings).map_err(|error| Error::invalid("/settings", error.to_string()))?;
        settings.validate().map(|()| settings)
    }

    #[test]
    fn what_could_harm_the_worker_is_not_on_the_list() {
        for name in ["plugin.library.paths", "ssl.ca.location", "sasl.kerberos.kinit.cmd", "debug", "transactional.id"]
        {
            let settings = serde_json::json!({"bootstrap_servers": "b:9092", "properties": {name: "x"}});
            assert_eq!(parse(settings).unwrap_err().code, Code::KafkaSetting, "{name}");
        }
        let fine = serde_json::json!({"bootstrap_servers": "b:9092", "properties": {"linger.ms": "20"}});
        assert!(parse(fine).is_ok());
    }

    #[test]
    fn half_a_login_is_refused() {
        for security in [
            serde_json::json!({"protocol": "sasl_tls", "username": "u"}),
            serde_json::json!({"protocol": "plaintext", "mechanism": "PLAIN", "username": "u", "password": "p"}),
            serde_json::json!({"protocol": "tls", "certificate": "-----BEGIN CERTIFICATE-----"}),
            serde_json::json!({"protocol": "tls", "ca": "/etc/ssl/ca.pem"}),
        ] {
            let settings = serde_json::json!({"bootstrap_servers": "b:9092", "security": security});
            assert_eq!(parse(settings).unwrap_err().code, Code::Invalid);
        }
        assert!(parse(serde_json::json!({"bootstrap_servers": "nohost"})).is_err());
        assert!(parse(serde_json::json!({"bootstrap_servers": "a:1,b:0"})).is_err());
    }

    #[test]
    fn a_password_does_not_show() {
        let settings = parse(serde_json::json!({"bootstrap_servers": "b:9092", "security": {
            "protocol": "sasl_tls", "mechanism": "PLAIN", "username": "u", "password": "hunter2"}}));

        assert!(!format!("{:?}", settings.unwrap()).contains("hunter2"));
    }
}
