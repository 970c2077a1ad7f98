//! Reading the feed.

use super::{FeedEvent, FeedPage, KINDS, store};
use crate::access::{Caller, Right};
use crate::app::App;
use crate::error::{Error, Result};
use crate::page::{LIMIT_DEFAULT, LIMIT_MAX};

/// Which part of the feed.
#[derive(Debug, Clone)]
pub struct FeedRequest {
    /// After this number; 0 for the oldest that is kept.
    pub after: i64,
    /// Of these types, or beginning with one of them up to a dot; of all if none is named.
    pub kinds: Vec<String>,
    /// Events, 1 to [`LIMIT_MAX`].
    pub limit: i64,
}

impl FeedRequest {
    /// Reads `cursor`, `type` and `limit` of a query.
    ///
    /// # Errors
    /// `request.invalid`, naming the parameter.
    pub fn new(cursor: Option<&str>, kinds: Option<&str>, limit: Option<i64>) -> Result<Self> {
        let limit = limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Error::invalid("/limit", format!("must be 1 to {LIMIT_MAX}")));
        }
        let kinds: Vec<_> = kinds.unwrap_or_default().split(',').filter(|word| !word.is_empty()).collect();
        for word in &kinds {
            let begins =
                |kind: &str| kind.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            if !KINDS.iter().any(|(kind, _)| begins(kind)) {
                let all: Vec<_> = KINDS.iter().map(|(kind, _)| *kind).collect();
                return Err(Error::invalid("/type", format!("must be among {}, or a noun of these", all.join(", "))));
            }
        }
        let kinds = kinds.into_iter().map(str::to_owned).collect();
        Ok(Self { after: cursor.map_or(Ok(0), number_of)?, kinds, limit })
    }
}

/// The number in a cursor.
///
/// # Errors
/// `request.invalid`.
pub fn number_of(cursor: &str) -> Result<i64> {
    let number = cursor.strip_prefix("v1.").and_then(|number| number.parse().ok()).filter(|number| *number >= 0);
    number.ok_or_else(|| Error::invalid("/cursor", "must be a `next_cursor` or an event's `id` of the feed"))
}

/// A number as a cursor.
#[must_use]
pub fn cursor_of(number: i64) -> String {
    format!("v1.{number}")
}

/// What happened after a number, oldest first, each with its own number.
///
/// # Errors
/// `request.invalid` for a number that the feed has not reached, as after a restore.
pub async fn read(app: &App, caller: &Caller, request: &FeedRequest) -> Result<(Vec<(i64, FeedEvent)>, i64, bool)> {
    caller.may(Right::RunsRead)?;
    let mut tx = app.db.tenant(caller.workspace).await?;
    let last = store::give_numbers(&mut tx).await?;
    if request.after > last {
        return Err(Error::invalid("/cursor", "is ahead of the feed, as after a restore; read it from its beginning"));
    }
    let mut rows = store::list(&mut tx, request.after, &request.kinds, request.limit).await?;
    tx.commit().await?;
    let has_more = rows.len() as i64 > request.limit;
    rows.truncate(request.limit as usize);
    let reached = rows.last().map_or(0, |row| row.number);
    // What is not of the types asked for is passed over for good.
    let next = if has_more { reached } else { reached.max(last) };
    Ok((rows.into_iter().map(|row| (row.number, row.into())).collect(), next, has_more))
}

/// The same as a page.
///
/// # Errors
/// As [`read`].
pub async fn page(app: &App, caller: &Caller, request: &FeedRequest) -> Result<FeedPage> {
    let (rows, next, has_more) = read(app, caller, request).await?;
    Ok(FeedPage { data: rows.into_iter().map(|(_, event)| event).collect(), next_cursor: cursor_of(next), has_more })
}
