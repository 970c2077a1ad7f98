//! The connection test, and the look before a run: topics, rights, limits, one named finding each.

use std::time::Duration;

use freshet_core::connector::{Prepared, Step, TopicCreate, TopicPlan};
use freshet_core::error::{Code, Error, Result};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use tokio::net::TcpStream;

use super::client::{ASK_TIMEOUT, Listening, Told, blocking, named, named_code};
use super::rights::{self, Operation};
use super::settings::{KafkaSettings, Protocol};

/// Kafka's own default of `max.message.bytes`, for a topic whose settings may not be read.
const MESSAGE_BYTES_DEFAULT: usize = 1_048_588;
/// How long a new topic may take to get its leaders.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(15);

impl ConsumerContext for Listening {}

/// Tries a cluster: address, TLS, login, brokers.
pub(super) async fn check(settings: &KafkaSettings) -> Vec<Step> {
    let mut steps = Vec::new();
    match reach(settings).await {
        Ok(found) => steps.push(Step::passed("address", found)),
        Err(error) => {
            steps.push(Step::failed("address", &error));
            for name in ["tls", "login", "brokers"] {
                steps.push(Step::skipped(name, "not tried: address failed"));
            }
            return steps;
        }
    }
    let cluster = Cluster::ask(settings).await;
    let protocol = settings.security.protocol;
    let (uses_tls, uses_login) = (
        matches!(protocol, Protocol::Tls | Protocol::SaslTls),
        matches!(protocol, Protocol::SaslPlaintext | Protocol::SaslTls),
    );
    let failed_at = cluster.as_ref().err().map(|error| match error.code {
        Code::KafkaTls => "tls",
        Code::KafkaLogin => "login",
        _ => "brokers",
    });
    for (name, used, fine, unused) in [
        ("tls", uses_tls, "agreed, and the brokers' certificates are trusted", "the protocol has no TLS"),
        ("login", uses_login, "accepted", "the protocol has no login"),
    ] {
        steps.push(match (&cluster, failed_at) {
            (Err(error), Some(at)) if at == name => Step::failed(name, error),
            (Err(_), Some("tls")) => Step::skipped(name, "not tried: tls failed"),
            _ if used => Step::passed(name, fine),
            _ => Step::skipped(name, unused),
        });
    }
    steps.push(match (&cluster, failed_at) {
        (Ok(cluster), _) => {
            let brokers = cluster.brokers.join(", ");
            Step::passed("brokers", format!("cluster {}: {brokers}", cluster.id))
        }
        (Err(error), Some("brokers") | None) => Step::failed("brokers", error),
        (Err(_), Some(at)) => Step::skipped("brokers", format!("not tried: {at} failed")),
    });
    steps
}

async fn reach(settings: &KafkaSettings) -> Result<String> {
    let mut last = Error::new(Code::KafkaUnreachable, "no bootstrap server is given");
    for server in settings.bootstrap_servers.split(',').map(str::trim) {
        match tokio::time::timeout(ASK_TIMEOUT, TcpStream::connect(server)).await {
            Ok(Ok(_)) => return Ok(format!("{server} answers")),
            Ok(Err(error)) => {
                last = Error::new(Code::KafkaUnreachable, format!("{server} cannot be reached")).caused_by(error);
            }
            Err(_) => last = Error::new(Code::KafkaUnreachable, format!("{server} does not answer within 10 s")),
        }
    }
    Err(last)
}

/// What the brokers say of themselves.
struct Cluster {
    id: String,
    brokers: Vec<String>,
}

impl Cluster {
    async fn ask(settings: &KafkaSettings) -> Result<Self> {
        let config = settings.client_config();
        blocking(move || {
            let client = client(&config)?;
            let told = &client.context().0;
            let metadata = fetch(&client, None)?;
            let brokers: Vec<_> =
                metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
            let id = client.client().fetch_cluster_id(ASK_TIMEOUT);
            let id = id.ok_or_else(|| Error::new(told.code(), "the brokers do not say which cluster they are"))?;
            Ok(Self { id, brokers })
        })
        .await
    }
}

fn client(config: &ClientConfig) -> Result<BaseConsumer<Listening>> {
    let mut config = config.clone();
    config.set("group.id", "freshet-preflight");
    config
        .create_with_context(Listening::default())
        .map_err(|error| Error::new(Code::Internal, "the Kafka client refuses its settings").caused_by(error))
}

