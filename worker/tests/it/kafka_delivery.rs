//! What a lane promises, seen by a reader at `read_committed`.

use std::time::{Duration, Instant};

use freshet_core::connector::{Guarantee, Target};
use freshet_core::error::Code;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::kafka::{Bench, ChunkBuilder, broker, client, ids, progress, read_all, rows};

/// A transactional producer past the destination, with an open transaction of one record.
fn open_transaction(id: &str, topic: &str, partition: i32, key: &str, value: &str) -> BaseProducer {
    let producer: BaseProducer = client().set("transactional.id", id).set("linger.ms", "0").create().unwrap();
    producer.init_transactions(Duration::from_secs(20)).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::to(topic).partition(partition).key(key).payload(value)).unwrap();
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(10));
    }
    producer
}

#[tokio::test]
async fn a_committed_chunk_is_seen_once_with_its_headers_tombstones_and_null_keys() {
    let _broker = broker().await;
    let bench = Bench::new(Guarantee::ExactlyOnce).await;
    let (mut lane, before) = bench.taken().await;
    let chunk = ChunkBuilder::new()
        .data("s.1.1.1", "one", "value one")
        .message(Target::Data, "s.1.1.2", Some("two"), None)
        .message(Target::Data, "s.1.1.3", None, Some("no key"))
        .message(Target::Data, "s.1.1.4", Some(""), Some(""))
        .message(Target::DeadLetter, "s.1.1.5", Some("five"), Some("bad row"))
        .extra("__connect.errors.exception.message", "too long")
        .build();

    let (chunk, receipt) = lane.send(chunk, progress(5)).await.unwrap();

    assert_eq!(before, None);
    assert_eq!(chunk.messages.len(), 5);
    let mut seen = bench.committed();
    seen.sort_by_key(|seen| seen.header("freshet-id").to_owned());
    let pairs: Vec<_> = seen.iter().map(|seen| (seen.key.as_deref(), seen.value.as_deref())).collect();
    let text = |text: &'static str| Some(text.as_bytes());
    assert_eq!(
        pairs,
        [(text("one"), text("value one")), (text("two"), None), (None, text("no key")), (text(""), text(""))]
    );
    let names: Vec<_> = seen[0].headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    assert_eq!(
        names,
        [
            ("freshet-id", &b"s.1.1.1"[..]),
            ("freshet-op", b"c"),
            ("freshet-run", b"run-1"),
            ("freshet-sync", b"sync-1"),
            ("team", b"shop"),
        ]
    );
    let dead = read_all(bench.plan.dead_letter_topic.as_ref().unwrap(), "read_committed");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].header("__connect.errors.exception.message"), "too long");
    assert_eq!(receipt.partitions.iter().map(|range| range.records).sum::<i64>(), 5);
}

#[tokio::test]
async fn offsets_in_the_receipt_are_where_the_records_are() {
    let _broker = broker().await;
    let bench = Bench::new(Guarantee::ExactlyOnce).await;
    let (mut lane, _) = bench.taken().await;
    lane.send(rows(0..100), progress(100)).await.unwrap();

    let (_, receipt) = lane.send(rows(100..300), progress(300)).await.unwrap();

    let seen = bench.committed();
    for range in &receipt.partitions {
        let inside: Vec<_> = seen
            .iter()
            .filter(|seen| seen.partition == range.partition)
            .filter(|seen| (range.first_offset..=range.last_offset).contains(&seen.offset))
            .collect();
        assert_eq!(inside.len() as i64, range.records);
        assert_eq!((inside[0].offset, inside[inside.len() - 1].offset), (range.first_offset, range.last_offset));
        assert!(inside.iter().all(|seen| ids(&[(*seen).clone()])[0] >= 100));
    }
    let own = read_all(&format!("{}.progress", bench.prefix()), "read_committed");
    let own =
        own.iter().find(|seen| (seen.partition, seen.offset) == (receipt.progress_partition, receipt.progress_offset));
    assert_eq!(own.unwrap().key.as_deref(), Some(format!("v1|{}", bench.plan.lane.name).as_bytes()));
}

