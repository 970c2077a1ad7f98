//! Statements that were submitted: their handles, states, results and the history of request ids.
//!
//! ~~~text
//! held (zombie) ─► running ─► done | failed | timed_out
//! ~~~

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::Emulator;
use crate::auth::User;
use crate::results::{Cut, ResultSet, small};
use crate::sql::bind::{Binding, Surroundings};
use crate::sql::error::SqlError;
use crate::sql::names::Context;
use crate::sql::parse::{self, Piece};
use crate::sql::sessions::{self, Session};
use crate::sql::types::Column;

/// How long a result is kept, milliseconds of the virtual clock.
pub const RESULT_LIFE_MS: i64 = 24 * 3_600_000;

/// Where a statement stands.
#[derive(Debug, Clone)]
pub enum State {
    Running,
    Done(Arc<ResultSet>),
    Failed(SqlError),
    /// The request's `timeout` ran out.
    TimedOut,
}

/// A statement that was submitted.
pub struct Submitted {
    pub handle: Uuid,
    pub request_id: Uuid,
    pub user: String,
    pub text: String,
    pub created_ms: i64,
    pub state: watch::Sender<State>,
    /// Handles of the statements in a multi-statement request.
    pub children: Mutex<Vec<Uuid>>,
    cancelled: Notify,
}

impl Submitted {
    fn new(user: &str, request_id: Uuid, text: &str, created_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            handle: Uuid::now_v7(),
            request_id,
            user: user.to_owned(),
            text: text.to_owned(),
            created_ms,
            state: watch::Sender::new(State::Running),
            children: Mutex::default(),
            cancelled: Notify::new(),
        })
    }

    /// The state now.
    pub fn now(&self) -> State {
        self.state.borrow().clone()
    }

    /// The children's handles.
    pub fn child_handles(&self) -> Vec<Uuid> {
        lock(&self.children).clone()
    }

    /// Waits until the statement is over, at most this long.
    pub async fn wait(&self, at_most: Duration) -> State {
        let mut watched = self.state.subscribe();
        let over = watched.wait_for(|state| !matches!(state, State::Running));
        match tokio::time::timeout(at_most, over).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) | Err(_) => self.now(),
        }
    }

    /// Asks a running statement to stop.
    pub fn cancel(&self) {
        self.cancelled.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// All statements since the start.
#[derive(Default)]
pub struct Statements {
    by_handle: Mutex<HashMap<Uuid, Arc<Submitted>>>,
    by_request: Mutex<HashMap<Uuid, Uuid>>,
    /// Wakes the zombies that wait for it.
    pub release: Notify,
}

impl Statements {
    /// Finds a statement; one older than 24 hours is gone.
    pub fn get(&self, handle: Uuid, now_ms: i64) -> Option<Arc<Submitted>> {
        let kept = &mut *lock(&self.by_handle);
        let found = kept.get(&handle)?.clone();
        if now_ms - found.created_ms >= RESULT_LIFE_MS {
            kept.remove(&handle);
            return None;
        }
        Some(found)
    }

    /// Finds the statement of an earlier request.
    pub fn of_request(&self, request_id: Uuid, now_ms: i64) -> Option<Arc<Submitted>> {
        let handle = lock(&self.by_request).get(&request_id).copied()?;
        self.get(handle, now_ms)
    }

    /// Statements in the order they came, the last 200.
    pub fn recent(&self) -> Vec<Arc<Submitted>> {
        let mut all: Vec<_> = lock(&self.by_handle).values().cloned().collect();
        all.sort_by_key(|one| one.handle);
        all.split_off(all.len().saturating_sub(200))
    }

    fn keep(&self, submitted: &Arc<Submitted>) {
        lock(&self.by_handle).insert(submitted.handle, submitted.clone());
    }

    /// Forgets results that have expired.
    fn sweep(&self, now_ms: i64) {
        lock(&self.by_handle).retain(|_, one| now_ms - one.created_ms < RESULT_LIFE_MS);
    }
}

/// A request to run a statement, after its checks.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub text: String,
    pub request_id: Uuid,
    /// How many statements; none: any number.
    pub count: Option<usize>,
    pub timeout: Option<Duration>,
    pub context: Context,
    pub warehouse: Option<String>,
    pub role: Option<String>,
    pub zone: Option<String>,
    pub bindings: Vec<Binding>,
    pub cut: Cut,
}

