//! `freshet doctor`: every setting against the world, and what to do.
//!
//! A new setting goes into one of two lists, or the test below fails: [`CHECKS`], beside the check that looks at it, or
//! [`NEED_NONE`], with the reason why none has to.

mod database;
mod outside;
mod sizes;

use clap::Args;
use freshet_core::error::Error;
use freshet_core::settings::Settings;
use serde::Serialize;

#[derive(Debug, Args)]
pub struct Doctor {
    /// One JSON object for programs
    #[arg(long)]
    json: bool,
}

/// A check, and the settings that it looks at.
struct Check {
    name: &'static str,
    settings: &'static [&'static str],
}

/// In the order in which they are made.
const CHECKS: &[Check] = &[
    Check { name: "database", settings: &["database_url"] },
    Check { name: "database role", settings: &["database_url"] },
    Check { name: "database schema", settings: &["database_url"] },
    Check { name: "database owner", settings: &["owner_database_url"] },
    Check { name: "database connections", settings: &["database_connections_max"] },
    Check { name: "clock", settings: &["database_url"] },
    Check { name: "master keys", settings: &["master_keys", "master_keys_file"] },
    Check { name: "secrets", settings: &["master_keys", "master_keys_file"] },
    Check { name: "api", settings: &["api_listen"] },
    Check { name: "metrics", settings: &["metrics_listen"] },
    Check { name: "public url", settings: &["public_url"] },
    Check { name: "mail", settings: &["smtp_url", "mail_from"] },
    Check { name: "dns", settings: &["dns_server"] },
    Check { name: "traces", settings: &["otlp_endpoint", "otlp_headers", "otlp_ratio"] },
    Check { name: "egress", settings: &["egress_reach", "egress_allow", "sign_up"] },
    Check { name: "snowflake hosts", settings: &["snowflake_hosts"] },
    Check { name: "log", settings: &["log"] },
    Check {
        name: "sizes",
        settings: &[
            "api_requests_max",
            "api_reads_per_minute",
            "api_writes_per_minute",
            "api_expensive_per_minute",
            "worker_runs_max",
            "worker_operations_max",
            "worker_nice",
            "lease_s",
            "poll_ms",
            "retry_base_s",
            "retry_max_s",
            "retry_fruitless_max",
            "chunk_rows_max",
            "chunk_bytes_max",
            "stop_grace_s",
        ],
    },
    Check {
        name: "history",
        settings: &["workspace_undo_days", "retention_run_event_days", "retention_run_days", "retention_audit_days"],
    },
];

/// Settings that every value of their type is right for, and why.
const NEED_NONE: &[(&str, &str)] = &[("log_format", "a word of two, read by its type")];

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Failure,
}

#[derive(Debug, Serialize)]
struct Line {
    check: &'static str,
    settings: &'static [&'static str],
    state: State,
    found: String,
    /// What to do; none when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
}

/// What was found, and what to do about it.
struct Found(State, String, Option<String>);

fn fine(found: impl Into<String>) -> Found {
    Found(State::Ok, found.into(), None)
}

fn warning(found: impl Into<String>, action: impl Into<String>) -> Found {
    Found(State::Warning, found.into(), Some(action.into()))
}

fn failure(found: impl Into<String>, action: impl Into<String>) -> Found {
    Found(State::Failure, found.into(), Some(action.into()))
}

/// An error as it is found: with its causes, for whoever runs the installation.
fn error(error: &Error) -> Found {
    failure(error.chain(), error.code.action())
}

/// The lines so far.
#[derive(Debug, Default, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Line>,
}

impl Report {
    fn tell(&mut self, check: &'static str, found: Found) {
        let settings = CHECKS.iter().find(|known| known.name == check).map_or(&[][..], |known| known.settings);
        let Found(state, found, action) = found;
        self.checks.push(Line { check, settings, state, found, action });
    }
}

/// Checks everything: a failure says what to do, and the rest is still tried.
///
/// # Errors
/// When a check failed.
pub async fn run(options: &Doctor) -> anyhow::Result<()> {
    let mut report = Report::default();
    match Settings::load() {
        Err(found) => report.tell("settings", error(&found)),
        Ok(settings) => {
            let none: Vec<_> = NEED_NONE.iter().map(|(name, why)| format!("{name} ({why})")).collect();
            report.tell("settings", fine(format!("all parse; nothing more to check: {}", none.join(", "))));
            database::look(&settings, &mut report).await;
            outside::look(&settings, &mut report).await;
            sizes::look(&settings, &mut report);
        }
    }
    let failures = report.checks.iter().filter(|line| line.state == State::Failure).count();
    report.ok = failures == 0;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    anyhow::ensure!(report.ok, "{failures} checks failed");
    Ok(())
}

fn print(report: &Report) {
    for Line { check, state, found, action, .. } in &report.checks {
        let word = match state {
            State::Ok => "ok  ",
            State::Warning => "warn",
            State::Failure => "FAIL",
        };
        println!("{word}  {check}: {found}");
        if let Some(action) = action {
            println!("      {action}");
        }
    }
}

#[cfg(test)]
mod tests {
    use freshet_core::settings::Settings;

    use super::{CHECKS, NEED_NONE};

    #[test]
    fn every_setting_is_checked_or_said_to_need_none() {
        for setting in Settings::DOCS {
            let checked = CHECKS.iter().any(|check| check.settings.contains(&setting.name));
            let none = NEED_NONE.iter().any(|(name, _)| *name == setting.name);
            assert!(
                checked != none,
                "doctor: `{}` belongs into CHECKS or into NEED_NONE, and not into both",
                setting.name
            );
        }
        let known = |name: &str| Settings::DOCS.iter().any(|setting| setting.name == name);
        for name in CHECKS.iter().flat_map(|check| check.settings).chain(NEED_NONE.iter().map(|(name, _)| name)) {
            assert!(known(name), "doctor: `{name}` is no setting");
        }
    }
}
