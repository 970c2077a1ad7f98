//! PostgreSQL as a source: tables and SELECT statements, read in full, by a cursor, or by difference.
//!
//! In the modes `full` and `incremental` nothing is staged in the source: a batch is a range of keys or cursor values in
//! strict order, and a token is the key of the last row. Sessions are read-only; only `diff` begins transactions that
//! write, in Freshet's own schema.
//!
//! | file | holds |
//! |---|---|
//! | `settings` | the form, and what may be set |
//! | `session` | connecting, and errors by SQLSTATE |
//! | `relay` | from the driver to the address that was judged |
//! | `sql` | the check of a model's statement; quoting |
//! | `types` | which types are sent, and how their binary form is read |
//! | `catalogue` | the connection test, listing, columns, preview, key check |
//! | `seal` | the bound of an incremental batch, below the late-commit horizon |
//! | `read` | streaming a batch |
//! | `diff` | snapshots, and what changed between two of them |
//! | `ahead` | what the next batch would hold, without fixing it |

mod ahead;
mod catalogue;
mod diff;
mod read;
mod relay;
mod seal;
mod session;
mod settings;
mod sql;
pub mod types;

use std::sync::Arc;

use async_trait::async_trait;
use freshet_core::connector::{
    Ahead, BatchName, Catalogue, Field, KeyCheck, ModelSpec, Preview, ReadEnd, ReadMode, ReadRequest, Schema,
    SealRequest, Sealed, Sink, Source, SourceKind, Step,
};
use freshet_core::egress::Egress;
use freshet_core::error::Result;
use serde_json::Value;

pub use settings::{PostgresSettings, Tls, TlsMode};

pub(super) use catalogue::preview_row;
use session::Session;

/// The kind `postgres`.
#[derive(Debug, Clone, Copy)]
pub struct Kind;

#[async_trait]
impl SourceKind for Kind {
    const NAME: &'static str = "postgres";
    const FIELDS: &'static [Field] = settings::FIELDS;
    type Settings = PostgresSettings;

    fn validate(&self, settings: &PostgresSettings) -> Result<()> {
        settings.validate()
    }

    fn validate_model(&self, model: &ModelSpec) -> Result<()> {
        sql::validate_model(model)
    }

    fn setup_script(&self, settings: &PostgresSettings) -> String {
        settings.setup_script()
    }

    async fn open(&self, settings: PostgresSettings, egress: Arc<Egress>) -> Result<Box<dyn Source>> {
        Ok(Box::new(Postgres { session: Session::new(settings, egress) }))
    }
}

struct Postgres {
    session: Session,
}

#[async_trait]
impl Source for Postgres {
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
        match request.plan.mode {
            ReadMode::Diff => diff::read(&mut self.session, request, sink).await,
            _ => read::read(&mut self.session, request, sink).await,
        }
    }

    async fn look_ahead(&mut self, request: &SealRequest, changes_max: usize, sink: &mut dyn Sink) -> Result<()> {
        ahead::look(&mut self.session, request, changes_max, sink).await
    }

    async fn count_ahead(&mut self, request: &SealRequest) -> Result<Ahead> {
        ahead::count(&mut self.session, request).await
    }

    async fn release(&mut self, name: &BatchName, batch: &Value) -> Result<()> {
        match diff::is_of(batch) {
            true => diff::release(&mut self.session, name).await,
            false => Ok(()),
        }
    }
}
