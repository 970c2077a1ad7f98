//! `faults`: the rules of a running emulator.

use anyhow::{Context, Result};
use clap::Args;

use super::print;

/// `faults` and its options.
#[derive(Args)]
pub struct Options {
    /// The emulator's URL, as `serve` prints it.
    #[arg(long, env = "SNOWFLAKE_EMULATOR_URL")]
    url: String,
    /// `clear`, or JSON such as {"rules":[{"kind":"status","status":503,"count":2}]}; shows the rules when left out.
    rules: Option<String>,
}

/// Shows, sets or clears the rules.
///
/// # Errors
/// When the emulator cannot be reached or refuses the JSON.
pub async fn run(options: Options) -> Result<()> {
    let client = snowflake_emulator::http_client().build()?;
    let url = format!("{}/emulator/faults", options.url.trim_end_matches('/'));
    let request = match options.rules.as_deref() {
        None => client.get(url),
        Some("clear") => client.delete(url),
        Some(json) => client.put(url).header("content-type", "application/json").body(json.to_owned()),
    };
    let answer = request.send().await.context("the emulator could not be reached")?;
    let status = answer.status();
    let text = answer.text().await?;
    anyhow::ensure!(status.is_success(), "{status}: {text}");
    print(&text)
}
