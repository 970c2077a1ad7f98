//! A lane: one producer of one sync. A chunk is one transaction, its progress record the last of its records.
//!
//! | outcome | what happens |
//! |---|---|
//! | queue full | back-pressure: poll, and hand the record over again |
//! | abort required, a record refused | the transaction is aborted, the lane is dead |
//! | commit slow, timed out or unclear | the lane is dead: nobody guesses, the next one reads the progress |
//! | fenced, fatal | the lane is dead: another has it |
//!
//! A dead lane is replaced by a new one, which fences, reads progress and goes on.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use freshet_core::connector::{Chunk, Guarantee, Lane, PartitionRange, Progress, Receipt, Target, TopicPlan};
use freshet_core::error::{Code, Error, Result};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use super::client::{ASK_TIMEOUT, Listening, blocking, named, named_code};
use super::progress::{self, Place};
use super::raw::{self, Headers, Record, Sender, Topic};
use super::settings::KafkaSettings;

/// How long a transaction may stay open; a dead producer's blocks its readers at most so long.
const TRANSACTION_TIMEOUT_MS: &str = "60000";
/// How long the records of a chunk may take to be acknowledged; below the transaction's timeout.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(58);
/// How long `init_transactions` may take: it waits for the predecessor's transaction to end.
const FENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a commit may take.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// A commit that took longer may have lost its coordinator in between: its outcome is read, not believed.
const COMMIT_CLEAR: Duration = Duration::from_secs(5);

pub(super) struct KafkaLane {
    producer_config: ClientConfig,
    client_config: ClientConfig,
    topic: String,
    dead_letter_topic: Option<String>,
    guarantee: Guarantee,
    place: Place,
    /// The partition is not stored yet: it is drawn once the topic's size is known.
    drawn: bool,
    open: Option<Box<Open>>,
}

impl KafkaLane {
    pub(super) fn new(settings: &KafkaSettings, plan: &TopicPlan) -> Self {
        let mut producer_config = settings.producer_config();
        if plan.guarantee == Guarantee::ExactlyOnce {
            producer_config
                .set("transactional.id", format!("{}.{}", settings.prefix, plan.lane.name))
                .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);
        }
        Self {
            producer_config,
            client_config: settings.client_config(),
            topic: plan.topic.clone(),
            dead_letter_topic: plan.dead_letter_topic.clone(),
            guarantee: plan.guarantee,
            place: Place {
                topic: settings.progress_topic_name(),
                partition: plan.lane.progress_partition.unwrap_or(0),
                hint: plan.lane.progress_offset,
                key: progress::key(&plan.lane.name),
            },
            drawn: plan.lane.progress_partition.is_some(),
            open: None,
        }
    }
}

#[async_trait]
impl Lane for KafkaLane {
    async fn fence(&mut self) -> Result<()> {
        let (config, guarantee) = (self.producer_config.clone(), self.guarantee);
        let topics = [Some(self.topic.clone()), self.dead_letter_topic.clone(), Some(self.place.topic.clone())];
        let opened = blocking(move || Open::new(&config, guarantee, topics)).await?;
        if !self.drawn {
            self.place.partition = progress::draw_partition(&self.place.key, opened.progress_partitions);
            self.drawn = true;
        }
        self.open = Some(Box::new(opened));
        Ok(())
    }

    async fn progress(&mut self) -> Result<Option<Progress>> {
        let (config, place) = (self.client_config.clone(), self.place.clone());
        let read = blocking(move || progress::read(config, &place)).await?;
        self.place.hint = read.as_ref().map(|(_, offset)| *offset);
        Ok(read.map(|(progress, _)| progress))
    }

    fn progress_partition(&self) -> i32 {
        self.place.partition
    }

    async fn send(&mut self, chunk: Chunk, progress: Progress) -> Result<(Chunk, Receipt)> {
        let mut open = self
            .open
            .take()
            .ok_or_else(|| Error::new(Code::Internal, "a lane was used before it was fenced, or after it died"))?;
        let (guarantee, place) = (self.guarantee, self.place.clone());
        // On an error the producer is dropped with its transaction: the lane is dead.
        let (open, chunk, receipt) = blocking(move || {
            let receipt = open.send(&chunk, &progress, guarantee, &place)?;
            Ok((open, chunk, receipt))
        })
        .await?;
        self.open = Some(open);
        Ok((chunk, receipt))
    }
}

