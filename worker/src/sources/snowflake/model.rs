//! The check of a model's statement. The role's rights are the wall; this check is the door that says why.

use std::ops::ControlFlow;

use freshet_core::connector::ModelSpec;
use freshet_core::error::{Error, Result};
use sqlparser::ast::{Expr, ObjectName, Visit, Visitor};
use sqlparser::dialect::SnowflakeDialect;
use sqlparser::parser::Parser;

use crate::sources::select::{self, Refuse};

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
    select::check::<SideEffects>(&SnowflakeDialect {}, sql)
}

/// System functions cancel queries, wait, and change settings; results of other statements are not for models.
struct SideEffects;

impl Refuse for SideEffects {
    fn name(name: &ObjectName) -> Option<String> {
        let last = name.0.last().map(|part| part.to_string().trim_matches('"').to_uppercase()).unwrap_or_default();
        let forbidden = last.starts_with("SYSTEM$") || last == "RESULT_SCAN" || last == "GETNEXTVAL";
        forbidden.then(|| format!("the function `{last}` is not for models"))
    }

    fn expression(expression: &Expr) -> Option<String> {
        let Expr::CompoundIdentifier(parts) = expression else { return None };
        let draws = parts.last().is_some_and(|part| part.value.eq_ignore_ascii_case("nextval"));
        draws.then(|| "NEXTVAL draws from a sequence".into())
    }
}

#[cfg(test)]
mod tests {
    use freshet_core::error::Code;

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
