//! Faults on demand: rules set over the admin endpoint, drawn per request.

use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// A sync call answers 202; the statement goes on running at least this long.
    Accepted { delay_ms: u64 },
    /// Partitions of this many rows.
    TinyPartitions { rows: usize },
    /// An HTTP status instead of an answer; `after`: the statement runs all the same.
    Status {
        status: u16,
        #[serde(default)]
        moment: Moment,
        /// The body is a QueryStatus with the handle (408, 429).
        #[serde(default)]
        with_handle: bool,
    },
    /// The connection is closed.
    Cut { moment: CutMoment },
    /// 401, as if the token had run out.
    TokenExpired,
    /// A finished statement is unknown, as after 24 hours.
    ResultExpired,
    /// The call answers 504 and the statement runs later: after the delay, or at `POST /emulator/zombies/release`.
    Zombie {
        #[serde(default)]
        delay_ms: Option<u64>,
    },
    /// A partition with one row less than announced.
    ShortPartition,
    /// A partition whose gzip does not unpack.
    CorruptGzip,
    /// An answer that comes late.
    Slow { delay_ms: u64 },
    /// A 200 with code 391908: the result is incomplete.
    Incomplete,
    /// A statement that fails with this error instead of running.
    Fail { code: String, sql_state: String, message: String },
}

/// Before or after the statement ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    #[default]
    Before,
    After,
}

/// Where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutMoment {
    Before,
    After,
    Body,
}

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// POST /api/v2/statements
    Submit,
    /// GET of a handle without a partition, or partition 0
    Poll,
    /// GET of a later partition
    Partition,
    /// POST cancel
    Cancel,
}

/// A fault and when it strikes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Rule {
    #[serde(flatten)]
    pub fault: Fault,
    /// The calls it strikes; none: those that it makes sense for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<Call>,
    /// How often at most; none: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// 0 to 1; 1 by default.
    #[serde(default = "certain")]
    pub probability: f64,
    /// Calls to let pass first.
    #[serde(default)]
    pub skip: u64,
    /// Only statements with this text in them, case ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// How often it has struck.
    #[serde(default)]
    pub struck: u64,
}

fn certain() -> f64 {
    1.0
}

impl Rule {
    fn concerns(&self, call: Call, text: &str) -> bool {
        let default: &[Call] = match self.fault {
            Fault::Accepted { .. } | Fault::TinyPartitions { .. } | Fault::Zombie { .. } | Fault::Fail { .. } => {
                &[Call::Submit]
            }
            Fault::ShortPartition | Fault::CorruptGzip => &[Call::Partition],
            Fault::ResultExpired => &[Call::Poll, Call::Partition],
            Fault::Incomplete => &[Call::Submit, Call::Poll],
            Fault::Status { .. } | Fault::Cut { .. } | Fault::TokenExpired | Fault::Slow { .. } => {
                &[Call::Submit, Call::Poll, Call::Partition, Call::Cancel]
            }
        };
        let on = if self.on.is_empty() { default } else { &self.on };
        let named = self.statement.as_ref().is_none_or(|wanted| text.to_lowercase().contains(&wanted.to_lowercase()));
        on.contains(&call) && named && self.count.is_none_or(|count| self.struck < count)
    }
}

struct Inner {
    rules: Vec<Rule>,
    dice: StdRng,
}

/// The rules in force.
pub struct Faults(Mutex<Inner>);

impl Default for Faults {
    fn default() -> Self {
        Self(Mutex::new(Inner { rules: Vec::new(), dice: StdRng::seed_from_u64(1) }))
    }
}

impl Faults {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Replaces all rules; the dice start again from `seed`.
    pub fn set(&self, rules: Vec<Rule>, seed: u64) {
        *self.lock() = Inner { rules, dice: StdRng::seed_from_u64(seed) };
    }

    /// The rules, with how often each has struck.
    pub fn rules(&self) -> Vec<Rule> {
        self.lock().rules.clone()
    }

    /// Draws the faults of one call; each rule that strikes is counted.
    pub fn draw(&self, call: Call, text: &str) -> Vec<Fault> {
        let inner = &mut *self.lock();
        let mut struck = Vec::new();
        for rule in &mut inner.rules {
            if !rule.concerns(call, text) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.probability >= 1.0 || inner.dice.random::<f64>() < rule.probability {
                rule.struck += 1;
                struck.push(rule.fault.clone());
            }
        }
        struck
    }
}
