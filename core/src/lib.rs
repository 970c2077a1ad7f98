//! What the API, the worker and the dashboard share. Modules in reading order; each names only those above it.

pub mod clock;
pub mod id;
pub mod error;
pub mod settings;
pub mod failpoint;
pub mod planted;
pub mod vault;
pub mod page;
pub mod db;
pub mod events;
pub mod queue;
pub mod connector;
pub mod app;
pub mod access;
pub mod audit;
pub mod workspace;
pub mod api_key;
pub mod secret;
pub mod endpoint;
pub mod model;
pub mod sync;
pub mod run;
pub mod operation;
pub mod idempotency;
#[cfg(feature = "testing")]
pub mod testing;
