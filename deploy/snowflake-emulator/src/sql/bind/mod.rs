//! Snowflake SQL to Postgres SQL: names are resolved, types worked out, and what is not known is refused.
//!
//! ~~~text
//! text ─ parse ─► ast ─ known (async: catalog) ─► Binder (types, names) ─► Postgres SQL + result columns
//! ~~~

mod casts;
mod changes;
mod expressions;
mod functions;
mod known;
mod queries;
mod schema_views;
mod system;
mod targets;

pub use casts::cast;
pub use changes::{changed_after, stream_rows};
pub use known::Known;

use super::error::SqlError;
use super::names::Context;
use super::types::{Column, Type};

/// A Postgres expression and its Snowflake type.
#[derive(Debug, Clone)]
pub struct Typed {
    pub sql: String,
    pub ty: Type,
    pub nullable: bool,
    /// The literal NULL, which takes any type.
    pub is_null: bool,
}

impl Typed {
    /// An expression that may be null.
    pub fn new(sql: impl Into<String>, ty: Type) -> Self {
        Self { sql: sql.into(), ty, nullable: true, is_null: false }
    }

    /// An expression that is never null.
    pub fn solid(sql: impl Into<String>, ty: Type) -> Self {
        Self { sql: sql.into(), ty, nullable: false, is_null: false }
    }
}

/// A bound query: Postgres SQL whose columns are called c1, c2, …
#[derive(Debug, Clone)]
pub struct Bound {
    pub sql: String,
    pub columns: Vec<Column>,
}

/// A value for a `?`.
#[derive(Debug, Clone)]
pub struct Binding {
    pub ty: Type,
    /// The value as a Postgres expression.
    pub sql: String,
}

/// What expressions such as CURRENT_USER() answer.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    pub account: String,
    pub user: String,
    pub role: String,
    pub warehouse: Option<String>,
    pub session: String,
    pub context: Context,
    /// The session's time zone, an IANA name.
    pub zone: String,
    /// The virtual clock, nanoseconds since the epoch.
    pub now_ns: i128,
    pub bindings: Vec<Binding>,
    pub last_query: Option<String>,
}

/// A column in reach of an expression.
#[derive(Debug, Clone)]
pub(crate) struct ScopeColumn {
    name: String,
    value: Typed,
}

/// A table in reach of an expression.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    /// The names it can be called by, longest first: database, schema, name; or an alias alone.
    path: Vec<String>,
    columns: Vec<ScopeColumn>,
    /// The row's identity, for streams on views.
    rid: Option<String>,
}

/// One SELECT's tables and aliases.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    sources: Vec<Source>,
    aliases: Vec<(String, sqlparser::ast::Expr)>,
    /// Columns merged by USING: only the first counts for an unqualified name and for `*`.
    merged: Vec<String>,
}

/// Binds one statement.
pub struct Binder<'a> {
    known: &'a Known,
    around: &'a Surroundings,
    context: Context,
    scopes: Vec<Scope>,
    ctes: Vec<(String, String, Vec<Column>)>,
    aliases_made: usize,
    depth: usize,
    /// Read tables as they were at this snapshot.
    as_of: Option<String>,
    /// Where streams end: the start of an explicit transaction, or the moment a consuming statement took.
    end: Option<String>,
    /// Give each row of a SELECT an identity (streams on views).
    with_rid: bool,
}

impl<'a> Binder<'a> {
    /// Makes a binder; `end` is the snapshot where reads of streams stop.
    pub fn new(known: &'a Known, around: &'a Surroundings, end: Option<String>) -> Self {
        Self {
            known,
            around,
            context: around.context.clone(),
            scopes: Vec::new(),
            ctes: Vec::new(),
            aliases_made: 0,
            depth: 0,
            as_of: None,
            end,
            with_rid: false,
        }
    }

    fn alias(&mut self) -> String {
        self.aliases_made += 1;
        format!("r{}", self.aliases_made)
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("a scope is open while a SELECT is bound")
    }

    /// Finds a column by its name, inner SELECTs first, then aliases.
    pub(crate) fn column(&mut self, parts: &[String]) -> Result<Typed, SqlError> {
        for at in (0..self.scopes.len()).rev() {
            if let Some(found) = self.scopes[at].find(parts)? {
                return Ok(found);
            }
            if let [name] = parts
                && let Some(position) = self.scopes[at].aliases.iter().position(|(alias, _)| alias == name)
            {
                // The alias is taken out while its own expression is bound: `a + 1 as a` is not a loop.
                let (alias, expression) = self.scopes[at].aliases.remove(position);
                let bound = self.expression(&expression);
                self.scopes[at].aliases.insert(position, (alias, expression));
                return bound;
            }
        }
        Err(SqlError::identifier(&parts.iter().map(|part| super::names::printed(part)).collect::<Vec<_>>().join(".")))
    }
}

impl Scope {
    fn find(&self, parts: &[String]) -> Result<Option<Typed>, SqlError> {
        let Some((name, path)) = parts.split_last() else { return Ok(None) };
        let mut found: Option<Typed> = None;
        for source in self.sources.iter().filter(|source| source.answers_to(path)) {
            for column in source.columns.iter().filter(|column| column.name == *name) {
                if found.is_some() {
                    if path.is_empty() && self.merged.contains(name) {
                        continue;
                    }
                    return Err(SqlError::compilation("000906", "42601", format!("ambiguous column name '{name}'")));
                }
                found = Some(column.value.clone());
            }
        }
        Ok(found)
    }
}

impl Source {
    fn answers_to(&self, path: &[String]) -> bool {
        path.len() <= self.path.len() && self.path[self.path.len() - path.len()..] == *path
    }
}
