//! Paths that are no resources: discovery, health, version, metrics, OpenAPI.

use std::sync::Arc;

use apimachinery::status::ApiError;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::body::Body;
use crate::endpoints::negotiation::Format;
use crate::endpoints::respond;
use crate::request::Query;
use crate::server::ApiContext;

/// Index pages that `GET /` lists beside the API groups.
const PATHS: &[&str] =
    &["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];

pub async fn serve(
    api: &Arc<ApiContext>,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let path = request.uri().path().to_owned();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(if known(api, &path) {
            ApiError::method_not_allowed()
        } else {
            ApiError::path_not_found()
        });
    }
    if let Some(answer) = api.health.answer(&path, query).await {
        return Ok(answer);
    }
    match path.trim_end_matches('/') {
        "" => {
            let mut paths: Vec<String> = api.discovery.paths();
            paths.extend(PATHS.iter().map(|path| (*path).to_owned()));
            paths.sort();
            respond::value(StatusCode::OK, Format::Json, &serde_json::json!({ "paths": paths }))
        }
        "/version" => respond::value(StatusCode::OK, Format::Json, &component_base::version::info()),
        "/metrics" => {
            Ok(with_type(component_base::metrics::CONTENT_TYPE, Bytes::from(api.metrics.registry.encode())))
        }
        _ => {
            let page = api.pages.iter().find_map(|page| page(&path, query, request.headers()));
            let answer = page.or_else(|| api.discovery.answer(&path, request.headers()));
            answer.unwrap_or_else(|| Err(ApiError::path_not_found()))
        }
    }
}

fn known(api: &ApiContext, path: &str) -> bool {
    PATHS.contains(&path) || api.discovery.paths().iter().any(|known| known == path)
}

pub(crate) fn with_type(content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
