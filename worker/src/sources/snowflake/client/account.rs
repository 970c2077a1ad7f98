//! What was asked: a statement's id, how long it took, whether it needed a warehouse.

use std::sync::PoisonError;
use std::time::Instant;

use chrono::{DateTime, Utc};
use freshet_core::clock::Clock;
use freshet_core::connector::SourceQuery;

use super::rows::Rows;
use super::{Client, Statement};

/// Statements kept until they are asked for; later ones are not.
pub(super) const QUERIES_MAX: usize = 1_000;

/// A statement on its way.
pub(super) struct Asked {
    statement: String,
    is_computed: bool,
    at: DateTime<Utc>,
    since: Instant,
    seconds: f64,
}

impl Asked {
    pub(super) fn now(statement: &Statement, clock: &Clock) -> Self {
        let sql = statement.sql();
        let (at, since) = (clock.now(), Instant::now());
        Self { statement: first_words(sql), is_computed: is_computed(sql), at, since, seconds: 0.0 }
    }

    /// The same, its answer begun.
    pub(super) fn answered(self) -> Self {
        Self { seconds: self.since.elapsed().as_secs_f64(), ..self }
    }
}

impl Client {
    /// Writes a statement down.
    pub(super) fn account(&self, asked: &Asked, id: &str, rows: &Rows) {
        let (row_count, bytes) = rows.announced_all();
        let hours = if asked.is_computed { asked.seconds / 3_600.0 } else { 0.0 };
        let mut queries = self.0.queries.lock().unwrap_or_else(PoisonError::into_inner);
        if queries.len() < QUERIES_MAX {
            queries.push(SourceQuery {
                id: id.to_owned(),
                statement: asked.statement.clone(),
                at: asked.at,
                seconds: asked.seconds,
                rows: row_count,
                bytes,
                is_computed: asked.is_computed,
                credits: hours * self.0.settings.credits_per_hour,
            });
        }
    }
}

/// The leading words of a statement that cannot be a name: letters only, up to the first word that is none of these.
fn first_words(sql: &str) -> String {
    const KNOWN: &[&str] = &[
        "create",
        "or",
        "replace",
        "transient",
        "temporary",
        "table",
        "stream",
        "view",
        "if",
        "not",
        "exists",
        "select",
        "insert",
        "into",
        "update",
        "delete",
        "merge",
        "truncate",
        "drop",
        "alter",
        "show",
        "describe",
        "tables",
        "streams",
        "databases",
        "schemas",
        "columns",
        "warehouses",
        "objects",
        "views",
        "terse",
        "with",
        "call",
        "begin",
        "commit",
        "grants",
        "parameters",
    ];
    let words = sql.split_whitespace().map(str::to_ascii_lowercase);
    words.take_while(|word| KNOWN.contains(&word.as_str())).take(6).collect::<Vec<_>>().join(" ")
}

/// Whether a warehouse is needed: not for what the services layer answers by itself.
fn is_computed(sql: &str) -> bool {
    let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    match sql.split(' ').next().unwrap_or_default() {
        "select" => sql.contains(" from ") && !sql.starts_with("select system$"),
        "create" => sql.contains(" as select ") || sql.contains(" as with "),
        "with" | "insert" | "update" | "delete" | "merge" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_computes_needs_a_warehouse() {
        for sql in [
            "create transient table if not exists A.B as\nselect 1 from C",
            "select ID\nfrom T",
            "insert into T select 1",
        ] {
            assert!(is_computed(sql), "{sql}");
        }
        for sql in
            ["show tables like 'X'", "select system$stream_has_data('S')", "truncate table T", "select current_date()"]
        {
            assert!(!is_computed(sql), "{sql}");
        }
    }

    #[test]
    fn a_statement_is_told_without_names() {
        assert_eq!(
            first_words("create transient table if not exists SECRET as select 1"),
            "create transient table if not exists"
        );
        assert_eq!(first_words("SELECT \"a\" from b"), "select");
    }
}
