//! Clients, and what librdkafka's errors mean.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use freshet_core::error::{Code, Error, Result};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// How long a question to the brokers may take.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps what librdkafka says in passing: only there does it tell a refused login from a dead broker.
#[derive(Debug, Default)]
pub struct Told(Mutex<Vec<String>>);

impl Told {
    fn add(&self, text: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < 50 {
            told.push(text.to_owned());
        }
    }

    fn says(&self, words: &[&str]) -> bool {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().any(|text| words.iter().any(|word| text.contains(word)))
    }

    /// What kind of trouble the connection has, as far as it was told.
    pub fn code(&self) -> Code {
        if self.says(&["SASL authentication error", "Authentication failed", "SASL mechanism", "_AUTHENTICATION"]) {
            Code::KafkaLogin
        } else if self.says(&["SSL handshake failed", "ssl3_", "certificate", "SSL listener", "alert"]) {
            Code::KafkaTls
        } else {
            Code::KafkaUnreachable
        }
    }
}

/// A context that keeps what is told.
#[derive(Debug, Default)]
pub struct Listening(pub Told);

impl ClientContext for Listening {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", "{facility}: {message}");
        self.0.add(message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
        self.0.add(reason);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            self.0.add("_AUTHENTICATION");
        }
    }
}

/// An error of a call that talks to the brokers, named; what was told in passing decides where the call only timed out.
pub fn named(what: &str, error: KafkaError, told: &Told) -> Error {
    let code = match error.rdkafka_error_code() {
        Some(code) => named_code(code, told),
        None => Code::KafkaBroker,
    };
    Error::new(code, format!("{what}: {}", sentence(code))).caused_by(error)
}

/// The word of our list for one of librdkafka's.
pub fn named_code(code: RDKafkaErrorCode, told: &Told) -> Code {
    use RDKafkaErrorCode as E;
    match code {
        E::BrokerTransportFailure | E::AllBrokersDown | E::Resolve | E::OperationTimedOut | E::NodeUpdate => {
            match told.code() {
                Code::KafkaUnreachable if code == E::OperationTimedOut => Code::KafkaTimeout,
                code => code,
            }
        }
        E::SSL => Code::KafkaTls,
        E::Authentication | E::SaslAuthenticationFailed => Code::KafkaLogin,
        E::TopicAuthorizationFailed | E::GroupAuthorizationFailed | E::ClusterAuthorizationFailed => Code::KafkaAcl,
        E::TransactionalIdAuthorizationFailed => Code::KafkaTransactions,
        E::UnknownTopicOrPartition | E::UnknownTopic | E::UnknownPartition => Code::KafkaTopicMissing,
        E::MessageSizeTooLarge | E::InvalidRecord => Code::KafkaMessageTooLarge,
        E::NotEnoughReplicas | E::NotEnoughReplicasAfterAppend => Code::KafkaNotEnoughReplicas,
        E::Fenced | E::InvalidProducerEpoch | E::ProducerFenced => Code::KafkaFenced,
        E::MessageTimedOut | E::RequestTimedOut => Code::KafkaTimeout,
        _ => Code::KafkaBroker,
    }
}

fn sentence(code: Code) -> &'static str {
    match code {
        Code::KafkaUnreachable => "no broker can be reached",
        Code::KafkaTls => "TLS cannot be agreed with the brokers",
        Code::KafkaLogin => "the brokers refuse the login",
        Code::KafkaAcl => "the login lacks a right",
        Code::KafkaTransactions => "the login may not use this transactional id",
        Code::KafkaTopicMissing => "the topic is not there",
        Code::KafkaMessageTooLarge => "a record is larger than the topic takes",
        Code::KafkaNotEnoughReplicas => "too few replicas are in sync",
        Code::KafkaFenced => "another producer took the lane over",
        Code::KafkaTimeout => "the brokers do not answer in time",
        _ => "the broker reports an error",
    }
}

/// Runs something that blocks off the async threads.
///
/// # Errors
/// What it returns; [`Code::Internal`] if it panics.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::new(Code::Internal, "work on the Kafka client broke off").caused_by(error))?
}
