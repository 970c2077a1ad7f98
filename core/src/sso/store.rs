//! The statements of connections and of sign-ins on their way.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Door, SsoConnection, SsoConnectionNew};
use crate::access::Role;
use crate::db::{Db, OrganizationTx, PersonTx, failed};
use crate::error::Result;
use crate::id::{OrganizationId, SecretId, SessionId, SsoConnectionId, UserId};
use crate::page::PageRequest;
use crate::vault::Sealed;

const CONNECTION: &str = "id, name, kind, issuer, client_id, domains, default_role, default_workspace_id, enforce,
                          break_glass_user_id, owner_signed_in_at, row_version, created_at";

pub(crate) async fn list(tx: &mut OrganizationTx, page: PageRequest) -> Result<Vec<SsoConnection>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {CONNECTION}
         from sso_connection
         where organization_id = $1
           and archived_at is null
           and ($2::uuid is null or id < $2)
         order by id desc
         limit $3 + 1"
    )))
    .bind(tx.organization())
    .bind(page.before)
    .bind(page.limit)
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the sign-in connections"))
}

pub(crate) async fn get(tx: &mut OrganizationTx, id: SsoConnectionId) -> Result<Option<SsoConnection>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {CONNECTION} from sso_connection where organization_id = $1 and id = $2 and archived_at is null"
    )))
    .bind(tx.organization())
    .bind(id)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the sign-in connection"))
}

pub(crate) async fn insert(
    tx: &mut OrganizationTx,
    id: SsoConnectionId,
    new: &SsoConnectionNew,
    issuer: &str,
    domains: &[String],
) -> Result<SsoConnection> {
    sqlx::query_as(AssertSqlSafe(format!(
        "insert into sso_connection (organization_id, id, name, kind, issuer, client_id, domains, default_role,
                                     default_workspace_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         returning {CONNECTION}"
    )))
    .bind(tx.organization())
    .bind(id)
    .bind(new.name.trim())
    .bind(new.kind.as_str())
    .bind(issuer)
    .bind(new.client_id.trim())
    .bind(domains)
    .bind(new.default_role.as_str())
    .bind(new.default_workspace_id)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot store the sign-in connection"))
}

/// What a connection is to be, whole.
pub(crate) struct Changed<'a> {
    pub(crate) name: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) domains: &'a [String],
    pub(crate) default_role: Role,
    pub(crate) enforce: bool,
    pub(crate) break_glass: Option<UserId>,
}

pub(crate) async fn update(
    tx: &mut OrganizationTx,
    id: SsoConnectionId,
    version: i64,
    changed: &Changed<'_>,
) -> Result<Option<SsoConnection>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "update sso_connection
         set name = $4, client_id = $5, domains = $6, default_role = $7, enforce = $8, break_glass_user_id = $9,
             row_version = row_version + 1
         where organization_id = $1
           and id = $2
           and row_version = $3
           and archived_at is null
         returning {CONNECTION}"
    )))
    .bind(tx.organization())
    .bind(id)
    .bind(version)
    .bind(changed.name)
    .bind(changed.client_id)
    .bind(changed.domains)
    .bind(changed.default_role.as_str())
    .bind(changed.enforce)
    .bind(changed.break_glass)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot change the sign-in connection"))
}

pub(crate) async fn archive(tx: &mut OrganizationTx, id: SsoConnectionId) -> Result<()> {
    sqlx::query(
        "with secret as (delete from sso_secret where organization_id = $1 and connection_id = $2)
         update sso_connection set archived_at = now(), row_version = row_version + 1
         where organization_id = $1
           and id = $2",
    )
    .bind(tx.organization())
    .bind(id)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot archive the sign-in connection"))
}

/// Turns every enforcement of the organization off; the connections that had it on.
pub(crate) async fn release(tx: &mut OrganizationTx) -> Result<Vec<SsoConnectionId>> {
    sqlx::query_scalar(
        "update sso_connection set enforce = false, row_version = row_version + 1
         where organization_id = $1
           and enforce
         returning id",
    )
    .bind(tx.organization())
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot release the organization"))
}

/// Notes that an owner came in by the connection.
pub(crate) async fn note_owner(tx: &mut OrganizationTx, id: SsoConnectionId) -> Result<()> {
    sqlx::query("update sso_connection set owner_signed_in_at = now() where organization_id = $1 and id = $2")
        .bind(tx.organization())
        .bind(id)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot note the owner's sign-in"))
}

/// A client's secret as it is stored.
#[derive(sqlx::FromRow)]
pub(crate) struct SecretRow {
    pub(crate) id: SecretId,
    #[sqlx(flatten)]
    pub(crate) sealed: Sealed,
}

pub(crate) async fn set_secret(
    tx: &mut OrganizationTx,
    connection: SsoConnectionId,
    id: SecretId,
    sealed: &Sealed,
) -> Result<()> {
    sqlx::query(
        "insert into sso_secret (organization_id, connection_id, id, master_key, wrapped_key, ciphertext)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (connection_id) do update
         set id = excluded.id, master_key = excluded.master_key, wrapped_key = excluded.wrapped_key,
             ciphertext = excluded.ciphertext, created_at = now()",
    )
    .bind(tx.organization())
    .bind(connection)
    .bind(id)
    .bind(&sealed.master_key)
    .bind(&sealed.wrapped_key)
    .bind(&sealed.ciphertext)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store the client's secret"))
}

