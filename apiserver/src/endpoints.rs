//! The HTTP verbs of the API: one file each, over the generic store. [`serve`] routes a parsed resource request.
//!
//! Upstream: `apiserver/pkg/endpoints` (installer and handlers).

use std::sync::Arc;

use apimachinery::status::ApiError;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;

use crate::body::Body;
use crate::registry::{Resource, UpdateKind};
use crate::request::{Query, RequestContext};
use crate::server::ApiContext;
use crate::store::Target;

pub mod binding;
pub mod connect;
pub mod create;
pub mod delete;
pub mod eviction;
pub mod exchange;
pub mod get;
pub mod list;
pub mod negotiation;
pub mod options;
pub mod patch;
pub mod read_body;
pub mod respond;
pub mod scale;
pub mod special;
pub mod table;
pub mod update;
pub mod watch;
pub mod watch_service;

/// A request for a known resource.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub api: &'a Arc<ApiContext>,
    pub ctx: &'a Arc<RequestContext>,
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
    pub target: Target<'a>,
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("info", &self.ctx.info).finish_non_exhaustive()
    }
}

/// Serves a request whose path is a resource's.
pub async fn serve(
    api: &Arc<ApiContext>,
    ctx: &Arc<RequestContext>,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, ApiError> {
    let info = &ctx.info;
    if let Some(handler) = api.special(&info.group, &info.resource, &info.subresource) {
        return handler.handle(Arc::clone(api), Arc::clone(ctx), request).await;
    }
    let resource = api
        .store
        .resources()
        .get(&info.group, &info.version, &info.resource)
        .ok_or_else(ApiError::path_not_found)?;
    check_scope(resource, ctx)?;
    let (parts, body) = request.into_parts();
    let namespace = if resource.info().namespaced { info.namespace.as_str() } else { "" };
    let target = Target { resource, namespace, name: &info.name };
    let call = Call { api, ctx, query, headers: &parts.headers, target };
    if !info.rest.is_empty() {
        return Err(ApiError::path_not_found());
    }
    // The rarer ones are boxed: every request's future has room for its largest branch.
    match info.subresource.as_str() {
        "" => main(call, body).await,
        "status" if resource.info().status => Box::pin(parent(call, UpdateKind::Status, body)).await,
        "scale" if resource.info().scale => Box::pin(scale::serve(call, body)).await,
        "binding" if is_pod(resource) => Box::pin(binding::create(call, body)).await,
        "eviction" if is_pod(resource) => Box::pin(eviction::create(call, body)).await,
        name => {
            let known =
                resource.info().subresources.iter().find(|sub| sub.name == name && sub.updates_parent);
            match known {
                Some(sub) => Box::pin(parent(call, UpdateKind::Subresource(sub.name), body)).await,
                None => Err(ApiError::path_not_found()),
            }
        }
    }
}

fn is_pod(resource: &dyn Resource) -> bool {
    resource.info().group.is_empty() && resource.info().plural == "pods"
}

/// A namespaced resource needs a namespace except to be listed; a cluster-scoped one takes none, but for a namespace,
/// which is in itself: what a role in one namespace allows must lead to no other.
fn check_scope(resource: &dyn Resource, ctx: &RequestContext) -> Result<(), ApiError> {
    let info = &ctx.info;
    if resource.info().namespaced {
        let across = matches!(info.verb.as_str(), "list" | "watch");
        if info.namespace.is_empty() && !across {
            return Err(if info.verb == "create" || info.verb == "deletecollection" {
                ApiError::method_not_allowed()
            } else {
                ApiError::path_not_found()
            });
        }
    } else if !info.namespace.is_empty() {
        let itself = resource.info().plural == "namespaces" && info.name == info.namespace;
        if !itself {
            return Err(ApiError::path_not_found());
        }
    }
    Ok(())
}

async fn main(call: Call<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    let verb = call.ctx.info.verb.as_str();
    let allowed = |verb: &str| call.target.info().verbs.contains(&verb);
    match verb {
        "get" if allowed(verb) => get::get(call).await,
        "list" if allowed(verb) => list::list(call).await,
        "watch" if allowed(verb) => watch::watch(call).await,
        "create" if allowed(verb) && call.target.name.is_empty() => create::create(call, body).await,
        "update" if allowed(verb) && !call.target.name.is_empty() => {
            update::update(call, UpdateKind::Main, body).await
        }
        "patch" if allowed(verb) && !call.target.name.is_empty() => {
            patch::patch(call, UpdateKind::Main, body).await
        }
        "delete" if allowed(verb) => delete::delete(call, body).await,
        "deletecollection" if allowed(verb) => delete::delete_collection(call, body).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// A subresource that reads and writes its parent object.
async fn parent(call: Call<'_>, kind: UpdateKind<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    match call.ctx.info.verb.as_str() {
        "get" => get::get(call).await,
        "update" => update::update(call, kind, body).await,
        "patch" => patch::patch(call, kind, body).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}
