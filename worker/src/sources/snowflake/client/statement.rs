//! What is asked, and by whom.

use freshet_core::connector::BatchName;
use serde_json::{Map, Value, json};

use super::parameter;

/// Where statements run. Names as SHOW prints them: in upper case unless they were made in quotes; they are compared
/// letter by letter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// The role; the user's default if not given.
    pub role: Option<String>,
    /// The warehouse; the user's default if not given.
    pub warehouse: Option<String>,
    /// The database; the user's default if not given.
    pub database: Option<String>,
}

/// Whose statement it is; written to Snowflake's query history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryTag(Map<String, Value>);

impl QueryTag {
    /// The tag of a batch's statements.
    #[must_use]
    pub fn of_batch(name: &BatchName) -> Self {
        let members = json!({ "workspace": name.workspace, "sync": name.sync, "run": name.run, "batch": name.seq });
        Self(members.as_object().cloned().unwrap_or_default())
    }

    fn render(&self) -> Value {
        parameter(json!({ "freshet": self.0 }))
    }
}

/// How a statement's first answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The answer is a handle, at once. For what changes something, and for large results.
    Handle,
    /// The answer is the result, if there is one within 45 seconds.
    Result,
}

/// One statement, or several as a script.
#[derive(Debug, Clone)]
pub struct Statement {
    sql: String,
    wait: Wait,
    tag: QueryTag,
    count: Option<u32>,
    as_text: bool,
}

impl Statement {
    /// A statement whose result is small: the first answer may bring it.
    #[must_use]
    pub fn small(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), wait: Wait::Result, tag: QueryTag::default(), count: None, as_text: false }
    }

    /// A statement that changes something, or whose result is large.
    #[must_use]
    pub fn large(sql: impl Into<String>) -> Self {
        Self { wait: Wait::Handle, ..Self::small(sql) }
    }

    /// The same, tagged.
    #[must_use]
    pub fn tagged(mut self, tag: QueryTag) -> Self {
        self.tag = tag;
        self
    }

    /// The same, as a script of `count` statements; 0 for any number.
    #[must_use]
    pub fn as_script(mut self, count: u32) -> Self {
        self.count = Some(count);
        self.wait = Wait::Handle;
        self
    }

    /// The same, its cells taken as the texts that Snowflake sends.
    #[must_use]
    pub fn as_text(mut self) -> Self {
        self.as_text = true;
        self
    }

    pub(super) fn sql(&self) -> &str {
        &self.sql
    }

    pub(super) fn wait_text(&self) -> bool {
        self.as_text
    }

    pub(super) fn waits_for_handle(&self) -> bool {
        self.wait == Wait::Handle
    }

    /// The request's body. No output format is ever set: without one the form of each type is fixed.
    pub(super) fn body(&self, context: &Context, timeout_s: u32) -> Value {
        let mut parameters = Map::new();
        parameters.insert("query_tag".into(), self.tag.render());
        if let Some(count) = self.count {
            parameters.insert("MULTI_STATEMENT_COUNT".into(), parameter(count));
        }
        let mut body = Map::new();
        body.insert("statement".into(), self.sql.clone().into());
        body.insert("parameters".into(), parameters.into());
        if timeout_s > 0 {
            body.insert("timeout".into(), timeout_s.into());
        }
        for (name, value) in
            [("role", &context.role), ("warehouse", &context.warehouse), ("database", &context.database)]
        {
            if let Some(value) = value {
                body.insert(name.into(), value.clone().into());
            }
        }
        body.into()
    }
}
