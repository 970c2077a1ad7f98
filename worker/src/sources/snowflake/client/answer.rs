//! The members of an answer, and what a refusal means.

use freshet_core::error::{Code, Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Context, malformed};
use crate::sources::snowflake::decode::RowType;

/// Characters of Snowflake's own sentence that are shown, at most.
const SENTENCE_MAX: usize = 400;
/// The result is larger than Snowflake hands out, and incomplete; comes with status 200.
const TOO_LARGE: &str = "391908";

/// `resultSetMetaData`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) num_rows: Option<u64>,
    pub(super) row_type: Vec<RowType>,
    /// One entry for each partition; absent or null stands for one that is inline.
    #[serde(default)]
    pub(super) partition_info: Option<Vec<PartitionInfo>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartitionInfo {
    pub(super) row_count: u64,
    #[serde(default)]
    pub(super) uncompressed_size: Option<u64>,
}

/// What an answer says besides its rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) metadata: Option<Metadata>,
    pub(super) code: Option<String>,
    pub(super) handle: Option<String>,
    pub(super) child_handles: Vec<String>,
}

impl Answer {
    /// Takes one member; those that nobody needs are left.
    pub(super) fn take(&mut self, name: &str, value: &[u8]) -> Result<()> {
        match name {
            "resultSetMetaData" => self.metadata = read(name, value)?,
            "code" => self.code = read(name, value)?,
            "statementHandle" => self.handle = read(name, value)?,
            "statementHandles" => self.child_handles = read::<Option<Vec<String>>>(name, value)?.unwrap_or_default(),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn refuse_incomplete(&self) -> Result<()> {
        if self.code.as_deref() == Some(TOO_LARGE) {
            let told = "the result is larger than Snowflake hands out (391908)";
            return Err(Error::new(Code::SnowflakeTooLarge, told));
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(name: &str, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|error| malformed(&format!("`{name}` does not read")).caused_by(error))
}

/// An answer that is no result: `QueryStatus`, `QueryFailureStatus`, or an error of the service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Refusal {
    pub(super) code: Option<String>,
    pub(super) sql_state: Option<String>,
    pub(super) message: Option<String>,
    pub(super) statement_handle: Option<String>,
}

impl Refusal {
    /// Reads a body; one that is empty or no JSON says nothing.
    pub(super) fn parse(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// What a refused statement means, with Snowflake's code, its SQLSTATE and the statement's handle.
    pub(super) fn error(&self, status: u16, context: &Context) -> Error {
        let (code, state) = (self.code.as_deref().unwrap_or("no code"), self.sql_state.as_deref().unwrap_or("none"));
        let handle = self.statement_handle.as_deref().unwrap_or("none");
        let ours = self.ours();
        let about = match ours {
            Code::SnowflakeWarehouse => context.warehouse.as_ref().map(|name| format!("warehouse {name}: ")),
            Code::SnowflakeRole => context.role.as_ref().map(|name| format!("role {name}: ")),
            Code::SnowflakeDatabase => context.database.as_ref().map(|name| format!("database {name}: ")),
            _ => None,
        };
        let sentence = self.sentence();
        let told = format!(
            "{}{sentence} (status {status}, code {code}, SQLSTATE {state}, statement {handle})",
            about.unwrap_or_default()
        );
        Error::new(ours, told)
    }

    fn ours(&self) -> Code {
        let (code, state) = (self.code.as_deref().unwrap_or_default(), self.sql_state.as_deref().unwrap_or_default());
        let message = self.message.as_deref().unwrap_or_default().to_ascii_lowercase();
        match code {
            "000606" | "000607" => Code::SnowflakeWarehouse,
            "000604" => Code::SnowflakeCancelled,
            "000630" => Code::SnowflakeTimeout,
            "000603" => Code::SnowflakeInternal,
            "000625" => Code::SnowflakeBusy,
            "000709" => Code::SnowflakeResultGone,
            "390186" | "390189" => Code::SnowflakeRole,
            "390201" => Code::SnowflakeDatabase,
            TOO_LARGE => Code::SnowflakeTooLarge,
            "003001" => Code::SnowflakePrivilege,
            "001003" => Code::ModelSyntax,
            "000904" | "002003" | "002043" => Code::ModelObjectMissing,
            // Its code is not documented; the sentence is.
            _ if message.contains("stream") && message.contains("stale") => Code::SnowflakeStale,
            _ => match state {
                "42501" => Code::SnowflakePrivilege,
                "42601" => Code::ModelSyntax,
                "42S02" | "42S22" | "02000" => Code::ModelObjectMissing,
                "57014" => Code::SnowflakeCancelled,
                "XX000" => Code::SnowflakeInternal,
                _ => Code::SnowflakeQuery,
            },
        }
    }

    /// Snowflake's sentence. Outside of compilation, where it speaks of names and syntax, what it quotes may be a
    /// value of a row and is left out.
    fn sentence(&self) -> String {
        let message = self.message.as_deref().unwrap_or("no message");
        let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let state = self.sql_state.as_deref().unwrap_or_default();
        let speaks_of_names = state.starts_with("42") || state == "02000" || state == "57P03";
        let line = if speaks_of_names { line } else { without_quoted(&line) };
        line.chars().take(SENTENCE_MAX).collect()
    }
}

/// Leaves out what stands between quotes, of either kind.
fn without_quoted(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(place) = rest.find(['\'', '"']) {
        let quote = &rest[place..=place];
        out.push_str(&rest[..place]);
        out.push('…');
        // A quoted value may hold its own quote: what is left out goes up to the last one.
        rest = rest[place + 1..].rfind(quote).map_or("", |last| &rest[place + 1 + last + 1..]);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &str, state: &str, message: &str) -> Error {
        let body = serde_json::json!({"code": code, "sqlState": state, "message": message, "statementHandle": "01b"});
        let context = Context { warehouse: Some("LOAD".into()), ..Context::default() };
        Refusal::parse(body.to_string().as_bytes()).error(422, &context)
    }

    #[test]
    fn a_refusal_says_what_failed_with_code_state_and_handle() {
        let error =
            refusal("000904", "42000", "SQL compilation error: error line 1 at position 7\ninvalid identifier 'AFAF'");

        assert_eq!(error.code, Code::ModelObjectMissing);
        assert_eq!(
            error.message,
            "SQL compilation error: error line 1 at position 7 invalid identifier 'AFAF' \
             (status 422, code 000904, SQLSTATE 42000, statement 01b)"
        );
    }

    #[test]
    fn a_value_of_a_row_is_left_out() {
        let error = refusal("100038", "22018", "Numeric value 'it's 4111-1111' is not recognized");

        assert_eq!(error.code, Code::SnowflakeQuery);
        assert!(error.message.starts_with("Numeric value … is not recognized"), "{error}");
    }

    #[test]
    fn each_refusal_has_its_code() {
        for (code, state, message, ours) in [
            ("000606", "57P03", "No active warehouse selected in the current session.", Code::SnowflakeWarehouse),
            ("000604", "57014", "SQL execution canceled", Code::SnowflakeCancelled),
            ("000603", "XX000", "SQL execution internal error: incident 42", Code::SnowflakeInternal),
            ("000630", "57014", "Statement reached its statement or warehouse timeout", Code::SnowflakeTimeout),
            ("002003", "02000", "Object 'X' does not exist or not authorized.", Code::ModelObjectMissing),
            ("001003", "42000", "syntax error", Code::ModelSyntax),
            ("003001", "42501", "Insufficient privileges to operate on schema 'X'", Code::SnowflakePrivilege),
            ("091901", "55000", "Stream S has become stale.", Code::SnowflakeStale),
            ("100035", "22007", "Timestamp 'x' is not recognized", Code::SnowflakeQuery),
        ] {
            assert_eq!(refusal(code, state, message).code, ours, "{code}");
        }
    }
}
