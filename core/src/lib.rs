//! What the API, the worker and the dashboard share. Modules in reading order; each names only those above it.

pub mod clock;
pub mod connector;
pub mod error;
pub mod id;
