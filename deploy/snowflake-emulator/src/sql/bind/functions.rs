//! Functions: scalars, aggregates, windows. An unknown one answers 002140.

use sqlparser::ast::{
    self, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, WindowType,
};

use super::{Binder, Typed, casts, queries};
use crate::sql::error::SqlError;
use crate::sql::names::{self, literal};
use crate::sql::types::{Column, Type};

/// The arguments of a call after binding.
struct Call<'f> {
    name: String,
    arguments: Vec<Typed>,
    /// `f(*)`.
    star: bool,
    distinct: bool,
    function: &'f Function,
}

impl Call<'_> {
    fn take<const N: usize>(&self) -> Result<[&Typed; N], SqlError> {
        let all: Vec<&Typed> = self.arguments.iter().collect();
        let given = all.len();
        all.try_into().map_err(|_| SqlError::arguments(&self.name, given))
    }

    fn nullable(&self) -> bool {
        self.arguments.iter().any(|argument| argument.nullable)
    }
}

impl Binder<'_> {
    pub(super) fn function(&mut self, function: &Function) -> Result<Typed, SqlError> {
        let name = names::parts(&function.name)?.join(".");
        refuse_extras(function)?;
        if name.starts_with("SYSTEM$") {
            return self.system_function(&name, function);
        }
        let call = self.call(name, function)?;
        if function.over.is_some() {
            return self.window(&call);
        }
        if let Some(found) = self.aggregate(&call)? {
            return Ok(found);
        }
        match self.scalar(&call)? {
            Some(found) => Ok(found),
            None => Err(SqlError::compilation("002140", "42601", format!("Unknown function {}", call.name))),
        }
    }

    fn call<'f>(&mut self, name: String, function: &'f Function) -> Result<Call<'f>, SqlError> {
        let mut call = Call { name, arguments: Vec::new(), star: false, distinct: false, function };
        let list = match &function.args {
            FunctionArguments::None => return Ok(call),
            FunctionArguments::Subquery(_) => return Err(SqlError::unsupported(function)),
            FunctionArguments::List(list) => list,
        };
        call.distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        for argument in &list.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => {
                    // The unit of DATEADD and its like is a bare word.
                    let unit = call.arguments.is_empty() && takes_unit(&call.name);
                    let bound = match expression {
                        Expr::Identifier(word) if unit => Typed::solid(literal(&word.value.to_uppercase()), Type::TEXT),
                        other => self.expression(other)?,
                    };
                    call.arguments.push(bound);
                }
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => {
                    call.star = true;
                    if call.name != "COUNT" {
                        let columns = self.visible_columns(&[])?;
                        call.arguments.extend(columns.into_iter().map(|column| column.value));
                    }
                }
                FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(path)) => {
                    let columns = self.visible_columns(&names::parts(path)?)?;
                    call.arguments.extend(columns.into_iter().map(|column| column.value));
                }
                other => return Err(SqlError::unsupported(other)),
            }
        }
        Ok(call)
    }

    fn aggregate(&mut self, call: &Call<'_>) -> Result<Option<Typed>, SqlError> {
        let distinct = if call.distinct { "distinct " } else { "" };
        let count = Type::Fixed { precision: 18, scale: 0 };
        Ok(Some(match call.name.as_str() {
            "COUNT" if call.star || call.arguments.is_empty() => Typed::solid("count(*)::numeric", count),
            "COUNT" => {
                let list: Vec<&str> = call.arguments.iter().map(|argument| argument.sql.as_str()).collect();
                match list.as_slice() {
                    [one] => Typed::solid(format!("count({distinct}{one})::numeric"), count),
                    many => {
                        let whole =
                            many.iter().map(|sql| format!("{sql} is not null")).collect::<Vec<_>>().join(" and ");
                        Typed::solid(
                            format!("(count({distinct}row({})) filter (where {whole}))::numeric", many.join(", ")),
                            count,
                        )
                    }
                }
            }
            "COUNT_IF" => {
                let [condition] = call.take()?;
                Typed::solid(format!("(count(*) filter (where {}))::numeric", condition.sql), count)
            }
            "SUM" | "AVG" => {
                let [value] = call.take()?;
                let value = self.as_number(value.clone())?;
                let word = call.name.to_lowercase();
                match (value.ty, word.as_str()) {
                    (Type::Fixed { scale, .. }, "sum") => {
                        Typed::new(format!("sum({distinct}{})", value.sql), Type::Fixed { precision: 38, scale })
                    }
                    (Type::Fixed { scale, .. }, _) => {
                        let scale = (scale + 6).min(37);
                        Typed::new(
                            format!("round(avg({distinct}{}), {scale})", value.sql),
                            Type::Fixed { precision: 38, scale },
                        )
                    }
                    _ => Typed::new(format!("{word}({distinct}{})", value.sql), Type::Real),
                }
            }
            "MIN" | "MAX" => {
                let [value] = call.take()?;
                let word = call.name.to_lowercase();
                let sql = match value.ty {
                    Type::Text { .. } => format!("{word}(({}) collate \"C\")", value.sql),
                    Type::Boolean => format!("({word}(({})::int) = 1)", value.sql),
                    Type::TimestampTz | Type::Binary { .. } => format!(
                        "(array_agg({0} order by {0}{1}) filter (where {0} is not null))[1]",
                        value.sql,
                        if word == "max" { " desc" } else { "" }
                    ),
                    _ => format!("{word}({})", value.sql),
                };
                Typed::new(sql, value.ty)
            }
            "ANY_VALUE" => {
                let [value] = call.take()?;
                Typed::new(format!("(array_agg({}))[1]", value.sql), value.ty)
            }
            "BOOLOR_AGG" | "BOOLAND_AGG" => {
                let [value] = call.take()?;
                let word = if call.name == "BOOLOR_AGG" { "bool_or" } else { "bool_and" };
                Typed::new(format!("{word}({})", casts::cast(value, Type::Boolean, "")?), Type::Boolean)
            }
            "HASH_AGG" => {
                let hash = self.hash(&call.arguments)?;
                // The sum of the rows' hashes, modulo 2^64: any order gives the same.
                Typed::solid(
                    format!("emulator.signed64(coalesce(sum({distinct}{hash}), 0))"),
                    Type::Fixed { precision: 19, scale: 0 },
                )
            }
            "LISTAGG" => {
                let text = self.as_text(call.arguments.first().ok_or_else(|| SqlError::arguments("LISTAGG", 0))?)?;
                let separator = call.arguments.get(1).map_or_else(|| "''".to_owned(), |value| value.sql.clone());
                let order = self.within_group(call.function)?;
                Typed::solid(format!("coalesce(string_agg({distinct}{text}, {separator}{order}), '')"), Type::TEXT)
            }
            "ARRAY_AGG" => {
                let [value] = call.take()?;
                let value = casts::cast(value, Type::Variant, &self.around.zone)?;
                let order = self.within_group(call.function)?;
                Typed::solid(
                    format!(
                        "coalesce(jsonb_agg({distinct}{value}{order}) filter (where {value} is not null), '[]'::jsonb)"
                    ),
                    Type::Array,
                )
            }
            _ => return Ok(None),
        }))
    }

    fn within_group(&mut self, function: &Function) -> Result<String, SqlError> {
        if function.within_group.is_empty() {
            return Ok(String::new());
        }
        Ok(format!(" order by {}", self.sort_keys(&function.within_group)?))
    }

    fn sort_keys(&mut self, keys: &[ast::OrderByExpr]) -> Result<String, SqlError> {
        let mut written = Vec::new();
        for key in keys {
            let value = self.expression(&key.expr)?;
            written.push(format!("{}{}", queries::sort_key(&value), queries::direction(&key.options)));
        }
        Ok(written.join(", "))
    }

    fn window(&mut self, call: &Call<'_>) -> Result<Typed, SqlError> {
        let Some(WindowType::WindowSpec(spec)) = &call.function.over else {
            return Err(SqlError::unsupported(call.function));
        };
        if spec.window_name.is_some() {
            return Err(SqlError::unsupported(call.function));
        }
        let mut parts = Vec::new();
        if !spec.partition_by.is_empty() {
            let keys = spec.partition_by.iter().map(|key| self.expression(key).map(|key| key.sql));
            parts.push(format!("partition by {}", keys.collect::<Result<Vec<_>, _>>()?.join(", ")));
        }
        if !spec.order_by.is_empty() {
            parts.push(format!("order by {}", self.sort_keys(&spec.order_by)?));
        }
        if let Some(frame) = &spec.window_frame {
            parts.push(frame_sql(frame)?);
        }
        let over = format!(" over ({})", parts.join(" "));
        let integer = Type::Fixed { precision: 18, scale: 0 };
        let lower = call.name.to_lowercase();
        Ok(match call.name.as_str() {
            "ROW_NUMBER" | "RANK" | "DENSE_RANK" => Typed::solid(format!("({lower}(){over})::numeric"), integer),
            "NTILE" => Typed::solid(format!("(ntile(({})::int){over})::numeric", call.take::<1>()?[0].sql), integer),
            "LAG" | "LEAD" | "FIRST_VALUE" | "LAST_VALUE" => {
                let value = call.arguments.first().ok_or_else(|| SqlError::arguments(&call.name, 0))?;
                let mut list = vec![value.sql.clone()];
                list.extend(call.arguments.get(1).map(|offset| format!("({})::int", offset.sql)));
                if let Some(default) = call.arguments.get(2) {
                    list.push(casts::cast(default, value.ty, &self.around.zone)?);
                }
                Typed::new(format!("{lower}({}){over}", list.join(", ")), value.ty)
            }
            "COUNT" | "SUM" | "AVG" | "MIN" | "MAX" => {
                let inner = self.aggregate(call)?.ok_or_else(|| SqlError::unsupported(call.function))?;
                Typed { sql: over_aggregate(&inner.sql, &over), ..inner }
            }
            _ => return Err(SqlError::unsupported(call.function)),
        })
    }

    /// A hash of 64 bits over several values; equal values of different number types hash alike.
    pub(super) fn hash(&mut self, values: &[Typed]) -> Result<String, SqlError> {
        if values.is_empty() {
            return Err(SqlError::arguments("HASH", 0));
        }
        let parts: Vec<String> = values.iter().map(hashed).collect();
        Ok(format!("emulator.hash({})", parts.join(" || chr(1) || ")))
    }

    pub(super) fn as_text(&self, value: &Typed) -> Result<String, SqlError> {
        casts::cast(value, Type::TEXT, &self.around.zone)
    }

    pub(super) fn bare_function(&mut self, name: &str) -> Option<Typed> {
        let now = format!("({}::numeric * 0.000000001)::numeric(21,9)", self.around.now_ns);
        let text = |value: Option<&str>| match value {
            Some(value) => Typed::new(format!("{}::text", literal(value)), Type::TEXT),
            None => Typed { is_null: false, ..Typed::new("null::text", Type::TEXT) },
        };
        let ltz = Typed::solid(now, Type::TimestampLtz);
        Some(match name {
            "CURRENT_TIMESTAMP" | "LOCALTIMESTAMP" | "GETDATE" | "SYSTIMESTAMP" => ltz,
            "SYSDATE" => Typed { ty: Type::TimestampNtz, ..ltz },
            "CURRENT_DATE" => Typed::solid(casts::cast(&ltz, Type::Date, &self.around.zone).ok()?, Type::Date),
            "CURRENT_TIME" | "LOCALTIME" => {
                Typed::solid(casts::cast(&ltz, Type::Time, &self.around.zone).ok()?, Type::Time)
            }
            "CURRENT_USER" => text(Some(&self.around.user)),
            "CURRENT_ROLE" => text(Some(&self.around.role)),
            "CURRENT_ACCOUNT" | "CURRENT_ACCOUNT_NAME" => text(Some(&self.around.account)),
            "CURRENT_ORGANIZATION_NAME" => text(self.around.account.split('-').next()),
            "CURRENT_WAREHOUSE" => text(self.around.warehouse.as_deref()),
            "CURRENT_DATABASE" => text(self.around.context.database.as_deref()),
            "CURRENT_SCHEMA" => text(self.around.context.schema.as_deref()),
            "CURRENT_SESSION" => text(Some(&self.around.session)),
            "CURRENT_REGION" => text(Some("PUBLIC.EMULATOR")),
            "CURRENT_VERSION" => text(Some("10.10.0-emulator")),
            "CURRENT_SECONDARY_ROLES" => text(Some(r#"{"roles":"","value":""}"#)),
            "LAST_QUERY_ID" => text(self.around.last_query.as_deref()),
            _ => return None,
        })
    }

    fn scalar(&mut self, call: &Call<'_>) -> Result<Option<Typed>, SqlError> {
        let takes_nothing = call.arguments.is_empty() || call.name.starts_with("CURRENT_TIME");
        if takes_nothing && let Some(found) = self.bare_function(&call.name) {
            return Ok(Some(found));
        }
        for group in [Self::conditional, Self::textual, Self::numeric, Self::temporal, Self::semi_structured] {
            if let Some(found) = group(self, call)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn conditional(&mut self, call: &Call<'_>) -> Result<Option<Typed>, SqlError> {
        Ok(Some(match call.name.as_str() {
            "COALESCE" | "NVL" | "IFNULL" => {
                let (sql, all) = self.same_type(&call.arguments)?;
                let nullable = call.arguments.iter().all(|argument| argument.nullable);
                Typed { nullable, ..Typed::new(format!("coalesce({})", sql.join(", ")), all.ty) }
            }
            "NULLIF" => {
                let [a, b] = call.take()?;
                let same = self.compare(a, "=", b)?;
                Typed::new(format!("(case when {same} then null else {} end)", a.sql), a.ty)
            }
            "IFF" => {
                let [condition, yes, no] = call.take()?;
                let condition = casts::cast(condition, Type::Boolean, "")?;
                let (sql, all) = self.same_type(&[yes.clone(), no.clone()])?;
                Typed { sql: format!("(case when {condition} then {} else {} end)", sql[0], sql[1]), ..all }
            }
            "NVL2" => {
                let [value, yes, no] = call.take()?;
                let (sql, all) = self.same_type(&[yes.clone(), no.clone()])?;
                Typed {
                    sql: format!("(case when {} is not null then {} else {} end)", value.sql, sql[0], sql[1]),
                    ..all
                }
            }
            "ZEROIFNULL" => {
                let [value] = call.take()?;
                Typed { nullable: false, sql: format!("coalesce({}, 0)", value.sql), ..value.clone() }
            }
            "EQUAL_NULL" => {
                let [a, b] = call.take()?;
                Typed::solid(self.compare(a, "is not distinct from", b)?, Type::Boolean)
            }
            "GREATEST" | "LEAST" => {
                let (sql, all) = self.same_type(&call.arguments)?;
                // Snowflake's answer is NULL when any argument is; Postgres passes NULLs over.
                let absent = sql.iter().map(|sql| format!("{sql} is null")).collect::<Vec<_>>().join(" or ");
                let word = call.name.to_lowercase();
                Typed { sql: format!("(case when {absent} then null else {word}({}) end)", sql.join(", ")), ..all }
            }
            "HASH" => Typed::solid(self.hash(&call.arguments)?, Type::Fixed { precision: 19, scale: 0 }),
            _ => return Ok(None),
        }))
    }

    fn textual(&mut self, call: &Call<'_>) -> Result<Option<Typed>, SqlError> {
        let texts =
            |binder: &Self| call.arguments.iter().map(|value| binder.as_text(value)).collect::<Result<Vec<_>, _>>();
        let typed = |sql: String, ty: Type| Typed { nullable: call.nullable(), ..Typed::new(sql, ty) };
        let needs = |count: usize| {
            if call.arguments.len() == count {
                Ok(())
            } else {
                Err(SqlError::arguments(&call.name, call.arguments.len()))
            }
        };
        Ok(Some(match call.name.as_str() {
            // Texts compare by their bytes here, so to ask for that changes nothing; no other collation is known.
            "COLLATE" => {
                let [value, specification] = call.take()?;
                if specification.sql != "''" && !specification.sql.starts_with("''::") {
                    return Err(SqlError::unsupported(format!("COLLATE with {}", specification.sql)));
                }
                Typed { sql: self.as_text(value)?, ..value.clone() }
            }
            "UPPER" | "LOWER" | "REVERSE" | "INITCAP" | "MD5" => {
                needs(1)?;
                typed(format!("{}({})", call.name.to_lowercase(), texts(self)?[0]), Type::TEXT)
            }
            "TRIM" | "LTRIM" | "RTRIM" => {
                let word = if call.name == "TRIM" { "btrim".into() } else { call.name.to_lowercase() };
                typed(format!("{word}({})", texts(self)?.join(", ")), Type::TEXT)
            }
            "LENGTH" | "LEN" => {
                needs(1)?;
                typed(format!("length({})::numeric", texts(self)?[0]), Type::Fixed { precision: 18, scale: 0 })
            }
            "OCTET_LENGTH" => {
                needs(1)?;
                typed(format!("octet_length({})::numeric", texts(self)?[0]), Type::Fixed { precision: 18, scale: 0 })
            }
            "CONCAT" => typed(format!("({})", texts(self)?.join(" || ")), Type::TEXT),
            "CONCAT_WS" => {
                // NULL in any argument makes NULL, unlike in Postgres.
                let texts = texts(self)?;
                let (separator, rest) = texts.split_first().ok_or_else(|| SqlError::arguments("CONCAT_WS", 0))?;
                typed(format!("({})", rest.join(&format!(" || {separator} || "))), Type::TEXT)
            }
            "REPLACE" => {
                let texts = texts(self)?;
                let with = texts.get(2).cloned().unwrap_or_else(|| "''".into());
                typed(
                    format!(
                        "replace({}, {}, {with})",
                        texts[0],
                        texts.get(1).ok_or_else(|| SqlError::arguments("REPLACE", 1))?
                    ),
                    Type::TEXT,
                )
            }
            "SPLIT_PART" => {
                let [text, separator, part] = call.take()?;
                typed(format!("split_part({}, {}, ({})::int)", text.sql, separator.sql, part.sql), Type::TEXT)
            }
            "LEFT" | "RIGHT" => {
                let [text, count] = call.take()?;
                typed(
                    format!("{}({}, greatest(({})::int, 0))", call.name.to_lowercase(), self.as_text(text)?, count.sql),
                    Type::TEXT,
                )
            }
            "SUBSTR" | "SUBSTRING" => {
                let all = &call.arguments;
                let (Some(text), Some(from)) = (all.first(), all.get(1)) else {
                    return Err(SqlError::arguments("SUBSTR", all.len()));
                };
                typed(
                    substring_sql(&self.as_text(text)?, &from.sql, all.get(2).map(|count| count.sql.as_str())),
                    Type::TEXT,
                )
            }
            "LPAD" | "RPAD" => {
                let texts = texts(self)?;
                let fill = texts.get(2).cloned().unwrap_or_else(|| "' '".into());
                let count = &call.arguments.get(1).ok_or_else(|| SqlError::arguments(&call.name, 1))?.sql;
                typed(format!("{}({}, ({count})::int, {fill})", call.name.to_lowercase(), texts[0]), Type::TEXT)
            }
            "REPEAT" => {
                let [text, count] = call.take()?;
                typed(format!("repeat({}, ({})::int)", self.as_text(text)?, count.sql), Type::TEXT)
            }
            "STARTSWITH" | "ENDSWITH" | "CONTAINS" => {
                needs(2)?;
                let texts = texts(self)?;
                let sql = match call.name.as_str() {
                    "STARTSWITH" => format!("starts_with({}, {})", texts[0], texts[1]),
                    "ENDSWITH" => format!("(right({0}, length({1})) = {1})", texts[0], texts[1]),
                    _ => format!("(strpos({}, {}) > 0)", texts[0], texts[1]),
                };
                typed(sql, Type::Boolean)
            }
            "CHARINDEX" | "POSITION" => {
                needs(2)?;
                let texts = texts(self)?;
                typed(format!("strpos({}, {})::numeric", texts[1], texts[0]), Type::Fixed { precision: 18, scale: 0 })
            }
            "ASCII" => {
                needs(1)?;
                typed(format!("ascii({})::numeric", texts(self)?[0]), Type::Fixed { precision: 18, scale: 0 })
            }
            "CHR" | "CHAR" => typed(format!("chr(({})::int)", call.take::<1>()?[0].sql), Type::TEXT),
            "SHA2" | "SHA2_HEX" => typed(
                format!(
                    "encode(sha256(convert_to({}, 'UTF8')), 'hex')",
                    texts(self)?.first().ok_or_else(|| SqlError::arguments("SHA2", 0))?
                ),
                Type::TEXT,
            ),
            "HEX_ENCODE" => {
                let [value] = call.take()?;
                let bytes = if matches!(value.ty, Type::Binary { .. }) {
                    value.sql.clone()
                } else {
                    format!("convert_to({}, 'UTF8')", self.as_text(value)?)
                };
                typed(format!("upper(encode({bytes}, 'hex'))"), Type::TEXT)
            }
            "UUID_STRING" => Typed::solid("gen_random_uuid()::text", Type::Text { length: 36 }),
            "RANDSTR" => return Err(SqlError::unsupported("RANDSTR")),
            _ => return Ok(None),
        }))
    }

    fn numeric(&mut self, call: &Call<'_>) -> Result<Option<Typed>, SqlError> {
        let first = call.arguments.first().cloned();
        let number = |binder: &Self| binder.as_number(first.clone().ok_or_else(|| SqlError::arguments(&call.name, 0))?);
        Ok(Some(match call.name.as_str() {
            "ABS" => {
                let value = number(self)?;
                Typed { sql: format!("abs({})", value.sql), ..value }
            }
            "SIGN" => Typed {
                sql: format!("sign({})::numeric", number(self)?.sql),
                ..Typed::new("", Type::Fixed { precision: 1, scale: 0 })
            },
            "ROUND" | "TRUNC" | "TRUNCATE"
                if !matches!(call.arguments.first().map(|value| value.ty), Some(Type::Date | Type::TimestampNtz)) =>
            {
                let value = number(self)?;
                let digits = call.arguments.get(1).map_or("0".into(), |digits| format!("({})::int", digits.sql));
                let word = if call.name == "ROUND" { "round" } else { "trunc" };
                match value.ty {
                    Type::Real => Typed { sql: format!("{word}(({})::numeric, {digits})::float8", value.sql), ..value },
                    _ => Typed { sql: format!("{word}({}, {digits})", value.sql), ..value },
                }
            }
            "MOD" => {
                let [a, b] = call.take()?;
                self.arithmetic(a.clone(), &ast::BinaryOperator::Modulo, b.clone())?
            }
            "DIV0" => {
                let [a, b] = call.take()?;
                let quotient = self.arithmetic(
                    a.clone(),
                    &ast::BinaryOperator::Divide,
                    Typed { sql: format!("nullif({}, 0)", b.sql), ..b.clone() },
                )?;
                Typed { sql: format!("(case when {} = 0 then 0 else {} end)", b.sql, quotient.sql), ..quotient }
            }
            "SQRT" | "EXP" | "LN" => {
                Typed::new(format!("{}(({})::float8)", call.name.to_lowercase(), number(self)?.sql), Type::Real)
            }
            "POWER" | "POW" => {
                let [a, b] = call.take()?;
                Typed::new(format!("power(({})::float8, ({})::float8)", a.sql, b.sql), Type::Real)
            }
            "CEIL" | "FLOOR" => self.rounded(&call.name.to_lowercase(), number(self)?),
            "RANDOM" => Typed::solid(
                "floor((random() - 0.5) * 18446744073709551615)::numeric",
                Type::Fixed { precision: 19, scale: 0 },
            ),
            "SEQ1" | "SEQ2" | "SEQ4" | "SEQ8" => {
                let column = self.column(&["$SEQ".into()])?;
                Typed::solid(column.sql, Type::Fixed { precision: if call.name == "SEQ8" { 19 } else { 10 }, scale: 0 })
            }
            "TO_NUMBER" | "TO_DECIMAL" | "TO_NUMERIC" => {
                let argument = |at: usize| -> Option<u32> {
                    call.arguments.get(at)?.sql.trim_end_matches("::numeric").parse().ok()
                };
                let (precision, scale) = (argument(1).unwrap_or(38), argument(2).unwrap_or(0));
                let ty = Type::Fixed { precision, scale };
                let value = first.ok_or_else(|| SqlError::arguments(&call.name, 0))?;
                Typed::new(casts::cast(&value, ty, "")?, ty)
            }
            "TRY_TO_NUMBER" | "TRY_TO_DECIMAL" | "TRY_TO_NUMERIC" => {
                let [value] = call.take()?;
                Typed::new(format!("emulator.try_number({})::numeric(38,0)", self.as_text(value)?), Type::INTEGER)
            }
            "TO_DOUBLE" => {
                let [value] = call.take()?;
                Typed::new(casts::cast(value, Type::Real, "")?, Type::Real)
            }
            _ => return Ok(None),
        }))
    }

    fn temporal(&mut self, call: &Call<'_>) -> Result<Option<Typed>, SqlError> {
        let to = |binder: &Self, ty: Type| {
            let value = call.arguments.first().ok_or_else(|| SqlError::arguments(&call.name, 0))?;
            if call.arguments.len() > 1 {
                return Err(SqlError::unsupported(format!("{} with a format", call.name)));
            }
            Ok(Typed { nullable: value.nullable, ..Typed::new(casts::cast(value, ty, &binder.around.zone)?, ty) })
        };
        Ok(Some(match call.name.as_str() {
            "TO_DATE" | "DATE" => to(self, Type::Date)?,
            "TO_TIME" | "TIME" => to(self, Type::Time)?,
            "TO_TIMESTAMP" | "TO_TIMESTAMP_NTZ" => match call.arguments.get(1) {
                Some(scale) if !matches!(scale.ty, Type::Text { .. }) => {
                    let value = &call.arguments[0];
                    Typed::new(
                        format!("({} * ('1e-' || ({})::text)::numeric)::numeric(21,9)", value.sql, scale.sql),
                        Type::TimestampNtz,
                    )
                }
                _ => to(self, Type::TimestampNtz)?,
            },
            "TO_TIMESTAMP_LTZ" => match call.arguments.get(1) {
                Some(scale) if !matches!(scale.ty, Type::Text { .. }) => {
                    let value = &call.arguments[0];
                    Typed::new(
                        format!("({} * ('1e-' || ({})::text)::numeric)::numeric(21,9)", value.sql, scale.sql),
                        Type::TimestampLtz,
                    )
                }
                _ => to(self, Type::TimestampLtz)?,
            },
            "TO_TIMESTAMP_TZ" => to(self, Type::TimestampTz)?,
            "TO_BOOLEAN" => to(self, Type::Boolean)?,
            "TO_BINARY" => {
                let value = call.arguments.first().ok_or_else(|| SqlError::arguments("TO_BINARY", 0))?;
                match call.arguments.get(1).map(|format| format.sql.to_uppercase()) {
                    Some(format) if format.starts_with("'UTF") => {
                        Typed::new(format!("convert_to({}, 'UTF8')", value.sql), Type::BINARY)
                    }
                    Some(format) if format.starts_with("'BASE64") => {
                        Typed::new(format!("decode({}, 'base64')", value.sql), Type::BINARY)
                    }
                    _ => Typed::new(casts::cast(value, Type::BINARY, "")?, Type::BINARY),
                }
            }
            "TO_VARCHAR" | "TO_CHAR" => to(self, Type::TEXT)?,
            "DATEADD" | "TIMESTAMPADD" => {
                let [unit, count, value] = call.take()?;
                date_add(unit_of(unit), count, value)?
            }
            "DATEDIFF" | "TIMESTAMPDIFF" => {
                let [unit, a, b] = call.take()?;
                let (a, b) = (
                    casts::cast(a, Type::TimestampNtz, &self.around.zone)?,
                    casts::cast(b, Type::TimestampNtz, &self.around.zone)?,
                );
                let unit = seconds_of(unit_of(unit))?;
                Typed::new(
                    format!("(floor({b} / {unit}) - floor({a} / {unit}))"),
                    Type::Fixed { precision: 18, scale: 0 },
                )
            }
            "DATE_PART" => {
                let [unit, value] = call.take()?;
                self.part_of(unit_of(unit), value)?
            }
            "YEAR" | "MONTH" | "DAY" | "HOUR" | "MINUTE" | "SECOND" => {
                let [value] = call.take()?;
                self.part_of(&call.name, value)?
            }
            _ => return Ok(None),
        }))
    }

    fn semi_structured(&mut self, call: &Call<'_>) -> Result<Option<Typed>, SqlError> {
        let variants = |binder: &Self| {
            call.arguments
                .iter()
                .map(|value| casts::cast(value, Type::Variant, &binder.around.zone))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Some(match call.name.as_str() {
            "PARSE_JSON" | "TRY_PARSE_JSON" => {
                let [text] = call.take()?;
                let word = call.name.to_lowercase();
                Typed::new(format!("emulator.{word}({})", self.as_text(text)?), Type::Variant)
            }
            "TO_VARIANT" => Typed::new(
                variants(self)?.first().cloned().ok_or_else(|| SqlError::arguments("TO_VARIANT", 0))?,
                Type::Variant,
            ),
            "TO_JSON" => Typed::new(format!("emulator.compact(({})::text)", call.take::<1>()?[0].sql), Type::TEXT),
            "TO_OBJECT" | "TO_ARRAY" => {
                let ty = if call.name == "TO_OBJECT" { Type::Object } else { Type::Array };
                Typed::new(casts::cast(call.take::<1>()?[0], ty, "")?, ty)
            }
            "ARRAY_CONSTRUCT" => {
                let items =
                    variants(self)?.iter().map(|item| format!("coalesce({item}, 'null'::jsonb)")).collect::<Vec<_>>();
                Typed::solid(format!("jsonb_build_array({})", items.join(", ")), Type::Array)
            }
            "ARRAY_SIZE" => Typed::new(format!("emulator.array_size({})", call.take::<1>()?[0].sql), Type::INTEGER),
            "TYPEOF" => Typed::new(format!("emulator.type_of({})", call.take::<1>()?[0].sql), Type::TEXT),
            "GET" => {
                let [value, key] = call.take()?;
                let key =
                    if matches!(key.ty, Type::Fixed { .. }) { format!("({})::int", key.sql) } else { key.sql.clone() };
                Typed::new(format!("({} -> {key})", value.sql), Type::Variant)
            }
            "OBJECT_CONSTRUCT" | "OBJECT_CONSTRUCT_KEEP_NULL" => self.object_construct(call, variants(self)?)?,
            _ => return Ok(None),
        }))
    }

    fn object_construct(&mut self, call: &Call<'_>, variants: Vec<String>) -> Result<Typed, SqlError> {
        let keep = call.name.ends_with("KEEP_NULL");
        let mut pairs = Vec::new();
        if call.star {
            let columns = self.visible_columns(&[])?;
            for (column, value) in columns.iter().zip(&variants) {
                pairs.push((literal(&column.name), value.clone()));
            }
        } else {
            for (pair, values) in call.arguments.chunks(2).zip(variants.chunks(2)) {
                let [key, _] = pair else { return Err(SqlError::arguments(&call.name, call.arguments.len())) };
                pairs.push((self.as_text(key)?, values[1].clone()));
            }
        }
        let rows = pairs.iter().map(|(key, value)| format!("({key}, {value})")).collect::<Vec<_>>();
        if rows.is_empty() {
            return Ok(Typed::solid("'{}'::jsonb", Type::Object));
        }
        let which =
            if keep { "k is not null" } else { "k is not null and v is not null and jsonb_typeof(v) <> 'null'" };
        let sql = format!(
            "(select coalesce(jsonb_object_agg(k, v), '{{}}'::jsonb) from (values {}) o(k, v) where {which})",
            rows.join(", ")
        );
        Ok(Typed::solid(sql, Type::Object))
    }

    pub(super) fn date_part(&mut self, unit: &str, expression: &Expr) -> Result<Typed, SqlError> {
        let value = self.expression(expression)?;
        self.part_of(&unit.to_uppercase(), &value)
    }

    fn part_of(&mut self, unit: &str, value: &Typed) -> Result<Typed, SqlError> {
        let integer = Type::Fixed { precision: 18, scale: 0 };
        if unit.starts_with("EPOCH") {
            let instant = casts::cast(value, Type::TimestampLtz, "UTC")?;
            let factor = match unit {
                "EPOCH" | "EPOCH_SECOND" | "EPOCH_SECONDS" => "1",
                "EPOCH_MILLISECOND" | "EPOCH_MILLISECONDS" => "1000",
                "EPOCH_MICROSECOND" | "EPOCH_MICROSECONDS" => "1000000",
                "EPOCH_NANOSECOND" | "EPOCH_NANOSECONDS" => "1000000000",
                other => return Err(SqlError::unsupported(other)),
            };
            return Ok(Typed::new(format!("floor({instant} * {factor})"), integer));
        }
        let wall = casts::cast(value, Type::TimestampNtz, &self.around.zone)?;
        let (from, length) = match unit {
            "YEAR" => (1, 4),
            "MONTH" => (6, 2),
            "DAY" => (9, 2),
            "HOUR" => (12, 2),
            "MINUTE" => (15, 2),
            "SECOND" => (18, 2),
            other => return Err(SqlError::unsupported(other)),
        };
        Ok(Typed::new(format!("substr(emulator.ts_text({wall}, 0), {from}, {length})::numeric"), integer))
    }

    pub(super) fn round_to(&mut self, word: &str, expression: &Expr) -> Result<Typed, SqlError> {
        let value = self.expression(expression)?;
        let value = self.as_number(value)?;
        Ok(self.rounded(word, value))
    }

    fn rounded(&mut self, word: &str, value: Typed) -> Typed {
        let ty = match value.ty {
            Type::Fixed { precision, scale } => Type::Fixed { precision: (precision - scale + 1).min(38), scale: 0 },
            other => other,
        };
        Typed { sql: format!("{word}({})", value.sql), ty, ..value }
    }

    pub(super) fn substring(&mut self, text: &Expr, from: &Expr, count: Option<&Expr>) -> Result<Typed, SqlError> {
        let text = self.expression_as(text, Type::TEXT)?;
        let from = self.expression(from)?.sql;
        let count = count.map(|count| self.expression(count).map(|count| count.sql)).transpose()?;
        Ok(Typed::new(substring_sql(&text, &from, count.as_deref()), Type::TEXT))
    }

    /// GENERATOR and SYSTEM$STREAM_BACKLOG in FROM TABLE(…).
    pub(super) fn generator(&mut self, function: &Function) -> Result<(String, Vec<Column>), SqlError> {
        let FunctionArguments::List(list) = &function.args else { return Err(SqlError::unsupported(function)) };
        for argument in &list.args {
            if let FunctionArg::Named { name, arg: FunctionArgExpr::Expr(count), .. } = argument
                && name.value.eq_ignore_ascii_case("ROWCOUNT")
            {
                let count = self.expression(count)?.sql;
                let sql = format!("(select (n - 1)::numeric as \"$SEQ\" from generate_series(1, ({count})::bigint) n)");
                return Ok((sql, vec![Column { nullable: false, ..Column::new("$SEQ", Type::INTEGER) }]));
            }
        }
        Err(SqlError::unsupported(function))
    }
}

fn refuse_extras(function: &Function) -> Result<(), SqlError> {
    let parameters = !matches!(function.parameters, FunctionArguments::None);
    let clauses = matches!(&function.args, FunctionArguments::List(list) if !list.clauses.is_empty());
    if parameters
        || clauses
        || function.filter.is_some()
        || function.null_treatment.is_some()
        || function.uses_odbc_syntax
    {
        return Err(SqlError::unsupported(function));
    }
    Ok(())
}

/// `count(x)::numeric` with OVER inside the cast; `round(avg(x), 6)` inside the round.
fn over_aggregate(sql: &str, over: &str) -> String {
    if let Some(inner) = sql.strip_suffix("::numeric") {
        return format!("({inner}{over})::numeric");
    }
    match sql.strip_prefix("round(").and_then(|rest| rest.rsplit_once(", ")) {
        Some((inner, scale)) => format!("round({inner}{over}, {scale}"),
        None => format!("{sql}{over}"),
    }
}

fn frame_sql(frame: &ast::WindowFrame) -> Result<String, SqlError> {
    let bound = |bound: &ast::WindowFrameBound| match bound {
        ast::WindowFrameBound::CurrentRow => Ok("current row".to_owned()),
        ast::WindowFrameBound::Preceding(None) => Ok("unbounded preceding".to_owned()),
        ast::WindowFrameBound::Following(None) => Ok("unbounded following".to_owned()),
        ast::WindowFrameBound::Preceding(Some(count)) => whole(count).map(|count| format!("{count} preceding")),
        ast::WindowFrameBound::Following(Some(count)) => whole(count).map(|count| format!("{count} following")),
    };
    let start = bound(&frame.start_bound)?;
    Ok(match &frame.end_bound {
        Some(end) => format!("{} between {start} and {}", frame.units, bound(end)?),
        None => format!("{} {start}", frame.units),
    })
}

fn whole(expression: &Expr) -> Result<u64, SqlError> {
    expression.to_string().parse().map_err(|_| SqlError::unsupported(expression))
}

/// A value's text for hashing, led by the family of its type.
fn hashed(value: &Typed) -> String {
    let x = &value.sql;
    let text = match value.ty {
        Type::Fixed { .. } => format!("'n' || trim_scale({x})::text"),
        Type::Real => format!(
            "'n' || case when {x} in ('NaN', 'Infinity', '-Infinity') then {x}::text else trim_scale({x}::numeric)::text end"
        ),
        Type::TimestampTz => format!("'z' || (({x}).utc)::text || ' ' || (({x}).minutes)::text"),
        Type::Date => format!("'d' || ({x})::text"),
        Type::Boolean => format!("'b' || ({x})::text"),
        Type::Binary { .. } => format!("'x' || encode({x}, 'hex')"),
        Type::Text { .. } => format!("'s' || {x}"),
        Type::Time | Type::TimestampNtz | Type::TimestampLtz => format!("'t' || round({x}, 9)::text"),
        Type::Variant | Type::Object | Type::Array => format!("'v' || ({x})::text"),
    };
    format!("coalesce({text}, '0')")
}

/// SUBSTR counts from the end when the position is negative.
fn substring_sql(text: &str, from: &str, count: Option<&str>) -> String {
    let start = format!(
        "(case when {from} < 0 then greatest(length({text}) + 1 + {from}, 1) when {from} = 0 then 1 else {from} end)::int"
    );
    match count {
        Some(count) => format!("substr({text}, {start}, greatest(({count})::int, 0))"),
        None => format!("substr({text}, {start})"),
    }
}

fn takes_unit(function: &str) -> bool {
    matches!(function, "DATEADD" | "TIMESTAMPADD" | "DATEDIFF" | "TIMESTAMPDIFF" | "DATE_PART")
}

fn unit_of(value: &Typed) -> &str {
    value.sql.trim_end_matches("::text").trim_matches('\'')
}

/// Seconds in a unit of fixed length.
fn seconds_of(unit: &str) -> Result<&'static str, SqlError> {
    Ok(match unit.to_uppercase().as_str() {
        "WEEK" | "WEEKS" => "604800",
        "DAY" | "DAYS" => "86400",
        "HOUR" | "HOURS" => "3600",
        "MINUTE" | "MINUTES" => "60",
        "SECOND" | "SECONDS" => "1",
        "MILLISECOND" | "MILLISECONDS" | "MS" => "0.001",
        "MICROSECOND" | "MICROSECONDS" | "US" => "0.000001",
        "NANOSECOND" | "NANOSECONDS" | "NS" => "0.000000001",
        other => return Err(SqlError::unsupported(other)),
    })
}

fn date_add(unit: &str, count: &Typed, value: &Typed) -> Result<Typed, SqlError> {
    let seconds = seconds_of(unit)?;
    let days = matches!(seconds, "604800" | "86400");
    Ok(match value.ty {
        Type::Date if days => {
            Typed::new(format!("({} + (round({}) * {seconds} / 86400)::int)", value.sql, count.sql), Type::Date)
        }
        Type::TimestampTz => Typed::new(
            format!("row(({0}).utc + round({1}) * {seconds}, ({0}).minutes)::emulator.tstz", value.sql, count.sql),
            Type::TimestampTz,
        ),
        Type::TimestampNtz | Type::TimestampLtz => {
            Typed::new(format!("({} + round({}) * {seconds})", value.sql, count.sql), value.ty)
        }
        _ => {
            let wall = casts::cast(value, Type::TimestampNtz, "UTC")?;
            Typed::new(format!("({wall} + round({}) * {seconds})", count.sql), Type::TimestampNtz)
        }
    })
}
