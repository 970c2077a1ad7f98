//! The virtual clock: the machine's time plus what was wound forward.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A clock that can be wound forward over the admin endpoint.
#[derive(Debug, Default)]
pub struct Clock {
    ahead_ms: AtomicI64,
}

impl Clock {
    /// Nanoseconds since the epoch.
    pub fn now_ns(&self) -> i128 {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        i128::try_from(real).unwrap_or(i128::MAX) + i128::from(self.ahead_ms.load(Ordering::Relaxed)) * 1_000_000
    }

    /// Milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        i64::try_from(self.now_ns() / 1_000_000).unwrap_or(i64::MAX)
    }

    /// Winds the clock forward.
    pub fn advance(&self, by_ms: i64) {
        self.ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}