pub(crate) async fn secret(tx: &mut OrganizationTx, connection: SsoConnectionId) -> Result<Option<SecretRow>> {
    sqlx::query_as(
        "select id, master_key, wrapped_key, ciphertext
         from sso_secret
         where organization_id = $1
           and connection_id = $2",
    )
    .bind(tx.organization())
    .bind(connection)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the client's secret"))
}

/// An owner of the whole organization, as the one who is to break its glass.
#[derive(sqlx::FromRow)]
pub(crate) struct OwnerRow {
    pub(crate) has_password: bool,
    pub(crate) has_second_factor: bool,
    pub(crate) has_proved_address: bool,
}

/// What an owner proves themselves by: asked of the person's own rows, as the person.
pub(crate) async fn proofs(tx: &mut PersonTx, organization: OrganizationId) -> Result<Option<OwnerRow>> {
    sqlx::query_as(
        "select exists (select 1 from password as p where p.user_id = m.user_id) as has_password,
                exists (select 1 from totp as t
                        where t.user_id = m.user_id and t.confirmed_at is not null) as has_second_factor,
                u.email_verified_at is not null as has_proved_address
         from membership as m
         join app_user as u on u.id = m.user_id
         where m.user_id = $1
           and m.organization_id = $2
           and m.workspace_id is null
           and m.role = 'owner'",
    )
    .bind(tx.user())
    .bind(organization)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read what the owner is known by"))
}

/// What is looked for before it is known who asks.
#[derive(Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) domain: Option<&'a str>,
    pub(crate) slug: Option<&'a str>,
    pub(crate) id: Option<SsoConnectionId>,
}

#[derive(sqlx::FromRow)]
pub(crate) struct FoundDoor {
    pub(crate) organization_id: OrganizationId,
    #[sqlx(flatten)]
    pub(crate) door: Door,
}

pub(crate) async fn doors(db: &Db, wanted: &Wanted<'_>) -> Result<Vec<FoundDoor>> {
    sqlx::query_as("select organization_id, organization_name, id, name from find_sso_connections($1, $2, $3)")
        .bind(wanted.domain)
        .bind(wanted.slug)
        .bind(wanted.id)
        .fetch_all(db.dispatcher())
        .await
        .map_err(failed("cannot look for the sign-in connection"))
}

/// The connections of a person's organizations.
pub(crate) async fn doors_of(tx: &mut PersonTx) -> Result<Vec<Door>> {
    sqlx::query_as(
        "select c.id, c.name, o.name as organization_name
         from sso_connection as c
         join organization as o on o.id = c.organization_id
         where c.archived_at is null
           and exists (select 1 from membership as m where m.organization_id = c.organization_id and m.user_id = $1)
         order by o.name, c.name, c.id
         limit 50",
    )
    .bind(tx.user())
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the person's sign-in connections"))
}

/// Whether the person has a role in the organization, or in a workspace of it.
pub(crate) async fn is_member(tx: &mut PersonTx, organization: OrganizationId) -> Result<bool> {
    sqlx::query_scalar("select exists (select 1 from membership where user_id = $1 and organization_id = $2)")
        .bind(tx.user())
        .bind(organization)
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot read whether the person is a member"))
}

/// Who starts a sign-in, and what for.
pub(crate) struct InsertAttempt<'a> {
    pub(crate) connection: SsoConnectionId,
    pub(crate) state_hash: &'a [u8],
    pub(crate) purpose: &'a str,
    pub(crate) user: Option<UserId>,
    pub(crate) session: Option<SessionId>,
    pub(crate) next: &'a str,
    pub(crate) expires_at: DateTime<Utc>,
}

/// Keeps a sign-in on its way, and forgets those of the organization that nobody came back from in time.
pub(crate) async fn insert_attempt(tx: &mut OrganizationTx, id: Uuid, attempt: &InsertAttempt<'_>) -> Result<()> {
    sqlx::query(
        "with before as (delete from sso_attempt where organization_id = $1 and expires_at < now())
         insert into sso_attempt (organization_id, id, connection_id, state_hash, purpose, user_id, session_id, next,
                                  expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(tx.organization())
    .bind(id)
    .bind(attempt.connection)
    .bind(attempt.state_hash)
    .bind(attempt.purpose)
    .bind(attempt.user)
    .bind(attempt.session)
    .bind(attempt.next)
    .bind(attempt.expires_at)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot keep the sign-in"))
}

/// A sign-in whose browser came back.
#[derive(sqlx::FromRow)]
pub(crate) struct TakenAttempt {
    pub(crate) organization_id: OrganizationId,
    pub(crate) connection_id: SsoConnectionId,
    pub(crate) purpose: String,
    pub(crate) user_id: Option<UserId>,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) next: String,
}

/// Takes a sign-in, which is good once.
pub(crate) async fn take_attempt(db: &Db, state_hash: &[u8]) -> Result<Option<TakenAttempt>> {
    sqlx::query_as(
        "select organization_id, connection_id, purpose, user_id, session_id, next from take_sso_attempt($1)",
    )
    .bind(state_hash)
    .fetch_optional(db.dispatcher())
    .await
    .map_err(failed("cannot look for the sign-in"))
}
