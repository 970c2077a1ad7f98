//! What a case took, and how it is told.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// What one case took in one round.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Taken {
    /// Rows delivered.
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// From the request to the last acknowledgement.
    pub seconds: f64,
    /// CPU time of the process that does the work, in user and kernel.
    pub cpu_s: f64,
    /// The most memory that process ever had.
    pub peak_rss_mib: f64,
}

/// The medians of a case.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figures {
    pub rows: u64,
    pub rows_per_s: f64,
    pub mb_per_s: f64,
    pub worker_cpu_s_per_million_rows: f64,
    pub peak_rss_mib: f64,
}

impl Figures {
    /// The medians of some rounds, at least one.
    pub fn of(rounds: &[Taken]) -> Self {
        let median = |of: &dyn Fn(&Taken) -> f64| {
            let mut values: Vec<_> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            round(values[values.len() / 2])
        };
        Self {
            rows: rounds[0].rows,
            rows_per_s: median(&|taken| taken.rows as f64 / taken.seconds),
            mb_per_s: median(&|taken| taken.bytes as f64 / taken.seconds / 1e6),
            worker_cpu_s_per_million_rows: median(&|taken| taken.cpu_s / taken.rows as f64 * 1e6),
            peak_rss_mib: median(&|taken| taken.peak_rss_mib),
        }
    }
}

/// A benchmark's result: its cases in the order they ran, and what matters of them as ratios.
#[derive(Debug, Serialize)]
pub struct Report {
    pub benchmark: &'static str,
    pub rounds: usize,
    #[serde(flatten)]
    pub cases: BTreeMap<&'static str, Figures>,
    pub ratios: BTreeMap<String, f64>,
}

impl Report {
    /// Adds the ratio of two cases' rows per second.
    pub fn compare(&mut self, case: &str, peer: &str) {
        if let (Some(ours), Some(theirs)) = (self.cases.get(case), self.cases.get(peer)) {
            self.ratios.insert(format!("{case}/{peer}"), round(ours.rows_per_s / theirs.rows_per_s));
        }
    }

    /// As a table, and as one line of JSON if asked.
    pub fn print(&self, order: &[&'static str], json: bool) -> anyhow::Result<()> {
        println!("{}: medians of {} rounds", self.benchmark, self.rounds);
        println!("{:<20}{:>10}{:>12}{:>9}{:>17}{:>14}", "", "rows", "rows/s", "MB/s", "CPU s/M rows", "peak RSS MiB");
        for name in order {
            let Some(case) = self.cases.get(name) else { continue };
            println!(
                "{name:<20}{:>10}{:>12.0}{:>9.1}{:>17.2}{:>14.1}",
                case.rows, case.rows_per_s, case.mb_per_s, case.worker_cpu_s_per_million_rows, case.peak_rss_mib
            );
        }
        for (ratio, value) in &self.ratios {
            println!("{ratio} = {value:.2}");
        }
        if json {
            println!("{}", serde_json::to_string(self)?);
        }
        Ok(())
    }
}

/// CPU seconds that a process has used so far.
pub fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name, in brackets, may hold spaces.
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok());
    let (user, kernel) = (ticks(11), ticks(12));
    // SAFETY: sysconf reads a constant of the system.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Ok((user.context("no user time")? + kernel.context("no kernel time")?) / per_second)
}

/// The most memory that a process ever had, in MiB.
pub fn peak_rss_mib(pid: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