/// When a statement starts and how it must fail, by a fault.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Wait for `POST /emulator/zombies/release`.
    pub held: bool,
    /// Wait this long.
    pub delay: Duration,
    /// Fail like this.
    pub failure: Option<SqlError>,
}

/// Takes a statement and runs it in a task of its own; it goes on when the caller leaves.
pub fn submit(emulator: &Arc<Emulator>, user: User, request: Request, start: Start) -> Arc<Submitted> {
    let now_ms = emulator.clock.now_ms();
    emulator.statements.sweep(now_ms);
    let submitted = Submitted::new(&user.name, request.request_id, &request.text, now_ms);
    emulator.statements.keep(&submitted);
    lock(&emulator.statements.by_request).insert(request.request_id, submitted.handle);
    let (emulator, task) = (emulator.clone(), submitted.clone());
    tokio::spawn(async move {
        if start.held {
            emulator.statements.release.notified().await;
        }
        tokio::time::sleep(start.delay).await;
        let state = match start.failure {
            Some(error) => State::Failed(error),
            None => run(&emulator, &task, user, request).await,
        };
        task.state.send_replace(state);
    });
    submitted
}

async fn run(emulator: &Arc<Emulator>, submitted: &Arc<Submitted>, user: User, request: Request) -> State {
    let timeout = request.timeout.unwrap_or(Duration::from_secs(604_800));
    let mut session = match open(emulator, submitted, user, &request).await {
        Ok(session) => session,
        Err(error) => return State::Failed(error),
    };
    let backend = match session.backend().await {
        Ok(backend) => backend,
        Err(error) => return State::Failed(error),
    };
    let state = {
        let work = run_all(emulator, submitted, &mut session, &request);
        tokio::pin!(work);
        tokio::select! {
            outcome = &mut work => outcome.map_or_else(State::Failed, |result| State::Done(Arc::new(result))),
            () = submitted.cancelled.notified() => {
                let outcome = stopped(emulator, backend, &mut work).await;
                outcome.map_or_else(State::Failed, |result| State::Done(Arc::new(result)))
            }
            () = tokio::time::sleep(timeout) => {
                let outcome = stopped(emulator, backend, &mut work).await;
                outcome.map_or(State::TimedOut, |result| State::Done(Arc::new(result)))
            }
        }
    };
    session.close().await;
    state
}

/// Stops work and waits until it has ended. A back end that is between two statements does not hear it, so it is told
/// again and again.
async fn stopped<T>(emulator: &Emulator, backend: i32, work: &mut (impl Future<Output = T> + Unpin)) -> T {
    loop {
        stop(emulator, backend).await;
        if let Ok(outcome) = tokio::time::timeout(Duration::from_millis(50), &mut *work).await {
            return outcome;
        }
    }
}

/// Stops what a Postgres back end is doing.
async fn stop(emulator: &Emulator, backend: i32) {
    if let Err(error) = sqlx::query("select pg_cancel_backend($1)").bind(backend).execute(&emulator.pool).await {
        tracing::warn!(%error, "back end {backend} could not be stopped");
    }
}

