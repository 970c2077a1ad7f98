//! Freshet's own Postgres: the pool, the tenant's transaction, the migrations.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tracing::Instrument as _;

use crate::error::{Code, Error, Result};
use crate::id::{InstallationId, OrganizationId, UserId, WorkspaceId};
use crate::planted::{Bug, planted};
use crate::settings::{Secret, Settings};

/// The schema, embedded.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// How long a request waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a probe waits for the database.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// Freshet's own database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    pool: PgPool,
}

/// A transaction of one workspace: the only way to a tenant's rows. Row-level security shows it no others.
/// Dropped without [`TenantTx::commit`], it rolls back.
pub struct TenantTx {
    tx: Transaction<'static, Postgres>,
    workspace: WorkspaceId,
}

impl TenantTx {
    /// The workspace; every statement names it besides.
    #[must_use]
    pub fn workspace(&self) -> WorkspaceId {
        self.workspace
    }

    /// The connection, for a store's statements.
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Lets this transaction wait for an answer of somebody else's, for a minute.
    ///
    /// # Errors
    /// [`Code::Database`].
    pub(crate) async fn allow_silence(&mut self) -> Result<()> {
        let wait = sqlx::query("set local idle_in_transaction_session_timeout = '60s'");
        wait.execute(self.conn()).await.map(|_| ()).map_err(failed("cannot hold a transaction open"))
    }

    /// Commits.
    ///
    /// # Errors
    /// [`Code::Database`]; whether the commit took place is then not known.
    pub async fn commit(self) -> Result<()> {
        self.tx.commit().await.map_err(failed("cannot commit"))
    }
}

/// A lock that is given back when this is dropped.
pub(crate) struct Lock {
    _tx: Transaction<'static, Postgres>,
}

/// A transaction of one organization: its people, its workspaces as such; not what is in them.
pub struct OrganizationTx {
    tx: Transaction<'static, Postgres>,
    organization: OrganizationId,
}

/// A transaction of one person: what they prove themselves by, and what they belong to.
pub struct PersonTx {
    tx: Transaction<'static, Postgres>,
    user: UserId,
}

macro_rules! scoped {
    ($tx:ident, $scope:ident: $id:ident) => {
        impl $tx {
            #[doc = "Whose transaction it is; every statement names it besides."]
            #[must_use]
            pub fn $scope(&self) -> $id {
                self.$scope
            }

            #[doc = "The connection, for a store's statements."]
            pub(crate) fn conn(&mut self) -> &mut PgConnection {
                &mut self.tx
            }

            #[doc = "Commits.\n\n# Errors\n[`Code::Database`]; whether the commit took place is then not known."]
            pub async fn commit(self) -> Result<()> {
                self.tx.commit().await.map_err(failed("cannot commit"))
            }
        }
    };
}

scoped!(OrganizationTx, organization: OrganizationId);
scoped!(PersonTx, user: UserId);

impl PersonTx {
    /// The same transaction, for an organization besides: what makes a person known makes them belong somewhere.
    ///
    /// # Errors
    /// [`Code::Database`].
    pub(crate) async fn widen(mut self, organization: OrganizationId) -> Result<OrganizationTx> {
        let set = format!("set local freshet.organization_id = '{}'", organization.uuid());
        let set = sqlx::query(sqlx::AssertSqlSafe(set)).execute(&mut *self.tx).await;
        set.map_err(failed("cannot go on for an organization"))?;
        Ok(OrganizationTx { tx: self.tx, organization })
    }
}

impl Db {
    /// Connects as the application's role, and refuses one that row-level security does not hold.
    ///
    /// # Errors
    /// [`Code::Settings`] when the role is a superuser, bypasses row-level security or owns tables;
    /// [`Code::Database`] when the database does not answer or its schema is not that of this program.
    pub async fn connect(settings: &Settings) -> Result<Self> {
        // Whoever falls silent in a transaction holds rows that another must have to take its work over: it loses them
        // as it loses its lease.
        let silent_ms = (settings.lease_s * 1_000.0).ceil().max(1.0);
        let options = connect_options(&settings.database_url, "FRESHET_DATABASE_URL")?
            .options([("idle_in_transaction_session_timeout", silent_ms.to_string())]);
        let pool = PgPoolOptions::new()
            .max_connections(settings.database_connections_max)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(failed("cannot connect to Freshet's own database (FRESHET_DATABASE_URL)"))?;
        let db = Self { pool };
        db.refuse_strong_role().await?;
        db.refuse_other_schema().await?;
        Ok(db)
    }

