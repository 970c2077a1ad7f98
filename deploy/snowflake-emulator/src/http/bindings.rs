//! Bind variables: texts with a type, in the units of the SQL API (ms and ns).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::sql::bind::Binding;
use crate::sql::error::SqlError;
use crate::sql::names::literal;
use crate::sql::types::Type;

/// A bind variable as it is sent.
#[derive(Debug, Clone, Deserialize)]
pub struct Written {
    #[serde(rename = "type")]
    kind: String,
    value: Option<String>,
}

/// Reads the bindings in the order of their numbers.
///
/// # Errors
/// 100037 for a value that is not of its type.
pub fn read(written: &BTreeMap<String, Written>) -> Result<Vec<Binding>, SqlError> {
    let mut numbered: Vec<(usize, &Written)> = Vec::new();
    for (name, one) in written {
        let number = name
            .parse()
            .map_err(|_| SqlError::compilation("002049", "42601", format!("Bind variable {name} is not a number.")))?;
        numbered.push((number, one));
    }
    numbered.sort_by_key(|(number, _)| *number);
    numbered.into_iter().map(|(_, one)| binding(one)).collect()
}

fn binding(written: &Written) -> Result<Binding, SqlError> {
    let ty = match written.kind.to_uppercase().as_str() {
        "FIXED" => fixed_type(written.value.as_deref()),
        "REAL" => Type::Real,
        "TEXT" => Type::TEXT,
        "BINARY" => Type::BINARY,
        "BOOLEAN" => Type::Boolean,
        "DATE" => Type::Date,
        "TIME" => Type::Time,
        "TIMESTAMP_NTZ" => Type::TimestampNtz,
        "TIMESTAMP_LTZ" => Type::TimestampLtz,
        "TIMESTAMP_TZ" => Type::TimestampTz,
        other => return Err(SqlError::new("100037", "22018", format!("Bind type {other} is not recognized"))),
    };
    let Some(value) = &written.value else {
        return Ok(Binding { ty, sql: format!("null::{}", ty.cast_name()) });
    };
    let sql = bound(ty, value).ok_or_else(|| {
        SqlError::new("100037", "22018", format!("{} value '{value}' is not recognized", written.kind.to_uppercase()))
    })?;
    Ok(Binding { ty, sql })
}

fn fixed_type(value: Option<&str>) -> Type {
    let fraction = value.and_then(|text| text.split_once('.')).map_or(0, |(_, fraction)| fraction.len());
    Type::Fixed { precision: 38, scale: (fraction as u32).min(37) }
}

/// The value as a Postgres expression; none when it does not parse.
fn bound(ty: Type, value: &str) -> Option<String> {
    let whole = |text: &str| text.parse::<i128>().ok();
    Some(match ty {
        Type::Fixed { .. } => {
            let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
            let valid = !digits.is_empty()
                && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
                && digits.matches('.').count() <= 1;
            if !valid {
                return None;
            }
            format!("{}::numeric", literal(value))
        }
        Type::Real => format!("{}::float8", literal(&value.parse::<f64>().ok()?.to_string())),
        Type::Text { .. } => format!("{}::text", literal(value)),
        Type::Binary { .. } => {
            if !value.len().is_multiple_of(2) || !value.chars().all(|c| c.is_ascii_hexdigit()) {
                return None;
            }
            format!("decode({}, 'hex')", literal(value))
        }
        Type::Boolean => match value.to_lowercase().as_str() {
            "true" | "1" => "true".into(),
            "false" | "0" => "false".into(),
            _ => return None,
        },
        Type::Date => format!("(date '1970-01-01' + {})", whole(value)?.div_euclid(86_400_000)),
        Type::Time => format!("({}::numeric * 0.000000001)::numeric(14,9)", whole(value)?),
        Type::TimestampNtz | Type::TimestampLtz => format!("({}::numeric * 0.000000001)::numeric(21,9)", whole(value)?),
        Type::TimestampTz => {
            let (instant, offset) = value.split_once(' ')?;
            let minutes = whole(offset)? - 1440;
            format!("row(({}::numeric * 0.000000001)::numeric(21,9), {minutes})::emulator.tstz", whole(instant)?)
        }
        Type::Variant | Type::Object | Type::Array => return None,
    })
}
