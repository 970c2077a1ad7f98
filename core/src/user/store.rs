//! The statements of people.

use chrono::{DateTime, Utc};

use super::User;
use crate::db::{Db, PersonTx, failed};
use crate::error::Result;
use crate::id::{OrganizationId, SecretId, SsoConnectionId, UserId};
use crate::vault::Sealed;

/// A person to be stored.
pub(crate) struct InsertUser<'a> {
    pub(crate) email: &'a str,
    pub(crate) name: &'a str,
    pub(crate) verified_at: Option<DateTime<Utc>>,
    pub(crate) instance_admin: bool,
}

#[derive(sqlx::FromRow)]
pub(crate) struct FoundUser {
    pub(crate) id: UserId,
    pub(crate) disabled: bool,
}

/// A second factor as it is stored.
#[derive(sqlx::FromRow)]
pub(crate) struct FactorRow {
    pub(crate) id: SecretId,
    #[sqlx(flatten)]
    pub(crate) sealed: Sealed,
    pub(crate) confirmed_at: Option<DateTime<Utc>>,
    pub(crate) last_step: i64,
}

pub(crate) async fn find(db: &Db, email: &str) -> Result<Option<FoundUser>> {
    sqlx::query_as("select id, disabled from find_user($1)")
        .bind(email)
        .fetch_optional(db.dispatcher())
        .await
        .map_err(failed("cannot look for the person"))
}

pub(crate) async fn are_there_users(db: &Db) -> Result<bool> {
    sqlx::query_scalar("select are_there_users()")
        .fetch_one(db.dispatcher())
        .await
        .map_err(failed("cannot look for people"))
}

/// Keeps the set-up word, unless there is one that shall stay; whether it was kept.
pub(crate) async fn set_set_up_word(db: &Db, hash: &[u8], replace: bool) -> Result<bool> {
    sqlx::query("update installation set set_up_hash = $1 where set_up_hash is null or $2")
        .bind(hash)
        .bind(replace)
        .execute(db.dispatcher())
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed("cannot keep the set-up word"))
}

/// Takes the set-up word, which is good once; whether it was this.
pub(crate) async fn take_set_up_word(tx: &mut PersonTx, hash: &[u8]) -> Result<bool> {
    // user_id: nobody's; the word belongs to the installation.
    sqlx::query("update installation set set_up_hash = null where set_up_hash = $1")
        .bind(hash)
        .execute(tx.conn())
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed("cannot take the set-up word"))
}

pub(crate) async fn insert(tx: &mut PersonTx, user: &InsertUser<'_>) -> Result<()> {
    sqlx::query("insert into app_user (id, email, name, email_verified_at, instance_admin) values ($1, $2, $3, $4, $5)")
        .bind(tx.user())
        .bind(user.email)
        .bind(user.name)
        .bind(user.verified_at)
        .bind(user.instance_admin)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot make the person known"))
}

pub(crate) async fn get(tx: &mut PersonTx) -> Result<User> {
    sqlx::query_as(
        "select u.id, u.email, u.name, u.email_verified_at, u.instance_admin, u.created_at,
                exists (select 1 from password as p where p.user_id = u.id) as has_password,
                exists (select 1 from totp as t
                        where t.user_id = u.id and t.confirmed_at is not null) as has_second_factor,
                (select count(*) from recovery_code as r
                 where r.user_id = u.id and r.used_at is null) as recovery_codes
         from app_user as u
         where u.id = $1",
    )
    .bind(tx.user())
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot read the person"))
}

pub(crate) async fn rename(tx: &mut PersonTx, name: &str) -> Result<()> {
    sqlx::query("update app_user set name = $2 where id = $1")
        .bind(tx.user())
        .bind(name)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot rename the person"))
}

pub(crate) async fn set_verified(tx: &mut PersonTx) -> Result<()> {
    sqlx::query("update app_user set email_verified_at = coalesce(email_verified_at, now()) where id = $1")
        .bind(tx.user())
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot note that the address is proved"))
}

pub(crate) async fn organizations(tx: &mut PersonTx) -> Result<Vec<OrganizationId>> {
    sqlx::query_scalar("select distinct organization_id from membership where user_id = $1")
        .bind(tx.user())
        .fetch_all(tx.conn())
        .await
        .map_err(failed("cannot read the person's organizations"))
}