fn fetch(client: &BaseConsumer<Listening>, topic: Option<&str>) -> Result<rdkafka::metadata::Metadata> {
    client.fetch_metadata(topic, ASK_TIMEOUT).map_err(|error| {
        // What went wrong on the connection is told in passing, as events.
        let _ = client.poll(Duration::from_millis(10));
        let told: &Told = &client.context().0;
        let code = told.code();
        if code == Code::KafkaUnreachable {
            Error::new(code, "no broker answers; check their advertised listeners").caused_by(error)
        } else {
            named("asking for the brokers", error, told)
        }
    })
}

/// A topic as the brokers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    partitions: usize,
    /// Replicas in sync of the partition that has fewest.
    in_sync: usize,
    brokers: usize,
}

/// Looks at everything a run needs; creates topics where the plan says so.
pub(super) async fn prepare(settings: &KafkaSettings, plan: &TopicPlan) -> Result<Prepared> {
    let mut steps = Vec::new();
    let cluster = Cluster::ask(settings).await?;
    steps.push(Step::passed("cluster", format!("{} with {} brokers", cluster.id, cluster.brokers.len())));
    let admin: AdminClient<Listening> = settings
        .client_config()
        .create_with_context(Listening::default())
        .map_err(|error| Error::new(Code::Internal, "the Kafka client refuses its settings").caused_by(error))?;

    let data = topic(settings, &admin, &plan.topic, plan.create.as_ref(), &[Operation::Write], &mut steps).await?;
    if let Some(name) = &plan.dead_letter_topic {
        let dead = plan.create.as_ref().map(|create| TopicCreate { cleanup_policy: "delete".into(), ..create.clone() });
        topic(settings, &admin, name, dead.as_ref(), &[Operation::Write], &mut steps).await?;
    }
    let name = settings.progress_topic_name();
    let replicas = cluster.brokers.len().min(3) as i32;
    let create = TopicCreate {
        partitions: settings.progress_topic.partitions,
        replication_factor: Some(settings.progress_topic.replication_factor.unwrap_or(replicas)),
        cleanup_policy: "compact".into(),
    };
    let rights = [Operation::Read, Operation::Write];
    let progress = topic(settings, &admin, &name, Some(&create), &rights, &mut steps).await?;
    if progress.brokers < 3 {
        let told = "the cluster has fewer than 3 brokers: the progress topic is not replicated as it should be";
        steps.push(Step::warning("progress_replication", told));
    }
    let message_bytes_max = limits(&admin, &plan.topic, data, &mut steps).await?;
    Ok(Prepared { steps, cluster_id: cluster.id, message_bytes_max, progress_partitions: progress.partitions as i32 })
}

async fn topic(
    settings: &KafkaSettings,
    admin: &AdminClient<Listening>,
    name: &str,
    create: Option<&TopicCreate>,
    wanted: &[Operation],
    steps: &mut Vec<Step>,
) -> Result<Shape> {
    let found = shape(settings, name).await;
    let shape = match (found, create) {
        (Err(error), Some(create)) if error.code == Code::KafkaTopicMissing => {
            create_topic(admin, name, create).await?;
            let shape = await_leaders(settings, name).await?;
            steps.push(Step::passed("topic", format!("`{name}` created with {} partitions", shape.partitions)));
            shape
        }
        (found, _) => {
            let shape = found?;
            let told = format!("`{name}` has {} partitions", shape.partitions);
            let differs = create.is_some_and(|create| create.partitions as usize != shape.partitions);
            steps.push(if differs && !name.ends_with(".progress") {
                Step::warning("topic", format!("{told}, not those of the sync's `topic.create`"))
            } else {
                Step::passed("topic", told)
            });
            shape
        }
    };
    let (inner, asked) = (settings.client_config(), name.to_owned());
    let granted = blocking(move || {
        let client = client(&inner)?;
        fetch(&client, Some(&asked))?;
        rights::of_topic(client.client(), &asked)
    })
    .await?;
    for operation in wanted {
        if !granted.contains(operation) {
            let told = format!("{} is not granted on topic `{name}`", operation.as_str());
            return Err(Error::new(Code::KafkaAcl, told));
        }
    }
    let words: Vec<_> = wanted.iter().map(|operation| operation.as_str()).collect();
    steps.push(Step::passed("rights", format!("{} granted on `{name}`", words.join(", "))));
    Ok(shape)
}

