//! Conversions between types, and the type that two expressions have in common.

use super::Typed;
use crate::sql::error::SqlError;
use crate::sql::types::{PRECISION_MAX, Type};

/// Returns the type that values of both expressions can take.
pub(super) fn common(left: &Typed, right: &Typed) -> Type {
    if left.is_null {
        return right.ty;
    }
    if right.is_null {
        return left.ty;
    }
    common_type(left.ty, right.ty)
}

fn common_type(left: Type, right: Type) -> Type {
    use Type as T;
    match (left, right) {
        (a, b) if a == b => a,
        (T::Fixed { precision: p1, scale: s1 }, T::Fixed { precision: p2, scale: s2 }) => {
            let scale = s1.max(s2);
            T::Fixed { precision: ((p1 - s1).max(p2 - s2) + scale).min(PRECISION_MAX), scale }
        }
        (T::Text { length: a }, T::Text { length: b }) => T::Text { length: a.max(b) },
        (T::Binary { length: a }, T::Binary { length: b }) => T::Binary { length: a.max(b) },
        (a, _) if a.is_semi_structured() => T::Variant,
        (_, b) if b.is_semi_structured() => T::Variant,
        // A text beside another type is read as that type.
        (T::Text { .. }, T::Fixed { .. }) | (T::Fixed { .. }, T::Text { .. }) => T::Fixed { precision: 38, scale: 5 },
        (T::Text { .. }, other) | (other, T::Text { .. }) => other,
        (T::Real, T::Fixed { .. }) | (T::Fixed { .. }, T::Real) => T::Real,
        (T::TimestampTz, _) | (_, T::TimestampTz) => T::TimestampTz,
        (T::TimestampLtz, _) | (_, T::TimestampLtz) => T::TimestampLtz,
        (T::TimestampNtz, _) | (_, T::TimestampNtz) => T::TimestampNtz,
        (a, _) => a,
    }
}

