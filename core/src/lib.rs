//! What the API, the worker and the dashboard share. Modules in reading order; each names only those above it.

pub mod access;
pub mod api_key;
pub mod app;
pub mod audit;
pub mod clock;
pub mod connector;
pub mod db;
pub mod endpoint;
pub mod error;
pub mod events;
pub mod id;
pub mod idempotency;
pub mod model;
pub mod operation;
pub mod page;
pub mod queue;
pub mod run;
pub mod secret;
pub mod settings;
pub mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod vault;
pub mod workspace;
