//! The audit log.

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use freshet_core::access::{Caller, Right};
use freshet_core::app::App;
use freshet_core::audit::chain::{self, Checked};
use freshet_core::audit::{AuditEvent, AuditFilter, ops};
use freshet_core::error::{Code, Error, Result as CoreResult};
use freshet_core::id::uuid_of;
use freshet_core::page::{LIMIT_MAX, Page, PageRequest};
use futures::stream;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Answer, ok};
use crate::Api;
use crate::auth::By;
use crate::extract::Query;
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_audit_events))
        .routes(routes!(export_audit_events))
        .routes(routes!(get_audit_chain))
}

/// Which lines.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// Rows, 1 to 200; 50 if not given. An export has all of them.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// The `next_cursor` of the page before.
    #[param(pattern = r"^v1\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    cursor: Option<String>,
    /// Of this action, `connection.created`, or of every action on this noun, `connection`.
    action: Option<String>,
    /// Of this person or service account.
    actor_id: Option<String>,
    /// On this row, of whatever kind.
    target_id: Option<String>,
    /// From then on.
    since: Option<DateTime<Utc>>,
    /// Before then.
    until: Option<DateTime<Utc>>,
    /// Of the whole organization, its people and all of its workspaces, for who may read that; of the workspace if not given.
    #[serde(default)]
    organization: bool,
    /// Of an export: `ndjson` or `csv`; `ndjson` if not given.
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// One JSON object a line.
    #[default]
    Ndjson,
    /// Comma-separated values (RFC 4180); no cell is a formula to a spreadsheet.
    Csv,
}

impl AuditQuery {
    fn filter(&self) -> CoreResult<AuditFilter> {
        let id = |text: &Option<String>, field: &str| {
            let id = |text: &str| uuid_of(text).ok_or_else(|| Error::invalid(field, "must be an id, such as `con_…`"));
            text.as_deref().map(id).transpose()
        };
        Ok(AuditFilter {
            action: self.action.clone(),
            actor: id(&self.actor_id, "/actor_id")?,
            target: id(&self.target_id, "/target_id")?,
            since: self.since,
            until: self.until,
        })
    }
}

/// The audit log, newest first: every deed, and every attempt that a right was lacking to.
#[utoipa::path(
    get,
    path = "/audit-events",
    tag = "audit",
    params(AuditQuery),
    security(("key" = ["audit:read"])),
    responses((status = 200, body = Page<AuditEvent>), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn list_audit_events(State(api): State<Api>, By(caller): By, Query(query): Query<AuditQuery>) -> Answer {
    let page = PageRequest::new(query.limit, query.cursor.as_deref())?;
    ok(&read(&api.app, &caller, query.organization, &query.filter()?, page).await?)
}

/// The whole audit log as a file, newest first, as long as it is.
#[utoipa::path(
    get,
    path = "/audit-events/export",
    tag = "audit",
    params(AuditQuery),
    security(("key" = ["audit:read"])),
    responses(
        (status = 200, content((String = "application/x-ndjson"), (String = "text/csv"))),
        (status = "default", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn export_audit_events(State(api): State<Api>, By(caller): By, Query(query): Query<AuditQuery>) -> Answer {
    match query.organization {
        true => caller.in_organization()?.may(Right::AuditRead, None)?,
        false => caller.may(Right::AuditRead)?,
    }
    let asked = PageRequest::new(query.limit, query.cursor.as_deref())?;
    let first = PageRequest { limit: LIMIT_MAX, ..asked };
    Ok(exported(api.app, caller, query.organization, query.filter()?, first, query.format))
}

/// What the last check of the organization's chain found, and where the chain ends; wants rights in the whole of it.
#[utoipa::path(
    get,
    path = "/audit-chain",
    tag = "audit",
    security(("key" = ["audit:read"])),
    responses((status = 200, body = Checked), (status = "default", body = Problem, content_type = "application/problem+json"))
)]
async fn get_audit_chain(State(api): State<Api>, By(caller): By) -> Answer {
    ok(&chain::last_check(&api.app, &caller.in_organization()?).await?)
}

async fn read(
    app: &App,
    caller: &Caller,
    organization: bool,
    filter: &AuditFilter,
    page: PageRequest,
) -> CoreResult<Page<AuditEvent>> {
    match organization {
        true => ops::list_in_organization(app, &caller.in_organization()?, filter, page).await,
        false => ops::list(app, caller, filter, page).await,
    }
}

/// Page after page, each written when the reader has taken the one before.
fn exported(
    app: App,
    caller: Caller,
    organization: bool,
    filter: AuditFilter,
    first: PageRequest,
    format: Format,
) -> Response {
    let pages = stream::try_unfold((Some(first), true), move |(page, is_first)| {
        let (app, caller, filter) = (app.clone(), caller.clone(), filter.clone());
        async move {
            let Some(page) = page else { return Ok::<_, Error>(None) };
            let found = read(&app, &caller, organization, &filter, page).await?;
            let next = match &found.next_cursor {
                Some(cursor) => Some(PageRequest::new(Some(LIMIT_MAX), Some(cursor))?),
                None => None,
            };
            Ok(Some((written(&found.data, format, is_first)?, (next, false))))
        }
    });
    let (kind, name) = match format {
        Format::Ndjson => ("application/x-ndjson", "attachment; filename=\"audit-events.ndjson\""),
        Format::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"audit-events.csv\""),
    };
    ([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)], Body::from_stream(pages)).into_response()
}

const COLUMNS: [&str; 9] =
    ["id", "at", "actor_kind", "actor_id", "action", "target_kind", "target_id", "request_id", "changes"];

fn written(events: &[AuditEvent], format: Format, is_first: bool) -> CoreResult<Vec<u8>> {
    let unwritten = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(Code::Internal, "the audit log cannot be written").caused_by(error)
    };
    let mut out = Vec::new();
    match format {
        Format::Ndjson => {
            for event in events {
                serde_json::to_writer(&mut out, event).map_err(|error| unwritten(error.into()))?;
                out.push(b'\n');
            }
            Ok(out)
        }
        Format::Csv => {
            let mut csv = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out);
            if is_first {
                csv.write_record(COLUMNS).map_err(|error| unwritten(error.into()))?;
            }
            for event in events {
                csv.write_record(cells(event).map(|cell| no_formula(&cell)))
                    .map_err(|error| unwritten(error.into()))?;
            }
            csv.into_inner().map_err(|error| unwritten(error.to_string().into()))
        }
    }
}

fn cells(event: &AuditEvent) -> [String; 9] {
    [
        event.id.to_string(),
        event.at.to_rfc3339(),
        event.actor_kind.clone(),
        event.actor_id.clone().unwrap_or_default(),
        event.action.clone(),
        event.target_kind.clone(),
        event.target_id.clone(),
        event.request_id.map(|id| id.to_string()).unwrap_or_default(),
        event.changes.to_string(),
    ]
}

/// A cell that a spreadsheet would take for a formula is shown as text (OWASP, CSV injection).
fn no_formula(cell: &str) -> String {
    match cell.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r') => format!("'{cell}"),
        _ => cell.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_begins_a_formula() {
        for cell in ["=1+1", "+1", "-1", "@a", "\t=1"] {
            assert_eq!(no_formula(cell), format!("'{cell}"));
        }
        assert_eq!(no_formula("connection.created"), "connection.created");
    }
}
