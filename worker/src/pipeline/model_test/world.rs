//! What workers share: a source, a transactional log, a ledger, all in memory, and the steps at which a script strikes.
//!
//! Every effect goes through [`World::step`]. Each is judged as it happens: what must hold always is looked at after every
//! commit and every write, not only at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use freshet_core::connector::Progress;
use freshet_core::error::{Code, Error, Result};
use freshet_core::run::{CountBase, Counts};
use freshet_core::sync::Position;
use serde_json::Value;
use tokio::sync::Notify;

/// What a step does, and so what can happen to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only asks.
    Asks,
    /// It changes something, at once or not at all.
    Writes,
    /// It sends what may take effect after its sender has given up.
    Sends,
}

/// One step of a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What it fails with.
    pub(super) refusal: Code,
}

impl Place {
    pub(super) const fn new(name: &'static str, kind: Kind, refusal: Code) -> Self {
        Self { name, kind, refusal }
    }

    /// Everything that can happen at it. To die or to sleep before an effect is to do so after the one before.
    pub(super) fn acts(self) -> &'static [Act] {
        use Act::{AnswerLost, Die, Late, Refused, Sleep};
        match self.kind {
            Kind::Asks => &[Refused],
            Kind::Writes => &[Die, Sleep, Refused, AnswerLost],
            Kind::Sends => &[Die, Sleep, Refused, AnswerLost, Late],
        }
    }
}

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// The effect, and then nothing more.
    Die,
    /// The effect, and then nothing until it is woken.
    Sleep,
    /// An error, and no effect.
    Refused,
    /// The effect, and an error.
    AnswerLost,
    /// An error, and the effect later.
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Awake,
    Asleep,
    Dead,
    /// Its attempt has ended, well or not.
    Ended(bool),
}

/// One attempt of one worker process.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) condition: Condition,
    /// The steps it has taken.
    pub(super) trail: Vec<Place>,
    script: Vec<(usize, Act)>,
}

type Effect = Box<dyn FnOnce(&mut State) + Send>;

pub(super) struct State {
    pub(super) workers: Vec<Worker>,
    pub(super) source: SourceState,
    pub(super) log: Log,
    pub(super) books: Books,
    late: Vec<Effect>,
    /// What was found wrong.
    pub(super) broken: Vec<String>,
}

pub(super) struct World {
    state: Mutex<State>,
    woken: Notify,
}

impl World {
    pub(super) fn new(source: SourceState) -> Arc<Self> {
        let state = State {
            workers: Vec::new(),
            source,
            log: Log::default(),
            books: Books::default(),
            late: Vec::new(),
            broken: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), woken: Notify::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new worker, with what is to happen at which of its steps; its number.
    pub(super) fn hire(&self, script: &[(usize, Act)]) -> usize {
        let mut state = self.lock();
        state.workers.push(Worker { condition: Condition::Awake, trail: Vec::new(), script: script.to_vec() });
        state.workers.len() - 1
    }

    pub(super) fn wake(&self, who: usize) {
        self.lock().workers[who].condition = Condition::Awake;
        self.woken.notify_waiters();
    }

    /// What was sent and not yet arrived arrives.
    pub(super) fn arrive(&self) {
        let mut state = self.lock();
        for effect in std::mem::take(&mut state.late) {
            effect(&mut state);
        }
    }

    /// Takes one step; what happens there is in the worker's script.
    pub(super) async fn step<T>(
        &self,
        who: usize,
        place: Place,
        effect: impl FnOnce(&mut State) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.awake(who).await;
        let act = {
            let worker = &mut self.lock().workers[who];
            let number = worker.trail.len();
            worker.trail.push(place);
            worker.script.iter().find(|(at, _)| *at == number).map(|(_, act)| *act)
        };
        let refused = || Err(Error::new(place.refusal, format!("{} failed", place.name)));
        match act {
            None => effect(&mut self.lock()),
            Some(Act::Refused) => refused(),
            Some(Act::AnswerLost) => {
                let _ = effect(&mut self.lock());
                refused()
            }
            Some(Act::Late) => {
                self.lock().late.push(Box::new(|state| drop(effect(state))));
                refused()
            }
            Some(act @ (Act::Die | Act::Sleep)) => {
                let result = effect(&mut self.lock());
                let fallen = if act == Act::Die { Condition::Dead } else { Condition::Asleep };
                self.lock().workers[who].condition = fallen;
                self.awake(who).await;
                result
            }
        }
    }

    /// Waits until a worker is awake: for ever if it is dead.
    async fn awake(&self, who: usize) {
        loop {
            let woken = self.woken.notified();
            match self.lock().workers[who].condition {
                Condition::Awake | Condition::Ended(_) => return,
                Condition::Asleep | Condition::Dead => {}
            }
            woken.await;
        }
    }
}

/// One version of one row; a row without a key cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) key: Option<i64>,
    pub(super) version: i64,
}

/// A source's side.
#[derive(Debug, Clone)]
pub(super) enum SourceState {
    /// As a Stream: the seal moves what has changed into a numbered table, once.
    Staged { pending: BTreeMap<i64, i64>, tables: BTreeMap<i64, Vec<Version>>, released: BTreeSet<i64>, last: i64 },
    /// As a table with a cursor: the last version of each row is there.
    Cursor { rows: BTreeMap<i64, i64>, last: i64 },
}

