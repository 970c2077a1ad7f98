//! Snowflake's SQL on Postgres.

pub mod bind;
pub mod catalog;
pub mod cursor;
pub mod definitions;
pub mod error;
pub mod manipulation;
pub mod names;
pub mod parse;
pub mod sessions;
pub mod show;
pub mod types;
