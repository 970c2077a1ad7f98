//! How a sync is done, and what a change of it means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::connector::{Envelope, Guarantee, KeyForm, ModelSpec, NumberForm, ReadMode, TopicCreate};
use crate::error::{Error, Result};

/// A topic's name, at most (Kafka's own limit).
const TOPIC_LENGTH_MAX: usize = 249;
/// Headers of one's own, at most.
const HEADERS_MAX: usize = 32;
/// Bytes of a header's name or value, at most.
const HEADER_LENGTH_MAX: usize = 1_024;

/// How a sync is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncConfig {
    /// How much of the model a run reads.
    #[serde(default = "full")]
    pub mode: ReadMode,
    /// Where the records go.
    pub topic: TopicConfig,
    /// The message format.
    #[serde(default = "json")]
    pub format: String,
    /// The value's shape.
    #[serde(default = "debezium")]
    pub envelope: Envelope,
    /// The key's shape.
    #[serde(default = "object")]
    pub key: KeyForm,
    /// Decimal numbers' shape.
    #[serde(default = "number")]
    pub numbers: NumberForm,
    /// What a delete sends; if not given `both` for `debezium`, `tombstone` for `row`, `op` for `stream`.
    #[serde(default)]
    pub deletes: Option<Deletes>,
    /// Headers of one's own, on every record.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What a reader may rely on.
    #[serde(default = "exactly_once")]
    pub guarantee: Guarantee,
    /// How many dead letters a run may have.
    #[serde(default)]
    pub error_tolerance: ErrorTolerance,
}

fn full() -> ReadMode {
    ReadMode::Full
}
fn json() -> String {
    "json".into()
}
fn debezium() -> Envelope {
    Envelope::Debezium
}
fn object() -> KeyForm {
    KeyForm::Object
}
fn number() -> NumberForm {
    NumberForm::Number
}
fn exactly_once() -> Guarantee {
    Guarantee::ExactlyOnce
}

/// Where the records go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TopicConfig {
    /// A name, or a template over `{workspace} {connection} {database} {schema} {table} {model}`.
    pub name: String,
    /// Create the topic, so, when it is missing.
    #[serde(default)]
    pub create: Option<TopicCreate>,
    /// The dead letters' topic; `<topic>.dlq` if not given.
    #[serde(default)]
    pub dead_letter: Option<String>,
}

/// What a delete sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deletes {
    /// The key with a null value: a compacted topic forgets the key.
    Tombstone,
    /// A record that says so, in the envelope's words.
    Op,
    /// That record, and the tombstone after it.
    Both,
    /// Nothing: what is deleted stays in the topic.
    Ignore,
}

/// How many dead letters a run may have before it fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ErrorTolerance {
    /// None: the first one fails the run, and nothing of its chunk is sent.
    #[default]
    None,
    /// So many.
    Count {
        /// At most.
        max: i64,
    },
    /// So many of a hundred rows read; judged from the hundredth row on.
    Percent {
        /// At most, 0 to 100.
        max: f64,
    },
}

impl ErrorTolerance {
    /// Whether a run may go on with so many dead letters among so many rows.
    #[must_use]
    pub fn allows(self, dead: i64, read: i64) -> bool {
        match self {
            Self::None => dead == 0,
            Self::Count { max } => dead <= max,
            Self::Percent { max } => read < 100 || dead as f64 * 100.0 <= max * read as f64,
        }
    }
}

/// What a topic's template may name.
#[derive(Debug, Clone)]
pub struct TopicNames {
    /// The workspace's slug.
    pub workspace: String,
    /// The connection's name.
    pub connection: String,
    /// The connection's database.
    pub database: String,
    /// The table's or Stream's schema; empty for a `sql` model.
    pub schema: String,
    /// The table or Stream; the model's name for a `sql` model.
    pub table: String,
    /// The model's name.
    pub model: String,
}