/// What has been acknowledged since the chunk began.
#[derive(Default)]
struct Landed {
    acknowledged: usize,
    refused: Option<RDKafkaErrorCode>,
    ranges: Vec<(usize, PartitionRange)>,
}

#[derive(Default)]
struct Landing {
    listening: Listening,
    landed: Mutex<Landed>,
}

impl ClientContext for Landing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listening.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listening.error(error, reason);
    }
}

impl ProducerContext for Landing {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, target: usize) {
        let mut landed = self.landed.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                landed.acknowledged += 1;
                let (partition, offset) = (message.partition(), message.offset());
                let known = landed.ranges.iter_mut().find(|(of, range)| *of == target && range.partition == partition);
                match known {
                    Some((_, range)) => {
                        range.first_offset = range.first_offset.min(offset);
                        range.last_offset = range.last_offset.max(offset);
                        range.records += 1;
                    }
                    None => landed.ranges.push((
                        target,
                        PartitionRange {
                            topic: String::new(),
                            partition,
                            first_offset: offset,
                            last_offset: offset,
                            records: 1,
                        },
                    )),
                }
            }
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                landed.refused.get_or_insert(code);
            }
        }
    }
}

/// A live producer. The topics' handles stand before it: they are given back first.
struct Open {
    /// Data, dead letters, progress.
    topics: [Option<Topic>; 3],
    names: [Option<String>; 3],
    sender: Sender,
    headers: Option<Headers>,
    progress_partitions: i32,
    producer: BaseProducer<Landing>,
}