async fn shape(settings: &KafkaSettings, name: &str) -> Result<Shape> {
    let (config, name) = (settings.client_config(), name.to_owned());
    blocking(move || {
        let client = client(&config)?;
        let metadata = fetch(&client, Some(&name))?;
        let topic = metadata.topics().first();
        let topic = topic.ok_or_else(|| Error::new(Code::KafkaTopicMissing, format!("topic `{name}` is not there")))?;
        match topic.error().map(RDKafkaErrorCode::from) {
            None | Some(RDKafkaErrorCode::NoError) => {}
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                let told = format!("DESCRIBE is not granted on topic `{name}`");
                return Err(Error::new(Code::KafkaAcl, told));
            }
            Some(code) => {
                let told = format!("topic `{name}` is not there");
                return Err(Error::new(named_code(code, &client.context().0), told));
            }
        }
        if topic.partitions().is_empty() || topic.partitions().iter().any(|partition| partition.leader() < 0) {
            return Err(Error::new(Code::KafkaTopicMissing, format!("topic `{name}` has no leaders")));
        }
        Ok(Shape {
            partitions: topic.partitions().len(),
            in_sync: topic.partitions().iter().map(|partition| partition.isr().len()).min().unwrap_or(0),
            brokers: metadata.brokers().len(),
        })
    })
    .await
}

async fn create_topic(admin: &AdminClient<Listening>, name: &str, create: &TopicCreate) -> Result<()> {
    let replication = TopicReplication::Fixed(create.replication_factor.unwrap_or(-1));
    let topic = NewTopic::new(name, create.partitions, replication).set("cleanup.policy", &create.cleanup_policy);
    let options = AdminOptions::new().operation_timeout(Some(ASK_TIMEOUT)).request_timeout(Some(ASK_TIMEOUT));
    let answers = admin
        .create_topics([&topic], &options)
        .await
        .map_err(|error| named(&format!("creating topic `{name}`"), error, &admin.inner().context().0))?;
    match answers.into_iter().next() {
        None | Some(Ok(_)) => Ok(()),
        // Another worker was quicker.
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed))) => {
            Err(Error::new(Code::KafkaAcl, format!("CREATE is not granted on topic `{name}`")))
        }
        Some(Err((_, code))) => {
            Err(Error::new(Code::KafkaTopicCreate, format!("topic `{name}` cannot be created: {code:?}")))
        }
    }
}

async fn await_leaders(settings: &KafkaSettings, name: &str) -> Result<Shape> {
    let since = std::time::Instant::now();
    loop {
        match shape(settings, name).await {
            Err(error) if error.code == Code::KafkaTopicMissing && since.elapsed() < LEADERS_TIMEOUT => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            shape => return shape,
        }
    }
}

/// The largest record the topic takes; and whether enough replicas are in sync.
async fn limits(admin: &AdminClient<Listening>, name: &str, shape: Shape, steps: &mut Vec<Step>) -> Result<usize> {
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(name)], &options)
        .await
        .map_err(|error| named(&format!("reading the settings of `{name}`"), error, &admin.inner().context().0))?;
    let config = match described.into_iter().next() {
        Some(Ok(config)) => config,
        Some(Err(_)) | None => {
            let told = format!(
                "{} is not granted on topic `{name}`: Kafka's default of {MESSAGE_BYTES_DEFAULT} bytes is assumed",
                Operation::DescribeConfigs.as_str()
            );
            steps.push(Step::warning("max.message.bytes", told));
            return Ok(MESSAGE_BYTES_DEFAULT);
        }
    };
    let number = |name: &str| config.get(name).and_then(|entry| entry.value.as_deref()?.parse::<usize>().ok());
    let min_in_sync = number("min.insync.replicas").unwrap_or(1);
    if shape.in_sync < min_in_sync {
        let told = format!("topic `{name}` has {} replicas in sync and wants {min_in_sync}", shape.in_sync);
        return Err(Error::new(Code::KafkaNotEnoughReplicas, told));
    }
    let bytes = number("max.message.bytes").unwrap_or(MESSAGE_BYTES_DEFAULT);
    steps.push(Step::passed("min.insync.replicas", format!("{} in sync, {min_in_sync} wanted", shape.in_sync)));
    steps.push(Step::passed("max.message.bytes", format!("{bytes}")));
    Ok(bytes)
}
