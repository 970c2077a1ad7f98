//! The torture: syncs whose workers, brokers and databases die, stop and lie, and a reader that finds each change once.
//!
//! ~~~text
//! scene: a source that changes ─► worker ─► proxies ─► Kafka ─► replay.py: the table that the topic makes
//!            ▲ fault.rs: what is done to them                       ║ must equal
//!            └──────────────────────────────────────────────────────╝ the source's table
//! ~~~
//!
//! A program of its own, started by `deploy/torture`; it wants grounds that nobody else uses.

mod bugs;
mod exporter;
mod fault;
mod ground;
mod proxy;
mod round;
mod scene;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use freshet_core::planted::Bug;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use exporter::Compared;
use fault::Fault;
use ground::{Ground, Verdict};
use round::{Case, Report};
use scene::{Origin, Quiet, Scene};

/// Tortures syncs and counts what is lost, duplicated, reordered.
#[derive(Debug, Parser)]
struct Options {
    /// Rounds to play; with `--bug` and `--bugs`, for each bug [default: 200, with a bug 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds after which no round begins any more
    #[arg(long)]
    seconds: Option<u64>,
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
    /// Plant this bug and play the fault that finds it: ends with 1, or the bug was not found
    #[arg(long, value_parser = bug, conflicts_with_all = ["only", "source"])]
    bug: Option<Bug>,
    /// Plant every bug by turns: ends with 0 if each was found in each of its rounds
    #[arg(long, conflicts_with_all = ["only", "source", "bug"])]
    bugs: bool,
    /// Kill a sync and the hand-written exporter side by side, so many times as rounds [default: 30], and count both
    #[arg(long, conflicts_with_all = ["only", "source", "bug", "bugs"])]
    exporter: bool,
    /// List the faults and the bugs, and end
    #[arg(long)]
    list: bool,
}

fn bug(name: &str) -> Result<Bug, String> {
    let words = || Bug::ALL.iter().map(|bug| bug.as_str()).collect::<Vec<_>>().join(", ");
    Bug::ALL.iter().copied().find(|bug| bug.as_str() == name).ok_or_else(|| format!("one of: {}", words()))
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

/// Rounds of one name, summed.
#[derive(Debug, Default)]
struct Line {
    rounds: u64,
    red_rounds: u64,
    total: Report,
}

async fn torture(options: &Options) -> Result<bool> {
    if options.list {
        let names: BTreeSet<_> = Fault::all().into_iter().map(Fault::name).collect();
        names.iter().for_each(|name| println!("{name}"));
        bugs::traps().iter().for_each(|trap| println!("bug {:24} {}", trap.bug.as_str(), trap.fault.name()));
        return Ok(true);
    }
    let seed = options.seed.unwrap_or_else(|| rand::rng().random_range(1..1_000_000));
    println!("seed {seed}");
    let since = Instant::now();
    let ground = Ground::open().await?;
    if options.exporter {
        let compared =
            exporter::compare(&ground, options.rounds.unwrap_or(30), &mut StdRng::seed_from_u64(seed)).await?;
        return Ok(print_compared(options, seed, &compared));
    }
    let mut play = Play {
        options,
        ground: &ground,
        scenes: BTreeMap::new(),
        lines: BTreeMap::new(),
        dice: StdRng::seed_from_u64(seed),
        number: 0,
        deadline: options.seconds.map(|seconds| since + Duration::from_secs(seconds)),
    };
    if options.bugs || options.bug.is_some() {
        play.bugs().await?;
    } else {
        play.rounds().await?;
        play.audit().await?;
    }
    let Play { lines, .. } = play;
    let is_green = print(options, seed, since.elapsed(), &lines);
    if !options.bugs {
        return Ok(is_green);
    }
    let missed: Vec<_> = lines.iter().filter(|(_, line)| line.red_rounds < line.rounds).map(|(name, _)| name).collect();
    for name in &missed {
        println!("not found in every round: {name}");
    }
    Ok(missed.is_empty())
}

/// A torture under way.
struct Play<'a> {
    options: &'a Options,
    ground: &'a Ground,
    /// Made when they are first needed, and made anew after a red round.
    scenes: BTreeMap<Origin, (Scene, Option<Quiet>)>,
    lines: BTreeMap<String, Line>,
    dice: StdRng,
    number: usize,
    deadline: Option<Instant>,
}

