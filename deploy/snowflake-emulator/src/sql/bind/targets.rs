//! The tables of UPDATE, DELETE and MERGE: what they change and what they read beside it.

use sqlparser::ast::{self, Expr, TableAlias, TableWithJoins};

use super::{Binder, Scope, ScopeColumn, Source, Typed};
use crate::sql::catalog::Table;
use crate::sql::error::SqlError;
use crate::sql::names::{fold, quoted};
use crate::sql::types::Type;

impl Binder<'_> {
    /// Opens a scope with the table to be changed; returns `snow.t1 as r1`.
    ///
    /// # Errors
    /// 001003 for an alias with columns.
    pub fn open_target(&mut self, table: &Table, alias: Option<&TableAlias>) -> Result<String, SqlError> {
        if alias.is_some_and(|alias| !alias.columns.is_empty()) {
            return Err(SqlError::unsupported("alias with columns"));
        }
        let made = self.alias();
        let name = &table.name;
        let path = alias.map_or_else(
            || vec![name.database.clone(), name.schema.clone(), name.name.clone()],
            |alias| vec![fold(&alias.name)],
        );
        let columns = table
            .columns
            .iter()
            .map(|column| ScopeColumn {
                name: column.name.clone(),
                value: Typed {
                    nullable: column.nullable,
                    ..Typed::new(format!("{made}.{}", quoted(&column.name)), column.ty)
                },
            })
            .collect();
        let source = Source { path, columns, rid: Some(format!("{made}.\"$rid\"")) };
        self.scopes.push(Scope { sources: vec![source], ..Scope::default() });
        Ok(format!("{} as {made}", table.data()))
    }

    /// The hidden row id of the table to be changed.
    pub fn target_rid(&self) -> String {
        self.scopes
            .first()
            .and_then(|scope| scope.sources.first())
            .and_then(|source| source.rid.clone())
            .unwrap_or_default()
    }

    /// Binds the tables read beside it.
    ///
    /// # Errors
    /// As for FROM.
    pub fn tables(&mut self, tables: &[TableWithJoins]) -> Result<String, SqlError> {
        let mut written = Vec::new();
        for table in tables {
            written.push(self.table_with_joins(table)?);
        }
        Ok(written.join(", "))
    }

    /// Binds a condition.
    ///
    /// # Errors
    /// As for an expression.
    pub fn where_condition(&mut self, expression: &Expr) -> Result<String, SqlError> {
        self.condition(expression)
    }

    /// Binds a value for a column of that type.
    ///
    /// # Errors
    /// As for an expression.
    pub fn value_as(&mut self, expression: &ast::Expr, ty: Type) -> Result<String, SqlError> {
        self.expression_as(expression, ty)
    }
}