async fn open(emulator: &Emulator, submitted: &Submitted, user: User, request: &Request) -> Result<Session, SqlError> {
    let connection = emulator.pool.acquire().await?;
    let named = request.context.database.is_some();
    let around = Surroundings {
        account: emulator.account.clone(),
        user: user.name,
        role: request.role.clone().unwrap_or(user.default_role),
        warehouse: request.warehouse.clone().or(user.default_warehouse),
        session: submitted.handle.as_u128().to_string()[..15].to_owned(),
        context: Context {
            database: request.context.database.clone().or(user.default_database),
            schema: request.context.schema.clone().or(if named { Some("PUBLIC".into()) } else { user.default_schema }),
        },
        zone: request.zone.clone().unwrap_or_else(|| "America/Los_Angeles".into()),
        now_ns: emulator.clock.now_ns(),
        bindings: request.bindings.clone(),
        last_query: None,
    };
    Ok(Session::new(connection, emulator.clock.clone(), around, request.cut))
}

async fn run_all(
    emulator: &Arc<Emulator>,
    submitted: &Arc<Submitted>,
    session: &mut Session,
    request: &Request,
) -> Result<ResultSet, SqlError> {
    let pieces = parse::split(&request.text)?;
    if pieces.is_empty() {
        return Err(SqlError::compilation("000900", "42601", "Empty SQL statement."));
    }
    if let Some(count) = request.count
        && count != pieces.len()
    {
        return Err(SqlError::new(
            "000008",
            "0A000",
            format!("Actual statement count {} did not match the desired statement count {count}.", pieces.len()),
        ));
    }
    if request.count == Some(1) {
        return run_piece(emulator, session, &pieces[0]).await;
    }
    if !request.bindings.is_empty() {
        return Err(SqlError::new("000006", "0A000", "Multi-statement requests do not support bindings."));
    }
    for piece in &pieces {
        let child = Submitted::new(&submitted.user, request.request_id, &piece.text, submitted.created_ms);
        emulator.statements.keep(&child);
        lock(&submitted.children).push(child.handle);
        match run_piece(emulator, session, piece).await {
            Ok(result) => child.state.send_replace(State::Done(Arc::new(result))),
            Err(error) => {
                child.state.send_replace(State::Failed(error.clone()));
                return Err(multi_failure(&request.text, piece, error));
            }
        };
    }
    let row = vec![Some("Multiple statements executed successfully.".to_owned())];
    Ok(small(vec![Column::text("multiple statement execution")], &[row], request.cut).await)
}

async fn run_piece(emulator: &Emulator, session: &mut Session, piece: &Piece) -> Result<ResultSet, SqlError> {
    let kind = sessions::kind(piece);
    let warehouse = if kind.needs_warehouse() { Some(warehouse(emulator, session).await?) } else { None };
    emulator.accounting.began(warehouse.as_deref(), emulator.clock.now_ms());
    let outcome = session.run(piece).await;
    emulator.accounting.ended(warehouse.as_deref(), outcome.is_err(), emulator.clock.now_ms());
    outcome
}

async fn warehouse(emulator: &Emulator, session: &Session) -> Result<String, SqlError> {
    let none = || {
        SqlError::new(
            "000606",
            "57P03",
            "No active warehouse selected in the current session.  Select an active warehouse with the 'use warehouse' command.\n",
        )
    };
    let name = session.around.warehouse.clone().ok_or_else(none)?;
    let exists: bool = sqlx::query_scalar("select exists (select from emulator.warehouse where name = $1)")
        .bind(&name)
        .fetch_one(&emulator.pool)
        .await?;
    if exists { Ok(name) } else { Err(none()) }
}

/// The error of the JavaScript procedure that runs several statements.
fn multi_failure(text: &str, piece: &Piece, error: SqlError) -> SqlError {
    if error.code == "000604" {
        return error;
    }
    let line = text[..piece.position].matches('\n').count() + 1;
    SqlError::new(
        "100132",
        "P0000",
        format!(
            "JavaScript execution error: Uncaught Execution of multiple statements failed on statement \"{}\" (at line {line}, position {}).\n{} in SYSTEM$MULTISTMT at '    throw `Execution of multiple statements failed on statement {{0}} (at line {{1}}, position {{2}}).`.replace('{{1}}', LINES[i])' position 4\nstackstrace: \nSYSTEM$MULTISTMT line: 10",
            piece.text, piece.position, error.message
        ),
    )
}
