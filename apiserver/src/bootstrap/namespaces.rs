//! The system's namespaces. Upstream: `pkg/controlplane/controller/systemnamespaces` (and `default` of its legacy group).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const NAMES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

/// `kube-system`, `kube-public`, `kube-node-lease` and `default`.
pub fn system() -> impl Iterator<Item = Namespace> {
    NAMES.into_iter().map(|name| {
        let labels = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]);
        let metadata =
            ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
        Namespace { metadata, ..Namespace::default() }
    })
}
