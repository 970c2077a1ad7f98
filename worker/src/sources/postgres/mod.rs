//! PostgreSQL as a source: tables and SELECT statements, read in full or by a cursor.
//!
//! Nothing is staged in the source: a batch is a range of keys or cursor values in strict order, and a
//! token is the key of the last row. Everything runs in read-only sessions.
//!
//! | file | holds |
//! |---|---|
//! | `settings` | the form, and what may be set |
//! | `session` | connecting, and errors by SQLSTATE |
//! | `sql` | the check of a model's statement; quoting |
//! | `types` | which types are sent, and how their binary form is read |
//! | `catalogue` | the connection test, listing, columns, preview, key check |
//! | `seal` | the bound of an incremental batch, below the late-commit horizon |
//! | `read` | streaming a batch |

mod catalogue;
mod read;
mod seal;
mod session;
mod settings;
mod sql;
pub mod types;

use async_trait::async_trait;
use freshet_core::connector::{
    Catalogue, Field, KeyCheck, ModelSpec, Preview, ReadEnd, ReadRequest, Schema, SealRequest, Sealed, Sink, Source,
    SourceKind, Step,
};
use freshet_core::error::Result;

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

    async fn open(&self, settings: PostgresSettings) -> Result<Box<dyn Source>> {
        Ok(Box::new(Postgres { session: Session::new(settings) }))
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
        read::read(&mut self.session, request, sink).await
    }
}
