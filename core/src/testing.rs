//! For tests: a database of one's own, a workspace, and its application.

use std::sync::{Arc, LazyLock};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::access::{Caller, Right};
use crate::api_key::{self, ops::Grant};
use crate::app::App;
use crate::clock::Clock;
use crate::connector::Registry;
use crate::db::{self, Db, MIGRATOR};
use crate::egress::Egress;
use crate::events::Events;
use crate::mail::Mailer;
use crate::organization;
use crate::settings::{Reach, Settings};
use crate::vault::Vault;

/// A setting of the tests' surroundings.
///
/// # Panics
/// When it is missing: with the command that provides it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the tests' surroundings are no settings of the service")]
pub fn surroundings(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run: eval \"$(deploy/dev/up --fast)\""))
}

/// The same, with a default.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the tests' surroundings are no settings of the service")]
pub fn surroundings_or(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Passwords that this process has hashed or compared so far: most of the time that a sign-in takes.
#[must_use]
pub fn passwords_hashed() -> usize {
    crate::user::passwords_hashed()
}

/// Where the tests' servers are.
const LOOPBACK: &str = "127.0.0.0/8,::1";

/// The policy of tests without an application: their own servers may be dialled, as no installation's may by default.
pub static EGRESS: LazyLock<Arc<Egress>> =
    LazyLock::new(|| Arc::new(Egress::new(Reach::Private, LOOPBACK).expect("a policy that reads")));

/// A database of its own, made from a template, with one workspace in it. Databases of finished tests stay until
/// the next `deploy/test`.
pub struct Bench {
    /// The application, without a worker.
    pub app: App,
    /// The workspace's slug is `acme`.
    pub caller: Caller,
    /// A key of it with every scope.
    pub key: String,
    /// The superuser's address of this database.
    pub admin_url: String,
}

impl Bench {
    /// Makes one.
    ///
    /// # Panics
    /// When Postgres is not there, with the command that provides it.
    pub async fn new(registry: Registry) -> Self {
        Self::with(registry, &[]).await
    }

    /// Makes one with some settings.
    ///
    /// # Panics
    /// As [`Bench::new`].
    pub async fn with(registry: Registry, settings: &[(&str, &str)]) -> Self {
        let admin = surroundings("FRESHET_TEST_DATABASE_URL");
        let name = make_database(&admin).await.expect("a database for the test");
        let app_url = with_database(&surroundings("FRESHET_DATABASE_URL"), &name);
        let of_file = settings.iter().any(|(name, _)| *name == "master_keys_file");
        let key = if of_file { String::new() } else { format!("test={}", Vault::draw_master_key()) };
        let mut values = vec![
            ("database_url", app_url.as_str()),
            ("master_keys", key.as_str()),
            ("poll_ms", "100"),
            ("egress_allow", LOOPBACK),
        ];
        values.extend_from_slice(settings);
        let settings = Settings::with(&values).expect("valid settings");
        let db = Db::connect(&settings).await.expect("the test's database");
        let app = App {
            events: Events::listen(&db),
            vault: Arc::new(Vault::from_settings(&settings).expect("a master key")),
            mailer: Mailer::new(&settings).expect("a way for mail, or none"),
            egress: Arc::new(Egress::from_settings(&settings).expect("a policy")),
            settings: Arc::new(settings),
            clock: Clock::system(),
            registry,
            db,
        };
        let (caller, key) = workspace(&app, "acme").await;
        Self { app, caller, key, admin_url: with_database(&admin, &name) }
    }
}

/// An organization with a workspace, and a key of that with every scope.
///
/// # Panics
/// When the slug is taken.
pub async fn workspace(app: &App, slug: &str) -> (Caller, String) {
    let (organization, made) = organization::ops::create(app, None, slug, slug).await.expect("an organization");
    let grant = Grant { rights: Right::ALL, of_organization: false, days: 1 };
    let key = api_key::ops::create(app, made, "tests", grant).await.expect("a key");
    (Caller::command(made).of(organization.id, Some(Right::ALL.to_vec())), key.text.expose().to_owned())
}

/// The same address with another database.
#[must_use]
pub fn with_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap_or((url, ""));
    format!("{server}/{name}")
}

/// An empty database for a test's source; its name.
///
/// # Errors
/// When Postgres is not there.
pub async fn make_source() -> sqlx::Result<String> {
    let admin = surroundings("FRESHET_TEST_DATABASE_URL");
    let name = format!("source_{}", crate::id::RequestId::new());
    let mut connection = PgConnection::connect(&admin).await?;
    run(&mut connection, format!("create database {name}")).await?;
    Ok(name)
}

async fn make_database(admin: &str) -> sqlx::Result<String> {
    let mut connection = PgConnection::connect(admin).await?;
    let checksum = MIGRATOR.iter().fold(0u64, |sum, migration| {
        migration.checksum.iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
    });
    let template = format!("freshet_template_{checksum:016x}");
    // One at a time, over all test binaries: the first makes the template.
    sqlx::query("select pg_advisory_lock(7146290)").execute(&mut connection).await?;
    let there: bool = sqlx::query_scalar("select exists (select 1 from pg_database where datname = $1)")
        .bind(&template)
        .fetch_one(&mut connection)
        .await?;
    if !there {
        make_template(&mut connection, &template).await?;
    }
    let name = format!("test_{}", crate::id::RequestId::new());
    run(&mut connection, format!("create database {name} template {template} owner freshet_owner strategy file_copy"))
        .await?;
    connection.close().await?;
    Ok(name)
}

async fn make_template(connection: &mut PgConnection, template: &str) -> sqlx::Result<()> {
    let part = format!("{template}_part");
    run(connection, format!("drop database if exists {part}")).await?;
    run(connection, format!("create database {part} owner freshet_owner")).await?;
    let owner = with_database(&surroundings("FRESHET_OWNER_DATABASE_URL"), &part);
    let settings = Settings::with(&[("owner_database_url", &owner)]).expect("valid settings");
    db::migrate(&settings).await.expect("the migrations");
    run(connection, format!("alter database {part} rename to {template}")).await
}

async fn run(connection: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(|_| ())
}
