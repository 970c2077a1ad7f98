//! The commands.

mod faults;
mod load;
mod sql;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use snowflake_emulator::{Emulator, auth, http};

/// Emulates Snowflake's SQL API v2 and Streams on Postgres; never run against Snowflake itself.
#[derive(Parser)]
#[command(name = "snowflake-emulator", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the data lies.
#[derive(Args, Clone)]
pub struct Place {
    /// The Postgres database that holds everything.
    #[arg(long, env = "SNOWFLAKE_EMULATOR_DATABASE_URL")]
    database_url: String,
    /// The account's name, as in a JWT.
    #[arg(long, env = "SNOWFLAKE_EMULATOR_ACCOUNT", default_value = "EMULATOR-ACCOUNT")]
    account: String,
}

impl Place {
    async fn open(&self) -> Result<Arc<Emulator>> {
        Emulator::open(&self.database_url, &self.account)
            .await
            .context("the database of the emulator could not be opened")
    }
}

#[derive(Subcommand)]
enum Command {
    /// Serves the SQL API until it is stopped; prints its URL.
    Serve {
        #[command(flatten)]
        place: Place,
        /// Port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: std::net::SocketAddr,
    },
    /// Makes a user.
    CreateUser {
        #[command(flatten)]
        place: Place,
        name: String,
        #[arg(long)]
        database: Option<String>,
        #[arg(long)]
        schema: Option<String>,
    },
    /// Makes a database with a schema PUBLIC.
    CreateDatabase {
        #[command(flatten)]
        place: Place,
        name: String,
    },
    /// Sets a user's RSA public key (PEM file).
    SetKey {
        #[command(flatten)]
        place: Place,
        user: String,
        pem: PathBuf,
        /// 1 or 2: keys are turned over between two slots.
        #[arg(long, default_value_t = 1)]
        slot: u8,
    },
    /// Makes a programmatic access token and prints it.
    CreateToken {
        #[command(flatten)]
        place: Place,
        user: String,
        #[arg(long, default_value_t = 15)]
        days: i64,
    },
    /// Runs statements and prints the last result as a table.
    Sql(sql::Options),
    /// Changes rows of a table steadily, for demos.
    Load(load::Options),
    /// Shows, sets or clears the fault rules of a running emulator.
    Faults(faults::Options),
}

/// Runs a command.
///
/// # Errors
/// What the command could not do.
pub async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Serve { place, listen } => serve(&place, listen).await,
        Command::CreateUser { place, name, database, schema } => {
            let upper = |text: Option<String>| text.map(|text| text.to_uppercase());
            let (database, schema) = (upper(database), upper(schema));
            place
                .open()
                .await?
                .create_user(&name.to_uppercase(), database.as_deref(), schema.as_deref(), None, None)
                .await?;
            print(&format!("user {} of account {}", name.to_uppercase(), place.account.to_uppercase()))
        }
        Command::CreateDatabase { place, name } => {
            let statement = format!("create database if not exists {name}");
            sql::run_one(&place, None, None, &statement).await.map(|_| ())?;
            print(&format!("database {}", name.to_uppercase()))
        }
        Command::SetKey { place, user, pem, slot } => set_key(&place, &user, &pem, slot).await,
        Command::CreateToken { place, user, days } => {
            let token = place.open().await?.create_token(&user.to_uppercase(), "programmatic", days * 86_400, "").await;
            print(&token.with_context(|| format!("no user {}", user.to_uppercase()))?)
        }
        Command::Sql(options) => sql::run(options).await,
        Command::Load(options) => load::run(options).await,
        Command::Faults(options) => faults::run(options).await,
    }
}

/// Prints a line; a reader that has gone is no error.
pub fn print(line: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn serve(place: &Place, listen: std::net::SocketAddr) -> Result<()> {
    if !listen.ip().is_loopback() {
        bail!(
            "the emulator has no TLS and an open admin surface: it listens on a loopback address only, not on {listen}"
        );
    }
    let emulator = place.open().await?;
    let listener =
        tokio::net::TcpListener::bind(listen).await.with_context(|| format!("could not listen on {listen}"))?;
    print(&format!("http://{}", listener.local_addr()?))?;
    axum::serve(listener, http::router(emulator)).await.context("the server ended")
}

async fn set_key(place: &Place, user: &str, pem: &PathBuf, slot: u8) -> Result<()> {
    let text = std::fs::read_to_string(pem).with_context(|| format!("could not read {}", pem.display()))?;
    let key =
        auth::key_from_pem(&text).with_context(|| format!("{} is not an RSA public key in PEM", pem.display()))?;
    place
        .open()
        .await?
        .set_key(&user.to_uppercase(), slot, &key)
        .await
        .with_context(|| format!("no user {}", user.to_uppercase()))?;
    print(&format!("key {slot} of {} set", user.to_uppercase()))
}
