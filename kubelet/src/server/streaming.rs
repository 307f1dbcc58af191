//! exec, attach and port forwarding: the request is upgraded on both sides and the bytes are passed on unseen. The
//! runtime's streaming server speaks SPDY/3.1 and the older WebSocket protocols (up to v4.channel.k8s.io); it answers
//! what it doesn't know with an error, on which kubectl falls back from WebSocket v5 to SPDY. Redirects are not
//! followed, and the caller's credentials stay here. Upstream's concept: `proxyStream` in `server.go`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use component_base::serving::ResponseBody;
use component_base::serving::http_server::{empty, full};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use proto::runtime_v1 as v1;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::query::Query;

/// As much of a refusal as is passed on.
const MAX_REFUSAL: usize = 64 * 1024;
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// What the streams of an exec or attach carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// stdin.
    pub stdin: bool,
    /// stdout.
    pub stdout: bool,
    /// stderr; a terminal has none of its own.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

impl StreamOptions {
    /// Reads the query's `input`, `output`, `error` and `tty`.
    pub fn parse(query: &Query) -> Result<Self, String> {
        let flag = |name: &str| matches!(query.first(name), Some("1" | "true"));
        let tty = flag("tty");
        let options =
            Self { stdin: flag("input"), stdout: flag("output"), stderr: flag("error") && !tty, tty };
        if !options.stdin && !options.stdout && !options.stderr {
            return Err("you must specify at least 1 of stdin, stdout, stderr".to_owned());
        }
        Ok(options)
    }

    /// The runtime's request for an exec.
    #[must_use]
    pub fn exec(self, container_id: &str, command: Vec<String>) -> v1::ExecRequest {
        let Self { stdin, stdout, stderr, tty } = self;
        let container_id = container_id.to_owned();
        v1::ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr, ..Default::default() }
    }

    /// The runtime's request for an attach.
    #[must_use]
    pub fn attach(self, container_id: &str) -> v1::AttachRequest {
        let Self { stdin, stdout, stderr, tty } = self;
        v1::AttachRequest {
            container_id: container_id.to_owned(),
            stdin,
            tty,
            stdout,
            stderr,
            ..Default::default()
        }
    }
}

/// Whether a request asks to change protocols.
#[must_use]
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let words = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asked =
        words.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    asked && headers.contains_key(UPGRADE)
}

/// The headers that matter to the other side of an upgrade, in either direction.
fn is_passed_on(name: &HeaderName) -> bool {
    let text = name.as_str();
    name == CONNECTION
        || name == UPGRADE
        || text == "x-stream-protocol-version"
        || text.starts_with("sec-websocket-")
}

fn pass_on(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from.iter().filter(|(name, _)| is_passed_on(name)) {
        to.append(name.clone(), value.clone());
    }
}

fn answer(status: StatusCode, text: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}

/// A stream that notes when bytes come.
#[derive(Debug)]
struct Noted<S> {
    stream: S,
    last: Arc<AtomicU64>,
    start: Instant,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_ready() {
            self.last.store(self.start.elapsed().as_secs(), Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Passes bytes both ways until both sides end or nothing comes for too long.
async fn join(
    client: impl AsyncRead + AsyncWrite + Unpin,
    runtime: impl AsyncRead + AsyncWrite + Unpin,
    idle: Duration,
) -> io::Result<()> {
    let (last, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut client = Noted { stream: client, last: last.clone(), start };
    let mut runtime = Noted { stream: runtime, last: last.clone(), start };
    let too_long = async {
        loop {
            let quiet = start.elapsed().saturating_sub(Duration::from_secs(last.load(Ordering::Relaxed)));
            if quiet >= idle {
                return;
            }
            tokio::time::sleep(idle - quiet).await;
        }
    };
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut runtime) => copied.map(|_| ()),
        () = too_long => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came for too long")),
    }
}

/// Sends the request on to the runtime's streaming server and joins the two connections when it agrees.
pub async fn proxy(request: Request<Incoming>, url: &str, idle: Duration) -> Response<ResponseBody> {
    match forward(request, url, idle).await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(%error, "streaming request not passed on");
            answer(StatusCode::BAD_GATEWAY, format!("error dialing backend: {error}\n"))
        }
    }
}