impl SyncConfig {
    /// Checks every rule that needs no connection.
    ///
    /// # Errors
    /// `request.invalid` with the field at fault.
    pub fn validate(&self) -> Result<()> {
        if self.headers.len() > HEADERS_MAX {
            return Err(Error::invalid("/config/headers", format!("must be at most {HEADERS_MAX}")));
        }
        for (name, value) in &self.headers {
            if name.is_empty() || name.len() > HEADER_LENGTH_MAX || value.len() > HEADER_LENGTH_MAX {
                let rule = format!("names and values must have 1 to {HEADER_LENGTH_MAX} bytes");
                return Err(Error::invalid("/config/headers", rule));
            }
            if name.starts_with("freshet-") || name.starts_with("__connect.errors.") {
                return Err(Error::invalid("/config/headers", format!("`{name}` is one of Freshet's own names")));
            }
        }
        if let Some(create) = &self.topic.create {
            validate_create(create)?;
        }
        if self.envelope == Envelope::Row && matches!(self.deletes, Some(Deletes::Op | Deletes::Both)) {
            let rule = "must be `tombstone` or `ignore`: the envelope `row` has no place to say what happened";
            return Err(Error::invalid("/config/deletes", rule));
        }
        match self.error_tolerance {
            ErrorTolerance::Count { max } if max < 0 => {
                Err(Error::invalid("/config/error_tolerance/max", "must not be negative"))
            }
            ErrorTolerance::Percent { max } if !(0.0..=100.0).contains(&max) => {
                Err(Error::invalid("/config/error_tolerance/max", "must be 0 to 100"))
            }
            ErrorTolerance::None | ErrorTolerance::Count { .. } | ErrorTolerance::Percent { .. } => Ok(()),
        }
    }

    /// Checks that a model of this kind can be read so.
    ///
    /// # Errors
    /// `request.invalid`.
    pub fn validate_for(&self, model: &ModelSpec) -> Result<()> {
        let of_stream = matches!(model, ModelSpec::Stream { .. });
        let takes_changes = matches!(self.mode, ReadMode::Changes { .. });
        match (of_stream, takes_changes) {
            (true, false) => Err(Error::invalid("/config/mode/kind", "must be `changes` for a model of kind `stream`")),
            (false, true) => Err(Error::invalid("/config/mode/kind", "`changes` is for models of kind `stream` alone")),
            (true, true) | (false, false) => Ok(()),
        }
    }

    /// What a delete sends.
    #[must_use]
    pub fn deletes(&self) -> Deletes {
        self.deletes.unwrap_or(match self.envelope {
            Envelope::Debezium => Deletes::Both,
            Envelope::Row => Deletes::Tombstone,
            Envelope::Stream => Deletes::Op,
        })
    }

    /// The data topic's name.
    ///
    /// # Errors
    /// `request.invalid` for an unknown word in the template or a name that Kafka does not take.
    pub fn topic(&self, names: &TopicNames) -> Result<String> {
        let topic = fill(&self.topic.name, names)?;
        check_topic("/config/topic/name", &topic)?;
        check_topic("/config/topic/dead_letter", &self.dead_letter_topic(&topic))?;
        Ok(topic)
    }

    /// The dead letters' topic of a data topic.
    #[must_use]
    pub fn dead_letter_topic(&self, topic: &str) -> String {
        self.topic.dead_letter.clone().unwrap_or_else(|| format!("{topic}.dlq"))
    }

    /// What a change to `next` means for a sync that has run.
    #[must_use]
    pub fn consequence(&self, next: &Self, same_topic: bool, same_model: bool) -> Consequence {
        let same_rows = self.mode.reads_as(&next.mode) && same_model;
        let same_place = same_topic && self.key == next.key;
        if !(same_rows && same_place) {
            Consequence::NewGeneration
        } else if self == next {
            Consequence::None
        } else {
            Consequence::NextRun
        }
    }
}

