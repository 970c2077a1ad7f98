//! The pages through HTTP, over a database of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attacks;
mod browser;
mod dns;
mod doors;
mod enforced;
mod issuers;
#[path = "../../../api/tests/it/routes.rs"]
mod routes;
mod sso;
mod sso_refused;
