//! Benchmarks: figures as ratios, measured beside a peer or a limit in the same run.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Bench {}

impl Bench {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {}
    }
}
