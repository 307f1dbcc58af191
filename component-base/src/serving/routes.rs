//! Which path answers what, and who may ask.

use std::{collections::BTreeMap, fmt, sync::Arc};

use futures::{FutureExt as _, future::BoxFuture};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName},
};
use hyper::body::Incoming;
use serde_json::json;

use super::{
    HealthChecks,
    http_server::{Handler, Peer, ResponseBody, full},
};
use crate::metrics::{self, Registry};

const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// What a daemon serves beside its work.
#[derive(Clone)]
pub struct Endpoints {
    health: HealthChecks,
    metrics: Registry,
    routes: BTreeMap<&'static str, (Access, Handler)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Open,
    Authenticated,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints")
            .field("health", &self.health)
            .field("routes", &self.routes.keys())
            .finish()
    }
}

impl Endpoints {
    /// Health under /healthz, /livez and /readyz, metrics under /metrics.
    #[must_use]
    pub fn new(health: HealthChecks, metrics: Registry) -> Self {
        Self { health, metrics, routes: BTreeMap::new() }
    }

    /// Adds a path that, on a TLS port, only authenticated clients may ask for.
    #[must_use]
    pub fn route(self, path: &'static str, handler: Handler) -> Self {
        self.with(path, Access::Authenticated, handler)
    }

    /// Adds a path that anybody may ask for.
    #[must_use]
    pub fn open_route(self, path: &'static str, handler: Handler) -> Self {
        self.with(path, Access::Open, handler)
    }

    fn with(mut self, path: &'static str, access: Access, handler: Handler) -> Self {
        self.routes.insert(path, (access, handler));
        self
    }
}

/// The handler of a port; without TLS nobody can authenticate, and nobody has to.
pub(super) fn handler(endpoints: Endpoints, tls: bool) -> Handler {
    let endpoints = Arc::new(endpoints);
    Arc::new(move |request, peer| {
        let endpoints = Arc::clone(&endpoints);
        async move { answer(&endpoints, tls, request, peer).await }.boxed()
    })
}

async fn answer(
    endpoints: &Endpoints,
    tls: bool,
    request: Request<Incoming>,
    peer: Peer,
) -> Response<ResponseBody> {
    let path = request.uri().path().to_owned();
    let trimmed = if path.len() > 1 { path.trim_end_matches('/') } else { path.as_str() };
    let may = |access| access == Access::Open || !tls || peer.identity.is_some();
    if let Some((access, handler)) = endpoints.routes.get(trimmed) {
        return if may(*access) { handler(request, peer).await } else { forbidden(request.method(), &path) };
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut parts = trimmed.splitn(3, '/').skip(1);
    match (parts.next().unwrap_or_default(), parts.next()) {
        (endpoint @ ("healthz" | "livez" | "readyz"), only) if reads => {
            let answer = endpoints.health.answer(endpoint, only, request.uri().query()).await;
            text(StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), answer.body)
        }
        ("metrics", None) if reads && may(Access::Authenticated) => {
            let mut response = Response::new(full(endpoints.metrics.encode()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            response
        }
        // Who may not see what there is does not learn what there is not.
        _ if !may(Access::Authenticated) => forbidden(request.method(), &path),
        ("healthz" | "livez" | "readyz" | "metrics", _) if !reads => {
            text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".to_owned())
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

fn text(code: StatusCode, body: String) -> Response<ResponseBody> {
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Upstream's answer to a caller whom delegated authorization does not know.
fn forbidden(method: &Method, path: &str) -> Response<ResponseBody> {
    let verb = method.as_str().to_ascii_lowercase();
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("forbidden: User \"system:anonymous\" cannot {verb} path \"{path}\""),
        "reason": "Forbidden",
        "details": {},
        "code": 403,
    });
    let mut response = Response::new(full(status.to_string()));
    *response.status_mut() = StatusCode::FORBIDDEN;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    response
}

/// A route that answers GET with a text computed on the spot, such as /configz or /proxyMode.
pub fn text_route<F, Fut>(content_type: &'static str, body: F) -> Handler
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = String> + Send + 'static,
{
    Arc::new(move |request: Request<Incoming>, _: Peer| -> BoxFuture<'static, Response<ResponseBody>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let refusal = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".to_owned());
            return futures::future::ready(refusal).boxed();
        }
        let body = body();
        async move {
            let mut response = Response::new(full(body.await));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            response
        }
        .boxed()
    })
}
