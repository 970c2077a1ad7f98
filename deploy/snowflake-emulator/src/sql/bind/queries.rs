//! SELECT, set operations, CTEs, joins, QUALIFY.

use sqlparser::ast::{
    self, Distinct, Expr, GroupByExpr, Ident, JoinConstraint, JoinOperator, LimitClause, OrderByKind, Query, Select,
    SelectItem, SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier, TableAlias, TableFactor,
    TableWithJoins,
};

use super::{Binder, Bound, Scope, ScopeColumn, Source, Typed, casts, changes};
use crate::sql::catalog::Relation;
use crate::sql::error::SqlError;
use crate::sql::names::{self, fold, quoted};
use crate::sql::types::{Column, Type};

/// How deep queries may nest; deeper ones are refused before the stack ends.
const DEPTH_MAX: usize = 60;

/// A column of the SELECT list.
struct Item {
    name: String,
    value: Typed,
}

impl Binder<'_> {
    /// Binds a query; its columns are called c1, c2, … and, when asked for, `rid`.
    ///
    /// # Errors
    /// Snowflake's error for what does not exist or is not supported.
    pub fn query(&mut self, query: &Query) -> Result<Bound, SqlError> {
        if self.depth >= DEPTH_MAX {
            return Err(SqlError::syntax("unexpected nesting: too deep"));
        }
        refuse_query_extras(query)?;
        self.depth += 1;
        let before = self.ctes.len();
        let bound = self.query_with_ctes(query);
        self.ctes.truncate(before);
        self.depth -= 1;
        bound
    }

    fn query_with_ctes(&mut self, query: &Query) -> Result<Bound, SqlError> {
        let with = match &query.with {
            Some(with) if with.recursive && with.cte_tables.iter().any(is_recursive) => {
                return Err(SqlError::unsupported("recursive CTE"));
            }
            Some(with) => self.ctes(&with.cte_tables)?,
            None => String::new(),
        };
        let bound = match query.body.as_ref() {
            SetExpr::Select(select) => self.select(select, query)?,
            body => self.ordered(body, query)?,
        };
        Ok(Bound { sql: format!("{with}{}", bound.sql), columns: bound.columns })
    }

    fn ctes(&mut self, ctes: &[ast::Cte]) -> Result<String, SqlError> {
        let mut written = Vec::new();
        for cte in ctes {
            // A CTE's rows have no identity of their own.
            let rid = std::mem::replace(&mut self.with_rid, false);
            let bound = self.query(&cte.query);
            self.with_rid = rid;
            let mut bound = bound?;
            rename(&mut bound.columns, &cte.alias)?;
            let name = self.alias();
            written.push(format!("{name} as ({})", bound.sql));
            self.ctes.push((fold(&cte.alias.name), name, bound.columns));
        }
        Ok(format!("with {} ", written.join(", ")))
    }

    /// A set operation, VALUES or a query in brackets, with its ORDER BY over the output.
    fn ordered(&mut self, body: &SetExpr, query: &Query) -> Result<Bound, SqlError> {
        let bound = self.body(body)?;
        let limit = self.limit(query)?;
        let Some(order) = &query.order_by else {
            return Ok(Bound { sql: format!("{}{limit}", bound.sql), ..bound });
        };
        let alias = self.alias();
        self.scopes.push(Scope { sources: vec![derived(&alias, &[], &bound.columns)], ..Scope::default() });
        let keys = self.output_order(order, &bound.columns);
        self.scopes.pop();
        Ok(Bound { sql: format!("select * from ({}) {alias} order by {}{limit}", bound.sql, keys?), ..bound })
    }

    fn body(&mut self, body: &SetExpr) -> Result<Bound, SqlError> {
        match body {
            SetExpr::Select(select) => self.select(select, &bare(body)),
            SetExpr::Query(query) => self.query(query).map(|bound| Bound { sql: format!("({})", bound.sql), ..bound }),
            SetExpr::Values(values) => self.values(values),
            SetExpr::SetOperation { op, set_quantifier, left, right } => {
                self.set_operation(*op, *set_quantifier, left, right)
            }
            other => Err(SqlError::unsupported(other)),
        }
    }

    fn set_operation(
        &mut self,
        operator: SetOperator,
        quantifier: SetQuantifier,
        left: &SetExpr,
        right: &SetExpr,
    ) -> Result<Bound, SqlError> {
        let all = matches!(quantifier, SetQuantifier::All);
        let word = match operator {
            SetOperator::Union => "union",
            SetOperator::Intersect => "intersect",
            SetOperator::Except | SetOperator::Minus => "except",
        };
        if self.with_rid && !(all && operator == SetOperator::Union) {
            return Err(not_for_streams(word));
        }
        let (left, right) = (self.body(left)?, self.body(right)?);
        if left.columns.len() != right.columns.len() {
            return Err(SqlError::compilation(
                "001789",
                "42601",
                format!(
                    "invalid number of result columns for set operator input branches, expected {}, got {}",
                    left.columns.len(),
                    right.columns.len()
                ),
            ));
        }
        let columns = unified(&left.columns, &right.columns);
        let (a, b) = (self.as_columns(&left, &columns, "L")?, self.as_columns(&right, &columns, "R")?);
        Ok(Bound { sql: format!("({a}) {word}{} ({b})", if all { " all" } else { "" }), columns })
    }

    /// Selects a bound query's columns converted to other types.
    fn as_columns(&mut self, bound: &Bound, columns: &[Column], branch: &str) -> Result<String, SqlError> {
        let alias = self.alias();
        let mut items = Vec::new();
        for (at, (from, to)) in bound.columns.iter().zip(columns).enumerate() {
            let value = Typed::new(format!("{alias}.c{}", at + 1), from.ty);
            items.push(format!("{} as c{}", casts::cast(&value, to.ty, &self.around.zone)?, at + 1));
        }
        if self.with_rid {
            items.push(format!("'{branch}' || {alias}.rid as rid"));
        }
        Ok(format!("select {} from ({}) {alias}", items.join(", "), bound.sql))
    }

    fn values(&mut self, values: &ast::Values) -> Result<Bound, SqlError> {
        let mut rows = Vec::new();
        for row in &values.rows {
            rows.push(row.content.iter().map(|cell| self.expression(cell)).collect::<Result<Vec<_>, _>>()?);
        }
        let width = rows.first().map_or(0, Vec::len);
        if width == 0 || rows.iter().any(|row| row.len() != width) {
            return Err(SqlError::compilation("001789", "42601", "rows of VALUES have different lengths"));
        }
        let mut columns = Vec::new();
        for at in 0..width {
            let first = rows[0][at].clone();
            let all = rows.iter().skip(1).fold(first, |so_far, row| {
                let ty = casts::common(&so_far, &row[at]);
                Typed {
                    is_null: so_far.is_null && row[at].is_null,
                    nullable: so_far.nullable || row[at].nullable,
                    ty,
                    ..so_far
                }
            });
            columns.push(Column { name: format!("COLUMN{}", at + 1), ty: all.ty, nullable: all.nullable });
        }
        let mut lines = Vec::new();
        for row in &rows {
            let cells = row.iter().zip(&columns).map(|(cell, column)| casts::cast(cell, column.ty, &self.around.zone));
            lines.push(format!("({})", cells.collect::<Result<Vec<_>, _>>()?.join(", ")));
        }
        let (alias, list) = (self.alias(), (1..=width).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", "));
        Ok(Bound { sql: format!("select * from (values {}) {alias}({list})", lines.join(", ")), columns })
    }

    fn select(&mut self, select: &Select, query: &Query) -> Result<Bound, SqlError> {
        refuse_select_extras(select)?;
        self.scopes.push(Scope::default());
        let bound = self.select_in_scope(select, query);
        self.scopes.pop();
        bound
    }

    fn select_in_scope(&mut self, select: &Select, query: &Query) -> Result<Bound, SqlError> {
        let from = self.from(&select.from)?;
        self.scope().aliases = aliases(select);
        let items = self.items(&select.projection)?;
        let rid = self.rid(select)?;
        let mut sql = String::from("select ");
        match &select.distinct {
            Some(Distinct::Distinct) => sql.push_str("distinct "),
            None | Some(Distinct::All) => {}
            Some(Distinct::On(_)) => return Err(SqlError::unsupported("DISTINCT ON")),
        }
        let mut list: Vec<String> =
            items.iter().enumerate().map(|(at, item)| format!("{} as c{}", item.value.sql, at + 1)).collect();
        list.extend(rid.map(|rid| format!("{rid} as rid")));
        if let Some(qualify) = &select.qualify {
            list.push(format!("({}) as qualified", self.condition(qualify)?));
        }
        sql.push_str(&list.join(", "));
        sql.push_str(&from);
        if let Some(condition) = &select.selection {
            sql.push_str(&format!(" where {}", self.condition(condition)?));
        }
        sql.push_str(&self.group_by(&select.group_by, select)?);
        if let Some(condition) = &select.having {
            sql.push_str(&format!(" having {}", self.condition(condition)?));
        }
        self.finish(select, query, sql, &items)
    }

    /// Adds QUALIFY, ORDER BY and LIMIT.
    fn finish(&mut self, select: &Select, query: &Query, mut sql: String, items: &[Item]) -> Result<Bound, SqlError> {
        let columns: Vec<Column> = items
            .iter()
            .map(|item| Column { name: item.name.clone(), ty: item.value.ty, nullable: item.value.nullable })
            .collect();
        let list = (1..=columns.len()).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
        let qualified = select.qualify.is_some();
        if qualified {
            let list = if self.with_rid { format!("{list}, rid") } else { list };
            let alias = self.alias();
            sql = format!("select {list} from ({sql}) {alias} where qualified");
        }
        if let Some(order) = &query.order_by {
            let keys = if qualified || select.distinct.is_some() {
                let alias = self.alias();
                sql = format!("select * from ({sql}) {alias}");
                self.scopes.push(Scope { sources: vec![derived(&alias, &[], &columns)], ..Scope::default() });
                let keys = self.output_order(order, &columns);
                self.scopes.pop();
                keys?
            } else {
                self.order(order, items, &columns)?
            };
            sql.push_str(&format!(" order by {keys}"));
        }
        sql.push_str(&self.limit(query)?);
        if let Some(ast::Top { quantity: Some(quantity), percent: false, with_ties: false }) = &select.top {
            let count = match quantity {
                ast::TopQuantity::Constant(count) => count.to_string(),
                ast::TopQuantity::Expr(expression) => self.expression(expression)?.sql,
            };
            sql.push_str(&format!(" limit {count}"));
        }
        Ok(Bound { sql, columns })
    }

    /// The identity of a SELECT's row: those of its tables' rows together.
    fn rid(&mut self, select: &Select) -> Result<Option<String>, SqlError> {
        if !self.with_rid {
            return Ok(None);
        }
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        if grouped || select.distinct.is_some() || select.qualify.is_some() {
            return Err(not_for_streams("GROUP BY, DISTINCT or QUALIFY"));
        }
        let parts: Option<Vec<String>> =
            self.scope().sources.iter().map(|source| source.rid.as_ref().map(|rid| format!("({rid})::text"))).collect();
        match parts {
            Some(parts) if !parts.is_empty() => Ok(Some(parts.join(" || ',' || "))),
            _ => Err(not_for_streams("this FROM")),
        }
    }

    fn from(&mut self, tables: &[TableWithJoins]) -> Result<String, SqlError> {
        let mut written = Vec::new();
        for table in tables {
            written.push(self.table_with_joins(table)?);
        }
        Ok(if written.is_empty() { String::new() } else { format!(" from {}", written.join(", ")) })
    }

    /// Binds a table and its joins into the open scope.
    pub(crate) fn table_with_joins(&mut self, table: &TableWithJoins) -> Result<String, SqlError> {
        let first = self.scope().sources.len();
        let mut sql = self.factor(&table.relation)?;
        for join in &table.joins {
            let before = self.scope().sources.len();
            let right = self.factor(&join.relation)?;
            let (word, constraint) = join_word(&join.join_operator)?;
            if self.with_rid && !matches!(word, "join" | "cross join") {
                return Err(not_for_streams("outer join"));
            }
            let condition = self.join_condition(constraint, first, before)?;
            let missing = match word {
                "left join" => before..usize::MAX,
                "right join" => first..before,
                "full join" => first..usize::MAX,
                _ => 0..0,
            };
            let sources = self.scope().sources.iter_mut().enumerate().filter(|(at, _)| missing.contains(at));
            for column in sources.flat_map(|(_, source)| &mut source.columns) {
                column.value.nullable = true;
            }
            sql = match condition {
                Some(condition) => format!("{sql} {word} {right} on {condition}"),
                None => format!("{sql} {} {right}", if word == "join" { "cross join" } else { word }),
            };
        }
        Ok(sql)
    }

    fn join_condition(
        &mut self,
        constraint: &JoinConstraint,
        first: usize,
        before: usize,
    ) -> Result<Option<String>, SqlError> {
        match constraint {
            JoinConstraint::On(condition) => Ok(Some(self.condition(condition)?)),
            JoinConstraint::None => Ok(None),
            JoinConstraint::Using(columns) => {
                let names = columns.iter().map(|name| names::parts(name).map(|parts| parts.concat()));
                let names = names.collect::<Result<Vec<_>, _>>()?;
                self.merge(&names, first, before)
            }
            JoinConstraint::Natural => {
                let scope = self.scope();
                let right: Vec<String> =
                    scope.sources[before..].iter().flat_map(|source| &source.columns).map(|c| c.name.clone()).collect();
                let names: Vec<String> = scope.sources[first..before]
                    .iter()
                    .flat_map(|source| &source.columns)
                    .map(|column| column.name.clone())
                    .filter(|name| right.contains(name))
                    .collect();
                self.merge(&names, first, before)
            }
        }
    }

    fn merge(&mut self, names: &[String], first: usize, before: usize) -> Result<Option<String>, SqlError> {
        let mut conditions = Vec::new();
        for name in names {
            let find = |sources: &[Source]| {
                sources
                    .iter()
                    .flat_map(|source| &source.columns)
                    .find(|column| column.name == *name)
                    .map(|c| c.value.clone())
            };
            let scope = self.scope();
            let (left, right) = (find(&scope.sources[first..before]), find(&scope.sources[before..]));
            let (Some(left), Some(right)) = (left, right) else { return Err(SqlError::identifier(name)) };
            scope.merged.push(name.clone());
            conditions.push(self.compare(&left, "=", &right)?);
        }
        Ok(Some(if conditions.is_empty() { "true".into() } else { conditions.join(" and ") }))
    }

    fn factor(&mut self, factor: &TableFactor) -> Result<String, SqlError> {
        match factor {
            TableFactor::Table { name, alias, args: None, version, sample: None, .. } => {
                self.named_table(name, alias.as_ref(), version.as_ref())
            }
            TableFactor::Table { name, alias, args: Some(args), .. } if names::parts(name)? == ["VALUES"] => {
                Err(SqlError::unsupported(format!("{name} with {} rows {alias:?}", args.args.len())))
            }
            TableFactor::Derived { lateral: false, subquery, alias, sample: None } => {
                let scopes = std::mem::take(&mut self.scopes);
                let bound = self.query(subquery);
                self.scopes = scopes;
                self.derived_table(bound?, alias.as_ref())
            }
            TableFactor::TableFunction { expr, alias } => {
                let (sql, columns) = self.table_function(expr)?;
                self.inline_table(&sql, &columns, None, alias.as_ref(), &[])
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                Ok(format!("({})", self.table_with_joins(table_with_joins)?))
            }
            other => Err(SqlError::unsupported(other)),
        }
    }

    fn derived_table(&mut self, mut bound: Bound, alias: Option<&TableAlias>) -> Result<String, SqlError> {
        if let Some(alias) = alias {
            rename(&mut bound.columns, alias)?;
        }
        let made = self.alias();
        let path: Vec<String> = alias.map(|alias| fold(&alias.name)).into_iter().collect();
        let mut source = derived(&made, &path, &bound.columns);
        source.rid = self.with_rid.then(|| format!("{made}.rid"));
        self.scope().sources.push(source);
        Ok(format!("({}) {made}", bound.sql))
    }

    fn named_table(
        &mut self,
        name: &ast::ObjectName,
        alias: Option<&TableAlias>,
        version: Option<&ast::TableVersion>,
    ) -> Result<String, SqlError> {
        let parts = names::parts(name)?;
        if let [only] = parts.as_slice()
            && let Some((_, made, columns)) = self.ctes.iter().rev().find(|(cte, _, _)| cte == only).cloned()
        {
            if self.with_rid {
                return Err(not_for_streams("CTE"));
            }
            let bound = Bound { sql: format!("select * from {made}"), columns };
            let named = alias.cloned().unwrap_or_else(|| plain_alias(only));
            return self.derived_table(bound, Some(&named));
        }
        if let Some((sql, columns)) = self.schema_view(&parts)? {
            return self.inline_table(&sql, &columns, None, alias, &parts);
        }
        if let Some(version) = version {
            let (sql, columns) = self.table_version(&parts, version)?;
            return self.inline_table(&sql, &columns, None, alias, &parts);
        }
        let relation = self.known.get(&self.context, &parts)?.clone();
        let full = self.context.complete(&parts)?;
        let path = vec![full.database, full.schema, full.name];
        match relation {
            Relation::Table(table) => {
                let sql = match &self.as_of {
                    Some(at) => changes::rows_at(&table, at),
                    None => table.data(),
                };
                self.inline_table(&sql, &table.columns, Some("$rid"), alias, &path)
            }
            Relation::Stream(stream) => {
                if self.as_of.is_some() || self.with_rid {
                    return Err(not_for_streams("a stream"));
                }
                let (sql, columns) = changes::stream_rows(self, &stream)?;
                self.inline_table(&format!("({sql})"), &columns, None, alias, &path)
            }
            Relation::View(view) => {
                let context = std::mem::replace(&mut self.context, view.context.clone());
                let (scopes, ctes) = (std::mem::take(&mut self.scopes), std::mem::take(&mut self.ctes));
                let bound = self.query(&view.query);
                (self.scopes, self.ctes, self.context) = (scopes, ctes, context);
                let mut bound = bound?;
                for (column, name) in bound.columns.iter_mut().zip(&view.columns) {
                    column.name.clone_from(name);
                }
                let named = alias.cloned();
                let made = self.derived_table(bound, named.as_ref())?;
                if alias.is_none()
                    && let Some(last) = self.scope().sources.last_mut()
                {
                    last.path = path;
                }
                Ok(made)
            }
        }
    }

    /// Takes a table whose Postgres columns have Snowflake's names into the scope.
    fn inline_table(
        &mut self,
        sql: &str,
        columns: &[Column],
        rid: Option<&str>,
        alias: Option<&TableAlias>,
        path: &[String],
    ) -> Result<String, SqlError> {
        let made = self.alias();
        let mut shown = columns.to_vec();
        if let Some(alias) = alias {
            rename(&mut shown, alias)?;
        }
        let source = Source {
            path: alias.map_or_else(|| path.to_vec(), |alias| vec![fold(&alias.name)]),
            columns: columns
                .iter()
                .zip(&shown)
                .map(|(column, shown)| ScopeColumn {
                    name: shown.name.clone(),
                    value: Typed {
                        nullable: column.nullable,
                        ..Typed::new(format!("{made}.{}", quoted(&column.name)), column.ty)
                    },
                })
                .collect(),
            rid: rid.map(|rid| format!("{made}.{}", quoted(rid))),
        };
        self.scope().sources.push(source);
        Ok(format!("{sql} {made}"))
    }

    fn items(&mut self, projection: &[SelectItem]) -> Result<Vec<Item>, SqlError> {
        let mut items = Vec::new();
        for item in projection {
            match item {
                SelectItem::UnnamedExpr(expression) => {
                    items.push(Item { name: column_name(expression), value: self.expression(expression)? });
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    items.push(Item { name: fold(alias), value: self.expression(expr)? });
                }
                SelectItem::Wildcard(options) => items.extend(self.wildcard(&[], options)?),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                    items.extend(self.wildcard(&names::parts(name)?, options)?);
                }
                other => return Err(SqlError::unsupported(other)),
            }
        }
        Ok(items)
    }

    fn wildcard(&mut self, path: &[String], options: &ast::WildcardAdditionalOptions) -> Result<Vec<Item>, SqlError> {
        let excluded = excluded(options)?;
        Ok(self
            .visible_columns(path)?
            .into_iter()
            .filter(|column| !excluded.contains(&column.name))
            .map(|column| Item { name: renamed(options, &column.name), value: column.value })
            .collect())
    }

    /// The columns that `*` or `path.*` stands for.
    pub(super) fn visible_columns(&mut self, path: &[String]) -> Result<Vec<ScopeColumn>, SqlError> {
        let scope = self.scope().clone();
        let mut found: Vec<ScopeColumn> = Vec::new();
        let mut any = false;
        for source in scope.sources.iter().filter(|source| source.answers_to(path)) {
            any = true;
            for column in &source.columns {
                let merged = path.is_empty() && scope.merged.contains(&column.name);
                if !(merged && found.iter().any(|seen| seen.name == column.name)) {
                    found.push(column.clone());
                }
            }
        }
        if any { Ok(found) } else { Err(SqlError::identifier(&path.join("."))) }
    }

    fn group_by(&mut self, group: &GroupByExpr, select: &Select) -> Result<String, SqlError> {
        let keys = match group {
            GroupByExpr::Expressions(keys, modifiers) if modifiers.is_empty() => keys,
            GroupByExpr::Expressions(..) | GroupByExpr::All(_) => return Err(SqlError::unsupported("GROUP BY ALL")),
        };
        let mut written = Vec::new();
        for key in keys {
            written.push(match ordinal(key) {
                Some(at) => match select.projection.get(at.wrapping_sub(1)) {
                    Some(SelectItem::UnnamedExpr(expression) | SelectItem::ExprWithAlias { expr: expression, .. }) => {
                        self.expression(expression)?.sql
                    }
                    _ => {
                        return Err(SqlError::compilation(
                            "000979",
                            "42601",
                            "GROUP BY position is not in the select list",
                        ));
                    }
                },
                None => self.expression(key)?.sql,
            });
        }
        Ok(if written.is_empty() { String::new() } else { format!(" group by {}", written.join(", ")) })
    }

    /// ORDER BY of a plain SELECT: output names first, then any expression over its tables.
    fn order(&mut self, order: &ast::OrderBy, items: &[Item], columns: &[Column]) -> Result<String, SqlError> {
        self.order_keys(order, |binder, expression| match output_position(expression, columns) {
            // Postgres takes an output name only alone, and these two are sorted by an expression.
            Some(at) if matches!(columns[at].ty, Type::Text { .. } | Type::TimestampTz) => Ok(items[at].value.clone()),
            Some(at) => Ok(Typed::new(format!("c{}", at + 1), columns[at].ty)),
            None => binder.expression(expression),
        })
    }

    /// ORDER BY where only the output is in reach.
    fn output_order(&mut self, order: &ast::OrderBy, columns: &[Column]) -> Result<String, SqlError> {
        self.order_keys(order, |binder, expression| match ordinal(expression) {
            Some(at) if at >= 1 && at <= columns.len() => Ok(Typed::new(format!("c{at}"), columns[at - 1].ty)),
            _ => binder.expression(expression),
        })
    }

    fn order_keys(
        &mut self,
        order: &ast::OrderBy,
        bind: impl Fn(&mut Self, &Expr) -> Result<Typed, SqlError>,
    ) -> Result<String, SqlError> {
        let OrderByKind::Expressions(keys) = &order.kind else { return Err(SqlError::unsupported("ORDER BY ALL")) };
        let mut written = Vec::new();
        for key in keys {
            let value = bind(self, &key.expr)?;
            written.push(format!("{}{}", sort_key(&value), direction(&key.options)));
        }
        Ok(written.join(", "))
    }

    fn limit(&mut self, query: &Query) -> Result<String, SqlError> {
        let mut sql = String::new();
        if let Some(clause) = &query.limit_clause {
            let (limit, offset) = match clause {
                LimitClause::LimitOffset { limit, offset, limit_by } if limit_by.is_empty() => {
                    (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
                }
                LimitClause::LimitOffset { .. } | LimitClause::OffsetCommaLimit { .. } => {
                    return Err(SqlError::unsupported("LIMIT"));
                }
            };
            for (word, expression) in [("limit", limit), ("offset", offset)] {
                if let Some(expression) = expression {
                    sql.push_str(&format!(" {word} {}", self.expression(expression)?.sql));
                }
            }
        }
        if let Some(ast::Fetch { quantity: Some(quantity), percent: false, with_ties: false }) = &query.fetch {
            sql.push_str(&format!(" limit {}", self.expression(quantity)?.sql));
        }
        Ok(sql)
    }
}

