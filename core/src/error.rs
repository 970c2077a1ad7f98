//! What can go wrong, said once: a closed list of codes, each with its class and what to do.
//!
//! An [`Error`] carries a code, a sentence for a person, and its cause for the log. The sentence
//! names the thing and the amount; it never holds a secret, a row value or the cause's own words.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who can mend it, and whether a run tries again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A person must change something; never retried by itself.
    User,
    /// Passes by itself; retried with back-off.
    Transient,
    /// A defect or a broken installation; retried like a transient one, and loud in the log.
    System,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $class:ident, $action:literal;)*) => {
        /// The closed list of what can go wrong: the same word in the API, the log and the metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Who can mend it.
            #[must_use]
            pub fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }

            /// What to do about it, in one sentence.
            #[must_use]
            pub fn action(self) -> &'static str {
                match self { $(Self::$name => $action,)* }
            }
        }
    };
}

codes! {
    // The request itself.
    /// A body, path or query that does not parse or breaks a rule.
    Invalid = "request.invalid", User, "Correct the fields named in `errors` and send the request again.";
    /// No row of that id in this workspace.
    NotFound = "request.not_found", User, "Check the id; it may belong to another workspace or be archived.";
    /// The path exists, the method does not.
    MethodNotAllowed = "request.method_not_allowed", User, "Use a method that the API document lists for this path.";
    /// A body that is too large.
    TooLarge = "request.too_large", User, "Send at most 1 MiB.";
    /// A body that is not JSON.
    UnsupportedMedia = "request.unsupported_media_type", User, "Send `Content-Type: application/json`.";
    /// No key, or one that is not valid.
    Unauthenticated = "auth.invalid_key", User, "Send `Authorization: Bearer fr_…` with a key that is neither revoked nor expired.";
    /// A key without the scope.
    Forbidden = "auth.scope_missing", User, "Use a key with the scope named in the message.";
    /// A caller of several workspaces that names none.
    WorkspaceMissing = "request.workspace_missing", User, "Send the header `Freshet-Workspace` with the id of one of your workspaces.";
    /// Nobody of this address and password.
    SignInRefused = "auth.sign_in_refused", User, "Check address and password, or reset the password.";
    /// The second factor's code is not right.
    CodeRefused = "auth.code_refused", User, "Wait for the next code, check the clock of the device, or use a recovery code.";
    /// The address was not proved.
    AddressUnproved = "auth.address_unproved", User, "Follow the link in the mail that was sent to the address.";
    /// A word that is good once, and is not good.
    WordRefused = "auth.word_refused", User, "Ask for a new one: each is good once, and not for long.";
    /// Nobody may sign up.
    SignUpClosed = "auth.sign_up_closed", User, "Ask somebody of your organization for an invitation.";
    /// The organization takes its own issuer's word alone.
    SsoRequired = "auth.sso_required", User, "Sign in with your organization, or by a token that was made in such a session.";
    /// What came back from an issuer is not enough to come in.
    SsoRefused = "auth.sso_refused", User, "Start once more from the sign-in page; if it stays, ask whoever set your organization's sign-in up.";
    /// An issuer does not answer as one.
    SsoIssuer = "auth.issuer_failed", Transient, "Try again in a moment; if it stays, whoever set the connection up checks issuer, client id and secret.";
    /// A domain without its proof.
    DomainUnproved = "domain.unproved", User, "Publish the TXT record that the message names; a new one may take an hour to be seen.";
    /// A dangerous act long after the sign-in.
    ProofTooOld = "auth.proof_too_old", User, "Give your password once more, then repeat it.";
    /// The name or slug is taken in this workspace.
    Conflict = "request.conflict", User, "Choose another name, or use the object that has it.";
    /// `If-Match` does not match.
    PreconditionFailed = "request.precondition_failed", User, "Read the object again and repeat the change on its current `ETag`.";
    /// `If-Match` is missing.
    PreconditionRequired = "request.precondition_required", User, "Send `If-Match` with the `ETag` of the object you read.";
    /// The same `Idempotency-Key` with another body.
    IdempotencyMismatch = "request.idempotency_mismatch", User, "Use a new `Idempotency-Key` for a different request.";
    /// The same `Idempotency-Key` is being worked on.
    IdempotencyInFlight = "request.idempotency_in_flight", Transient, "Wait a moment and send the same request again.";
    /// The object's state does not allow it.
    WrongState = "request.wrong_state", User, "Look at the object's state; the message says which states allow this.";
    /// The object is used by others.
    InUse = "request.in_use", User, "Archive the objects named in the message first.";
    /// Another sync takes the changes of the same Stream.
    StreamInUse = "sync.stream_in_use", User, "Make a Stream of its own for this sync: each change of a Stream is handed out once.";
    /// A change has a consequence that was not accepted.
    ConsequenceNotAccepted = "sync.consequence_not_accepted", User, "Read the consequence and repeat the change with `accept_consequence` set to it.";
    /// Too many requests or too much work at once.
    Limited = "request.limited", Transient, "Wait as long as `Retry-After` says.";
    /// The service works on as many requests as it may.
    Busy = "request.busy", Transient, "Try again in a moment; raise `api_requests_max` if it happens often.";
    /// An address that the installation does not dial.
    EgressBlocked = "platform.egress_blocked", User, "Name another host, or ask whoever runs the installation to allow its network.";

    // Connections to Postgres.
    /// The name does not resolve or nothing answers.
    PostgresUnreachable = "postgres.unreachable", Transient, "Check host and port, and that a firewall lets the worker through.";
    /// TLS cannot be agreed or the certificate is not trusted.
    PostgresTls = "postgres.tls_failed", User, "Check `tls.mode`, the CA certificate, and that the server's name is in its certificate.";
    /// The password or user is wrong.
    PostgresLogin = "postgres.login_failed", User, "Check user, password and database, and pg_hba.conf of the server.";
    /// No right to read.
    PostgresPrivilege = "postgres.privilege_missing", User, "Run the script in the message, if there is one; else grant USAGE on the schema and SELECT on the table to the connection's user.";
    /// The login could do more than read: it is a superuser.
    PostgresSuperuser = "postgres.superuser", User, "Use a login that can only read, or set `allow_superuser` on the connection.";
    /// The server is older than what is supported.
    PostgresVersion = "postgres.version_unsupported", User, "Use PostgreSQL 13 or later.";
    /// A standby cannot show its primary's open transactions.
    PostgresStandby = "postgres.standby", User, "Connect to the primary, or use mode `full`.";
    /// The connection broke in the middle.
    PostgresConnectionLost = "postgres.connection_lost", Transient, "Nothing to do: the run goes on from the last committed chunk.";
    /// The statement failed.
    PostgresQuery = "postgres.query_failed", User, "Run the model's SQL on the server and mend what it reports.";
    /// A table of mode `diff` is gone, or of a batch that is not known.
    PostgresSnapshotGone = "postgres.snapshot_gone", User, "Drop the tables of later batches that the message names, if any, and reset the sync's position: the next run sends every row as created.";
    /// The statement took longer than its limit.
    PostgresTimeout = "postgres.query_timeout", Transient, "Add an index for the model's key or cursor, or raise the connection's `statement_timeout_s`.";

    // Connections to Snowflake.
    /// The name does not resolve, nothing answers, or Snowflake is down for the moment.
    SnowflakeUnreachable = "snowflake.unreachable", Transient, "Check the account's name, and that a firewall lets the worker through to it on port 443.";
    /// TLS cannot be agreed or the certificate is not trusted.
    SnowflakeTls = "snowflake.tls_failed", User, "Check that nothing between the worker and Snowflake replaces its certificate.";
    /// The token, key or user is wrong.
    SnowflakeLogin = "snowflake.login_failed", User, "Check account, user and key or token; for a key pair run the ALTER USER script of the connection again.";
    /// The OAuth consent ended: the refresh token is spent or was revoked.
    SnowflakeConsent = "snowflake.consent_expired", User, "Connect with Snowflake again; a refresh token lives 90 days at most.";
    /// A network policy keeps the worker out, or the account is not served there.
    SnowflakeRefused = "snowflake.access_refused", User, "Check the account's name, and let the worker's address into the network policy.";
    /// The role cannot be used.
    SnowflakeRole = "snowflake.role_missing", User, "Grant the role to the connection's user; names are in upper case unless they were made in quotes.";
    /// No right to do it.
    SnowflakePrivilege = "snowflake.privilege_missing", User, "Grant the right that the message names to the connection's role.";
    /// No warehouse runs.
    SnowflakeWarehouse = "snowflake.warehouse_missing", User, "Grant USAGE on the warehouse to the role, and check its name and that it may resume.";
    /// The database or schema is not there.
    SnowflakeDatabase = "snowflake.database_missing", User, "Check the name, and grant USAGE on it to the role.";
    /// Too much at once.
    SnowflakeBusy = "snowflake.too_busy", Transient, "Nothing to do: the run tries again; a larger warehouse takes more at once.";
    /// The connection broke in the middle.
    SnowflakeConnectionLost = "snowflake.connection_lost", Transient, "Nothing to do: the run goes on from the last committed chunk.";
    /// The statement failed.
    SnowflakeQuery = "snowflake.query_failed", User, "Look the statement up in Snowflake's query history by the handle in the message, and mend what it reports.";
    /// Snowflake failed within itself: a statement of the same text may succeed a moment later.
    SnowflakeInternal = "snowflake.internal_error", Transient, "Nothing to do: the run tries again. If it fails each time, ask Snowflake's support with the statement's handle.";
    /// The statement took longer than its limit.
    SnowflakeTimeout = "snowflake.query_timeout", Transient, "Use a larger warehouse, or raise the connection's `statement_timeout_s`.";
    /// Someone cancelled the statement.
    SnowflakeCancelled = "snowflake.query_cancelled", Transient, "Nothing to do if it was cancelled on purpose; the run tries again.";
    /// The result is larger than Snowflake hands out.
    SnowflakeTooLarge = "snowflake.result_too_large", User, "Read fewer rows or columns, or use a mode that stages its batch.";
    /// The result is no longer kept, or its batch table is gone.
    SnowflakeResultGone = "snowflake.result_gone", Transient, "Nothing to do: the next attempt asks for the rows again.";
    /// An answer that breaks the API's contract.
    SnowflakeAnswer = "snowflake.answer_malformed", System, "Report it with the run id; the log holds the place, never a value.";
    /// A request that Snowflake does not take.
    SnowflakeRequest = "snowflake.request_refused", System, "Report it with the run id; the log holds the answer's code.";
    /// Rows in a batch table that no batch accounts for.
    SnowflakeBatchLost = "snowflake.batch_unaccounted", User, "Look at the table that the message names: its rows were taken from the Stream and never sent.";
    /// A table of mode `diff` is gone.
    SnowflakeSnapshotGone = "snowflake.snapshot_gone", User, "Reset the sync's position: the next run sends every row as created.";
    /// The Stream's offset is older than the table's history.
    SnowflakeStale = "snowflake.stream_stale", User, "Resync the sync: `full` makes the Stream anew and sends every row, `position` takes what is there as sent.";

    // Models.
    /// Not one SELECT.
    ModelNotSelect = "model.not_select", User, "Write one SELECT statement that only reads.";
    /// More than one statement.
    ModelMultipleStatements = "model.multiple_statements", User, "Write one SELECT statement.";
    /// SQL that does not parse.
    ModelSyntax = "model.syntax", User, "Mend the SQL at the place named in the message.";
    /// A table or column that is not there.
    ModelObjectMissing = "model.object_missing", User, "Check the names; quoted names are case-sensitive.";
    /// Two columns of one name.
    ModelDuplicateColumns = "model.duplicate_columns", User, "Give each column of the SELECT a name of its own.";
    /// The key's column is not in the model.
    ModelKeyMissing = "model.key_missing", User, "Name columns that the model returns as its primary key.";
    /// A key with NULL in it.
    ModelKeyNull = "model.key_null", User, "Choose key columns that are never NULL, or filter such rows out.";
    /// Two rows of one key.
    ModelKeyDuplicate = "model.key_duplicate", User, "Choose columns that identify a row, or filter repeats out.";
    /// A column whose type cannot be sent exactly.
    ModelTypeUnsupported = "model.type_unsupported", User, "Cast the column in a `sql` model, for one to text, or leave it out.";
    /// The cursor cannot be used.
    ModelCursor = "model.cursor_unsuitable", User, "Use a cursor column that only grows: a timestamp, a date or a whole number.";
    /// The model's columns changed since it was saved.
    ModelColumnsChanged = "model.columns_changed", User, "Save the model again to take over its columns as they are now.";

    // Kafka.
    /// No broker answers.
    KafkaUnreachable = "kafka.unreachable", Transient, "Check the bootstrap servers, and that the brokers' advertised listeners can be reached from the worker.";
    /// The cluster sends its clients to an address that the installation does not dial.
    KafkaAdvertised = "kafka.advertised_listener_blocked", User, "Have the broker advertise an address outside, or ask whoever runs the installation to allow its network.";
    /// TLS cannot be agreed.
    KafkaTls = "kafka.tls_failed", User, "Check the CA and client certificates, and that each broker's name is in its certificate.";
    /// SASL refused.
    KafkaLogin = "kafka.login_failed", User, "Check SASL mechanism, user and password.";
    /// The topic is not there.
    KafkaTopicMissing = "kafka.topic_missing", User, "Create the topic, or let the sync create it with `topic.create`.";
    /// The topic is there with other settings.
    KafkaTopicMismatch = "kafka.topic_mismatch", User, "Change the sync's `topic.create` to the topic's settings, or use another topic.";
    /// The topic cannot be created.
    KafkaTopicCreate = "kafka.topic_create_failed", User, "Check partitions, replication factor and the CREATE right.";
    /// A right is missing.
    KafkaAcl = "kafka.acl_missing", User, "Grant the operation on the resource that the message names.";
    /// Transactions are not allowed or not there.
    KafkaTransactions = "kafka.transactions_not_allowed", User, "Grant WRITE and DESCRIBE on the transactional id prefix, or choose the guarantee `effectively_once`.";
    /// A record larger than the topic takes.
    KafkaMessageTooLarge = "kafka.message_too_large", User, "Raise `max.message.bytes` of the topic, or leave large columns out.";
    /// Too few replicas in sync.
    KafkaNotEnoughReplicas = "kafka.not_enough_replicas", Transient, "Bring the topic's replicas back, or lower `min.insync.replicas`.";
    /// Another producer with our transactional id took over.
    KafkaFenced = "kafka.fenced", Transient, "Nothing to do: another worker has this sync now.";
    /// The broker did not answer in time.
    KafkaTimeout = "kafka.delivery_timeout", Transient, "Nothing to do: the run goes on when the brokers answer.";
    /// It is unknown whether a transaction was committed.
    KafkaUnclear = "kafka.commit_unclear", Transient, "Nothing to do: the next attempt reads what was committed and goes on from there.";
    /// The progress record is gone or of another cluster.
    KafkaProgressLost = "kafka.progress_lost", User, "Check that the destination is the same cluster; then reset the sync's position.";
    /// Kafka knows more than Postgres.
    KafkaLedgerBehind = "kafka.ledger_behind", User, "Freshet's database is older than the topic, as after a restore: adopt Kafka's position with `POST /v1/syncs/{id}/adopt-position`, then run the sync.";
    /// A setting outside the allow-list.
    KafkaSetting = "kafka.setting_not_allowed", User, "Remove the setting; the message lists those that are allowed.";
    /// Another error of the broker.
    KafkaBroker = "kafka.broker_error", Transient, "Look at the broker's log; the run tries again by itself.";

    // Runs.
    /// More dead letters than tolerated.
    ErrorBudgetSpent = "sync.error_budget_spent", User, "Look at the run's dead letters, mend the rows or raise `error_tolerance`.";
    /// A row that cannot be encoded.
    EncodeFailed = "record.encode_failed", User, "Look at the dead letter's reason; cast or leave out the column it names.";
    /// The lease ran out.
    LeaseLost = "platform.lease_lost", Transient, "Nothing to do: another worker goes on from the last committed chunk.";
    /// A person asked to stop.
    Cancelled = "run.cancelled", User, "Start a new run when you want to go on.";

    // The installation.
    /// The organization has as much as its plan lets it have.
    QuotaExceeded = "platform.quota_exceeded", User, "Remove what is not needed any more, or ask whoever runs the installation to raise the limit; `GET /v1/limits` has them all.";
    /// Freshet's own database does not answer.
    Database = "platform.database", Transient, "Check Freshet's own Postgres; work goes on when it answers.";
    /// A secret cannot be opened.
    Vault = "platform.vault", System, "Put the key that the message names back among the master keys (`FRESHET_MASTER_KEYS`, or the file of `FRESHET_MASTER_KEYS_FILE`), after the one that seals; without it the secret is lost and must be entered again.";
    /// A setting that cannot be used.
    Settings = "platform.settings", User, "Mend the setting named in the message; `freshet doctor` checks them all.";
    /// A defect of Freshet.
    Internal = "platform.internal", System, "Report it with the request or run id; the log holds the cause.";
}

