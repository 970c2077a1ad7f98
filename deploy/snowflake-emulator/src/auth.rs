//! Who calls: key-pair JWTs, programmatic access tokens, OAuth tokens.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use sqlx::PgPool;

/// The longest a JWT is taken after its `iat`, seconds.
const JWT_LIFE_MAX_S: i64 = 3_600;
/// How far a JWT's `iat` may lie ahead, seconds.
const JWT_AHEAD_MAX_S: i64 = 60;

/// A user with its defaults.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct User {
    pub name: String,
    pub default_role: String,
    pub default_warehouse: Option<String>,
    pub default_database: Option<String>,
    pub default_schema: Option<String>,
    pub public_key_1: Option<String>,
    pub public_key_2: Option<String>,
}

/// Why a caller is turned away: a 401 with this code.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refused {
    pub code: &'static str,
    pub message: &'static str,
}

const INVALID_JWT: Refused = Refused { code: "390144", message: "JWT token is invalid." };
const INVALID_TOKEN: Refused = Refused { code: "390303", message: "Invalid OAuth access token." };
const EXPIRED_TOKEN: Refused = Refused { code: "390318", message: "OAuth access token expired." };

/// Finds out who calls.
///
/// # Errors
/// [`Refused`] when there is no token, or it is not valid or has expired.
pub async fn caller(
    pool: &PgPool,
    account: &str,
    token: Option<&str>,
    kind: Option<&str>,
    now_ms: i64,
) -> Result<User, Refused> {
    let token = token.ok_or(INVALID_TOKEN)?;
    // Without the header the server looks at the token itself.
    let looks_like_jwt = token.split('.').count() == 3;
    match kind {
        Some("KEYPAIR_JWT") => by_jwt(pool, account, token, now_ms).await,
        Some("OAUTH") => by_token(pool, token, "access", now_ms).await,
        Some("PROGRAMMATIC_ACCESS_TOKEN") => by_token(pool, token, "programmatic", now_ms).await,
        None if looks_like_jwt => by_jwt(pool, account, token, now_ms).await,
        None => match by_token(pool, token, "programmatic", now_ms).await {
            Ok(user) => Ok(user),
            Err(_) => by_token(pool, token, "access", now_ms).await,
        },
        Some(_) => Err(INVALID_TOKEN),
    }
}

/// Hashes a token: the plain text is never kept.
pub fn hash(token: &str) -> String {
    STANDARD.encode(Sha256::digest(token.as_bytes()))
}

async fn by_token(pool: &PgPool, token: &str, kind: &str, now_ms: i64) -> Result<User, Refused> {
    let found: Option<(String, i64)> =
        sqlx::query_as("select user_name, expires_ms from emulator.access_token where token_hash = $1 and kind = $2")
            .bind(hash(token))
            .bind(kind)
            .fetch_optional(pool)
            .await
            .map_err(|_| INVALID_TOKEN)?;
    let (name, expires_ms) = found.ok_or(INVALID_TOKEN)?;
    if expires_ms <= now_ms {
        return Err(EXPIRED_TOKEN);
    }
    user(pool, &name).await.ok_or(INVALID_TOKEN)
}

/// Finds a user by its name.
pub async fn user(pool: &PgPool, name: &str) -> Option<User> {
    sqlx::query_as(
        "select name, default_role, default_warehouse, default_database, default_schema, public_key_1, public_key_2
         from emulator.account_user
         where name = $1",
    )
    .bind(name)
    .fetch_optional(pool)
    .await
    .ok()
    .flatten()
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    iat: i64,
    exp: i64,
}

async fn by_jwt(pool: &PgPool, account: &str, token: &str, now_ms: i64) -> Result<User, Refused> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else { return Err(INVALID_JWT) };
    let header: Header = decoded(header)?;
    let claims: Claims = decoded(claims)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| INVALID_JWT)?;
    let name = claims.sub.strip_prefix(account).and_then(|rest| rest.strip_prefix('.')).ok_or(INVALID_JWT)?;
    let user = user(pool, name).await.ok_or(INVALID_JWT)?;
    let fingerprint =
        claims.iss.strip_prefix(claims.sub.as_str()).and_then(|rest| rest.strip_prefix('.')).ok_or(INVALID_JWT)?;
    let key = [&user.public_key_1, &user.public_key_2]
        .into_iter()
        .flatten()
        .filter_map(|kept| STANDARD.decode(kept).ok())
        .find(|key| self::fingerprint(key) == fingerprint)
        .ok_or(INVALID_JWT)?;
    let signed = token.rsplit_once('.').map_or("", |(signed, _)| signed);
    let public = rsa_public_key(&key).ok_or(INVALID_JWT)?;
    let verified = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public).verify(signed.as_bytes(), &signature);
    let now_s = now_ms / 1000;
    let (issued, expires) = (seconds(claims.iat), seconds(claims.exp).min(seconds(claims.iat) + JWT_LIFE_MAX_S));
    if header.alg != "RS256" || verified.is_err() || expires <= now_s || issued > now_s + JWT_AHEAD_MAX_S {
        return Err(INVALID_JWT);
    }
    Ok(user)
}

/// `iat` and `exp` may be milliseconds.
fn seconds(written: i64) -> i64 {
    if written > 100_000_000_000 { written / 1000 } else { written }
}

fn decoded<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, Refused> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| INVALID_JWT)?;
    serde_json::from_slice(&bytes).map_err(|_| INVALID_JWT)
}

/// `SHA256:` and the base64 of the key's hash, as in DESCRIBE USER.
pub fn fingerprint(spki: &[u8]) -> String {
    format!("SHA256:{}", STANDARD.encode(Sha256::digest(spki)))
}

/// Reads a PEM public key into base64 of its DER; refuses what is not an RSA public key.
pub fn key_from_pem(pem: &str) -> Option<String> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body.trim()).ok()?;
    rsa_public_key(&der)?;
    Some(STANDARD.encode(der))
}

/// The RSAPublicKey inside a SubjectPublicKeyInfo.
fn rsa_public_key(spki: &[u8]) -> Option<&[u8]> {
    let (outer, _) = element(spki, 0x30)?;
    let (_, rest) = element(outer, 0x30)?;
    let (bits, _) = element(rest, 0x03)?;
    let (unused, key) = bits.split_first()?;
    (*unused == 0).then_some(key)
}

/// Splits one DER element with this tag off: its content and what follows.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        _ => return None,
    };
    Some((rest.get(..length)?, rest.get(length..)?))
}