/// What a change of configuration means, said before it is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consequence {
    /// Nothing for the records.
    None,
    /// The next run works the new way.
    NextRun,
    /// The sync starts from the beginning: consumers see every key again.
    NewGeneration,
}

impl Consequence {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NextRun => "next_run",
            Self::NewGeneration => "new_generation",
        }
    }

    /// What it means for a sync of this mode, in a sentence.
    #[must_use]
    pub fn sentence(self, mode: &ReadMode) -> &'static str {
        match (self, mode) {
            (Self::None, _) => "Nothing changes for the records.",
            (Self::NextRun, _) => {
                "Records from the next run on take the new form; those already sent stay as they are."
            }
            (Self::NewGeneration, ReadMode::Changes { .. }) => {
                "A batch not yet finished is sent again from its start, then what waits in the Stream; to have every row \
                 sent again, resync the sync."
            }
            (Self::NewGeneration, ReadMode::Diff) => {
                "The next run starts from the beginning: every row is sent again as created, a batch not yet finished is \
                 dropped, and what was deleted since the last run is not told."
            }
            (Self::NewGeneration, _) => {
                "The next run starts from the beginning: every row is sent again, and a batch not yet finished is dropped."
            }
        }
    }
}

fn validate_create(create: &TopicCreate) -> Result<()> {
    if !(1..=10_000).contains(&create.partitions) {
        return Err(Error::invalid("/config/topic/create/partitions", "must be 1 to 10000"));
    }
    if create.replication_factor.is_some_and(|factor| !(1..=32_767).contains(&factor)) {
        return Err(Error::invalid("/config/topic/create/replication_factor", "must be 1 to 32767"));
    }
    if !["delete", "compact", "compact,delete"].contains(&create.cleanup_policy.as_str()) {
        let rule = "must be `delete`, `compact` or `compact,delete`";
        return Err(Error::invalid("/config/topic/create/cleanup_policy", rule));
    }
    Ok(())
}

fn fill(template: &str, names: &TopicNames) -> Result<String> {
    let mut topic = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (word, after) =
            after.split_once('}').ok_or_else(|| Error::invalid("/config/topic/name", "a `{` is not closed"))?;
        let value = match word {
            "workspace" => &names.workspace,
            "connection" => &names.connection,
            "database" => &names.database,
            "schema" => &names.schema,
            "table" => &names.table,
            "model" => &names.model,
            _ => {
                let known = "{workspace} {connection} {database} {schema} {table} {model}";
                return Err(Error::invalid("/config/topic/name", format!("`{{{word}}}` is not among {known}")));
            }
        };
        topic.push_str(before);
        topic.extend(value.chars().map(|c| if is_topic_char(c) { c } else { '_' }));
        rest = after;
    }
    topic.push_str(rest);
    Ok(topic)
}

