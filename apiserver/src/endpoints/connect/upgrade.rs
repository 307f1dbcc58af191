//! Upgraded connections (WebSocket, SPDY/3.1): the client's upgrade is passed to the kubelet, and when that agrees, bytes go
//! both ways until either end closes.
//!
//! Upstream translates some protocols here; this server leaves the talk to client and kubelet.
//! Upstream: `apimachinery/pkg/util/proxy/upgradeaware.go`.

use apimachinery::status::ApiError;
use component_base::Shutdown;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::kubelet::{KubeletAddress, Kubelets};
use super::log::refused;
use crate::authn::bearer::WEBSOCKET_TOKEN_PREFIX;
use crate::authz::{Attributes, Decision, forbidden};
use crate::body::Body;
use crate::request::RequestContext;
use crate::server::ApiContext;

/// What of the client's request goes to the kubelet. Credentials never do.
const REQUEST_HEADERS: [HeaderName; 4] = [
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
    HeaderName::from_static("x-stream-protocol-version"),
];
/// What of the kubelet's answer goes to the client.
const RESPONSE_HEADERS: [HeaderName; 4] = [
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
    HeaderName::from_static("x-stream-protocol-version"),
];

/// A WebSocket starts with a GET, which was authorized as `get`; what it does needs `create`.
pub(super) async fn authorize(
    api: &ApiContext,
    ctx: &RequestContext,
    method: &Method,
) -> Result<(), ApiError> {
    if *method != Method::GET {
        return Ok(());
    }
    let attributes = Attributes { verb: "create", ..Attributes::of(&ctx.user, &ctx.info) };
    match api.authorizer.authorize(attributes).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(&attributes, &reason)),
    }
}

/// The protocol that the client wants to change to.
fn protocol(headers: &HeaderMap) -> Option<&HeaderValue> {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wanted = connection
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| wanted)
}

/// The sub-protocols without a token that may be among them.
fn without_token(protocols: &HeaderMap) -> Option<HeaderValue> {
    let values =
        protocols.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let kept: Vec<&str> = values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty() && !protocol.starts_with(WEBSOCKET_TOKEN_PREFIX))
        .collect();
    if kept.is_empty() { None } else { HeaderValue::from_str(&kept.join(", ")).ok() }
}

fn forwarded(
    path: &str,
    address: &KubeletAddress,
    method: Method,
    headers: &HeaderMap,
    protocol: &HeaderValue,
) -> Result<Request<Body>, ApiError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .version(Version::HTTP_11)
        .header(header::HOST, address.authority())
        .body(Body::empty())
        .map_err(ApiError::internal)?;
    let to = request.headers_mut();
    to.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    to.insert(header::UPGRADE, protocol.clone());
    for name in REQUEST_HEADERS {
        for value in headers.get_all(&name) {
            to.append(&name, value.clone());
        }
    }
    if let Some(protocols) = without_token(headers) {
        to.insert(header::SEC_WEBSOCKET_PROTOCOL, protocols);
    }
    Ok(request)
}

/// Passes the request's upgrade to the kubelet.
pub(super) async fn proxy(
    kubelets: &Kubelets,
    address: &KubeletAddress,
    path: &str,
    mut request: Request<Incoming>,
    shutdown: Shutdown,
) -> Result<Response<Body>, ApiError> {
    let Some(protocol) = protocol(request.headers()).cloned() else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    let mut sender = kubelets.connect(address).await?;
    let onward = forwarded(path, address, request.method().clone(), request.headers(), &protocol)?;
    let mut response = sender
        .send_request(onward)
        .await
        .map_err(|error| ApiError::internal(format!("error dialing backend: {error}")))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // The connection, which carries the server's own identity, ends with `sender` here: nothing of the client's
        // reaches it any more.
        return Err(refused(response, "pods", path).await);
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let to = answer.headers_mut();
    to.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    to.insert(header::UPGRADE, response.headers().get(header::UPGRADE).cloned().unwrap_or(protocol));
    for name in RESPONSE_HEADERS {
        for value in response.headers().get_all(&name) {
            to.append(&name, value.clone());
        }
    }
    let (client, kubelet) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut response));
    tokio::spawn(async move {
        let copy = async {
            let (client, kubelet) = tokio::try_join!(client, kubelet)?;
            let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
            tokio::io::copy_bidirectional(&mut client, &mut kubelet).await?;
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        };
        // `sender` is held until the end: without it the connection would be taken for unused.
        if let Some(Err(error)) = shutdown.run_until_cancelled(copy).await {
            tracing::debug!(%error, "an upgraded connection ended");
        }
        drop(sender);
    });
    Ok(answer)
}

#[cfg(test)]
#[path = "upgrade/tests.rs"]
mod tests;
