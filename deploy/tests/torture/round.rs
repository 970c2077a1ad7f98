//! One round: a fault strikes a sync whose source changes all the while; then everything is healed, the rest is delivered,
//! and the topic is judged.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use freshet_core::planted::Bug;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::fault::Fault;
use crate::ground::{Ground, Verdict};
use crate::scene::{Quiet, Scene};
use crate::worker::{FailPoint, Worker};

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub fault: Fault,
    /// What its workers do wrong.
    pub bug: Option<Bug>,
    /// Settings of its workers.
    pub settings: &'static [(&'static str, &'static str)],
    pub seed: u64,
}

/// What a fault works with.
pub struct Stage<'a> {
    case: Case,
    pub ground: &'a Ground,
    pub scene: &'a Scene,
    pub dice: StdRng,
    /// Those who live on.
    pub workers: Vec<Worker>,
    /// When it struck, since the Unix epoch.
    pub struck_ms: Option<u64>,
    /// How a run may end without it being a fault of ours, in the words of its failure.
    pub allowed: Option<&'static str>,
    total: Report,
}

/// What a round came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Everything else that must hold and does not.
    pub broken: u64,
    pub findings: Vec<String>,
    /// The longest time without a new record since the fault struck.
    pub stall: Duration,
    /// Records and dead letters on the topic by then.
    pub records: u64,
    pub took: Duration,
}

impl Report {
    pub fn is_red(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.broken > 0
    }

    pub fn add(&mut self, verdict: &Verdict) {
        self.lost += verdict.lost;
        self.duplicated += verdict.duplicated;
        self.reordered += verdict.reordered;
        self.findings.extend(verdict.findings.iter().cloned());
        self.stall = self.stall.max(Duration::from_millis(verdict.gap_ms.unwrap_or(0)));
    }
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Stage<'_> {
    /// Starts a healthy worker.
    pub fn hire(&mut self) -> Result<()> {
        self.workers.push(self.worker(None, &[])?);
        Ok(())
    }

    /// Starts a worker, with settings of its own besides the round's.
    pub fn worker(&self, at: Option<FailPoint>, settings: &[(&str, &str)]) -> Result<Worker> {
        let bug = self.case.bug.map(|bug| ("FRESHET_PLANTED_BUG", bug.as_str()));
        let settings: Vec<_> = self.case.settings.iter().copied().chain(bug).chain(settings.iter().copied()).collect();
        self.ground.worker(at, &settings)
    }

    /// The fault strikes now.
    pub fn struck(&mut self) {
        self.struck_ms.get_or_insert_with(now_ms);
    }

    /// Something that must hold does not.
    pub fn breaks(&mut self, what: String) {
        self.total.broken += 1;
        self.total.findings.push(what);
    }

    /// Postgres may lag behind Kafka; it never leads it.
    pub async fn postgres_must_not_lead(&mut self) -> Result<()> {
        let (published, dead) = self.scene.counted(self.ground).await?;
        let place = self.scene.position(self.ground).await?;
        let verdict = self.ground.replay.verdict("read", &self.scene.topic, 0, None).await?;
        self.total.add(&verdict);
        if published > verdict.records || dead > verdict.letters {
            let (records, letters) = (verdict.records, verdict.letters);
            self.breaks(format!(
                "the runs count {published} records and {dead} dead letters; Kafka has {records} and {letters}"
            ));
        }
        if place.1 > 0 && place > (verdict.batch, verdict.ordinal) {
            let reached = (verdict.batch, verdict.ordinal);
            self.breaks(format!("Postgres is at batch and ordinal {place:?}, Kafka at {reached:?}"));
        }
        Ok(())
    }

    async fn play(&mut self, quiet: &mut Option<Quiet>) -> Result<()> {
        if matches!(self.case.fault, Fault::Kill(freshet_core::failpoint::Step::GenerationTaken, 1)) {
            self.scene.reset(self.ground).await?;
        }
        drop(quiet.take());
        self.scene.drive();
        self.case.fault.strike(self).await?;
        self.ground.heal().await?;
        if self.workers.is_empty() {
            self.hire()?;
        }
        self.scene.progress(1).await?;
        *quiet = Some(self.scene.quiet().await);
        self.scene.rest().await?;
        self.scene.deliver_the_rest(self.ground).await
    }

    async fn judge(&mut self) -> Result<()> {
        let table = self.scene.table(self.ground).await?;
        let since = self.struck_ms.unwrap_or(0);
        let verdict = self.ground.replay.verdict("compare", &self.scene.topic, since, Some(table)).await?;
        self.total.add(&verdict);
        self.total.records = (verdict.records + verdict.letters).unsigned_abs();
        let counted = self.scene.counted(self.ground).await?;
        if counted != (verdict.records, verdict.letters) {
            let there = (verdict.records, verdict.letters);
            self.breaks(format!("the runs count {counted:?} records and dead letters, the topics have {there:?}"));
        }
        if verdict.unfinished > 0 {
            self.breaks(format!("{} records stand behind a transaction that nobody ends", verdict.unfinished));
        }
        for left in self.scene.left_over(self.ground).await? {
            self.breaks(format!("left over: {left}"));
        }
        Ok(())
    }
}

/// Plays one round. `quiet` is held between rounds.
pub async fn play(ground: &Ground, scene: &Scene, case: Case, quiet: &mut Option<Quiet>) -> Report {
    let since = Instant::now();
    let mut stage = Stage {
        case,
        ground,
        scene,
        dice: StdRng::seed_from_u64(case.seed),
        workers: Vec::new(),
        struck_ms: None,
        allowed: None,
        total: Report::default(),
    };
    let played = stage.play(quiet).await;
    if quiet.is_none() {
        *quiet = Some(scene.quiet().await);
    }
    // What went wrong may still have left its marks on the topic.
    let judged = stage.judge().await;
    for error in [played.err(), judged.err()].into_iter().flatten() {
        stage.breaks(format!("{error:#}"));
    }
    for failure in scene.failures() {
        if !stage.allowed.is_some_and(|allowed| failure.contains(allowed)) {
            stage.breaks(failure);
        }
    }
    stage.total.took = since.elapsed();
    stage.total
}
