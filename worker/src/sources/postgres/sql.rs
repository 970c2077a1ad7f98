//! The check of a model's statement, and quoting.
//!
//! Rights and the read-only session are the wall; this check is the door that says why.

use freshet_core::connector::{Column, ModelSpec};
use freshet_core::error::{Error, Result};
use sqlparser::ast::ObjectName;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::sources::select::{self, Refuse};

/// Functions that change the session, the server or large objects. Rights stop many of them too.
const FORBIDDEN: &[&str] = &[
    "set_config",
    "nextval",
    "setval",
    "pg_notify",
    "pg_cancel_backend",
    "pg_terminate_backend",
    "pg_log_backend_memory_contexts",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_promote",
    "pg_switch_wal",
    "pg_export_snapshot",
    "pg_file_write",
    "pg_stat_file",
    "lo_creat",
    "lo_create",
    "lo_export",
    "lo_from_bytea",
    "lo_import",
    "lo_open",
    "lo_put",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
    "lowrite",
];

/// How the names of whole families begin: other servers, files, locks, waits, replication, SQL in a text.
const FORBIDDEN_FAMILIES: &[&str] = &[
    "dblink",
    "pg_read_",
    "pg_ls_",
    "pg_advisory_",
    "pg_try_advisory_",
    "pg_sleep",
    "pg_create_",
    "pg_drop_",
    "pg_copy_",
    "pg_logical_",
    "pg_replication_",
    "pg_wal_replay_",
    "pg_stat_reset",
    "query_to_xml",
    "cursor_to_xml",
];

/// Checks a model before it is saved.
///
/// # Errors
/// `model.syntax`, `model.multiple_statements`, `model.not_select`; `request.invalid` for an empty or huge text.
pub(super) fn validate_model(model: &ModelSpec) -> Result<()> {
    match model {
        ModelSpec::Table { schema, table } => {
            for (pointer, name) in [("/spec/schema", schema), ("/spec/table", table)] {
                if name.is_empty() || name.len() > 63 || name.contains('\0') {
                    return Err(Error::invalid(pointer, "must have 1 to 63 bytes"));
                }
            }
            Ok(())
        }
        ModelSpec::Sql { sql } => check_select(sql),
        ModelSpec::Stream { .. } => Err(no_streams()),
    }
}

/// Only Snowflake has Streams.
pub(super) fn no_streams() -> Error {
    Error::invalid("/spec/kind", "must be `table` or `sql`: PostgreSQL has no Streams")
}

fn check_select(sql: &str) -> Result<()> {
    select::check::<Functions>(&PostgreSqlDialect {}, sql)?;
    if has_escaped_name(sql) { Err(select::not_select("U&\"…\" hides a name")) } else { Ok(()) }
}

/// Whether a name is written with Unicode escapes: the parser takes `U&"n"` for `U & "n"`, the server for `n`.
fn has_escaped_name(sql: &str) -> bool {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap_or_default();
    tokens.array_windows().any(|[prefix, and, name]| match (prefix, and, name) {
        (Token::Word(prefix), Token::Ampersand, Token::Word(name)) => {
            prefix.quote_style.is_none() && prefix.value.eq_ignore_ascii_case("u") && name.quote_style.is_some()
        }
        _ => false,
    })
}

/// The functions that are not for models.
struct Functions;

impl Refuse for Functions {
    fn name(name: &ObjectName) -> Option<String> {
        let last = name.0.last().map(|part| part.to_string().trim_matches('"').to_lowercase()).unwrap_or_default();
        let forbidden =
            FORBIDDEN.contains(&last.as_str()) || FORBIDDEN_FAMILIES.iter().any(|family| last.starts_with(family));
        forbidden.then(|| format!("the function `{last}` is not for models"))
    }
}

/// An identifier, quoted.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text literal; `standard_conforming_strings` is on in our sessions.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Identifiers, quoted, with commas.
pub(super) fn identifiers(names: &[String]) -> String {
    names.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ")
}

/// What stands after FROM for a model.
pub(super) fn relation(model: &ModelSpec) -> String {
    match model {
        ModelSpec::Table { schema, table } => format!("{}.{}", identifier(schema), identifier(table)),
        // Lines of its own, so that a comment at the end does not swallow the bracket.
        ModelSpec::Sql { sql } => format!("(\n{}\n) as model", without_semicolon(sql)),
        // Refused by [`validate_model`]; no such relation is there.
        ModelSpec::Stream { schema, stream } => format!("{}.{}", identifier(schema), identifier(stream)),
    }
}

/// The statement up to its last semicolon, after which only spaces and comments may stand.
fn without_semicolon(sql: &str) -> &str {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location() else { return sql };
    let written = tokens.iter().rev().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    let Some(first) = written.take_while(|token| token.token == Token::SemiColon).last() else { return sql };
    let (line, column) = (first.span.start.line as usize, first.span.start.column as usize);
    let before: usize = sql.split_inclusive('\n').take(line - 1).map(str::len).sum();
    match sql[before..].char_indices().nth(column - 1) {
        Some((place, ';')) => &sql[..before + place],
        _ => sql,
    }
}

/// The planned columns of a model, by name.
pub(super) fn select(model: &ModelSpec, columns: &[Column]) -> String {
    let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
    format!("select {} from {}", identifiers(&names), relation(model))
}

#[cfg(test)]
mod tests {
    use freshet_core::error::Code;

    use super::*;

    fn code(sql: &str) -> Option<Code> {
        check_select(sql).err().map(|error| error.code)
    }

    #[test]
    fn what_reads_is_taken() {
        for sql in [
            "select * from orders",
            "select * from orders;",
            "with recent as (select * from orders where at > now() - interval '1 day') select * from recent -- all",
            "select a->>'x', b::text, array[1,2] from t union all select 1, 2, null",
            "values (1, 'a')",
        ] {
            assert_eq!(code(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_does_more_than_read_is_refused() {
        for sql in [
            "delete from orders",
            "with gone as (delete from orders returning *) select * from gone",
            "with new as (insert into a values (1) returning *) select * from new",
            "select * into copy from orders",
            "select * from orders for update",
            "select set_config('a', 'b', false)",
            "select pg_catalog.pg_read_file('/etc/passwd')",
            "select * from dblink('host=h', 'select 1') as t(a int)",
            "copy orders to program 'sh'",
            "call p()",
            "set role postgres",
            "explain analyze delete from orders",
        ] {
            assert_eq!(code(sql), Some(Code::ModelNotSelect), "{sql}");
        }
        assert_eq!(code("select 1; select 2"), Some(Code::ModelMultipleStatements));
        assert_eq!(code("select 1; drop table orders"), Some(Code::ModelMultipleStatements));
        assert_eq!(code("selec 1 from"), Some(Code::ModelSyntax));
        assert_eq!(code("  "), Some(Code::Invalid));
    }

    #[test]
    fn a_semicolon_at_the_end_is_left_out() {
        for (sql, left) in [
            ("select 1", "select 1"),
            ("select 1;", "select 1"),
            ("select 1 ; ;\n", "select 1 "),
            ("select ';' as ż -- ;\n, 'ż;';-- all; /*", "select ';' as ż -- ;\n, 'ż;'"),
            ("select 1 -- all;", "select 1 -- all;"),
            ("select $$;$$; /* ; */ ", "select $$;$$"),
        ] {
            assert_eq!(without_semicolon(sql), left, "{sql}");
        }
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(identifier("we\"ird"), "\"we\"\"ird\"");
        assert_eq!(literal("o'clock"), "'o''clock'");
    }
}
