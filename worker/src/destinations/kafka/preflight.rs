//! Looks at everything a run needs, one named finding each: `check` for a connection, `prepare` for a sync.
//!
//! Rights are asked for, not tried out, since a record written to see whether it can be written stays in the topic: the
//! brokers say what we may do with a topic (Kafka 2.3 and later). Only the right to a transactional id is tried, with an
//! id of its own, `{prefix}.{lane}.probe`: taking the lane's own would end a transaction that a worker has open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use freshet_core::connector::{Guarantee, Prepared, Step, TopicCreate, TopicLook, TopicPlan};
use freshet_core::egress::Egress;
use freshet_core::error::{Code, Error, Result};
use futures::future;
use futures::stream::{self, StreamExt, TryStreamExt};
use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;

use super::client::{self, Watch};
use super::native::{self, Broker, Client, ClusterState, NewTopic, Right, TopicState};
use super::settings::KafkaSettings;
use super::{MESSAGE_BYTES_MAX, Way, off_thread};

/// For the first answer of a cluster.
const DIAL: Duration = Duration::from_secs(12);
/// For each later question.
const ASK: Duration = Duration::from_secs(15);
/// How long other brokers may still answer once one refused TLS or login.
const REFUSED: Duration = Duration::from_millis(1_500);
/// How long to go on once every broker was tried in vain.
const ALL_DOWN: Duration = Duration::from_secs(3);
/// Addresses that are looked up or dialled at once.
const DIALS_MAX: usize = 16;
/// For a new topic's partitions to get leaders.
const LEADERS: Duration = Duration::from_secs(30);
/// Replicas that the progress topic should have, and how many must have it written.
const PROGRESS_REPLICAS: i32 = 3;

/// Tries a connection: `address`, `tls`, `login`, `brokers`, `progress_topic`; those after a failure are skipped.
pub(super) async fn check(way: Arc<Way>) -> Vec<Step> {
    match off_thread(move || check_now(&way)).await {
        Ok(steps) => steps,
        Err(error) => vec![Step::failed("address", &error)],
    }
}

fn check_now(way: &Way) -> Vec<Step> {
    let settings = &way.settings;
    let (session, cluster) = match Session::dial(way, Watch::new(way).guessing()) {
        Ok(dialled) => dialled,
        Err(refusal) => return refused_steps(settings, &refusal),
    };
    let mut steps = connected_steps(settings);
    if let Err(error) = reach(way, &cluster.brokers) {
        steps.push(Step::failed("brokers", &error));
        steps.push(Step::skipped("progress_topic", "not tried"));
        return steps;
    }
    steps.push(brokers_step(&cluster));
    let mut found = Vec::new();
    match session.progress_topic(settings, &cluster, Creating::Asked, &mut found) {
        Ok(_) => steps.append(&mut found),
        Err(error) => steps.push(Step::failed("progress_topic", &error)),
    }
    steps
}

fn connected_steps(settings: &KafkaSettings) -> Vec<Step> {
    let protocol = settings.security.protocol;
    let tls = if protocol.is_encrypted() {
        Step::passed("tls", "the brokers' certificate is trusted and names the host")
    } else {
        Step::warning("tls", "not encrypted, as the protocol says")
    };
    let login = match (protocol.has_login(), settings.security.certificate.is_some()) {
        (true, _) => Step::passed("login", "the brokers took user and password"),
        (false, true) => Step::passed("login", "the brokers took the client certificate"),
        (false, false) => Step::skipped("login", "the protocol has none"),
    };
    vec![Step::passed("address", format!("`{}` answers", settings.bootstrap_servers)), tls, login]
}

/// The steps up to the one that failed, that one, and those that were not tried.
fn refused_steps(settings: &KafkaSettings, refusal: &Refusal) -> Vec<Step> {
    let names = ["address", "tls", "login", "brokers", "progress_topic"];
    let failed = names.iter().position(|name| *name == refusal.step).unwrap_or(0);
    let mut steps = connected_steps(settings);
    steps.truncate(failed);
    steps.push(Step::failed(names[failed], &refusal.error));
    steps.extend(names[failed + 1..].iter().map(|name| Step::skipped(name, "not tried")));
    steps
}

