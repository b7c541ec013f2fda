//! All routes. A test compares them with docs/api.md.

use axum::Router;
use axum::routing::{MethodRouter, any, delete, get, patch, post, put};

use super::error::{ApiError, Code};
use super::{Api, capabilities, downloads, events, info, limits, qr, search, shares, uploads};

type Route = (&'static str, &'static str, MethodRouter<Api>);

/// Returns method, path and handler of every route.
pub(super) fn table() -> Vec<Route> {
    vec![
        ("GET", "/api/1/status", get(info::status)),
        ("GET", "/api/1/rates", get(info::rates)),
        ("GET", "/api/1/peers", get(info::peers)),
        ("POST", "/api/1/stop", post(info::stop)),
        ("GET", "/api/1/events", get(events::stream)),
        ("GET", "/api/1/downloads", get(downloads::list)),
        ("POST", "/api/1/downloads", post(downloads::add)),
        (
            "POST",
            "/api/1/downloads/pause",
            post(downloads::pause_many),
        ),
        (
            "POST",
            "/api/1/downloads/resume",
            post(downloads::resume_many),
        ),
        (
            "POST",
            "/api/1/downloads/remove",
            post(downloads::remove_many),
        ),
        ("GET", "/api/1/downloads/{id}", get(downloads::detail)),
        (
            "PATCH",
            "/api/1/downloads/{id}",
            patch(limits::change_download),
        ),
        ("DELETE", "/api/1/downloads/{id}", delete(downloads::remove)),
        (
            "POST",
            "/api/1/downloads/{id}/pause",
            post(downloads::pause),
        ),
        (
            "POST",
            "/api/1/downloads/{id}/resume",
            post(downloads::resume),
        ),
        ("GET", "/api/1/downloads/{id}/map", get(downloads::map)),
        ("GET", "/api/1/shares", get(shares::list)),
        ("POST", "/api/1/shares", post(shares::share)),
        ("GET", "/api/1/shares/{share}", get(shares::one)),
        ("DELETE", "/api/1/shares/{share}", delete(shares::unshare)),
        ("GET", "/api/1/shares/{share}/link", get(shares::link)),
        ("GET", "/api/1/shares/{share}/qr", get(shares::qr)),
        ("PUT", "/api/1/uploads/{name}", put(uploads::upload)),
        ("POST", "/api/1/qr", post(qr::of_text)),
        ("POST", "/api/1/search", post(search::search)),
        ("GET", "/api/1/limits", get(limits::get)),
        ("PATCH", "/api/1/limits", patch(limits::change)),
        ("GET", "/api/1/capabilities", get(capabilities::list)),
        ("POST", "/api/1/capabilities", post(capabilities::make)),
        (
            "DELETE",
            "/api/1/capabilities/{capability}",
            delete(capabilities::revoke),
        ),
    ]
}

/// Returns the router of the API. It answers every path below `/api/`, and no other, so that it can
/// be merged with other routes.
pub(crate) fn routes(api: Api) -> Router {
    let mut router = Router::new();
    for (_, path, handler) in table() {
        router = router.route(path, handler);
    }
    router
        .method_not_allowed_fallback(wrong_method)
        .route("/api/{*rest}", any(no_route))
        .with_state(api)
}

/// Answers a path without a route.
pub(crate) async fn no_route() -> ApiError {
    ApiError::new(Code::NotFound, "no such route").hint("docs/api.md lists the routes of /api/1/")
}

async fn wrong_method() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "this route has other methods")
        .hint("docs/api.md lists the routes of /api/1/")
}
