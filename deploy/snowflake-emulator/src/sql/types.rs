//! Snowflake's types: how they are written, kept in Postgres and described in a result.

use serde::{Deserialize, Serialize};
use sqlparser::ast::{self, CharacterLength, ExactNumberInfo, TimezoneInfo};

use super::error::SqlError;

/// The longest VARCHAR, in characters, and the default.
pub const TEXT_LENGTH_MAX: u64 = 16_777_216;
/// The longest BINARY, in bytes, and the default.
pub const BINARY_LENGTH_MAX: u64 = 8_388_608;
/// The most digits a NUMBER has.
pub const PRECISION_MAX: u32 = 38;

/// A type of a column or an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Type {
    /// NUMBER(precision, scale); kept as `numeric`.
    Fixed { precision: u32, scale: u32 },
    /// FLOAT; kept as `float8`.
    Real,
    /// VARCHAR(length); kept as `text`.
    Text { length: u64 },
    /// BOOLEAN.
    Boolean,
    /// BINARY(length); kept as `bytea`.
    Binary { length: u64 },
    /// DATE.
    Date,
    /// TIME(9); kept as `numeric` seconds since midnight.
    Time,
    /// TIMESTAMP_NTZ(9); kept as `numeric` seconds since the epoch, the wall clock taken as UTC.
    TimestampNtz,
    /// TIMESTAMP_LTZ(9); kept as `numeric` seconds since the epoch.
    TimestampLtz,
    /// TIMESTAMP_TZ(9); kept as `emulator.tstz`: instant and offset in minutes.
    TimestampTz,
    /// VARIANT; kept as `jsonb`.
    Variant,
    /// OBJECT; kept as `jsonb`.
    Object,
    /// ARRAY; kept as `jsonb`.
    Array,
}

impl Type {
    /// NUMBER(38, 0), the type of INT.
    pub const INTEGER: Self = Self::Fixed { precision: 38, scale: 0 };
    /// VARCHAR without a length.
    pub const TEXT: Self = Self::Text { length: TEXT_LENGTH_MAX };
    /// BINARY without a length.
    pub const BINARY: Self = Self::Binary { length: BINARY_LENGTH_MAX };

    /// Returns the type that SQL names.
    ///
    /// # Errors
    /// 002040 for a type that Snowflake does not have or this emulator does not know.
    pub fn parse(written: &ast::DataType) -> Result<Self, SqlError> {
        use ast::DataType as D;
        let found = match written {
            D::Numeric(info) | D::Decimal(info) | D::Dec(info) => fixed(info)?,
            D::TinyInt(_) | D::SmallInt(_) | D::Int(_) | D::Integer(_) | D::BigInt(_) => Self::INTEGER,
            D::Float(_) | D::Float4 | D::Float8 | D::Real | D::Double(_) | D::DoublePrecision | D::Float64 => {
                Self::Real
            }
            D::Character(length) | D::Char(length) => text(length.as_ref(), 1),
            D::CharacterVarying(length) | D::CharVarying(length) | D::Varchar(length) | D::Nvarchar(length) => {
                text(length.as_ref(), TEXT_LENGTH_MAX)
            }
            D::Text => Self::TEXT,
            D::String(length) => Self::Text { length: length.unwrap_or(TEXT_LENGTH_MAX) },
            D::Boolean | D::Bool => Self::Boolean,
            D::Binary(length) => Self::Binary { length: length.unwrap_or(BINARY_LENGTH_MAX) },
            D::Varbinary(length) => Self::Binary {
                length: match length {
                    Some(ast::BinaryLength::IntegerLength { length }) => *length,
                    Some(ast::BinaryLength::Max) | None => BINARY_LENGTH_MAX,
                },
            },
            D::Date => Self::Date,
            D::Time(_, _) => Self::Time,
            D::Datetime(_) | D::TimestampNtz(_) => Self::TimestampNtz,
            D::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => Self::TimestampNtz,
            D::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => Self::TimestampTz,
            D::Array(_) => Self::Array,
            D::Custom(name, arguments) => custom(&name.to_string(), arguments).ok_or_else(|| {
                SqlError::compilation("002040", "42601", format!("Unsupported data type '{written}'."))
            })?,
            _ => return Err(SqlError::compilation("002040", "42601", format!("Unsupported data type '{written}'."))),
        };
        Ok(found)
    }

