//! Snowflake as a source.

pub mod decode;
