//! Apache Kafka as the destination: exactly once by transactions, or effectively once by idempotence.
//!
//! | file | holds |
//! |---|---|
//! | `settings` | the form, and the allow-list of librdkafka's settings |
//! | `client` | clients, and what librdkafka's errors mean |
//! | `preflight` | the connection test, and the look before a run: topics, rights, limits |
//! | `rights` | what the login may do with a topic, asked of the brokers |
//! | `producer` | a lane: one transaction a chunk |
//! | `raw` | handing records to librdkafka without a copy too many |
//! | `progress` | the progress record: its key, its partition, reading it |

pub mod client;
mod preflight;
mod producer;
mod progress;
pub mod raw;
mod rights;
mod settings;

use async_trait::async_trait;
use freshet_core::connector::{Destination, DestinationKind, Field, Lane, Prepared, Step, TopicPlan};
use freshet_core::error::Result;

pub use settings::{Compression, KafkaSettings, Protocol, Security};

/// The kind `kafka`.
#[derive(Debug, Clone, Copy)]
pub struct Kind;

#[async_trait]
impl DestinationKind for Kind {
    const NAME: &'static str = "kafka";
    const FIELDS: &'static [Field] = settings::FIELDS;
    type Settings = KafkaSettings;

    fn validate(&self, settings: &KafkaSettings) -> Result<()> {
        settings.validate()
    }

    async fn open(&self, settings: KafkaSettings) -> Result<Box<dyn Destination>> {
        Ok(Box::new(Kafka { settings }))
    }
}

struct Kafka {
    settings: KafkaSettings,
}

#[async_trait]
impl Destination for Kafka {
    async fn check(&mut self) -> Vec<Step> {
        preflight::check(&self.settings).await
    }

    async fn prepare(&mut self, plan: &TopicPlan) -> Result<Prepared> {
        preflight::prepare(&self.settings, plan).await
    }

    async fn lane(&mut self, plan: &TopicPlan) -> Result<Box<dyn Lane>> {
        Ok(Box::new(producer::KafkaLane::new(&self.settings, plan)))
    }
}
