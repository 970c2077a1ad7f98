//! The operator's commands: schema, settings, workspaces, keys.

use std::time::Duration;

use clap::Subcommand;
use freshet_core::access::{OrganizationCaller, Right, Role};
use freshet_core::api_key::{self, ops::Grant};
use freshet_core::limit::{Limit, Limits};
use freshet_core::secret::turnover;
use freshet_core::settings::{Reach, Settings};
use freshet_core::vault::Vault;
use freshet_core::{db, deletion, domain, limit, organization, sso, user, workspace};
use serde_json::json;

use crate::wire;

/// How long to wait for a worker that is re-wrapping already.
const REWRAP_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub enum Workspace {
    /// Make a workspace
    Create {
        /// Its short name: a-z, 0-9 and -
        slug: String,
        /// Its name on the screen; the slug if not given
        #[arg(long)]
        name: Option<String>,
        /// The slug of its organization; one of the workspace's own slug and name is made if not given
        #[arg(long)]
        organization: Option<String>,
    },
    /// Restore a workspace that is deleted, within its undo period
    Restore {
        /// Its slug, or organization/slug
        slug: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Organization {
    /// Show where workers dial for an organization, or change it; prints what holds, as JSON
    Egress {
        /// The organization's slug
        organization: String,
        /// `private` or `public`: in place of FRESHET_EGRESS_REACH
        #[arg(long)]
        reach: Option<Reach>,
        /// Networks and addresses that are dialled besides, with commas: in place of FRESHET_EGRESS_ALLOW
        #[arg(long, requires = "reach")]
        allow: Option<String>,
        /// As the installation's settings say, again
        #[arg(long, conflicts_with = "reach")]
        reset: bool,
    },
    /// Show the limits of an organization, after setting what is given; prints them as JSON
    Limits {
        /// Its slug
        slug: String,
        /// Put it on this plan
        #[arg(long)]
        plan: Option<String>,
        /// Set a limit of its own over the plan's: `connections=20`, or `connections=none` to lift it
        #[arg(long = "set")]
        set: Vec<String>,
    },
    /// Make a plan, or change one for every organization that is on it
    Plan {
        /// Its name
        name: String,
        /// A limit: `connections=20`; what is not named is not limited
        #[arg(long = "limit")]
        limits: Vec<String>,
    },
}

impl Organization {
    pub async fn run(self) -> anyhow::Result<()> {
        let app = wire::app(Settings::load()?).await?;
        match self {
            Self::Egress { organization, reach, allow, reset } => {
                let id = organization::ops::find(&app, &organization).await?;
                let told = match (reach, reset) {
                    (Some(reach), _) => {
                        let own = Some((reach, allow.as_deref().unwrap_or_default()));
                        organization::ops::set_egress(&app, id, own).await?
                    }
                    (None, true) => organization::ops::set_egress(&app, id, None).await?,
                    (None, false) => organization::ops::told_egress(&app, &OrganizationCaller::command(id)).await?,
                };
                println!("{}", serde_json::to_string(&told)?);
            }
            Self::Limits { slug, plan, set } => {
                let caller = OrganizationCaller::command(organization::ops::find(&app, &slug).await?);
                let own = if set.is_empty() { None } else { Some(limits(&set)?) };
                println!("{}", json!(limit::ops::set(&app, &caller, plan.as_deref(), own.as_ref()).await?));
            }
            Self::Plan { name, limits: words } => {
                let set = limits(&words)?;
                limit::ops::set_plan(&app, &name, &set).await?;
                println!("{}", json!({ "plan": name, "limits": set }));
            }
        }
        Ok(())
    }
}

/// Limits of the form `word=number` or `word=none`.
fn limits(words: &[String]) -> anyhow::Result<Limits> {
    words.iter().map(|word| Ok(Limit::setting(word)?)).collect()
}

#[derive(Debug, Subcommand)]
pub enum User {
    /// Draw another set-up word, which the first person to sign up must know
    SetUpWord,
    /// Draw a link that resets the password of an address
    ResetPassword {
        /// The address
        email: String,
    },
}

impl User {
    pub async fn run(self) -> anyhow::Result<()> {
        let app = wire::app(Settings::load()?).await?;
        match self {
            Self::SetUpWord => match user::ops::draw_set_up_word(&app, true).await? {
                Some(word) => println!("{}", word.expose()),
                None => anyhow::bail!("there are people already; they invite others"),
            },
            Self::ResetPassword { email } => {
                let word = user::ops::reset_word(&app, &email).await?;
                println!("{}/reset?word={}", app.settings.public_url(), word.expose());
            }
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub enum Domain {
    /// Have an organization have a domain, by your word instead of a TXT record; prints it as JSON
    Verify {
        /// The organization's slug
        organization: String,
        /// The domain: acme.example
        domain: String,
    },
}

impl Domain {
    pub async fn run(self) -> anyhow::Result<()> {
        let app = wire::app(Settings::load()?).await?;
        match self {
            Self::Verify { organization, domain } => {
                let caller = OrganizationCaller::command(organization::ops::find(&app, &organization).await?);
                let verified = domain::ops::verify_by_hand(&app, &caller, &domain).await?;
                println!("{}", json!(verified));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub enum Sso {
    /// Open an organization for passwords again, when its issuer fails and nobody breaks the glass
    Release {
        /// The organization's slug
        organization: String,
    },
}

impl Sso {
    pub async fn run(self) -> anyhow::Result<()> {
        let app = wire::app(Settings::load()?).await?;
        match self {
            Self::Release { organization } => {
                let caller = OrganizationCaller::command(organization::ops::find(&app, &organization).await?);
                println!("{}", json!({ "released": sso::ops::release(&app, &caller).await? }));
            }
        }
        Ok(())
    }
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
        /// In every workspace of the organization
        #[arg(long)]
        of_organization: bool,
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
    /// Make the first master key the current one and wrap every secret by it; safe while the service runs
    Rewrap,
    /// How many secrets each master key wraps, as JSON
    Status,
}

impl Workspace {
    pub async fn run(self) -> anyhow::Result<()> {
        let app = wire::app(Settings::load()?).await?;
        match self {
            Self::Create { slug, name, organization } => {
                let name = name.as_deref().unwrap_or(&slug);
                let made = match organization {
                    None => organization::ops::create(&app, None, &slug, name).await?.1,
                    Some(organization) => {
                        let organization = organization::ops::find(&app, &organization).await?;
                        let caller = OrganizationCaller::command(organization);
                        workspace::ops::create(&app, &caller, &slug, name).await?.id
                    }
                };
                println!("{}", json!({ "id": made, "slug": slug, "name": name }));
            }
            Self::Restore { slug } => {
                let found = workspace::ops::find_deleting(&app, &slug).await?;
                let caller = OrganizationCaller::command(found.organization_id);
                println!("{}", json!(deletion::ops::restore(&app, &caller, found.id).await?));
            }
        }
        Ok(())
    }
}

impl Key {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create { workspace, account, scopes, role, of_organization, days } => {
                let app = wire::app(Settings::load()?).await?;
                let found = workspace::ops::find(&app, &workspace).await?;
                let rights = match (scopes.as_slice(), role) {
                    ([], None) => Right::ALL.to_vec(),
                    ([], Some(role)) => Role::parse(&role)?.rights(),
                    (scopes, _) => scopes.iter().map(|scope| Right::parse(scope)).collect::<Result<_, _>>()?,
                };
                let grant = Grant { rights: &rights, of_organization, days };
                let key = api_key::ops::create(&app, found.id, &account, grant).await?;
                let told = json!({ "id": key.key.id, "key": key.text.expose(), "expires_at": key.key.expires_at });
                println!("{told}");
            }
            Self::Master { name } => println!("{name}={}", Vault::draw_master_key()),
            Self::Rewrap => {
                let app = wire::app(Settings::load()?).await?;
                turnover::announce(&app, false).await?;
                let round = loop {
                    if let Some(round) = turnover::round(&app).await? {
                        break round;
                    }
                    let (own, current) = (app.vault.current_key(), turnover::current(&app).await?.unwrap_or_default());
                    anyhow::ensure!(
                        own == current,
                        "`{own}` comes first here, and `{current}` is the current master key now"
                    );
                    tokio::time::sleep(REWRAP_AGAIN).await;
                };
                println!("{}", json!({ "rewrapped": round.rewrapped, "master_key": app.vault.current_key() }));
                anyhow::ensure!(round.broken == 0, "{} secrets do not open: their rows were changed", round.broken);
                anyhow::ensure!(
                    round.stranded == 0,
                    "{} secrets are of master keys that are not given; `freshet key status` names them",
                    round.stranded
                );
            }
            Self::Status => {
                let app = wire::app(Settings::load()?).await?;
                let (current, uses) = (turnover::current(&app).await?, turnover::uses(&app).await?);
                let seals = app.vault.current_key();
                let left: i64 = uses.iter().filter(|of| of.name != seals).map(|of| of.secrets).sum();
                println!("{}", json!({ "seals": seals, "current": current, "to_rewrap": left, "keys": uses }));
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
