//! Settings to librdkafka configurations, and librdkafka's complaints to named findings.
//!
//! librdkafka reports a broken connection, a failed TLS handshake and a refused login outside of the call that suffers
//! from it, through callbacks. A [`Watch`] hears them, so that the call's `timed out` can be told as what it is.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use freshet_core::egress::Egress;
use freshet_core::error::{Code, Error};
use freshet_core::failpoint::{self, Step};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Way;
use super::native::Failure;
use super::settings::{KafkaSettings, Secret};

/// The least and most that librdkafka takes as `message.max.bytes`.
const MESSAGE_BYTES: std::ops::RangeInclusive<usize> = 1_024..=1_000_000_000;
/// A batch's own header is 61 bytes; the rest is for its first record's.
const BATCH_MARGIN_BYTES: usize = 512;

/// What every client of these settings has in common.
pub(super) fn common(settings: &KafkaSettings) -> ClientConfig {
    let security = &settings.security;
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", settings.bootstrap_servers.replace(' ', ""))
        .set("client.id", settings.properties.get("client.id").map_or("freshet", String::as_str))
        .set("security.protocol", security.protocol.native())
        .set("socket.keepalive.enable", "true")
        .set("socket.connection.setup.timeout.ms", "10000")
        // Idle closes stay silent; a close with requests under way is what a commit must know of.
        .set("log.connection.close", "true")
        .set("enable.metrics.push", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    let texts = [
        ("ssl.ca.pem", security.ca.as_deref()),
        ("ssl.certificate.pem", security.certificate.as_deref()),
        ("ssl.key.pem", security.key.as_ref().map(Secret::reveal)),
        ("sasl.mechanism", security.mechanism.map(|mechanism| mechanism.as_str())),
        ("sasl.username", security.username.as_deref()),
        ("sasl.password", security.password.as_ref().map(Secret::reveal)),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            config.set(name, text);
        }
    }
    if failpoint::is_armed(Step::CommitSent) {
        config.set("debug", "protocol").set_log_level(RDKafkaLogLevel::Debug);
    }
    for (name, value) in settings.properties.iter().filter(|(name, _)| !PRODUCER_ONLY.contains(&name.as_str())) {
        config.set(name, value);
    }
    config
}

/// Of the allowed properties, those a consumer does not know.
const PRODUCER_ONLY: &[&str] = &[
    "batch.num.messages",
    "batch.size",
    "compression.level",
    "linger.ms",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "sticky.partitioning.linger.ms",
];

/// A producer's configuration: idempotent, every replica in sync acknowledges, partitions as Java's clients choose them.
///
/// `message_bytes_max` is the topic's `max.message.bytes`: a batch may not be larger either. The queue takes at most
/// 200 000 messages and 64 MB, more than the largest chunk. Deliveries end after 45 s, before the broker's 60 s for a
/// whole transaction do.
pub(super) fn producer(settings: &KafkaSettings, message_bytes_max: usize) -> ClientConfig {
    let mut config = common(settings);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", "5")
        .set("message.timeout.ms", "45000")
        .set("partitioner", "murmur2_random")
        .set("compression.type", settings.compression.native())
        .set("statistics.interval.ms", "0");
    let mut set = |name: &str, default: usize, most: usize| {
        let chosen = settings.properties.get(name).and_then(|value| value.parse().ok()).unwrap_or(default);
        config.set(name, chosen.min(most).to_string());
    };
    let bytes_max = message_bytes_max.clamp(*MESSAGE_BYTES.start(), *MESSAGE_BYTES.end());
    set("message.max.bytes", bytes_max, bytes_max);
    set("batch.size", 1_000_000, bytes_max.saturating_sub(BATCH_MARGIN_BYTES).max(512));
    set("batch.num.messages", 10_000, usize::MAX);
    set("linger.ms", 1, usize::MAX);
    set("queue.buffering.max.messages", 200_000, usize::MAX);
    set("queue.buffering.max.kbytes", 65_536, usize::MAX);
    for name in ["compression.level", "sticky.partitioning.linger.ms"] {
        if let Some(value) = settings.properties.get(name) {
            config.set(name, value);
        }
    }
    config
}