impl Code {
    /// The code of a word, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl utoipa::PartialSchema for Code {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .into()
    }
}

impl utoipa::ToSchema for Code {}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a known error code"))
    }
}

/// One field of a request that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer into the body, `/topic/name`.
    pub pointer: String,
    /// The rule that is broken.
    pub detail: String,
}

/// A failure: its code, a sentence for a person, the fields at fault, and the cause for the log.
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Which of the closed list.
    pub code: Code,
    /// What failed, on what, how much of it; shown to people of the workspace.
    pub message: String,
    /// Which fields of a request are at fault; empty for anything else.
    pub fields: Vec<FieldError>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with its code and its sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fields: Vec::new(), source: None }
    }

    /// A request that breaks one rule.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let (pointer, detail) = (pointer.into(), detail.into());
        let sentence = if pointer.is_empty() { detail.clone() } else { format!("{pointer}: {detail}") };
        let mut error = Self::new(Code::Invalid, sentence);
        error.fields.push(FieldError { pointer, detail });
        error
    }

    /// A JSON value of the wrong shape: where, and what was expected, without what was found there.
    pub fn from_json<E: fmt::Display>(prefix: &str, error: &serde_path_to_error::Error<E>) -> Self {
        let (path, text) = (error.path().to_string(), without_values(&error.inner().to_string()));
        // A text that is no JSON has no path, but a line and a column.
        match path.as_str() {
            "." | "?" => Self::invalid(prefix, text),
            _ => {
                let detail = text.split(" at line ").next().unwrap_or_default();
                Self::invalid(format!("{prefix}/{}", path.replace('.', "/")), detail)
            }
        }
    }

    /// No such thing in this workspace.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("no {what} with this id in the workspace"))
    }

    /// Keeps `source` for the log; it is never shown.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Who can mend it.
    #[must_use]
    pub fn class(&self) -> Class {
        self.code.class()
    }

    /// The message and every cause below it, for the log.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = format!("{}: {}", self.code, self.message);
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        text
    }
}

