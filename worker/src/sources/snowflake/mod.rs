//! Snowflake as a source: tables, SELECT statements and Streams, over the SQL API v2.
//!
//! Checked against the published contract, never run against Snowflake itself.
//!
//! | file | holds |
//! |---|---|
//! | `settings` | the form, and which addresses are allowed |
//! | `sign_in` | key pairs, access tokens, OAuth |
//! | `client` | the SQL API: requests, retries, results in partitions |
//! | `decode` | an answer's bytes into rows of cells |
//! | `session` | the client made when it is first used |
//! | `model` | the check of a model's statement |
//! | `sql` | the statements that are sent: batch tables, Streams |
//! | `streams` | Streams: listing them, what they follow, making one |
//! | `catalogue` | the connection test, listing, columns, preview, key check |
//! | `seal` | fixing a batch |
//! | `read` | streaming a batch |
//! | `changes` | a Stream's changes: taken out of it into numbered tables, read from those |
//! | `diff` | snapshots, and what changed between two of them |
//! | `ahead` | what the next batch would hold, without fixing it |
//! | `fold` | rows of a Stream into changes |

mod ahead;
mod catalogue;
mod changes;
pub mod client;
pub mod decode;
mod diff;
mod fold;
mod model;
mod read;
mod seal;
mod session;
mod settings;
pub mod sign_in;
pub mod sql;
mod streams;

use std::sync::Arc;

use async_trait::async_trait;
use freshet_core::connector::{
    Ahead, BatchName, Catalogue, Consent, DrawnKey, Field, Granted, KeyCheck, MadeStream, ModelSpec, NewStream,
    Preview, ReadEnd, ReadRequest, Schema, SealRequest, Sealed, SecretKeeper, Sink, Source, SourceKind, SourceQuery,
    Step,
};
use freshet_core::egress::Egress;
use freshet_core::error::Result;
use freshet_core::settings::Secret;
use secrecy::ExposeSecret;
use serde_json::Value;

pub use settings::{Hosts, SignInKind, SignInSettings, SnowflakeSettings, stored_name};

use client::QueryTag;
use session::Session;

/// The kind `snowflake`.
#[derive(Debug, Clone, Default)]
pub struct Kind {
    hosts: Hosts,
}

impl Kind {
    /// The kind, with the hosts that the installation allows besides Snowflake's own.
    #[must_use]
    pub fn new(hosts: Hosts) -> Self {
        Self { hosts }
    }
}

#[async_trait]
impl SourceKind for Kind {
    const NAME: &'static str = "snowflake";
    const FIELDS: &'static [Field] = settings::FIELDS;
    type Settings = SnowflakeSettings;

    fn validate(&self, settings: &SnowflakeSettings) -> Result<()> {
        settings.validate(&self.hosts)
    }

    fn validate_model(&self, model: &ModelSpec) -> Result<()> {
        model::validate_model(model)
    }

    fn setup_script(&self, settings: &SnowflakeSettings) -> String {
        settings.setup_script()
    }

    fn draw_key(&self, settings: &SnowflakeSettings, second: bool) -> Result<DrawnKey> {
        settings.draw_key(second)
    }

    fn begin_consent(&self, settings: &SnowflakeSettings, redirect_url: &str) -> Result<Consent> {
        let app = settings.oauth_app(self.hosts.base_url(settings)?)?;
        let begun = app.consent(redirect_url, settings.context().role.as_deref())?;
        Ok(Consent {
            url: begun.url,
            state: begun.state.parse().unwrap_or_default(),
            verifier: begun.verifier.expose_secret().parse().unwrap_or_default(),
        })
    }

    async fn open(&self, settings: SnowflakeSettings, egress: Arc<Egress>) -> Result<Box<dyn Source>> {
        Ok(Box::new(Snowflake { session: Session::new(settings, self.hosts.clone(), egress) }))
    }
}

struct Snowflake {
    session: Session,
}

#[async_trait]
impl Source for Snowflake {
    async fn check(&mut self) -> Vec<Step> {
        catalogue::check(&mut self.session).await
    }

    async fn catalogue(&mut self, schema: Option<&str>) -> Result<Catalogue> {
        catalogue::list(&mut self.session, schema).await
    }

    async fn describe(&mut self, model: &ModelSpec) -> Result<(Schema, Vec<String>)> {
        catalogue::describe(&mut self.session, model).await
    }

    async fn preview(&mut self, model: &ModelSpec, rows_max: usize) -> Result<Preview> {
        catalogue::preview(&mut self.session, model, rows_max).await
    }

    async fn key_check(&mut self, model: &ModelSpec, key: &[String]) -> Result<KeyCheck> {
        catalogue::key_check(&mut self.session, model, key).await
    }

    async fn seal(&mut self, request: &SealRequest) -> Result<Sealed> {
        seal::seal(&mut self.session, request).await
    }

    async fn read(&mut self, request: &ReadRequest, sink: &mut dyn Sink) -> Result<ReadEnd> {
        read::read(&mut self.session, request, sink).await
    }

    async fn look_ahead(&mut self, request: &SealRequest, changes_max: usize, sink: &mut dyn Sink) -> Result<()> {
        ahead::look(&mut self.session, request, changes_max, sink).await
    }

    async fn count_ahead(&mut self, request: &SealRequest) -> Result<Ahead> {
        ahead::count(&mut self.session, request).await
    }

    fn keep_secrets(&mut self, keeper: Arc<dyn SecretKeeper>) {
        self.session.keep_secrets(keeper);
    }

    async fn finish_consent(&mut self, redirect_url: &str, code: &Secret, verifier: &Secret) -> Result<Granted> {
        self.session.finish_consent(redirect_url, code, verifier).await
    }

    fn queries(&mut self) -> Vec<SourceQuery> {
        self.session.queries()
    }

    async fn release(&mut self, name: &BatchName, batch: &Value) -> Result<()> {
        seal::release(&mut self.session, QueryTag::of_batch(name), batch).await
    }

    async fn make_stream(&mut self, new: &NewStream, dry_run: bool) -> Result<MadeStream> {
        streams::make(&mut self.session, new, dry_run).await
    }

    async fn renew_stream(&mut self, model: &ModelSpec, initial_rows: bool) -> Result<MadeStream> {
        streams::renew(&mut self.session, model, initial_rows).await
    }
}
