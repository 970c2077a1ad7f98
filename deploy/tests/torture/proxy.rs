//! A proxy between a worker and a server, which cuts, stalls and slows connections, and knows Kafka's requests.
//!
//! ~~~text
//! worker ◄──► proxy ◄──► server        a frame of Kafka: length, then (request) api key, version, number | (answer) number
//! ~~~

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

/// Kafka's number of the request that ends a transaction.
const END_TXN: i16 = 26;
const PRODUCE: i16 = 0;
/// What is passed on at a time where frames do not matter.
const PIECE_BYTES: usize = 16 * 1024;
/// Larger frames are passed on unread.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// How a proxy treats every connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wire {
    /// Passes everything on.
    Open,
    /// Closes what is open, and what comes.
    Cut,
    /// Lets requests through and no answers.
    NoAnswers,
    /// Holds each piece back so long.
    Late(Duration),
    /// So many bytes a second, each way.
    Slow(usize),
    /// Resets each connection in the middle of the next answer that is long enough.
    Reset,
}

/// What happens once, to one request of Kafka's that ends a transaction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ambush {
    /// The request goes through, its answer does not: the connection is closed instead.
    CutAnswer,
    /// The request is held back and the connection closed; it arrives in the middle of a later transaction.
    Hold,
}

/// Where the way of a commit that is held back is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    Nothing,
    /// It is held back; the client asks again, over another connection.
    Commit,
    /// That was let through. The next records are of a later transaction.
    UntilRecords,
    /// Some records of it are through, the others wait, and now the commit arrives.
    Records,
}

/// Long enough for a broker to write records down, and for a commit to reach every partition.
const SETTLES: Duration = Duration::from_millis(150);

struct State {
    wire: watch::Sender<Wire>,
    ambush: Mutex<Option<Ambush>>,
    struck: Notify,
    held: watch::Sender<Held>,
    target: SocketAddr,
    is_kafka: bool,
}

/// A running proxy.
#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

