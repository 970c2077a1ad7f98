//! How much one key, one workspace and all of them may ask.
//!
//! Each key and each workspace has a bucket per class of request, refilled evenly over a minute (GCRA). The buckets are this
//! process's own: with several processes each gives as much. Every answer says what is left, in the fields of the IETF
//! draft `RateLimit header fields for HTTP`; a 429 says in `Retry-After` when to come again.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use freshet_core::access::{Actor, Caller};
use freshet_core::error::{Code, Error};
use freshet_core::settings::Settings;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::Api;
use crate::problem::Problem;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");
/// Buckets that are full again are forgotten after so many requests.
const FORGET_EVERY: u64 = 10_000;

type Buckets = RateLimiter<Uuid, DashMapStateStore<Uuid>, DefaultClock, StateInformationMiddleware>;

/// What a request costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// It reads.
    Read,
    /// It changes something.
    Write,
    /// It has a worker ask a source or a cluster, or reads a whole log.
    Expensive,
}

impl Class {
    fn of(method: &Method, path: &str) -> Self {
        let last = path.rsplit('/').next().unwrap_or_default();
        match (method, last) {
            (
                &Method::POST,
                "test" | "check" | "preview" | "plan" | "key-check" | "describe" | "catalogue" | "streams" | "resync",
            )
            | (_, "export") => Self::Expensive,
            (&Method::GET | &Method::HEAD, _) => Self::Read,
            _ => Self::Write,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Expensive => "expensive",
        }
    }
}

/// The buckets of every key and workspace, and the room for requests at once. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Limits(Arc<Inner>);

struct Inner {
    classes: [(Class, u32, Buckets); 3],
    asked: AtomicU64,
    room: Semaphore,
}

impl Limits {
    pub(crate) fn new(settings: &Settings) -> Self {
        let class = |class, per_minute: u32| {
            let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
            let buckets = RateLimiter::dashmap(Quota::per_minute(per_minute)).with_middleware();
            (class, per_minute.get(), buckets)
        };
        Self(Arc::new(Inner {
            classes: [
                class(Class::Read, settings.api_reads_per_minute),
                class(Class::Write, settings.api_writes_per_minute),
                class(Class::Expensive, settings.api_expensive_per_minute),
            ],
            asked: AtomicU64::new(0),
            room: Semaphore::new(settings.api_requests_max),
        }))
    }

    /// Takes one out of the key's bucket and one out of the workspace's; the fewer of what is left, or the seconds to wait.
    fn take(&self, class: Class, caller: &Caller) -> (u32, Result<u32, u64>) {
        if self.0.asked.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.0.classes.iter().for_each(|(_, _, buckets)| buckets.retain_recent());
        }
        let (_, per_minute, buckets) = &self.0.classes[class as usize];
        let key = match caller.actor {
            Actor::ApiKey { key, .. } => key.uuid(),
            Actor::User { user, .. } => user.uuid(),
            Actor::Command | Actor::Consent | Actor::Stranger => caller.workspace.uuid(),
        };
        let mut left = *per_minute;
        for bucket in [key, caller.workspace.uuid()] {
            match buckets.check_key(&bucket) {
                Ok(state) => left = left.min(state.remaining_burst_capacity()),
                Err(until) => {
                    let wait = until.wait_time_from(DefaultClock::default().now());
                    return (*per_minute, Err(wait.as_secs() + 1));
                }
            }
        }
        (*per_minute, Ok(left))
    }
}

/// Lets a request through while its key and its workspace have some left; runs behind the key's check.
pub(crate) async fn keep_within(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>() else { return next.run(request).await };
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let class = Class::of(request.method(), path);
    let (per_minute, left) = api.limits.take(class, caller);
    let name = class.as_str();
    let (mut response, left) = match left {
        Ok(left) => (next.run(request).await, format!("\"{name}\";r={left}")),
        Err(wait_s) => {
            let told = format!("a key and a workspace each have {per_minute} requests of the class `{name}` a minute");
            let mut refused = Problem::from(Error::new(Code::Limited, told)).into_response();
            refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_s));
            (refused, format!("\"{name}\";r=0;t={wait_s}"))
        }
    };
    for (header, text) in [(POLICY, format!("\"{name}\";q={per_minute};w=60")), (LEFT, left)] {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(header, value);
        }
    }
    response
}

/// Refuses a request for which there is no room: better at once than late. A stream holds its room until it begins.
pub(crate) async fn keep_room(State(api): State<Api>, request: Request, next: Next) -> Response {
    let Ok(_room) = api.limits.0.room.try_acquire() else {
        let told = "the service is working on as many requests as it may";
        let mut refused = Problem::from(Error::new(Code::Busy, told)).into_response();
        refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(1u16));
        return refused;
    };
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_a_worker_is_expensive() {
        for (method, path, class) in [
            (Method::GET, "/v1/syncs/{id}", Class::Read),
            (Method::POST, "/v1/syncs/{id}/runs", Class::Write),
            (Method::DELETE, "/v1/api-keys/{id}", Class::Write),
            (Method::POST, "/v1/syncs/{id}/preview", Class::Expensive),
            (Method::POST, "/v1/connections/{id}/test", Class::Expensive),
            (Method::GET, "/v1/audit-events/export", Class::Expensive),
        ] {
            assert_eq!(Class::of(&method, path), class, "{path}");
        }
    }
}
