//! The audit log: who did what, in the same transaction as the deed.
pub mod ops;
pub(crate) mod store;
