//! Endpoints that are not generic storage: subresources that connect (log, exec), create something else (token,
//! binding, eviction), or reviews that store nothing. Each is a [`Handler`] under its resource, subresource and verb.

use std::sync::Arc;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;

use crate::body::Body;
use crate::request::RequestContext;
use crate::server::ApiContext;

/// Serves one special endpoint. Authentication and authorization have passed; admission is the handler's duty
/// (`api.admission`), since only it knows its object.
pub trait Handler: Send + Sync {
    /// Which (group, resource, subresource) it serves, e.g. `("", "pods", "log")`;
    /// a review is `("authorization.k8s.io", "subjectaccessreviews", "")`.
    fn serves(&self) -> (&'static str, &'static str, &'static str);

    fn handle(
        &self,
        api: Arc<ApiContext>,
        ctx: Arc<RequestContext>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Result<Response<Body>, ApiError>>;
}
