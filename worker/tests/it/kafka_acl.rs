//! Each right that is missing is named, and the ones that are documented suffice.

use std::ffi::{CString, c_char};
use std::time::{Duration, Instant};

use freshet_core::connector::{Guarantee, StepState, TopicPlan};
use freshet_core::error::Code;
use rdkafka::bindings as sys;
use rdkafka::producer::{BaseProducer, Producer};
use serde_json::{Value, json};

use crate::kafka::{broker, client, create_topic, environment, ids, open, plan, progress, read_all, rows, unique};
use sys::rd_kafka_AclOperation_t as Operation;
use sys::rd_kafka_ResourceType_t as Kind;

const TOPIC: Kind = Kind::RD_KAFKA_RESOURCE_TOPIC;
const ID: Kind = Kind::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID;
const READ: Operation = Operation::RD_KAFKA_ACL_OPERATION_READ;
const WRITE: Operation = Operation::RD_KAFKA_ACL_OPERATION_WRITE;
const CREATE: Operation = Operation::RD_KAFKA_ACL_OPERATION_CREATE;
const DESCRIBE: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE;
const CONFIGS: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS;

/// A right of alice's: to all resources whose names begin so.
#[derive(Debug, Clone, Copy)]
struct Right<'a>(Kind, &'a str, Operation);

/// How librdkafka makes a binding, and a filter for bindings.
type New = unsafe extern "C" fn(
    Kind,
    *const c_char,
    sys::rd_kafka_ResourcePatternType_t,
    *const c_char,
    *const c_char,
    Operation,
    sys::rd_kafka_AclPermissionType_t,
    *mut c_char,
    usize,
) -> *mut sys::rd_kafka_AclBinding_t;

impl Right<'_> {
    fn allow(self, client: &BaseProducer) {
        let ask = |rk, acl, queue| {
            // SAFETY: as `ask` has it; the array is read before the call returns.
            unsafe { sys::rd_kafka_CreateAcls(rk, [acl].as_mut_ptr(), 1, std::ptr::null(), queue) };
        };
        self.ask(client, sys::rd_kafka_AclBinding_new, ask, |event| {
            let mut count = 0;
            // SAFETY: the event lives while this runs, and is of the request above.
            unsafe {
                let result = sys::rd_kafka_event_CreateAcls_result(event);
                let results = sys::rd_kafka_CreateAcls_result_acls(result, &mut count);
                assert_eq!(count, 1);
                assert!(sys::rd_kafka_acl_result_error(*results).is_null());
            }
        });
    }

    /// Whether the broker goes by it: the controller has it first.
    fn is_known(self, client: &BaseProducer) -> bool {
        let ask = |rk, filter, queue| {
            // SAFETY: as `ask` has it.
            unsafe { sys::rd_kafka_DescribeAcls(rk, filter, std::ptr::null(), queue) };
        };
        self.ask(client, sys::rd_kafka_AclBindingFilter_new, ask, |event| {
            let mut count = 0;
            // SAFETY: the event lives while this runs, and is of the request above.
            unsafe {
                sys::rd_kafka_DescribeAcls_result_acls(sys::rd_kafka_event_DescribeAcls_result(event), &mut count)
            };
            count == 1
        })
    }

    fn ask<R>(
        self,
        client: &BaseProducer,
        new: New,
        ask: impl FnOnce(*mut sys::rd_kafka_t, *mut sys::rd_kafka_AclBinding_t, *mut sys::rd_kafka_queue_t),
        read: impl FnOnce(*mut sys::rd_kafka_event_t) -> R,
    ) -> R {
        let Self(kind, name, operation) = self;
        let text = |text: &str| CString::new(text).unwrap();
        let (name, principal, host) = (text(name), text("User:alice"), text("*"));
        let mut reason = [0 as c_char; 256];
        // SAFETY: the client lives; texts are copied; what is made is given back once, the result with its event.
        unsafe {
            let rk = client.client().native_ptr();
            let queue = sys::rd_kafka_queue_new(rk);
            let acl = new(
                kind,
                name.as_ptr(),
                sys::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_PREFIXED,
                principal.as_ptr(),
                host.as_ptr(),
                operation,
                sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
                reason.as_mut_ptr(),
                reason.len(),
            );
            assert!(!acl.is_null());
            ask(rk, acl, queue);
            let event = sys::rd_kafka_queue_poll(queue, 10_000);
            let answer = read(event);
            sys::rd_kafka_event_destroy(event);
            sys::rd_kafka_AclBinding_destroy(acl);
            sys::rd_kafka_queue_destroy(queue);
            answer
        }
    }
}