    async fn refuse_strong_role(&self) -> Result<()> {
        let (strong, owns): (bool, bool) = sqlx::query_as(
            "select r.rolsuper or r.rolbypassrls,
                    exists (select 1 from pg_class as c
                            where c.relowner = r.oid and c.relnamespace = 'public'::regnamespace)
             from pg_roles as r
             where r.rolname = current_user",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(failed("cannot read the role's rights"))?;
        if strong || owns {
            return Err(Error::new(
                Code::Settings,
                "FRESHET_DATABASE_URL: the role is a superuser, bypasses row-level security or owns the tables; \
                 log in as `freshet_app`",
            ));
        }
        Ok(())
    }

    async fn refuse_other_schema(&self) -> Result<()> {
        let (wanted, found) = (wanted_schema(), found_schema(&self.pool).await);
        if found != Some(wanted) {
            let found = found.map_or_else(|| "none".to_owned(), |version| version.to_string());
            return Err(Error::new(
                Code::Settings,
                format!("the database's schema is {found}, this program's is {wanted}; run `freshet migrate`"),
            ));
        }
        Ok(())
    }

    /// Begins a transaction of one workspace, in one round trip.
    ///
    /// # Errors
    /// [`Code::Database`] when no connection is to be had in 10 s.
    pub async fn tenant(&self, workspace: WorkspaceId) -> Result<TenantTx> {
        let begin = format!("begin; set local freshet.workspace_id = '{}'", workspace.uuid());
        Ok(TenantTx { tx: self.begin(begin).await?, workspace })
    }

    /// Begins a transaction of one organization.
    ///
    /// # Errors
    /// As [`Db::tenant`].
    pub async fn organization(&self, organization: OrganizationId) -> Result<OrganizationTx> {
        let begin = format!("begin; set local freshet.organization_id = '{}'", organization.uuid());
        Ok(OrganizationTx { tx: self.begin(begin).await?, organization })
    }

    /// Begins a transaction of one person.
    ///
    /// # Errors
    /// As [`Db::tenant`].
    pub async fn person(&self, user: UserId) -> Result<PersonTx> {
        let begin = format!("begin; set local freshet.user_id = '{}'", user.uuid());
        Ok(PersonTx { tx: self.begin(begin).await?, user })
    }

    /// `begin` holds a parsed UUID and nothing of a caller's text.
    ///
    /// Whoever begins may be dropped meanwhile: a caller hangs up, an attempt is aborted. With sqlx 0.9 the connection
    /// would then go back to the pool within a transaction that nobody knows of, and what others do on it would hold its
    /// locks and never be committed. So a task of its own begins: if nobody takes its transaction, it is rolled back.
    async fn begin(&self, begin: String) -> Result<Transaction<'static, Postgres>> {
        let pool = self.pool.clone();
        let begun = async move { pool.begin_with(sqlx::AssertSqlSafe(begin)).await };
        let begun = tokio::spawn(begun.in_current_span()).await;
        let begun = begun.unwrap_or_else(|error| Err(sqlx::Error::Io(std::io::Error::other(error))));
        begun.map_err(failed("cannot begin a transaction"))
    }

    /// The pool, for the dispatcher's functions and for LISTEN: they see ids and states of all workspaces.
    pub(crate) fn dispatcher(&self) -> &PgPool {
        &self.pool
    }

    /// Takes a lock that one process at a time holds, until it is dropped; none while another has it.
    ///
    /// # Errors
    /// [`Code::Database`].
    pub(crate) async fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        let mut tx = self.begin("begin; set local idle_in_transaction_session_timeout = '10min'".to_owned()).await?;
        let taken: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock(hashtextextended('freshet ' || $1, 0))")
            .bind(name)
            .fetch_one(&mut *tx)
            .await
            .map_err(failed("cannot take a lock"))?;
        Ok(taken.then_some(Lock { _tx: tx }))
    }

    /// This installation's id, drawn when its database was made.
    ///
    /// # Errors
    /// [`Code::Database`].
    pub async fn installation(&self) -> Result<InstallationId> {
        sqlx::query_scalar("select id from installation")
            .fetch_one(&self.pool)
            .await
            .map_err(failed("cannot read the installation's id"))
    }

    /// Whether the database answers, and has this program's schema or a later one: a program that is just being replaced
    /// still serves.
    ///
    /// # Errors
    /// [`Code::Database`] when it does not answer within 3 s, or its schema is older, as after a restore.
    pub async fn ready(&self) -> Result<()> {
        let asked = sqlx::query_scalar::<_, Option<i64>>("select max(version) from _sqlx_migrations where success");
        let asked = tokio::time::timeout(READY_TIMEOUT, asked.fetch_one(&self.pool)).await;
        let late = |error| Error::new(Code::Database, "the database does not answer in time").caused_by(error);
        let found = asked.map_err(late)?.map_err(failed("the database does not answer"))?;
        if found.unwrap_or(0) < wanted_schema() {
            return Err(Error::new(
                Code::Database,
                "the database's schema is older than this program: run `freshet migrate`",
            ));
        }
        Ok(())
    }

    /// Connections there are, and how many of them are idle.
    #[must_use]
    pub fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Brings the schema up to date, as the owner. Safe to call from several processes at once.
