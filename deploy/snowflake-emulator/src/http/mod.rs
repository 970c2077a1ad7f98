//! The HTTP surface: SQL API v2, OAuth, admin.

mod admin;
mod answers;
mod bindings;
mod oauth;
mod statements;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::Emulator;

/// Builds the router.
pub fn router(emulator: Arc<Emulator>) -> Router {
    Router::new()
        .route("/api/v2/statements", post(statements::submit))
        .route("/api/v2/statements/{handle}", get(statements::poll))
        .route("/api/v2/statements/{handle}/cancel", post(statements::cancel))
        .route("/oauth/authorize", get(oauth::authorize))
        .route("/oauth/token-request", post(oauth::token))
        .route("/emulator/faults", get(admin::faults).put(admin::set_faults).delete(admin::clear_faults))
        .route("/emulator/clock", get(admin::clock).post(admin::wind_clock))
        .route("/emulator/accounting", get(admin::accounting).delete(admin::reset_accounting))
        .route("/emulator/statements", get(admin::statements))
        .route("/emulator/zombies/release", post(admin::release_zombies))
        .route("/emulator/streams/stale", post(admin::make_stale))
        .route("/emulator/users", post(admin::create_user))
        .route("/emulator/users/{name}/keys", post(admin::set_key))
        .route("/emulator/users/{name}/tokens", post(admin::create_token))
        .route("/emulator/databases", post(admin::create_database))
        .route("/emulator/oauth/clients", post(admin::create_client))
        .layer(axum::extract::DefaultBodyLimit::max(16 << 20))
        .with_state(emulator)
}
