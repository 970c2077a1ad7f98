//! Snowflake OAuth with a custom client: authorize (consent is given at once), token-request.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Form, Query, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::answers;
use crate::{Emulator, auth};

/// Life of an access token, seconds.
const ACCESS_LIFE_S: i64 = 600;
/// Life of a refresh token, seconds: 90 days.
const REFRESH_LIFE_S: i64 = 90 * 86_400;
/// Life of an authorization code, seconds.
const CODE_LIFE_S: i64 = 600;

/// What the browser is sent with.
#[derive(Debug, Deserialize)]
pub struct Authorize {
    client_id: String,
    response_type: String,
    redirect_uri: String,
    state: Option<String>,
    scope: Option<String>,
    code_challenge: Option<String>,
    code_challenge_method: Option<String>,
    /// Not Snowflake's: who consents. The first user when left out.
    user: Option<String>,
}

/// `GET /oauth/authorize`: answers with the redirect that follows a consent.
pub async fn authorize(Shared(emulator): Shared<Arc<Emulator>>, Query(asked): Query<Authorize>) -> Response {
    let redirect: Option<String> =
        sqlx::query_scalar("select redirect_uri from emulator.oauth_client where client_id = $1")
            .bind(&asked.client_id)
            .fetch_optional(&emulator.pool)
            .await
            .ok()
            .flatten();
    if redirect.as_deref() != Some(asked.redirect_uri.as_str()) {
        return refused(400, "invalid_client", "The client or its redirect URI is unknown.");
    }
    let plain_challenge = asked.code_challenge.is_some() && asked.code_challenge_method.as_deref() != Some("S256");
    if asked.response_type != "code" || plain_challenge {
        return refused(400, "invalid_request", "Only response_type=code with S256 is supported.");
    }
    let user: Option<String> = match asked.user {
        Some(user) => Some(user.to_uppercase()),
        None => sqlx::query_scalar("select name from emulator.account_user order by name limit 1")
            .fetch_optional(&emulator.pool)
            .await
            .ok()
            .flatten(),
    };
    let Some(user) = user else { return refused(400, "access_denied", "There is no user.") };
    // What the code stands for travels in the family column: client, challenge, scope.
    let family =
        json!({"client": asked.client_id, "challenge": asked.code_challenge, "scope": asked.scope}).to_string();
    let Ok(code) = emulator.create_token(&user, "code", CODE_LIFE_S, &family).await else {
        return refused(400, "access_denied", "The user is unknown.");
    };
    let state = asked.state.map_or(String::new(), |state| format!("&state={}", percent(&state)));
    let mark = if asked.redirect_uri.contains('?') { '&' } else { '?' };
    let location = format!("{}{mark}code={}{state}", asked.redirect_uri, percent(&code));
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// `POST /oauth/token-request`
pub async fn token(
    Shared(emulator): Shared<Arc<Emulator>>,
    headers: HeaderMap,
    Form(form): Form<BTreeMap<String, String>>,
) -> Response {
    let Some((client, single_use)) = client(&emulator, &headers, &form).await else {
        return refused(401, "invalid_client", "The client credentials are not valid.");
    };
    let granted = match form.get("grant_type").map(String::as_str) {
        Some("authorization_code") => by_code(&emulator, &client, &form).await,
        Some("refresh_token") => by_refresh(&emulator, &client, single_use, &form).await,
        _ => return refused(400, "unsupported_grant_type", "The grant type is not supported."),
    };
    match granted {
        Some(body) => answers::body(200, &body),
        None => refused(400, "invalid_grant", "This is an invalid grant."),
    }
}

fn refused(status: u16, error: &str, message: &str) -> Response {
    answers::body(
        status,
        &json!({"data": null, "error": error, "code": null, "message": message, "success": false, "headers": null}),
    )
}

/// The client, by client_secret_basic (each part URL-encoded) or client_secret_post.
async fn client(emulator: &Emulator, headers: &HeaderMap, form: &BTreeMap<String, String>) -> Option<(String, bool)> {
    let basic = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
        .and_then(|text| String::from_utf8(STANDARD.decode(text).ok()?).ok())
        .and_then(|text| text.split_once(':').map(|(id, secret)| (unpercent(id), unpercent(secret))));
    let (id, secret) = match basic {
        Some(pair) => pair,
        None => (form.get("client_id")?.clone(), form.get("client_secret")?.clone()),
    };
    let single_use: Option<bool> = sqlx::query_scalar(
        "select single_use_refresh from emulator.oauth_client where client_id = $1 and client_secret = $2",
    )
    .bind(&id)
    .bind(&secret)
    .fetch_optional(&emulator.pool)
    .await
    .ok()?;
    Some((id, single_use?))
}

fn unpercent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut made = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let coded = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        match coded {
            Some(byte) => {
                made.push(byte);
                at += 3;
            }
            None => {
                made.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&made).into_owned()
}

async fn by_code(emulator: &Emulator, client: &str, form: &BTreeMap<String, String>) -> Option<serde_json::Value> {
    let (user, family) = emulator.take_token(form.get("code")?, "code").await?;
    let family: serde_json::Value = serde_json::from_str(&family).ok()?;
    if family["client"] != client {
        return None;
    }
    if let Some(challenge) = family["challenge"].as_str() {
        let verifier = form.get("code_verifier")?;
        if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())) != challenge {
            return None;
        }
    }
    let scope = family["scope"].as_str().unwrap_or_default().to_owned();
    issue(emulator, &user, client, &scope, scope.split(' ').any(|word| word == "refresh_token")).await
}

async fn by_refresh(
    emulator: &Emulator,
    client: &str,
    single_use: bool,
    form: &BTreeMap<String, String>,
) -> Option<serde_json::Value> {
    let token = form.get("refresh_token")?;
    let hash = auth::hash(token);
    let found: Option<(String, String, i64, bool)> =
        sqlx::query_as("select user_name, family, expires_ms, used from emulator.access_token where token_hash = $1 and kind = 'refresh'")
            .bind(&hash)
            .fetch_optional(&emulator.pool)
            .await
            .ok()?;
    let (user, family, expires_ms, used) = found?;
    if family != client || expires_ms <= emulator.clock.now_ms() {
        return None;
    }
    if !single_use {
        return issue(emulator, &user, client, "", false).await;
    }
    if used {
        // An old token that comes back was stolen or lost: everything of this client and user goes.
        sqlx::query("delete from emulator.access_token where user_name = $1 and family = $2")
            .bind(&user)
            .bind(client)
            .execute(&emulator.pool)
            .await
            .ok()?;
        return None;
    }
    let spent = sqlx::query("update emulator.access_token set used = true where user_name = $1 and family = $2 and kind = 'refresh' and not used")
        .bind(&user)
        .bind(client)
        .execute(&emulator.pool)
        .await
        .ok()?;
    if spent.rows_affected() == 0 {
        return None;
    }
    issue(emulator, &user, client, "", true).await
}

async fn issue(
    emulator: &Emulator,
    user: &str,
    client: &str,
    scope: &str,
    with_refresh: bool,
) -> Option<serde_json::Value> {
    let access = emulator.create_token(user, "access", ACCESS_LIFE_S, client).await.ok()?;
    let mut body = json!({
        "access_token": access,
        "expires_in": ACCESS_LIFE_S,
        "token_type": "Bearer",
        "username": user,
        "scope": scope,
    });
    if with_refresh {
        body["refresh_token"] = json!(emulator.create_token(user, "refresh", REFRESH_LIFE_S, client).await.ok()?);
        body["refresh_token_expires_in"] = json!(REFRESH_LIFE_S);
    }
    Some(body)
}
