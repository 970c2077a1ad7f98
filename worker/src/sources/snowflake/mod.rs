//! Snowflake as a source.

pub mod decode;
pub mod sign_in;
