//! Logs: JSON for machines, text for people, to standard error.

use std::io::IsTerminal;

use freshet_core::settings::{LogFormat, Settings};
use tracing_subscriber::EnvFilter;

/// Starts logging. Called once, by roles that work for long.
///
/// # Errors
/// When `FRESHET_LOG` does not parse.
pub fn start(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let builder = builder.with_ansi(std::io::stderr().is_terminal());
    match settings.log_format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.compact().init(),
    }
    Ok(())
}
