//! The list of destinations.

pub mod kafka;

use freshet_core::connector::Registry;

/// Adds every destination kind to `registry`.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.destination(kafka::Kafka)
}
