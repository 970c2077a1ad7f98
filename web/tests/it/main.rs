//! The pages through HTTP, over a database of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attacks;
mod browser;
mod doors;
#[path = "../../../api/tests/it/routes.rs"]
mod routes;