/// A consumer's configuration: no group, nothing committed, each end of a partition announced.
pub(super) fn consumer(settings: &KafkaSettings, isolation: &str) -> ClientConfig {
    let mut config = common(settings);
    config.remove("message.max.bytes");
    config
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        // The end of a partition is announced by an empty answer, which the broker holds back this long.
        .set("fetch.wait.max.ms", "20");
    config
}

/// What went wrong with a connection, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// A bootstrap server has an address that is not dialled.
    Blocked,
    /// The cluster names a broker that has one.
    AdvertisedBlocked,
    /// SASL refused, or the listener wants it.
    Login,
    /// TLS cannot be agreed.
    Tls,
    /// A cluster answers, and names brokers that do not.
    Advertised,
    /// Nothing answers.
    Unreachable,
}

impl Trouble {
    pub(super) fn code(self) -> Code {
        match self {
            Self::Blocked => Code::EgressBlocked,
            Self::AdvertisedBlocked => Code::KafkaAdvertised,
            Self::Login => Code::KafkaLogin,
            Self::Tls => Code::KafkaTls,
            Self::Advertised | Self::Unreachable => Code::KafkaUnreachable,
        }
    }

    /// The step of a connection test that it fails.
    pub(super) fn step(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Tls => "tls",
            Self::AdvertisedBlocked | Self::Advertised => "brokers",
            Self::Blocked | Self::Unreachable => "address",
        }
    }

    /// Whether a retry cannot help.
    pub(super) fn is_refusal(self) -> bool {
        match self {
            Self::Blocked | Self::AdvertisedBlocked | Self::Login | Self::Tls => true,
            Self::Advertised | Self::Unreachable => false,
        }
    }

    /// Reads librdkafka's code, and its text where one code stands for several things.
    fn read(code: RDKafkaErrorCode, text: &str) -> Option<Self> {
        match code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => Some(Self::Login),
            RDKafkaErrorCode::SSL => Some(Self::Tls),
            // OpenSSL's own words: an alert that comes after the handshake, as a refused client certificate does.
            RDKafkaErrorCode::BrokerTransportFailure if text.contains("SSL routines:") => Some(Self::Tls),
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut => {
                // librdkafka calls a broker `host:port/bootstrap` until it knows its number.
                Some(if text.contains("/bootstrap: ") { Self::Unreachable } else { Self::Advertised })
            }
            _ => None,
        }
    }

    /// What a broker that only hangs up may want: TLS or a client certificate before the first answer, a login after it.
    ///
    /// A guess: a balancer without a broker behind it hangs up too. So it serves a person who tests a connection, and
    /// never ends a run, which retries.
    fn guess(text: &str) -> Option<(Self, &'static str)> {
        if !text.contains("Disconnected") {
            None
        } else if text.contains("in state SSL_HANDSHAKE") {
            Some((Self::Tls, "a listener without TLS hangs up like this"))
        } else if text.contains("in state APIVERSION_QUERY") {
            Some((Self::Tls, "a listener that wants TLS, or a client certificate, hangs up like this"))
        } else if text.contains("in state UP") {
            Some((Self::Login, "a listener that wants SASL hangs up like this"))
        } else {
            None
        }
    }
}

#[derive(Debug, Default)]
struct Heard {
    /// The worst so far, with librdkafka's words.
    trouble: Option<(Trouble, String)>,
    /// The advertised `host:port` that was not dialled last, and the broker's number. librdkafka tells that when a
    /// connection first fails, and not again while it fails the same way.
    blocked: Option<(String, Option<i32>)>,
    all_down: bool,
}

/// Judges what a client dials, and hears what librdkafka says about its connections.
#[derive(Debug)]
pub(super) struct Watch {
    egress: Arc<Egress>,
    /// `host:port` of each address that the settings name.
    bootstrap: Vec<String>,
    may_guess: bool,
    heard: Mutex<Heard>,
    coordinator_breaks: AtomicU64,
    transaction_failed: AtomicBool,
    /// What it was made in: librdkafka calls from threads of its own.
    span: tracing::Span,
}

