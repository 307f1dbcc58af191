//! Upgrades against kubelets that behave and that don't, over real TLS on loopback.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::*;

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

#[test]
fn an_upgrade_needs_both_headers() {
    for (list, expected) in [
        (&[("connection", "Upgrade"), ("upgrade", "websocket")][..], Some("websocket")),
        (&[("connection", "keep-alive, upgrade"), ("upgrade", "SPDY/3.1")], Some("SPDY/3.1")),
        (&[("connection", "keep-alive"), ("upgrade", "websocket")], None),
        (&[("connection", "Upgrade")], None),
        (&[], None),
    ] {
        let headers = headers(list);
        assert_eq!(protocol(&headers).map(|value| value.to_str().unwrap()), expected, "{list:?}");
    }
}

#[test]
fn credentials_stay_here() {
    let token = format!("v5.channel.k8s.io, {WEBSOCKET_TOKEN_PREFIX}c2VjcmV0");
    let headers = headers(&[
        ("authorization", "Bearer secret"),
        ("cookie", "session=secret"),
        ("impersonate-user", "secret"),
        ("x-remote-user", "secret"),
        ("sec-websocket-key", "k"),
        ("sec-websocket-protocol", &token),
    ]);
    let address = KubeletAddress::for_tests("192.0.2.1", 10250);
    let protocol = HeaderValue::from_static("websocket");
    let request = forwarded("/exec/ns/p/c", &address, Method::GET, &headers, &protocol).unwrap();
    let text = format!("{:?}", request.headers());
    assert!(!text.contains("secret") && !text.contains("c2VjcmV0"), "{text}");
    assert_eq!(request.headers()[header::SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
    assert_eq!(request.headers()[header::HOST], "192.0.2.1:10250");
}

/// A kubelet that answers the first request with `answer`, then echoes; tells what it read, and when the peer is gone.
async fn kubelet(answer: &'static str) -> (KubeletAddress, mpsc::UnboundedReceiver<Option<String>>) {
    component_base::tls::install_crypto_provider();
    let identity = component_base::tls::self_signed("kubelet", &["127.0.0.1".to_owned()]).unwrap();
    let identity = Arc::new(identity.into_key_pair().unwrap());
    let tls = component_base::tls::server_config(identity, &component_base::tls::ClientAuth::None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = KubeletAddress::for_tests("127.0.0.1", listener.local_addr().unwrap().port());
    let (heard, hears) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut tls = tls;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut stream = TlsAcceptor::from(Arc::new(tls)).accept(stream).await.unwrap();
        let mut buffer = vec![0; 4096];
        let mut first = true;
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            heard.send(Some(String::from_utf8_lossy(&buffer[..read]).into_owned())).unwrap();
            let reply = if first { answer.as_bytes() } else { &buffer[..read] };
            stream.write_all(reply).await.unwrap();
            first = false;
        }
        heard.send(None).unwrap();
    });
    (address, hears)
}

/// Sends `sent` to a server whose only handler is [`proxy`]; gives the connection.
async fn client(address: KubeletAddress, sent: &str) -> tokio::io::DuplexStream {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let kubelets = Arc::new(Kubelets::for_tests());
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let (kubelets, address) = (kubelets.clone(), address.clone());
            async move {
                let shutdown = Shutdown::new();
                let answer = proxy(&kubelets, &address, "/exec/ns/p/c?command=sh", request, shutdown).await;
                Ok::<_, std::convert::Infallible>(
                    answer.unwrap_or_else(|error| crate::endpoints::respond::error(&error)),
                )
            }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        connection.with_upgrades().await.unwrap();
    });
    client.write_all(sent.as_bytes()).await.unwrap();
    client
}

async fn read_until(stream: &mut tokio::io::DuplexStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(end) {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await;
        match read.expect("no answer").unwrap() {
            0 => break,
            read => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
    }
    text
}

const UPGRADE: &str = "GET /exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Authorization: Bearer secret\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";

#[tokio::test]
async fn bytes_go_both_ways_after_the_kubelet_agrees() {
    let (address, mut hears) = kubelet(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\
         Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
    )
    .await;
    let mut client = client(address, UPGRADE).await;
    let answer = read_until(&mut client, "\r\n\r\n").await.to_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(
        answer.contains("sec-websocket-protocol: v5.channel.k8s.io")
            && answer.contains("sec-websocket-accept: y")
    );
    let heard = hears.recv().await.unwrap().unwrap();
    assert!(
        heard.starts_with("GET /exec/ns/p/c?command=sh HTTP/1.1") && !heard.contains("secret"),
        "{heard}"
    );
    client.write_all(b"ping").await.unwrap();
    assert_eq!(read_until(&mut client, "ping").await, "ping");
    drop(client);
    assert_eq!(hears.recv().await.unwrap().as_deref(), Some("ping"));
    assert_eq!(hears.recv().await.unwrap(), None, "the kubelet's end is closed with the client's");
}

/// CVE-2018-1002105 and CVE-2020-8559: after anything but 101 nothing of the client's reaches the kubelet.
#[tokio::test]
async fn a_kubelet_that_does_not_agree_is_cut_off() {
    for (answer, code) in [
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad", "400"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "403"),
        ("HTTP/1.1 302 Found\r\nLocation: https://192.0.2.1/secrets\r\nContent-Length: 0\r\n\r\n", "500"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "500"),
    ] {
        let (address, mut hears) = kubelet(answer).await;
        let mut client = client(address, UPGRADE).await;
        client.write_all(b"GET /pods HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let text = read_until(&mut client, "}").await;
        assert!(text.starts_with(&format!("HTTP/1.1 {code}")), "{answer}: {text}");
        assert!(hears.recv().await.unwrap().unwrap().starts_with("GET /exec/"));
        assert_eq!(
            hears.recv().await.unwrap(),
            None,
            "{answer}: the connection must be closed, with nothing more sent"
        );
    }
}

#[tokio::test]
async fn a_plain_request_is_refused() {
    let (address, _hears) = kubelet("").await;
    let mut client = client(address, "GET /exec HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let text = read_until(&mut client, "}").await;
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("Upgrade request required"), "{text}");
}
