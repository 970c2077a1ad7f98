//! Side by side: a sync, and the exporter that teams write by hand, on two Streams of one table under the same load, killed
//! at the same moments.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use freshet_core::testing::surroundings;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use crate::ground::{Ground, PATIENCE, Verdict};
use crate::scene::{Origin, Scene, make_topic};

/// How long both may work before they are killed.
const LIFE_MS: std::ops::Range<u64> = 900..2_500;

/// What came of it.
pub struct Compared {
    pub kills: usize,
    pub freshet: Verdict,
    pub exporter: Verdict,
}

/// The exporter as a process.
struct Exporter {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Exporter {
    fn start(ground: &Ground, topic: &str, stream: &str) -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let log = std::fs::File::options().create(true).append(true).open(ground.logs.join("exporter.log"))?;
        let mut process = Command::new(here.join("dev/python"))
            .arg(here.join("tests/torture/exporter.py"))
            .args([ground.emulator.url(), ground.emulator.token(), &surroundings("FRESHET_TEST_KAFKA"), topic, stream])
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(process.stdout.take().context("no way to hear the exporter")?).lines();
        Ok(Self { process, lines })
    }

    /// Waits until it has found nothing twice in a row.
    async fn is_idle(&mut self) -> Result<()> {
        let mut idle = 0;
        while idle < 2 {
            match self.lines.next_line().await?.as_deref() {
                Some("0") => idle += 1,
                Some(_) => idle = 0,
                None => bail!("the exporter broke off; see exporter.log"),
            }
        }
        Ok(())
    }
}

/// Kills both so many times, lets both finish, and judges both topics.
pub async fn compare(ground: &Ground, kills: usize, dice: &mut StdRng) -> Result<Compared> {
    let scene = Scene::new(ground, Origin::SnowflakeStream, dice.random()).await?;
    let topic = format!("{}.exporter", scene.topic);
    let stream = scene.other_stream();
    make_topic(&topic).await?;
    ground.replay.watch(&topic, "exported", false).await?;
    scene.drive();
    for number in 1..=kills {
        let worker = ground.worker(None, &[])?;
        let exporter = Exporter::start(ground, &topic, &stream)?;
        sleep(Duration::from_millis(dice.random_range(LIFE_MS))).await;
        drop(worker);
        drop(exporter);
        ground.lapse_leases().await?;
        if number % 10 == 0 {
            println!("{number} kills");
        }
    }
    let _worker = ground.worker(None, &[])?;
    let mut exporter = Exporter::start(ground, &topic, &stream)?;
    scene.progress(1).await?;
    let _quiet = scene.quiet().await;
    scene.rest().await?;
    scene.deliver_the_rest(ground).await?;
    timeout(PATIENCE, exporter.is_idle()).await.context("the exporter does not come to an end")??;
    exporter.process.kill().await?;
    let table = scene.table(ground).await?;
    let freshet = ground.replay.verdict("compare", &scene.topic, 0, Some(table.clone())).await?;
    let exporter = ground.replay.verdict("compare", &topic, 0, Some(table)).await?;
    Ok(Compared { kills, freshet, exporter })
}
