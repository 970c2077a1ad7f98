//! A walk over the tokens of a statement that the SQL parser does not know (SHOW, CREATE STREAM, …).

use sqlparser::tokenizer::Token;

use super::error::SqlError;

/// A position in a statement's tokens.
#[derive(Debug, Clone)]
pub struct Cursor<'t> {
    tokens: &'t [Token],
    at: usize,
}

impl<'t> Cursor<'t> {
    /// Starts at the first token.
    pub fn new(tokens: &'t [Token]) -> Self {
        Self { tokens, at: 0 }
    }

    /// The tokens not yet taken.
    pub fn rest(&self) -> &'t [Token] {
        &self.tokens[self.at..]
    }

    /// Whether all tokens are taken.
    pub fn is_done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// Takes the words when they come next, case ignored.
    pub fn take(&mut self, words: &str) -> bool {
        let wanted: Vec<&str> = words.split(' ').collect();
        let matches = wanted.iter().enumerate().all(|(offset, word)| {
            matches!(self.tokens.get(self.at + offset), Some(Token::Word(found)) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
        });
        if matches {
            self.at += wanted.len();
        }
        matches
    }

    /// Takes a punctuation mark when it comes next.
    pub fn mark(&mut self, mark: &Token) -> bool {
        let found = self.tokens.get(self.at) == Some(mark);
        self.at += usize::from(found);
        found
    }

    /// Takes the words or fails.
    ///
    /// # Errors
    /// 001003 at another token.
    pub fn expect(&mut self, words: &str) -> Result<(), SqlError> {
        if self.take(words) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Takes the mark or fails.
    ///
    /// # Errors
    /// 001003 at another token.
    pub fn expect_mark(&mut self, mark: &Token) -> Result<(), SqlError> {
        if self.mark(mark) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// Takes a dotted name.
    ///
    /// # Errors
    /// 001003 when none comes next.
    pub fn name(&mut self) -> Result<Vec<String>, SqlError> {
        let mut parts = vec![self.word()?];
        while self.mark(&Token::Period) {
            parts.push(if self.tokens.get(self.at) == Some(&Token::Period) { String::new() } else { self.word()? });
        }
        Ok(parts)
    }

    /// Takes one identifier, folded.
    ///
    /// # Errors
    /// 001003 when none comes next.
    pub fn word(&mut self) -> Result<String, SqlError> {
        match self.tokens.get(self.at) {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(if word.quote_style.is_some() { word.value.clone() } else { word.value.to_uppercase() })
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Takes a string.
    ///
    /// # Errors
    /// 001003 when none comes next.
    pub fn string(&mut self) -> Result<String, SqlError> {
        match self.tokens.get(self.at) {
            Some(Token::SingleQuotedString(text)) => {
                self.at += 1;
                Ok(text.clone())
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Takes a whole number.
    ///
    /// # Errors
    /// 001003 when none comes next.
    pub fn number(&mut self) -> Result<u64, SqlError> {
        match self.tokens.get(self.at) {
            Some(Token::Number(digits, _)) => {
                let parsed = digits.parse().map_err(|_| self.unexpected())?;
                self.at += 1;
                Ok(parsed)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Takes TRUE or FALSE.
    ///
    /// # Errors
    /// 001003 when neither comes next.
    pub fn boolean(&mut self) -> Result<bool, SqlError> {
        if self.take("true") { Ok(true) } else { self.expect("false").map(|()| false) }
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// 001003 at the token that is left.
    pub fn end(&self) -> Result<(), SqlError> {
        if self.is_done() { Ok(()) } else { Err(self.unexpected()) }
    }

    /// The error for the next token.
    pub fn unexpected(&self) -> SqlError {
        let found = self.tokens.get(self.at).map_or_else(|| "<EOF>".to_owned(), ToString::to_string);
        SqlError::syntax(format!("line 1 at position 0 unexpected '{found}'."))
    }
}
