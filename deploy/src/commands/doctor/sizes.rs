//! Numbers: each in its range, and fitting each other.

use freshet_core::settings::Settings;

use super::{Found, Report, failure, fine, warning};

/// Chunks that a run holds: one in flight, one that waits, one that is being filled.
const CHUNKS: usize = 3;

pub(super) fn look(settings: &Settings, report: &mut Report) {
    report.tell("sizes", sizes(settings, memory_available()));
    report.tell("history", history(settings));
}

/// As the same numbers of a workspace and an organization are judged.
fn history(settings: &Settings) -> Found {
    let days = [
        ("RETENTION_RUN_EVENT_DAYS", settings.retention_run_event_days, 1),
        ("RETENTION_RUN_DAYS", settings.retention_run_days, 1),
        ("RETENTION_AUDIT_DAYS", settings.retention_audit_days, 90),
        ("WORKSPACE_UNDO_DAYS", settings.workspace_undo_days, 0),
    ];
    if let Some((name, value, least)) = days.iter().find(|(_, value, least)| !(*least..=3_650).contains(value)) {
        return failure(format!("FRESHET_{name} is {value}"), format!("Give it {least} to 3650 days."));
    }
    let [(_, events, _), (_, runs, _), (_, audit, _), (_, undo, _)] = days;
    if events > runs {
        return warning(
            format!("timelines are to stay {events} days and their runs {runs}"),
            "Set FRESHET_RETENTION_RUN_EVENT_DAYS to FRESHET_RETENTION_RUN_DAYS or less: a run takes its timeline along.",
        );
    }
    fine(format!("runs {runs} days, timelines {events}, the audit log {audit}; a deleted workspace rests {undo}"))
}

fn sizes(settings: &Settings, available: Option<u64>) -> Found {
    let positive = [
        ("API_REQUESTS_MAX", settings.api_requests_max as f64),
        ("API_READS_PER_MINUTE", f64::from(settings.api_reads_per_minute)),
        ("API_WRITES_PER_MINUTE", f64::from(settings.api_writes_per_minute)),
        ("API_EXPENSIVE_PER_MINUTE", f64::from(settings.api_expensive_per_minute)),
        ("WORKER_RUNS_MAX", settings.worker_runs_max as f64),
        ("WORKER_OPERATIONS_MAX", settings.worker_operations_max as f64),
        ("LEASE_S", settings.lease_s),
        ("POLL_MS", settings.poll_ms as f64),
        ("RETRY_BASE_S", settings.retry_base_s),
        ("RETRY_MAX_S", settings.retry_max_s),
        ("RETRY_FRUITLESS_MAX", f64::from(settings.retry_fruitless_max)),
        ("CHUNK_ROWS_MAX", settings.chunk_rows_max as f64),
        ("CHUNK_BYTES_MAX", settings.chunk_bytes_max as f64),
        ("STOP_GRACE_S", settings.stop_grace_s),
    ];
    if let Some((name, value)) = positive.iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
        return failure(format!("FRESHET_{name} is {value}"), "Give it a number above 0.");
    }
    if !(0..=19).contains(&settings.worker_nice) {
        return failure(format!("FRESHET_WORKER_NICE is {}", settings.worker_nice), "Give it a number from 0 to 19.");
    }
    if settings.poll_ms as f64 > settings.lease_s * 1_000.0 {
        return failure(
            format!(
                "a worker looks for work every {} ms, and its lease holds {} s",
                settings.poll_ms, settings.lease_s
            ),
            "Set FRESHET_POLL_MS below FRESHET_LEASE_S.",
        );
    }
    if settings.retry_base_s > settings.retry_max_s {
        return failure(
            format!(
                "the first wait, {} s, is longer than the longest, {} s",
                settings.retry_base_s, settings.retry_max_s
            ),
            "Set FRESHET_RETRY_BASE_S below FRESHET_RETRY_MAX_S.",
        );
    }
    let bytes = (settings.worker_runs_max * CHUNKS).saturating_mul(settings.chunk_bytes_max) as u64;
    let mib = |bytes: u64| bytes / (1024 * 1024);
    if let Some(available) = available.filter(|available| bytes > available / 2) {
        return warning(
            format!("a worker may hold {} MiB of chunks; {} MiB are to be had", mib(bytes), mib(available)),
            "Lower FRESHET_WORKER_RUNS_MAX or FRESHET_CHUNK_BYTES_MAX.",
        );
    }
    if settings.lease_s < 5.0 {
        return warning(
            format!("a lease of {} s", settings.lease_s),
            "Set FRESHET_LEASE_S to 5 or more: a worker that pauses for a moment loses its runs.",
        );
    }
    fine(format!("{} runs at once, {} MiB of chunks at most", settings.worker_runs_max, mib(bytes)))
}

/// Bytes that the machine, or the group of processes that we are in, has left.
fn memory_available() -> Option<u64> {
    let of_group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = machine.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let of_machine = line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024;
    Some(of_group.map_or(of_machine, |of_group: u64| of_group.min(of_machine)))
}

#[cfg(test)]
mod tests {
    use freshet_core::settings::Settings;

    use super::{history, sizes};
    use crate::commands::doctor::State;

    #[test]
    fn numbers_that_do_not_fit_each_other_are_found() {
        for (name, value, state, says) in [
            ("lease_s", "15", State::Ok, "4 runs at once, 96 MiB"),
            ("api_reads_per_minute", "0", State::Failure, "FRESHET_API_READS_PER_MINUTE is 0"),
            ("worker_nice", "20", State::Failure, "FRESHET_WORKER_NICE is 20"),
            ("lease_s", "NaN", State::Failure, "FRESHET_LEASE_S is NaN"),
            ("poll_ms", "20000", State::Failure, "looks for work every 20000 ms"),
            ("retry_base_s", "2000", State::Failure, "the first wait"),
            ("chunk_bytes_max", "1000000000", State::Warning, "MiB of chunks"),
            ("lease_s", "2", State::Warning, "a lease of 2 s"),
        ] {
            let found = sizes(&Settings::with(&[(name, value)]).unwrap(), Some(1 << 30));

            assert_eq!(found.0, state, "{name}={value}: {}", found.1);
            assert!(found.1.contains(says), "{name}={value}: {}", found.1);
        }
    }

    #[test]
    fn days_of_history_that_no_workspace_could_have_are_found() {
        for (name, value, state) in [
            ("retention_run_days", "400", State::Ok),
            ("retention_run_days", "20", State::Warning),
            ("retention_run_event_days", "0", State::Failure),
            ("retention_audit_days", "89", State::Failure),
            ("workspace_undo_days", "3651", State::Failure),
        ] {
            let found = history(&Settings::with(&[(name, value)]).unwrap());

            assert_eq!(found.0, state, "{name}={value}: {}", found.1);
        }
    }
}
