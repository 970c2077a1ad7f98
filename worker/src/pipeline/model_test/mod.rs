//! The delivery loop itself over a source, a log and a ledger in memory: every step at which a worker can die, sleep, be
//! refused or lose an answer, times every step of the worker that takes over, exhaustively up to three chunks.
//!
//! | holds always | judged in |
//! |---|---|
//! | each record once, and in order per key | `State::judge_commit` |
//! | progress only grows; a complete batch is its rows and dead letters | `State::judge_commit` |
//! | nothing is released before it is delivered | `State::release` |
//! | the ledger never leads the log | `State::judge_books` |
//! | in the end everything is there, and counted | `State::judge_end` |

mod ports;
mod world;

use std::sync::Arc;
use std::time::Duration;

use freshet_core::clock::Clock;
use freshet_core::connector::{Column, Kind as ColumnKind, ModelSpec, ReadPlan, Registry};
use freshet_core::egress::Egress;
use freshet_core::error::{Code, Result};
use freshet_core::id::{ConnectionId, DestinationId, InstallationId, ModelVersionId, RunId, SyncId, WorkspaceId};
use freshet_core::queue::Stop;
use freshet_core::run::Claim;
use freshet_core::run::work::Started;
use freshet_core::settings::{Reach, Settings};
use freshet_core::sync::work::Work;
use serde_json::{Value, json};

use super::{Attempt, Ended, Ground};
use ports::{Hand, Memory, MemoryLedger};
use world::{Act, Condition, Kind, Place, SourceState, World};

/// Rows of a chunk.
const CHUNK_ROWS: usize = 2;
/// More attempts than two faults can cost.
const ATTEMPTS_MAX: usize = 8;
/// Far more turns than a run takes.
const TURNS_MAX: usize = 100_000;

const START: Place = Place::new("begin the attempt", Kind::Writes, Code::Database);
const SUCCEED: Place = Place::new("end the run", Kind::Writes, Code::Database);

/// What is walked through, but for the faults.
#[derive(Debug, Clone, Copy)]
struct Scene {
    is_staged: bool,
    rows: i64,
    /// The ledger follows after each chunk, or at the end of a batch alone.
    follows: bool,
    /// A sleeper wakes when its successor has done everything, and not as soon as that stops for a moment.
    wakes_late: bool,
    /// An earlier run was cancelled after its first chunk.
    left_over: bool,
}

/// What a worker's script says: at which of its steps what happens.
type Script = Vec<(usize, Act)>;

