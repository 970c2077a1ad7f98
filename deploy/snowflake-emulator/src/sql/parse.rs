//! Text to statements: splitting at semicolons, numbering of `?`, parsing.

use sqlparser::ast::{Query, SetExpr, Statement};
use sqlparser::dialect::SnowflakeDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::error::SqlError;

/// One statement of a request.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Its text, without the semicolon.
    pub text: String,
    /// Its tokens, blanks and comments left out; `?` is numbered `?1`, `?2`, ….
    pub tokens: Vec<Token>,
    /// Where it begins, 0-based characters from the start of the request's text.
    pub position: usize,
}

/// Splits a request's text at its semicolons; empty statements are left out.
///
/// # Errors
/// 001003 when a string or a quoted name is left open.
pub fn split(text: &str) -> Result<Vec<Piece>, SqlError> {
    let tokens = Tokenizer::new(&SnowflakeDialect {}, text).tokenize_with_location().map_err(|error| {
        SqlError::syntax(format!(
            "line {} at position {} {}",
            error.location.line, error.location.column, error.message
        ))
    })?;
    let starts: Vec<usize> = line_starts(text);
    let offset = |token: &TokenWithSpan| byte_offset(text, &starts, token.span.start.line, token.span.start.column);
    let (mut pieces, mut from, mut current) = (Vec::new(), 0, Vec::new());
    for token in &tokens {
        if token.token == Token::SemiColon {
            let end = offset(token);
            push(&mut pieces, &mut current, text, from, end);
            from = end + 1;
        } else if !matches!(token.token, Token::Whitespace(_) | Token::EOF) {
            current.push(token.token.clone());
        }
    }
    push(&mut pieces, &mut current, text, from, text.len());
    Ok(pieces)
}

fn push(pieces: &mut Vec<Piece>, tokens: &mut Vec<Token>, text: &str, from: usize, to: usize) {
    let tokens = number_placeholders(std::mem::take(tokens));
    if tokens.is_empty() {
        return;
    }
    let whole = &text[from.min(to)..to];
    let blank = whole.len() - whole.trim_start().len();
    pieces.push(Piece { text: whole.trim().to_owned(), tokens, position: from + blank });
}

fn number_placeholders(tokens: Vec<Token>) -> Vec<Token> {
    let mut count = 0;
    tokens
        .into_iter()
        .map(|token| match token {
            Token::Placeholder(name) if name == "?" => {
                count += 1;
                Token::Placeholder(format!("?{count}"))
            }
            other => other,
        })
        .collect()
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

fn byte_offset(text: &str, starts: &[usize], line: u64, column: u64) -> usize {
    let start = starts.get((line as usize).saturating_sub(1)).copied().unwrap_or(text.len());
    text[start..].char_indices().nth((column as usize).saturating_sub(1)).map_or(text.len(), |(at, _)| start + at)
}

/// Parses one statement.
///
/// # Errors
/// 001003 with what the parser found.
pub fn statement(tokens: &[Token]) -> Result<Statement, SqlError> {
    let mut parser = Parser::new(&SnowflakeDialect {}).with_recursion_limit(100).with_tokens(tokens.to_vec());
    let parsed = parser.parse_statement().map_err(unexpected)?;
    match parser.next_token().token {
        Token::EOF => Ok(parsed),
        rest => Err(SqlError::syntax(format!("line 1 at position 0 unexpected '{rest}'."))),
    }
}

fn unexpected(error: sqlparser::parser::ParserError) -> SqlError {
    SqlError::syntax(format!("line 1 at position 0 unexpected input: {error}"))
}

/// Parses a query alone.
///
/// # Errors
/// 001003 when it is not one.
pub fn query(text: &str) -> Result<Box<Query>, SqlError> {
    let pieces = split(text)?;
    let [piece] = pieces.as_slice() else { return Err(SqlError::syntax("unexpected end of query")) };
    match statement(&piece.tokens)? {
        Statement::Query(query) if !matches!(query.body.as_ref(), SetExpr::Insert(_) | SetExpr::Update(_)) => Ok(query),
        other => Err(SqlError::unsupported(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_in_a_string_does_not_split() {
        let pieces = split("select ';' ; -- a ; b\n insert into t values (?, ?);").expect("it splits");

        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0].text, "select ';'");
        assert!(pieces[1].tokens.contains(&Token::Placeholder("?2".into())));
    }
}
