//! The list of sources. A new one is a folder here and a line below.

pub mod postgres;
mod select;
pub mod snowflake;

use freshet_core::connector::Registry;
use freshet_core::error::Result;
use freshet_core::settings::Settings;

/// Adds every source kind, as an installation without settings of its own has them.
#[must_use]
pub fn register(registry: Registry) -> Registry {
    registry.source(postgres::Kind).source(snowflake::Kind::default())
}

/// Adds what settings change: the hosts a Snowflake connection may use.
///
/// # Errors
/// `platform.settings` for a setting that does not read.
pub fn configure(registry: Registry, settings: &Settings) -> Result<Registry> {
    Ok(registry.source(snowflake::Kind::new(snowflake::Hosts::parse(&settings.snowflake_hosts)?)))
}