#[tokio::test]
async fn progress_is_the_last_committed_record_and_its_partition_stays() {
    let _broker = broker().await;
    let mut bench = Bench::new(Guarantee::ExactlyOnce).await;
    let (mut lane, _) = bench.taken().await;
    lane.send(rows(0..10), progress(10)).await.unwrap();
    let (_, first) = lane.send(rows(10..20), progress(20)).await.unwrap();
    drop(lane);

    let (mut unhinted, read_from_start) = bench.taken().await;
    let (_, second) = unhinted.send(rows(20..30), progress(30)).await.unwrap();
    bench.plan.lane.progress_partition = Some(second.progress_partition);
    bench.plan.lane.progress_offset = Some(second.progress_offset);
    let (_hinted, read_from_hint) = bench.taken().await;
    bench.plan.lane.progress_offset = Some(1_000_000);
    let (_astray, read_from_astray) = bench.taken().await;

    assert_eq!(read_from_start, Some(progress(20)));
    assert_eq!(read_from_hint, Some(progress(30)));
    assert_eq!(read_from_astray, Some(progress(30)), "a hint out of range is no reason to give up");
    assert_eq!(first.progress_partition, second.progress_partition);
    assert_eq!(ids(&bench.committed()), (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_a_dead_producer_left_open_is_aborted_by_the_next_fence_at_once() {
    let _broker = broker().await;
    let bench = Bench::new(Guarantee::ExactlyOnce).await;
    let (mut lane, _) = bench.taken().await;
    let (_, receipt) = lane.send(rows(0..10), progress(10)).await.unwrap();
    drop(lane);
    // The dead producer was a lane of ours: its progress record has our key, and was never committed.
    let (key, value) = (format!("v1|{}", bench.plan.lane.name), serde_json::to_string(&progress(99)).unwrap());
    drop(open_transaction(&bench.transactional_id(), &bench.plan.topic, 0, "open", "open"));
    let topic = format!("{}.progress", bench.prefix());
    drop(open_transaction(&bench.transactional_id(), &topic, receipt.progress_partition, &key, &value));

    let since = Instant::now();
    let (mut lane, found) = bench.taken().await;
    let took = since.elapsed();
    lane.send(rows(10..20), progress(20)).await.unwrap();

    assert!(took < Duration::from_secs(30), "took {took:?}; the broker's own time-out is 60 s");
    assert_eq!(found, Some(progress(10)));
    assert_eq!(ids(&bench.committed()), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_zombie_is_fenced_and_nothing_of_it_is_seen() {
    let _broker = broker().await;
    let bench = Bench::new(Guarantee::ExactlyOnce).await;
    let (mut zombie, _) = bench.taken().await;
    zombie.send(rows(0..10), progress(10)).await.unwrap();

    let (mut successor, found) = bench.taken().await;
    let error = zombie.send(rows(10..2_000), progress(2_000)).await.unwrap_err();
    let after = zombie.send(rows(10..20), progress(20)).await.unwrap_err();
    successor.send(rows(10..20), progress(20)).await.unwrap();

    assert_eq!(error.code, Code::KafkaFenced, "{error}");
    assert_eq!(after.code, Code::KafkaUnclear, "a dead lane stays dead: {after}");
    assert_eq!(found, Some(progress(10)));
    assert_eq!(ids(&bench.committed()), (0..20).collect::<Vec<_>>());
    assert_eq!(bench.taken().await.1, Some(progress(20)));
}

#[tokio::test]
async fn reading_progress_waits_for_a_foreign_open_transaction() {
    let _broker = broker().await;
    for is_hinted in [false, true] {
        let mut bench = Bench::with(Guarantee::ExactlyOnce, |s| s["progress_topic"]["partitions"] = 1.into()).await;
        let (mut lane, _) = bench.taken().await;
        lane.send(rows(0..5), progress(5)).await.unwrap();
        let topic = format!("{}.progress", bench.prefix());
        let foreign = open_transaction(&format!("{}.foreign", bench.prefix()), &topic, 0, "foreign", "x");
        let (_, receipt) = lane.send(rows(5..10), progress(10)).await.unwrap();
        bench.plan.lane.progress_offset = is_hinted.then_some(receipt.progress_offset);
        let mut successor = bench.lane().await;
        successor.fence().await.unwrap();

        let since = Instant::now();
        let reading = tokio::spawn(async move { successor.progress().await });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let was_waiting = !reading.is_finished();
        tokio::task::spawn_blocking(move || foreign.abort_transaction(Duration::from_secs(10)).unwrap()).await.unwrap();
        let found = reading.await.unwrap().unwrap();

        assert!(was_waiting, "5 was all that could be seen, and 10 was committed");
        assert_eq!(found, Some(progress(10)));
        assert!(since.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test]
async fn a_full_queue_only_slows_a_chunk_down() {
    let _broker = broker().await;
    let bench = Bench::with(Guarantee::ExactlyOnce, |s| {
        s["properties"] = serde_json::json!({"queue.buffering.max.messages": 20, "linger.ms": 1});
    })
    .await;
    let (mut lane, _) = bench.taken().await;

    lane.send(rows(0..3_000), progress(3_000)).await.unwrap();

    assert_eq!(ids(&bench.committed()), (0..3_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_empty_chunk_still_moves_progress() {
    let _broker = broker().await;
    let bench = Bench::new(Guarantee::ExactlyOnce).await;
    let (mut lane, _) = bench.taken().await;

    let (_, receipt) = lane.send(ChunkBuilder::new().build(), progress(7)).await.unwrap();

    assert!(receipt.partitions.is_empty());
    assert_eq!(bench.taken().await.1, Some(progress(7)));
}

#[tokio::test]
async fn effectively_once_repeats_nothing_when_nothing_fails() {
    let _broker = broker().await;
    let bench = Bench::new(Guarantee::EffectivelyOnce).await;
    let (mut lane, before) = bench.taken().await;

    for n in 0..5_usize {
        lane.send(rows(n * 1_000..(n + 1) * 1_000), progress((n as i64 + 1) * 1_000)).await.unwrap();
    }

    assert_eq!(before, None);
    assert_eq!(ids(&read_all(&bench.plan.topic, "read_uncommitted")), (0..5_000).collect::<Vec<_>>());
    assert_eq!(bench.taken().await.1, Some(progress(5_000)));
}

#[tokio::test]
async fn a_record_too_large_is_named_and_its_transaction_aborted() {
    let _broker = broker().await;
    let bench = Bench::new(Guarantee::ExactlyOnce).await;
    let (mut lane, _) = bench.taken().await;
    let large = "x".repeat(2_000_000);
    let chunk = ChunkBuilder::new().rows(0..100).data("s.1.1.100", "large", &large).build();

    let error = lane.send(chunk, progress(101)).await.unwrap_err();

    assert_eq!(error.code, Code::KafkaMessageTooLarge, "{error}");
    assert_eq!(bench.committed(), [], "and the reader did not have to wait for it");
    assert_eq!(bench.taken().await.1, None);
}

#[tokio::test]
async fn a_progress_topic_that_is_gone_is_a_loss_and_not_a_first_run() {
    let _broker = broker().await;
    let mut bench = Bench::new(Guarantee::ExactlyOnce).await;
    bench.settings["prefix"] = crate::kafka::unique("elsewhere").into();
    bench.plan.lane.progress_partition = Some(1);
    bench.plan.lane.progress_offset = Some(17);

    let gone = bench.lane().await.fence().await.unwrap_err();
    crate::kafka::open(bench.settings.clone()).await.prepare(&bench.plan).await.unwrap();
    let mut lane = bench.lane().await;
    lane.fence().await.unwrap();
    let emptied = lane.progress().await.unwrap_err();

    assert_eq!(gone.code, Code::KafkaProgressLost, "{gone}");
    assert_eq!(emptied.code, Code::KafkaProgressLost, "{emptied}");
}

/// Partitions of 4 that Java's default partitioner gives these keys: `murmur2(key) & 0x7fffffff % 4`, by the function
/// below, whose own vectors are those of Kafka's `UtilsTest.testMurmur2`.
#[tokio::test]
async fn keys_go_to_the_partitions_that_java_chooses() {
    let _broker = broker().await;
    for (text, hash) in [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)] {
        assert_eq!(murmur2(text.as_bytes()), hash);
    }
    let bench = Bench::new(Guarantee::ExactlyOnce).await;
    let (mut lane, _) = bench.taken().await;

    lane.send(rows(0..200), progress(200)).await.unwrap();

    for seen in bench.committed() {
        let hash = murmur2(seen.key.as_deref().unwrap()) & 0x7fff_ffff;
        assert_eq!(seen.partition, hash % 4);
    }
}

/// MurmurHash2 with the seed that Java's clients use.
fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c_u32 ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (place, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * place);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}
