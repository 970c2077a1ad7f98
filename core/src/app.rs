//! Everything an operation needs, built once at start.

use std::sync::Arc;

use crate::clock::Clock;
use crate::connector::Registry;
use crate::db::Db;
use crate::egress::Egress;
use crate::events::Events;
use crate::mail::Mailer;
use crate::settings::Settings;
use crate::vault::Vault;

/// What `ops` take first. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// Freshet's own database.
    pub db: Db,
    /// All settings.
    pub settings: Arc<Settings>,
    /// The time.
    pub clock: Clock,
    /// Seals secrets; opened in a worker alone.
    pub vault: Arc<Vault>,
    /// Which connectors there are.
    pub registry: Registry,
    /// The way mail goes out, if there is one.
    pub mailer: Mailer,
    /// Which addresses are dialled for users.
    pub egress: Arc<Egress>,
    /// Changes of the database.
    pub events: Events,
}
