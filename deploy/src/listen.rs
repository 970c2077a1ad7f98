//! Connections to requests, by HTTP/1.1: with an end to how long a head and a body may take, so that nobody holds us by being slow.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request};
use futures::StreamExt as _;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a request's head, from the connection's beginning or from the answer before on.
    pub head: Duration,
    /// For its whole body.
    pub body: Duration,
}

impl Default for Patience {
    /// A megabyte, the most that a body may have, comes in 30 s over 300 kbit/s.
    fn default() -> Self {
        Self { head: Duration::from_secs(30), body: Duration::from_secs(30) }
    }
}

/// How long to wait when there are no more files to be opened for connections.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// Serves until `drain`, and then what is under way.
pub async fn serve(listener: TcpListener, router: Router, drain: CancellationToken, patience: Patience) {
    let mut server = Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(patience.head);
    let under_way = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(OUT_OF_FILES).await;
                continue;
            }
        };
        let router = router.clone();
        let service = tower::service_fn(move |request: axum::http::Request<hyper::body::Incoming>| {
            let request = arrived(request.map(Body::new), peer, patience.body);
            router.clone().oneshot(request)
        });
        let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = under_way.watch(connection);
        // Who hangs up, is too slow or talks of something else ends here, and nobody else hears of it.
        tokio::spawn(async move { connection.await.map_err(|error| tracing::debug!(%error, "a connection ended")) });
    }
    drop(listener);
    under_way.shutdown().await;
}

fn arrived(mut request: Request, peer: SocketAddr, patience: Duration) -> Request {
    use axum::body::HttpBody as _;
    request.extensions_mut().insert(ConnectInfo(peer));
    if request.body().is_end_stream() { request } else { request.map(|body| hurried(body, patience)) }
}

/// The same body, which ends with an error when its time is over.
fn hurried(body: Body, patience: Duration) -> Body {
    let until = Instant::now() + patience;
    let pieces = body.into_data_stream();
    Body::from_stream(futures::stream::unfold(Some(pieces), move |pieces| async move {
        let mut pieces = pieces?;
        match timeout_at(until, pieces.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok::<Bytes, io::Error>(piece), Some(pieces))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Instant as Since;

    use axum::routing::post;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    const SHORT: Patience = Patience { head: Duration::from_millis(300), body: Duration::from_millis(300) };

    const LONG: Patience = Patience { head: Duration::from_secs(30), body: Duration::from_secs(30) };

    async fn served() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        served_with(SHORT).await
    }

    async fn served_with(patience: Patience) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, drain) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = Router::new().route("/", post(async |body: Bytes| body.len().to_string()));
        (address, drain.clone(), tokio::spawn(serve(listener, router, drain, patience)))
    }

    /// Sends `head`, then a byte each 50 ms until the other end hangs up or has answered; what it said.
    async fn dripped(address: SocketAddr, head: &str) -> (String, Duration) {
        let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        let since = Since::now();
        write.write_all(head.as_bytes()).await.unwrap();
        let drip = tokio::spawn(async move {
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut told = Vec::new();
        // A connection that is reset has been hung up on too.
        let _ = tokio::time::timeout(Duration::from_secs(20), read.read_to_end(&mut told)).await.expect("hung up on");
        drip.abort();
        (String::from_utf8_lossy(&told).into_owned(), since.elapsed())
    }

    #[tokio::test]
    async fn slowloris_by_a_head_that_never_ends_is_hung_up_on() {
        let (address, _drain, _) = served().await;

        let (_, took) = dripped(address, "POST / HTTP/1.1\r\nHost: a\r\nX-A: ").await;

        assert!(took >= SHORT.head && took < Duration::from_secs(15), "{took:?}");
    }

    #[tokio::test]
    async fn slowloris_by_a_body_that_never_ends_is_answered_and_ended() {
        let (address, _drain, _) = served().await;

        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n";
        let (told, took) = dripped(address, head).await;

        assert!(told.starts_with("HTTP/1.1 400"), "{told}");
        assert!(took >= SHORT.body && took < Duration::from_secs(15), "{took:?}");
    }

    #[tokio::test]
    async fn many_slow_ones_keep_nobody_else_waiting() {
        let (address, _drain, _) = served().await;
        let mut slow = Vec::new();
        for _ in 0..200 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n").await.unwrap();
            slow.push(stream);
        }

        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
        stream.write_all(request).await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();

        assert!(told.starts_with("HTTP/1.1 200") && told.ends_with('3'), "{told}");
    }

    #[tokio::test]
    async fn what_is_under_way_is_answered_before_the_end() {
        let (address, drain, ended) = served_with(LONG).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;

        drain.cancel();
        stream.write_all(b"bc").await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();

        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        ended.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn the_other_ends_address_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.ip().to_string();
        let router = Router::new().route("/", axum::routing::get(told));
        let _served = tokio::spawn(serve(listener, router, CancellationToken::new(), LONG));

        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();

        assert!(told.ends_with("127.0.0.1"), "{told}");
    }
}
