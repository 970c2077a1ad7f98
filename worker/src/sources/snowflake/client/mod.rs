//! The client of Snowflake's SQL API v2.
//!
//! ~~~text
//! Statement ─► submit ─┬─► Running (a handle) ─► wait ─► Body ─► Rows: partition 0, 1, 2 … in order,
//!                      └─► Done (a body) ───────────────► ▲       some fetched ahead, few bytes kept
//! ~~~
//!
//! | file | holds |
//! |---|---|
//! | `statement` | what is asked, and by whom |
//! | `exchange` | one request and its answer: which are tried again, which are errors |
//! | `answer` | the members of an answer, and what a refusal means |
//! | `body` | bytes of an answer into items |
//! | `account` | what was asked, with query ids |
//! | `rows` | a result: partitions in order, counted |
//! | `tls` | the HTTP client |

mod account;
mod answer;
mod body;
mod exchange;
mod http_client;
mod rows;
mod statement;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use freshet_core::clock::Clock;
use freshet_core::connector::SourceQuery;
use freshet_core::egress::Egress;
use freshet_core::error::{Code, Error, Result};
use freshet_core::id::RequestId;
use rand::Rng;
use serde_json::Value;

use super::sign_in::SignIn;
use account::Asked;
use answer::Refusal;
use body::Body;
use exchange::{Call, Reply};

pub(super) use exchange::blocked;
pub use http_client::http_client;
pub use rows::Rows;
pub(super) use rows::unsupported;
pub use statement::{Context, QueryTag, Statement, Wait};

/// How requests are spaced. Tests wind it down.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The first wait; each further one is twice as long, with jitter.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// How often a request is tried that finds no answer or a server in trouble.
    pub tries: u32,
}

impl Default for Pace {
    /// 0.2 s, 0.4 s … 10 s; nine tries are half a minute to a minute, which a fail-over of Snowflake's takes.
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(10), tries: 9 }
    }
}

impl Pace {
    /// The wait after try `attempt` (1-based): between half of the step and the whole of it.
    fn wait(&self, attempt: u32) -> Duration {
        let step = self.first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(self.longest);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// Everything a client needs.
pub struct ClientSettings {
    /// `https://<account>.snowflakecomputing.com`, without a slash at its end.
    pub base_url: String,
    /// How requests prove who sends them.
    pub sign_in: SignIn,
    /// Where statements run.
    pub context: Context,
    /// The longest a statement may take, in seconds; 0 leaves it to the account.
    pub statement_timeout_s: u32,
    /// What an hour of the warehouse costs, in credits, for estimates.
    pub credits_per_hour: f64,
    /// Which addresses the account may be at.
    pub egress: Arc<Egress>,
    /// How requests are spaced.
    pub pace: Pace,
    /// For the times in tokens.
    pub clock: Clock,
}

/// A client of one account. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    settings: ClientSettings,
    queries: Mutex<Vec<SourceQuery>>,
}

/// A statement after its first request.
pub enum Submitted {
    /// It runs, or waits for its turn, under this handle.
    Running(String),
    /// It is done; here is its result.
    Done(Box<Rows>),
}

impl Client {
    /// A client. Does not dial yet.
    ///
    /// # Errors
    /// As [`http_client`].
    pub fn new(settings: ClientSettings) -> Result<Self> {
        let http = http_client(&settings.egress, &settings.base_url)?;
        Ok(Self(Arc::new(Inner { http, settings, queries: Mutex::default() })))
    }