    /// Returns how Postgres keeps a column of this type.
    pub fn storage(self) -> String {
        match self {
            Self::Fixed { precision, scale } => format!("numeric({precision},{scale})"),
            Self::Real => "float8".into(),
            Self::Text { .. } => "text collate \"C\"".into(),
            Self::Boolean => "boolean".into(),
            Self::Binary { .. } => "bytea".into(),
            Self::Date => "date".into(),
            Self::Time => "numeric(14,9)".into(),
            Self::TimestampNtz | Self::TimestampLtz => "numeric(21,9)".into(),
            Self::TimestampTz => "emulator.tstz".into(),
            Self::Variant | Self::Object | Self::Array => "jsonb".into(),
        }
    }

    /// Returns the Postgres type for a cast.
    pub fn cast_name(self) -> String {
        self.storage().replace(" collate \"C\"", "")
    }

    /// Returns the name that SHOW, DESCRIBE and error texts print, with its size.
    pub fn sql_name(self) -> String {
        match self {
            Self::Fixed { precision, scale } => format!("NUMBER({precision},{scale})"),
            Self::Text { length } => format!("VARCHAR({length})"),
            Self::Binary { length } => format!("BINARY({length})"),
            Self::Time => "TIME(9)".into(),
            Self::TimestampNtz => "TIMESTAMP_NTZ(9)".into(),
            Self::TimestampLtz => "TIMESTAMP_LTZ(9)".into(),
            Self::TimestampTz => "TIMESTAMP_TZ(9)".into(),
            Self::Real | Self::Boolean | Self::Date | Self::Variant | Self::Object | Self::Array => {
                self.schema_name().into()
            }
        }
    }

    /// Returns the name in `information_schema.columns.data_type`.
    pub fn schema_name(self) -> &'static str {
        match self {
            Self::Fixed { .. } => "NUMBER",
            Self::Real => "FLOAT",
            Self::Text { .. } => "TEXT",
            Self::Boolean => "BOOLEAN",
            Self::Binary { .. } => "BINARY",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::TimestampNtz => "TIMESTAMP_NTZ",
            Self::TimestampLtz => "TIMESTAMP_LTZ",
            Self::TimestampTz => "TIMESTAMP_TZ",
            Self::Variant => "VARIANT",
            Self::Object => "OBJECT",
            Self::Array => "ARRAY",
        }
    }

    /// Returns `rowType.type`: lower case, as the SQL API answers.
    pub fn wire_name(self) -> &'static str {
        match self {
            Self::Fixed { .. } => "fixed",
            Self::Real => "real",
            Self::Text { .. } => "text",
            Self::Boolean => "boolean",
            Self::Binary { .. } => "binary",
            Self::Date => "date",
            Self::Time => "time",
            Self::TimestampNtz => "timestamp_ntz",
            Self::TimestampLtz => "timestamp_ltz",
            Self::TimestampTz => "timestamp_tz",
            Self::Variant => "variant",
            Self::Object => "object",
            Self::Array => "array",
        }
    }

    /// Returns `rowType` precision and scale; null where the documents show null.
    pub fn wire_precision(self) -> (Option<u32>, Option<u32>) {
        match self {
            Self::Fixed { precision, scale } => (Some(precision), Some(scale)),
            Self::Time | Self::TimestampNtz | Self::TimestampLtz | Self::TimestampTz => (Some(0), Some(9)),
            Self::Real | Self::Text { .. } | Self::Boolean | Self::Binary { .. } | Self::Date => (None, None),
            Self::Variant | Self::Object | Self::Array => (None, None),
        }
    }

    /// Returns `rowType` length (characters or bytes) and byteLength; null where not applicable.
    pub fn wire_length(self) -> (Option<u64>, Option<u64>) {
        match self {
            Self::Text { length } => (Some(length), Some((length * 4).min(TEXT_LENGTH_MAX))),
            Self::Binary { length } => (Some(length), Some(length)),
            _ => (None, None),
        }
    }

    /// Returns the SQL that turns a Postgres expression of this type into the text of a result cell.
    pub fn encode(self, sql: &str) -> String {
        match self {
            Self::Fixed { scale, .. } => format!("round({sql}, {scale})::text"),
            Self::Real => format!("emulator.float_text({sql})"),
            Self::Text { .. } => sql.to_owned(),
            Self::Boolean => format!("({sql})::text"),
            Self::Binary { .. } => format!("upper(encode({sql}, 'hex'))"),
            Self::Date => format!("({sql} - date '1970-01-01')::text"),
            Self::Time | Self::TimestampNtz | Self::TimestampLtz => format!("round({sql}, 9)::text"),
            Self::TimestampTz => format!("(round(({sql}).utc, 9)::text || ' ' || (({sql}).minutes + 1440)::text)"),
            Self::Variant | Self::Object | Self::Array => format!("({sql})::text"),
        }
    }

    /// Whether the type is kept as JSON.
    pub fn is_semi_structured(self) -> bool {
        matches!(self, Self::Variant | Self::Object | Self::Array)
    }
}

