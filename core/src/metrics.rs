//! Every metric: its name, unit and labels, as Prometheus writes them. No label names a tenant, a sync or a run: the
//! number of series stays the same however many there are.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// What a metric does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size; seconds.
    Histogram,
}

/// One metric, as the table of docs shows it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// What it does.
    pub kind: Kind,
    /// Its name, the unit at its end.
    pub name: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub doc: &'static str,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal $labels:tt $doc:literal;)*) => {
        $(const $id: &str = $name;)*
        /// Every metric there is.
        pub const ALL: &[Metric] = &[$(Metric { kind: Kind::$kind, name: $name, labels: &$labels, doc: $doc },)*];
    };
}

metrics! {
    HTTP_REQUESTS: Counter "freshet_http_requests_total" ["method", "route", "status"] "Requests that the API answered.";
    HTTP_SECONDS: Histogram "freshet_http_request_duration_seconds" ["method", "route"] "From a request's arrival to its answer's head.";
    ATTEMPTS: Counter "freshet_attempts_total" ["outcome"] "Attempts at runs that ended here: succeeded, failed, retried, released, lost or cancelled.";
    ATTEMPT_SECONDS: Histogram "freshet_attempt_duration_seconds" ["outcome"] "How long they took.";
    ATTEMPTS_NOW: Gauge "freshet_attempts_under_way" [] "Attempts that this worker is at.";
    FAILURES: Counter "freshet_failures_total" ["code"] "Attempts that failed, by the code of their error.";
    RECORDS: Counter "freshet_records_total" [] "Change records that Kafka has committed.";
    DEAD: Counter "freshet_dead_letters_total" [] "Rows that became dead letters.";
    BYTES: Counter "freshet_record_bytes_total" [] "Bytes of keys and values of those records.";
    COMMIT_SECONDS: Histogram "freshet_chunk_commit_duration_seconds" [] "One chunk, from its first record sent to its transaction's end.";
    RUNS: Gauge "freshet_runs" ["state"] "Runs of the installation that wait or are under way.";
    OLDEST: Gauge "freshet_oldest_due_run_seconds" [] "How long the run that is due and not claimed has waited, the longest of them.";
    CONNECTIONS: Gauge "freshet_database_connections" ["state"] "Connections to Freshet's own Postgres: idle, used.";
    SECRETS: Gauge "freshet_secrets" ["master_key"] "Secrets whose data key this master key wraps: an old one may go when it is 0.";
    KEYS_REFUSED: Gauge "freshet_master_keys_refused" [] "1 while the file of master keys cannot be used and those before it hold; else 0.";
    BUILD: Gauge "freshet_build_info" ["version"] "1, for the version that runs.";
}

/// Tells the recorder what there is; after it is installed.
pub fn describe() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.doc),
            Kind::Gauge => describe_gauge!(metric.name, metric.doc),
            Kind::Histogram => describe_histogram!(metric.name, Unit::Seconds, metric.doc),
        }
    }
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1);
}

/// The API answered. `route` is the path's pattern, `/v1/syncs/{id}`, never the path.
pub fn answered(method: &'static str, route: &str, status: u16, took: Duration) {
    let route = route.to_owned();
    counter!(HTTP_REQUESTS, "method" => method, "route" => route.clone(), "status" => status.to_string()).increment(1);
    histogram!(HTTP_SECONDS, "method" => method, "route" => route).record(took);
}

/// An attempt that is under way until this is dropped.
#[derive(Debug)]
pub struct UnderWay(());

impl UnderWay {
    /// Counts one more.
    #[must_use]
    pub fn begin() -> Self {
        gauge!(ATTEMPTS_NOW).increment(1);
        Self(())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        gauge!(ATTEMPTS_NOW).decrement(1);
    }
}

/// An attempt ended; `code` is its error's, of an attempt that failed.
pub fn attempt_ended(outcome: &'static str, code: Option<&'static str>, took: Duration) {
    counter!(ATTEMPTS, "outcome" => outcome).increment(1);
    histogram!(ATTEMPT_SECONDS, "outcome" => outcome).record(took);
    if let Some(code) = code {
        counter!(FAILURES, "code" => code).increment(1);
    }
}

/// Kafka has committed a chunk.
pub fn committed(records: u64, dead: u64, bytes: u64, took: Duration) {
    counter!(RECORDS).increment(records);
    counter!(DEAD).increment(dead);
    counter!(BYTES).increment(bytes);
    histogram!(COMMIT_SECONDS).record(took);
}

/// Runs of one state, counted.
pub fn runs(state: &'static str, count: i64) {
    gauge!(RUNS, "state" => state).set(count as f64);
}

/// The longest wait of a run that is due, in seconds; 0 for none.
pub fn oldest_due(seconds: f64) {
    gauge!(OLDEST).set(seconds);
}

/// Connections of the pool.
pub fn connections(size: u32, idle: usize) {
    gauge!(CONNECTIONS, "state" => "idle").set(idle as f64);
    gauge!(CONNECTIONS, "state" => "used").set(f64::from(size) - idle as f64);
}

/// Secrets of one master key.
pub fn secrets(master_key: String, count: i64) {
    gauge!(SECRETS, "master_key" => master_key).set(count as f64);
}

/// Whether the file of master keys is not what is used.
pub fn master_keys_refused(refused: bool) {
    gauge!(KEYS_REFUSED).set(f64::from(u8::from(refused)));
}

#[cfg(test)]
mod tests {
    use super::{ALL, Kind};

    #[test]
    fn names_say_what_they_are_as_prometheus_has_it() {
        for metric in ALL {
            assert!(metric.name.starts_with("freshet_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.kind != Kind::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
            assert!(metric.labels.iter().all(|label| !label.contains("id")), "{} may have endless series", metric.name);
        }
    }
}