/// Cuts what stands in double quotes, and a word that is none of an enum: serde repeats what it found, and that may be a
/// secret.
pub fn without_values(text: &str) -> String {
    if let Some((head, found)) = text.split_once("unknown variant `") {
        let words = found.rsplit_once("`, expected ").map_or("another", |(_, words)| words);
        return format!("{head}unknown variant …, expected {words}");
    }
    let mut parts = text.split('"');
    let head = parts.next().unwrap_or_default();
    match parts.next_back() {
        Some(tail) => format!("{head}…{tail}"),
        None => head.to_owned(),
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_and_says_what_to_do() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
            assert!(code.action().ends_with('.'), "{code} has no action");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_not_repeated() {
        let found: Result<u16, _> = serde_path_to_error::deserialize(serde_json::json!("hunter2"));

        let error = Error::from_json("/settings", &found.unwrap_err());

        assert_eq!(error.message, "/settings: invalid type: string …, expected u16");
    }

    #[test]
    fn a_word_that_is_none_of_an_enum_is_not_repeated() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Reach {
            Private,
            Public,
        }
        let _ = [Reach::Private, Reach::Public];
        let found: Result<Reach, _> = serde_path_to_error::deserialize(serde_json::json!("hunter`2`, expected x"));

        let error = Error::from_json("/reach", &found.unwrap_err());

        assert_eq!(error.message, "/reach: unknown variant …, expected `private` or `public`");
    }

    #[test]
    fn a_field_at_fault_is_named_by_its_path_and_broken_json_by_its_line() {
        let read = |text: &str| {
            let mut json = serde_json::Deserializer::from_str(text);
            let found: Result<std::collections::BTreeMap<String, u16>, _> = serde_path_to_error::deserialize(&mut json);
            Error::from_json("", &found.unwrap_err()).fields.remove(0)
        };

        let (field, broken) = (read("{\"port\": 70000}"), read("{oops"));

        assert_eq!(
            (field.pointer.as_str(), field.detail.as_str()),
            ("/port", "invalid value: integer `70000`, expected u16")
        );
        assert_eq!((broken.pointer.as_str(), broken.detail.as_str()), ("", "key must be a string at line 1 column 2"));
    }

    #[test]
    fn the_cause_is_in_the_log_and_not_in_the_message() {
        let error = Error::new(Code::Database, "cannot read the run").caused_by("connection refused");

        assert_eq!(error.to_string(), "cannot read the run");
        assert_eq!(error.chain(), "platform.database: cannot read the run: connection refused");
    }
}