fn is_topic_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Kafka's own rules for a topic's name.
fn check_topic(pointer: &str, topic: &str) -> Result<()> {
    let shape = (1..=TOPIC_LENGTH_MAX).contains(&topic.len()) && topic.chars().all(is_topic_char);
    if !shape || topic == "." || topic == ".." {
        let rule = format!("`{topic}` must be 1 to {TOPIC_LENGTH_MAX} of a-z, A-Z, 0-9, `.`, `_` and `-`");
        return Err(Error::invalid(pointer, rule));
    }
    if topic.starts_with("__") {
        return Err(Error::invalid(pointer, "names that begin with `__` are Kafka's own"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::DuplicateKeys;

    fn config(topic: &str) -> SyncConfig {
        serde_json::from_value(serde_json::json!({ "topic": { "name": topic } })).unwrap()
    }

    fn names() -> TopicNames {
        TopicNames {
            workspace: "acme".into(),
            connection: "Main store".into(),
            database: "shop".into(),
            schema: "public".into(),
            table: "orders".into(),
            model: "Orders".into(),
        }
    }

    #[test]
    fn a_template_is_filled_and_kept_to_kafkas_characters() {
        let topic = config("{workspace}.{connection}.{schema}.{table}").topic(&names()).unwrap();

        assert_eq!(topic, "acme.Main_store.public.orders");
    }

    #[test]
    fn names_that_kafka_does_not_take_are_refused() {
        for (name, says) in [
            ("", "must be 1 to 249"),
            ("a b", "must be 1 to 249"),
            ("{table", "not closed"),
            ("{colour}", "is not among"),
            ("__consumer_offsets", "Kafka's own"),
            ("..", "must be 1 to 249"),
            (&"x".repeat(246), "must be 1 to 249"),
        ] {
            let error = config(name).topic(&names()).unwrap_err();
            assert!(error.message.contains(says), "{name}: {error}");
        }
    }

    #[test]
    fn a_change_says_what_it_means() {
        let before = config("orders");
        let mut row = before.clone();
        row.envelope = Envelope::Row;
        let mut bare = before.clone();
        bare.key = KeyForm::Bare;

        assert_eq!(before.consequence(&before, true, true), Consequence::None);
        assert_eq!(before.consequence(&row, true, true), Consequence::NextRun);
        assert_eq!(before.consequence(&bare, true, true), Consequence::NewGeneration);
        assert_eq!(before.consequence(&before, false, true), Consequence::NewGeneration);
        assert_eq!(before.consequence(&before, true, false), Consequence::NewGeneration);
    }

    #[test]
    fn what_becomes_of_repeated_keys_moves_no_position() {
        let mut before = config("orders");
        before.mode = serde_json::from_value(serde_json::json!({ "kind": "changes" })).unwrap();
        let mut after = before.clone();
        after.mode = ReadMode::Changes { duplicate_keys: DuplicateKeys::LastWins };

        assert_eq!(before.consequence(&after, true, true), Consequence::NextRun);
        assert_eq!(before.consequence(&config("orders"), true, true), Consequence::NewGeneration);
    }

    #[test]
    fn streams_are_read_as_changes_and_nothing_else_is() {
        let stream = ModelSpec::Stream { schema: "PUBLIC".into(), stream: "S".into() };
        let table = ModelSpec::Table { schema: "PUBLIC".into(), table: "T".into() };
        let full = config("orders");
        let mut changes = full.clone();
        changes.mode = ReadMode::Changes { duplicate_keys: DuplicateKeys::DeadLetter };

        assert!(changes.validate_for(&stream).is_ok() && full.validate_for(&table).is_ok());
        assert!(changes.validate_for(&table).is_err() && full.validate_for(&stream).is_err());
    }

    #[test]
    fn a_delete_sends_what_its_envelope_can_say() {
        let with = |envelope, deletes| SyncConfig { envelope, deletes, ..config("orders") };

        assert_eq!(with(Envelope::Debezium, None).deletes(), Deletes::Both);
        assert_eq!(with(Envelope::Row, None).deletes(), Deletes::Tombstone);
        assert_eq!(with(Envelope::Stream, None).deletes(), Deletes::Op);
        assert_eq!(with(Envelope::Debezium, Some(Deletes::Ignore)).deletes(), Deletes::Ignore);
        assert!(with(Envelope::Stream, Some(Deletes::Both)).validate().is_ok());
        for deletes in [Deletes::Op, Deletes::Both] {
            let error = with(Envelope::Row, Some(deletes)).validate().unwrap_err();
            assert_eq!(error.fields[0].pointer, "/config/deletes");
        }
    }

    #[test]
    fn tolerance_counts_dead_letters() {
        assert!(!ErrorTolerance::None.allows(1, 1_000));
        assert!(ErrorTolerance::Count { max: 5 }.allows(5, 5));
        assert!(!ErrorTolerance::Count { max: 5 }.allows(6, 1_000_000));
        assert!(ErrorTolerance::Percent { max: 1.0 }.allows(10, 1_000));
        assert!(!ErrorTolerance::Percent { max: 1.0 }.allows(11, 1_000));
    }
}