    /// The statements that were answered since this was asked the last time, at most [`account::QUERIES_MAX`].
    #[must_use]
    pub fn take_queries(&self) -> Vec<SourceQuery> {
        std::mem::take(&mut self.0.queries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Draws the id of a request. To be stored before the request goes out, where a repeat must be told from a new one.
    #[must_use]
    pub fn draw_request_id() -> uuid::Uuid {
        RequestId::new().uuid()
    }

    /// Sends a statement. The same `request_id` asks for the same execution: Snowflake does not repeat one that went
    /// well, though nothing correct may rest on that.
    ///
    /// # Errors
    /// As [`Client::rows`].
    pub async fn submit(&self, request_id: uuid::Uuid, statement: &Statement) -> Result<Submitted> {
        self.submit_as(request_id, statement, false).await
    }

    /// Sends a statement again under an id that was stored, for the outcome of the first time is not known.
    ///
    /// # Errors
    /// As [`Client::rows`].
    pub async fn submit_again(&self, request_id: uuid::Uuid, statement: &Statement) -> Result<Submitted> {
        self.submit_as(request_id, statement, true).await
    }

    async fn submit_as(&self, request_id: uuid::Uuid, statement: &Statement, repeat: bool) -> Result<Submitted> {
        let call = Call::submit(request_id, statement, &self.0.settings);
        Ok(match self.call_as(&call, repeat).await? {
            Reply::Running(handle) => Submitted::Running(handle),
            Reply::Result(response) => {
                Submitted::Done(Box::new(self.open(response, None, statement.wait_text()).await?))
            }
        })
    }

    /// Waits until a statement is done. A client that is dropped meanwhile cancels it.
    ///
    /// # Errors
    /// As [`Client::rows`].
    pub async fn wait(&self, handle: &str) -> Result<Rows> {
        self.wait_for(handle, false).await
    }

    async fn wait_for(&self, handle: &str, as_text: bool) -> Result<Rows> {
        let mut guard = CancelOnDrop { client: self.clone(), handle: Some(handle.to_owned()) };
        let mut polls = 0;
        loop {
            let reply = self.call(&Call::poll(handle)).await;
            match reply {
                // An answer of 202 is no success: it runs still.
                Ok(Reply::Running(_)) => {
                    polls += 1;
                    tokio::time::sleep(self.0.settings.pace.wait(polls)).await;
                }
                Ok(Reply::Result(response)) => {
                    guard.handle = None;
                    return self.open(response, Some(handle.to_owned()), as_text).await;
                }
                Err(error) => {
                    if !is_open(error.code) {
                        guard.handle = None;
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn open(&self, response: reqwest::Response, handle: Option<String>, as_text: bool) -> Result<Rows> {
        Rows::open(self.clone(), Body::of(response), handle, as_text).await
    }

    /// Sends a statement, waits for it and opens its result.
    ///
    /// # Errors
    /// `model.syntax`, `model.object_missing`, or a `snowflake.` code: of the way there (`unreachable`, `tls_failed`,
    /// `login_failed`, `access_refused`, `too_busy`) or of the statement (`query_failed`, `query_timeout`,
    /// `privilege_missing`, `warehouse_missing` …).
    pub async fn rows(&self, statement: &Statement) -> Result<Rows> {
        let asked = Asked::now(statement, &self.0.settings.clock);
        let mut rows = match self.submit(Self::draw_request_id(), statement).await? {
            Submitted::Running(handle) => self.wait_for(&handle, statement.wait_text()).await?,
            Submitted::Done(rows) => *rows,
        };
        rows.account(asked.answered());
        Ok(rows)
    }

    /// Runs a statement to its end, for its effect. Returns its handle.
    ///
    /// # Errors
    /// As [`Client::rows`].
    pub async fn run(&self, statement: &Statement) -> Result<String> {
        let mut rows = self.rows(statement).await?;
        let mut row = freshet_core::connector::Row::default();
        while rows.next(&mut row).await? {}
        rows.handle().map(str::to_owned).ok_or_else(|| malformed("a statement without a handle"))
    }

    /// Runs a statement and gives its rows as the texts that Snowflake sent, at most `rows_max`, and whether there
    /// were more.
    ///
    /// # Errors
    /// As [`Client::rows`].
    pub async fn texts(&self, statement: &Statement, rows_max: usize) -> Result<Texts> {
        let mut rows = self.rows(&statement.clone().as_text()).await?;
        let names = rows.columns().iter().map(|column| column.name.to_ascii_lowercase()).collect();
        let mut row = freshet_core::connector::Row::default();
        let mut texts = Texts { names, rows: Vec::new(), truncated: false };
        while rows.next(&mut row).await? {
            if texts.rows.len() == rows_max {
                texts.truncated = true;
                return Ok(texts);
            }
            let cells = (0..row.cells().len()).map(|place| rows::text(&row, place));
            texts.rows.push(cells.collect());
        }
        Ok(texts)
    }

    /// Runs several statements, parted by semicolons, in one session. Returns each one's handle, in order; where one
    /// fails the ones before it stay done.
    ///
    /// # Errors
    /// As [`Client::rows`].
    pub async fn script(&self, statement: &Statement, count: u32) -> Result<Vec<String>> {
        let mut rows = self.rows(&statement.clone().as_script(count).as_text()).await?;
        let mut row = freshet_core::connector::Row::default();
        while rows.next(&mut row).await? {}
        let handles = rows.child_handles().to_vec();
        if count > 0 && handles.len() != count as usize {
            return Err(malformed(&format!("{} handles for {count} statements", handles.len())));
        }
        Ok(handles)
    }

    /// Stops a statement; one that is done already, or that Snowflake does not know, is no error.
    ///
    /// # Errors
    /// As [`Client::rows`], of the way there.
    pub async fn cancel(&self, handle: &str) -> Result<()> {
        self.call(&Call::Cancel { handle: handle.to_owned() }).await.map(|_| ())
    }

    /// Whether the account answers, and takes a token: asks about a statement that does not exist.
    ///
    /// # Errors
    /// `snowflake.unreachable`, `snowflake.tls_failed`, `snowflake.login_failed`, `snowflake.access_refused`.
    pub async fn knock(&self) -> Result<()> {
        let handle = uuid::Uuid::nil().to_string();
        match self.call(&Call::poll(&handle)).await {
            Ok(_) => Ok(()),
            // Whatever it says of the statement, it let us in.
            Err(error) if is_of_statement(error.code) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Errors after which a statement may still run.
fn is_open(code: Code) -> bool {
    matches!(
        code,
        Code::SnowflakeUnreachable
            | Code::SnowflakeBusy
            | Code::SnowflakeConnectionLost
            | Code::SnowflakeLogin
            | Code::SnowflakeRefused
            | Code::SnowflakeConsent
            | Code::SnowflakeAnswer
    )
}

fn is_of_statement(code: Code) -> bool {
    matches!(code, Code::SnowflakeQuery | Code::SnowflakeResultGone | Code::ModelObjectMissing | Code::SnowflakeRequest)
}

fn malformed(what: &str) -> Error {
    Error::new(Code::SnowflakeAnswer, format!("Snowflake's answer breaks the contract: {what}"))
}

/// A small result as texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    /// The columns' names, in lower case.
    pub names: Vec<String>,
    /// A text for each cell; none for NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// There were more rows than asked for.
    pub truncated: bool,
}

impl Texts {
    /// The place of a column.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// A row's cell in the column of this name; none for NULL, and where there is no such column.
    #[must_use]
    pub fn cell<'a>(&self, row: &'a [Option<String>], name: &str) -> Option<&'a str> {
        row.get(self.position(name)?)?.as_deref()
    }

    /// The first cell of the first row.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

/// Cancels a statement whose result nobody waits for any more.
struct CancelOnDrop {
    client: Client,
    handle: Option<String>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let (Some(handle), Ok(runtime)) = (self.handle.take(), tokio::runtime::Handle::try_current()) else { return };
        let client = self.client.clone();
        runtime.spawn(async move {
            if let Err(error) = client.cancel(&handle).await {
                tracing::warn!(statement = handle, error = %error.chain(), "a statement could not be cancelled");
            }
        });
    }
}

/// What an answer's `parameters` need: texts, as the documents write them.
fn parameter(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

impl Inner {
    fn url(&self, path: &str) -> String {
        format!("{}/api/v2/statements{path}", self.settings.base_url)
    }

    fn refused(&self, status: u16, refusal: &Refusal) -> Error {
        refusal.error(status, &self.settings.context)
    }
}