impl Play<'_> {
    /// Every fault in turn, drawn without putting back, each with a source drawn for it.
    async fn rounds(&mut self) -> Result<()> {
        let options = self.options;
        let wanted = |part: &Option<String>, name: &str| part.as_ref().is_none_or(|part| name.contains(part.as_str()));
        let brokers = self.ground.kafka.len();
        let origins = |fault: Fault| {
            let of_source =
                |origin: &&Origin| wanted(&options.source, origin.as_str()) && fault.concerns(**origin, brokers);
            Origin::ALL.iter().filter(of_source).copied().collect::<Vec<_>>()
        };
        let faults: Vec<_> = Fault::all()
            .into_iter()
            .filter(|fault| wanted(&options.only, &fault.name()) && !origins(*fault).is_empty())
            .collect();
        anyhow::ensure!(!faults.is_empty(), "no fault and source of these names; see --list");
        let mut deck = Vec::new();
        for _ in 0..options.rounds.unwrap_or(200) {
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            if deck.is_empty() {
                deck.clone_from(&faults);
                deck.shuffle(&mut self.dice);
            }
            let Some(fault) = deck.pop() else { break };
            let origins = origins(fault);
            let origin = *origins.choose_weighted(&mut self.dice, |origin| origin.weight())?;
            let case = Case { fault, bug: None, settings: &[], seed: self.dice.random() };
            self.round(fault.name(), origin, case).await?;
        }
        Ok(())
    }

    /// Every bug, or the one asked for, with what finds it.
    async fn bugs(&mut self) -> Result<()> {
        for trap in bugs::traps().iter().filter(|trap| self.options.bug.is_none_or(|bug| bug == trap.bug)) {
            for _ in 0..self.options.rounds.unwrap_or(3) {
                // A bug of the round before must not make this one red.
                self.scenes.clear();
                let seed = self.dice.random();
                let case = Case { fault: trap.fault, bug: Some(trap.bug), settings: trap.settings, seed };
                self.round(trap.bug.as_str().to_owned(), trap.origin, case).await?;
            }
        }
        Ok(())
    }

    async fn round(&mut self, line: String, origin: Origin, case: Case) -> Result<()> {
        if !self.scenes.contains_key(&origin) {
            let scene = Scene::new(self.ground, origin, case.seed).await?;
            let quiet = scene.quiet().await;
            self.scenes.insert(origin, (scene, Some(quiet)));
        }
        let Some((scene, quiet)) = self.scenes.get_mut(&origin) else { anyhow::bail!("no scene") };
        let report = round::play(self.ground, scene, case, quiet).await;
        self.number += 1;
        let verdict = if report.is_red() { "RED" } else { "ok " };
        let (took, stall) = (report.took.as_secs_f64(), report.stall.as_secs_f64());
        let what = if case.bug.is_some() { format!("{line}, {}", case.fault.name()) } else { case.fault.name() };
        let (number, source) = (self.number, origin.as_str());
        println!(
            "{number:4} {verdict} {took:5.1} s, stall {stall:4.1} s, {:7} records  {what} · {source}",
            report.records
        );
        tell_findings(&report);
        if report.is_red() {
            self.scenes.remove(&origin);
            self.ground.heal().await?;
        }
        add(self.lines.entry(line).or_default(), report);
        Ok(())
    }

    /// Every topic that is in use, read once more as a whole by a reader that knows nothing of it.
    async fn audit(&mut self) -> Result<()> {
        let mut total = Report::default();
        for (scene, _) in self.scenes.values() {
            let table = scene.table(self.ground).await?;
            let verdict = self.ground.replay.verdict("audit", &scene.topic, 0, Some(table)).await?;
            total.add(&verdict);
            total.records += (verdict.records + verdict.letters).unsigned_abs();
        }
        tell_findings(&total);
        add(self.lines.entry(AUDIT.into()).or_default(), total);
        Ok(())
    }
}

