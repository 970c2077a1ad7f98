//! The check that a model's text is one SELECT. The source's rights are the wall; this is the door that says why.

use std::ops::ControlFlow;

use freshet_core::error::{Code, Error, Result};
use sqlparser::ast::{Expr, ObjectName, Query, Select, SetExpr, Statement, Visit, Visitor};
use sqlparser::dialect::Dialect;
use sqlparser::parser::Parser;

/// Bytes of a model's statement, at most.
const SQL_LENGTH_MAX: usize = 100_000;

/// What else a source does not let its models do: a sentence for each.
pub(super) trait Refuse {
    /// Refuses a name that is read from or called, as it is written.
    fn name(name: &ObjectName) -> Option<String>;

    /// Refuses an expression, functions aside.
    fn expression(expression: &Expr) -> Option<String> {
        let _ = expression;
        None
    }
}

/// Takes one SELECT that changes and locks nothing, and that `R` does not refuse.
///
/// # Errors
/// `model.syntax`, `model.multiple_statements`, `model.not_select`; `request.invalid` for an empty or huge text.
pub(super) fn check<R: Refuse>(dialect: &dyn Dialect, sql: &str) -> Result<()> {
    if sql.trim().is_empty() || sql.len() > SQL_LENGTH_MAX || sql.contains('\0') {
        return Err(Error::invalid("/spec/sql", format!("must have 1 to {SQL_LENGTH_MAX} bytes")));
    }
    let statements = Parser::parse_sql(dialect, sql).map_err(|error| {
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
    match query.visit(&mut ReadsOnly::<R>(std::marker::PhantomData)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(told) => Err(not_select(&told)),
    }
}

pub(super) fn not_select(told: &str) -> Error {
    Error::new(Code::ModelNotSelect, told)
}

/// Breaks off at the first thing that does more than read.
struct ReadsOnly<R>(std::marker::PhantomData<R>);

impl<R: Refuse> Visitor for ReadsOnly<R> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        if !query.locks.is_empty() {
            return ControlFlow::Break("FOR UPDATE and FOR SHARE lock rows".into());
        }
        match query.body.as_ref() {
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                ControlFlow::Break("a WITH part changes rows".into())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        if select.into.is_some() {
            return ControlFlow::Break("SELECT INTO makes a table".into());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<String> {
        refused(match expression {
            Expr::Function(function) => R::name(&function.name),
            _ => R::expression(expression),
        })
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<String> {
        refused(R::name(relation))
    }
}

fn refused(told: Option<String>) -> ControlFlow<String> {
    match told {
        Some(told) => ControlFlow::Break(told),
        None => ControlFlow::Continue(()),
    }
}
