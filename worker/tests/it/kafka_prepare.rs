//! What a pre-flight finds and creates.

use freshet_core::connector::{Guarantee, Prepared, StepState, TopicCreate, TopicPlan};
use freshet_core::error::Code;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

use crate::kafka::{broker, client, create_topic, open, plan, settings, unique};

async fn prepare(settings: &Value, plan: &TopicPlan) -> freshet_core::error::Result<Prepared> {
    open(settings.clone()).await.prepare(plan).await
}

fn state_of(prepared: &Prepared, step: &str) -> StepState {
    prepared.steps.iter().find(|found| found.name == step).unwrap_or_else(|| panic!("no step {step}")).state
}

fn partitions(topic: &str) -> usize {
    let consumer: BaseConsumer = client().create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), std::time::Duration::from_secs(5)).unwrap();
    metadata.topics()[0].partitions().len()
}

#[tokio::test]
async fn missing_topics_are_created_as_the_plan_says_and_found_again() {
    let _broker = broker().await;
    let (settings, plan) = (settings(&unique("p")), plan(&unique("orders"), Guarantee::ExactlyOnce));

    let first = prepare(&settings, &plan).await.unwrap();
    let again = prepare(&settings, &plan).await.unwrap();

    assert_eq!(partitions(&plan.topic), 4);
    assert_eq!(partitions(plan.dead_letter_topic.as_ref().unwrap()), 4);
    assert_eq!(first.progress_partitions, 4);
    assert_eq!(first.message_bytes_max, 1_048_588);
    assert!(!first.cluster_id.is_empty());
    assert_eq!((again.cluster_id.as_str(), again.progress_partitions), (first.cluster_id.as_str(), 4));
    assert_eq!(state_of(&first, "progress_topic"), StepState::Warning, "one broker holds one replica");
    let names: Vec<_> = first.steps.iter().map(|step| step.name.as_str()).collect();
    let expected = [
        "address",
        "tls",
        "login",
        "brokers",
        "topic",
        "message_size",
        "dead_letter_topic",
        "progress_topic",
        "transactions",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn each_finding_has_its_code() {
    let _broker = broker().await;
    let compacted = unique("compacted");
    create_topic(&compacted, 4, &[("cleanup.policy", "compact")]).await;
    let wide = unique("wide");
    create_topic(&wide, 7, &[]).await;
    let strict = unique("strict");
    create_topic(&strict, 4, &[("min.insync.replicas", "2")]).await;
    let lone = unique("lone");
    create_topic(&lone, 1, &[]).await;
    let create = |partitions, replicas, policy: &str| {
        Some(TopicCreate { partitions, replication_factor: replicas, cleanup_policy: policy.into() })
    };
    let missing = unique("missing");
    let long = "x".repeat(300);
    let cases = [
        (missing.as_str(), None, Code::KafkaTopicMissing, "is not there"),
        (&compacted, create(4, None, "delete"), Code::KafkaTopicMismatch, "cleanup.policy compact, not delete"),
        (&wide, create(6, None, "delete"), Code::KafkaTopicMismatch, "partitions 7, not 6"),
        (&wide, create(7, Some(3), "delete"), Code::KafkaTopicMismatch, "replication factor 1, not 3"),
        (&strict, None, Code::KafkaNotEnoughReplicas, "min.insync.replicas of 2"),
        (&lone, None, Code::KafkaTopicMissing, "dead letters: topic"),
        (&missing, create(4, Some(9), "delete"), Code::KafkaTopicCreate, "cannot create"),
        (&missing, create(4, None, "shred"), Code::KafkaTopicCreate, "cannot create"),
        (&long, create(4, None, "delete"), Code::KafkaTopicCreate, "topic `xxx"),
    ];
    for (topic, create, code, text) in cases {
        let mut plan = plan(topic, Guarantee::ExactlyOnce);
        plan.create = create;

        let error = prepare(&settings(&unique("p")), &plan).await.unwrap_err();

        assert_eq!(error.code, code, "{topic}: {error}");
        assert!(error.message.contains(text), "{topic}: {error}");
    }
}

#[tokio::test]
async fn a_progress_topic_that_is_not_compacted_is_refused() {
    let _broker = broker().await;
    let prefix = unique("p");
    create_topic(&format!("{prefix}.progress"), 4, &[("cleanup.policy", "delete")]).await;

    let error = prepare(&settings(&prefix), &plan(&unique("orders"), Guarantee::ExactlyOnce)).await.unwrap_err();

    assert_eq!(error.code, Code::KafkaTopicMismatch, "{error}");
    assert!(error.message.contains(&prefix), "{error}");
}

#[tokio::test]
async fn the_largest_record_is_read_from_the_topic_and_kept_by_its_lanes() {
    let _broker = broker().await;
    let topic = unique("small");
    create_topic(&topic, 1, &[("max.message.bytes", "20000")]).await;
    create_topic(&format!("{topic}.dlq"), 1, &[("max.message.bytes", "10000")]).await;
    let mut plan = plan(&topic, Guarantee::ExactlyOnce);
    plan.create = None;
    let mut destination = open(settings(&unique("p"))).await;

    let prepared = destination.prepare(&plan).await.unwrap();
    let mut lane = destination.lane(&plan).await.unwrap();
    lane.fence().await.unwrap();
    // Far more than one batch of 20 000 bytes: batches have to stay below it too.
    let (_, receipt) = lane.send(crate::kafka::rows(0..5_000), crate::kafka::progress(5_000)).await.unwrap();

    assert_eq!((prepared.message_bytes_max, prepared.dead_letter_bytes_max), (20_000, 10_000));
    assert_eq!(receipt.partitions[0].records, 5_000);
}

#[tokio::test]
async fn a_preflight_does_not_fence_the_lane_that_works() {
    let _broker = broker().await;
    let bench = crate::kafka::Bench::new(Guarantee::ExactlyOnce).await;
    let (mut lane, _) = bench.taken().await;
    lane.send(crate::kafka::rows(0..10), crate::kafka::progress(10)).await.unwrap();

    open(bench.settings.clone()).await.check().await;
    prepare(&bench.settings, &bench.plan).await.unwrap();
    prepare(&bench.settings, &bench.plan).await.unwrap();

    lane.send(crate::kafka::rows(10..20), crate::kafka::progress(20)).await.unwrap();
}

#[tokio::test]
async fn effectively_once_needs_no_transactional_id() {
    let _broker = broker().await;

    let prepared =
        prepare(&settings(&unique("p")), &plan(&unique("orders"), Guarantee::EffectivelyOnce)).await.unwrap();

    assert_eq!(state_of(&prepared, "transactions"), StepState::Skipped);
}