/// A Postgres expression to sort by: texts in the order of their bytes, times with zones by instant.
pub(super) fn sort_key(value: &Typed) -> String {
    match value.ty {
        Type::Text { .. } => format!("({}) collate \"C\"", value.sql),
        Type::TimestampTz => format!("({}).utc", value.sql),
        _ => value.sql.clone(),
    }
}

/// ` desc nulls last` and the like; NULL is Snowflake's greatest value, as it is Postgres's.
pub(super) fn direction(options: &ast::OrderByOptions) -> String {
    let mut written = String::new();
    if options.sort == Some(ast::OrderBySort::Desc) {
        written.push_str(" desc");
    }
    match options.nulls_first {
        Some(true) => written.push_str(" nulls first"),
        Some(false) => written.push_str(" nulls last"),
        None => {}
    }
    written
}

fn derived(made: &str, path: &[String], columns: &[Column]) -> Source {
    Source {
        path: path.to_vec(),
        columns: columns
            .iter()
            .enumerate()
            .map(|(at, column)| ScopeColumn {
                name: column.name.clone(),
                value: Typed { nullable: column.nullable, ..Typed::new(format!("{made}.c{}", at + 1), column.ty) },
            })
            .collect(),
        rid: None,
    }
}

fn rename(columns: &mut [Column], alias: &TableAlias) -> Result<(), SqlError> {
    if !alias.columns.is_empty() && alias.columns.len() != columns.len() {
        return Err(SqlError::compilation("002024", "42601", "alias has a different number of columns"));
    }
    for (column, given) in columns.iter_mut().zip(&alias.columns) {
        column.name = fold(&given.name);
    }
    Ok(())
}

