//! Keeps the RBAC index equal to the roles and bindings in the store.

use std::sync::Arc;

use component_base::Shutdown;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use tokio::sync::watch;

use super::{Index, Rbac};
use crate::lookup::reflector::{self, Kind, Sink};
use crate::registry::Object;
use crate::store::Store;

/// One of the four resources.
struct Feed {
    rbac: Arc<Rbac>,
    plural: &'static str,
}

impl Sink for Feed {
    fn replace(&self, objects: Vec<Arc<dyn Object>>) {
        self.rbac.update(|index| {
            index.clear_kind(self.plural);
            objects.iter().for_each(|object| put(index, &**object));
        });
    }

    fn put(&self, object: Arc<dyn Object>) {
        self.rbac.update(|index| put(index, &*object));
    }

    fn delete(&self, object: &dyn Object) {
        let meta = object.meta();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default();
        self.rbac.update(|index| match self.plural {
            "clusterroles" => index.delete_cluster_role(name),
            "clusterrolebindings" => index.delete_cluster_role_binding(name),
            "roles" => index.delete_role(namespace, name),
            _ => index.delete_role_binding(namespace, name),
        });
    }
}

fn put(index: &mut Index, object: &dyn Object) {
    if let Some(role) = object.downcast_ref::<ClusterRole>() {
        index.put_cluster_role(role);
    } else if let Some(binding) = object.downcast_ref::<ClusterRoleBinding>() {
        index.put_cluster_role_binding(binding);
    } else if let Some(role) = object.downcast_ref::<Role>() {
        index.put_role(role);
    } else if let Some(binding) = object.downcast_ref::<RoleBinding>() {
        index.put_role_binding(binding);
    }
}

/// Follows the four resources; each receiver turns true when its first list is in.
pub fn start(rbac: &Arc<Rbac>, store: &Arc<Store>, shutdown: &Shutdown) -> Vec<watch::Receiver<bool>> {
    ["clusterroles", "clusterrolebindings", "roles", "rolebindings"]
        .into_iter()
        .map(|plural| {
            let kind = Kind { group: "rbac.authorization.k8s.io", version: "v1", plural };
            let feed = Arc::new(Feed { rbac: rbac.clone(), plural });
            reflector::start(store.clone(), kind, feed, shutdown.clone())
        })
        .collect()
}