///
/// # Errors
/// [`Code::Settings`] without `FRESHET_OWNER_DATABASE_URL`, [`Code::Database`] when a migration fails; each
/// migration is a transaction of its own.
pub async fn migrate(settings: &Settings) -> Result<()> {
    let options = connect_options(&settings.owner_database_url, "FRESHET_OWNER_DATABASE_URL")?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(failed("cannot connect as the owner (FRESHET_OWNER_DATABASE_URL)"))?;
    let migrated = MIGRATOR
        .run(&pool)
        .await
        .map_err(|error| Error::new(Code::Database, "a migration failed; nothing of it is left").caused_by(error));
    if migrated.is_ok() {
        let grant = sqlx::query("grant select on _sqlx_migrations to freshet_app").execute(&pool).await;
        grant.map_err(failed("cannot let the application see the schema's version"))?;
    }
    pool.close().await;
    migrated
}

/// What `freshet doctor` looks at: a server, and the role that is logged in as.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Examined {
    /// The server's version.
    pub server: String,
    /// The role.
    pub role: String,
    /// Whether it may do everything.
    pub superuser: bool,
    /// Whether row-level security does not hold it.
    pub bypasses: bool,
    /// Whether tables are its own.
    pub owns: bool,
    /// Whether it is granted a role that owns tables.
    pub may_own: bool,
    /// The owner of the tables, where the policies keep that role from seeing all rows, which it must.
    pub blind_owner: Option<String>,
    /// Connections that the server takes of this role.
    pub connections_max: i64,
    /// Connections that the server has now.
    pub connections_used: i64,
    /// The schema's version; none before the first migration.
    #[sqlx(skip)]
    pub schema: Option<i64>,
    /// The version that this program wants.
    #[sqlx(skip)]
    pub wanted: i64,
    /// By how much our clock is ahead of the server's, in seconds.
    #[sqlx(skip)]
    pub skew_s: f64,
}

/// Looks at the server of a setting, whatever role it logs in as.
///
/// # Errors
/// [`Code::Settings`] when the setting does not read, [`Code::Database`] when the server does not let it in.
pub async fn examine(url: &Secret, name: &str) -> Result<Examined> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(connect_options(url, name)?)
        .await
        .map_err(|error| Error::new(Code::Database, format!("cannot connect ({name})")).caused_by(error))?;
    let mut examined: Examined = sqlx::query_as(
        "select current_setting('server_version') as server, r.rolname::text as role, r.rolsuper as superuser,
                r.rolbypassrls as bypasses,
                exists (select 1 from pg_class as c
                        where c.relowner = r.oid and c.relnamespace = 'public'::regnamespace) as owns,
                exists (select 1 from pg_class as c
                        where c.relkind = 'r' and c.relowner <> r.oid and c.relnamespace = 'public'::regnamespace
                          and pg_has_role(r.oid, c.relowner, 'member')) as may_own,
                (select o.rolname::text
                 from pg_policy as p
                 join pg_class as c on c.oid = p.polrelid
                 join pg_roles as o on o.oid = c.relowner
                 where p.polname = 'dispatcher' and c.relnamespace = 'public'::regnamespace
                   and not (o.oid = any (p.polroles) or o.rolsuper or o.rolbypassrls)
                 limit 1) as blind_owner,
                least(current_setting('max_connections')::bigint
                          - current_setting('superuser_reserved_connections')::bigint,
                      nullif(r.rolconnlimit, -1)::bigint,
                      (select nullif(d.datconnlimit, -1)::bigint from pg_database as d
                       where d.datname = current_database())) as connections_max,
                (select count(*) from pg_stat_activity as a where a.backend_type = 'client backend')
                    as connections_used
         from pg_roles as r
         where r.rolname = current_user",
    )
    .fetch_one(&pool)
    .await
    .map_err(failed("cannot read the role's rights"))?;
    examined.wanted = wanted_schema();
    examined.schema = found_schema(&pool).await;
    let before = SystemTime::now();
    let theirs: f64 = sqlx::query_scalar("select extract(epoch from clock_timestamp())::float8")
        .fetch_one(&pool)
        .await
        .map_err(failed("cannot read the server's clock"))?;
    // It was read about halfway between asking and the answer.
    let (half, since) =
        (before.elapsed().unwrap_or_default() / 2, before.duration_since(UNIX_EPOCH).unwrap_or_default());
    examined.skew_s = (since + half).as_secs_f64() - theirs;
    pool.close().await;
    Ok(examined)
}