impl Watch {
    pub(super) fn new(way: &Way) -> Self {
        let named = way.settings.bootstrap_servers.split(',').map(|server| server.trim().to_owned());
        Self {
            egress: Arc::clone(&way.egress),
            bootstrap: named.collect(),
            may_guess: false,
            heard: Mutex::default(),
            coordinator_breaks: AtomicU64::default(),
            transaction_failed: AtomicBool::default(),
            span: tracing::Span::current(),
        }
    }

    /// Takes a broker that only hangs up for one that wants TLS or a login.
    pub(super) fn guessing(self) -> Self {
        Self { may_guess: true, ..self }
    }

    /// Judges the address at which the client is about to dial `node`, a `host:port`. Asked by librdkafka's threads, for
    /// each connection anew: nobody looks the name up between this and the dialling.
    pub(super) fn may_dial(&self, node: &str, address: IpAddr) -> bool {
        if self.egress.allows(address) {
            return true;
        }
        let mut heard = self.lock();
        heard.trouble = Some(if self.bootstrap.iter().any(|named| named == node) {
            (Trouble::Blocked, format!("`{node}` has an address that this installation does not dial"))
        } else {
            let number = heard.blocked.take_if(|(blocked, _)| blocked == node).and_then(|(_, number)| number);
            heard.blocked = Some((node.to_owned(), number));
            (Trouble::AdvertisedBlocked, blocked_at(number))
        });
        false
    }

    /// The worst trouble so far, in librdkafka's words.
    pub(super) fn trouble(&self) -> Option<(Trouble, String)> {
        self.lock().trouble.clone()
    }

    /// Whether what was heard is a refusal, which waiting does not cure.
    pub(super) fn is_refused(&self) -> bool {
        self.trouble().is_some_and(|(trouble, _)| trouble.is_refusal())
    }

    /// Whether every broker was tried and none answers.
    pub(super) fn all_down(&self) -> bool {
        self.lock().all_down
    }

    /// Forgets what was heard: the client has connected since.
    pub(super) fn forget(&self) {
        *self.lock() = Heard::default();
        self.coordinator_breaks.store(0, Ordering::Release);
    }

    /// How often the connection to the transaction coordinator broke with requests under way.
    pub(super) fn coordinator_breaks(&self) -> u64 {
        self.coordinator_breaks.load(Ordering::Acquire)
    }

    /// Whether the open transaction can only be aborted: librdkafka tells the log, the next call, and no callback.
    pub(super) fn transaction_failed(&self) -> bool {
        self.transaction_failed.load(Ordering::Acquire)
    }

    /// Takes in a line of librdkafka's log.
    pub(super) fn hear_log(&self, facility: &str, line: &str) {
        self.span.in_scope(|| tracing::debug!(target: "librdkafka", facility, "{line}"));
        match facility {
            // A connection that ended with work on it; the coordinator's goes by a name of its own.
            "FAIL" => {
                if line.contains("TxnCoordinator") {
                    self.coordinator_breaks.fetch_add(1, Ordering::AcqRel);
                }
                // That a broker hung up is told here alone. The text begins with the thread's name.
                let text = line.split_once("]: ").map_or(line, |(_, text)| text);
                self.hear(RDKafkaErrorCode::BrokerTransportFailure, text);
            }
            "SEND" if failpoint::ENABLED && line.contains("Sent EndTxnRequest") => failpoint::reach(Step::CommitSent),
            "TXNERR" => self.transaction_failed.store(true, Ordering::Release),
            _ => {}
        }
    }

    /// Takes in an error of the client as a whole.
    pub(super) fn hear_error(&self, code: RDKafkaErrorCode, reason: &str) {
        self.span.in_scope(|| tracing::debug!(target: "librdkafka", "{reason}"));
        if reason.contains("TxnCoordinator") {
            self.coordinator_breaks.fetch_add(1, Ordering::AcqRel);
        }
        self.hear(code, reason);
    }

    /// The error for a call that failed: what was heard if the call only says that time ran out, else its own code.
    pub(super) fn explain(&self, what: &str, code: RDKafkaErrorCode) -> Error {
        if is_vague(code)
            && let Some((trouble, text)) = self.trouble()
        {
            return Error::new(trouble.code(), format!("{what}: {text}"));
        }
        Error::new(code_of(code), format!("{what}: {code}"))
    }

