//! One LISTEN per process, fanned out to whoever waits. Payloads are ids: a listener reads the row again.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::db::Db;
use crate::id::WorkspaceId;

/// The channel on which triggers tell of changes.
const CHANNEL: &str = "freshet";
/// Events kept for a slow listener; one that falls behind further is told so and reads its rows again.
const BACKLOG: usize = 4_096;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A run was queued, claimed, moved on or got an event.
    Run,
    /// An operation was asked or answered.
    Operation,
    /// The feed has something that is not a run's.
    Feed,
    /// The connection to the database was lost for a while: anything may have changed.
    Anything,
}

/// A row changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What kind of row.
    pub subject: Subject,
    /// Whose row.
    pub workspace: WorkspaceId,
    /// Which row.
    pub id: Uuid,
}

impl FromStr for Event {
    type Err = ();

    fn from_str(payload: &str) -> Result<Self, ()> {
        let mut words = payload.split(' ');
        let subject = match words.next() {
            Some("run") => Subject::Run,
            Some("operation") => Subject::Operation,
            Some("event") => Subject::Feed,
            _ => return Err(()),
        };
        let mut id = || words.next().and_then(|word| Uuid::parse_str(word).ok()).ok_or(());
        Ok(Self { subject, workspace: id()?.into(), id: id()? })
    }
}

/// Hands out the changes of the database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events(broadcast::Sender<Event>);

impl Events {
    /// Starts listening; reconnects for ever.
    #[must_use]
    pub fn listen(db: &Db) -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        let events = Self(sender);
        tokio::spawn(listen(db.clone(), events.clone()));
        events
    }

    /// From now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }

    fn send(&self, event: Event) {
        // No listener at the moment is not an error.
        let _ = self.0.send(event);
    }

    fn anything(&self) {
        self.send(Event { subject: Subject::Anything, workspace: Uuid::nil().into(), id: Uuid::nil() });
    }
}

async fn listen(db: Db, events: Events) {
    while !db.dispatcher().is_closed() {
        if let Err(error) = listen_once(&db, &events).await {
            tracing::debug!(error = %error, "listening broke off; connecting again");
        }
        events.anything();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn listen_once(db: &Db, events: &Events) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(db.dispatcher()).await?;
    listener.listen(CHANNEL).await?;
    events.anything();
    // `None` says that the connection was lost: what was sent meanwhile is gone.
    while let Some(notification) = listener.try_recv().await? {
        if let Ok(event) = notification.payload().parse() {
            events.send(event);
        }
    }
    Ok(())
}
