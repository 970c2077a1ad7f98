//! Forms and findings: one input of a settings form, one step of a check.

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};

/// Stands for a secret that is already in the vault while other settings are checked: the API cannot open it.
/// Every kind takes it for any secret field.
pub const KEPT_SECRET: &str = "(kept)";

/// One choice of a [`FieldKind::Choice`].
pub type Choice = &'static str;

/// What may be typed into a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// One line of text.
    Text,
    /// Several lines, such as a PEM certificate.
    LongText,
    /// A whole number.
    Number,
    /// Yes or no.
    Bool,
    /// One of these.
    Choice(&'static [Choice]),
}

/// One input of a settings form; form, validation and document all come from it.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
pub struct Field {
    /// The JSON name; a dot goes one level down, `tls.mode`.
    pub name: &'static str,
    /// What the form shows.
    pub label: &'static str,
    /// One sentence of help, with the unit and the default.
    pub help: &'static str,
    /// What may be typed.
    pub kind: FieldKind,
    /// Must be given.
    pub required: bool,
    /// Goes to the vault and is never shown again.
    pub secret: bool,
}

/// How a step of a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// As it should be.
    Passed,
    /// Works, with a reason to look.
    Warning,
    /// Does not work.
    Failed,
    /// Not tried, since an earlier step failed or it does not apply.
    Skipped,
}

/// One named step of a connection test or a pre-flight, and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Step {
    /// `address`, `tls`, `login`, `rights`, `read`, `topic` …
    pub name: String,
    /// How it ended.
    pub state: StepState,
    /// What was found, in a sentence.
    pub detail: String,
    /// For a failure: which of the closed list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// For a failure: what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

impl Step {
    /// A step that went well.
    pub fn passed(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.into(), state: StepState::Passed, detail: detail.into(), code: None, action: None }
    }

    /// A step that works, with a reason to look.
    pub fn warning(name: &str, detail: impl Into<String>) -> Self {
        Self { state: StepState::Warning, ..Self::passed(name, detail) }
    }

    /// A step that was not tried.
    pub fn skipped(name: &str, detail: impl Into<String>) -> Self {
        Self { state: StepState::Skipped, ..Self::passed(name, detail) }
    }

    /// A step that failed, with the error's code and what to do.
    #[must_use]
    pub fn failed(name: &str, error: &Error) -> Self {
        Self {
            state: StepState::Failed,
            code: Some(error.code),
            action: Some(error.code.action().into()),
            ..Self::passed(name, error.message.clone())
        }
    }
}
