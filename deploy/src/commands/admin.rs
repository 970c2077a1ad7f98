//! The operator's commands: schema, settings, workspaces, keys.

use clap::Subcommand;
use freshet_core::access::{Right, Role};
use freshet_core::settings::Settings;
use freshet_core::vault::Vault;
use freshet_core::{api_key, db, secret, workspace};
use serde_json::json;

use crate::wire;

/// Secrets re-wrapped at a time.
const REWRAP_ROWS: i32 = 500;

#[derive(Debug, Subcommand)]
pub enum Workspace {
    /// Make a workspace
    Create {
        /// Its short name: a-z, 0-9 and -
        slug: String,
        /// Its name on the screen; the slug if not given
        #[arg(long)]
        name: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make an API key for a service account; prints it once, as JSON
    Create {
        /// The workspace's slug
        #[arg(long)]
        workspace: String,
        /// The service account's name; made if there is none
        #[arg(long, default_value = "automation")]
        account: String,
        /// What the key may do: all scopes if neither this nor a role is given
        #[arg(long = "scope", conflicts_with = "role")]
        scopes: Vec<String>,
        /// All that a role may do: viewer, operator, editor, admin, owner
        #[arg(long)]
        role: Option<String>,
        /// Days until it expires
        #[arg(long, default_value_t = 365)]
        days: i64,
    },
    /// Draw a master key for FRESHET_MASTER_KEYS
    Master {
        /// The key's name
        #[arg(long, default_value = "main")]
        name: String,
    },
    /// Wrap every secret by the first of FRESHET_MASTER_KEYS; safe while the service runs
    Rewrap,
}

impl Workspace {
    pub async fn run(self) -> anyhow::Result<()> {
        let app = wire::app(Settings::load()?).await?;
        match self {
            Self::Create { slug, name } => {
                let made = workspace::ops::create(&app, &slug, name.as_deref().unwrap_or(&slug)).await?;
                println!("{}", json!({ "id": made.id, "slug": made.slug, "name": made.name }));
            }
        }
        Ok(())
    }
}

impl Key {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create { workspace, account, scopes, role, days } => {
                let app = wire::app(Settings::load()?).await?;
                let found = workspace::ops::find(&app, &workspace).await?;
                let rights = match (scopes.as_slice(), role) {
                    ([], None) => Right::ALL.to_vec(),
                    ([], Some(role)) => Role::parse(&role)?.rights(),
                    (scopes, _) => scopes.iter().map(|scope| Right::parse(scope)).collect::<Result<_, _>>()?,
                };
                let key = api_key::ops::create(&app, found.id, &account, &rights, days).await?;
                let told = json!({ "id": key.key.id, "key": key.text.expose(), "expires_at": key.key.expires_at });
                println!("{told}");
            }
            Self::Master { name } => println!("{name}={}", Vault::draw_master_key()),
            Self::Rewrap => {
                let app = wire::app(Settings::load()?).await?;
                let mut total = 0;
                loop {
                    let done = secret::ops::rewrap(&app, REWRAP_ROWS).await?;
                    total += done;
                    if done == 0 {
                        break;
                    }
                    eprintln!("{total} secrets re-wrapped");
                }
                println!("{}", json!({ "rewrapped": total, "master_key": app.vault.current_key() }));
            }
        }
        Ok(())
    }
}

/// Brings the schema up to date.
pub async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    db::migrate(settings).await?;
    eprintln!("the schema is up to date");
    Ok(())
}

/// Lists every setting: the table of the docs.
pub fn settings() -> anyhow::Result<()> {
    for setting in Settings::DOCS {
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        println!("FRESHET_{} (default {default})\n   {}", setting.name.to_uppercase(), setting.doc.trim());
    }
    Ok(())
}