fn brokers_step(cluster: &ClusterState) -> Step {
    let brokers: Vec<_> = cluster.brokers.iter().map(|broker| format!("{}:{}", broker.host, broker.port)).collect();
    Step::passed("brokers", format!("cluster {} with {}: {}", cluster.id, brokers.len(), brokers.join(", ")))
}

/// Looks at what `plan` needs, and creates topics where it says so.
///
/// # Errors
/// The first finding that makes a run impossible.
pub(super) async fn prepare(way: Arc<Way>, plan: &TopicPlan) -> Result<Prepared> {
    let plan = plan.clone();
    off_thread(move || prepare_now(&way, &plan)).await?
}

fn prepare_now(way: &Way, plan: &TopicPlan) -> Result<Prepared> {
    let settings = &way.settings;
    let (session, cluster) = Session::dial(way, Watch::new(way))?;
    let mut steps = connected_steps(settings);
    reach(way, &cluster.brokers)?;
    steps.push(brokers_step(&cluster));
    let message_bytes_max = session.data_topic(plan, &mut steps)?.min(own_bytes_max(settings));
    // One producer sends both, and takes no more than the data topic does.
    let dead_letter_bytes_max =
        session.dead_letter_topic(plan, &mut steps)?.unwrap_or(usize::MAX).min(message_bytes_max);
    let progress_partitions = session.progress_topic(settings, &cluster, Creating::Done, &mut steps)?;
    steps.push(match plan.guarantee {
        Guarantee::ExactlyOnce => probe_transactions(way, &plan.lane.name)?,
        Guarantee::EffectivelyOnce => Step::skipped("transactions", "`effectively_once` has none"),
    });
    tracing::debug!(topic = %plan.topic, cluster_id = %cluster.id, message_bytes_max, "destination prepared");
    Ok(Prepared { steps, cluster_id: cluster.id, message_bytes_max, dead_letter_bytes_max, progress_partitions })
}

/// Looks at the data topic, and creates nothing.
///
/// # Errors
/// `kafka.topic_missing` when it is not there and not to be created; why it cannot be asked for.
pub(super) async fn look(way: Arc<Way>, plan: &TopicPlan) -> Result<TopicLook> {
    let plan = plan.clone();
    off_thread(move || look_now(&way, &plan)).await?
}

fn look_now(way: &Way, plan: &TopicPlan) -> Result<TopicLook> {
    let (session, _) = Session::dial(way, Watch::new(way))?;
    let name = &plan.topic;
    let found = session.topic(name, "DESCRIBE and WRITE")?;
    let partitions = match (&found, &plan.create) {
        (Some(state), _) => i32::try_from(state.partitions.len()).unwrap_or(i32::MAX),
        (None, Some(create)) => create.partitions,
        (None, None) => return Err(topic_missing(name)),
    };
    let configs = if found.is_some() { session.configs(name)?.unwrap_or_default() } else { BTreeMap::new() };
    let bytes_max = configs.get("max.message.bytes").and_then(|text| text.parse().ok()).unwrap_or(MESSAGE_BYTES_MAX);
    Ok(TopicLook {
        is_there: found.is_some(),
        partitions,
        message_bytes_max: bytes_max.min(own_bytes_max(&way.settings)),
    })
}

fn topic_missing(name: &str) -> Error {
    Error::new(Code::KafkaTopicMissing, format!("topic `{name}` is not there"))
}

/// What the destination's own settings allow a record to be.
fn own_bytes_max(settings: &KafkaSettings) -> usize {
    settings.properties.get("message.max.bytes").and_then(|value| value.parse().ok()).unwrap_or(usize::MAX)
}

/// The first of these places that has an address which is not dialled, and its refusal. One that cannot be found is
/// left to whoever dials it.
fn first_blocked(egress: &Egress, places: &[(String, u16)]) -> Option<(usize, Error)> {
    let look = async |(index, (host, port)): (usize, &(String, u16))| {
        let refused = egress.addresses(host, *port, Code::KafkaUnreachable).await.err()?;
        (refused.code == Code::EgressBlocked).then_some((index, refused))
    };
    let looks = stream::iter(places.iter().enumerate()).map(look).buffered(DIALS_MAX);
    Handle::current().block_on(std::pin::pin!(looks.filter_map(future::ready)).next())
}

