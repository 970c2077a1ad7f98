//! The progress topic: one record a lane, compacted; written last in each chunk's transaction, read after a fence.
//!
//! ~~~text
//! offsets:  … 17   18 19 20   21     22 23        H = end as a read_uncommitted client sees it
//!           hint   ── ours ── commit  foreign, open
//! read_committed stops before 22; only when 22's transaction has ended does it announce the end at H.
//! ~~~
//!
//! A `read_committed` client is told the last stable offset as the end, and another lane's open transaction holds that
//! back. Believing it would miss a committed record of our own and send a chunk twice. So the true end is asked for
//! first, and reading goes on until it is reached.

use std::time::{Duration, Instant};

use freshet_core::connector::Progress;
use freshet_core::error::{Code, Error, Result};
use rdkafka::error::RDKafkaErrorCode;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Way;
use super::client::{self, Watch};
use super::native::{Client, Event, Reader};

/// The version of [`Progress`] that is written, and the only one read.
pub(super) const VERSION: u32 = 1;

/// How long reading waits for other lanes' open transactions: their 60 s, and 15 s for the broker to notice.
const WAIT: Duration = Duration::from_secs(75);
/// How long a question to a broker may take.
const ASK: Duration = Duration::from_secs(5);

/// The key of a lane's record.
pub(super) fn key(lane: &str) -> String {
    format!("v1|{lane}")
}

/// Draws a lane's partition: the same for the same name and count.
///
/// The caller stores it and never draws again, since the count may grow.
pub(super) fn draw_partition(lane: &str, partitions: i32) -> i32 {
    let digest = Sha256::digest(lane.as_bytes());
    let head = digest[..8].try_into().map_or(0, u64::from_be_bytes);
    (head % u64::from(partitions.unsigned_abs().max(1))) as i32
}

/// Where a lane's record is looked for.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) lane: String,
    pub(super) partition: i32,
    /// The offset of a record known to have been committed.
    pub(super) hint: Option<i64>,
}

/// Reads a lane's last committed record; blocks, at most 75 s.
///
/// # Errors
/// `kafka.delivery_timeout` when the partition's end stays out of sight, `kafka.progress_lost` when a record must be
/// there and is not, `kafka.ledger_behind` when a newer Freshet wrote it, and what keeps a client from reading.
pub(super) fn read(way: &Way, place: &Place) -> Result<Option<Progress>> {
    let deadline = Instant::now() + WAIT;
    let (low, high) = true_bounds(way, place, deadline)?;
    let start = place.hint.filter(|hint| (low..=high).contains(hint));
    tracing::debug!(partition = place.partition, low, high, start, "reading progress");
    let found = if high > low { scan(way, place, start, high, deadline)? } else { Found::Nothing };
    match found {
        Found::Record(bytes) => parse(&bytes).map(Some),
        Found::Removed => Ok(None),
        Found::Nothing if place.hint.is_none() => Ok(None),
        Found::Nothing => Err(Error::new(
            Code::KafkaProgressLost,
            format!("partition {} of `{}` holds no progress record of this sync", place.partition, place.topic),
        )),
    }
}

enum Found {
    Record(Vec<u8>),
    Removed,
    Nothing,
}

/// The partition's first and next offsets, whatever transactions are open.
fn true_bounds(way: &Way, place: &Place, deadline: Instant) -> Result<(i64, i64)> {
    let what = || format!("cannot read the end of `{}`", place.topic);
    let consumer = consumer(way, "read_uncommitted", &what())?;
    loop {
        let error = match consumer.fetch_watermarks(&place.topic, place.partition, ASK) {
            Ok(bounds) => return Ok(bounds),
            Err(error) => error,
        };
        consumer.serve(Duration::ZERO, |_| {});
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        if is_final(code) || consumer.context().is_refused() || Instant::now() >= deadline {
            return Err(fault(consumer.context(), &what(), code));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Reads at `read_committed` until the end that is announced is at least `high`.
fn scan(way: &Way, place: &Place, start: Option<i64>, high: i64, deadline: Instant) -> Result<Found> {
    let what = || format!("cannot read progress from `{}`", place.topic);
    let consumer = consumer(way, "read_committed", &what())?;
    // Asked for here, the partition's leader is known at once; left to itself, librdkafka looks after half a second.
    let _ = consumer.fetch_metadata(Some(&place.topic), ASK);
    let reader = Reader::start(consumer, &place.topic, place.partition, start)
        .map_err(|code| Error::new(client::code_of(code), format!("{}: {code}", what())))?;
    let own = key(&place.lane);
    let (mut found, mut end, mut failed) = (Found::Nothing, None, None);
    loop {
        reader.poll(Duration::from_millis(100), |event| match event {
            Event::Record { key, value, offset } if key == Some(own.as_bytes()) => {
                tracing::trace!(offset, "found a progress record");
                found = value.map_or(Found::Removed, |value| Found::Record(value.to_vec()));
            }
            Event::Record { .. } => {}
            Event::End { offset } => end = Some(offset),
            Event::Failed { code } => failed = Some(code),
        });
        if end.is_some_and(|end| end >= high) {
            return Ok(found);
        }
        match failed.take() {
            Some(code) if is_final(code) => return Err(fault(reader.watch(), &what(), code)),
            Some(_) | None if reader.watch().is_refused() => {
                return Err(fault(reader.watch(), &what(), RDKafkaErrorCode::OperationTimedOut));
            }
            Some(_) | None => {}
        }
        if Instant::now() >= deadline {
            let text = format!("{}: its end, {high}, was not seen within {WAIT:?}", what());
            return Err(Error::new(Code::KafkaTimeout, text));
        }
    }
}

fn consumer(way: &Way, isolation: &str, what: &str) -> Result<Client> {
    Client::consumer(&client::consumer(&way.settings, isolation), Watch::new(way))
        .map_err(|error| client::not_made(what, &error))
}

/// Errors that waiting does not cure.
fn is_final(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
    )
}

/// The topic was there at the fence: if it is not now, what it held is lost.
fn fault(watch: &Watch, what: &str, code: RDKafkaErrorCode) -> Error {
    let mut error = watch.explain(what, code);
    if error.code == Code::KafkaTopicMissing {
        error.code = Code::KafkaProgressLost;
    }
    error
}

fn parse(bytes: &[u8]) -> Result<Progress> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let broken = |error: serde_json::Error| {
        Error::new(Code::KafkaProgressLost, "the progress record of this sync cannot be read").caused_by(error)
    };
    let Version { v } = serde_json::from_slice(bytes).map_err(broken)?;
    if v != VERSION {
        let text = format!("the progress record has version {v}, and this Freshet reads version {VERSION}");
        return Err(Error::new(Code::KafkaLedgerBehind, text));
    }
    serde_json::from_slice(bytes).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_draws_the_same_partition_every_time_and_lanes_spread() {
        let drawn: Vec<i32> = (0..64).map(|n| draw_partition(&format!("i.w.s{n}.0"), 16)).collect();
        let again: Vec<i32> = (0..64).map(|n| draw_partition(&format!("i.w.s{n}.0"), 16)).collect();

        assert_eq!(drawn, again);
        assert!(drawn.iter().all(|partition| (0..16).contains(partition)));
        assert!(drawn.iter().collect::<std::collections::BTreeSet<_>>().len() > 8);
        assert_eq!(draw_partition("fixed", 16), 13, "a stored partition depends on it");
    }

    #[test]
    fn a_record_of_another_version_is_refused() {
        let error = parse(br#"{"v": 2, "shape": "unknown"}"#).unwrap_err();

        assert_eq!(error.code, Code::KafkaLedgerBehind);
    }
}
