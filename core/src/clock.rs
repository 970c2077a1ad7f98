//! The time: the system's, or one wound by hand in a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// Tells the time. Cheap to clone.
///
/// Leases, due times and expiry are judged by the database's clock; this one stamps what a process
/// itself makes, so that a test can wind it.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `at` until [`Clock::wind`] moves it.
    #[must_use]
    pub fn standing(at: DateTime<Utc>) -> Self {
        Self(Some(Arc::new(AtomicI64::new(at.timestamp_micros()))))
    }

    /// The time now, to the microsecond.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
            None => Utc::now(),
            Some(at) => DateTime::from_timestamp_micros(at.load(Ordering::SeqCst)).unwrap_or_default(),
        }
    }

    /// Moves a standing clock; the system's clock is left alone.
    pub fn wind(&self, by: TimeDelta) {
        if let Some(at) = &self.0 {
            at.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::SeqCst);
        }
    }
}