impl Proxy {
    /// Listens on `port`, or on any.
    pub async fn start(port: u16, target: SocketAddr, is_kafka: bool) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State {
            wire: watch::channel(Wire::Open).0,
            ambush: Mutex::new(None),
            struck: Notify::new(),
            held: watch::channel(Held::Nothing).0,
            target,
            is_kafka,
        });
        let inner = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&inner);
                tokio::spawn(async move {
                    // That a connection breaks is what this is for.
                    let _ = state.carry(client).await;
                });
            }
        });
        Ok(Self { port, state })
    }

    /// Treats connections so from now on.
    pub fn set(&self, wire: Wire) {
        self.state.wire.send_replace(wire);
    }

    /// Waits in ambush for the next request that ends a transaction.
    pub fn lie_in_wait(&self, ambush: Ambush) {
        *self.state.ambush.lock().unwrap_or_else(PoisonError::into_inner) = Some(ambush);
    }

    /// Waits until the ambush has struck.
    pub async fn struck(&self) {
        self.state.struck.notified().await;
    }

    pub fn calm(&self) {
        self.set(Wire::Open);
        *self.state.ambush.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl State {
    async fn carry(self: Arc<Self>, client: TcpStream) -> Result<()> {
        let mut wire = self.wire.subscribe();
        if *wire.borrow_and_update() == Wire::Cut {
            return Ok(());
        }
        let server = TcpStream::connect(self.target).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (client_in, mut client_out) = client.into_split();
        let (mut server_in, server_out) = server.into_split();
        let awaited = Mutex::new(None);
        let cut = async {
            loop {
                if *wire.borrow_and_update() == Wire::Cut || wire.changed().await.is_err() {
                    return;
                }
            }
        };
        let (held, is_reset) = tokio::select! {
            held = self.requests(client_in, server_out, &awaited) => (held.unwrap_or(None), false),
            is_reset = self.answers(&mut server_in, &mut client_out, &awaited) => (None, is_reset.unwrap_or(false)),
            () = cut => (None, false),
        };
        if let Some(held) = held {
            drop(client_out);
            self.release(held, server_in).await;
            return Ok(());
        }
        if is_reset {
            // Closed with what is unsent thrown away: the other side sees a reset.
            client_out.as_ref().set_zero_linger()?;
        }
        Ok(())
    }

    /// Passes requests on; gives back one that is to be held, with the way to the server.
    async fn requests(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: tokio::net::tcp::OwnedWriteHalf,
        awaited: &Mutex<Option<i32>>,
    ) -> Result<Option<(Vec<u8>, tokio::net::tcp::OwnedWriteHalf)>> {
        loop {
            let piece = self.piece(&mut from).await?;
            if piece.is_empty() {
                return Ok(None);
            }
            if self.is_kafka && piece.len() >= 12 {
                let api = i16::from_be_bytes([piece[4], piece[5]]);
                let number = i32::from_be_bytes([piece[8], piece[9], piece[10], piece[11]]);
                match (api, self.take_ambush(api)) {
                    (_, Some(Ambush::Hold)) => return Ok(Some((piece, to))),
                    (_, Some(Ambush::CutAnswer)) => {
                        *awaited.lock().unwrap_or_else(PoisonError::into_inner) = Some(number);
                    }
                    (PRODUCE, None) => self.let_records_through().await,
                    (END_TXN, None) => self.step(Held::Commit, Held::UntilRecords),
                    (_, None) => {}
                }
            }
            self.pace(piece.len()).await;
            to.write_all(&piece).await?;
        }
    }

    fn take_ambush(&self, api: i16) -> Option<Ambush> {
        if api != END_TXN {
            return None;
        }
        self.ambush.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Passes answers on; true when the connection is to be reset.
    async fn answers(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        awaited: &Mutex<Option<i32>>,
    ) -> Result<bool> {
        loop {
            let piece = self.piece(from).await?;
            if piece.is_empty() {
                return Ok(false);
            }
            let number = piece.get(4..8).map(|number| i32::from_be_bytes([number[0], number[1], number[2], number[3]]));
            let is_awaited = {
                let awaited = awaited.lock().unwrap_or_else(PoisonError::into_inner);
                awaited.is_some() && *awaited == number
            };
            if is_awaited {
                self.struck.notify_one();
                return Ok(false);
            }
            let wire = *self.wire.borrow();
            match wire {
                Wire::NoAnswers => {
                    let mut wire = self.wire.subscribe();
                    wire.wait_for(|wire| *wire != Wire::NoAnswers).await?;
                    // Whoever waits that long has given up; the connection is as good as dead.
                    return Ok(false);
                }
                Wire::Reset if piece.len() > 200 => {
                    to.write_all(&piece[..piece.len() / 2]).await?;
                    to.flush().await?;
                    return Ok(true);
                }
                _ => {}
            }
            self.pace(piece.len()).await;
            to.write_all(&piece).await?;
        }
    }

    async fn pace(&self, bytes: usize) {
        let wire = *self.wire.borrow();
        match wire {
            Wire::Late(by) => sleep(by).await,
            Wire::Slow(rate) => sleep(Duration::from_secs_f64(bytes as f64 / rate as f64)).await,
            Wire::Open | Wire::Cut | Wire::NoAnswers | Wire::Reset => {}
        }
    }

    /// A frame of Kafka, or what there is; nothing at the end.
    async fn piece(&self, from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
        if !self.is_kafka {
            let mut piece = vec![0; PIECE_BYTES];
            let length = from.read(&mut piece).await?;
            piece.truncate(length);
            return Ok(piece);
        }
        let mut length = [0; 4];
        from.read_exact(&mut length).await?;
        let body = u32::from_be_bytes(length) as usize;
        anyhow::ensure!(body <= FRAME_BYTES_MAX, "a frame of {body} bytes");
        let mut frame = vec![0; 4 + body];
        frame[..4].copy_from_slice(&length);
        from.read_exact(&mut frame[4..]).await?;
        Ok(frame)
    }

    fn step(&self, from: Held, to: Held) {
        self.held.send_if_modified(|held| {
            let is_there = *held == from;
            if is_there {
                *held = to;
            }
            is_there
        });
    }

    /// Records of the transaction that a held commit is to hit: the first pass, the others wait until it has.
    async fn let_records_through(&self) {
        let mut held = self.held.subscribe();
        if *held.borrow() == Held::UntilRecords {
            return self.step(Held::UntilRecords, Held::Records);
        }
        let _ = tokio::time::timeout(Duration::from_secs(5), held.wait_for(|held| *held != Held::Records)).await;
    }

    /// Lets a held request arrive in the middle of a later transaction.
    async fn release(
        &self,
        (request, mut to): (Vec<u8>, tokio::net::tcp::OwnedWriteHalf),
        mut answers: impl AsyncRead + Unpin,
    ) {
        self.held.send_replace(Held::Commit);
        if self.held.subscribe().wait_for(|held| *held == Held::Records).await.is_err() {
            return;
        }
        sleep(SETTLES).await;
        if to.write_all(&request).await.is_ok() {
            let _ = self.piece(&mut answers).await;
        }
        sleep(SETTLES).await;
        self.held.send_replace(Held::Nothing);
        self.struck.notify_one();
    }
}
