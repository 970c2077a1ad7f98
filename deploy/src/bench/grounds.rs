//! The servers that figures are taken on: those of the surroundings, or some of this checkout's own, for figures alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Where PostgreSQL and Kafka are. Servers that this started are stopped again.
pub struct Grounds {
    values: BTreeMap<String, String>,
    checkout: PathBuf,
    /// The state directory of servers that this started.
    started: Option<PathBuf>,
}

impl Grounds {
    /// Finds them, or starts them.
    pub fn find() -> anyhow::Result<Self> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no checkout")?.to_owned();
        let values: BTreeMap<_, _> = std::env::vars().filter(|(name, _)| name.starts_with("FRESHET_")).collect();
        if values.contains_key("FRESHET_TEST_KAFKA") && values.contains_key("FRESHET_TEST_DATABASE_URL") {
            return Ok(Self { values, checkout, started: None });
        }
        let (up, state) = (checkout.join("deploy/dev/up"), checkout.join(".freshet/bench"));
        if !up.exists() {
            bail!("benchmarks need a checkout of Freshet: {} is not there", up.display());
        }
        eprintln!("starting PostgreSQL and Kafka for figures");
        let done = Command::new(&up)
            .args(["--bench", "--no-people"])
            .env("FRESHET_DEV_DIR", &state)
            .stderr(Stdio::inherit())
            .output()?;
        if !done.status.success() {
            bail!("{} failed", up.display());
        }
        let values = exports(&String::from_utf8(done.stdout)?);
        Ok(Self { values, checkout, started: Some(state) })
    }

    /// One of the values that `deploy/dev/README.md` lists.
    pub fn get(&self, name: &str) -> anyhow::Result<&str> {
        let found = self.values.get(name).map(String::as_str);
        found.with_context(|| format!("{name} is not set; run: eval \"$(deploy/dev/up --bench)\""))
    }

    /// A Python program of `deploy/bench/`.
    pub fn python(&self, program: &str) -> Command {
        let mut command = Command::new(self.checkout.join("deploy/dev/python"));
        command.arg(self.checkout.join("deploy/bench").join(program));
        command
    }
}

impl Drop for Grounds {
    fn drop(&mut self) {
        if let Some(state) = &self.started {
            let _ = Command::new(self.checkout.join("deploy/dev/down")).env("FRESHET_DEV_DIR", state).status();
        }
    }
}

/// The values of lines such as `export NAME='value'`.
fn exports(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
        .collect()
}
