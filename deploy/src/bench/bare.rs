//! The limit: librdkafka alone, sending records that are in memory already.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::meter::{Taken, cpu_s, peak_rss_mib};

/// Records kept in memory and sent over and over.
const SAMPLE: usize = 20_000;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct Options {
    #[arg(long)]
    bootstrap: String,
    /// Where the records are taken from
    #[arg(long)]
    sample: String,
    /// Where they are sent
    #[arg(long)]
    topic: String,
    #[arg(long)]
    rows: u64,
}

struct Record {
    key: Vec<u8>,
    value: Vec<u8>,
    headers: OwnedHeaders,
}

/// Counts what was not delivered.
#[derive(Default)]
struct Failures(std::sync::atomic::AtomicU64);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        if delivery.is_err() {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// Sends, and prints what it took as one line of JSON.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let records = sample(options)?;
    let producer: BaseProducer<Failures> = ClientConfig::new()
        .set("bootstrap.servers", &options.bootstrap)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("batch.size", "1000000")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "65536")
        .create_with_context(Failures::default())?;
    producer.client().fetch_metadata(Some(&options.topic), PATIENCE)?;

    let pid = std::process::id();
    let (since, cpu) = (Instant::now(), cpu_s(pid)?);
    let mut bytes = 0;
    for (sent, record) in (0..options.rows).zip(records.iter().cycle()) {
        bytes += (record.key.len() + record.value.len()) as u64;
        let mut next =
            BaseRecord::to(&options.topic).key(&record.key).payload(&record.value).headers(record.headers.clone());
        loop {
            match producer.send(next) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    producer.poll(Duration::from_millis(10));
                    next = back;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
        if sent % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(PATIENCE)?;
    let failed = producer.context().0.load(std::sync::atomic::Ordering::Relaxed);
    if failed > 0 {
        bail!("{failed} records were not delivered");
    }
    let taken = Taken {
        rows: options.rows,
        bytes,
        seconds: since.elapsed().as_secs_f64(),
        cpu_s: cpu_s(pid)? - cpu,
        peak_rss_mib: peak_rss_mib(pid)?,
    };
    println!("{}", serde_json::to_string(&taken)?);
    Ok(())
}

/// The first records of a topic, as they are there.
fn sample(options: &Options) -> anyhow::Result<Vec<Record>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &options.bootstrap)
        .set("group.id", "freshet-bench")
        .set("isolation.level", "read_committed")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(&options.sample), PATIENCE)?;
    let partitions = metadata.topics().first().context("the sample's topic is not there")?.partitions().len();
    let mut assigned = TopicPartitionList::new();
    for partition in 0..partitions {
        assigned.add_partition_offset(&options.sample, i32::try_from(partition)?, Offset::Beginning)?;
    }
    consumer.assign(&assigned)?;
    let mut records = Vec::with_capacity(SAMPLE);
    while records.len() < SAMPLE {
        let Some(message) = consumer.poll(Duration::from_secs(5)) else { break };
        let message = message?.detach();
        records.push(Record {
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().unwrap_or_default().to_vec(),
            headers: message.headers().cloned().unwrap_or_default(),
        });
    }
    if records.is_empty() {
        bail!("`{}` is empty", options.sample);
    }
    Ok(records)
}
