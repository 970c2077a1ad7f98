//! The progress record: its key, its partition, reading it.
//!
//! Read as follows, after the lane is fenced: a `read_uncommitted` question gives the partition's true
//! end H; a `read_committed` consumer then reads up to H. A `read_committed` end alone would be the last
//! stable offset, which another sync's open transaction can hold back. The last record with our key wins;
//! if H is not reached in time the attempt fails, for nothing may be guessed.

use std::time::{Duration, Instant};

use freshet_core::connector::Progress;
use freshet_core::error::{Code, Error, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, ClientContext};

use super::client::{ASK_TIMEOUT, Listening, named};

/// The version of the progress record's form.
pub(super) const VERSION: u32 = 1;
/// How long to wait for others' open transactions: the producers' transaction timeout and a margin.
const READ_TIMEOUT: Duration = Duration::from_secs(75);

/// The context of the consumer that reads progress.
#[derive(Default)]
pub(super) struct Reading(Listening);

impl ClientContext for Reading {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Reading {}

/// Where a lane's record lives.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Where to begin; none for the partition's start.
    pub(super) hint: Option<i64>,
    pub(super) key: String,
}

/// The record's key.
pub(super) fn key(lane: &str) -> String {
    format!("v{VERSION}|{lane}")
}

/// The partition that a new lane draws: spread by name, and stored from then on.
pub(super) fn draw_partition(lane: &str, partitions: i32) -> i32 {
    // FNV-1a; any spread will do.
    let hash = lane
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash % u64::from(partitions.max(1).unsigned_abs())) as i32
}

/// Reads the last committed record of a lane, and its offset.
///
/// # Errors
/// `kafka.progress_lost` when the topic is gone, `kafka.delivery_timeout` when its end is not reached in time.
pub(super) fn read(mut config: ClientConfig, place: &Place) -> Result<Option<(Progress, i64)>> {
    config
        .set("group.id", "freshet-progress")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "50")
        .set("queued.max.messages.kbytes", "4096");
    let consumer: BaseConsumer<Reading> = config
        .create_with_context(Reading::default())
        .map_err(|error| Error::new(Code::Internal, "the Kafka client refuses its settings").caused_by(error))?;
    let (low, end) = consumer
        .fetch_watermarks(&place.topic, place.partition, ASK_TIMEOUT)
        .map_err(|error| lost_or(error, &consumer, &place.topic))?;
    let from = place.hint.filter(|hint| (low..end).contains(hint)).unwrap_or(low);
    if from >= end {
        return Ok(None);
    }
    read_to(&consumer, place, from, end)
}

fn read_to(consumer: &BaseConsumer<Reading>, place: &Place, from: i64, end: i64) -> Result<Option<(Progress, i64)>> {
    let mut assignment = TopicPartitionList::new();
    let assigned = assignment
        .add_partition_offset(&place.topic, place.partition, Offset::Offset(from))
        .and_then(|()| consumer.assign(&assignment));
    assigned.map_err(|error| lost_or(error, consumer, &place.topic))?;
    let since = Instant::now();
    let mut last = None;
    while since.elapsed() < READ_TIMEOUT {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) if message.key() == Some(place.key.as_bytes()) => {
                last = message.payload().map(|value| (value.to_vec(), message.offset()));
            }
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(lost_or(error, consumer, &place.topic)),
        }
        // Control records have offsets and are no messages: the position tells, not the last message.
        if position(consumer, place)? >= end {
            return last.map(|(value, offset)| Ok((parse(&value)?, offset))).transpose();
        }
    }
    let told = format!("the end of `{}` is not reached: a transaction of another producer stays open", place.topic);
    Err(Error::new(Code::KafkaTimeout, told))
}

fn position(consumer: &BaseConsumer<Reading>, place: &Place) -> Result<i64> {
    let positions = consumer.position().map_err(|error| lost_or(error, consumer, &place.topic))?;
    match positions.find_partition(&place.topic, place.partition).map(|found| found.offset()) {
        Some(Offset::Offset(offset)) => Ok(offset),
        _ => Ok(-1),
    }
}

fn parse(value: &[u8]) -> Result<Progress> {
    let progress: Progress = serde_json::from_slice(value).map_err(|error| {
        Error::new(Code::KafkaLedgerBehind, "the progress record is of a form that this version does not read")
            .caused_by(error)
    })?;
    if progress.v == VERSION {
        Ok(progress)
    } else {
        let told = format!("the progress record has version {}; this program reads {VERSION}", progress.v);
        Err(Error::new(Code::KafkaLedgerBehind, told))
    }
}

fn lost_or(error: KafkaError, consumer: &BaseConsumer<Reading>, topic: &str) -> Error {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownPartition) => {
            Error::new(Code::KafkaProgressLost, format!("the progress topic `{topic}` is not there")).caused_by(error)
        }
        _ => named(&format!("reading `{topic}`"), error, &consumer.context().0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_spread_over_the_partitions() {
        let drawn: std::collections::BTreeSet<_> = (0..200).map(|n| draw_partition(&format!("lane {n}"), 16)).collect();

        assert_eq!(drawn.len(), 16);
    }
}
