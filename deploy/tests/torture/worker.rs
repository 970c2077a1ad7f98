//! Worker processes: started with a fail point or a planted bug, watched, signalled.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use freshet_core::failpoint::Step;
use tokio::time::sleep;

/// Longer than the slowest way to any step.
const STRIKE_WAIT: Duration = Duration::from_secs(30);

/// Where a worker dies or stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailPoint {
    pub step: Step,
    pub pass: u64,
    pub stops: bool,
}

impl std::fmt::Display for FailPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}{}", self.step.as_str(), self.pass, if self.stops { ":stop" } else { "" })
    }
}

/// A worker process; killed when dropped.
pub struct Worker(Child);

impl Worker {
    pub fn start(program: &Path, environment: &[(String, String)], log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(program);
        command.arg("worker").env_remove("FRESHET_OWNER_DATABASE_URL").envs(environment.iter().cloned());
        command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log));
        Ok(Self(command.spawn().context("the worker does not start")?))
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child that is not yet reaped, so that its number is still its own.
        unsafe { libc::kill(self.0.id().cast_signed(), signal) };
    }

    pub fn is_dead(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// Waits until it has killed or stopped itself.
    pub async fn falls(&mut self) -> Result<()> {
        let since = Instant::now();
        while !(self.is_stopped() || self.is_dead()?) {
            if since.elapsed() > STRIKE_WAIT {
                bail!("the worker did not get to its fail point within {STRIKE_WAIT:?}");
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    pub async fn drain(&mut self) -> Result<()> {
        self.signal(libc::SIGTERM);
        let since = Instant::now();
        while !self.is_dead()? {
            if since.elapsed() > STRIKE_WAIT {
                bail!("the worker did not stop within {STRIKE_WAIT:?} of being asked to");
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
