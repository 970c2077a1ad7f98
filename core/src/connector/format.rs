//! What a format promises.

use serde::{Deserialize, Serialize};

use super::record::{Change, Row, Schema};
use crate::error::{Code, Result};

/// The shape of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Envelope {
    /// `before`, `after`, `op`, `ts_ms`, `source`.
    Debezium,
    /// The row after; null for a delete.
    Row,
    /// `timestamp`, `action` (`INSERT` or `DELETE`), `is_update`, `data`: what a hand-written reader of a Stream sends.
    /// An update is one record, its second half: `INSERT` with `is_update`.
    Stream,
}

/// The shape of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyForm {
    /// A JSON object of the key's columns.
    Object,
    /// The one column's value: text without quotes, anything else as JSON.
    Bare,
}

/// The shape of decimal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NumberForm {
    /// A JSON number with all its digits.
    Number,
    /// A JSON string with all its digits.
    String,
}

/// Everything an encoder needs, once per run.
#[derive(Debug, Clone)]
pub struct EncodePlan {
    /// The model's columns.
    pub schema: Schema,
    /// The places of the key's columns.
    pub key: Vec<usize>,
    /// The value's shape.
    pub envelope: Envelope,
    /// The key's shape.
    pub key_form: KeyForm,
    /// Decimal numbers' shape.
    pub numbers: NumberForm,
    /// Constant members of the Debezium envelope's `source`: a JSON object, rendered.
    pub source: String,
}

/// What differs from change to change besides the rows.
#[derive(Debug, Clone, Copy)]
pub struct ChangeMeta {
    /// When the run read it, in milliseconds since the Unix epoch.
    pub ts_ms: i64,
    /// The batch's number.
    pub batch_seq: i64,
    /// The change's place in the batch, from 1.
    pub ordinal: i64,
}

/// Why one change cannot be encoded; it becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError {
    /// `record.encode_failed`, `model.key_null` …
    pub code: Code,
    /// The column at fault.
    pub column: String,
    /// What is wrong with it, without its value.
    pub reason: String,
}

/// Turns changes into bytes. A pure function of change and plan.
pub trait Encoder: Send {
    /// Appends the key.
    ///
    /// # Errors
    /// `model.key_null` when a key column is NULL; what was appended by then is to be cut off.
    fn key(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Appends the value; false, with nothing appended, for a null value.
    ///
    /// # Errors
    /// What makes the change a dead letter; what was appended by then is to be cut off.
    fn value(&mut self, change: &Change<'_>, meta: ChangeMeta, out: &mut Vec<u8>) -> Result<bool, EncodeError>;

    /// Appends a row alone as a JSON object: a dead letter's value, a preview's row. Never fails.
    fn row(&mut self, row: &Row, out: &mut Vec<u8>);
}

/// A kind of message format.
pub trait FormatKind: Send + Sync + 'static {
    /// Its word in the API, `json`.
    const NAME: &'static str;

    /// Makes an encoder for one run.
    ///
    /// # Errors
    /// `request.invalid` when plan and format do not fit together.
    fn encoder(&self, plan: EncodePlan) -> Result<Box<dyn Encoder>>;
}
