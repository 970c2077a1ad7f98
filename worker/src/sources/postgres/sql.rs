//! The check of a model's statement, and quoting.
//!
//! Rights and the read-only session are the wall; this check is the door that says why.

use std::ops::ControlFlow;

use freshet_core::connector::{Column, ModelSpec};
use freshet_core::error::{Code, Error, Result};
use sqlparser::ast::{Expr, ObjectName, Query, SetExpr, Statement, Visit, Visitor};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// Bytes of a model's statement, at most.
const SQL_LENGTH_MAX: usize = 100_000;

/// Functions that read files, change the session or reach other servers. Rights stop them too.
const FORBIDDEN: &[&str] = &[
    "set_config",
    "dblink",
    "dblink_exec",
    "dblink_connect",
    "pg_read_file",
    "pg_read_binary_file",
    "pg_ls_dir",
    "pg_stat_file",
    "lo_import",
    "lo_export",
    "lo_create",
    "lo_unlink",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_reload_conf",
    "pg_advisory_lock",
    "pg_notify",
    "nextval",
    "setval",
    "query_to_xml",
    "pg_sleep",
];

/// Checks a model before it is saved.
///
/// # Errors
/// `model.syntax`, `model.multiple_statements`, `model.not_select`; `request.invalid` for an empty or huge text.
pub(super) fn validate_model(model: &ModelSpec) -> Result<()> {
    match model {
        ModelSpec::Table { schema, table } => {
            for (pointer, name) in [("/spec/schema", schema), ("/spec/table", table)] {
                if name.is_empty() || name.len() > 63 || name.contains('\0') {
                    return Err(Error::invalid(pointer, "must have 1 to 63 bytes"));
                }
            }
            Ok(())
        }
        ModelSpec::Sql { sql } => check_select(sql),
    }
}

fn check_select(sql: &str) -> Result<()> {
    if sql.trim().is_empty() || sql.len() > SQL_LENGTH_MAX || sql.contains('\0') {
        return Err(Error::invalid("/spec/sql", format!("must have 1 to {SQL_LENGTH_MAX} bytes")));
    }
    let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).map_err(|error| {
        let place = error.to_string().rsplit_once(" at ").map(|(_, place)| format!(" at {place}")).unwrap_or_default();
        Error::new(Code::ModelSyntax, format!("the SQL does not parse{place}")).caused_by(error)
    })?;
    let query = match statements.as_slice() {
        [Statement::Query(query)] => query,
        [_] => return Err(not_select("the statement is not a SELECT")),
        [] => return Err(not_select("there is no statement")),
        _ => {
            let told = format!("there are {} statements", statements.len());
            return Err(Error::new(Code::ModelMultipleStatements, told));
        }
    };
    match query.visit(&mut ReadsOnly) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(told) => Err(not_select(&told)),
    }
}

fn not_select(told: &str) -> Error {
    Error::new(Code::ModelNotSelect, told)
}

/// Breaks off at the first thing that does more than read.
struct ReadsOnly;

impl Visitor for ReadsOnly {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        if !query.locks.is_empty() {
            return ControlFlow::Break("FOR UPDATE and FOR SHARE lock rows".into());
        }
        match query.body.as_ref() {
            SetExpr::Select(select) if select.into.is_some() => ControlFlow::Break("SELECT INTO makes a table".into()),
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                ControlFlow::Break("a WITH part changes rows".into())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        match expr {
            Expr::Function(function) => refuse_function(&function.name),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<String> {
        refuse_function(relation)
    }
}

fn refuse_function(name: &ObjectName) -> ControlFlow<String> {
    let last = name.0.last().map(|part| part.to_string().trim_matches('"').to_lowercase()).unwrap_or_default();
    if FORBIDDEN.contains(&last.as_str()) {
        ControlFlow::Break(format!("the function `{last}` is not for models"))
    } else {
        ControlFlow::Continue(())
    }
}

/// An identifier, quoted.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text literal; `standard_conforming_strings` is on in our sessions.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Identifiers, quoted, with commas.
pub(super) fn identifiers(names: &[String]) -> String {
    names.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ")
}

/// What stands after FROM for a model.
pub(super) fn relation(model: &ModelSpec) -> String {
    match model {
        ModelSpec::Table { schema, table } => format!("{}.{}", identifier(schema), identifier(table)),
        // Lines of its own, so that a comment at the end does not swallow the bracket.
        ModelSpec::Sql { sql } => format!("(\n{}\n) as model", sql.trim_end().trim_end_matches(';')),
    }
}

/// The planned columns of a model, by name.
pub(super) fn select(model: &ModelSpec, columns: &[Column]) -> String {
    let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
    format!("select {} from {}", identifiers(&names), relation(model))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(sql: &str) -> Option<Code> {
        check_select(sql).err().map(|error| error.code)
    }

    #[test]
    fn what_reads_is_taken() {
        for sql in [
            "select * from orders",
            "select * from orders;",
            "with recent as (select * from orders where at > now() - interval '1 day') select * from recent -- all",
            "select a->>'x', b::text, array[1,2] from t union all select 1, 2, null",
            "values (1, 'a')",
        ] {
            assert_eq!(code(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_does_more_than_read_is_refused() {
        for sql in [
            "delete from orders",
            "with gone as (delete from orders returning *) select * from gone",
            "with new as (insert into a values (1) returning *) select * from new",
            "select * into copy from orders",
            "select * from orders for update",
            "select set_config('a', 'b', false)",
            "select pg_catalog.pg_read_file('/etc/passwd')",
            "select * from dblink('host=h', 'select 1') as t(a int)",
            "copy orders to program 'sh'",
            "call p()",
            "set role postgres",
            "explain analyze delete from orders",
        ] {
            assert_eq!(code(sql), Some(Code::ModelNotSelect), "{sql}");
        }
        assert_eq!(code("select 1; select 2"), Some(Code::ModelMultipleStatements));
        assert_eq!(code("select 1; drop table orders"), Some(Code::ModelMultipleStatements));
        assert_eq!(code("selec 1 from"), Some(Code::ModelSyntax));
        assert_eq!(code("  "), Some(Code::Invalid));
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(identifier("we\"ird"), "\"we\"\"ird\"");
        assert_eq!(literal("o'clock"), "'o''clock'");
    }
}