    /// [`Watch::explain`] for a transaction's call.
    pub(super) fn explain_failure(&self, what: &str, failure: &Failure) -> Error {
        self.explain(what, failure.code).caused_by(failure.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, code: RDKafkaErrorCode, text: &str) {
        let mut heard = self.lock();
        if let Some((node, number)) = &mut heard.blocked
            && let Some(found) = number_of(node, text)
        {
            *number = Some(found);
            heard.trouble = Some((Trouble::AdvertisedBlocked, blocked_at(Some(found))));
        }
        heard.all_down |= code == RDKafkaErrorCode::AllBrokersDown;
        let guess = if self.may_guess { Trouble::guess(text) } else { None };
        let (trouble, text) = match (guess, Trouble::read(code, text)) {
            (Some((trouble, hint)), Some(read)) if trouble < read => (trouble, format!("{text}: {hint}")),
            (_, Some(trouble)) => (trouble, text.to_owned()),
            (_, None) => return,
        };
        if heard.trouble.as_ref().is_none_or(|(worst, _)| trouble < *worst) {
            heard.trouble = Some((trouble, text));
        }
    }
}

/// What is said of an address that a cluster sends its clients to; the address is not repeated.
pub(super) fn advertised_blocked(broker: &str) -> String {
    format!("{broker} is advertised under an address that this installation does not dial")
}

fn blocked_at(number: Option<i32>) -> String {
    advertised_blocked(&number.map_or_else(|| "a broker".to_owned(), |number| format!("broker {number}")))
}

/// The number of the broker that librdkafka speaks of as `host:port/number`, if it is at this node.
fn number_of(node: &str, text: &str) -> Option<i32> {
    let (_, rest) = text.split_once(node)?;
    rest.strip_prefix('/')?.split(':').next()?.parse().ok()
}

/// The error for a client that librdkafka did not make.
pub(super) fn not_made(what: &str, error: &KafkaError) -> Error {
    match error {
        // Its text repeats the value, which may be a secret.
        KafkaError::ClientConfig(_, _, name, _) => Error::new(Code::Invalid, format!("{what}: `{name}` is not valid")),
        KafkaError::ClientCreation(text) if ["ssl.", "SSL", "PEM"].iter().any(|word| text.contains(word)) => {
            Error::new(Code::KafkaTls, format!("{what}: {text}"))
        }
        KafkaError::ClientCreation(text) => Error::new(Code::KafkaBroker, format!("{what}: {text}")),
        other => Error::new(Code::KafkaBroker, format!("{what}: {other}")),
    }
}

/// Log lines and errors come by the queue that [`super::native::Client::serve`] takes from.
impl ClientContext for Watch {}

/// Codes that say no more than that an answer did not come.
fn is_vague(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::TimedOutQueue
            | RDKafkaErrorCode::MessageTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Retry
    )
}

/// The closed list's code for librdkafka's.
pub(super) fn code_of(code: RDKafkaErrorCode) -> Code {
    use RDKafkaErrorCode as K;
    match code {
        K::Fenced | K::ProducerFenced | K::InvalidProducerEpoch => Code::KafkaFenced,
        K::MessageSizeTooLarge | K::MessageBatchTooLarge | K::InvalidMessageSize => Code::KafkaMessageTooLarge,
        K::TopicAuthorizationFailed | K::ClusterAuthorizationFailed | K::GroupAuthorizationFailed => Code::KafkaAcl,
        K::TransactionalIdAuthorizationFailed | K::UnsupportedFeature => Code::KafkaTransactions,
        K::UnknownTopic | K::UnknownTopicOrPartition | K::UnknownPartition => Code::KafkaTopicMissing,
        K::InvalidTopic => Code::KafkaTopicCreate,
        K::NotEnoughReplicas | K::NotEnoughReplicasAfterAppend => Code::KafkaNotEnoughReplicas,
        K::Authentication | K::SaslAuthenticationFailed => Code::KafkaLogin,
        K::SSL => Code::KafkaTls,
        K::Resolve | K::BrokerTransportFailure | K::AllBrokersDown => Code::KafkaUnreachable,
        K::OperationTimedOut | K::TimedOutQueue | K::MessageTimedOut | K::RequestTimedOut | K::Retry => {
            Code::KafkaTimeout
        }
        _ => Code::KafkaBroker,
    }
}