/// Judges the bootstrap servers, before librdkafka looks them up.
fn judge_servers(way: &Way) -> Result<(), Refusal> {
    let refused = |error| Refusal { step: "address", error };
    let servers = way.settings.addresses().map_err(refused)?;
    first_blocked(&way.egress, &servers).map_or(Ok(()), |(_, error)| Err(refused(error)))
}

/// Judges the brokers that the cluster sends its clients to.
fn judge_brokers(way: &Way, brokers: &[Broker]) -> Result<(), Refusal> {
    let places: Vec<_> = brokers.iter().map(|broker| (broker.host.clone(), broker.port)).collect();
    let Some((index, _)) = first_blocked(&way.egress, &places) else { return Ok(()) };
    Err(Refusal { step: "brokers", error: advertised_blocked(&brokers[index]) })
}

fn advertised_blocked(broker: &Broker) -> Error {
    Error::new(Code::KafkaAdvertised, client::advertised_blocked(&format!("broker {}", broker.id)))
}

/// Dials every advertised address: a client is sent there, whatever address it was given.
fn reach(way: &Way, brokers: &[Broker]) -> Result<()> {
    let dials = stream::iter(brokers).map(|broker| reach_one(&way.egress, broker)).buffered(DIALS_MAX);
    Handle::current().block_on(dials.try_for_each(async |()| Ok(())))
}

async fn reach_one(egress: &Egress, broker: &Broker) -> Result<()> {
    let dialled = egress.connect(&broker.host, broker.port, Code::KafkaUnreachable).await;
    dialled.map(drop).map_err(|error| match error.code {
        Code::EgressBlocked => advertised_blocked(broker),
        code => Error::new(code, format!("broker {} is advertised, and {}", broker.id, error.message)).caused_by(error),
    })
}

/// Whether a missing progress topic is created, or only asked whether it could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Creating {
    Asked,
    Done,
}

/// Why there is no connection, and which step of a test says so.
struct Refusal {
    step: &'static str,
    error: Error,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// A connection for questions.
struct Session {
    client: Client,
}

impl Session {
    fn dial(way: &Way, watch: Watch) -> Result<(Self, ClusterState), Refusal> {
        judge_servers(way)?;
        let client = Client::producer(&client::common(&way.settings), watch).map_err(|error| {
            let error = client::not_made("cannot connect", &error);
            Refusal { step: if error.code == Code::KafkaTls { "tls" } else { "address" }, error }
        })?;
        let since = Instant::now();
        let watch = client.context();
        let go_on = || {
            client.serve(Duration::ZERO, |_| {});
            !(watch.is_refused() && since.elapsed() > REFUSED || watch.all_down() && since.elapsed() > ALL_DOWN)
        };
        let code = match native::describe_cluster(&client, DIAL, go_on) {
            Ok(cluster) => {
                judge_brokers(way, &cluster.brokers)?;
                watch.forget();
                return Ok((Self { client }, cluster));
            }
            Err(code) => code,
        };
        let silent = || Error::new(Code::KafkaUnreachable, format!("cannot connect: no answer within {DIAL:?}"));
        Err(match watch.trouble() {
            Some((trouble, _)) => Refusal { step: trouble.step(), error: watch.explain("cannot connect", code) },
            None if code == RDKafkaErrorCode::OperationTimedOut => Refusal { step: "address", error: silent() },
            None => Refusal { step: "brokers", error: watch.explain("cannot read the cluster's state", code) },
        })
    }

