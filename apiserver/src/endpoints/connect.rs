//! Subresources that connect a client to something in the cluster: logs, exec, attach and port-forward of pods, through the
//! kubelet of the pod's node. Proxying to nodes, services and pods is refused.
//!
//! The server only passes bytes: it checks the request, finds the node, and forwards. It never follows a redirect, and a
//! backend that does not agree to an upgrade is cut off (CVE-2018-1002105, CVE-2020-8559).
//! Upstream: `pkg/registry/core/pod/rest` and `apimachinery/pkg/util/proxy`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;

use super::special::Handler;
use crate::admission::{Attributes, Operation};
use crate::body::Body;
use crate::lookup::{self, Lookup};
use crate::registry::ResourceInfo;
use crate::request::{Query, RequestContext};
use crate::server::ApiContext;

pub mod kubelet;
mod log;
mod target;
mod upgrade;

use kubelet::Kubelets;

const PODS: ResourceInfo = ResourceInfo::new("", "v1", "Pod", "pods", "pod", true);

/// What is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subresource {
    Log,
    Exec,
    Attach,
    PortForward,
}

impl Subresource {
    fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
        }
    }
}

/// A subresource of pods.
#[derive(Debug, Clone)]
struct PodConnection {
    subresource: Subresource,
    lookup: Arc<dyn Lookup>,
    kubelets: Arc<Kubelets>,
}

/// The handlers of all connecting subresources.
pub fn handlers(lookup: &Arc<dyn Lookup>, kubelets: Kubelets) -> Vec<Box<dyn Handler>> {
    let kubelets = Arc::new(kubelets);
    let pods = [Subresource::Log, Subresource::Exec, Subresource::Attach, Subresource::PortForward];
    let mut handlers: Vec<Box<dyn Handler>> = Vec::new();
    for subresource in pods {
        handlers.push(Box::new(PodConnection {
            subresource,
            lookup: lookup.clone(),
            kubelets: kubelets.clone(),
        }));
    }
    for resource in ["nodes", "pods", "services"] {
        handlers.push(Box::new(NoProxy(resource)));
    }
    handlers
}

impl PodConnection {
    async fn connect(
        self,
        api: Arc<ApiContext>,
        ctx: Arc<RequestContext>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, ApiError> {
        let (namespace, name) = (ctx.info.namespace.as_str(), ctx.info.name.as_str());
        let pod = lookup::get::<Pod>(&self.lookup, namespace, name).await?;
        let pod = pod.ok_or_else(|| ApiError::not_found("", "pods", name))?;
        let query = Query::parse(request.uri().query());
        if self.subresource == Subresource::Log {
            return log::serve(&self, &ctx, &pod, &query).await;
        }
        upgrade::authorize(&api, &ctx, request.method()).await?;
        self.admit(&api, &ctx).await?;
        let path = match self.subresource {
            Subresource::PortForward => target::port_forward(&pod, &query)?,
            Subresource::Exec => target::exec(&pod, &query)?,
            _ => target::attach(&pod, &query)?,
        };
        let node = target::node_of(&pod)?;
        let address = self.kubelets.address(&self.lookup, node).await?;
        upgrade::proxy(&self.kubelets, &address, &path, request, api.shutdown.clone()).await
    }

    async fn admit(&self, api: &ApiContext, ctx: &RequestContext) -> Result<(), ApiError> {
        let mut attributes = Attributes {
            operation: Operation::Connect,
            resource: &PODS,
            subresource: self.subresource.name(),
            name: &ctx.info.name,
            namespace: &ctx.info.namespace,
            ctx,
            object: None,
            old_object: None,
            dry_run: false,
        };
        api.store.admission().admit(&mut attributes).await?;
        api.store.admission().validate(&attributes).await
    }
}

impl Handler for PodConnection {
    fn serves(&self) -> (&'static str, &'static str, &'static str) {
        ("", "pods", self.subresource.name())
    }

    fn handle(
        &self,
        api: Arc<ApiContext>,
        ctx: Arc<RequestContext>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Result<Response<Body>, ApiError>> {
        Box::pin(self.clone().connect(api, ctx, request))
    }
}

/// `/proxy` of a resource: not supported, and said so.
#[derive(Debug)]
struct NoProxy(&'static str);

impl Handler for NoProxy {
    fn serves(&self) -> (&'static str, &'static str, &'static str) {
        ("", self.0, "proxy")
    }

    fn handle(
        &self,
        _: Arc<ApiContext>,
        _: Arc<RequestContext>,
        _: Request<Incoming>,
    ) -> BoxFuture<'static, Result<Response<Body>, ApiError>> {
        let message = format!("proxying to {} is not supported by this server", self.0);
        Box::pin(std::future::ready(Err(ApiError::new(501, "NotImplemented", message))))
    }
}
