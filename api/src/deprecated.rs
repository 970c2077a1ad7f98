//! What is to go: an operation of this table says so in each of its answers and in the document, half a year before it goes.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use utoipa::openapi::{Deprecated, OpenApi};

use crate::operation;

/// An operation that is deprecated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Going {
    /// `GET`.
    method: &'static str,
    /// As the document has it, `/v1/syncs/{id}`.
    path: &'static str,
    /// The day it was deprecated: year, month, day.
    since: (i32, u32, u32),
    /// The day from which on it may be gone.
    until: (i32, u32, u32),
    /// What takes its place, `/v1/runs`.
    instead: &'static str,
}

/// The operations that are to go: none so far.
pub(crate) const GOING: &[Going] = &[];

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");

fn start_of((year, month, day): (i32, u32, u32)) -> DateTime<Utc> {
    NaiveDate::from_ymd_opt(year, month, day).unwrap_or_default().and_time(NaiveTime::MIN).and_utc()
}

/// Marks the operations in the document.
pub(crate) fn mark(document: &mut OpenApi, table: &[Going]) {
    for going in table {
        if let Some(operation) = operation(document, going.method, going.path) {
            operation.deprecated = Some(Deprecated::True);
        }
    }
}

/// Adds `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and a `Link` to what takes its place.
pub(crate) async fn tell(State(table): State<&'static [Going]>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let method = if request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
    let going = table.iter().find(|going| going.method == method && going.path == path).copied();
    let mut response = next.run(request).await;
    if let Some(going) = going {
        let told = [
            (DEPRECATION, format!("@{}", start_of(going.since).timestamp())),
            (SUNSET, start_of(going.until).format("%a, %d %b %Y %H:%M:%S GMT").to_string()),
            (axum::http::header::LINK, format!("<{}>; rel=\"successor-version\"", going.instead)),
        ];
        for (name, value) in told {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use freshet_core::connector::Registry;
    use freshet_core::testing::Bench;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt;

    use super::*;

    const TABLE: &[Going] = &[Going {
        method: "GET",
        path: "/v1/syncs/{id}",
        since: (2026, 11, 28),
        until: (2027, 6, 1),
        instead: "/v1/runs",
    }];

    #[tokio::test]
    async fn an_operation_that_is_to_go_says_so_in_each_answer_and_no_other_does() {
        let bench = Bench::new(Registry::default()).await;
        let router = crate::router_telling(bench.app.clone(), CancellationToken::new(), TABLE);
        let ask = async |method: &str, key: &str| {
            let request = Request::builder().method(method).uri("/v1/syncs/1").header("authorization", key);
            let answer = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            (answer.status().as_u16(), answer.headers().clone())
        };
        let key = format!("Bearer {}", bench.key);

        let (known, stranger, staying) = (ask("GET", &key).await, ask("GET", "").await, ask("PATCH", &key).await);

        assert_eq!((known.0, stranger.0), (404, 401));
        for (status, going) in [known, stranger] {
            assert_eq!(going["deprecation"], "@1795824000", "{status}");
            assert_eq!(going["sunset"], "Tue, 01 Jun 2027 00:00:00 GMT", "{status}");
            assert_eq!(going["link"], "</v1/runs>; rel=\"successor-version\"", "{status}");
        }
        assert!(!staying.1.contains_key("deprecation") && !staying.1.contains_key("sunset"));
    }

    #[test]
    fn the_document_marks_what_is_to_go() {
        let (_, mut document) = crate::v1().split_for_parts();

        mark(&mut document, TABLE);

        let item = &document.paths.paths["/v1/syncs/{id}"];
        assert!(item.get.as_ref().unwrap().deprecated == Some(Deprecated::True));
        assert!(item.patch.as_ref().unwrap().deprecated.is_none());
    }

    #[test]
    fn what_is_to_go_is_there_and_stays_for_half_a_year() {
        let (_, document) = crate::v1().split_for_parts();
        for going in GOING.iter().chain(TABLE) {
            assert!(document.paths.paths.contains_key(going.path), "{going:?}");
            assert!((start_of(going.until) - start_of(going.since)).num_days() >= 180, "{going:?}");
        }
    }
}
