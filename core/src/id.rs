//! Every typed id, one line each: a UUIDv7 inside, `con_01jd…` outside.
//!
//! The text is the prefix, `_`, and the 128 bits in Crockford's base 32 in lower case (26
//! characters), so ids sort by creation in both forms and a reader sees what an id is of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A text that is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form `{expected}_` and 26 characters of base 32")]
pub struct IdError {
    expected: &'static str,
}

fn encode(id: Uuid) -> String {
    let bits = id.as_u128();
    (0..26).map(|place| char::from(ALPHABET[(bits >> (125 - place * 5) & 31) as usize])).collect()
}

fn decode(text: &str) -> Option<Uuid> {
    if text.len() != 26 || text.as_bytes()[0] > b'7' {
        return None;
    }
    text.bytes()
        .try_fold(0u128, |bits, byte| {
            let value = ALPHABET.iter().position(|known| *known == byte)?;
            Some(bits << 5 | value as u128)
        })
        .map(Uuid::from_u128)
}

/// A row's id as its own resource writes it, by the noun's word; of an unknown noun the UUID.
#[must_use]
pub fn text_of(noun: &str, id: Uuid) -> String {
    let prefix = match noun {
        "organization" => OrganizationId::PREFIX,
        "user" => UserId::PREFIX,
        "session" => SessionId::PREFIX,
        "personal_token" => PersonalTokenId::PREFIX,
        "identity" => IdentityId::PREFIX,
        "domain" => DomainId::PREFIX,
        "sso_connection" => SsoConnectionId::PREFIX,
        "membership" => MembershipId::PREFIX,
        "invitation" => InvitationId::PREFIX,
        "workspace" => WorkspaceId::PREFIX,
        "service_account" => ServiceAccountId::PREFIX,
        "api_key" => ApiKeyId::PREFIX,
        "connection" => ConnectionId::PREFIX,
        "model" => ModelId::PREFIX,
        "destination" => DestinationId::PREFIX,
        "sync" => SyncId::PREFIX,
        "run" => RunId::PREFIX,
        _ => return id.to_string(),
    };
    format!("{prefix}_{}", encode(id))
}

/// The UUID in an id of whatever kind.
#[must_use]
pub fn uuid_of(text: &str) -> Option<Uuid> {
    decode(text.split_once('_')?.1)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
        #[sqlx(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The letters before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id; later ids are greater.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "an id is drawn, not defaulted")]
            #[expect(clippy::disallowed_methods, reason = "ids come from here")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The UUID inside.
            #[must_use]
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(decode)
                    .map(Self)
                    .ok_or(IdError { expected: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "_[0-9a-hjkmnp-tv-z]{26}$")))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// One installation of Freshet: part of every transactional id.
    InstallationId = "ins";
    /// Whom people belong to.
    OrganizationId = "org";
    /// A person.
    UserId = "usr";
    /// A person's time in the dashboard.
    SessionId = "ses";
    /// A person's key for programs.
    PersonalTokenId = "pat";
    /// Whom an issuer knows a person as.
    IdentityId = "idn";
    /// A role of a person.
    MembershipId = "mbr";
    /// A role that is offered.
    InvitationId = "inv";
    /// A domain that an organization claims.
    DomainId = "dom";
    /// An issuer whose word an organization takes.
    SsoConnectionId = "sso";
    /// A tenant.
    WorkspaceId = "ws";
    /// A program's identity in a workspace.
    ServiceAccountId = "sa";
    /// An API key.
    ApiKeyId = "key";
    /// A sealed secret.
    SecretId = "sec";
    /// A source's settings.
    ConnectionId = "con";
    /// What is read through a connection.
    ModelId = "mdl";
    /// One version of a model.
    ModelVersionId = "mdv";
    /// A Kafka cluster.
    DestinationId = "dst";
    /// A model sent to a topic.
    SyncId = "snc";
    /// One version of a sync's configuration.
    SyncVersionId = "snv";
    /// One execution of a sync.
    RunId = "run";
    /// One worker's try at a run.
    AttemptId = "att";
    /// A question only a worker can answer.
    OperationId = "opn";
    /// A group of dead letters with one reason.
    DeadLetterGroupId = "dlg";
    /// A consent that a person is asked for.
    ConsentId = "cns";
    /// One line of the feed.
    EventId = "evt";
    /// One line of the audit log.
    AuditEventId = "aud";
    /// One HTTP request.
    RequestId = "req";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = RunId::new();

        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().len(), 30);
    }

    #[test]
    fn another_kind_of_id_is_refused() {
        assert!(SyncId::new().to_string().parse::<RunId>().is_err());
        assert!("run_zzzzzzzzzzzzzzzzzzzzzzzzzz".parse::<RunId>().is_err());
        assert!("run_".parse::<RunId>().is_err());
        assert!("run_0000000000000000000000000ü".parse::<RunId>().is_err());
    }

    #[test]
    fn later_ids_are_greater_in_both_forms() {
        let (first, second) = (RunId::new(), RunId::new());

        assert!(first < second);
        assert!(first.to_string() < second.to_string());
    }
}
