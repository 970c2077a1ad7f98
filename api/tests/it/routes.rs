//! What a router answers, read off the router itself: from how axum shows it for debugging, which `Cargo.lock` pins. A form
//! that is not understood finds no routes, and each user of this asserts that it found those it knows.

use std::collections::{BTreeMap, BTreeSet};

const METHODS: [&str; 7] = ["get", "head", "delete", "options", "patch", "post", "put"];

/// Every method and path: `GET /v1/syncs/{id}`.
pub fn of(router: &axum::Router) -> BTreeSet<String> {
    let shown = format!("{router:?}");
    let (own, _) = shown.split_once(", fallback_router: ").expect("a router shows its routes, then its fallback's");
    let (mut paths, mut endpoints) = (BTreeMap::new(), BTreeMap::new());
    for entry in own.split("RouteId(").skip(1) {
        let (id, rest) = entry.split_once("): ").expect("an id, and what it is of");
        match rest.strip_prefix('"') {
            Some(path) => paths.insert(id, path.split('"').next().unwrap_or_default()),
            None => endpoints.insert(id, rest),
        };
    }
    assert_eq!(paths.len(), endpoints.len(), "each route has a path");
    let answered = |endpoint: &str, method: &str| !endpoint.contains(&format!(" {method}: None"));
    let routes = endpoints.into_iter().flat_map(|(id, endpoint)| {
        let path = paths[id];
        METHODS.into_iter().filter(move |method| answered(endpoint, method)).map(move |method| (method, path))
    });
    routes.map(|(method, path)| format!("{} {path}", method.to_uppercase())).collect()
}
