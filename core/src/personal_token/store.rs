//! The personal token's statements.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::PersonalToken;
use crate::db::{Db, PersonTx, failed};
use crate::error::Result;
use crate::id::{PersonalTokenId, SessionId, UserId};

const TOKEN: &str = "id, name, 'fr_user_' || key_id as prefix, created_at, expires_at, last_used_at,
                     case when revoked_at is not null then 'revoked'
                          when expires_at <= now() then 'expired'
                          else 'usable' end as state";

#[derive(sqlx::FromRow)]
pub(crate) struct FoundToken {
    pub(crate) user_id: UserId,
    pub(crate) id: PersonalTokenId,
    pub(crate) secret_hash: Vec<u8>,
    pub(crate) usable: bool,
}

pub(crate) async fn find(db: &Db, key_id: &str) -> Result<Option<FoundToken>> {
    sqlx::query_as("select user_id, id, secret_hash, usable from find_personal_token($1)")
        .bind(key_id)
        .fetch_optional(db.dispatcher())
        .await
        .map_err(failed("cannot look for the personal token"))
}

pub(crate) async fn insert(
    tx: &mut PersonTx,
    id: PersonalTokenId,
    name: &str,
    (key_id, hash): (&str, &[u8]),
    expires_at: DateTime<Utc>,
    made_in: Option<SessionId>,
) -> Result<PersonalToken> {
    sqlx::query_as(AssertSqlSafe(format!(
        "insert into personal_token (user_id, id, name, key_id, secret_hash, expires_at, sso_connections)
         values ($1, $2, $3, $4, $5, $6,
                 coalesce((select s.sso_connections from session as s where s.user_id = $1 and s.id = $7), '{{}}'))
         returning {TOKEN}"
    )))
    .bind(tx.user())
    .bind(id)
    .bind(name)
    .bind(key_id)
    .bind(hash)
    .bind(expires_at)
    .bind(made_in)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot store the personal token"))
}

/// A person's tokens, newest first, those that work no more among them.
pub(crate) async fn list(tx: &mut PersonTx) -> Result<Vec<PersonalToken>> {
    sqlx::query_as(AssertSqlSafe(format!(
        "select {TOKEN} from personal_token where user_id = $1 order by id desc limit 200"
    )))
    .bind(tx.user())
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the personal tokens"))
}

/// Ends a token; whether the person has such a one.
pub(crate) async fn revoke(tx: &mut PersonTx, id: PersonalTokenId) -> Result<bool> {
    sqlx::query("update personal_token set revoked_at = coalesce(revoked_at, now()) where user_id = $1 and id = $2")
        .bind(tx.user())
        .bind(id)
        .execute(tx.conn())
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed("cannot revoke the personal token"))
}
