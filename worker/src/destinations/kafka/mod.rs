//! Apache Kafka as a destination.
//!
//! ~~~text
//! settings ─► client (librdkafka's configuration, its complaints) ─► preflight: check, prepare
//!                        │                                          ─► producer: a lane ─► progress: what is committed
//!                        └─► native: the few calls that the crate lacks, each connection judged
//! ~~~
//!
//! The rights it takes, each on a prefixed pattern, so that a later sync needs no new one:
//!
//! | on | rights | for |
//! |---|---|---|
//! | data and dead-letter topics | WRITE; CREATE if topics are to be created; DESCRIBE_CONFIGS | records; without the last, Kafka's default size is assumed |
//! | topic `{prefix}.` | READ, WRITE; CREATE until `{prefix}.progress` is there | progress |
//! | transactional id `{prefix}.` | WRITE | `exactly_once`; the pre-flight tries `{prefix}.{lane}.probe` |
//!
//! WRITE includes DESCRIBE. No right to groups, and IDEMPOTENT_WRITE only on brokers before 2.8.

mod client;
mod native;
mod preflight;
mod producer;
mod progress;
mod settings;

use std::sync::Arc;

use async_trait::async_trait;
use freshet_core::connector::{Destination, DestinationKind, Field, Lane, Prepared, Step, TopicLook, TopicPlan};
use freshet_core::egress::Egress;
use freshet_core::error::{Code, Error, Result};

pub use settings::{
    Allowed, Compression, KafkaSettings, Mechanism, PROPERTIES, ProgressTopic, Protocol, Secret, Security,
};

/// Kafka's own default of `max.message.bytes`.
const MESSAGE_BYTES_MAX: usize = 1_048_588;

/// The kind `kafka`.
pub struct Kafka;

#[async_trait]
impl DestinationKind for Kafka {
    const NAME: &'static str = "kafka";
    const FIELDS: &'static [Field] = settings::FIELDS;
    type Settings = KafkaSettings;

    fn validate(&self, settings: &KafkaSettings) -> Result<()> {
        settings.validate()
    }

    async fn open(&self, settings: KafkaSettings, egress: Arc<Egress>) -> Result<Box<dyn Destination>> {
        settings.validate()?;
        Ok(Box::new(Cluster { way: Arc::new(Way { settings, egress }), message_bytes_max: MESSAGE_BYTES_MAX }))
    }
}

/// The way to a cluster: where it is and how to log in, and which addresses may be dialled on it.
struct Way {
    settings: KafkaSettings,
    egress: Arc<Egress>,
}

/// A cluster; dialled by each call, kept by lanes.
struct Cluster {
    way: Arc<Way>,
    /// The data topic's, once [`Destination::prepare`] has read it.
    message_bytes_max: usize,
}

#[async_trait]
impl Destination for Cluster {
    async fn check(&mut self) -> Vec<Step> {
        preflight::check(Arc::clone(&self.way)).await
    }

    async fn prepare(&mut self, plan: &TopicPlan) -> Result<Prepared> {
        let prepared = preflight::prepare(Arc::clone(&self.way), plan).await?;
        self.message_bytes_max = prepared.message_bytes_max;
        Ok(prepared)
    }

    async fn look(&mut self, plan: &TopicPlan) -> Result<TopicLook> {
        preflight::look(Arc::clone(&self.way), plan).await
    }

    fn partition(&self, key: Option<&[u8]>, partitions: i32) -> Option<i32> {
        key.map(|key| native::partition(key, partitions))
    }

    async fn lane(&mut self, plan: &TopicPlan) -> Result<Box<dyn Lane>> {
        let way = Arc::clone(&self.way);
        Ok(Box::new(producer::KafkaLane::open(way, plan.clone(), self.message_bytes_max).await?))
    }
}

/// Runs what blocks off the async threads.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|error| Error::new(Code::Internal, "a blocking call ended early").caused_by(error))
}