impl Open {
    fn new(config: &ClientConfig, guarantee: Guarantee, names: [Option<String>; 3]) -> Result<Self> {
        let producer: BaseProducer<Landing> = config
            .create_with_context(Landing::default())
            .map_err(|error| Error::new(Code::Internal, "the Kafka client refuses its settings").caused_by(error))?;
        let told = &producer.context().listening.0;
        if guarantee == Guarantee::ExactlyOnce {
            let fenced = producer.init_transactions(FENCE_TIMEOUT);
            producer.poll(Duration::ZERO);
            fenced.map_err(|error| named("taking the lane over", error, told))?;
        }
        let progress = names[raw::PROGRESS].as_deref().unwrap_or_default();
        let metadata = producer
            .client()
            .fetch_metadata(Some(progress), ASK_TIMEOUT)
            .map_err(|error| named("asking for the progress topic", error, told))?;
        let progress_partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len()) as i32;
        let mut topics = [None, None, None];
        for (topic, name) in topics.iter_mut().zip(&names) {
            *topic = name.as_deref().map(|name| Topic::open(&producer, name)).transpose()?;
        }
        Ok(Self { topics, names, sender: Sender::default(), headers: None, progress_partitions, producer })
    }

    fn send(&mut self, chunk: &Chunk, progress: &Progress, guarantee: Guarantee, place: &Place) -> Result<Receipt> {
        *self.landed() = Landed::default();
        let value = serde_json::to_vec(progress)
            .map_err(|error| Error::new(Code::Internal, "the progress record cannot be written").caused_by(error))?;
        match guarantee {
            Guarantee::ExactlyOnce => {
                self.producer
                    .begin_transaction()
                    .map_err(|error| self.transaction_error("opening a transaction", error))?;
                let sent = self.send_records(chunk).and_then(|()| self.send_progress(&value, place));
                let sent = sent.and_then(|()| self.drain(chunk.messages.len() + 1));
                if let Err(error) = sent {
                    self.abort();
                    return Err(error);
                }
                self.commit()?;
            }
            Guarantee::EffectivelyOnce => {
                self.send_records(chunk)?;
                self.drain(chunk.messages.len())?;
                self.send_progress(&value, place)?;
                self.drain(chunk.messages.len() + 1)?;
            }
        }
        Ok(self.receipt())
    }

    fn landed(&self) -> std::sync::MutexGuard<'_, Landed> {
        self.producer.context().landed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_records(&mut self, chunk: &Chunk) -> Result<()> {
        let headers = self.headers.get_or_insert_with(|| Headers::new(&chunk.headers));
        for (count, message) in chunk.messages.iter().enumerate() {
            let target = raw::opaque(message.target);
            let topic = self.topics[target]
                .as_ref()
                .ok_or_else(|| Error::new(Code::Internal, "a dead letter of a sync that has no topic for them"))?;
            let record = Record {
                topic,
                partition: None,
                key: message.key.map(|key| key.of(&chunk.buffer)),
                value: message.value.map(|value| value.of(&chunk.buffer)),
                opaque: target,
            };
            let sent = self.sender.send_message(&self.producer, &record, chunk, message, headers);
            sent.map_err(|code| refused(code, &self.producer, message.target))?;
            if count % 1_000 == 999 {
                self.producer.poll(Duration::ZERO);
            }
        }
        Ok(())
    }

    fn send_progress(&mut self, value: &[u8], place: &Place) -> Result<()> {
        let topic = self.topics[raw::PROGRESS]
            .as_ref()
            .ok_or_else(|| Error::new(Code::Internal, "a lane without a progress topic"))?;
        let record = Record {
            topic,
            partition: Some(place.partition),
            key: Some(place.key.as_bytes()),
            value: Some(value),
            opaque: raw::PROGRESS,
        };
        self.sender.send(&self.producer, &record).map_err(|code| refused(code, &self.producer, Target::Data))
    }

    /// Waits until every record is acknowledged, by short polls: the client's own flush sleeps in steps of 100 ms.
    fn drain(&self, wanted: usize) -> Result<()> {
        let since = Instant::now();
        loop {
            self.producer.poll(Duration::from_millis(1));
            let landed = self.landed();
            if let Some(code) = landed.refused {
                drop(landed);
                return Err(refused(code, &self.producer, Target::Data));
            }
            if landed.acknowledged == wanted {
                return Ok(());
            }
            drop(landed);
            if let Some((code, _)) = self.producer.client().fatal_error() {
                return Err(refused(code, &self.producer, Target::Data));
            }
            if since.elapsed() > DRAIN_TIMEOUT {
                return Err(Error::new(Code::KafkaTimeout, "the brokers did not acknowledge a chunk within 58 s"));
            }
        }
    }

    fn commit(&self) -> Result<()> {
        let since = Instant::now();
        let mut committed = self.producer.commit_transaction(COMMIT_TIMEOUT);
        while let Err(KafkaError::Transaction(error)) = &committed
            && error.is_retriable()
            && !error.txn_requires_abort()
            && since.elapsed() < COMMIT_CLEAR
        {
            committed = self.producer.commit_transaction(COMMIT_TIMEOUT);
        }
        self.producer.poll(Duration::ZERO);
        let unclear = || Error::new(Code::KafkaUnclear, "it is not known whether a transaction was committed");
        match committed {
            Ok(()) if since.elapsed() <= COMMIT_CLEAR => Ok(()),
            Ok(()) => Err(unclear()),
            Err(error) => {
                let named = self.transaction_error("committing a transaction", error);
                if named.code == Code::KafkaFenced { Err(named) } else { Err(unclear().caused_by(named)) }
            }
        }
    }

    fn abort(&self) {
        if let Err(error) = self.producer.abort_transaction(ASK_TIMEOUT) {
            // The next lane's fence aborts it, or the broker does after the transaction's timeout.
            tracing::debug!(error = %error, "a transaction could not be aborted by its own producer");
        }
    }

    fn transaction_error(&self, what: &str, error: KafkaError) -> Error {
        match self.producer.client().fatal_error() {
            Some((code, _)) => refused(code, &self.producer, Target::Data).caused_by(error),
            None => named(what, error, &self.producer.context().listening.0),
        }
    }

    fn receipt(&self) -> Receipt {
        let mut receipt = Receipt::default();
        for (target, mut range) in std::mem::take(&mut self.landed().ranges) {
            if target == raw::PROGRESS {
                receipt.progress_partition = range.partition;
                receipt.progress_offset = range.last_offset;
            } else {
                range.topic = self.names[target].clone().unwrap_or_default();
                receipt.partitions.push(range);
            }
        }
        receipt
    }
}

fn refused(code: RDKafkaErrorCode, producer: &BaseProducer<Landing>, target: Target) -> Error {
    let named = named_code(code, &producer.context().listening.0);
    let what = match target {
        Target::Data => "records were not acknowledged",
        Target::DeadLetter => "dead letters were not acknowledged",
    };
    Error::new(named, format!("{what}: {}", code_word(code))).caused_by(KafkaError::MessageProduction(code))
}

fn code_word(code: RDKafkaErrorCode) -> String {
    format!("{code:?}")
}