/// The schema's version that this program wants.
fn wanted_schema() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

async fn found_schema(pool: &PgPool) -> Option<i64> {
    let found = sqlx::query_scalar("select max(version) from _sqlx_migrations where success").fetch_one(pool).await;
    found.unwrap_or(None)
}

pub(crate) fn connect_options(url: &Secret, name: &str) -> Result<PgConnectOptions> {
    if url.expose().is_empty() {
        return Err(Error::new(Code::Settings, format!("{name} is not set")));
    }
    let options = PgConnectOptions::from_str(url.expose()).map_err(|_| {
        Error::new(Code::Settings, format!("{name} is not of the form postgres://user:password@host/db"))
    })?;
    Ok(options.application_name("freshet").options([("TimeZone", "UTC")]))
}

/// A worker's statement that holds for one epoch, as `epoch = $3` says.
#[inline(always)]
pub(crate) fn fenced(statement: &'static str) -> &'static str {
    if planted(Bug::NoFenceInUpdate) {
        return statement.replace("epoch = $3", "$3::bigint > 0").leak();
    }
    statement
}

/// What Postgres says of NUL in `text` and in `jsonb`: `character_not_in_repertoire`, `untranslatable_character`.
const NUL_IN_TEXT: [&str; 2] = ["22021", "22P05"];

/// Names what failed; a broken constraint that has a meaning of its own becomes that error.
pub(crate) fn failed(what: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |error| {
        let database = error.as_database_error();
        if database.and_then(|database| database.code()).is_some_and(|state| NUL_IN_TEXT.contains(&&*state)) {
            return Error::new(Code::Invalid, "a text has the character NUL in it, which Postgres cannot keep")
                .caused_by(error);
        }
        let constraint = database.and_then(|database| database.constraint()).map(str::to_owned);
        match constraint.as_deref().and_then(named_by_constraint) {
            Some(named) => named.caused_by(error),
            None => Error::new(Code::Database, what).caused_by(error),
        }
    }
}

fn named_by_constraint(constraint: &str) -> Option<Error> {
    if let Some(noun) = constraint.strip_suffix("_name_taken").or_else(|| constraint.strip_suffix("_slug_taken")) {
        return Some(Error::new(Code::Conflict, format!("another {} has this name", noun.replace('_', " "))));
    }
    if constraint.ends_with("_name_length") {
        return Some(Error::invalid("/name", "must have 1 to 200 characters"));
    }
    match constraint {
        "app_user_email_taken" => Some(Error::new(Code::Conflict, "another person has this address")),
        "app_user_email_shape" | "invitation_email_shape" => {
            Some(Error::invalid("/email", "must be an address of the form name@domain, of 254 characters at most"))
        }
        "membership_taken" => Some(Error::new(Code::Conflict, "the person has a role there already")),
        "membership_of_workspace" | "invitation_of_workspace" => Some(Error::not_found("workspace")),
        "organization_session_idle_hours_range" => Some(Error::invalid("/session_idle_hours", "must be 1 to 12")),
        "organization_session_hours_range" => Some(Error::invalid("/session_hours", "must be 1 to 168")),
        "organization_egress_allow_length" => Some(Error::invalid("/allow", "must have at most 4000 characters")),
        "workspace_run_event_days_range" => Some(Error::invalid("/run_event_days", "must be 1 to 3650")),
        "workspace_run_days_range" => Some(Error::invalid("/run_days", "must be 1 to 3650")),
        "organization_audit_days_range" => Some(Error::invalid("/audit_days", "must be 90 to 3650")),
        "plan_name_shape" => Some(Error::invalid("/plan", "must be 1 to 63 of a-z, 0-9 and -, not - first")),
        "domain_of_one_organization" => Some(Error::new(Code::Conflict, "the domain is another organization's")),
        "domain_name_shape" => Some(Error::invalid("/name", "must be a domain such as `acme.example`, in ASCII")),
        "sso_connection_issuer_length" => Some(Error::invalid("/issuer", "must have 1 to 500 characters")),
        "sso_connection_client_id_length" => Some(Error::invalid("/client_id", "must have 1 to 500 characters")),
        "sso_connection_workspace" => Some(Error::not_found("workspace")),
        "sso_attempt_of_connection" => Some(Error::not_found("sign-in")),
        "organization_slug_shape" | "workspace_slug_shape" => {
            Some(Error::invalid("/slug", "must be 1 to 63 of a-z, 0-9 and -, not - first"))
        }
        "model_of_connection" => Some(Error::not_found("connection")),
        "sync_of_model" => Some(Error::not_found("model")),
        "sync_to_destination" => Some(Error::not_found("destination")),
        _ => None,
    }
}