/// Returns SQL for `from` as `to`; `zone` is the session's time zone.
///
/// # Errors
/// 001007 when Snowflake has no such conversion.
pub fn cast(from: &Typed, to: Type, zone: &str) -> Result<String, SqlError> {
    use Type as T;
    let x = &from.sql;
    if from.is_null {
        return Ok(format!("null::{}", to.cast_name()));
    }
    let zone = crate::sql::names::literal(zone);
    Ok(match (from.ty, to) {
        (a, b) if a == b => x.clone(),
        (_, T::Text { length }) => fit(&as_text(from, &zone), from.ty, length),
        (T::Variant | T::Object | T::Array, T::Variant) => x.clone(),
        (a, T::Variant) => to_variant(a, x, &as_text(from, &zone)),
        (T::Variant, T::Object) => format!("emulator.as_kind({x}, 'object')"),
        (T::Variant, T::Array) => {
            format!("case when jsonb_typeof({x}) = 'array' then {x} else jsonb_build_array({x}) end")
        }
        (T::Variant, _) => cast(&Typed::new(format!("({x} #>> '{{}}')"), Type::TEXT), to, zone.trim_matches('\''))?,
        (T::Fixed { precision: p1, scale: s1 }, T::Fixed { precision, scale }) => {
            if scale >= s1 && precision - scale >= p1 - s1 {
                x.clone()
            } else {
                format!("({x})::numeric({precision},{scale})")
            }
        }
        (T::Text { .. }, T::Fixed { precision, scale }) => {
            format!("emulator.to_number({x})::numeric({precision},{scale})")
        }
        (T::Real, T::Fixed { precision, scale }) => format!("({x})::numeric::numeric({precision},{scale})"),
        (T::Boolean, T::Fixed { .. }) => format!("({x})::int::numeric"),
        (T::Fixed { .. }, T::Real) => format!("({x})::float8"),
        (T::Text { .. }, T::Real) => format!("emulator.to_float({x})"),
        (T::Boolean, T::Real) => format!("({x})::int::float8"),
        (T::Text { .. }, T::Boolean) => format!("emulator.to_boolean({x})"),
        (T::Fixed { .. } | T::Real, T::Boolean) => format!("({x} <> 0)"),
        (T::Text { .. }, T::Binary { .. }) => format!("decode({x}, 'hex')"),
        (T::Binary { .. }, T::Binary { .. }) => x.clone(),
        (T::Text { .. }, T::Date) => format!("(date '1970-01-01' + floor(emulator.to_ntz({x}) / 86400)::int)"),
        (T::TimestampNtz, T::Date) => format!("(date '1970-01-01' + floor({x} / 86400)::int)"),
        (T::TimestampLtz | T::TimestampTz, T::Date | T::Time) => {
            let wall = Typed::new(cast(from, T::TimestampNtz, zone.trim_matches('\''))?, T::TimestampNtz);
            cast(&wall, to, "")?
        }
        (T::Text { .. }, T::Time) => format!("emulator.to_time({x})"),
        (T::TimestampNtz, T::Time) => format!("({x} - floor({x} / 86400) * 86400)"),
        (T::Text { .. }, T::TimestampNtz) => format!("emulator.to_ntz({x})"),
        (T::Text { .. }, T::TimestampLtz) => format!("emulator.to_ltz({x}, {zone})"),
        (T::Text { .. }, T::TimestampTz) => format!("emulator.to_tz({x}, {zone})"),
        (T::Date, T::TimestampNtz) => format!("(({x} - date '1970-01-01')::numeric * 86400)"),
        (T::Fixed { .. }, T::TimestampNtz | T::TimestampLtz) => format!("({x})::numeric(21,9)"),
        (T::TimestampLtz, T::TimestampNtz) => format!("({x} + emulator.zone_offset_at({x}, {zone}) * 60)"),
        (T::TimestampTz, T::TimestampNtz) => format!("(({x}).utc + ({x}).minutes * 60)"),
        (T::TimestampNtz, T::TimestampLtz) => format!("({x} - emulator.zone_offset({x}, {zone}) * 60)"),
        (T::TimestampTz, T::TimestampLtz) => format!("({x}).utc"),
        (T::TimestampLtz, T::TimestampTz) => format!("row({x}, emulator.zone_offset_at({x}, {zone}))::emulator.tstz"),
        (T::TimestampNtz, T::TimestampTz) => format!("emulator.ntz_to_tz({x}, {zone})"),
        (T::Date, T::TimestampLtz | T::TimestampTz) => {
            let wall = Typed::new(cast(from, T::TimestampNtz, "")?, T::TimestampNtz);
            cast(&wall, to, zone.trim_matches('\''))?
        }
        (a, b) => {
            return Err(SqlError::compilation(
                "001065",
                "22023",
                format!("Function CAST cannot be used with arguments of types {} and {}", a.sql_name(), b.sql_name()),
            ));
        }
    })
}

/// The text of a value in Snowflake's default output formats.
fn as_text(from: &Typed, zone: &str) -> String {
    let x = &from.sql;
    match from.ty {
        Type::Text { .. } => x.clone(),
        Type::Date => format!("to_char({x}, 'YYYY-MM-DD')"),
        Type::Time => format!("substr(emulator.ts_text({x}, 0), 12)"),
        Type::TimestampNtz => format!("emulator.ts_text({x}, 3)"),
        Type::TimestampLtz => format!(
            "(emulator.ts_text({x} + emulator.zone_offset_at({x}, {zone}) * 60, 3) || ' ' || emulator.offset_text(emulator.zone_offset_at({x}, {zone})))"
        ),
        Type::TimestampTz => format!(
            "(emulator.ts_text(({x}).utc + ({x}).minutes * 60, 3) || ' ' || emulator.offset_text(({x}).minutes))"
        ),
        Type::Variant | Type::Object | Type::Array => format!("({x} #>> '{{}}')"),
        Type::Fixed { .. } | Type::Real | Type::Boolean | Type::Binary { .. } => from.ty.encode(x),
    }
}

/// Refuses a text that is longer than its new type, as Snowflake does.
fn fit(text: &str, from: Type, length: u64) -> String {
    match from {
        Type::Text { length: has } if has <= length => text.to_owned(),
        _ if length >= crate::sql::types::TEXT_LENGTH_MAX => text.to_owned(),
        _ => format!("emulator.fit({text}, {length})"),
    }
}

fn to_variant(from: Type, x: &str, text: &str) -> String {
    match from {
        Type::Fixed { .. } | Type::Real | Type::Boolean => format!("to_jsonb({x})"),
        _ => format!("to_jsonb(({text})::text)"),
    }
}
