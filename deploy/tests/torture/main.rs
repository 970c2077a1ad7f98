//! The torture: syncs whose workers, brokers and databases die, stop and lie, and a reader that finds each change once.
//!
//! ~~~text
//! scene: a source that changes ─► worker ─► proxies ─► Kafka ─► replay.py: the table that the topic makes
//!            ▲ fault.rs: what is done to them                       ║ must equal
//!            └──────────────────────────────────────────────────────╝ the source's table
//! ~~~
//!
//! A program of its own, started by `deploy/torture`; it wants grounds that nobody else uses.

mod fault;
mod ground;
mod proxy;
mod round;
mod scene;
mod worker;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use fault::Fault;
use ground::Ground;
use round::Report;
use scene::{Origin, Quiet, Scene};

/// Tortures syncs and counts what is lost, duplicated, reordered.
#[derive(Debug, Parser)]
struct Options {
    /// Rounds to play
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// Decides faults, moments and rows; drawn and printed if not given
    #[arg(long)]
    seed: Option<u64>,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
    /// Only faults whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Only sources whose name contains this
    #[arg(long)]
    source: Option<String>,
    /// A bug to plant in the workers
    #[arg(long)]
    bug: Option<String>,
    /// List the faults and end
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("torture: no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(torture(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Every fault with every origin that it can happen to and that was asked for.
fn cases(options: &Options, brokers: usize) -> Vec<(Fault, Origin)> {
    let wanted = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let mut cases = Vec::new();
    for origin in Origin::ALL.iter().filter(|origin| wanted(&options.source, origin.as_str())) {
        for fault in Fault::all() {
            if fault.concerns(*origin, brokers) && wanted(&options.only, &fault.name()) {
                cases.push((fault, *origin));
            }
        }
    }
    cases
}

/// Rounds of one fault, summed.
#[derive(Debug, Default)]
struct Line {
    rounds: u64,
    total: Report,
}

async fn torture(options: &Options) -> Result<bool> {
    if options.list {
        let names: std::collections::BTreeSet<_> = Fault::all().into_iter().map(Fault::name).collect();
        names.iter().for_each(|name| println!("{name}"));
        return Ok(true);
    }
    let seed = options.seed.unwrap_or_else(|| rand::rng().random_range(1..1_000_000));
    println!("seed {seed}");
    let since = Instant::now();
    let ground = Ground::open(options.bug.as_deref()).await?;
    let mut dice = StdRng::seed_from_u64(seed);
    let cases = cases(options, ground.kafka.len());
    anyhow::ensure!(!cases.is_empty(), "no fault and source of these names");
    let mut stages = Stages { ground: &ground, scenes: BTreeMap::new() };
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    let mut deck: Vec<(Fault, Origin)> = Vec::new();
    for number in 1..=options.rounds {
        if deck.is_empty() {
            deck.clone_from(&cases);
            deck.shuffle(&mut dice);
        }
        let Some((fault, origin)) = deck.pop() else { break };
        let round_seed = dice.random();
        let report = stages.round(fault, origin, round_seed).await?;
        tell(number, fault, origin, &report);
        add(lines.entry(fault.name()).or_default(), report);
    }
    let audit = stages.audit().await?;
    if audit.is_red() {
        tell_findings(&audit);
    }
    add(lines.entry("all topics once more, from the start".into()).or_default(), audit);
    Ok(print(options, seed, since.elapsed(), &lines))
}

/// The scenes in use, made when they are first needed, and made anew after a red round.
struct Stages<'a> {
    ground: &'a Ground,
    scenes: BTreeMap<Origin, (Scene, Option<Quiet>)>,
}

impl Stages<'_> {
    async fn round(&mut self, fault: Fault, origin: Origin, seed: u64) -> Result<Report> {
        if !self.scenes.contains_key(&origin) {
            let scene = Scene::new(self.ground, origin, seed).await?;
            let quiet = scene.quiet().await;
            self.scenes.insert(origin, (scene, Some(quiet)));
        }
        let Some((scene, quiet)) = self.scenes.get_mut(&origin) else { anyhow::bail!("no scene") };
        let report = round::play(self.ground, scene, fault, seed, quiet).await;
        if report.is_red() {
            self.scenes.remove(&origin);
            self.ground.heal().await?;
        }
        Ok(report)
    }

    /// Every topic that is in use, read once more as a whole by a reader that knows nothing of it.
    async fn audit(&self) -> Result<Report> {
        let mut total = Report::default();
        for (scene, _) in self.scenes.values() {
            let table = scene.table(self.ground).await?;
            let verdict = self.ground.replay.verdict("audit", &scene.topic, 0, Some(table)).await?;
            total.add(&verdict);
        }
        Ok(total)
    }
}

fn add(line: &mut Line, report: Report) {
    line.rounds += 1;
    line.total.lost += report.lost;
    line.total.duplicated += report.duplicated;
    line.total.reordered += report.reordered;
    line.total.broken += report.broken;
    line.total.stall = line.total.stall.max(report.stall);
    line.total.took += report.took;
}

fn tell(number: usize, fault: Fault, origin: Origin, report: &Report) {
    let verdict = if report.is_red() { "RED" } else { "ok " };
    let (took, stall) = (report.took.as_secs_f64(), report.stall.as_secs_f64());
    println!("{number:4} {verdict} {took:5.1} s, stall {stall:4.1} s  {} · {}", fault.name(), origin.as_str());
    tell_findings(report);
}

fn tell_findings(report: &Report) {
    for finding in report.findings.iter().take(10) {
        println!("         {finding}");
    }
}

/// Prints the table and the line of JSON; true if nothing is wrong.
fn print(options: &Options, seed: u64, took: Duration, lines: &BTreeMap<String, Line>) -> bool {
    println!(
        "\n{:48} {:>6} {:>5} {:>10} {:>9} {:>6} {:>13}",
        "fault", "rounds", "lost", "duplicated", "reordered", "else", "longest stall"
    );
    let mut sum = Line::default();
    for (name, line) in lines {
        let Report { lost, duplicated, reordered, broken, stall, .. } = line.total;
        let stall = stall.as_secs_f64();
        println!("{name:48} {:6} {lost:5} {duplicated:10} {reordered:9} {broken:6} {stall:11.1} s", line.rounds);
        if name != "all topics once more, from the start" {
            sum.rounds += line.rounds;
        }
        add(&mut sum, line.total.clone());
        sum.rounds -= 1;
    }
    let Report { lost, duplicated, reordered, broken, stall, .. } = sum.total;
    println!(
        "{:48} {:6} {lost:5} {duplicated:10} {reordered:9} {broken:6} {:11.1} s",
        "all",
        sum.rounds,
        stall.as_secs_f64()
    );
    println!(
        "seed {seed}, {:.0} s, {:.1} s a round",
        took.as_secs_f64(),
        sum.total.took.as_secs_f64() / sum.rounds.max(1) as f64
    );
    if options.json {
        let line = serde_json::json!({
            "rounds": sum.rounds, "lost": lost, "duplicated": duplicated, "reordered": reordered, "broken": broken,
            "longest_stall_s": stall.as_secs_f64(), "seconds": took.as_secs(), "seed": seed, "bug": options.bug,
        });
        println!("{line}");
    }
    !sum.total.is_red()
}
