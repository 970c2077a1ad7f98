//! An emulator of Snowflake's SQL API v2 and Streams on Postgres.
//!
//! It follows the published contract, was never run against Snowflake, and shares no code with Freshet.
//!
//! ~~~text
//! http ─► auth, faults ─► statements (handles, history) ─► sql::sessions ─► Postgres
//! ~~~

pub mod accounting;
pub mod auth;
pub mod clock;
pub mod faults;
pub mod http;
pub mod results;
pub mod sql;
pub mod statements;
mod users;

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Executor, PgPool};

use accounting::Accounting;
use clock::Clock;
use faults::Faults;
use statements::Statements;

/// Sessions at once; more wait.
const CONNECTIONS_MAX: u32 = 24;

/// A client for HTTP. TLS has no default implementation in the workspace, and each client wants to know one.
pub fn http_client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

/// The emulator: one account.
pub struct Emulator {
    pub pool: PgPool,
    /// The account's name, upper case, as in a JWT.
    pub account: String,
    pub clock: Arc<Clock>,
    pub faults: Faults,
    pub accounting: Accounting,
    pub statements: Statements,
    /// How long a sync call waits before it answers 202.
    pub sync_window: Duration,
}

impl Emulator {
    /// Opens the database and makes what is missing in it.
    ///
    /// # Errors
    /// When Postgres cannot be reached or refuses.
    pub async fn open(database_url: &str, account: &str) -> Result<Arc<Self>, sqlx::Error> {
        let options: PgConnectOptions = database_url.parse()?;
        // Wide pages of SQL are bound per statement: nothing is gained by keeping plans.
        let options = options
            .statement_cache_capacity(64)
            .application_name("snowflake-emulator")
            .options([("client_min_messages", "warning")]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(Duration::from_secs(120))
            .connect_with(options)
            .await?;
        let mut connection = pool.acquire().await?;
        connection.execute("select pg_advisory_lock(727274)").await?;
        let made = connection.execute(sqlx::raw_sql(include_str!("schema.sql"))).await;
        let cleaned = sql::definitions::drop_all_temporary(&mut connection).await;
        connection.execute("select pg_advisory_unlock(727274)").await?;
        made?;
        if let Err(error) = cleaned {
            tracing::warn!(%error, "temporary tables of an earlier process are left");
        }
        drop(connection);
        Ok(Arc::new(Self {
            pool,
            account: account.to_uppercase(),
            clock: Arc::default(),
            faults: Faults::default(),
            accounting: Accounting::default(),
            statements: Statements::default(),
            sync_window: Duration::from_secs(45),
        }))
    }
}