struct Walk {
    scene: Scene,
    world: Arc<World>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Walk {
    fn new(scene: Scene) -> Self {
        let mut source = if scene.is_staged { SourceState::staged() } else { SourceState::cursor() };
        // Key 0 stands for a row that cannot be sent: a dead letter among the others.
        source.change(if scene.is_staged { 0..scene.rows } else { 1..scene.rows + 1 });
        Self { scene, world: World::new(source), tasks: Vec::new() }
    }

    /// Begins an attempt; its worker's number.
    fn begin(&mut self, script: &Script) -> usize {
        let who = self.world.hire(script);
        let claim = self.world.lock().claim();
        let hand = Hand { world: Arc::clone(&self.world), who };
        let follows = if self.scene.follows { Duration::ZERO } else { Duration::MAX };
        let is_staged = self.scene.is_staged;
        let task = async move {
            let ended = attempt(&hand, claim, is_staged, follows).await;
            hand.world.lock().workers[hand.who].condition = Condition::Ended(ended.is_ok());
        };
        self.tasks.push(tokio::spawn(task));
        who
    }

    /// Lets everybody work until `who` has ended, sleeps or is dead.
    async fn settle(&self, who: usize) -> Condition {
        for _ in 0..TURNS_MAX {
            let condition = self.world.lock().workers[who].condition;
            if condition != Condition::Awake {
                if condition == Condition::Dead {
                    self.tasks[who].abort();
                }
                return condition;
            }
            tokio::task::yield_now().await;
        }
        self.world.lock().broken.push("nothing moves any more".into());
        Condition::Dead
    }

    fn sleepers(&self) -> Vec<usize> {
        let state = self.world.lock();
        (0..state.workers.len()).filter(|who| state.workers[*who].condition == Condition::Asleep).collect()
    }

    /// The first worker's script, the second's, and then as many without faults as it takes.
    async fn through(mut self, scripts: &[Script]) -> Vec<Vec<Place>> {
        if self.scene.left_over {
            self.leave_over().await;
        }
        let mut awaited = Vec::new();
        for turn in 0..ATTEMPTS_MAX {
            let script = scripts.get(turn).cloned().unwrap_or_default();
            let who = self.begin(&script);
            awaited.push(who);
            let mut condition = self.settle(who).await;
            self.world.arrive();
            // Changes go on all the while.
            self.world.lock().source.change([2, 100 + turn as i64]);
            if !self.scene.wakes_late && turn > 0 {
                condition = self.wake_in_turns(who).await;
            }
            let is_done = condition == Condition::Ended(true) && turn + 1 >= scripts.len();
            if is_done && self.world.lock().books.runs.last().is_some_and(|run| run.is_over) {
                break;
            }
        }
        while let Some(sleeper) = self.sleepers().first() {
            self.world.wake(*sleeper);
            self.settle(*sleeper).await;
        }
        self.finish().await;
        let state = self.world.lock();
        awaited.iter().map(|who| state.workers[*who].trail.clone()).collect()
    }

    /// Sleepers and the one just settled wake by turns until nobody sleeps; what became of the last.
    async fn wake_in_turns(&self, last: usize) -> Condition {
        while let Some(sleeper) = self.sleepers().first() {
            self.world.wake(*sleeper);
            self.settle(*sleeper).await;
            self.world.arrive();
        }
        self.world.lock().workers[last].condition
    }

    /// What changed meanwhile goes out in runs of its own, and then all is judged.
    async fn finish(&mut self) {
        for _ in 0..ATTEMPTS_MAX {
            let who = self.begin(&Script::new());
            let well = self.settle(who).await == Condition::Ended(true);
            let mut state = self.world.lock();
            let last = state.books.runs.last().is_some_and(|run| run.is_over && run.counts.read == 0);
            if well && last {
                state.judge_end();
                return;
            }
        }
        self.world.lock().broken.push(format!("not at the end after {ATTEMPTS_MAX} more attempts"));
    }

    /// A run that was cancelled after its first chunk: its batch goes first in the next.
    async fn leave_over(&mut self) {
        let trail = Box::pin(Walk::new(Scene { left_over: false, ..self.scene }).through(&[])).await.remove(0);
        let mut sends = trail.iter().enumerate().filter(|(_, place)| place.name == "produce");
        let second = sends.nth(1).expect("a batch of more than one chunk").0;
        // What it sent is written down, or it dies before that, as a run does that is cancelled when its worker dies.
        let last = if self.scene.follows { (second, Act::Refused) } else { (second, Act::Die) };
        let who = self.begin(&vec![last]);
        self.settle(who).await;
        let mut state = self.world.lock();
        if let Some(run) = state.books.runs.last_mut() {
            run.is_over = true;
        }
    }
}

/// One attempt, as `jobs/run_sync.rs` and `pipeline::deliver` make it.
async fn attempt(hand: &Hand, (number, epoch): (usize, i64), is_staged: bool, record_every: Duration) -> Result<()> {
    let begin = move |state: &mut world::State| {
        let position = state.take_position((number, epoch))?;
        let run = state.held((number, epoch))?;
        Ok((position, run.own_batch, run.count_base))
    };
    let (position, own_batch, count_base) = hand.step(START, begin).await?;
    let mode = if is_staged { json!({"kind": "full"}) } else { json!({"kind": "incremental", "cursor": "v"}) };
    let work = work(&mode)?;
    let (claim, stop) = (claim(epoch), Stop::default());
    let registry = Registry::default().source(Memory(hand.clone())).destination(Memory(hand.clone()));
    let registry = crate::formats::register(registry);
    let settings = Settings::with(&[("chunk_rows_max", &CHUNK_ROWS.to_string()), ("chunk_bytes_max", "4096")])?;
    let ledger = MemoryLedger { hand: hand.clone(), claim: (number, epoch) };
    let egress = Arc::new(Egress::new(Reach::Private, "")?);
    let ground = Ground {
        keeper: None,
        registry: &registry,
        egress: &egress,
        settings: &settings,
        clock: &Clock::standing(chrono::DateTime::UNIX_EPOCH),
        ledger: &ledger,
        installation: InstallationId::from(uuid::Uuid::nil()),
        record_every,
    };
    let source = registry.find_source("memory")?.open(Value::Null, &egress).await?;
    let plan = ReadPlan {
        model: work.spec.clone(),
        columns: work.columns.clone().unwrap_or_default().columns,
        key: work.primary_key.clone(),
        mode: work.config.mode.clone(),
    };
    let memory = || ("memory".to_owned(), Value::Null);
    let started = Started { work, connection: memory(), destination: memory(), position, own_batch, count_base };
    match Attempt::new(ground, &claim, &stop, started, (source, plan)).await?.run().await? {
        Ended::LaidDown | Ended::Adopted => Ok(()),
        Ended::Delivered(counts) => {
            let end = move |state: &mut world::State| {
                let run = state.held((number, epoch))?;
                (run.counts, run.is_over) = (counts, true);
                state.judge_books();
                Ok(())
            };
            hand.step(SUCCEED, end).await
        }
    }
}

fn claim(epoch: i64) -> Claim {
    let nil = uuid::Uuid::nil();
    Claim { workspace: WorkspaceId::from(nil), run: RunId::from(nil), sync: SyncId::from(nil), epoch, attempt: 1 }
}

fn work(mode: &Value) -> Result<Work> {
    let nil = uuid::Uuid::nil();
    let config = json!({"mode": mode, "topic": {"name": "t"}, "error_tolerance": {"kind": "count", "max": 1_000_000}});
    let config = serde_json::from_value(config);
    let column = |name: &str, nullable| Column {
        name: name.into(),
        kind: ColumnKind::Int,
        source_type: "int8".into(),
        nullable,
    };
    Ok(Work {
        sync_id: SyncId::from(nil),
        sync_name: "sync".into(),
        generation: 1,
        topic: "t".into(),
        config: config.map_err(|error| freshet_core::error::Error::new(Code::Internal, error.to_string()))?,
        model_name: "model".into(),
        model_version_id: ModelVersionId::from(nil),
        spec: ModelSpec::Table { schema: "public".into(), table: "t".into() },
        primary_key: vec!["id".into()],
        columns: Some(freshet_core::connector::Schema { columns: vec![column("id", true), column("v", false)] }),
        connection_id: ConnectionId::from(nil),
        connection_name: "connection".into(),
        destination_id: DestinationId::from(nil),
    })
}

/// Walks through one script; fails with it and with what is wrong.
fn walk(runtime: &tokio::runtime::Runtime, scene: Scene, scripts: &[Script]) -> Vec<Vec<Place>> {
    let walk = Walk::new(scene);
    let world = Arc::clone(&walk.world);
    let trails = runtime.block_on(walk.through(scripts));
    let state = world.lock();
    assert!(state.broken.is_empty(), "{scene:?}\n{}\n{:#?}", told(scripts, &trails), state.broken);
    trails
}

/// What happened to whom, in words.
fn told(scripts: &[Script], trails: &[Vec<Place>]) -> String {
    let mut lines = Vec::new();
    for (who, script) in scripts.iter().enumerate() {
        for (step, act) in script {
            let place = trails.get(who).and_then(|trail| trail.get(*step)).map_or("?", |place| place.name);
            lines.push(format!("worker {who}, step {step} ({place}): {act:?}"));
        }
    }
    lines.join("\n")
}

/// Every fault at every step of the first worker, times every fault at every step of the second if it is to have one;
/// how many walks.
fn walk_all(scene: Scene, twice: bool) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut walks = 1;
    let faultless = walk(&runtime, scene, &[]).remove(0);
    for (first, act) in acts(&faultless).filter(|(_, act)| !scene.wakes_late || *act == Act::Sleep) {
        let script: Script = vec![(first, act)];
        let trails = walk(&runtime, scene, &[script.clone(), Script::new()]);
        walks += 1;
        let Some(second) = trails.get(1).filter(|_| twice) else { continue };
        for fault in acts(second) {
            walk(&runtime, scene, &[script.clone(), vec![fault]]);
            walks += 1;
        }
    }
    walks
}

