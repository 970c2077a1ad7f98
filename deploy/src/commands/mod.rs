//! The list of commands.

mod admin;

mod doctor;
mod serve;

use clap::{Parser, Subcommand};
use freshet_core::settings::Settings;

use crate::bench::Bench;

/// Freshet moves SQL models into Apache Kafka, exactly once.
#[derive(Debug, Parser)]
#[command(name = "freshet", version, arg_required_else_help = true)]
pub struct Command {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// All roles in one process
    Serve,
    /// The REST API alone
    Api,
    /// A worker alone; any number may run
    Worker,
    /// Bring the database's schema up to date
    Migrate,
    /// Check every setting against the world and say what to do
    Doctor(doctor::Doctor),
    /// List every setting with its default
    Settings,
    /// Make and restore workspaces
    #[command(subcommand)]
    Workspace(admin::Workspace),
    /// What whoever runs the installation says of organizations: where workers dial, limits, plans
    #[command(subcommand)]
    Organization(admin::Organization),
    /// Make API keys and master keys
    #[command(subcommand)]
    Key(admin::Key),
    /// People
    #[command(subcommand)]
    User(admin::User),
    /// Domains of organizations
    #[command(subcommand)]
    Domain(admin::Domain),
    /// Sign-in by organizations' issuers
    #[command(subcommand)]
    Sso(admin::Sso),
    /// Measure, beside a peer or a limit in the same run
    #[command(subcommand)]
    Bench(Bench),
    /// Print the OpenAPI document
    Openapi,
}

impl Command {
    /// Does what was asked.
    ///
    /// # Errors
    /// For a person to read: what failed, and what to do.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.role {
            Role::Serve => serve::run(serve::Roles { api: true, worker: true }).await,
            Role::Api => serve::run(serve::Roles { api: true, worker: false }).await,
            Role::Worker => serve::run(serve::Roles { api: false, worker: true }).await,
            Role::Migrate => admin::migrate(&Settings::load()?).await,
            Role::Doctor(options) => doctor::run(&options).await,
            Role::Settings => admin::settings(),
            Role::Workspace(command) => command.run().await,
            Role::Organization(command) => command.run().await,
            Role::Key(command) => command.run().await,
            Role::User(command) => command.run().await,
            Role::Domain(command) => command.run().await,
            Role::Sso(command) => command.run().await,
            Role::Bench(command) => command.run().await,
            Role::Openapi => {
                println!("{}", freshet_api::openapi_json()?);
                Ok(())
            }
        }
    }
}
