//! An answer's bytes, as they come or fetched ahead, into items.

use std::sync::Arc;

use bytes::Bytes;
use freshet_core::connector::Row;
use freshet_core::error::{Code, Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::Instrument as _;

use super::exchange::{Call, Reply, is_gzip};
use super::{Client, malformed};
use crate::sources::snowflake::decode::{CellType, Event, Inflater, Malformed, Scanner};

/// Compressed bytes of one partition that wait while an earlier one is read, at most.
const AHEAD_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Why an item cannot be had.
pub(super) enum BodyError {
    /// The body broke off: fetched again, it may be whole.
    Cut(Error),
    /// It is of no use.
    Malformed(Malformed),
}

/// A body while it is read.
pub(super) struct Body {
    pieces: Pieces,
    inflater: Inflater,
    scanner: Scanner,
}

enum Pieces {
    Direct(reqwest::Response),
    Ahead(Ahead),
}

impl Body {
    /// The body of an answer.
    pub(super) fn of(response: reqwest::Response) -> Self {
        let inflater = Inflater::new(is_gzip(&response));
        Self { pieces: Pieces::Direct(response), inflater, scanner: Scanner::default() }
    }

    /// The body of a partition that is being fetched already.
    pub(super) async fn of_ahead(mut ahead: Ahead) -> Result<Self> {
        let gzip = match ahead.pieces.recv().await {
            Some(Ok(Piece::Start { gzip })) => gzip,
            Some(Err(error)) => return Err(error),
            Some(Ok(Piece::Bytes(..))) | None => return Err(Error::new(Code::Internal, "a fetch has no start")),
        };
        let inflater = Inflater::new(gzip);
        Ok(Self { pieces: Pieces::Ahead(ahead), inflater, scanner: Scanner::default() })
    }

    pub(super) fn expect(&mut self, types: Vec<CellType>) {
        self.scanner.expect(types);
    }

    /// The next item; see [`Scanner::next`]. Never [`Event::More`].
    pub(super) async fn next(&mut self, row: &mut Row) -> Result<Event, BodyError> {
        loop {
            match self.scanner.next(row) {
                Ok(Event::More) => self.more().await?,
                Ok(event) => return Ok(event),
                Err(error) => return Err(BodyError::Malformed(error)),
            }
        }
    }

    async fn more(&mut self) -> Result<(), BodyError> {
        let (scanner, inflater) = (&mut self.scanner, &mut self.inflater);
        let mut take = |bytes: &[u8]| {
            scanner.feed(bytes);
            Ok::<_, std::io::Error>(())
        };
        let damaged = |error: std::io::Error| BodyError::Cut(malformed("a body does not inflate").caused_by(error));
        match self.pieces.next().await? {
            Some(bytes) => inflater.feed(&bytes, &mut take).map_err(damaged),
            None => {
                inflater.finish(&mut take).map_err(damaged)?;
                scanner.end();
                Ok(())
            }
        }
    }
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        match self {
            Self::Direct(response) => response.chunk().await.map_err(|error| BodyError::Cut(cut(error))),
            Self::Ahead(ahead) => match ahead.pieces.recv().await {
                Some(Ok(Piece::Bytes(bytes, _room))) => Ok(Some(bytes)),
                Some(Ok(Piece::Start { .. })) | None => Ok(None),
                Some(Err(error)) => Err(BodyError::Cut(error)),
            },
        }
    }
}

fn cut(error: reqwest::Error) -> Error {
    Error::new(Code::SnowflakeConnectionLost, "a result broke off").caused_by(error.without_url())
}

/// A partition that is fetched while an earlier one is read; dropped, it stops.
pub(super) struct Ahead {
    pieces: mpsc::Receiver<Result<Piece>>,
    task: tokio::task::JoinHandle<()>,
}

enum Piece {
    Start { gzip: bool },
    Bytes(Bytes, OwnedSemaphorePermit),
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ahead {
    /// Begins to fetch a partition.
    pub(super) fn start(client: Client, handle: String, number: usize) -> Self {
        // The bytes are bounded by the semaphore; the channel only has to have room for small pieces.
        let (send, pieces) = mpsc::channel(1024);
        let fetching = async move {
            if let Err(error) = fetch(&client, &handle, number, &send).await {
                // The reader may be gone already.
                let _ = send.send(Err(error)).await;
            }
        };
        let task = tokio::spawn(fetching.in_current_span());
        Self { pieces, task }
    }
}

async fn fetch(client: &Client, handle: &str, number: usize, send: &mpsc::Sender<Result<Piece>>) -> Result<()> {
    let mut response = client.partition(handle, number).await?;
    let gone = |_| Error::new(Code::Cancelled, "the partition is not wanted any more");
    send.send(Ok(Piece::Start { gzip: is_gzip(&response) })).await.map_err(gone)?;
    let room = Arc::new(Semaphore::new(AHEAD_BYTES_MAX));
    while let Some(bytes) = response.chunk().await.map_err(cut)? {
        let wanted = u32::try_from(bytes.len().min(AHEAD_BYTES_MAX)).unwrap_or(1);
        let permit = room.clone().acquire_many_owned(wanted).await;
        let permit = permit.map_err(|error| Error::new(Code::Internal, "the room is closed").caused_by(error))?;
        send.send(Ok(Piece::Bytes(bytes, permit))).await.map_err(|_| Error::new(Code::Cancelled, "not wanted"))?;
    }
    Ok(())
}

impl Client {
    /// Asks for a partition.
    pub(super) async fn partition(&self, handle: &str, number: usize) -> Result<reqwest::Response> {
        match self.call(&Call::Partition { handle: handle.to_owned(), number }).await? {
            Reply::Result(response) => Ok(response),
            Reply::Running(_) => Err(malformed("a partition of a statement that runs")),
        }
    }
}
