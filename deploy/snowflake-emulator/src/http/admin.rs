//! `/emulator/…`: faults, clock, accounting, users. Without authentication: the emulator listens on loopback.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers;
use crate::faults::Rule;
use crate::sql::{definitions, names};
use crate::statements::State;
use crate::{Emulator, auth};

type App = Shared<Arc<Emulator>>;

/// The rules of `PUT /emulator/faults`.
#[derive(Debug, Deserialize)]
pub struct Rules {
    rules: Vec<Rule>,
    #[serde(default = "one")]
    seed: u64,
}

fn one() -> u64 {
    1
}

/// `GET /emulator/faults`
pub async fn faults(Shared(emulator): App) -> Json<Value> {
    Json(json!({ "rules": emulator.faults.rules() }))
}

/// `PUT /emulator/faults`
pub async fn set_faults(Shared(emulator): App, Json(rules): Json<Rules>) -> Json<Value> {
    emulator.faults.set(rules.rules, rules.seed);
    faults(Shared(emulator)).await
}

/// `DELETE /emulator/faults`
pub async fn clear_faults(Shared(emulator): App) -> Json<Value> {
    emulator.faults.set(Vec::new(), 1);
    faults(Shared(emulator)).await
}

/// `GET /emulator/clock`
pub async fn clock(Shared(emulator): App) -> Json<Value> {
    Json(json!({ "now_ms": emulator.clock.now_ms() }))
}

/// `{"advance_ms": 86400000}`
#[derive(Debug, Deserialize)]
pub struct Wind {
    advance_ms: i64,
}

/// `POST /emulator/clock`
pub async fn wind_clock(Shared(emulator): App, Json(wind): Json<Wind>) -> Json<Value> {
    emulator.clock.advance(wind.advance_ms);
    clock(Shared(emulator)).await
}

/// `GET /emulator/accounting`
pub async fn accounting(Shared(emulator): App) -> Json<Value> {
    Json(json!(emulator.accounting.read(emulator.clock.now_ms())))
}

/// `DELETE /emulator/accounting`
pub async fn reset_accounting(Shared(emulator): App) -> Json<Value> {
    emulator.accounting.reset();
    accounting(Shared(emulator)).await
}

/// `GET /emulator/statements`: the last 200, with text and state.
pub async fn statements(Shared(emulator): App) -> Json<Value> {
    let all: Vec<Value> = emulator
        .statements
        .recent()
        .iter()
        .map(|one| {
            let (state, error) = match one.now() {
                State::Running => ("running", None),
                State::Done(_) => ("done", None),
                State::Failed(error) => ("failed", Some(error.to_string())),
                State::TimedOut => ("timed_out", None),
            };
            json!({"handle": one.handle, "request_id": one.request_id, "user": one.user, "statement": one.text, "state": state, "error": error, "created_ms": one.created_ms})
        })
        .collect();
    Json(json!({ "statements": all }))
}

/// `POST /emulator/zombies/release`: held statements run now.
pub async fn release_zombies(Shared(emulator): App) -> Json<Value> {
    emulator.statements.release.notify_waiters();
    Json(json!({}))
}

/// `{"stream": "DB.SCHEMA.S"}`
#[derive(Debug, Deserialize)]
pub struct Stale {
    stream: String,
}

/// `POST /emulator/streams/stale`: the stream waited too long.
pub async fn make_stale(Shared(emulator): App, Json(stale): Json<Stale>) -> Response {
    let Ok(parts) = names::parse(&stale.stream) else { return answers::bad_payload() };
    let [database, schema, name] = parts.as_slice() else { return answers::bad_payload() };
    let done = sqlx::query(
        "update emulator.stream
         set stale = true
         from emulator.object o
         where o.id = object_id and o.database = $1 and o.schema = $2 and o.name = $3",
    )
    .bind(database)
    .bind(schema)
    .bind(name)
    .execute(&emulator.pool)
    .await;
    match done {
        Ok(done) if done.rows_affected() == 1 => answers::body(200, &json!({})),
        Ok(_) => answers::failure(404, "002003", "no such stream"),
        Err(error) => answers::failure(500, "000603", &error.to_string()),
    }
}

