//! Runs syncs: claims runs by lease, seals, publishes, releases, and answers operations.

pub mod destinations;
pub mod formats;
pub mod sources;
