//! The session's statements.

use chrono::{DateTime, Utc};

use super::{Origin, Session, Vouched};
use crate::db::{Db, OrganizationTx, PersonTx, failed};
use crate::error::Result;
use crate::id::{OrganizationId, SessionId, SsoConnectionId, UserId};

/// A session to be stored.
pub(crate) struct InsertSession<'a> {
    pub(crate) id: SessionId,
    pub(crate) hash: &'a [u8],
    pub(crate) pending: bool,
    pub(crate) amr: &'a [&'a str],
    pub(crate) idle_hours: i32,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) origin: &'a Origin,
    pub(crate) vouched: &'a Vouched,
}

#[derive(sqlx::FromRow)]
pub(crate) struct FoundSession {
    pub(crate) user_id: UserId,
    pub(crate) id: SessionId,
    pub(crate) pending: bool,
}

/// Finds a session that is neither ended nor too long unused, and notes its use.
pub(crate) async fn find(db: &Db, hash: &[u8]) -> Result<Option<FoundSession>> {
    sqlx::query_as("select user_id, id, pending from find_session($1)")
        .bind(hash)
        .fetch_optional(db.dispatcher())
        .await
        .map_err(failed("cannot look for the session"))
}

pub(crate) async fn insert(tx: &mut PersonTx, session: &InsertSession<'_>) -> Result<()> {
    sqlx::query(
        "insert into session (user_id, id, token_hash, pending, amr, idle_hours, expires_at, ip, user_agent,
                              sso_connections, confined_to)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(tx.user())
    .bind(session.id)
    .bind(session.hash)
    .bind(session.pending)
    .bind(session.amr)
    .bind(session.idle_hours)
    .bind(session.expires_at)
    .bind(&session.origin.ip)
    .bind(&session.origin.user_agent)
    .bind(&session.vouched.connections)
    .bind(session.vouched.confined_to)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot begin the session"))
}

pub(crate) async fn get(tx: &mut PersonTx, id: SessionId) -> Result<Option<Session>> {
    sqlx::query_as(
        "select id, amr, auth_at, created_at, used_at, expires_at, ip, user_agent
         from session
         where user_id = $1
           and id = $2",
    )
    .bind(tx.user())
    .bind(id)
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the session"))
}

/// When its person last proved who they are, and the organization that it is confined to.
pub(crate) async fn standing(
    tx: &mut PersonTx,
    id: SessionId,
) -> Result<Option<(DateTime<Utc>, Option<OrganizationId>)>> {
    sqlx::query_as("select auth_at, confined_to from session where user_id = $1 and id = $2")
        .bind(tx.user())
        .bind(id)
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("cannot read the session"))
}

/// The sessions that are open, newest first; nobody has more than a few.
pub(crate) async fn list(tx: &mut PersonTx) -> Result<Vec<Session>> {
    sqlx::query_as(
        "select id, amr, auth_at, created_at, used_at, expires_at, ip, user_agent
         from session
         where user_id = $1
           and not pending
           and revoked_at is null
           and expires_at > now()
           and used_at > now() - make_interval(hours => idle_hours)
         order by id desc
         limit 200",
    )
    .bind(tx.user())
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the sessions"))
}

pub(crate) async fn revoke(tx: &mut PersonTx, id: SessionId) -> Result<bool> {
    sqlx::query("update session set revoked_at = now() where user_id = $1 and id = $2 and revoked_at is null")
        .bind(tx.user())
        .bind(id)
        .execute(tx.conn())
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed("cannot end the session"))
}

/// Ends every session but one; how many.
pub(crate) async fn revoke_others(tx: &mut PersonTx, but: Option<SessionId>) -> Result<u64> {
    sqlx::query(
        "update session set revoked_at = now()
         where user_id = $1
           and revoked_at is null
           and ($2::uuid is null or id <> $2)",
    )
    .bind(tx.user())
    .bind(but)
    .execute(tx.conn())
    .await
    .map(|done| done.rows_affected())
    .map_err(failed("cannot end the sessions"))
}

/// Gives the session another token, as just proved. By a proof of the person's own it is confined to no organization.
pub(crate) async fn rotate(tx: &mut PersonTx, id: SessionId, hash: &[u8], method: &str) -> Result<()> {
    sqlx::query(
        "update session
         set token_hash = $3, auth_at = now(),
             amr = case when $4 = any (amr) then amr else amr || $4 end,
             confined_to = case when $4 = 'fed' then confined_to end
         where user_id = $1
           and id = $2",
    )
    .bind(tx.user())
    .bind(id)
    .bind(hash)
    .bind(method)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot rotate the session"))
}

/// The strictest hours of the person's organizations: without use, and altogether.
pub(crate) async fn hours(tx: &mut PersonTx) -> Result<(i32, i32)> {
    sqlx::query_as(
        "select coalesce(min(o.session_idle_hours), 12), coalesce(min(o.session_hours), 168)
         from organization as o
         where o.id in (select m.organization_id from membership as m where m.user_id = $1)",
    )
    .bind(tx.user())
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot read how long sessions last"))
}

/// What issuers' words added to a session.
pub(crate) async fn vouched(tx: &mut PersonTx, id: SessionId) -> Result<Vouched> {
    sqlx::query_as("select sso_connections as connections, confined_to from session where user_id = $1 and id = $2")
        .bind(tx.user())
        .bind(id)
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot read who vouched for the session"))
}

/// Adds an issuer's word to a session.
pub(crate) async fn vouch(tx: &mut PersonTx, id: SessionId, connection: SsoConnectionId) -> Result<()> {
    sqlx::query(
        "update session
         set sso_connections = array_append(array_remove(sso_connections, $3), $3)
         where user_id = $1
           and id = $2",
    )
    .bind(tx.user())
    .bind(id)
    .bind(connection)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot note who vouched for the session"))
}

/// The addresses of an organization's owners.
pub(crate) async fn owners(tx: &mut OrganizationTx) -> Result<Vec<String>> {
    sqlx::query_scalar(
        "select u.email
         from membership as m
         join app_user as u on u.id = m.user_id
         where m.organization_id = $1
           and m.workspace_id is null
           and m.role = 'owner'
           and u.disabled_at is null
         order by m.id
         limit 50",
    )
    .bind(tx.organization())
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot read the owners"))
}
