//! The binary against real Postgres and real Kafka, and the rules that keep the house tidy.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ahead;
mod diff;
mod doctor;
mod egress;
mod faults;
mod incremental;
mod logs;
mod metrics;
mod restore;
mod shop;
mod sign_in;
#[path = "../snowflake/mod.rs"]
mod snowflake;
mod snowflake_runs;
mod tidy;
mod traces;
mod turnover;
mod whole_runs;
