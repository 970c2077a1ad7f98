//! Expressions: operators, literals, CASE, subqueries.

use sqlparser::ast::{self, BinaryOperator as B, CastKind, Expr, UnaryOperator, Value};

use super::{Binder, Typed, casts};
use crate::sql::error::SqlError;
use crate::sql::names::{fold, literal};
use crate::sql::types::{PRECISION_MAX, Type};

impl Binder<'_> {
    /// Binds an expression as a condition.
    pub(crate) fn condition(&mut self, expression: &Expr) -> Result<String, SqlError> {
        let value = self.expression(expression)?;
        casts::cast(&value, Type::Boolean, &self.around.zone)
    }

    /// Binds an expression and converts it.
    pub(crate) fn expression_as(&mut self, expression: &Expr, ty: Type) -> Result<String, SqlError> {
        let value = self.expression(expression)?;
        casts::cast(&value, ty, &self.around.zone)
    }

    /// Binds an expression.
    ///
    /// # Errors
    /// 000904 for an unknown column, 002140 for an unknown function, 001003 for what is not supported.
    pub fn expression(&mut self, expression: &Expr) -> Result<Typed, SqlError> {
        self.depth += 1;
        if self.depth > 200 {
            return Err(SqlError::syntax("unexpected nesting: too deep"));
        }
        let bound = self.expression_of(expression);
        self.depth -= 1;
        bound
    }

    fn expression_of(&mut self, expression: &Expr) -> Result<Typed, SqlError> {
        match expression {
            Expr::Identifier(ident) => self.identifier(ident),
            Expr::CompoundIdentifier(idents) => {
                let parts: Vec<String> = idents.iter().map(fold).collect();
                self.column(&parts)
            }
            Expr::Value(value) => self.value(&value.value),
            Expr::TypedString(typed) => {
                let ty = Type::parse(&typed.data_type)?;
                let value = self.value(&typed.value.value)?;
                Ok(Typed::solid(casts::cast(&value, ty, &self.around.zone)?, ty))
            }
            Expr::Nested(inner) => {
                self.expression(inner).map(|inner| Typed { sql: format!("({})", inner.sql), ..inner })
            }
            Expr::UnaryOp { op, expr } => self.unary(*op, expr),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::IsNull(inner) => {
                Ok(Typed::solid(format!("({} is null)", self.expression(inner)?.sql), Type::Boolean))
            }
            Expr::IsNotNull(inner) => {
                Ok(Typed::solid(format!("({} is not null)", self.expression(inner)?.sql), Type::Boolean))
            }
            Expr::IsTrue(inner) => Ok(Typed::solid(format!("({} is true)", self.condition(inner)?), Type::Boolean)),
            Expr::IsNotTrue(inner) => {
                Ok(Typed::solid(format!("({} is not true)", self.condition(inner)?), Type::Boolean))
            }
            Expr::IsFalse(inner) => Ok(Typed::solid(format!("({} is false)", self.condition(inner)?), Type::Boolean)),
            Expr::IsNotFalse(inner) => {
                Ok(Typed::solid(format!("({} is not false)", self.condition(inner)?), Type::Boolean))
            }
            Expr::IsDistinctFrom(left, right) => self.compared(left, "is distinct from", right).map(solid),
            Expr::IsNotDistinctFrom(left, right) => self.compared(left, "is not distinct from", right).map(solid),
            Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            Expr::InSubquery { expr, subquery, negated } => self.in_subquery(expr, subquery, *negated),
            Expr::Between { expr, negated, low, high } => {
                let (low, high) = (self.compared(expr, ">=", low)?, self.compared(expr, "<=", high)?);
                let not = if *negated { "not " } else { "" };
                Ok(Typed::new(format!("({not}({} and {}))", low.sql, high.sql), Type::Boolean))
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like("like", *negated, expr, pattern, escape_char.as_deref())
            }
            Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
                self.like("ilike", *negated, expr, pattern, escape_char.as_deref())
            }
            Expr::RLike { negated, expr, pattern, .. } => {
                let (text, pattern) = (self.expression_as(expr, Type::TEXT)?, self.expression_as(pattern, Type::TEXT)?);
                let not = if *negated { "!" } else { "" };
                Ok(Typed::new(format!("({text} {not}~ ('^(?:' || {pattern} || ')$'))"), Type::Boolean))
            }
            Expr::Cast { kind, expr, data_type, format: None } => self.cast(kind, expr, data_type),
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            Expr::Exists { subquery, negated } => {
                let bound = self.query(subquery)?;
                Ok(Typed::solid(
                    format!("({}exists ({}))", if *negated { "not " } else { "" }, bound.sql),
                    Type::Boolean,
                ))
            }
            Expr::Subquery(query) => {
                let bound = self.query(query)?;
                match bound.columns.as_slice() {
                    [column] => Ok(Typed::new(format!("({})", bound.sql), column.ty)),
                    _ => Err(SqlError::compilation("002057", "42601", "a scalar subquery must return one column")),
                }
            }
            Expr::Function(function) => self.function(function),
            Expr::Extract { field, expr, .. } => self.date_part(&field.to_string(), expr),
            Expr::Ceil { expr, .. } => self.round_to("ceil", expr),
            Expr::Floor { expr, .. } => self.round_to("floor", expr),
            Expr::Position { expr, r#in } => {
                let (needle, text) = (self.expression_as(expr, Type::TEXT)?, self.expression_as(r#in, Type::TEXT)?);
                Ok(Typed::new(format!("strpos({text}, {needle})::numeric"), Type::INTEGER))
            }
            Expr::Substring { expr, substring_from: Some(from), substring_for, .. } => {
                self.substring(expr, from, substring_for.as_deref())
            }
            Expr::Trim { trim_where, trim_what: None, expr, trim_characters: None } => {
                let side = trim_where.map_or("both".into(), |side| side.to_string().to_lowercase());
                Ok(Typed::new(format!("trim({side} from {})", self.expression_as(expr, Type::TEXT)?), Type::TEXT))
            }
            Expr::JsonAccess { value, path } => self.json_path(value, path),
            Expr::CompoundFieldAccess { root, access_chain } => self.field_access(root, access_chain),
            Expr::Tuple(items) => {
                let items = items
                    .iter()
                    .map(|item| self.expression(item).map(|item| item.sql))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(Typed::new(format!("row({})", items.join(", ")), Type::Variant))
            }
            other => Err(SqlError::unsupported(other)),
        }
    }

    fn identifier(&mut self, ident: &ast::Ident) -> Result<Typed, SqlError> {
        match self.column(&[fold(ident)]) {
            // CURRENT_TIMESTAMP and its like may stand without brackets.
            Err(error) if ident.quote_style.is_none() => self.bare_function(&ident.value.to_uppercase()).ok_or(error),
            found => found,
        }
    }

    pub(super) fn value(&mut self, value: &Value) -> Result<Typed, SqlError> {
        match value {
            Value::Number(digits, _) => number(digits),
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => string(text),
            Value::DollarQuotedString(text) => string(&text.value),
            Value::HexStringLiteral(hex) => {
                let length = (hex.len() / 2).max(1) as u64;
                Ok(Typed::solid(format!("decode({}, 'hex')", literal(hex)), Type::Binary { length }))
            }
            Value::Boolean(value) => Ok(Typed::solid(value.to_string(), Type::Boolean)),
            Value::Null => Ok(Typed { is_null: true, ..Typed::new("null", Type::TEXT) }),
            Value::Placeholder(name) => self.binding(name),
            other => Err(SqlError::unsupported(other)),
        }
    }

    fn binding(&mut self, name: &str) -> Result<Typed, SqlError> {
        let position: usize = name.trim_start_matches(['?', ':']).parse().unwrap_or(0);
        let binding = position.checked_sub(1).and_then(|at| self.around.bindings.get(at));
        let binding = binding
            .ok_or_else(|| SqlError::compilation("002049", "42601", format!("Bind variable {name} not set.")))?;
        Ok(Typed::new(binding.sql.clone(), binding.ty))
    }

    fn unary(&mut self, operator: UnaryOperator, expression: &Expr) -> Result<Typed, SqlError> {
        match operator {
            UnaryOperator::Not => Ok(Typed::new(format!("(not {})", self.condition(expression)?), Type::Boolean)),
            UnaryOperator::Plus => self.expression(expression),
            UnaryOperator::Minus => {
                let value = self.expression(expression)?;
                let value = self.as_number(value)?;
                Ok(Typed { sql: format!("(-{})", value.sql), ..value })
            }
            other => Err(SqlError::unsupported(other)),
        }
    }

    fn binary(&mut self, left: &Expr, operator: &B, right: &Expr) -> Result<Typed, SqlError> {
        match operator {
            B::And | B::Or => {
                let word = if *operator == B::And { "and" } else { "or" };
                let (left, right) = (self.condition(left)?, self.condition(right)?);
                Ok(Typed::new(format!("({left} {word} {right})"), Type::Boolean))
            }
            B::Eq => self.compared(left, "=", right),
            B::NotEq => self.compared(left, "<>", right),
            B::Lt => self.compared(left, "<", right),
            B::LtEq => self.compared(left, "<=", right),
            B::Gt => self.compared(left, ">", right),
            B::GtEq => self.compared(left, ">=", right),
            B::StringConcat => {
                let (left, right) = (self.expression_as(left, Type::TEXT)?, self.expression_as(right, Type::TEXT)?);
                Ok(Typed::new(format!("({left} || {right})"), Type::TEXT))
            }
            B::Plus | B::Minus | B::Multiply | B::Divide | B::Modulo => {
                let (left, right) = (self.expression(left)?, self.expression(right)?);
                self.arithmetic(left, operator, right)
            }
            other => Err(SqlError::unsupported(other)),
        }
    }

    fn compared(&mut self, left: &Expr, operator: &str, right: &Expr) -> Result<Typed, SqlError> {
        if let (Expr::Tuple(left), Expr::Tuple(right)) = (left, right) {
            return self.tuples(left, operator, right);
        }
        let (left, right) = (self.expression(left)?, self.expression(right)?);
        Ok(Typed::new(self.compare(&left, operator, &right)?, Type::Boolean))
    }

    fn tuples(&mut self, left: &[Expr], operator: &str, right: &[Expr]) -> Result<Typed, SqlError> {
        if left.len() != right.len() {
            return Err(SqlError::syntax("unexpected tuple length"));
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for (left, right) in left.iter().zip(right) {
            let (left, right) = (self.expression(left)?, self.expression(right)?);
            let (left, right) = self.alike(&left, &right)?;
            a.push(left);
            b.push(right);
        }
        Ok(Typed::new(format!("(row({}) {operator} row({}))", a.join(", "), b.join(", ")), Type::Boolean))
    }

    /// Both sides as their common type, ready for a comparison.
    fn alike(&self, left: &Typed, right: &Typed) -> Result<(String, String), SqlError> {
        let ty = casts::common(left, right);
        // NUMBERs are compared as they are: a cast to the common scale could overflow.
        let convert = |value: &Typed| match (value.ty, ty) {
            (Type::Fixed { .. }, Type::Fixed { .. }) if !value.is_null => Ok(value.sql.clone()),
            (Type::Text { .. }, Type::Fixed { .. }) if !value.is_null => {
                Ok(format!("emulator.to_number({})", value.sql))
            }
            (Type::Text { .. }, Type::Text { .. }) if !value.is_null => Ok(value.sql.clone()),
            _ => casts::cast(value, ty, &self.around.zone),
        };
        let (left, right) = (convert(left)?, convert(right)?);
        Ok(match ty {
            Type::TimestampTz => (format!("({left}).utc"), format!("({right}).utc")),
            Type::Text { .. } => (format!("({left}) collate \"C\""), right),
            _ => (left, right),
        })
    }

    pub(super) fn compare(&mut self, left: &Typed, operator: &str, right: &Typed) -> Result<String, SqlError> {
        let (left, right) = self.alike(left, right)?;
        Ok(format!("({left} {operator} {right})"))
    }

    fn in_list(&mut self, expression: &Expr, list: &[Expr], negated: bool) -> Result<Typed, SqlError> {
        let mut tests = Vec::new();
        for item in list {
            tests.push(self.compared(expression, "=", item)?.sql);
        }
        let not = if negated { "not " } else { "" };
        Ok(Typed::new(format!("({not}({}))", tests.join(" or ")), Type::Boolean))
    }

    fn in_subquery(&mut self, expression: &Expr, query: &ast::Query, negated: bool) -> Result<Typed, SqlError> {
        let values = match expression {
            Expr::Tuple(items) => items.iter().map(|item| self.expression(item)).collect::<Result<Vec<_>, _>>()?,
            one => vec![self.expression(one)?],
        };
        let bound = self.query(query)?;
        if bound.columns.len() != values.len() {
            return Err(SqlError::compilation(
                "002057",
                "42601",
                "the subquery of IN returns another number of columns",
            ));
        }
        let alias = self.alias();
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for (at, (value, column)) in values.iter().zip(&bound.columns).enumerate() {
            let (a, b) = self.alike(value, &Typed::new(format!("{alias}.c{}", at + 1), column.ty))?;
            left.push(a);
            right.push(b);
        }
        let not = if negated { "not in" } else { "in" };
        let sql = format!("(({}) {not} (select {} from ({}) {alias}))", left.join(", "), right.join(", "), bound.sql);
        Ok(Typed::new(sql, Type::Boolean))
    }

    fn like(
        &mut self,
        word: &str,
        negated: bool,
        expression: &Expr,
        pattern: &Expr,
        escape: Option<&Expr>,
    ) -> Result<Typed, SqlError> {
        let (text, pattern) = (self.expression_as(expression, Type::TEXT)?, self.expression_as(pattern, Type::TEXT)?);
        let escape = match escape {
            Some(character) => self.expression_as(character, Type::TEXT)?,
            None => "''".into(),
        };
        let not = if negated { "not " } else { "" };
        Ok(Typed::new(format!("({text} {not}{word} {pattern} escape {escape})"), Type::Boolean))
    }

    fn cast(&mut self, kind: &CastKind, expression: &Expr, data_type: &ast::DataType) -> Result<Typed, SqlError> {
        let ty = Type::parse(data_type)?;
        let value = self.expression(expression)?;
        let tried = matches!(kind, CastKind::TryCast | CastKind::SafeCast);
        if tried {
            return match (value.ty, ty) {
                (Type::Text { .. }, Type::Fixed { precision, scale }) => {
                    Ok(Typed::new(format!("emulator.try_number({})::numeric({precision},{scale})", value.sql), ty))
                }
                _ => Err(SqlError::unsupported(format!("TRY_CAST to {data_type}"))),
            };
        }
        Ok(Typed { nullable: value.nullable, is_null: false, sql: casts::cast(&value, ty, &self.around.zone)?, ty })
    }

    fn case(
        &mut self,
        operand: Option<&Expr>,
        whens: &[ast::CaseWhen],
        otherwise: Option<&Expr>,
    ) -> Result<Typed, SqlError> {
        let mut conditions = Vec::new();
        let mut results = Vec::new();
        for when in whens {
            conditions.push(match operand {
                Some(operand) => self.compared(operand, "=", &when.condition)?.sql,
                None => self.condition(&when.condition)?,
            });
            results.push(self.expression(&when.result)?);
        }
        results.push(match otherwise {
            Some(otherwise) => self.expression(otherwise)?,
            None => self.value(&Value::Null)?,
        });
        let (sql, all) = self.same_type(&results)?;
        let mut written = String::from("(case");
        for (condition, result) in conditions.iter().zip(&sql) {
            written.push_str(&format!(" when {condition} then {result}"));
        }
        written.push_str(&format!(" else {} end)", sql.last().expect("the ELSE was pushed")));
        Ok(Typed { sql: written, ..all })
    }

    /// Converts several expressions to the type they have in common.
    pub(super) fn same_type(&mut self, values: &[Typed]) -> Result<(Vec<String>, Typed), SqlError> {
        let first = values.first().cloned().ok_or_else(|| SqlError::arguments("", 0))?;
        let all = values.iter().skip(1).fold(first, |so_far, value| Typed {
            ty: casts::common(&so_far, value),
            nullable: so_far.nullable || value.nullable,
            is_null: so_far.is_null && value.is_null,
            sql: String::new(),
        });
        let sql =
            values.iter().map(|value| casts::cast(value, all.ty, &self.around.zone)).collect::<Result<Vec<_>, _>>()?;
        Ok((sql, all))
    }

    /// A number as it is; a text as the number it spells.
    pub(super) fn as_number(&self, value: Typed) -> Result<Typed, SqlError> {
        match value.ty {
            Type::Fixed { .. } | Type::Real => Ok(value),
            _ if value.is_null => Ok(Typed { ty: Type::INTEGER, sql: "null::numeric".into(), ..value }),
            Type::Variant => Ok(Typed::new(casts::cast(&value, Type::Real, "")?, Type::Real)),
            _ => {
                let ty = Type::Fixed { precision: 38, scale: 5 };
                Ok(Typed::new(casts::cast(&value, ty, &self.around.zone)?, ty))
            }
        }
    }

    pub(super) fn arithmetic(&mut self, left: Typed, operator: &B, right: Typed) -> Result<Typed, SqlError> {
        let nullable = left.nullable || right.nullable;
        match (left.ty, operator, right.ty) {
            (Type::Date, B::Minus, Type::Date) => {
                return Ok(Typed {
                    nullable,
                    ..Typed::new(format!("({} - {})::numeric", left.sql, right.sql), Type::INTEGER)
                });
            }
            (Type::Date, B::Plus | B::Minus, Type::Fixed { .. }) => {
                return Ok(Typed {
                    nullable,
                    ..Typed::new(format!("({} {operator} ({})::int)", left.sql, right.sql), Type::Date)
                });
            }
            _ => {}
        }
        let (left, right) = (self.as_number(left)?, self.as_number(right)?);
        let (Type::Fixed { precision: p1, scale: s1 }, Type::Fixed { precision: p2, scale: s2 }) = (left.ty, right.ty)
        else {
            let (a, b) = (casts::cast(&left, Type::Real, "")?, casts::cast(&right, Type::Real, "")?);
            let sql = if *operator == B::Modulo {
                format!("mod(({a})::numeric, ({b})::numeric)::float8")
            } else {
                format!("({a} {operator} {b})")
            };
            return Ok(Typed { nullable, ..Typed::new(sql, Type::Real) });
        };
        let (i1, i2) = (p1 - s1, p2 - s2);
        let fixed = |integers: u32, scale: u32| Type::Fixed {
            precision: (integers + scale).clamp(1, PRECISION_MAX),
            scale: scale.min(37),
        };
        let (ty, sql) = match operator {
            B::Plus | B::Minus => {
                (fixed(i1.max(i2) + 1, s1.max(s2)), format!("({} {operator} {})", left.sql, right.sql))
            }
            B::Multiply => {
                let scale = (s1 + s2).min(s1.max(s2).max(12));
                (fixed(i1 + i2, scale), format!("round({} * {}, {scale})", left.sql, right.sql))
            }
            B::Divide => {
                let scale = s1.max((s1 + 6).min(12));
                (fixed(i1 + s2, scale), format!("round(({})::numeric(78,37) / {}, {scale})", left.sql, right.sql))
            }
            _ => (fixed(i2, s1.max(s2)), format!("mod({}, {})", left.sql, right.sql)),
        };
        Ok(Typed { nullable, ..Typed::new(sql, ty) })
    }

    fn json_path(&mut self, value: &Expr, path: &ast::JsonPath) -> Result<Typed, SqlError> {
        let mut sql = self.expression(value)?.sql;
        for step in &path.path {
            sql = match step {
                ast::JsonPathElem::Dot { key, .. } => format!("({sql} -> {})", literal(key)),
                ast::JsonPathElem::Bracket { key } => self.json_step(&sql, key)?,
                other => return Err(SqlError::unsupported(format!("{other:?}"))),
            };
        }
        Ok(Typed::new(sql, Type::Variant))
    }

    fn field_access(&mut self, root: &Expr, chain: &[ast::AccessExpr]) -> Result<Typed, SqlError> {
        let mut sql = self.expression(root)?.sql;
        for step in chain {
            sql = match step {
                ast::AccessExpr::Subscript(ast::Subscript::Index { index }) => self.json_step(&sql, index)?,
                other => return Err(SqlError::unsupported(other)),
            };
        }
        Ok(Typed::new(sql, Type::Variant))
    }

    fn json_step(&mut self, sql: &str, key: &Expr) -> Result<String, SqlError> {
        let key = self.expression(key)?;
        Ok(match key.ty {
            Type::Fixed { .. } => format!("({sql} -> ({})::int)", key.sql),
            _ => format!("({sql} -> {})", key.sql),
        })
    }
}

fn solid(value: Typed) -> Typed {
    Typed { nullable: false, ..value }
}

/// A number as written: NUMBER with as many digits as it has, or FLOAT when it has an exponent.
fn number(digits: &str) -> Result<Typed, SqlError> {
    if digits.contains(['e', 'E']) {
        return Ok(Typed::solid(format!("{digits}::float8"), Type::Real));
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = fraction.len() as u32;
    let precision = whole.trim_start_matches('0').len() as u32 + scale;
    if precision > PRECISION_MAX {
        return Err(SqlError::compilation("001007", "22003", format!("Number out of representable range: {digits}")));
    }
    Ok(Typed::solid(format!("{digits}::numeric"), Type::Fixed { precision: precision.max(1), scale }))
}

fn string(text: &str) -> Result<Typed, SqlError> {
    if text.contains('\0') {
        return Err(SqlError::unsupported("a text with a zero byte"));
    }
    let length = (text.chars().count() as u64).max(1);
    Ok(Typed::solid(format!("{}::text", literal(text)), Type::Text { length }))
}