/// A user to be made.
#[derive(Debug, Deserialize)]
pub struct NewUser {
    name: String,
    default_database: Option<String>,
    default_schema: Option<String>,
    default_warehouse: Option<String>,
    default_role: Option<String>,
}

/// `POST /emulator/users`
pub async fn create_user(Shared(emulator): App, Json(new): Json<NewUser>) -> Response {
    let name = new.name.to_uppercase();
    let done = emulator
        .create_user(
            &name,
            new.default_database.as_deref(),
            new.default_schema.as_deref(),
            new.default_warehouse.as_deref(),
            new.default_role.as_deref(),
        )
        .await;
    made(done.map(|()| json!({"name": name, "account": emulator.account})))
}

/// A public key for one of the two slots.
#[derive(Debug, Deserialize)]
pub struct NewKey {
    pem: String,
    #[serde(default = "first")]
    slot: u8,
}

fn first() -> u8 {
    1
}

/// `POST /emulator/users/{name}/keys`
pub async fn set_key(Shared(emulator): App, Path(name): Path<String>, Json(new): Json<NewKey>) -> Response {
    let Some(key) = auth::key_from_pem(&new.pem) else {
        return answers::failure(400, "390142", "not an RSA public key in PEM");
    };
    made(emulator.set_key(&name.to_uppercase(), new.slot, &key).await.map(|()| json!({"name": name.to_uppercase()})))
}

/// `{"lifetime_s": 86400}`
#[derive(Debug, Deserialize)]
pub struct NewToken {
    #[serde(default = "fifteen_days")]
    lifetime_s: i64,
}

fn fifteen_days() -> i64 {
    15 * 86_400
}

/// `POST /emulator/users/{name}/tokens`: a programmatic access token.
pub async fn create_token(Shared(emulator): App, Path(name): Path<String>, Json(new): Json<NewToken>) -> Response {
    made(
        emulator
            .create_token(&name.to_uppercase(), "programmatic", new.lifetime_s, "")
            .await
            .map(|token| json!({"token": token})),
    )
}

/// `{"name": "DEMO"}`
#[derive(Debug, Deserialize)]
pub struct NewDatabase {
    name: String,
}

/// `POST /emulator/databases`
pub async fn create_database(Shared(emulator): App, Json(new): Json<NewDatabase>) -> Response {
    let name = new.name.to_uppercase();
    let done = async {
        let mut connection = emulator.pool.acquire().await?;
        definitions::add_database(&mut connection, &name, emulator.clock.now_ms(), "").await
    };
    match done.await {
        Ok(()) => answers::body(200, &json!({"name": name})),
        Err(error) => answers::failure(409, &error.code, &error.message),
    }
}

/// A client of OAuth: what a SECURITY INTEGRATION would be.
#[derive(Debug, Deserialize)]
pub struct NewClient {
    client_id: String,
    client_secret: String,
    redirect_uri: String,
    #[serde(default)]
    single_use_refresh: bool,
}

/// `POST /emulator/oauth/clients`
pub async fn create_client(Shared(emulator): App, Json(new): Json<NewClient>) -> Response {
    let done = sqlx::query(
        "insert into emulator.oauth_client (client_id, client_secret, redirect_uri, single_use_refresh)
         values ($1, $2, $3, $4)
         on conflict (client_id) do update
         set client_secret = $2, redirect_uri = $3, single_use_refresh = $4",
    )
    .bind(&new.client_id)
    .bind(&new.client_secret)
    .bind(&new.redirect_uri)
    .bind(new.single_use_refresh)
    .execute(&emulator.pool)
    .await;
    made(done.map(|_| json!({"client_id": new.client_id})))
}

fn made(done: Result<Value, sqlx::Error>) -> Response {
    match done {
        Ok(value) => answers::body(200, &value),
        Err(error) => answers::failure(409, "000603", &error.to_string()),
    }
}
