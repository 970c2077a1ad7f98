//! The list of destinations. A new one is a folder here and a line below.

pub mod kafka;

use freshet_core::connector::Registry;

/// Adds every destination kind.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.destination(kafka::Kind)
}