    /// A topic's state; none when it is missing.
    fn topic(&self, name: &str, rights: &str) -> Result<Option<TopicState>> {
        let go_on = || {
            self.client.serve(Duration::ZERO, |_| {});
            true
        };
        match native::describe_topic(&self.client, name, ASK, go_on) {
            Ok(state) => Ok(Some(state)),
            Err(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(None),
            Err(RDKafkaErrorCode::TopicAuthorizationFailed) => Err(acl(&format!("{rights} on topic `{name}`"))),
            Err(code) => Err(self.client.context().explain(&format!("topic `{name}`"), code)),
        }
    }

    /// Creates a topic and waits until each partition has a leader; one that is there by now is as good.
    fn create(&self, topic: &NewTopic<'_>) -> Result<TopicState> {
        let name = topic.name;
        match native::create_topic(&self.client, topic, ASK) {
            Ok(()) | Err((RDKafkaErrorCode::TopicAlreadyExists, _)) => {}
            Err((code, _)) if is_denied(code) => return Err(acl(&format!("CREATE on topic `{name}`"))),
            Err((code, reason)) => {
                let vague = self.client.context().explain(&format!("cannot create topic `{name}`"), code);
                let is_ours = matches!(vague.code, Code::KafkaBroker | Code::KafkaNotEnoughReplicas);
                return Err(match is_ours {
                    true => Error::new(Code::KafkaTopicCreate, format!("cannot create topic `{name}`: {reason}")),
                    false => vague,
                });
            }
        }
        self.await_leaders(name)
    }

    fn await_leaders(&self, name: &str) -> Result<TopicState> {
        let deadline = Instant::now() + LEADERS;
        loop {
            let state = self.topic(name, "DESCRIBE")?;
            if let Some(state) = state.filter(|state| state.partitions.iter().all(|partition| partition.has_leader)) {
                return Ok(state);
            }
            if Instant::now() >= deadline {
                let text = format!("topic `{name}` was created, and has partitions without a leader after {LEADERS:?}");
                return Err(Error::new(Code::KafkaTopicCreate, text));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The settings of a topic that was seen; none without the right to see them. The broker that is asked can be one that
    /// hears of a new topic later than the one that showed it.
    fn configs(&self, name: &str) -> Result<Option<BTreeMap<String, String>>> {
        let deadline = Instant::now() + LEADERS;
        loop {
            match native::describe_configs(&self.client, name, ASK) {
                Ok(configs) => return Ok(Some(configs)),
                Err(code) if is_denied(code) => return Ok(None),
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(code) => {
                    let told = format!("cannot read the settings of `{name}`");
                    return Err(self.client.context().explain(&told, code));
                }
            }
        }
    }

    /// The data topic: there or created, as asked for, writable, with replicas enough. Returns `max.message.bytes`.
    fn data_topic(&self, plan: &TopicPlan, steps: &mut Vec<Step>) -> Result<usize> {
        let name = &plan.topic;
        let (state, is_new) = self.find_or_create(name, plan.create.as_ref())?;
        require(&state, name, &[Right::Write])?;
        let configs = self.configs(name)?;
        let config = |key: &str| configs.as_ref().and_then(|configs| configs.get(key)).map(String::as_str);
        if let (Some(create), false) = (&plan.create, is_new) {
            compare(name, create, &state, config("cleanup.policy"))?;
        }
        let min_in_sync = config("min.insync.replicas").and_then(|text| text.parse().ok()).unwrap_or(1);
        enough_replicas(name, &state, min_in_sync)?;
        let verb = if is_new { "created" } else { "there" };
        steps.push(Step::passed("topic", format!("`{name}` is {verb}, with {} partitions", state.partitions.len())));
        let bytes_max = config("max.message.bytes").and_then(|text| text.parse().ok());
        steps.push(match bytes_max {
            Some(bytes) => Step::passed("message_size", format!("`{name}` takes records of at most {bytes} bytes")),
            None => Step::warning(
                "message_size",
                format!(
                    "DESCRIBE_CONFIGS on `{name}` is not granted: Kafka's default of {MESSAGE_BYTES_MAX} bytes is \
                     assumed, and min.insync.replicas cannot be looked at"
                ),
            ),
        });
        Ok(bytes_max.unwrap_or(MESSAGE_BYTES_MAX))
    }

    /// The dead letters' topic: created with the data topic's partitions and replicas, but never compacted, since its
    /// records are not updates of one another. Returns its `max.message.bytes`, none if there is no such topic.
    fn dead_letter_topic(&self, plan: &TopicPlan, steps: &mut Vec<Step>) -> Result<Option<usize>> {
        let Some(name) = &plan.dead_letter_topic else {
            steps.push(Step::skipped("dead_letter_topic", "the sync tolerates no dead letters"));
            return Ok(None);
        };
        let create = plan.create.clone().map(|create| TopicCreate { cleanup_policy: "delete".into(), ..create });
        let (state, is_new) = self.find_or_create(name, create.as_ref()).map_err(|mut error| {
            error.message = format!("dead letters: {}", error.message);
            error
        })?;
        require(&state, name, &[Right::Write])?;
        let configs = self.configs(name)?.unwrap_or_default();
        let min_in_sync = configs.get("min.insync.replicas").and_then(|text| text.parse().ok()).unwrap_or(1);
        enough_replicas(name, &state, min_in_sync)?;
        let verb = if is_new { "created" } else { "there" };
        steps.push(Step::passed("dead_letter_topic", format!("`{name}` is {verb}")));
        let bytes_max = configs.get("max.message.bytes").and_then(|text| text.parse().ok());
        Ok(Some(bytes_max.unwrap_or(MESSAGE_BYTES_MAX)))
    }

    fn find_or_create(&self, name: &str, create: Option<&TopicCreate>) -> Result<(TopicState, bool)> {
        if let Some(state) = self.topic(name, "DESCRIBE and WRITE")? {
            return Ok((state, false));
        }
        let Some(create) = create else {
            return Err(topic_missing(name));
        };
        let state = self.create(&NewTopic {
            name,
            partitions: create.partitions,
            replication_factor: create.replication_factor.unwrap_or(-1),
            configs: &[("cleanup.policy", &create.cleanup_policy)],
            validate_only: false,
        })?;
        Ok((state, true))
    }

    /// The progress topic: there or created, compacted, readable and writable. Returns its number of partitions.
    fn progress_topic(
        &self,
        settings: &KafkaSettings,
        cluster: &ClusterState,
        creating: Creating,
        steps: &mut Vec<Step>,
    ) -> Result<i32> {
        let name = settings.progress_topic_name();
        let state = match self.topic(&name, "READ, WRITE and DESCRIBE")? {
            Some(state) => state,
            None => match self.create_progress(settings, cluster, creating)? {
                Some(state) => state,
                None => {
                    steps.push(Step::passed("progress_topic", format!("`{name}` is not there and can be created")));
                    return Ok(settings.progress_topic.partitions);
                }
            },
        };
        require(&state, &name, &[Right::Read, Right::Write])?;
        let configs = self.configs(&name)?.unwrap_or_default();
        if let Some(policy) = configs.get("cleanup.policy").filter(|policy| policy.as_str() != "compact") {
            let text = format!("`{name}` has cleanup.policy `{policy}`; only `compact` keeps every sync's progress");
            return Err(Error::new(Code::KafkaTopicMismatch, text));
        }
        let min_in_sync = configs.get("min.insync.replicas").and_then(|text| text.parse().ok()).unwrap_or(1);
        enough_replicas(&name, &state, min_in_sync)?;
        let replicas = state.partitions.iter().map(|partition| partition.replicas).min().unwrap_or(0);
        let detail = format!("`{name}` has {} partitions with {replicas} replicas", state.partitions.len());
        steps.push(match replicas >= PROGRESS_REPLICAS as usize {
            true => Step::passed("progress_topic", detail),
            false => Step::warning("progress_topic", format!("{detail}; 3 would outlive the loss of a broker")),
        });
        Ok(state.partitions.len() as i32)
    }

    /// Creates the progress topic; none when it was only asked whether it could be.
    fn create_progress(
        &self,
        settings: &KafkaSettings,
        cluster: &ClusterState,
        creating: Creating,
    ) -> Result<Option<TopicState>> {
        let brokers = i32::try_from(cluster.brokers.len()).unwrap_or(i32::MAX);
        let replicas = settings.progress_topic.replication_factor.unwrap_or(brokers.min(PROGRESS_REPLICAS));
        let min_in_sync = if replicas >= PROGRESS_REPLICAS { "2" } else { "1" };
        let name = settings.progress_topic_name();
        let topic = NewTopic {
            name: &name,
            partitions: settings.progress_topic.partitions,
            replication_factor: replicas,
            configs: &[("cleanup.policy", "compact"), ("min.insync.replicas", min_in_sync)],
            validate_only: creating == Creating::Asked,
        };
        match creating {
            Creating::Done => self.create(&topic).map(Some),
            Creating::Asked => match native::create_topic(&self.client, &topic, ASK) {
                Ok(()) | Err((RDKafkaErrorCode::TopicAlreadyExists, _)) => Ok(None),
                Err((code, _)) if is_denied(code) => Err(acl(&format!("CREATE on topic `{name}`"))),
                Err((_, reason)) => Err(Error::new(
                    Code::KafkaTopicCreate,
                    format!("`{name}` is not there and cannot be created: {reason}"),
                )),
            },
        }
    }
}

fn is_denied(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)
}

fn acl(missing: &str) -> Error {
    Error::new(Code::KafkaAcl, format!("missing: {missing}"))
}

/// Each of `needed` is among the topic's rights; a broker too old to say is believed.
fn require(state: &TopicState, name: &str, needed: &[Right]) -> Result<()> {
    let Some(rights) = &state.rights else { return Ok(()) };
    let missing: Vec<_> = needed.iter().filter(|right| !rights.contains(right)).map(|right| right.as_str()).collect();
    if missing.is_empty() { Ok(()) } else { Err(acl(&format!("{} on topic `{name}`", missing.join(" and ")))) }
}

/// A topic that is there must be as it would have been created.
fn compare(name: &str, create: &TopicCreate, state: &TopicState, policy: Option<&str>) -> Result<()> {
    let mismatch = |what: &str, found: &str, asked: &str| {
        Err(Error::new(Code::KafkaTopicMismatch, format!("topic `{name}` has {what} {found}, not {asked}")))
    };
    let partitions = state.partitions.len();
    if partitions != create.partitions.unsigned_abs() as usize {
        return mismatch("partitions", &partitions.to_string(), &create.partitions.to_string());
    }
    let replicas = state.partitions.iter().map(|partition| partition.replicas).min().unwrap_or(0);
    if let Some(asked) = create.replication_factor
        && replicas != asked.unsigned_abs() as usize
    {
        return mismatch("replication factor", &replicas.to_string(), &asked.to_string());
    }
    match policy {
        Some(found) if words(found) != words(&create.cleanup_policy) => {
            mismatch("cleanup.policy", found, &create.cleanup_policy)
        }
        Some(_) | None => Ok(()),
    }
}

fn words(list: &str) -> BTreeSet<&str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn enough_replicas(name: &str, state: &TopicState, min_in_sync: usize) -> Result<()> {
    let short = |text: String| Err(Error::new(Code::KafkaNotEnoughReplicas, text));
    let (replicas, in_sync) = state
        .partitions
        .iter()
        .fold((usize::MAX, usize::MAX), |(r, s), partition| (r.min(partition.replicas), s.min(partition.in_sync)));
    let leaderless = state.partitions.iter().filter(|partition| !partition.has_leader).count();
    if replicas < min_in_sync {
        return short(format!(
            "topic `{name}` has {replicas} replicas, fewer than its min.insync.replicas of {min_in_sync}: nothing can be written"
        ));
    }
    if leaderless > 0 {
        return short(format!("{leaderless} of {} partitions of `{name}` have no leader", state.partitions.len()));
    }
    if in_sync < min_in_sync {
        return short(format!("topic `{name}` has {in_sync} replicas in sync, of {min_in_sync} that must be"));
    }
    Ok(())
}

/// Takes a transactional id that nobody works under, so that no lane is fenced.
fn probe_transactions(way: &Way, lane: &str) -> Result<Step> {
    let settings = &way.settings;
    let id = settings.transactional_id(lane);
    let mut config = client::producer(settings, MESSAGE_BYTES_MAX);
    config.set("transactional.id", format!("{id}.probe")).set("transaction.timeout.ms", "10000");
    config.set("message.timeout.ms", "10000");
    let producer = Client::producer(&config, Watch::new(way))
        .map_err(|error| client::not_made("cannot open a transactional producer", &error))?;
    let deadline = Instant::now() + ASK;
    loop {
        let error = match producer.init_transactions(Duration::from_secs(1)) {
            Ok(()) => return Ok(Step::passed("transactions", format!("transactional ids like `{id}` may be used"))),
            Err(error) => error,
        };
        producer.serve(Duration::ZERO, |_| {});
        if error.is_retriable && Instant::now() < deadline {
            continue;
        }
        let told = producer.context().explain_failure("cannot begin transactions", &error);
        return match told.code {
            Code::KafkaTransactions | Code::KafkaAcl => {
                let text =
                    format!("missing: WRITE and DESCRIBE on transactional ids with the prefix `{}.`", settings.prefix);
                Err(Error::new(Code::KafkaTransactions, text))
            }
            // Another pre-flight of this lane was quicker, so the id may be used.
            Code::KafkaFenced => Ok(Step::passed("transactions", format!("transactional ids like `{id}` may be used"))),
            _ => Err(told),
        };
    }
}
