//! Streams: which there are, what they follow, how long their history is kept, and making one.
//!
//! All of it by SHOW, DESCRIBE and CREATE STREAM, which need no warehouse and move no offset.

use chrono::{DateTime, Utc};
use freshet_core::connector::{MadeStream, ModelSpec, NewStream, StreamBase, StreamFacts, StreamOn};
use freshet_core::error::{Code, Error, Result};

use super::client::{QueryTag, Statement, Texts};
use super::model::check_name;
use super::session::Session;
use super::sql::{self, identifier, name_parts};

/// Streams of a listing, at most; what SHOW gives without a LIMIT.
const STREAMS_MAX: usize = 10_000;

/// A Stream as SHOW lists it.
#[derive(Debug, Clone)]
pub(super) struct FoundStream {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) facts: StreamFacts,
}

impl FoundStream {
    fn read(texts: &Texts, row: &[Option<String>]) -> Option<Self> {
        let cell = |name| texts.cell(row, name);
        let word = |name| cell(name).unwrap_or_default().to_lowercase().replace(' ', "_");
        let mode = word("mode");
        Some(Self {
            schema: cell("schema_name")?.to_owned(),
            name: cell("name")?.to_owned(),
            facts: StreamFacts {
                on: cell("table_name").unwrap_or_default().to_owned(),
                on_kind: word("source_type"),
                mode: if mode == "default" { "standard".into() } else { mode },
                made_at: cell("created_on").and_then(instant),
                stale_after: cell("stale_after").and_then(instant),
                stale: cell("stale").and_then(boolean) == Some(true),
            },
        })
    }
}

/// A boolean of Snowflake's, in each form that it has.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// An instant as a result without an output format has it: seconds since the Unix epoch, to the millisecond here.
pub(super) fn instant(text: &str) -> Option<DateTime<Utc>> {
    let (seconds, fraction) = text.split(' ').next()?.split_once('.').unwrap_or((text, ""));
    let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
    let (seconds, millis): (i64, i64) = (seconds.parse().ok()?, millis.parse().ok()?);
    DateTime::from_timestamp_millis(seconds.checked_mul(1_000)?.checked_add(millis)?)
}

/// The Streams of a schema, or of the connection's database.
pub(super) async fn all(session: &mut Session, schema: Option<&str>) -> Result<Vec<FoundStream>> {
    let sql = sql::show_streams(schema, &session.database(), STREAMS_MAX);
    let found = session.texts(sql, &QueryTag::default(), STREAMS_MAX).await?;
    Ok(found.rows.iter().filter_map(|row| FoundStream::read(&found, row)).collect())
}

/// What Snowflake says of one Stream.
///
/// # Errors
/// `model.object_missing` when it is not there, or not to be seen.
pub(super) async fn facts(session: &mut Session, schema: &str, stream: &str, tag: &QueryTag) -> Result<StreamFacts> {
    let found = session.texts(sql::show_stream(schema, stream), tag, STREAMS_MAX).await?;
    let mut streams = found.rows.iter().filter_map(|row| FoundStream::read(&found, row));
    let missing = || {
        let told = format!("the Stream {} is not there, or the role may not see it", printed(schema, stream));
        Error::new(Code::ModelObjectMissing, told)
    };
    streams.find(|found| found.schema == schema && found.name == stream).map(|found| found.facts).ok_or_else(missing)
}

/// A name for people.
pub(super) fn printed(schema: &str, name: &str) -> String {
    format!("{schema}.{name}")
}

/// What a Stream follows, quoted: the rows that its changes lead to.
pub(super) async fn base(session: &mut Session, schema: &str, stream: &str) -> Result<String> {
    let facts = facts(session, schema, stream, &QueryTag::default()).await?;
    quoted(&facts)
}

fn quoted(facts: &StreamFacts) -> Result<String> {
    let parts = name_parts(&facts.on);
    if parts.len() != 3 || parts.iter().any(String::is_empty) {
        let told = format!("what the Stream follows cannot be read: `{}`", facts.on);
        return Err(Error::new(Code::ModelObjectMissing, told));
    }
    Ok(parts.iter().map(|part| identifier(part)).collect::<Vec<_>>().join("."))
}