/// Allows alice; waits until the broker knows.
async fn allow(grants: &[Right<'_>]) {
    let client: BaseProducer = client().create().unwrap();
    grants.iter().for_each(|right| right.allow(&client));
    let since = Instant::now();
    while !grants.iter().all(|right| right.is_known(&client)) {
        assert!(since.elapsed() < Duration::from_secs(30), "the broker does not know of {grants:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn as_alice(prefix: &str) -> Value {
    json!({
        "bootstrap_servers": environment("FRESHET_TEST_KAFKA_SASL"),
        "security": {"protocol": "sasl_plaintext", "mechanism": "SCRAM-SHA-256", "username": "alice", "password": "alice-secret"},
        "prefix": prefix,
        "progress_topic": {"partitions": 2},
    })
}

/// A plan of alice's, with these rights and no others.
async fn alice(data: &[Operation], progress: &[Operation], id: &[Operation]) -> (Value, TopicPlan) {
    let (prefix, topic) = (unique("p"), unique("orders"));
    let grants = data.iter().map(|operation| Right(TOPIC, &topic, *operation));
    let grants = grants.chain(progress.iter().map(|operation| Right(TOPIC, &prefix, *operation)));
    let grants: Vec<_> = grants.chain(id.iter().map(|operation| Right(ID, &prefix, *operation))).collect();
    allow(&grants).await;
    (as_alice(&prefix), plan(&topic, Guarantee::ExactlyOnce))
}

#[tokio::test]
async fn the_documented_rights_suffice_from_preflight_to_delivery() {
    let _broker = broker().await;
    let (settings, plan) = alice(&[WRITE, CREATE, CONFIGS], &[READ, WRITE, CREATE, CONFIGS], &[WRITE]).await;
    let mut destination = open(settings.clone()).await;

    let checked = destination.check().await;
    let prepared = destination.prepare(&plan).await.unwrap();
    let mut lane = destination.lane(&plan).await.unwrap();
    lane.fence().await.unwrap();
    assert_eq!(lane.progress().await.unwrap(), None);
    lane.send(rows(0..100), progress(100)).await.unwrap();
    let mut successor = destination.lane(&plan).await.unwrap();
    successor.fence().await.unwrap();

    assert!(checked.iter().all(|step| step.state != StepState::Failed), "{checked:?}");
    assert!(prepared.steps.iter().all(|step| step.state != StepState::Failed));
    assert_eq!(successor.progress().await.unwrap(), Some(progress(100)));
    assert_eq!(ids(&read_all(&plan.topic, "read_committed")), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_missing_right_is_named() {
    let _broker = broker().await;
    let (data, own, id) = (&[WRITE, CREATE, CONFIGS][..], &[READ, WRITE, CREATE, CONFIGS][..], &[WRITE][..]);
    let cases = [
        (&[WRITE][..], own, id, Code::KafkaAcl, "CREATE on topic `orders"),
        (&[CREATE, DESCRIBE], own, id, Code::KafkaAcl, "WRITE on topic `orders"),
        (&[], own, id, Code::KafkaAcl, "DESCRIBE and WRITE on topic `orders"),
        (data, &[READ, WRITE], id, Code::KafkaAcl, "CREATE on topic `p-"),
        (data, &[WRITE, CREATE], id, Code::KafkaAcl, "READ on topic `p-"),
        (data, &[READ, CREATE], id, Code::KafkaAcl, "WRITE on topic `p-"),
        (data, own, &[], Code::KafkaTransactions, "WRITE and DESCRIBE on transactional ids"),
        (data, own, &[DESCRIBE], Code::KafkaTransactions, "WRITE and DESCRIBE on transactional ids"),
    ];
    for (data, own, id, code, text) in cases {
        let (settings, plan) = alice(data, own, id).await;

        let error = open(settings).await.prepare(&plan).await.unwrap_err();

        assert_eq!(error.code, code, "{text}: {error}");
        assert!(error.message.contains(text), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_connection_test_says_that_the_progress_topic_cannot_be_made() {
    let _broker = broker().await;
    let (settings, _) = alice(&[], &[READ, WRITE], &[]).await;

    let steps = open(settings).await.check().await;

    let step = steps.iter().find(|step| step.name == "progress_topic").unwrap();
    assert_eq!((step.state, step.code), (StepState::Failed, Some(Code::KafkaAcl)), "{step:?}");
}

#[tokio::test]
async fn without_describe_configs_a_preflight_warns_and_goes_on() {
    let _broker = broker().await;
    let (settings, plan) = alice(&[WRITE, CREATE], &[READ, WRITE, CREATE], &[WRITE]).await;

    let prepared = open(settings).await.prepare(&plan).await.unwrap();

    let step = prepared.steps.iter().find(|step| step.name == "message_size").unwrap();
    assert_eq!(step.state, StepState::Warning);
    assert_eq!(prepared.message_bytes_max, 1_048_588);
}

#[tokio::test]
async fn a_lane_whose_rights_are_taken_away_says_so_and_leaves_nothing() {
    let _broker = broker().await;
    let (settings, plan) = alice(&[DESCRIBE], &[READ, WRITE, CREATE], &[WRITE]).await;
    create_topic(&plan.topic, 2, &[]).await;
    create_topic(&format!("{}.progress", settings["prefix"].as_str().unwrap()), 2, &[]).await;
    let mut lane = open(settings).await.lane(&plan).await.unwrap();
    lane.fence().await.unwrap();

    let since = Instant::now();
    let error = lane.send(rows(0..100), progress(100)).await.unwrap_err();

    assert_eq!(error.code, Code::KafkaAcl, "{error}");
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    assert!(read_all(&plan.topic, "read_committed").is_empty());
}

#[tokio::test]
async fn a_lane_without_a_right_to_its_id_says_so() {
    let _broker = broker().await;
    let (settings, plan) = alice(&[WRITE], &[READ, WRITE], &[]).await;

    let error = open(settings).await.lane(&plan).await.unwrap().fence().await.unwrap_err();

    assert_eq!(error.code, Code::KafkaTransactions, "{error}");
}

#[tokio::test]
async fn effectively_once_works_without_any_right_to_transactional_ids() {
    let _broker = broker().await;
    let (settings, mut plan) = alice(&[WRITE, CREATE, CONFIGS], &[READ, WRITE, CREATE], &[]).await;
    plan.guarantee = Guarantee::EffectivelyOnce;
    let mut destination = open(settings).await;
    destination.prepare(&plan).await.unwrap();
    let mut lane = destination.lane(&plan).await.unwrap();
    lane.fence().await.unwrap();

    lane.send(rows(0..100), progress(100)).await.unwrap();

    assert_eq!(ids(&read_all(&plan.topic, "read_committed")), (0..100).collect::<Vec<_>>());
}
