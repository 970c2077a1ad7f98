//! Carries what the driver sends to an address that was judged.
//!
//! ~~~text
//! driver ── a socket of our own ── relay ── the judged address
//!    └──────── TLS, checked against the host's name ────────┘
//! ~~~
//!
//! The driver takes one host for two things: to dial it, and to check the certificate. Given the name it would look it up
//! once more, and whoever owns the name may answer otherwise then. So it dials us, and has the name for the certificate.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use freshet_core::id::RequestId;
use tokio::io::{BufReader, copy_buf};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tracing::Instrument as _;

/// How long the driver may take to come.
const ACCEPT: Duration = Duration::from_secs(10);
/// Bytes that are read at once, each way.
const BUFFER_BYTES: usize = 64 * 1024;

/// Listens for the driver, and carries what it sends to `stream` until either side ends. Returns the socket that the
/// driver is to be given for this port.
///
/// The socket has a name in no file system (Linux alone has such), is drawn at random, and takes one connection, of this
/// process.
///
/// # Errors
/// What the system says of a new socket.
pub(super) fn to(stream: TcpStream, port: u16) -> io::Result<PathBuf> {
    let socket = format!("\0freshet-{}", RequestId::new());
    // The driver adds libpq's file name.
    let listener = UnixListener::bind(format!("{socket}/.s.PGSQL.{port}"))?;
    let carrying = async move {
        if let Err(error) = carry(listener, stream).await {
            tracing::debug!(%error, "a connection to a source ended");
        }
    };
    tokio::spawn(carrying.in_current_span());
    Ok(socket.into())
}

async fn carry(listener: UnixListener, mut outer: TcpStream) -> io::Result<()> {
    let mut inner = tokio::time::timeout(ACCEPT, own_connection(&listener)).await??;
    drop(listener);
    outer.set_nodelay(true)?;
    let (inner_read, mut inner_write) = inner.split();
    let (outer_read, mut outer_write) = outer.split();
    let mut sent = BufReader::with_capacity(BUFFER_BYTES, inner_read);
    let mut received = BufReader::with_capacity(BUFFER_BYTES, outer_read);
    // Whichever ends first ends both: a server that never hangs up must not keep what the driver has left.
    tokio::select! {
        ended = copy_buf(&mut sent, &mut outer_write) => ended?,
        ended = copy_buf(&mut received, &mut inner_write) => ended?,
    };
    Ok(())
}

/// The first connection that this process makes; others of this machine are hung up on.
async fn own_connection(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (stream, _) = listener.accept().await?;
        if stream.peer_cred()?.pid().is_some_and(|pid| u32::try_from(pid).is_ok_and(|pid| pid == std::process::id())) {
            return Ok(stream);
        }
    }
}