/// Everything that can happen at the steps of a trail.
fn acts(trail: &[Place]) -> impl Iterator<Item = (usize, Act)> {
    trail.iter().enumerate().flat_map(|(step, place)| place.acts().iter().map(move |act| (step, *act)))
}

const STAGED: Scene = Scene { is_staged: true, rows: 0, follows: true, wakes_late: false, left_over: false };
const CURSOR: Scene = Scene { is_staged: false, ..STAGED };

/// Rows that make none, one, two and three chunks.
const ROWS: [i64; 4] = [0, 1, 3, 5];

#[test]
fn a_staged_batch_of_up_to_three_chunks_survives_two_faults_anywhere() {
    let walks: usize = ROWS.map(|rows| walk_all(Scene { rows, ..STAGED }, true)).iter().sum();

    assert!(walks > 4_000, "{walks} walks are not all there are");
}

#[test]
fn a_cursor_of_up_to_three_chunks_survives_two_faults_anywhere() {
    let walks: usize = ROWS.map(|rows| walk_all(Scene { rows, ..CURSOR }, true)).iter().sum();

    assert!(walks > 4_000, "{walks} walks are not all there are");
}

#[test]
fn a_ledger_that_is_told_at_the_end_of_a_batch_alone_is_enough() {
    for scene in [STAGED, CURSOR] {
        walk_all(Scene { rows: 5, follows: false, ..scene }, false);
        walk_all(Scene { rows: 3, follows: false, ..scene }, true);
    }
}

#[test]
fn a_worker_that_sleeps_until_everything_is_over_wakes_and_does_nothing() {
    for scene in [STAGED, CURSOR] {
        walk_all(Scene { rows: 5, wakes_late: true, ..scene }, false);
    }
}

#[test]
fn what_a_cancelled_run_left_goes_first_whatever_happens_to_the_next() {
    for (scene, follows) in [(STAGED, true), (STAGED, false), (CURSOR, true)] {
        let scene = Scene { rows: 3, left_over: true, follows, ..scene };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let trail = walk(&runtime, scene, &[]).remove(0);
        assert!(trail.iter().any(|place| place.name == "adopt the batch"), "{trail:?}");

        walk_all(scene, true);
    }
}
