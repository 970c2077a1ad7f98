//! Failures of statements, with Snowflake's codes.

/// Why a statement failed: what the 422 body carries.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{code} ({state}): {message}")]
pub struct SqlError {
    /// Snowflake's six digits.
    pub code: String,
    /// The SQLSTATE.
    pub state: String,
    /// The sentence that the user sees.
    pub message: String,
}

impl SqlError {
    /// Makes an error from its three parts.
    pub fn new(code: &str, state: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), state: state.into(), message: message.into() }
    }

    /// Makes an error with Snowflake's heading for what is wrong in the text of a statement.
    pub fn compilation(code: &str, state: &str, message: impl std::fmt::Display) -> Self {
        Self::new(code, state, format!("SQL compilation error:\n{message}"))
    }

    /// 001003: the text does not parse, or this emulator does not know it.
    pub fn syntax(message: impl std::fmt::Display) -> Self {
        Self::compilation("001003", "42000", format!("syntax error {message}"))
    }

    /// 001003 for SQL that Snowflake accepts and this emulator does not: never a pretended success.
    pub fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::syntax(format!("unexpected '{what}'. (snowflake-emulator does not support this)"))
    }

    /// 002003: no such object, or no right to it.
    pub fn missing(kind: &str, name: impl std::fmt::Display) -> Self {
        Self::compilation("002003", "42S02", format!("{kind} '{name}' does not exist or not authorized."))
    }

    /// 002002: the name is taken.
    pub fn exists(name: &str) -> Self {
        Self::compilation("002002", "42710", format!("Object '{name}' already exists."))
    }

    /// 000904: no such column.
    pub fn identifier(name: &str) -> Self {
        Self::compilation("000904", "42000", format!("error line 1 at position 0\ninvalid identifier '{name}'"))
    }

    /// 001007 and friends: arguments of the wrong type or number.
    pub fn arguments(function: &str, given: usize) -> Self {
        Self::compilation(
            "000938",
            "22023",
            format!(
                "error line 1 at position 0\nnot enough or too many arguments for function [{function}], got {given}"
            ),
        )
    }

    /// 000604: cancelled by a user.
    pub fn cancelled() -> Self {
        Self::new("000604", "57014", "SQL execution canceled")
    }
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return Self::new("000603", "XX000", format!("SQL execution internal error: {error}"));
        };
        let message = database.message().to_owned();
        match database.code().as_deref().unwrap_or_default() {
            "57014" => Self::cancelled(),
            "22012" => Self::new("100051", "22012", "Division by zero"),
            "22P02" | "22007" | "22008" => Self::new("100038", "22018", message),
            "22003" => Self::new("100039", "22003", format!("Numeric value out of range: {message}")),
            "23502" => Self::new("100072", "22000", "NULL result in a non-nullable column"),
            "21000" => Self::new("090150", "22000", "Single-row subquery returns more than one row."),
            "42803" => Self::compilation("000979", "42601", format!("not a valid group by expression: {message}")),
            "40001" | "40P01" => Self::new("000625", "57014", "Statement was aborted because of a lock conflict"),
            "23505" => Self::compilation("002002", "42710", "Object already exists."),
            state => Self::new("000603", "XX000", format!("SQL execution internal error: {state} {message}")),
        }
    }
}