const AUDIT: &str = "all topics once more, from their start";

fn add(line: &mut Line, report: Report) {
    line.rounds += 1;
    line.red_rounds += u64::from(report.is_red());
    line.total.lost += report.lost;
    line.total.duplicated += report.duplicated;
    line.total.reordered += report.reordered;
    line.total.broken += report.broken;
    line.total.stall = line.total.stall.max(report.stall);
    line.total.took += report.took;
    line.total.records = line.total.records.max(report.records);
}

fn tell_findings(report: &Report) {
    for finding in report.findings.iter().take(10) {
        println!("         {finding}");
    }
}

/// Prints what both lost and sent twice; true if the sync did neither.
fn print_compared(options: &Options, seed: u64, compared: &Compared) -> bool {
    let Compared { kills, freshet, exporter } = compared;
    println!(
        "\n{:32} {:>10} {:>10} {:>10} {:>10}",
        format!("after {kills} kills"),
        "records",
        "lost",
        "duplicated",
        "reordered"
    );
    for (name, verdict) in [("freshet", freshet), ("hand-written exporter", exporter)] {
        let Verdict { records, lost, duplicated, reordered, .. } = verdict;
        println!("{name:32} {records:10} {lost:10} {duplicated:10} {reordered:10}");
    }
    println!("seed {seed}");
    freshet.findings.iter().for_each(|finding| println!("         {finding}"));
    if options.json {
        let told = |verdict: &Verdict| {
            let Verdict { records, lost, duplicated, reordered, .. } = verdict;
            serde_json::json!({"records": records, "lost": lost, "duplicated": duplicated, "reordered": reordered})
        };
        let (freshet, exporter) = (told(freshet), told(exporter));
        println!("{}", serde_json::json!({"kills": kills, "freshet": freshet, "exporter": exporter, "seed": seed}));
    }
    freshet.lost + freshet.duplicated + freshet.reordered == 0
}

/// Prints the table and the line of JSON; true if nothing is wrong.
fn print(options: &Options, seed: u64, took: Duration, lines: &BTreeMap<String, Line>) -> bool {
    let head = ["rounds", "lost", "duplicated", "reordered", "else"];
    println!("\n{:52} {} {:>13}", "fault", head.map(|name| format!("{name:>10}")).join(" "), "longest stall");
    let row = |name: &str, rounds: u64, total: &Report| {
        let numbers = [rounds, total.lost, total.duplicated, total.reordered, total.broken];
        let numbers = numbers.map(|number| format!("{number:10}")).join(" ");
        println!("{name:52} {numbers} {:11.1} s", total.stall.as_secs_f64());
    };
    let (mut sum, mut rounds, mut records) = (Line::default(), 0, 0);
    for (name, line) in lines {
        row(name, line.rounds, &line.total);
        if name == AUDIT {
            records = line.total.records;
        } else {
            rounds += line.rounds;
        }
        add(&mut sum, line.total.clone());
    }
    row("all", rounds, &sum.total);
    let a_round = sum.total.took.as_secs_f64() / rounds.max(1) as f64;
    println!("seed {seed}, {records} records at the end, {:.0} s, {a_round:.1} s a round", took.as_secs_f64());
    let Report { lost, duplicated, reordered, broken, stall, .. } = sum.total;
    if options.json {
        let line = serde_json::json!({
            "rounds": rounds, "lost": lost, "duplicated": duplicated, "reordered": reordered, "broken": broken,
            "longest_stall_s": stall.as_secs_f64(), "records": records, "seconds": took.as_secs(), "seed": seed,
            "bug": options.bug.map(Bug::as_str),
        });
        println!("{line}");
    }
    lost + duplicated + reordered + broken == 0
}
