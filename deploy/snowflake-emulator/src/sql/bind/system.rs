//! SYSTEM$ functions, table functions and CHANGES.

use sqlparser::ast::{self, Expr, Function, TableVersion};

use super::known::{first_string, stream_argument};
use super::{Binder, Typed, casts, changes};
use crate::sql::catalog::{Relation, Table};
use crate::sql::error::SqlError;
use crate::sql::names::{self, literal};
use crate::sql::types::{Column, Type};

impl Binder<'_> {
    pub(super) fn system_function(&mut self, name: &str, function: &Function) -> Result<Typed, SqlError> {
        let argument = || {
            first_string(function).ok_or_else(|| {
                SqlError::compilation("001015", "22023", format!("argument 1 to function {name} needs to be constant"))
            })
        };
        match name {
            "SYSTEM$STREAM_HAS_DATA" => changes::has_data(self.known, &self.context, &names::parse(&argument()?)?),
            "SYSTEM$STREAM_GET_TABLE_TIMESTAMP" => {
                changes::table_timestamp(self.known, &self.context, &names::parse(&argument()?)?)
            }
            "SYSTEM$TYPEOF" => {
                let Some(FunctionArgument::Expr(expression)) = only_argument(function) else {
                    return Err(SqlError::arguments(name, 0));
                };
                let value = self.expression(expression)?;
                Ok(Typed::solid(format!("{}::text", literal(&value.ty.sql_name())), Type::TEXT))
            }
            _ => Err(SqlError::compilation("002141", "42601", format!("Unknown user-defined function {name}"))),
        }
    }

    /// FROM TABLE(…).
    pub(super) fn table_function(&mut self, expression: &Expr) -> Result<(String, Vec<Column>), SqlError> {
        let Expr::Function(function) = expression else { return Err(SqlError::unsupported(expression)) };
        match names::parts(&function.name)?.join(".").as_str() {
            "GENERATOR" => self.generator(function),
            "SYSTEM$STREAM_BACKLOG" => {
                let name = first_string(function).ok_or_else(|| SqlError::arguments("SYSTEM$STREAM_BACKLOG", 0))?;
                self.backlog(&names::parse(&name)?)
            }
            _ => Err(SqlError::unsupported(expression)),
        }
    }

    /// Changes waiting, by transaction and kind.
    fn backlog(&mut self, parts: &[String]) -> Result<(String, Vec<Column>), SqlError> {
        let stream = changes::named_stream(self.known, &self.context, parts)?;
        let Relation::Table(table) = stream.source.as_deref().map_err(Clone::clone)? else {
            return Err(SqlError::unsupported("SYSTEM$STREAM_BACKLOG of a stream on a view"));
        };
        let sql = format!(
            "(select \"$xid\"::text::numeric as \"TABLE_VERSION\", \
             case \"$operation\" when 'I' then 'INSERT' when 'U' then 'UPDATE' else 'DELETE' end as \"DML_TYPE\", \
             count(*)::numeric as \"ROW_COUNT\" from {} where {} group by 1, 2)",
            table.log(),
            changes::changed_after(&stream.seen)
        );
        let number = Type::Fixed { precision: 38, scale: 0 };
        Ok((
            sql,
            vec![Column::new("TABLE_VERSION", number), Column::text("DML_TYPE"), Column::new("ROW_COUNT", number)],
        ))
    }

    /// `t CHANGES (INFORMATION => …) AT (…) END (…)` and `t AT (…)`.
    pub(super) fn table_version(
        &mut self,
        parts: &[String],
        version: &TableVersion,
    ) -> Result<(String, Vec<Column>), SqlError> {
        let Relation::Table(table) = self.known.get(&self.context, parts)?.clone() else {
            return Err(SqlError::unsupported("CHANGES on a view or a stream"));
        };
        if !table.tracked {
            return Err(SqlError::compilation(
                "002201",
                "42601",
                format!(
                    "Change tracking is not enabled or has been missing for the time range requested on table '{}'.",
                    table.name
                ),
            ));
        }
        match version {
            TableVersion::Changes { changes, at, end } => self.changes_between(&table, changes, at, end.as_ref()),
            other => Err(SqlError::unsupported(other)),
        }
    }

    fn changes_between(
        &mut self,
        table: &Table,
        kind: &Expr,
        at: &Expr,
        end: Option<&Expr>,
    ) -> Result<(String, Vec<Column>), SqlError> {
        let append_only = match kind.to_string().to_uppercase().replace(' ', "") {
            text if text.contains("=>APPEND_ONLY") => true,
            text if text.contains("=>DEFAULT") => false,
            _ => return Err(SqlError::unsupported(kind)),
        };
        let from = self.moment(at)?;
        let until = end.map(|end| self.moment(end)).transpose()?;
        Ok(changes::between(table, &from, until.as_deref(), append_only))
    }

    /// SQL for the snapshot at a TIMESTAMP or OFFSET, or where a STREAM stands.
    fn moment(&mut self, point: &Expr) -> Result<String, SqlError> {
        let Expr::Function(function) = point else { return Err(SqlError::unsupported(point)) };
        if let Some(named) = stream_argument(function) {
            let stream = changes::named_stream(self.known, &self.context, &names::parse(&named)?)?;
            return Ok(format!("{}::pg_snapshot", names::literal(&stream.seen)));
        }
        let (name, expression) = named_argument(function).ok_or_else(|| SqlError::unsupported(point))?;
        let value = self.expression(expression)?;
        let instant = match name.as_str() {
            "TIMESTAMP" => casts::cast(&value, Type::TimestampLtz, &self.around.zone)?,
            "OFFSET" => format!("({}::numeric / 1000000000 + {})", self.around.now_ns, value.sql),
            _ => return Err(SqlError::unsupported(point)),
        };
        Ok(format!("emulator.seen_at(({instant}) * 1000000000)"))
    }
}

enum FunctionArgument<'f> {
    Expr(&'f Expr),
}

fn only_argument(function: &Function) -> Option<FunctionArgument<'_>> {
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expression))] => Some(FunctionArgument::Expr(expression)),
        _ => None,
    }
}

fn named_argument(function: &Function) -> Option<(String, &Expr)> {
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [ast::FunctionArg::Named { name, arg: ast::FunctionArgExpr::Expr(expression), .. }] => {
            Some((name.value.to_uppercase(), expression))
        }
        [ast::FunctionArg::ExprNamed { name, arg: ast::FunctionArgExpr::Expr(expression), .. }] => {
            Some((name.to_string().to_uppercase(), expression))
        }
        _ => None,
    }
}
