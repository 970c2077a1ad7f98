//! The check of a model's statement. The role's rights are the wall; this check is the door that says why.

use std::ops::ControlFlow;

use freshet_core::connector::ModelSpec;
use freshet_core::error::{Code, Error, Result};
use sqlparser::ast::{Expr, ObjectName, Query, SetExpr, Statement, Visit, Visitor};
use sqlparser::dialect::SnowflakeDialect;
use sqlparser::parser::Parser;

/// Bytes of a model's statement, at most.
const SQL_LENGTH_MAX: usize = 100_000;
/// Characters of a name, at most; Snowflake's own limit.
const NAME_LENGTH_MAX: usize = 255;

/// Checks a model before it is saved.
///
/// # Errors
/// `model.syntax`, `model.multiple_statements`, `model.not_select`; `request.invalid` for an empty or huge text.
pub(super) fn validate_model(model: &ModelSpec) -> Result<()> {
    match model {
        ModelSpec::Table { schema, table } => {
            check_name("/spec/schema", schema)?;
            check_name("/spec/table", table)
        }
        ModelSpec::Stream { schema, stream } => {
            check_name("/spec/schema", schema)?;
            check_name("/spec/stream", stream)
        }
        ModelSpec::Sql { sql } => check_select(sql),
    }
}

/// Refuses what cannot be the name of anything.
pub(super) fn check_name(pointer: &str, name: &str) -> Result<()> {
    let length = name.chars().count();
    if length == 0 || length > NAME_LENGTH_MAX || name.contains('\0') {
        return Err(Error::invalid(pointer, format!("must have 1 to {NAME_LENGTH_MAX} characters")));
    }
    Ok(())
}

/// The names that a statement reads from, as it writes them; each once. Those that it defines itself are among them.
pub(super) fn relations(sql: &str) -> Vec<String> {
    let Ok(statements) = Parser::parse_sql(&SnowflakeDialect {}, sql) else { return Vec::new() };
    let mut named = Relations::default();
    let _ = statements.visit(&mut named);
    named.0.sort_unstable();
    named.0.dedup();
    named.0
}

#[derive(Default)]
struct Relations(Vec<String>);

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.0.push(relation.to_string());
        ControlFlow::Continue(())
    }
}

fn check_select(sql: &str) -> Result<()> {
    if sql.trim().is_empty() || sql.len() > SQL_LENGTH_MAX || sql.contains('\0') {
        return Err(Error::invalid("/spec/sql", format!("must have 1 to {SQL_LENGTH_MAX} bytes")));
    }
    let statements = Parser::parse_sql(&SnowflakeDialect {}, sql).map_err(|error| {
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
            Expr::Function(function) => refuse(&function.name),
            Expr::CompoundIdentifier(parts)
                if parts.last().is_some_and(|part| part.value.eq_ignore_ascii_case("nextval")) =>
            {
                ControlFlow::Break("NEXTVAL draws from a sequence".into())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<String> {
        refuse(relation)
    }
}

/// System functions cancel queries, wait, and change settings; results of other statements are not for models.
fn refuse(name: &ObjectName) -> ControlFlow<String> {
    let last = name.0.last().map(|part| part.to_string().trim_matches('"').to_uppercase()).unwrap_or_default();
    if last.starts_with("SYSTEM$") || last == "RESULT_SCAN" || last == "GETNEXTVAL" {
        ControlFlow::Break(format!("the function `{last}` is not for models"))
    } else {
        ControlFlow::Continue(())
    }
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
            "select $1:a::string, b:c[0].d from shop.public.orders qualify row_number() over (order by 1) = 1;",
            "with recent as (select * exclude (a) from orders) select * from recent -- all",
            "select f.value from orders, lateral flatten(input => tags) f",
            "select 1 as a union all select 2",
        ] {
            assert_eq!(code(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_statement_names_what_it_reads_from() {
        let sql = "with recent as (select * from shop.\"Public\".s) select * from recent r join orders o using (id) \
                   where id in (select id from orders union select id from t2)";

        assert_eq!(relations(sql), ["orders", "recent", "shop.\"Public\".s", "t2"]);
    }

    #[test]
    fn what_does_more_than_read_is_refused() {
        for sql in [
            "delete from orders",
            "create table a as select 1",
            "insert into a select 1",
            "call p()",
            "use role accountadmin",
            "select system$cancel_query('x')",
            "select * from table(result_scan('x'))",
            "select seq.nextval",
            "drop table orders",
        ] {
            assert_eq!(code(sql), Some(Code::ModelNotSelect), "{sql}");
        }
        assert_eq!(code("select 1; select 2"), Some(Code::ModelMultipleStatements));
        assert_eq!(code("selec 1 from"), Some(Code::ModelSyntax));
        assert_eq!(code("  "), Some(Code::Invalid));
    }
}