fn plain_alias(name: &str) -> TableAlias {
    TableAlias { explicit: false, name: Ident::with_quote('"', name), columns: Vec::new(), at: None }
}

fn unified(left: &[Column], right: &[Column]) -> Vec<Column> {
    left.iter()
        .zip(right)
        .map(|(a, b)| Column {
            name: a.name.clone(),
            ty: casts::common(&Typed::new("", a.ty), &Typed::new("", b.ty)),
            nullable: a.nullable || b.nullable,
        })
        .collect()
}

fn join_word(operator: &JoinOperator) -> Result<(&'static str, &JoinConstraint), SqlError> {
    Ok(match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => ("join", constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => ("left join", constraint),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => ("right join", constraint),
        JoinOperator::FullOuter(constraint) => ("full join", constraint),
        JoinOperator::CrossJoin(constraint) => ("cross join", constraint),
        other => return Err(SqlError::unsupported(format!("{other:?}"))),
    })
}

fn aliases(select: &Select) -> Vec<(String, Expr)> {
    select
        .projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } => Some((fold(alias), expr.clone())),
            _ => None,
        })
        .collect()
}

/// What Snowflake calls a column without an alias: its name, or the expression's text in upper case.
fn column_name(expression: &Expr) -> String {
    match expression {
        Expr::Identifier(ident) => fold(ident),
        Expr::CompoundIdentifier(idents) => idents.last().map(fold).unwrap_or_default(),
        other => other.to_string().to_uppercase(),
    }
}