async fn forward(
    mut request: Request<Incoming>,
    url: &str,
    idle: Duration,
) -> Result<Response<ResponseBody>, Box<dyn std::error::Error + Send + Sync>> {
    let uri: Uri = url.parse()?;
    let authority = uri.authority().ok_or("the runtime's URL has no host")?.clone();
    if uri.scheme_str() != Some("http") {
        return Err("the runtime's URL is not http".into());
    }
    let address = (authority.host().trim_matches(['[', ']']).to_owned(), authority.port_u16().unwrap_or(80));
    let stream = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await??;
    // Keystrokes and prompts are small.
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to the runtime's streaming server ended");
        }
    });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut onward = Request::builder()
        .method(request.method().clone())
        .uri(path)
        .header(HOST, authority.as_str())
        .header(CONTENT_LENGTH, 0)
        .body(Empty::<Bytes>::new())?;
    pass_on(request.headers(), onward.headers_mut());
    let mut response = sender.send_request(onward).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await?.to_bytes();
        // A redirect would have the caller follow it with its own credentials.
        let status = if status.is_redirection() || status.is_informational() {
            StatusCode::BAD_GATEWAY
        } else {
            status
        };
        return Ok(answer(status, body));
    }
    let mut agreed = Response::new(empty());
    *agreed.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    pass_on(response.headers(), agreed.headers_mut());
    let (client, runtime) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut response));
    tokio::spawn(async move {
        let joined = async {
            let (client, runtime) = tokio::try_join!(client, runtime)?;
            join(TokioIo::new(client), TokioIo::new(runtime), idle).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        };
        if let Err(error) = joined.await {
            tracing::debug!(%error, "stream ended");
        }
    });
    Ok(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[test]
    fn options() {
        let parse = |text: &str| StreamOptions::parse(&Query::parse(Some(text)));
        assert_eq!(
            parse("input=1&output=1&error=1&tty=1"),
            Ok(StreamOptions { stdin: true, stdout: true, stderr: false, tty: true })
        );
        assert_eq!(parse("output=true").map(|o| o.stdout), Ok(true));
        assert!(parse("input=0").is_err() && parse("").is_err() && parse("error=1&tty=1").is_err());
    }

    #[test]
    fn upgrades() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(k, v)| (HeaderName::from_static(k), v.parse().unwrap())).collect::<HeaderMap>()
        };
        assert!(is_upgrade(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")])));
        assert!(!is_upgrade(&headers(&[("connection", "keep-alive"), ("upgrade", "SPDY/3.1")])));
        assert!(!is_upgrade(&headers(&[("connection", "upgrade")])));
        let mut out = HeaderMap::new();
        pass_on(
            &headers(&[
                ("authorization", "x"),
                ("upgrade", "websocket"),
                ("sec-websocket-key", "k"),
                ("cookie", "c"),
            ]),
            &mut out,
        );
        assert_eq!(out.len(), 2);
    }

    #[tokio::test]
    async fn bytes_pass_until_an_end_or_too_long_a_silence() {
        let (mut client, ours) = duplex(64);
        let (theirs, mut runtime) = duplex(64);
        let task = tokio::spawn(join(ours, theirs, Duration::from_secs(60)));
        client.write_all(b"ping").await.unwrap();
        let mut four = [0; 4];
        runtime.read_exact(&mut four).await.unwrap();
        runtime.write_all(b"pong").await.unwrap();
        client.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"pong");
        drop((client, runtime));
        task.await.unwrap().unwrap();

        let (_client, ours) = duplex(64);
        let (theirs, _runtime) = duplex(64);
        let error = join(ours, theirs, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
