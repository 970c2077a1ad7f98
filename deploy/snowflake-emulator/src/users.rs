//! Users, their keys and tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Emulator, auth};

impl Emulator {
    /// Makes a user, or changes its defaults.
    ///
    /// # Errors
    /// What Postgres answers.
    pub async fn create_user(
        &self,
        name: &str,
        database: Option<&str>,
        schema: Option<&str>,
        warehouse: Option<&str>,
        role: Option<&str>,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "insert into emulator.account_user (name, default_database, default_schema, default_warehouse, default_role)
             values ($1, $2, $3, coalesce($4, 'COMPUTE_WH'), coalesce($5, 'ACCOUNTADMIN'))
             on conflict (name) do update
             set default_database = $2, default_schema = $3",
        )
        .bind(name)
        .bind(database)
        .bind(schema)
        .bind(warehouse)
        .bind(role)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Sets RSA_PUBLIC_KEY (slot 1) or RSA_PUBLIC_KEY_2 (slot 2); the key is base64 of its DER.
    ///
    /// # Errors
    /// `RowNotFound` when there is no such user.
    pub async fn set_key(&self, user: &str, slot: u8, key: &str) -> Result<(), sqlx::Error> {
        let done = match slot {
            2 => sqlx::query("update emulator.account_user set public_key_2 = $2 where name = $1"),
            _ => sqlx::query("update emulator.account_user set public_key_1 = $2 where name = $1"),
        }
        .bind(user)
        .bind(key)
        .execute(&self.pool)
        .await?;
        if done.rows_affected() == 0 { Err(sqlx::Error::RowNotFound) } else { Ok(()) }
    }

    /// Makes a token of a kind (programmatic, access, refresh, code); only its hash is kept.
    ///
    /// # Errors
    /// `RowNotFound` when there is no such user.
    pub async fn create_token(
        &self,
        user: &str,
        kind: &str,
        lifetime_s: i64,
        family: &str,
    ) -> Result<String, sqlx::Error> {
        if auth::user(&self.pool, user).await.is_none() {
            return Err(sqlx::Error::RowNotFound);
        }
        let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        sqlx::query(
            "insert into emulator.access_token (token_hash, user_name, kind, expires_ms, family)
             values ($1, $2, $3, $4, $5)",
        )
        .bind(auth::hash(&token))
        .bind(user)
        .bind(kind)
        .bind(self.clock.now_ms() + lifetime_s * 1000)
        .bind(family)
        .execute(&self.pool)
        .await?;
        Ok(token)
    }

    /// Takes a token that is good for one use: its user and family.
    pub async fn take_token(&self, token: &str, kind: &str) -> Option<(String, String)> {
        sqlx::query_as(
            "delete from emulator.access_token
             where token_hash = $1 and kind = $2 and expires_ms > $3
             returning user_name, family",
        )
        .bind(auth::hash(token))
        .bind(kind)
        .bind(self.clock.now_ms())
        .fetch_optional(&self.pool)
        .await
        .ok()
        .flatten()
    }
}