pub(crate) async fn password(tx: &mut PersonTx) -> Result<Option<String>> {
    sqlx::query_scalar("select hash from password where user_id = $1")
        .bind(tx.user())
        .fetch_optional(tx.conn())
        .await
        .map_err(failed("cannot read the password's hash"))
}

pub(crate) async fn set_password(tx: &mut PersonTx, hash: &str) -> Result<()> {
    sqlx::query(
        "insert into password (user_id, hash)
         values ($1, $2)
         on conflict (user_id) do update set hash = excluded.hash, changed_at = now()",
    )
    .bind(tx.user())
    .bind(hash)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store the password's hash"))
}

/// Keeps the hash of a mailed word, and forgets those before it.
pub(crate) async fn insert_mailed(tx: &mut PersonTx, hash: &[u8], purpose: &str, until: DateTime<Utc>) -> Result<()> {
    sqlx::query(
        "with before as (delete from mailed_token where user_id = $1 and purpose = $3)
         insert into mailed_token (user_id, token_hash, purpose, expires_at)
         values ($1, $2, $3, $4)",
    )
    .bind(tx.user())
    .bind(hash)
    .bind(purpose)
    .bind(until)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot keep the mailed word"))
}

pub(crate) async fn find_mailed(db: &Db, hash: &[u8], purpose: &str) -> Result<Option<UserId>> {
    sqlx::query_scalar("select user_id from find_mailed_token($1, $2)")
        .bind(hash)
        .bind(purpose)
        .fetch_optional(db.dispatcher())
        .await
        .map_err(failed("cannot look for the mailed word"))
}

/// Takes a mailed word, which is good once; whether it was still good.
pub(crate) async fn take_mailed(tx: &mut PersonTx, hash: &[u8], purpose: &str) -> Result<bool> {
    sqlx::query(
        "update mailed_token set used_at = now()
         where user_id = $1
           and token_hash = $2
           and purpose = $3
           and used_at is null
           and expires_at > now()",
    )
    .bind(tx.user())
    .bind(hash)
    .bind(purpose)
    .execute(tx.conn())
    .await
    .map(|done| done.rows_affected() == 1)
    .map_err(failed("cannot take the mailed word"))
}

/// The second factor, held until the transaction ends: a code is good once.
pub(crate) async fn factor(tx: &mut PersonTx) -> Result<Option<FactorRow>> {
    sqlx::query_as(
        "select id, master_key, wrapped_key, ciphertext, confirmed_at, last_step
         from totp
         where user_id = $1
         for update",
    )
    .bind(tx.user())
    .fetch_optional(tx.conn())
    .await
    .map_err(failed("cannot read the second factor"))
}

pub(crate) async fn set_factor(tx: &mut PersonTx, id: SecretId, sealed: &Sealed) -> Result<()> {
    sqlx::query(
        "insert into totp (user_id, id, master_key, wrapped_key, ciphertext)
         values ($1, $2, $3, $4, $5)
         on conflict (user_id) do update
         set id = excluded.id, master_key = excluded.master_key, wrapped_key = excluded.wrapped_key,
             ciphertext = excluded.ciphertext, confirmed_at = null, last_step = 0, created_at = now()",
    )
    .bind(tx.user())
    .bind(id)
    .bind(&sealed.master_key)
    .bind(&sealed.wrapped_key)
    .bind(&sealed.ciphertext)
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot store the second factor"))
}

/// Notes the step that a code was taken for; the first confirms the factor.
pub(crate) async fn note_step(tx: &mut PersonTx, step: i64) -> Result<()> {
    sqlx::query("update totp set last_step = $2, confirmed_at = coalesce(confirmed_at, now()) where user_id = $1")
        .bind(tx.user())
        .bind(step)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot note the second factor's use"))
}

pub(crate) async fn remove_factor(tx: &mut PersonTx) -> Result<()> {
    sqlx::query(
        "with codes as (delete from recovery_code where user_id = $1)
         delete from totp where user_id = $1",
    )
    .bind(tx.user())
    .execute(tx.conn())
    .await
    .map(|_| ())
    .map_err(failed("cannot remove the second factor"))
}

