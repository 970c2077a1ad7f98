//! Places where a worker can be made to die, for the proof of the delivery path (`deploy/torture`).
//!
//! With the feature `failpoints`, `FRESHET_FAILPOINT=<step>[:<pass>][:stop]` has the process kill itself with SIGKILL the
//! n-th time it gets to that step, the first if no number is given; with `stop` it stops itself with SIGSTOP instead and
//! goes on from there when it is woken. Without the feature every function here is empty, and the variable is refused as
//! one that is no setting.

/// A gap between two steps of the delivery path. What dies there is found by the next worker as the crash table says
/// (`ARCHITECTURE.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The run is begun, and with it perhaps a new generation; the lanes of the one before are not fenced.
    GenerationTaken,
    /// The batch has its number; nothing is at the source.
    Numbered,
    /// The statement that seals is on its way, its answer not here: [`during`], 15 ms after it began.
    SealSent,
    /// The batch is fixed at the source; Postgres does not know.
    SealDone,
    /// Postgres knows that the batch is sealed.
    Sealed,
    /// The lane is open and not yet fenced: a predecessor may still commit.
    LaneOpen,
    /// The lane is fenced, and progress not yet read.
    Fenced,
    /// A chunk is fetched and encoded; nothing of it is in Kafka.
    Encoded,
    /// The first half of a chunk's records is in Kafka, in an open transaction.
    Producing,
    /// All of a chunk is in Kafka, its progress record too; the transaction is open.
    ProgressProduced,
    /// The commit is on its way, its answer not here.
    CommitSent,
    /// A chunk is committed; Postgres does not know.
    Committed,
    /// The batch's last chunk is committed; Postgres does not know.
    Completed,
    /// Postgres knows that the batch is delivered; the source has not released it.
    Delivered,
    /// The source has released the batch; Postgres does not know.
    Released,
}

impl Step {
    /// Every step, in the order of a run.
    pub const ALL: &'static [Self] = &[
        Self::GenerationTaken,
        Self::Numbered,
        Self::SealSent,
        Self::SealDone,
        Self::Sealed,
        Self::LaneOpen,
        Self::Fenced,
        Self::Encoded,
        Self::Producing,
        Self::ProgressProduced,
        Self::CommitSent,
        Self::Committed,
        Self::Completed,
        Self::Delivered,
        Self::Released,
    ];

    /// Its word in `FRESHET_FAILPOINT`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GenerationTaken => "generation_taken",
            Self::Numbered => "numbered",
            Self::SealSent => "seal_sent",
            Self::SealDone => "seal_done",
            Self::Sealed => "sealed",
            Self::LaneOpen => "lane_open",
            Self::Fenced => "fenced",
            Self::Encoded => "encoded",
            Self::Producing => "producing",
            Self::ProgressProduced => "progress_produced",
            Self::CommitSent => "commit_sent",
            Self::Committed => "committed",
            Self::Completed => "completed",
            Self::Delivered => "delivered",
            Self::Released => "released",
        }
    }
}

/// Whether this build has fail points at all: what only serves them is compiled away where it is false.
pub const ENABLED: bool = cfg!(feature = "failpoints");

#[cfg(feature = "failpoints")]
pub use armed::{during, is_armed, reach, reach_with};

/// The process gets to a step, and dies there if it is told to.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn reach(_: Step) {}

/// [`reach`], with something to be done just before a death: to see that what was sent has arrived.
///
/// # Errors
/// What `prepare` fails with.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach_with<E>(_: Step, _: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    Ok(())
}

/// Whether this step is the one the process is to die at.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
#[must_use]
pub const fn is_armed(_: Step) -> bool {
    false
}

/// Does `work`, during which the step is got to.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn during<F: Future>(_: Step, work: F) -> F {
    work
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::convert::Infallible;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::Step;

    const VARIABLE: &str = "FRESHET_FAILPOINT";
    /// Long enough for a statement to leave this machine, too short for a warehouse to answer it.
    const UNDER_WAY: Duration = Duration::from_millis(15);

    struct Armed {
        step: Step,
        pass: u64,
        signal: libc::c_int,
        passed: AtomicU64,
    }

    /// What the environment asks for; whatever cannot be read ends the process, for a test must not pass by a typo.
    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let read = || {
            #[expect(clippy::disallowed_methods, reason = "no setting of the service: it is refused in a normal build")]
            let text = std::env::var(VARIABLE).ok()?;
            Some(parse(&text).unwrap_or_else(|| {
                eprintln!("{VARIABLE}=`{text}` is not <step>[:<pass>][:stop]; steps: {}", words());
                std::process::exit(2)
            }))
        };
        ARMED.get_or_init(read).as_ref()
    }

    fn words() -> String {
        Step::ALL.iter().map(|step| step.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn parse(text: &str) -> Option<Armed> {
        let mut parts = text.split(':');
        let word = parts.next()?;
        let step = *Step::ALL.iter().find(|step| step.as_str() == word)?;
        let mut armed = Armed { step, pass: 1, signal: libc::SIGKILL, passed: AtomicU64::new(0) };
        for part in parts {
            match part {
                "stop" => armed.signal = libc::SIGSTOP,
                number => armed.pass = number.parse().ok().filter(|pass| *pass > 0)?,
            }
        }
        Some(armed)
    }

    /// The process gets to a step, and dies there if it is told to.
    pub fn reach(step: Step) {
        let Ok(()) = reach_with(step, || Ok::<_, Infallible>(()));
    }

    /// [`reach`], with something to be done just before a death: to see that what was sent has arrived.
    ///
    /// # Errors
    /// What `prepare` fails with.
    pub fn reach_with<E>(step: Step, prepare: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let Some(armed) = armed().filter(|armed| armed.step == step) else { return Ok(()) };
        if armed.passed.fetch_add(1, Ordering::AcqRel) + 1 == armed.pass {
            prepare()?;
            // SAFETY: a signal to this process alone; no memory is touched.
            unsafe { libc::kill(libc::getpid(), armed.signal) };
        }
        Ok(())
    }

    /// Whether this step is the one the process is to die at.
    #[must_use]
    pub fn is_armed(step: Step) -> bool {
        armed().is_some_and(|armed| armed.step == step)
    }

    /// Does `work`; the step is got to 15 ms after it began, or when it is done.
    pub async fn during<F: Future>(step: Step, work: F) -> F::Output {
        if !is_armed(step) {
            return work.await;
        }
        let mut work = std::pin::pin!(work);
        let done = tokio::select! {
            done = &mut work => Some(done),
            () = tokio::time::sleep(UNDER_WAY) => None,
        };
        reach(step);
        match done {
            Some(done) => done,
            None => work.await,
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_step_a_pass_and_a_signal_are_read_and_anything_else_is_refused() {
            let read = |text| parse(text).map(|armed| (armed.step, armed.pass, armed.signal));

            assert_eq!(read("committed"), Some((Step::Committed, 1, libc::SIGKILL)));
            assert_eq!(read("encoded:3"), Some((Step::Encoded, 3, libc::SIGKILL)));
            assert_eq!(read("fenced:2:stop"), Some((Step::Fenced, 2, libc::SIGSTOP)));
            for wrong in ["", "commited", "committed:0", "committed:twice", "committed:"] {
                assert_eq!(read(wrong), None, "{wrong}");
            }
        }
    }
}
