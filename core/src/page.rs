//! Keyset pages: the only form of a list.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

/// Rows of a page, at most.
pub const LIMIT_MAX: i64 = 200;
/// Rows of a page, if not said.
pub const LIMIT_DEFAULT: i64 = 50;

/// Which page is asked for: newest first, after a cursor.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// The id of the last row of the page before; none for the first page.
    pub before: Option<Uuid>,
    /// Rows, 1 to [`LIMIT_MAX`].
    pub limit: i64,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { before: None, limit: LIMIT_DEFAULT }
    }
}

impl PageRequest {
    /// Reads `limit` and `cursor` of a query.
    ///
    /// # Errors
    /// `request.invalid` for a limit out of range or a cursor we did not give.
    pub fn new(limit: Option<i64>, cursor: Option<&str>) -> Result<Self> {
        let limit = limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Error::invalid("/limit", format!("must be 1 to {LIMIT_MAX}")));
        }
        let before = cursor
            .map(|cursor| {
                cursor
                    .strip_prefix("v1.")
                    .and_then(|id| Uuid::parse_str(id).ok())
                    .ok_or_else(|| Error::invalid("/cursor", "must be the `next_cursor` of the page before"))
            })
            .transpose()?;
        Ok(Self { before, limit })
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The rows, newest first.
    pub data: Vec<T>,
    /// Ask with this for the next page; none on the last.
    pub next_cursor: Option<String>,
    /// Whether there is a next page.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// Makes a page of `limit + 1` rows read; the row too many says that there is more.
    pub(crate) fn of(mut data: Vec<T>, request: PageRequest, id: impl Fn(&T) -> Uuid) -> Self {
        let has_more = data.len() as i64 > request.limit;
        data.truncate(request.limit as usize);
        let next_cursor = has_more.then(|| data.last().map(|last| format!("v1.{}", id(last)))).flatten();
        Self { data, next_cursor, has_more }
    }

    /// The same page with each row turned into something else.
    pub fn map<U>(self, turn: impl FnMut(T) -> U) -> Page<U> {
        Page { data: self.data.into_iter().map(turn).collect(), next_cursor: self.next_cursor, has_more: self.has_more }
    }
}
