//! What the Kafka tests share: the cluster that `deploy/dev/up` started, topics, chunks, and an unbiased reader.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use freshet_core::connector::{
    Chunk, Destination, Guarantee, Header, Lane, LaneSpec, Message, Progress, Registry, Span, Target, TopicCreate,
    TopicPlan,
};
use freshet_core::testing::EGRESS;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What `deploy/dev/up` exported under this name.
#[expect(clippy::disallowed_methods, reason = "what `deploy/dev/up` exports is not a setting of Freshet")]
pub fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run: eval \"$(deploy/dev/up)\""))
}

/// The plain listener, where the tests may do everything.
pub fn plain() -> String {
    environment("FRESHET_TEST_KAFKA")
}

/// A listener that advertises the port above its own, where nothing listens unless a test does.
pub fn misadvertised() -> String {
    first(&environment("FRESHET_TEST_KAFKA_PROXIED"))
}

/// The first address of a list.
pub fn first(servers: &str) -> String {
    servers.split(',').next().unwrap().to_owned()
}

/// A test certificate or key, as text.
pub fn pem(file: &str) -> String {
    let path = PathBuf::from(environment("FRESHET_TEST_KAFKA_CERTS")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

static BROKER: LazyLock<RwLock<()>> = LazyLock::new(RwLock::default);

/// Held by each test that needs the broker awake.
pub async fn broker() -> RwLockReadGuard<'static, ()> {
    BROKER.read().await
}

/// Held by a test that stops the broker.
pub async fn broker_alone() -> RwLockWriteGuard<'static, ()> {
    BROKER.write().await
}

/// A name that nothing else has.
pub fn unique(word: &str) -> String {
    let mut bytes = [0; 8];
    rand::fill(&mut bytes);
    format!("{word}-{:016x}", u64::from_le_bytes(bytes))
}

/// Settings for the plain listener, with a prefix of the test's own.
pub fn settings(prefix: &str) -> Value {
    json!({
        "bootstrap_servers": plain(),
        "security": {"protocol": "plaintext"},
        "prefix": prefix,
        "progress_topic": {"partitions": 4},
    })
}

/// Opens the destination as the pipeline does: through the registry.
pub async fn open(settings: Value) -> Box<dyn Destination> {
    let registry = freshet_worker::destinations::register(Registry::default());
    let kind = registry.find_destination("kafka").unwrap();
    kind.open(kind.validate(settings).unwrap(), &EGRESS).await.unwrap()
}

/// A prepared sync: its topics are there.
pub struct Bench {
    pub settings: Value,
    pub plan: TopicPlan,
}

impl Bench {
    /// A topic of four partitions, created by the destination itself.
    pub async fn new(guarantee: Guarantee) -> Self {
        Self::with(guarantee, |_| {}).await
    }

    pub async fn with(guarantee: Guarantee, change: impl FnOnce(&mut Value)) -> Self {
        let mut settings = settings(&unique("p"));
        change(&mut settings);
        let plan = plan(&unique("orders"), guarantee);
        open(settings.clone()).await.prepare(&plan).await.unwrap();
        Self { settings, plan }
    }

    /// A new lane, neither fenced nor read.
    pub async fn lane(&self) -> Box<dyn Lane> {
        open(self.settings.clone()).await.lane(&self.plan).await.unwrap()
    }

    /// A lane that has been taken over, and what it read.
    pub async fn taken(&self) -> (Box<dyn Lane>, Option<Progress>) {
        let mut lane = self.lane().await;
        lane.fence().await.unwrap();
        let progress = lane.progress().await.unwrap();
        (lane, progress)
    }

    pub fn prefix(&self) -> &str {
        self.settings["prefix"].as_str().unwrap()
    }

    pub fn transactional_id(&self) -> String {
        format!("{}.{}", self.prefix(), self.plan.lane.name)
    }

    pub fn committed(&self) -> Vec<Seen> {
        read_all(&self.plan.topic, "read_committed")
    }
}

pub fn plan(topic: &str, guarantee: Guarantee) -> TopicPlan {
    TopicPlan {
        topic: topic.into(),
        dead_letter_topic: Some(format!("{topic}.dlq")),
        create: Some(TopicCreate { partitions: 4, replication_factor: None, cleanup_policy: "delete".into() }),
        guarantee,
        lane: LaneSpec {
            name: format!("installation.workspace.{}.0", unique("sync")),
            progress_partition: None,
            progress_offset: None,
        },
    }
}

/// Builds chunks as the pipeline does.
#[derive(Default)]
pub struct ChunkBuilder(Chunk);

impl ChunkBuilder {
    pub fn new() -> Self {
        let header = |name: &str, value: &str| Header { name: name.into(), value: value.into() };
        let headers = vec![header("freshet-run", "run-1"), header("freshet-sync", "sync-1"), header("team", "shop")];
        Self(Chunk { headers: headers.into(), ..Chunk::default() })
    }

