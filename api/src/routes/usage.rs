//! Usage: what was moved, per day and per sync.

use axum::extract::State;
use chrono::NaiveDate;
use freshet_core::id::SyncId;
use freshet_core::usage::{UsageDay, UsageOfSync, ops};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, ok};
use crate::Api;
use crate::auth::By;
use crate::extract::Query;
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(get_usage)).routes(routes!(get_usage_of_syncs))
}

/// Which days; 366 at most.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct UsageQuery {
    /// The first day, in UTC; 30 days up to `until` if not given.
    since: Option<NaiveDate>,
    /// The last day, in UTC; today if not given.
    until: Option<NaiveDate>,
    /// Of this sync alone.
    sync_id: Option<SyncId>,
}

/// Which days; 366 at most.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct DaysQuery {
    /// The first day, in UTC; 30 days up to `until` if not given.
    since: Option<NaiveDate>,
    /// The last day, in UTC; today if not given.
    until: Option<NaiveDate>,
}

/// Days.
#[derive(Serialize, utoipa::ToSchema)]
struct UsageDays {
    /// Each day that a run ended on, newest first.
    data: Vec<UsageDay>,
}

/// Syncs.
#[derive(Serialize, utoipa::ToSchema)]
struct UsageOfSyncs {
    /// Those that moved the most records, 200 at most.
    data: Vec<UsageOfSync>,
}

/// What the workspace, or one of its syncs, moved on each day. It stays when old runs are pruned.
#[utoipa::path(
    get,
    path = "/usage",
    tag = "usage",
    params(UsageQuery),
    security(("key" = ["runs:read"])),
    responses((status = 200, body = UsageDays), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_usage(State(api): State<Api>, By(caller): By, Query(query): Query<UsageQuery>) -> Answer {
    let days = ops::days(&api.app, query.since, query.until)?;
    ok(&UsageDays { data: ops::by_day(&api.app, &caller, days, query.sync_id).await? })
}

/// What each sync moved within some days, the most first.
#[utoipa::path(
    get,
    path = "/usage/syncs",
    tag = "usage",
    params(DaysQuery),
    security(("key" = ["runs:read"])),
    responses((status = 200, body = UsageOfSyncs), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_usage_of_syncs(State(api): State<Api>, By(caller): By, Query(query): Query<DaysQuery>) -> Answer {
    let days = ops::days(&api.app, query.since, query.until)?;
    ok(&UsageOfSyncs { data: ops::by_sync(&api.app, &caller, days).await? })
}
