//! What the Snowflake tests share: a server that speaks real HTTP and answers as a test says, and a client of it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use flate2::{Compression, write::GzEncoder};
use freshet_core::clock::Clock;
use freshet_core::connector::Row;
use freshet_core::error::Result;
use freshet_core::testing::EGRESS;
use freshet_worker::formats::json;
use freshet_worker::sources::snowflake::client::{Client, ClientSettings, Context, Pace, Rows};
use freshet_worker::sources::snowflake::sign_in::SignIn;
use secrecy::SecretString;
use serde_json::{Value, json};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    /// After `/api/v2/statements`, `/oauth/token-request` whole.
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// How often the same was asked before: method, path and partition.
    pub times: usize,
}

impl Seen {
    pub fn partition(&self) -> Option<usize> {
        self.query.get("partition").map(|number| number.parse().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn same(&self, other: &Self) -> bool {
        (&self.method, &self.path, self.partition()) == (&other.method, &other.path, other.partition())
    }
}

/// What the server says.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    body: Vec<u8>,
    gzip: bool,
    cut: Option<usize>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), gzip: false, cut: None }
    }

    /// A result's columns come before its rows, as Snowflake sends them.
    pub fn json(status: u16, body: &Value) -> Self {
        let Some(members) = body.as_object() else { return Self::new(status, body.to_string()) };
        let first = members.iter().filter(|(name, _)| *name == "resultSetMetaData");
        let rest = members.iter().filter(|(name, _)| *name != "resultSetMetaData");
        let members: Vec<_> = first.chain(rest).map(|(name, value)| format!("\"{name}\":{value}")).collect();
        Self::new(status, format!("{{{}}}", members.join(",")))
    }

    pub fn running(handle: &str) -> Self {
        let body = json!({"code": "333334", "message": "running", "statementHandle": handle,
            "statementStatusUrl": format!("/api/v2/statements/{handle}")});
        Self::json(202, &body)
    }

    pub fn gzip(mut self) -> Self {
        self.gzip = true;
        self
    }

    /// The connection breaks after so many bytes of the body.
    pub fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }

    fn response(self) -> Response {
        let mut response = Response::builder().status(self.status).header("content-type", "application/json");
        let mut body = self.body;
        if self.gzip {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&body).unwrap();
            body = encoder.finish().unwrap();
            response = response.header("content-encoding", "gzip");
        }
        let body = match self.cut {
            None => Body::from(body),
            Some(at) => {
                let pieces = [Ok(Bytes::from(body[..at].to_vec())), Err(std::io::Error::other("cut"))];
                let stream = futures::stream::unfold(pieces.into_iter(), |mut pieces| async move {
                    // What was written before must be on its way when the connection breaks.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    pieces.next().map(|piece| (piece, pieces))
                });
                Body::from_stream(stream)
            }
        };
        response.body(body).unwrap()
    }
}

type Script = dyn Fn(&Seen) -> Answer + Send + Sync;

/// A server that answers as its script says.
#[derive(Clone)]
pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Script>,
}

impl Server {
    pub async fn start(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { url, seen: Arc::default(), script: Arc::new(script) };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        server
    }

    /// Every request so far, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// A client of this server with a plain token.
    pub fn client(&self) -> Client {
        self.client_with(SignIn::Token(SecretString::from("token-1")))
    }

    pub fn client_with(&self, sign_in: SignIn) -> Client {
        client_at(&self.url, sign_in)
    }
}

pub fn client_at(url: &str, sign_in: SignIn) -> Client {
    let context = Context { role: Some("LOADER".into()), warehouse: Some("WH".into()), database: Some("SHOP".into()) };
    Client::new(ClientSettings {
        base_url: url.to_owned(),
        sign_in,
        context,
        statement_timeout_s: 3_600,
        credits_per_hour: 1.0,
        pace: Pace { first: Duration::from_millis(1), longest: Duration::from_millis(4), tries: 4 },
        egress: EGRESS.clone(),
        clock: Clock::system(),
    })
    .unwrap()
}

async fn answer(State(server): State<Server>, method: Method, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let mut seen = Seen {
        method,
        path: uri.path().trim_start_matches("/api/v2/statements").to_owned(),
        query: query.into_owned().collect(),
        headers: headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect(),
        body,
        times: 0,
    };
    {
        let mut all = server.seen.lock().unwrap();
        seen.times = all.iter().filter(|other| other.same(&seen)).count();
        all.push(seen.clone());
    }
    (server.script)(&seen).response()
}

/// A result whose partitions have these many rows; the first partition's rows are inline.
pub fn result(handle: &str, partitions: &[usize]) -> Value {
    let info: Vec<_> = partitions.iter().map(|rows| json!({"rowCount": rows, "uncompressedSize": 1})).collect();
    json!({
        "resultSetMetaData": {
            "numRows": partitions.iter().sum::<usize>(),
            "format": "jsonv2",
            "rowType": [
                {"name": "ID", "type": "fixed", "precision": 38, "scale": 0, "length": null, "nullable": false},
                {"name": "NAME", "type": "text", "precision": null, "scale": null, "length": 20, "nullable": true},
            ],
            "partitionInfo": info,
        },
        "data": rows(partitions, 0),
        "code": "090001",
        "sqlState": "00000",
        "statementHandle": handle,
        "message": "Statement executed successfully.",
    })
}

/// The rows of one partition.
pub fn rows(partitions: &[usize], number: usize) -> Value {
    let before: usize = partitions[..number].iter().sum();
    let row = |place: usize| json!([(before + place).to_string(), format!("row {}", before + place)]);
    (0..partitions[number]).map(row).collect()
}

/// What `all` gives for [`result`].
pub fn expected(partitions: &[usize]) -> Vec<String> {
    (0..partitions.iter().sum()).map(|place| format!("{place} \"row {place}\"")).collect()
}

/// Every row, its cells as JSON with a space between.
pub async fn all(mut found: Rows) -> Result<Vec<String>> {
    let (mut row, mut texts) = (Row::default(), Vec::new());
    while found.next(&mut row).await? {
        let mut out = Vec::new();
        for place in 0..row.cells().len() {
            if place > 0 {
                out.push(b' ');
            }
            json::cell(&row, place, &mut out);
        }
        texts.push(String::from_utf8(out).unwrap());
    }
    Ok(texts)
}