/// Refuses a statement that reads a Stream: run as a batch it would take the Stream's changes.
pub(super) async fn refuse_in(session: &mut Session, sql: &str) -> Result<()> {
    for name in super::model::relations(sql) {
        let asked = session.texts(format!("describe stream {name}"), &QueryTag::default(), 1).await;
        match asked {
            Ok(found) if !found.rows.is_empty() => return Err(reads_a_stream(&name)),
            Ok(_) => {}
            // It is a table, a view, or a name of the statement's own.
            Err(error)
                if matches!(
                    error.code,
                    Code::ModelObjectMissing | Code::ModelSyntax | Code::SnowflakeQuery | Code::SnowflakePrivilege
                ) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The refusal of a model that reads a Stream without being of that kind.
pub(super) fn reads_a_stream(name: &str) -> Error {
    let told = format!("{name} is a Stream, whose changes would be taken out of it; make a model of kind `stream`");
    Error::new(Code::ModelNotSelect, told)
}

/// Makes a Stream, or only says how.
pub(super) async fn make(session: &mut Session, new: &NewStream, dry_run: bool) -> Result<MadeStream> {
    check_name("/name", &new.name)?;
    check_name("/on/schema", &new.on.schema)?;
    check_name("/on/name", &new.on.name)?;
    let schema = new.schema.clone().unwrap_or_else(|| session.work_schema());
    check_name("/schema", &schema)?;
    let on = format!("{}.{}", identifier(&new.on.schema), identifier(&new.on.name));
    let statement = sql::create_stream(&schema, new, &on);
    let mut made = MadeStream { schema, name: new.name.clone(), statement, facts: None };
    if !dry_run {
        session.client()?.run(&Statement::large(made.statement.clone())).await?;
        let facts = facts(session, &made.schema, &made.name, &QueryTag::default()).await?;
        refuse_other(new, &facts)?;
        made.facts = Some(facts);
    }
    Ok(made)
}

/// A Stream of the name was there already: it must be the one that was asked for.
fn refuse_other(new: &NewStream, found: &StreamFacts) -> Result<()> {
    let parts = name_parts(&found.on);
    let same_base = parts.len() == 3 && parts[1] == new.on.schema && parts[2] == new.on.name;
    let same_mode = new.append_only == (found.mode == "append_only");
    if same_base && same_mode {
        return Ok(());
    }
    let told = format!("a Stream {} is there already, {} on {}", new.name, found.mode, found.on);
    Err(Error::new(Code::Conflict, told))
}

/// Makes a model's Stream anew, as it was.
pub(super) async fn renew(session: &mut Session, model: &ModelSpec, initial_rows: bool) -> Result<MadeStream> {
    let ModelSpec::Stream { schema, stream } = model else {
        return Err(Error::invalid("/kind", "only a model of kind `stream` has a Stream to make anew"));
    };
    let tag = QueryTag::default();
    let known = facts(session, schema, stream, &tag).await?;
    let kind = match known.on_kind.as_str() {
        "view" => StreamOn::View,
        "dynamic_table" => StreamOn::DynamicTable,
        _ => StreamOn::Table,
    };
    let on = quoted(&known)?;
    let new = NewStream {
        schema: Some(schema.clone()),
        name: stream.clone(),
        on: StreamBase { kind, schema: String::new(), name: String::new() },
        append_only: known.mode == "append_only",
        show_initial_rows: initial_rows,
        replace: true,
    };
    let statement = sql::create_stream(schema, &new, &on);
    session.client()?.run(&Statement::large(statement.clone())).await?;
    let facts = facts(session, schema, stream, &tag).await?;
    Ok(MadeStream { schema: schema.clone(), name: stream.clone(), statement, facts: Some(facts) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_read_to_the_millisecond() {
        let at = |text| instant(text).map(|at| at.timestamp_millis());

        assert_eq!(at("1616173619.123456789"), Some(1_616_173_619_123));
        assert_eq!(at("1616173619.5 1500"), Some(1_616_173_619_500));
        assert_eq!(at("1616173619"), Some(1_616_173_619_000));
        assert_eq!(at("2021-03-19 17:06:59"), None);
    }
}
