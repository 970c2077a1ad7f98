//! What a warehouse would have cost: which statements needed one, how often it was resumed, how long it ran.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Serialize;

/// Seconds without work after which a warehouse is suspended.
const AUTO_SUSPEND_MS: i64 = 60_000;

/// One warehouse's account.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Usage {
    pub resume_count: u64,
    pub statement_count: u64,
    /// Time from resume to suspension, milliseconds of the virtual clock, closed periods only.
    pub active_ms: i64,
    #[serde(skip)]
    since_ms: i64,
    #[serde(skip)]
    last_ms: i64,
    #[serde(skip)]
    running: bool,
}

/// Everything counted since the start or the last reset.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Account {
    pub statement_count: u64,
    pub metadata_only_count: u64,
    pub warehouse_count: u64,
    pub failed_count: u64,
    pub partition_count: u64,
    pub warehouses: BTreeMap<String, Usage>,
}

/// The account, shared.
#[derive(Debug, Default)]
pub struct Accounting(Mutex<Account>);

impl Accounting {
    fn lock(&self) -> std::sync::MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Counts a statement that begins.
    pub fn began(&self, warehouse: Option<&str>, now_ms: i64) {
        let account = &mut *self.lock();
        account.statement_count += 1;
        let Some(warehouse) = warehouse else {
            account.metadata_only_count += 1;
            return;
        };
        account.warehouse_count += 1;
        let usage = account.warehouses.entry(warehouse.to_owned()).or_default();
        usage.suspend_if_idle(now_ms);
        if !usage.running {
            usage.running = true;
            usage.resume_count += 1;
            usage.since_ms = now_ms;
        }
        usage.statement_count += 1;
        usage.last_ms = now_ms;
    }

    /// Notes that a warehouse worked until now.
    pub fn ended(&self, warehouse: Option<&str>, failed: bool, now_ms: i64) {
        let account = &mut *self.lock();
        account.failed_count += u64::from(failed);
        if let Some(usage) = warehouse.and_then(|name| account.warehouses.get_mut(name)) {
            usage.last_ms = usage.last_ms.max(now_ms);
        }
    }

    /// Counts a partition that was fetched.
    pub fn fetched_partition(&self) {
        self.lock().partition_count += 1;
    }

    /// The account now; idle warehouses are suspended first.
    pub fn read(&self, now_ms: i64) -> Account {
        let account = &mut *self.lock();
        for usage in account.warehouses.values_mut() {
            usage.suspend_if_idle(now_ms);
        }
        account.clone()
    }

    /// Starts again from nothing.
    pub fn reset(&self) {
        *self.lock() = Account::default();
    }
}

impl Usage {
    fn suspend_if_idle(&mut self, now_ms: i64) {
        if self.running && now_ms - self.last_ms >= AUTO_SUSPEND_MS {
            self.running = false;
            self.active_ms += self.last_ms + AUTO_SUSPEND_MS - self.since_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warehouse_is_resumed_again_after_a_minute_without_work() {
        let accounting = Accounting::default();

        accounting.began(Some("WH"), 0);
        accounting.began(None, 1_000);
        accounting.began(Some("WH"), 59_000);
        accounting.began(Some("WH"), 200_000);

        let account = accounting.read(200_000);
        assert_eq!(account.metadata_only_count, 1);
        assert_eq!(account.warehouses["WH"].resume_count, 2);
        assert_eq!(account.warehouses["WH"].active_ms, 119_000);
    }
}
