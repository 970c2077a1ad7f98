//! The identity's statements.

use super::Identity;
use crate::db::{Db, PersonTx, failed};
use crate::error::Result;
use crate::id::{IdentityId, UserId};

#[derive(sqlx::FromRow)]
pub(crate) struct FoundIdentity {
    pub(crate) user_id: UserId,
    pub(crate) disabled: bool,
}

pub(crate) async fn find(db: &Db, issuer: &str, subject: &str) -> Result<Option<FoundIdentity>> {
    sqlx::query_as("select user_id, disabled from find_identity($1, $2)")
        .bind(issuer)
        .bind(subject)
        .fetch_optional(db.dispatcher())
        .await
        .map_err(failed("cannot look for the identity"))
}

pub(crate) async fn list(tx: &mut PersonTx) -> Result<Vec<Identity>> {
    sqlx::query_as(
        "select id, issuer, subject, email, used_at, created_at
         from identity
         where user_id = $1
         order by id desc
         limit 200",
    )
    .bind(tx.user())
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot list the identities"))
}

/// The same, held until the transaction ends.
pub(crate) async fn lock(tx: &mut PersonTx) -> Result<Vec<Identity>> {
    sqlx::query_as(
        "select id, issuer, subject, email, used_at, created_at
         from identity
         where user_id = $1
         order by id desc
         for update",
    )
    .bind(tx.user())
    .fetch_all(tx.conn())
    .await
    .map_err(failed("cannot hold the identities"))
}

pub(crate) async fn delete(tx: &mut PersonTx, id: IdentityId) -> Result<()> {
    sqlx::query("delete from identity where user_id = $1 and id = $2")
        .bind(tx.user())
        .bind(id)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot take the identity away"))
}

/// Notes that a person came by an identity, and makes it theirs if it is nobody's; whether it was new. Nobody's else: the
/// policy of rows refuses another person's.
pub(crate) async fn note(tx: &mut PersonTx, issuer: &str, subject: &str, email: Option<&str>) -> Result<bool> {
    sqlx::query_scalar(
        "insert into identity (user_id, id, issuer, subject, email, used_at)
         values ($1, $2, $3, $4, $5, now())
         on conflict (issuer, subject) do update set email = excluded.email, used_at = now()
         returning xmax = 0",
    )
    .bind(tx.user())
    .bind(IdentityId::new())
    .bind(issuer)
    .bind(subject)
    .bind(email)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot keep the identity"))
}
