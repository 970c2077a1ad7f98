//! Brokers that stop and connections that break: whatever a lane says then, its successor knows what is committed.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use freshet_core::connector::Guarantee;
use freshet_core::error::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::kafka::{Bench, broker_alone, environment, ids, misadvertised, progress, rows};

/// Sends a signal to the first broker, as `deploy/dev/kafka pause 1` does.
fn signal(name: &str) {
    let file = format!("{}/kafka/node1/pid", environment("FRESHET_DEV_DIR"));
    let pid = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    assert!(Command::new("kill").args([name, pid.lines().next().unwrap()]).status().unwrap().success());
}

/// Wakes the broker whatever the test does.
struct Paused;

impl Paused {
    fn now() -> Self {
        signal("-STOP");
        Self
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        signal("-CONT");
    }
}

/// Sends `chunks` of 500 rows over as many lanes as it takes, going on from what each new lane reads; returns how many
/// lanes were needed.
async fn deliver(bench: &Bench, chunks: usize, mut before: impl FnMut(usize)) -> usize {
    let (mut lane, mut at) = bench.taken().await;
    let mut lanes = 1;
    loop {
        let done = at.as_ref().map_or(0, |progress| progress.ordinal as usize);
        if done == chunks * 500 {
            return lanes;
        }
        before(done / 500);
        let next = progress(done as i64 + 500);
        match lane.send(rows(done..done + 500), next.clone()).await {
            Ok(_) => at = Some(next),
            Err(error) => {
                let known = [Code::KafkaUnclear, Code::KafkaTimeout, Code::KafkaUnreachable, Code::KafkaFenced];
                assert!(known.contains(&error.code), "{error}");
                (lane, at) = bench.taken().await;
                lanes += 1;
                assert!(lanes < 10, "no end of errors: {error}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stops_for_seconds_doubles_and_loses_nothing() {
    let _broker = broker_alone().await;
    let bench = Bench::new(Guarantee::ExactlyOnce).await;
    let mut sleepers = Vec::new();

    deliver(&bench, 12, |chunk| {
        // Asleep at once, and from a little later on: in the records, and in the commit.
        if let Some(wait_ms) = [None, Some(0), None, Some(15), None, None, Some(30)].get(chunk).copied().flatten() {
            sleepers.push(std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(wait_ms));
                let _paused = Paused::now();
                std::thread::sleep(Duration::from_secs(6));
            }));
        }
    })
    .await;
    sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());

    assert_eq!(ids(&bench.committed()), (0..6_000).collect::<Vec<_>>());
}

/// What the proxy does with the next request to end a transaction.
const PASS: u8 = 0;
const LOSE_ANSWER: u8 = 1;
const LOSE_REQUEST: u8 = 2;
/// Kafka's number for that request.
const END_TRANSACTION: i16 = 26;

/// Listens where the `PROXIED` listener advertises itself.
async fn proxy(mode: Arc<AtomicU8>) -> String {
    let target = misadvertised();
    let (host, port) = target.rsplit_once(':').unwrap();
    let address = format!("{host}:{}", port.parse::<u16>().unwrap() + 1);
    let listener = TcpListener::bind(&address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, target.clone(), Arc::clone(&mode)));
        }
    });
    address
}

async fn carry(client: TcpStream, target: String, mode: Arc<AtomicU8>) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_broker, mut to_broker) = TcpStream::connect(target).await?.into_split();
    let answers = tokio::spawn(async move { tokio::io::copy(&mut from_broker, &mut to_client).await });
    let mut frame = Vec::new();
    loop {
        let length = from_client.read_u32().await?;
        frame.resize(length as usize, 0);
        from_client.read_exact(&mut frame).await?;
        let is_end = i16::from_be_bytes([frame[0], frame[1]]) == END_TRANSACTION;
        let mode = if is_end { mode.swap(PASS, Ordering::SeqCst) } else { PASS };
        if mode == LOSE_ANSWER {
            answers.abort();
        }
        if mode != LOSE_REQUEST {
            to_broker.write_u32(length).await?;
            to_broker.write_all(&frame).await?;
        }
        if mode != PASS {
            tokio::time::sleep(Duration::from_millis(200)).await;
            answers.abort();
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_or_request_is_lost_is_unclear_and_then_known() {
    let _broker = broker_alone().await;
    let mode = Arc::new(AtomicU8::new(PASS));
    let address = proxy(Arc::clone(&mode)).await;
    let bench = Bench::with(Guarantee::ExactlyOnce, |settings| settings["bootstrap_servers"] = address.into()).await;

    for (round, fault) in [LOSE_ANSWER, LOSE_REQUEST].into_iter().enumerate() {
        let (mut lane, at) = bench.taken().await;
        let done = at.map_or(0, |progress| progress.ordinal as usize);
        mode.store(fault, Ordering::SeqCst);

        let error = lane.send(rows(done..done + 500), progress(done as i64 + 500)).await.unwrap_err();

        assert_eq!(error.code, Code::KafkaUnclear, "{error}");
        assert_eq!(mode.load(Ordering::SeqCst), PASS, "round {round} met no end of a transaction");
    }
    let lanes = deliver(&bench, 4, |_| {}).await;

    assert_eq!(lanes, 1);
    assert_eq!(ids(&bench.committed()), (0..2_000).collect::<Vec<_>>());
}
