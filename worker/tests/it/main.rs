//! The worker against the real things: `eval "$(deploy/dev/up)"`, then `cargo test -p freshet-worker`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod egress;
mod golden;
mod kafka;
mod kafka_acl;
mod kafka_connection;
mod kafka_delivery;
mod kafka_fault;
mod kafka_prepare;
mod postgres;
mod postgres_connection;
mod postgres_diff;
mod postgres_models;
mod postgres_read;
mod postgres_types;
mod snowflake;
mod snowflake_client;
mod snowflake_diff;
mod snowflake_emulator;
mod snowflake_golden;
mod snowflake_source;
mod snowflake_streams;
