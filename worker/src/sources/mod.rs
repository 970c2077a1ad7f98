//! The list of sources. A new one is a folder here and a line below.

pub mod postgres;
pub mod snowflake;

use freshet_core::connector::Registry;

/// Adds every source kind.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.source(postgres::Kind)
}
