//! HTTP and HTTPS probes: any status from 200 to 399 is good. Upstream's concept: `pkg/probe/http`.
//!
//! The server's certificate is not verified (upstream doesn't either); redirects to another host are not followed and
//! count as success with a warning.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::action::Verdict;
use super::tcp::dial_error;

const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;

struct Answer {
    status: http::StatusCode,
    location: Option<String>,
    body: String,
}

/// Asks.
pub(super) async fn probe(
    get: &HTTPGetAction,
    host: &str,
    port: u16,
    timeout: Duration,
) -> Result<Verdict, String> {
    let scheme =
        if get.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")) { "https" } else { "http" };
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let path = get.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let uri: Uri =
        format!("{scheme}://{authority}{path}").parse().map_err(|error| format!("invalid URL: {error}"))?;
    let headers = request_headers(get, &authority)?;
    match tokio::time::timeout(timeout, follow(uri.clone(), headers)).await {
        Ok(verdict) => Ok(verdict),
        Err(_) => Ok(Verdict::Failure(format!(
            "Get \"{uri}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        ))),
    }
}

fn request_headers(get: &HTTPGetAction, authority: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for header in get.http_headers.iter().flatten() {
        let name: HeaderName =
            header.name.parse().map_err(|_| format!("invalid header name {:?}", header.name))?;
        let value: HeaderValue =
            header.value.parse().map_err(|_| format!("invalid header value for {:?}", header.name))?;
        headers.append(name, value);
    }
    let defaults = [
        (header::USER_AGENT, "kube-probe/1.36"),
        (header::ACCEPT, "*/*"),
        (header::CONNECTION, "close"),
        (header::HOST, authority),
    ];
    for (name, value) in defaults {
        if !headers.contains_key(&name)
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

async fn follow(mut uri: Uri, headers: HeaderMap) -> Verdict {
    for _ in 0..=MAX_REDIRECTS {
        let answer = match ask(&uri, &headers).await {
            Ok(answer) => answer,
            Err(message) => return Verdict::Failure(format!("Get \"{uri}\": {message}")),
        };
        let code = answer.status.as_u16();
        if let Some(location) = answer.location.filter(|_| answer.status.is_redirection()) {
            let Some(next) = resolve(&uri, &location) else {
                return Verdict::Failure(format!(
                    "Get \"{uri}\": failed to parse Location header {location:?}"
                ));
            };
            if next.host() != uri.host() {
                return Verdict::Warning(format!(
                    "Probe terminated redirects, Response body: {}",
                    answer.body
                ));
            }
            uri = next;
            continue;
        }
        if (200..400).contains(&code) {
            return Verdict::Success;
        }
        return Verdict::Failure(format!("HTTP probe failed with statuscode: {code}"));
    }
    Verdict::Failure(format!("Get \"{uri}\": stopped after {MAX_REDIRECTS} redirects"))
}

fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    if location.contains("://") {
        return location.parse().ok();
    }
    let path = if location.starts_with('/') { location.to_owned() } else { format!("/{location}") };
    format!("{}://{}{path}", base.scheme_str()?, base.authority()?).parse().ok()
}

async fn ask(uri: &Uri, headers: &HeaderMap) -> Result<Answer, String> {
    let host = uri.host().ok_or("no Host in request URL")?.trim_matches(['[', ']']).to_owned();
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let address = uri.authority().map_or_else(String::new, ToString::to_string);
    let stream =
        TcpStream::connect((host.as_str(), port)).await.map_err(|error| dial_error(&address, &error))?;
    if !tls {
        return exchange(stream, uri, headers).await;
    }
    let name = ServerName::try_from(host).map_err(|error| format!("invalid server name: {error}"))?;
    let connector = tokio_rustls::TlsConnector::from(TLS.clone());
    let stream = connector.connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
    exchange(stream, uri, headers).await
}

async fn exchange<S>(stream: S, uri: &Uri, headers: &HeaderMap) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request =
        Request::builder().uri(path).body(Empty::<bytes::Bytes>::new()).map_err(|e| e.to_string())?;
    *request.headers_mut() = headers.clone();
    let talk = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let location =
            response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // A longer body is cut, not failed, as upstream's.
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map(|collected| collected.to_bytes()).unwrap_or_default();
        Ok(Answer { status, location, body: String::from_utf8_lossy(&body).into_owned() })
    };
    // Driven here, so that a probe that is dropped leaves no task behind.
    tokio::pin!(talk);
    tokio::select! {
        answer = &mut talk => answer,
        ended = connection => match ended {
            // The server closed after its answer, which is still to be taken.
            Ok(()) => talk.await,
            Err(error) => Err(error.to_string()),
        },
    }
}

static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    Arc::new(config)
});

/// Accepts every certificate: a probe asks whether the server answers, not who it is.
#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Answers each connection with the same text.
    async fn server(answer: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn status_codes_decide() {
        let cases = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Verdict::Success),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", Verdict::Success),
            (
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
                Verdict::Failure("HTTP probe failed with statuscode: 503".to_owned()),
            ),
            (
                "HTTP/1.1 302 Found\r\nlocation: http://example.invalid/\r\ncontent-length: 2\r\n\r\nhi",
                Verdict::Warning("Probe terminated redirects, Response body: hi".to_owned()),
            ),
        ];
        for (answer, expected) in cases {
            let port = server(answer).await;
            let get = HTTPGetAction { port: IntOrString::Int(i32::from(port)), ..Default::default() };
            assert_eq!(
                probe(&get, "127.0.0.1", port, Duration::from_secs(5)).await.unwrap(),
                expected,
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn a_closed_port_fails_with_the_dialers_words() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let get = HTTPGetAction { path: Some("/healthz".to_owned()), ..Default::default() };
        let expected = format!(
            "Get \"http://127.0.0.1:{port}/healthz\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        );
        assert_eq!(
            probe(&get, "127.0.0.1", port, Duration::from_secs(5)).await.unwrap(),
            Verdict::Failure(expected)
        );
    }
}
