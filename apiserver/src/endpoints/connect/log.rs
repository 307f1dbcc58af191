//! `GET .../pods/NAME/log`: the kubelet's answer, passed on as it comes.
//!
//! Upstream: `pkg/registry/core/pod/rest/log.go` and `registry/generic/rest/streamer.go`.

use apimachinery::status::ApiError;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;

use super::{PodConnection, target};
use crate::body::Body;
use crate::request::{Query, RequestContext};

/// How much of a kubelet's error is read.
const MAX_ERROR: usize = 2048;

pub(super) async fn serve(
    connection: &PodConnection,
    ctx: &RequestContext,
    pod: &Pod,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    if ctx.info.verb != "get" {
        return Err(ApiError::method_not_allowed());
    }
    let path = target::log(pod, query)?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    if node.is_empty() {
        // Not scheduled yet: there is nothing to say, which is no error.
        return Ok(text(Body::empty()));
    }
    let address = connection.kubelets.address(&connection.lookup, node).await?;
    let mut sender = connection.kubelets.connect(&address).await?;
    let request = Request::get(&path)
        .header(header::HOST, address.authority())
        .body(Body::empty())
        .map_err(ApiError::internal)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| ApiError::internal(format!("error reading from the kubelet: {error}")))?;
    if response.status() != StatusCode::OK {
        return Err(refused(response, "pods/log", &ctx.info.name).await);
    }
    // The connection lives in its own task; `sender` is kept so that it is not closed before the body's end.
    let frames = stream::unfold((response.into_body(), sender), |(mut body, sender)| async move {
        loop {
            return match body.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => Some((data, (body, sender))),
                    Err(_) => continue,
                },
                Err(error) => {
                    tracing::debug!(%error, "a kubelet's log ended early");
                    None
                }
            };
        }
    });
    Ok(text(Body::stream(frames.filter(|data: &Bytes| std::future::ready(!data.is_empty())))))
}

fn text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The kubelet's refusal as an error of ours. Redirects are refusals, too.
pub(super) async fn refused(response: Response<Incoming>, resource: &str, name: &str) -> ApiError {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ERROR).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let message = String::from_utf8_lossy(&body).trim().to_owned();
    match status {
        StatusCode::BAD_REQUEST => ApiError::bad_request(message),
        StatusCode::NOT_FOUND => {
            let message =
                format!("the server could not find the requested resource ({resource} {name}): {message}");
            ApiError::new(404, "NotFound", message)
        }
        status if status.is_client_error() || status.is_server_error() => {
            let message = format!("the kubelet answered {} ({resource} {name}): {message}", status.as_u16());
            ApiError::new(
                status.as_u16(),
                if status.is_server_error() { "InternalError" } else { "" },
                message,
            )
        }
        // Anything else (a redirect, a success that was not asked for) comes from no kubelet that behaves.
        status => ApiError::internal(format!("the kubelet answered {} ({resource} {name})", status.as_u16())),
    }
}