impl SourceState {
    pub(super) fn staged() -> Self {
        Self::Staged { pending: BTreeMap::new(), tables: BTreeMap::new(), released: BTreeSet::new(), last: 0 }
    }

    pub(super) fn cursor() -> Self {
        Self::Cursor { rows: BTreeMap::new(), last: 0 }
    }

    /// Changes the rows of `keys`. Key 0 stands for none where rows may lack one.
    pub(super) fn change(&mut self, keys: impl IntoIterator<Item = i64>) {
        let (Self::Staged { pending: rows, last, .. } | Self::Cursor { rows, last }) = self;
        for key in keys {
            *last += 1;
            rows.insert(key, *last);
        }
    }

    /// Moves what has changed into table `seq`, unless there is one; how many rows that holds.
    pub(super) fn seal(&mut self, seq: i64) -> usize {
        let Self::Staged { pending, tables, released, .. } = self else { return 0 };
        let rows = || {
            let moved = std::mem::take(pending).into_iter();
            moved.map(|(key, version)| Version { key: Some(key).filter(|key| *key != 0), version }).collect()
        };
        let rows = tables.entry(seq).or_insert_with(rows).len();
        if released.contains(&seq) { 0 } else { rows }
    }

    /// The rows of a batch: of table `seq`, or up to the bound.
    pub(super) fn read(&self, seq: i64, after: i64, bound: i64) -> Result<Vec<Version>> {
        match self {
            Self::Staged { released, .. } if released.contains(&seq) => {
                Err(Error::new(Code::Internal, "the batch was released and is read"))
            }
            Self::Staged { tables, .. } => {
                let rows = tables.get(&seq).ok_or_else(|| Error::new(Code::Internal, "no such table"))?;
                Ok(rows[after as usize..].to_vec())
            }
            Self::Cursor { rows, .. } => {
                let within = rows.iter().filter(|(_, version)| **version > after && **version <= bound);
                let mut found: Vec<_> =
                    within.map(|(key, version)| Version { key: Some(*key), version: *version }).collect();
                found.sort_unstable_by_key(|row| row.version);
                Ok(found)
            }
        }
    }
}

/// One record on a topic.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) row: Version,
    pub(super) dead: bool,
}

/// The log of one lane, and what its coordinator knows.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Raised by each fence.
    epoch: u64,
    /// The records of the transaction under way; a reader of committed records does not see them.
    open: Option<(Vec<Sent>, Progress)>,
    pub(super) committed: Vec<Sent>,
    pub(super) progress: Vec<Progress>,
}

fn fenced() -> Error {
    Error::new(Code::KafkaFenced, "another producer has the lane")
}

impl State {
    /// Takes the lane over: aborts what a predecessor left.
    pub(super) fn fence(&mut self) -> u64 {
        self.log.epoch += 1;
        self.log.open = None;
        self.log.epoch
    }

    pub(super) fn produce(&mut self, epoch: u64, records: Vec<Sent>, progress: Progress) -> Result<()> {
        if epoch != self.log.epoch {
            return Err(fenced());
        }
        if self.log.open.replace((records, progress)).is_some() {
            self.broken.push("a transaction was begun while another was open".into());
        }
        Ok(())
    }

    /// Commits whatever is open under this epoch, as a broker does that cannot tell one transaction from the next.
    pub(super) fn commit(&mut self, epoch: u64) -> Result<i64> {
        if epoch != self.log.epoch {
            return Err(fenced());
        }
        let (records, progress) =
            self.log.open.take().ok_or_else(|| Error::new(Code::KafkaBroker, "no transaction"))?;
        self.judge_commit(&records, &progress);
        self.log.committed.extend(records);
        self.log.progress.push(progress);
        Ok(self.log.progress.len() as i64 - 1)
    }

    fn judge_commit(&mut self, records: &[Sent], progress: &Progress) {
        let place =
            |progress: &Progress| (progress.generation, progress.batch_seq, progress.ordinal, progress.batch_complete);
        if let Some(last) = self.log.progress.last()
            && place(last) >= place(progress)
        {
            self.broken.push(format!("progress went from {:?} to {:?}", place(last), place(progress)));
        }
        for (index, record) in records.iter().enumerate() {
            let mut before = self.log.committed.iter().chain(&records[..index]);
            if before.clone().any(|known| known.id == record.id) {
                self.broken.push(format!("{} was sent twice", record.id));
            }
            let later = |known: &&Sent| known.row.key == record.row.key && known.row.version >= record.row.version;
            if record.row.key.is_some()
                && let Some(known) = before.find(later)
            {
                self.broken.push(format!("{:?} came after {:?}", record.row, known.row));
            }
        }
        let whole = match &self.source {
            SourceState::Staged { tables, .. } => tables.get(&progress.batch_seq).map(Vec::len),
            SourceState::Cursor { .. } => None,
        };
        if progress.batch_complete && whole.is_some_and(|rows| rows as i64 != progress.rows_sent + progress.rows_dead) {
            self.broken.push(format!(
                "a batch of {whole:?} rows was complete with {} sent and {} dead letters",
                progress.rows_sent, progress.rows_dead
            ));
        }
    }

