//! The dashboard: server-rendered pages that work without script. So far what people sign in by, and their account.
//!
//! Layers, from the outside in: the headers of every page, the origin of every change, pages. A page's folder holds its
//! handlers and its templates.

mod guard;
mod layout;
mod pages;
mod visitor;

use axum::Router;
use axum::http::header;
use axum::middleware;
use axum::routing::get;
use freshet_core::app::App;

/// What every handler is given.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) app: App,
    pub(crate) doors: guard::Doors,
}

/// All pages.
pub fn router(app: App) -> Router {
    let web = Web { app, doors: guard::Doors::default() };
    Router::new()
        .merge(pages::routes())
        .route(layout::STYLE_PATH, get(style))
        .fallback(pages::error::not_found)
        .layer(middleware::from_fn_with_state(web.clone(), guard::refuse_foreign))
        .layer(middleware::from_fn_with_state(web.clone(), guard::dress))
        .with_state(web)
}

async fn style() -> impl axum::response::IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    (headers, layout::STYLE)
}
