//! Same `Idempotency-Key`, same answer: the first request's is kept for a day.
pub mod ops;
pub(crate) mod store;
