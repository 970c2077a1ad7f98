//! What all pages share: the frame, the style, the form fields.

use freshet_core::error::Error;

/// The style.
pub(crate) const STYLE: &str = include_str!("style.css");
/// Where it is; its name changes with its text, so browsers may keep it for ever.
pub(crate) const STYLE_PATH: &str = concat!("/assets/", env!("FRESHET_STYLE_HASH"), "/style.css");

/// What went wrong with a form: a sentence, what to do, and the field.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// What failed.
    pub(crate) told: String,
    /// What to do.
    pub(crate) action: String,
    /// The field at fault; empty if it is none.
    pub(crate) field: String,
}

impl Trouble {
    /// The form's trouble in an error.
    pub(crate) fn of(error: &Error) -> Self {
        match error.fields.first() {
            Some(field) => Self {
                told: field.detail.clone(),
                action: String::new(),
                field: field.pointer.trim_start_matches('/').to_owned(),
            },
            None => Self { told: error.message.clone(), action: error.code.action().to_owned(), field: String::new() },
        }
    }

    /// The field in words.
    pub(crate) fn words(&self) -> String {
        self.field.replace('_', " ")
    }

    /// Whether a field is at fault.
    pub(crate) fn is(&self, field: &str) -> bool {
        self.field == field
    }
}
