//! The emulator through its own doors: HTTP, and the binary.

mod auth;
mod bench;
mod faults;
mod program;
mod protocol;
mod sql;
mod streams;
mod types;
