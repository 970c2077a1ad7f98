//! Names: folding to upper case, qualification, quoting.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use super::error::SqlError;

/// What unqualified names mean in a session.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The current database.
    pub database: Option<String>,
    /// The current schema.
    pub schema: Option<String>,
}

/// A schema object's full name, as SHOW prints it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FullName {
    pub database: String,
    pub schema: String,
    pub name: String,
}

impl std::fmt::Display for FullName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", printed(&self.database), printed(&self.schema), printed(&self.name))
    }
}

impl Context {
    /// Completes a name of one to three parts.
    ///
    /// # Errors
    /// 090105 or 090106 when the session has no current database or schema.
    pub fn complete(&self, parts: &[String]) -> Result<FullName, SqlError> {
        let database = || self.database.clone().ok_or_else(no_database);
        let schema = || self.schema.clone().ok_or_else(no_schema);
        match parts {
            [name] => Ok(FullName { database: database()?, schema: schema()?, name: name.clone() }),
            [schema, name] => Ok(FullName { database: database()?, schema: schema.clone(), name: name.clone() }),
            // `db..name` means the schema PUBLIC.
            [database, schema, name] => Ok(FullName {
                database: database.clone(),
                schema: if schema.is_empty() { "PUBLIC".into() } else { schema.clone() },
                name: name.clone(),
            }),
            _ => Err(SqlError::syntax(format!("unexpected name '{}'", parts.join(".")))),
        }
    }

    /// Completes a schema's name of one or two parts into (database, schema).
    ///
    /// # Errors
    /// 090105 when there is no current database.
    pub fn complete_schema(&self, parts: &[String]) -> Result<(String, String), SqlError> {
        match parts {
            [schema] => Ok((self.database.clone().ok_or_else(no_database)?, schema.clone())),
            [database, schema] => Ok((database.clone(), schema.clone())),
            _ => Err(SqlError::syntax(format!("unexpected name '{}'", parts.join(".")))),
        }
    }
}

fn no_database() -> SqlError {
    SqlError::new(
        "090105",
        "22000",
        "Cannot perform operation. This session does not have a current database. Call 'USE DATABASE', or use a qualified name.",
    )
}

fn no_schema() -> SqlError {
    SqlError::new(
        "090106",
        "22000",
        "Cannot perform operation. This session does not have a current schema. Call 'USE SCHEMA', or use a qualified name.",
    )
}

/// Folds an identifier: as written when quoted, else upper case.
pub fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_uppercase() }
}

/// Folds the parts of a name.
///
/// # Errors
/// 001003 for a name that is computed (IDENTIFIER).
pub fn parts(name: &ObjectName) -> Result<Vec<String>, SqlError> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Ok(fold(ident)),
            ObjectNamePart::Function(_) => Err(SqlError::unsupported(name)),
        })
        .collect()
}

/// Splits a name written in a string, as `SYSTEM$STREAM_HAS_DATA('db.schema."s"')` takes it.
///
/// # Errors
/// 001003 when a quote is left open or a part is empty.
pub fn parse(text: &str) -> Result<Vec<String>, SqlError> {
    let (mut found, mut part, mut quoted, mut was_quoted) = (Vec::new(), String::new(), false, false);
    let mut characters = text.trim().chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                part.push('"');
            }
            '"' => {
                quoted = !quoted;
                was_quoted = true;
            }
            '.' if !quoted => {
                found.push(if was_quoted {
                    std::mem::take(&mut part)
                } else {
                    std::mem::take(&mut part).to_uppercase()
                });
                was_quoted = false;
            }
            _ => part.push(character),
        }
    }
    found.push(if was_quoted { part } else { part.to_uppercase() });
    if quoted || found.iter().all(String::is_empty) {
        return Err(SqlError::syntax(format!("unexpected name '{text}'")));
    }
    Ok(found)
}

/// Prints a name the way Snowflake does: quoted only when it must be.
pub fn printed(name: &str) -> String {
    let plain = name.chars().enumerate().all(|(at, character)| {
        character == '_'
            || character.is_ascii_uppercase()
            || (at > 0 && (character.is_ascii_digit() || character == '$'))
    });
    if plain && !name.is_empty() { name.to_owned() } else { quoted(name) }
}

/// Quotes a name for SQL; the same rule in Snowflake and Postgres.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string for Postgres.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_string_folds_only_what_is_not_quoted() {
        let found = parse(r#"db."Mixed ""x"".y".s1"#).expect("it is a name");

        assert_eq!(found, ["DB", r#"Mixed "x".y"#, "S1"]);
    }

    #[test]
    fn a_name_is_printed_with_quotes_only_when_it_needs_them() {
        assert_eq!(printed("A_1$"), "A_1$");
        assert_eq!(printed("1A"), "\"1A\"");
        assert_eq!(printed("a"), "\"a\"");
    }
}
