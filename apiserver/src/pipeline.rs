//! The way of a request, in named stages: recover from panics, request info, authenticate, (audit), authorize,
//! (fairness), endpoint. Mutating and validating admission run inside the store, where the object is known.
//!
//! Upstream: `DefaultBuildHandlerChain` in `apiserver/pkg/server/config.go`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::status::ApiError;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;

use crate::authn::impersonation::impersonate;
use crate::authn::{Credentials, UserInfo};
use crate::authz::{Attributes, Decision};
use crate::body::Body;
use crate::endpoints::{self, respond};
use crate::grpc;
use crate::non_resource;
use crate::request::{Query, RequestContext, RequestInfo};
use crate::server::{ApiContext, Connection};

/// What a request that is not long-running may take (`--request-timeout`).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Answers one request.
pub async fn handle(
    api: Arc<ApiContext>,
    connection: Connection,
    request: Request<Incoming>,
) -> Response<Body> {
    let started = Instant::now();
    let query = Query::parse(request.uri().query());
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let audit_id = audit_id(request.headers());
    let measured = api.metrics.begin(&info);
    let is_call = grpc::is_call(&request);
    let stages = staged(&api, &connection, info, &query, audit_id.clone(), request);
    let mut response = match AssertUnwindSafe(stages).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) if is_call => grpc::refusal(&error),
        Ok(Err(error)) => respond::error(&error),
        Err(panic) => {
            tracing::error!(panic = panic_text(&*panic), audit_id, "request handler panicked");
            respond::error(&ApiError::internal(
                "This request caused apiserver to panic. Look in the logs for details.",
            ))
        }
    };
    if let Ok(mut value) = HeaderValue::from_str(&audit_id) {
        // No secret, but never the same twice: HPACK must not look for it, nor remember it.
        value.set_sensitive(true);
        response.headers_mut().insert(AUDIT_ID, value);
    }
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    measured.end(response.status(), started.elapsed());
    response
}

pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown")
}

/// The client's audit id, if it is usable, or a new one.
fn audit_id(headers: &HeaderMap) -> String {
    let given =
        headers.get(AUDIT_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty() && id.len() <= 64);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

async fn staged(
    api: &Arc<ApiContext>,
    connection: &Connection,
    info: RequestInfo,
    query: &Query,
    audit_id: String,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let user = authenticate(api, connection, request.headers()).await?;
    let user = impersonate(&*api.authorizer, user, request.headers()).await?;
    let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let ctx = Arc::new(RequestContext::new(info, user, audit_id, agent.to_owned()));
    // The audit stage goes here: it sees the user and every outcome after it.
    if grpc::is_call(&request) {
        return grpc::serve(api, &ctx, request).await;
    }
    authorize(api, &ctx).await?;
    // The fairness stage goes here: it queues by user and resource before any work is done.
    let long_running = ctx.info.is_long_running();
    let answer = dispatch(api, &ctx, query, request);
    let mut response = if long_running {
        answer.await?
    } else {
        match tokio::time::timeout(deadline(query)?, answer).await {
            Ok(answer) => answer?,
            Err(_) => {
                return Err(ApiError::timeout("request did not complete within the allotted timeout", 0));
            }
        }
    };
    respond::add_warnings(&mut response, ctx.take_warnings());
    Ok(response)
}

/// The time that a request may take: the client's `timeout`, if it gives one that is shorter than the server's.
fn deadline(query: &Query) -> Result<Duration, ApiError> {
    let Some(text) = query.text("timeout") else { return Ok(REQUEST_TIMEOUT) };
    let asked = component_base::duration::parse(text).map_err(|error| {
        ApiError::bad_request(format!("invalid timeout specified in the request URL - {error}"))
    })?;
    Ok(if asked.is_zero() { REQUEST_TIMEOUT } else { asked.min(REQUEST_TIMEOUT) })
}

async fn authenticate(
    api: &ApiContext,
    connection: &Connection,
    headers: &HeaderMap,
) -> Result<Arc<UserInfo>, ApiError> {
    let credentials = Credentials { headers, peer: connection.peer.as_deref() };
    match api.authenticator.authenticate(credentials).await {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(ApiError::unauthorized()),
        Err(error) => {
            tracing::warn!(address = %connection.address, %error, "unable to authenticate the request");
            Err(ApiError::unauthorized())
        }
    }
}

/// Whether the user may do what the request is.
pub async fn authorize(api: &ApiContext, ctx: &RequestContext) -> Result<(), ApiError> {
    allowed(api, Attributes::of(&ctx.user, &ctx.info)).await
}

/// 403, unless the authorizer allows it.
pub async fn allowed(api: &ApiContext, attributes: Attributes<'_>) -> Result<(), ApiError> {
    match api.authorizer.authorize(attributes).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            Err(crate::authz::forbidden(&attributes, &reason))
        }
    }
}

async fn dispatch(
    api: &Arc<ApiContext>,
    ctx: &Arc<RequestContext>,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    if ctx.info.is_resource {
        endpoints::serve(api, ctx, query, request).await
    } else {
        non_resource::serve(api, query, request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_may_shorten_the_deadline() {
        let deadline = |query: &str| deadline(&Query::parse(Some(query))).map_err(|error| error.code());
        for (query, want) in [
            ("", Ok(REQUEST_TIMEOUT)),
            ("timeout=4s", Ok(Duration::from_secs(4))),
            ("timeout=0s", Ok(REQUEST_TIMEOUT)),
            ("timeout=1h", Ok(REQUEST_TIMEOUT)),
            ("timeout=soon", Err(400)),
            ("timeout=5", Err(400)),
        ] {
            assert_eq!(deadline(query), want, "{query}");
        }
    }
}