fn fixed(info: &ExactNumberInfo) -> Result<Type, SqlError> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => (38, 0),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let scale = u64::try_from(scale).unwrap_or(u64::MAX);
    if precision == 0 || precision > u64::from(PRECISION_MAX) || scale > precision || scale > 37 {
        return Err(SqlError::compilation(
            "002045",
            "42601",
            format!("invalid precision or scale: ({precision}, {scale})"),
        ));
    }
    Ok(Type::Fixed { precision: precision as u32, scale: scale as u32 })
}

fn text(length: Option<&CharacterLength>, default: u64) -> Type {
    match length {
        Some(CharacterLength::IntegerLength { length, .. }) => Type::Text { length: *length },
        Some(CharacterLength::Max) => Type::TEXT,
        None => Type::Text { length: default },
    }
}

fn custom(name: &str, arguments: &[String]) -> Option<Type> {
    let number = |at: usize| arguments.get(at).and_then(|text| text.trim().parse::<u64>().ok());
    Some(match name.to_uppercase().as_str() {
        "NUMBER" => {
            let (precision, scale) = (number(0).unwrap_or(38), number(1).unwrap_or(0));
            if precision == 0 || precision > 38 || scale > precision {
                return None;
            }
            Type::Fixed { precision: precision as u32, scale: scale as u32 }
        }
        "BYTEINT" => Type::INTEGER,
        "VARIANT" => Type::Variant,
        "OBJECT" => Type::Object,
        "ARRAY" => Type::Array,
        "TIMESTAMP_NTZ" | "TIMESTAMPNTZ" => Type::TimestampNtz,
        "TIMESTAMP_LTZ" | "TIMESTAMPLTZ" => Type::TimestampLtz,
        "TIMESTAMP_TZ" | "TIMESTAMPTZ" => Type::TimestampTz,
        "STRING" | "NVARCHAR2" => Type::Text { length: number(0).unwrap_or(TEXT_LENGTH_MAX) },
        _ => return None,
    })
}

/// A column of a table or of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name as SHOW prints it.
    pub name: String,
    /// The type.
    pub ty: Type,
    /// Whether it may hold NULL.
    pub nullable: bool,
}

impl Column {
    /// Makes a column that may be null.
    pub fn new(name: &str, ty: Type) -> Self {
        Self { name: name.into(), ty, nullable: true }
    }

    /// Makes a text column, as SHOW has many.
    pub fn text(name: &str) -> Self {
        Self::new(name, Type::TEXT)
    }
}
