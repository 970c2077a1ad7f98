//! Snowflake as a source.

pub mod client;
pub mod decode;
pub mod sign_in;
