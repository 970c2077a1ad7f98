//! Secrets: the sealed fields of connections and destinations, one row for each field.
//!
//! The API seals and never opens; a worker opens what a run or an operation needs.
pub mod ops;
pub(crate) mod store;
pub mod turnover;
