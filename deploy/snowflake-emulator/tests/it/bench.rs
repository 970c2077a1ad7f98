//! An emulator in this process, on a database of its own, and a client that knows only HTTP.

use std::io::Read;
use std::sync::Arc;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use snowflake_emulator::{Emulator, http, http_client};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

/// A row of cells in wire text.
pub type Row = Vec<Option<String>>;

pub struct Bench {
    pub url: String,
    pub token: String,
    pub database_url: String,
    pub http: reqwest::Client,
    pub emulator: Arc<Emulator>,
}

/// An empty Postgres database.
pub async fn database() -> String {
    let admin = std::env::var("FRESHET_TEST_DATABASE_URL")
        .expect("FRESHET_TEST_DATABASE_URL is not set; run: eval \"$(deploy/dev/up)\"");
    let name = format!("emulator_{}", Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&admin).await.expect("Postgres answers; run: eval \"$(deploy/dev/up)\"");
    sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&mut connection).await.expect("a database");
    let (server, _) = admin.rsplit_once('/').expect("the URL names a database");
    format!("{server}/{name}")
}

impl Bench {
    /// User JDOE, database DB, schema PUBLIC, warehouse COMPUTE_WH.
    pub async fn new() -> Self {
        let database_url = database().await;
        let emulator = Emulator::open(&database_url, "test-account").await.expect("the emulator opens");
        emulator.create_user("JDOE", None, None, None, None).await.expect("a user");
        let token = emulator.create_token("JDOE", "programmatic", 86_400, "").await.expect("a token");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = http::router(emulator.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let bench = Self { url, token, database_url, http: http_client().build().expect("a client"), emulator };
        bench.admin(Method::POST, "/emulator/databases", &json!({"name": "DB"})).await;
        bench
    }

    pub async fn admin(&self, method: Method, path: &str, body: &Value) -> Value {
        let answer =
            self.http.request(method, format!("{}{path}", self.url)).json(body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.expect("JSON")
    }

    /// Sets one fault rule.
    pub async fn fault(&self, rule: Value) {
        self.admin(Method::PUT, "/emulator/faults", &json!({"rules": [rule]})).await;
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::Result<Response> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .header("accept", "application/json")
            .header("user-agent", "emulator-tests/1")
            .header("x-snowflake-authorization-token-type", "PROGRAMMATIC_ACCESS_TOKEN");
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await
    }

    /// Submits with a query part such as `async=true`.
    pub async fn submit(&self, query: &str, statement: &str, more: Value) -> (StatusCode, Value) {
        let mut body = json!({"statement": statement, "database": "DB", "schema": "PUBLIC", "warehouse": "COMPUTE_WH"});
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        read(self.send(Method::POST, &format!("/api/v2/statements?{query}"), Some(&body)).await.expect("an answer"))
            .await
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        read(self.send(Method::GET, path, None).await.expect("an answer")).await
    }

    /// Polls until the statement is over.
    pub async fn finish(&self, handle: &str) -> (StatusCode, Value) {
        loop {
            let (status, body) = self.get(&format!("/api/v2/statements/{handle}")).await;
            if status != StatusCode::ACCEPTED {
                return (status, body);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Runs a statement that succeeds.
    pub async fn run(&self, statement: &str) -> Value {
        let (status, body) = self.submit("", statement, json!({})).await;
        assert_eq!(status, 200, "{statement}: {body}");
        body
    }

    /// Runs statements that succeed, each on its own.
    pub async fn all(&self, statements: &[&str]) {
        for statement in statements {
            self.run(statement).await;
        }
    }

    /// The rows of a statement, all partitions.
    pub async fn rows(&self, statement: &str) -> Vec<Row> {
        let body = self.run(statement).await;
        let mut rows = cells(&body["data"]);
        let handle = body["statementHandle"].as_str().expect("a handle");
        for at in 1..body["resultSetMetaData"]["partitionInfo"].as_array().map_or(0, Vec::len) {
            let (status, part) = self.get(&format!("/api/v2/statements/{handle}?partition={at}")).await;
            assert_eq!(status, 200);
            rows.extend(cells(&part["data"]));
        }
        rows
    }

    /// The rows with `|` between cells, as golden tables are written.
    pub async fn lines(&self, statement: &str) -> Vec<String> {
        let text = |cell: Option<String>| cell.unwrap_or_else(|| "NULL".into());
        self.rows(statement)
            .await
            .into_iter()
            .map(|row| row.into_iter().map(text).collect::<Vec<_>>().join("|"))
            .collect()
    }

    /// The first cell.
    pub async fn one(&self, statement: &str) -> String {
        self.rows(statement).await[0][0].clone().expect("a value")
    }

    /// The code of a statement that fails.
    pub async fn code(&self, statement: &str) -> String {
        let (status, body) = self.submit("", statement, json!({})).await;
        assert_eq!(status, 422, "{statement}: {body}");
        assert!(
            body["statementHandle"].is_string() && body["sqlState"].is_string() && body["message"].is_string(),
            "{body}"
        );
        body["code"].as_str().expect("a code").to_owned()
    }
}

/// Status and JSON; gzip is unpacked.
pub async fn read(answer: Response) -> (StatusCode, Value) {
    let status = answer.status();
    let packed = answer.headers().get("content-encoding").is_some_and(|value| value == "gzip");
    let bytes = answer.bytes().await.expect("a body");
    let mut text = Vec::new();
    if packed {
        flate2::read::GzDecoder::new(bytes.as_ref()).read_to_end(&mut text).expect("gzip");
    } else {
        text = bytes.to_vec();
    }
    (status, serde_json::from_slice(&text).unwrap_or(Value::Null))
}

pub fn cells(data: &Value) -> Vec<Row> {
    let row = |row: &Value| row.as_array().into_iter().flatten().map(|cell| cell.as_str().map(str::to_owned)).collect();
    data.as_array().into_iter().flatten().map(row).collect()
}
