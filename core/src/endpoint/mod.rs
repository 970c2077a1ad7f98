//! The two ends of a sync: a connection (a source's settings) and a destination (a Kafka cluster).
//!
//! Both have a name, a kind, settings, sealed secret fields and a last check, so both are one noun here
//! with two tables: [`Connection`] and [`Destination`] say which.
pub mod ops;
pub(crate) mod store;

use std::collections::BTreeMap;
use std::fmt::Debug;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::access::Right;
use crate::connector::{Field, Registry, Step};
use crate::error::Result;
use crate::id::{ConnectionId, DestinationId};
use crate::limit::Limit;

/// Which end: its table, its words, its rights, its kinds.
pub trait End: Send + Sync + Sized + 'static {
    /// Its typed id.
    type Id: Copy + Send + Sync + Debug + From<Uuid> + Serialize;
    /// Its table, and its word in errors, paths and the audit log.
    const NOUN: &'static str;
    /// The right to see it.
    const READ: Right;
    /// The right to change it.
    const WRITE: Right;
    /// How many there may be.
    const LIMIT: Limit;
    /// What counts its users: the table and column that refer to it, and their word.
    const USED_BY: (&'static str, &'static str);

    /// A new id.
    fn draw() -> Self::Id;
    /// The UUID inside an id.
    fn uuid(id: Self::Id) -> Uuid;
    /// The form of a kind.
    ///
    /// # Errors
    /// `request.invalid` for an unknown kind.
    fn fields(registry: &Registry, kind: &str) -> Result<&'static [Field]>;
    /// Checks settings and fills in defaults.
    ///
    /// # Errors
    /// `request.invalid` with the fields at fault.
    fn validate(registry: &Registry, kind: &str, settings: Value) -> Result<Value>;
}

/// The source's end.
#[derive(Debug, Clone, Copy)]
pub struct Connection;

/// Kafka's end.
#[derive(Debug, Clone, Copy)]
pub struct Destination;

impl End for Connection {
    type Id = ConnectionId;
    const NOUN: &'static str = "connection";
    const READ: Right = Right::ConnectionsRead;
    const WRITE: Right = Right::ConnectionsWrite;
    const LIMIT: Limit = Limit::Connections;
    const USED_BY: (&'static str, &'static str) = ("model", "connection_id = $2 and archived_at is null");

    fn draw() -> ConnectionId {
        ConnectionId::new()
    }

    fn uuid(id: ConnectionId) -> Uuid {
        id.uuid()
    }

    fn fields(registry: &Registry, kind: &str) -> Result<&'static [Field]> {
        Ok(registry.find_source(kind)?.fields())
    }

    fn validate(registry: &Registry, kind: &str, settings: Value) -> Result<Value> {
        registry.find_source(kind)?.validate(settings)
    }
}

impl End for Destination {
    type Id = DestinationId;
    const NOUN: &'static str = "destination";
    const READ: Right = Right::DestinationsRead;
    const WRITE: Right = Right::DestinationsWrite;
    const LIMIT: Limit = Limit::Destinations;
    const USED_BY: (&'static str, &'static str) = ("sync", "destination_id = $2 and state <> 'archived'");

    fn draw() -> DestinationId {
        DestinationId::new()
    }

    fn uuid(id: DestinationId) -> Uuid {
        id.uuid()
    }

    fn fields(registry: &Registry, kind: &str) -> Result<&'static [Field]> {
        Ok(registry.find_destination(kind)?.fields())
    }

    fn validate(registry: &Registry, kind: &str, settings: Value) -> Result<Value> {
        registry.find_destination(kind)?.validate(settings)
    }
}

/// That a secret field is set, and since when; never its text.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SecretState {
    /// Always true: a field that is not set is not listed.
    pub set: bool,
    /// When it was set last.
    pub rotated_at: DateTime<Utc>,
}

/// A connection or a destination, without its secrets.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Endpoint<Id> {
    /// Its id.
    pub id: Id,
    /// `postgres`, `kafka`.
    pub kind: String,
    /// Its name, unique among those not archived.
    pub name: String,
    /// Its settings without secret fields.
    #[schema(value_type = Object)]
    pub settings: Value,
    /// Which secret fields are set.
    pub secrets: BTreeMap<String, SecretState>,
    /// What the last test found, step by step.
    pub last_check: Option<Vec<Step>>,
    /// When it was tested last.
    pub last_check_at: Option<DateTime<Utc>>,
    /// Raised by each change; its `ETag`.
    pub row_version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// When it was archived.
    pub archived_at: Option<DateTime<Utc>>,
}

/// Takes the secret fields out of settings: what is left, and the texts by field.
pub(crate) fn split_secrets(mut settings: Value, fields: &[Field]) -> (Value, BTreeMap<String, Option<String>>) {
    let mut secrets = BTreeMap::new();
    for field in fields.iter().filter(|field| field.secret) {
        if let Some(found) = take(&mut settings, field.name) {
            secrets.insert(field.name.to_owned(), found.as_str().map(str::to_owned));
        }
    }
    (settings, secrets)
}

fn take(settings: &mut Value, path: &str) -> Option<Value> {
    match path.split_once('.') {
        None => settings.as_object_mut()?.remove(path),
        Some((head, rest)) => take(settings.get_mut(head)?, rest),
    }
}

/// Puts a secret's text back at its place.
pub(crate) fn put_secret(settings: &mut Value, path: &str, text: &str) {
    if !settings.is_object() {
        *settings = Value::Object(Map::new());
    }
    if let Some(object) = settings.as_object_mut() {
        match path.split_once('.') {
            None => {
                object.insert(path.to_owned(), Value::String(text.to_owned()));
            }
            Some((head, rest)) => put_secret(object.entry(head).or_insert(Value::Null), rest, text),
        }
    }
}

/// A merge patch as RFC 7396 has it: absent keeps, null clears.
pub(crate) fn merge(target: &mut Value, patch: Value) {
    match patch {
        Value::Object(patch) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            if let Some(object) = target.as_object_mut() {
                for (name, value) in patch {
                    if value.is_null() {
                        object.remove(&name);
                    } else {
                        merge(object.entry(name).or_insert(Value::Null), value);
                    }
                }
            }
        }
        other => *target = other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::connector::FieldKind;

    const SECRET: Field =
        Field { name: "tls.key", label: "", help: "", kind: FieldKind::LongText, required: false, secret: true };

    #[test]
    fn secrets_leave_the_settings_and_come_back() {
        let settings = json!({"host": "h", "tls": {"mode": "require", "key": "PEM"}});

        let (mut rest, secrets) = split_secrets(settings.clone(), &[SECRET]);

        assert_eq!(rest, json!({"host": "h", "tls": {"mode": "require"}}));
        assert_eq!(secrets["tls.key"].as_deref(), Some("PEM"));
        put_secret(&mut rest, "tls.key", "PEM");
        assert_eq!(rest, settings);
    }

    #[test]
    fn a_patch_keeps_what_it_does_not_name_and_clears_null() {
        let mut settings = json!({"host": "h", "tls": {"mode": "require", "ca": "PEM"}});

        merge(&mut settings, json!({"host": "g", "tls": {"ca": null}}));

        assert_eq!(settings, json!({"host": "g", "tls": {"mode": "require"}}));
    }
}