    fn span(&mut self, bytes: &[u8]) -> Span {
        let start = self.0.buffer.len() as u32;
        self.0.buffer.extend_from_slice(bytes);
        Span { start, end: self.0.buffer.len() as u32 }
    }

    pub fn message(mut self, target: Target, id: &str, key: Option<&str>, value: Option<&str>) -> Self {
        let key = key.map(|text| self.span(text.as_bytes()));
        let value = value.map(|text| self.span(text.as_bytes()));
        let id = self.span(id.as_bytes());
        self.0.messages.push(Message { target, key, value, id, op: "c", extra: None });
        self
    }

    pub fn data(self, id: &str, key: &str, value: &str) -> Self {
        self.message(Target::Data, id, Some(key), Some(value))
    }

    /// Gives the last message a header of its own.
    pub fn extra(mut self, name: &str, value: &str) -> Self {
        self.0.messages.last_mut().unwrap().extra = Some(self.0.extra_headers.len() as u32);
        self.0.extra_headers.push(vec![Header { name: name.into(), value: value.into() }]);
        self
    }

    pub fn rows(mut self, ids: std::ops::Range<usize>) -> Self {
        for n in ids {
            self = self.data(
                &format!("s.1.1.{n}"),
                &format!("{{\"id\":{n}}}"),
                &format!("{{\"id\":{n},\"name\":\"row {n}\"}}"),
            );
        }
        self
    }

    pub fn build(self) -> Chunk {
        self.0
    }
}

/// A chunk of rows numbered so.
pub fn rows(ids: std::ops::Range<usize>) -> Chunk {
    ChunkBuilder::new().rows(ids).build()
}

/// A progress record that says `ordinal`.
pub fn progress(ordinal: i64) -> Progress {
    Progress {
        v: 1,
        generation: 1,
        fence: 1,
        run_id: "run-1".into(),
        batch_seq: 1,
        ordinal,
        ops: BTreeMap::from([("c".into(), ordinal)]),
        rows_sent: ordinal,
        rows_dead: 0,
        bytes: 0,
        batch_complete: false,
        source_token: Some(json!({"cursor": ordinal})),
        batch: None,
        carry: None,
        chunk_digest: "00".into(),
        at: DateTime::<Utc>::from_timestamp(1_700_000_000, 0).unwrap(),
    }
}

/// One record, as a consumer that is not ours to trust sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|(known, _)| known == name);
        std::str::from_utf8(&header.unwrap_or_else(|| panic!("no header {name}")).1).unwrap()
    }
}

/// Reads a topic from its beginning to the end that was there when it began; by partition, in order.
pub fn read_all(topic: &str, isolation: &str) -> Vec<Seen> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", plain())
        .set("group.id", unique("reader"))
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "20")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    let partitions = metadata.topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition as i32, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut seen, mut ended, deadline) = (Vec::new(), 0, Instant::now() + Duration::from_secs(60));
    while ended < partitions {
        assert!(Instant::now() < deadline, "`{topic}` was not read within a minute");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            Some(Ok(message)) => seen.push(Seen {
                partition: message.partition(),
                offset: message.offset(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: message.headers().map_or(vec![], |headers| {
                    headers
                        .iter()
                        .map(|header| (header.key.into(), header.value.unwrap_or_default().to_vec()))
                        .collect()
                }),
            }),
        }
    }
    seen.sort_by_key(|seen| (seen.partition, seen.offset));
    seen
}

/// The `freshet-id` headers, sorted; twice in the list is twice in the topic.
pub fn ids(seen: &[Seen]) -> Vec<usize> {
    let mut ids: Vec<usize> =
        seen.iter().map(|seen| seen.header("freshet-id").rsplit('.').next().unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    ids
}

/// A configuration of the crate's own clients for the plain listener.
pub fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", plain());
    config
}

/// Creates a topic past the destination.
pub async fn create_topic(name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    for (name, value) in configs {
        topic = topic.set(name, value);
    }
    for result in admin.create_topics([&topic], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
    let consumer: BaseConsumer = client().create().unwrap();
    for _ in 0..100 {
        let metadata = consumer.fetch_metadata(Some(name), Duration::from_secs(5)).unwrap();
        let found = metadata.topics()[0].partitions();
        if found.len() == partitions as usize && found.iter().all(|partition| partition.leader() >= 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("`{name}` has no leaders");
}

/// Carries connections from another address of this machine to `target`; ends with the runtime.
pub async fn forward(from: &str, target: String) -> String {
    let listener = tokio::net::TcpListener::bind((from, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut inner, _)) = listener.accept().await {
            let target = target.clone();
            tokio::spawn(async move {
                let mut outer = tokio::net::TcpStream::connect(target).await?;
                tokio::io::copy_bidirectional(&mut inner, &mut outer).await
            });
        }
    });
    address
}
