//! DefaultBinder: POSTs a Binding, the one write that a decision is.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kube::Client;
use serde_json::json;

use crate::framework::{Bind, ClusterEvent, Plugin};
use crate::pod_info::PodInfo;

/// Name of the plugin.
pub const NAME: &str = "DefaultBinder";

/// The plugin.
#[derive(Clone)]
pub struct DefaultBinder {
    client: Client,
}

impl std::fmt::Debug for DefaultBinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DefaultBinder").finish_non_exhaustive()
    }
}

impl DefaultBinder {
    /// A binder that speaks through `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, _: &PodInfo, _: &ClusterEvent<'_>) -> bool {
        false
    }
}

impl Bind for DefaultBinder {
    fn bind(&self, pod: Arc<PodInfo>, node: String) -> BoxFuture<'static, Result<(), kube::Error>> {
        let client = self.client.clone();
        async move {
            // The uid makes a namesake that came after this pod refuse the binding.
            let binding = json!({
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"namespace": pod.key.namespace, "name": pod.key.name, "uid": pod.uid},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            let uri = format!("/api/v1/namespaces/{}/pods/{}/binding", pod.key.namespace, pod.key.name);
            let request = http::Request::post(uri)
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(binding.to_string().into_bytes())
                .map_err(kube::Error::HttpError)?;
            client
                .request_status::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>(request)
                .await
                .map(|_| ())
        }
        .boxed()
    }
}