pub(crate) async fn set_recovery_codes(tx: &mut PersonTx, hashes: &[Vec<u8>]) -> Result<()> {
    sqlx::query("delete from recovery_code where user_id = $1")
        .bind(tx.user())
        .execute(tx.conn())
        .await
        .map_err(failed("cannot forget the recovery codes"))?;
    sqlx::query("insert into recovery_code (user_id, code_hash) select $1, unnest($2::bytea[])")
        .bind(tx.user())
        .bind(hashes)
        .execute(tx.conn())
        .await
        .map(|_| ())
        .map_err(failed("cannot store the recovery codes"))
}

/// Takes a recovery code, which is good once; whether it was one.
pub(crate) async fn take_recovery_code(tx: &mut PersonTx, hash: &[u8]) -> Result<bool> {
    sqlx::query("update recovery_code set used_at = now() where user_id = $1 and code_hash = $2 and used_at is null")
        .bind(tx.user())
        .bind(hash)
        .execute(tx.conn())
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(failed("cannot take the recovery code"))
}

/// Seconds that this key must wait before it may be tried again.
pub(crate) async fn sign_in_wait(db: &Db, key: &[u8]) -> Result<f64> {
    sqlx::query_scalar("select sign_in_wait($1)")
        .bind(key)
        .fetch_one(db.dispatcher())
        .await
        .map_err(failed("cannot read the failures to sign in"))
}

pub(crate) async fn note_sign_in(db: &Db, key: &[u8], succeeded: bool) -> Result<()> {
    sqlx::query("select note_sign_in($1, $2)")
        .bind(key)
        .bind(succeeded)
        .execute(db.dispatcher())
        .await
        .map(|_| ())
        .map_err(failed("cannot note the try to sign in"))
}

/// Whether the person is the one who comes in past the issuer of an organization.
pub(crate) async fn breaks_glass(tx: &mut PersonTx) -> Result<bool> {
    sqlx::query_scalar("select exists (select 1 from sso_connection where enforce and break_glass_user_id = $1)")
        .bind(tx.user())
        .fetch_one(tx.conn())
        .await
        .map_err(failed("cannot read whose glass the person breaks"))
}

/// Forgets everything that was ever set to prove that it is them: what stood there before the address was proved may be
/// somebody else's.
pub(crate) async fn forget_proofs(tx: &mut PersonTx) -> Result<()> {
    for statement in [
        "delete from password where user_id = $1",
        "delete from recovery_code where user_id = $1",
        "delete from totp where user_id = $1",
        "delete from identity where user_id = $1",
        "delete from mailed_token where user_id = $1",
        "update personal_token set revoked_at = coalesce(revoked_at, now()) where user_id = $1",
        "update session set revoked_at = coalesce(revoked_at, now()) where user_id = $1",
    ] {
        let done = sqlx::query(statement).bind(tx.user()).execute(tx.conn()).await;
        done.map_err(failed("cannot forget what the person was known by"))?;
    }
    Ok(())
}

/// What a password is good for.
#[derive(sqlx::FromRow)]
pub(crate) struct PasswordUse {
    /// Every organization of the person takes its own issuer's word alone.
    pub(crate) is_barred: bool,
    /// The organizations that do, and let this person in all the same.
    pub(crate) breaks_glass_of: Vec<OrganizationId>,
}

/// What the person's password is good for, by the organizations that they belong to; whose connections have vouched for them
/// breaks no glass.
pub(crate) async fn password_use(tx: &mut PersonTx, vouched: &[SsoConnectionId]) -> Result<PasswordUse> {
    sqlx::query_as(
        "select coalesce(bool_and(enforced and not glass), false) as is_barred,
                coalesce(array_agg(distinct organization_id) filter (where glass), '{}') as breaks_glass_of
         from (select m.organization_id,
                      exists (select 1 from sso_connection as c
                              where c.organization_id = m.organization_id and c.enforce) as enforced,
                      exists (select 1 from sso_connection as c
                              where c.organization_id = m.organization_id and c.enforce
                                and c.break_glass_user_id = m.user_id
                                and not c.id = any ($2)) as glass
               from membership as m
               where m.user_id = $1) as place",
    )
    .bind(tx.user())
    .bind(vouched)
    .fetch_one(tx.conn())
    .await
    .map_err(failed("cannot read how the person's organizations sign in"))
}