/// The position an expression names in ORDER BY or GROUP BY, 1-based.
fn ordinal(expression: &Expr) -> Option<usize> {
    match expression {
        Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, _) => digits.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

fn output_position(expression: &Expr, columns: &[Column]) -> Option<usize> {
    if let Some(at) = ordinal(expression) {
        return (at >= 1 && at <= columns.len()).then(|| at - 1);
    }
    match expression {
        Expr::Identifier(ident) => columns.iter().position(|column| column.name == fold(ident)),
        _ => None,
    }
}

fn excluded(options: &ast::WildcardAdditionalOptions) -> Result<Vec<String>, SqlError> {
    if options.opt_ilike.is_some() || options.opt_except.is_some() || options.opt_replace.is_some() {
        return Err(SqlError::unsupported("* with options"));
    }
    Ok(match &options.opt_exclude {
        None => Vec::new(),
        Some(ast::ExcludeSelectItem::Single(name)) => vec![names::parts(name)?.concat()],
        Some(ast::ExcludeSelectItem::Multiple(list)) => {
            list.iter().map(|name| names::parts(name).map(|parts| parts.concat())).collect::<Result<_, _>>()?
        }
    })
}

fn renamed(options: &ast::WildcardAdditionalOptions, name: &str) -> String {
    let list = match &options.opt_rename {
        None => return name.to_owned(),
        Some(ast::RenameSelectItem::Single(one)) => std::slice::from_ref(one),
        Some(ast::RenameSelectItem::Multiple(list)) => list.as_slice(),
    };
    list.iter().find(|pair| fold(&pair.ident) == name).map_or_else(|| name.to_owned(), |pair| fold(&pair.alias))
}

fn is_recursive(cte: &ast::Cte) -> bool {
    let own = fold(&cte.alias.name);
    let mut found = false;
    let _ = ast::visit_relations(cte.query.as_ref(), |name| {
        found |= names::parts(name).is_ok_and(|parts| parts == [own.clone()]);
        std::ops::ControlFlow::<()>::Continue(())
    });
    found
}

/// A query around a SELECT that has no ORDER BY or LIMIT of its own.
fn bare(body: &SetExpr) -> Query {
    Query {
        with: None,
        body: Box::new(body.clone()),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

fn refuse_query_extras(query: &Query) -> Result<(), SqlError> {
    let extra = !query.locks.is_empty() || query.for_clause.is_some() || query.settings.is_some();
    if extra || query.format_clause.is_some() || !query.pipe_operators.is_empty() {
        return Err(SqlError::unsupported(query));
    }
    Ok(())
}

fn refuse_select_extras(select: &Select) -> Result<(), SqlError> {
    let hive = !select.lateral_views.is_empty() || !select.cluster_by.is_empty() || !select.distribute_by.is_empty();
    let other = select.into.is_some() || select.prewhere.is_some() || !select.connect_by.is_empty();
    if hive || other || !select.sort_by.is_empty() || !select.named_window.is_empty() || select.exclude.is_some() {
        return Err(SqlError::unsupported(select));
    }
    Ok(())
}

fn not_for_streams(what: &str) -> SqlError {
    SqlError::compilation("002203", "0A000", format!("Change tracking is not supported on queries with '{what}'."))
}