    /// The batch is given back by the source.
    pub(super) fn release(&mut self, seq: i64) {
        let delivered = self.log.progress.iter().any(|progress| progress.batch_seq == seq && progress.batch_complete);
        if !delivered {
            self.broken.push(format!("batch {seq} was released before it was delivered"));
        }
        if let SourceState::Staged { released, .. } = &mut self.source {
            released.insert(seq);
        }
    }
}

/// One run.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    pub(super) epoch: i64,
    pub(super) is_over: bool,
    pub(super) own_batch: Option<i64>,
    pub(super) count_base: CountBase,
    pub(super) counts: Counts,
}

/// The ledger: runs, and where the sync is.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) runs: Vec<Run>,
    pub(super) position: Option<Position>,
    /// Of the claim that may write the position.
    pub(super) position_epoch: i64,
}

fn lost() -> Error {
    Error::new(Code::LeaseLost, "another worker has the run now")
}

impl State {
    /// Claims the run under way, or a new one: its number and the claim's epoch.
    pub(super) fn claim(&mut self) -> (usize, i64) {
        if self.books.runs.last().is_none_or(|run| run.is_over) {
            self.books.runs.push(Run::default());
        }
        let epoch = self.books.runs.iter().map(|run| run.epoch).max().unwrap_or(0) + 1;
        let number = self.books.runs.len() - 1;
        self.books.runs[number].epoch = epoch;
        (number, epoch)
    }

    /// The run, if the claim still holds.
    pub(super) fn held(&mut self, (number, epoch): (usize, i64)) -> Result<&mut Run> {
        Some(&mut self.books.runs[number]).filter(|run| run.epoch == epoch && !run.is_over).ok_or_else(lost)
    }

    /// The position, if the claim still holds.
    pub(super) fn position(&mut self, (_, epoch): (usize, i64)) -> Result<&mut Position> {
        let is_held = self.books.position_epoch == epoch;
        self.books.position.as_mut().filter(|_| is_held).ok_or_else(lost)
    }

    /// Takes the position for a claim.
    pub(super) fn take_position(&mut self, claim: (usize, i64)) -> Result<Position> {
        self.held(claim)?;
        if self.books.position_epoch >= claim.1 {
            return Err(lost());
        }
        self.books.position_epoch = claim.1;
        Ok(self.books.position.get_or_insert_with(|| Position::beginning(1)).clone())
    }

    /// The ledger may lag behind the log; it never leads it.
    pub(super) fn judge_books(&mut self) {
        let Some(position) = &self.books.position else { return };
        let reached = self.log.progress.last().map_or((0, 0), |last| (last.batch_seq, last.ordinal));
        let told = (position.batch_seq, position.ordinal);
        if position.ordinal > 0 && told > reached {
            self.broken.push(format!("the ledger is at {told:?}, the log at {reached:?}"));
        }
        let published: i64 = self.books.runs.iter().map(|run| run.counts.published).sum();
        let committed = self.log.committed.iter().filter(|record| !record.dead).count() as i64;
        if published > committed {
            self.broken.push(format!("the runs count {published} records, the log has {committed}"));
        }
    }

    /// Everything is delivered, once, and counted.
    pub(super) fn judge_end(&mut self) {
        let mut sent: Vec<_> = self.log.committed.iter().map(|record| record.row).collect();
        sent.sort_unstable();
        let mut wanted: Vec<_> = match &self.source {
            SourceState::Staged { tables, .. } => tables.values().flatten().copied().collect(),
            SourceState::Cursor { rows, .. } => {
                rows.iter().map(|(key, version)| Version { key: Some(*key), version: *version }).collect()
            }
        };
        wanted.sort_unstable();
        let missing: Vec<_> = wanted.iter().filter(|row| !sent.contains(row)).collect();
        if !missing.is_empty() {
            self.broken.push(format!("never sent: {missing:?}"));
        }
        let pending = match &self.source {
            SourceState::Staged { pending, .. } => pending.len(),
            SourceState::Cursor { .. } => 0,
        };
        if pending > 0 {
            self.broken.push(format!("{pending} rows were never sealed"));
        }
        let published: i64 = self.books.runs.iter().map(|run| run.counts.published).sum();
        let dead: i64 = self.books.runs.iter().map(|run| run.counts.dead).sum();
        let letters = self.log.committed.iter().filter(|record| record.dead).count();
        let records = self.log.committed.len() - letters;
        if (published, dead) != (records as i64, letters as i64) {
            self.broken.push(format!("the runs count {published} and {dead}, the log has {records} and {letters}"));
        }
    }
}

/// The value of a record: the row after, or the row itself in a dead letter.
pub(super) fn version_of(value: &Value) -> Version {
    let row = value.get("after").unwrap_or(value);
    let whole = |name: &str| row.get(name).and_then(Value::as_i64);
    Version { key: whole("id"), version: whole("v").unwrap_or(-1) }
}
