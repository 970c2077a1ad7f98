//! The list of formats. A new one is a file here and a line below.

pub mod json;

use freshet_core::connector::Registry;

/// Adds every format.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.format(json::Kind)
}
