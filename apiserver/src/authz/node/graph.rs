//! Which objects the pods on each node refer to.
//!
//! Pure state. A lookup costs one hash; a pod's change costs as much as the pod has references. Secrets that only a
//! PersistentVolume names, and resource claims, are not followed. Upstream: `plugin/pkg/auth/authorizer/node/graph.go`.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use crate::admission::pod_references;

const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// The kinds that a node can be related to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A pod on the node.
    Pod,
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A PersistentVolumeClaim.
    Claim,
    /// The account a pod runs as.
    ServiceAccount,
    /// A PersistentVolume bound to a claim.
    Volume,
    /// A VolumeAttachment to the node.
    VolumeAttachment,
}

type Reference = (Kind, String, String);

#[derive(Debug)]
struct PodEntry {
    node: String,
    references: Vec<Reference>,
}

/// The relations.
#[derive(Debug, Default)]
pub struct Graph {
    pods: HashMap<(String, String), PodEntry>,
    /// For each object, the nodes with pods that refer to it, and how many pods.
    nodes: HashMap<Reference, HashMap<String, usize>>,
    /// Volume → namespace and name of its claim.
    volumes: HashMap<String, (String, String)>,
    /// Attachment → node.
    attachments: HashMap<String, String>,
}

fn owned(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

impl Graph {
    /// Whether a pod on `node` refers to the object.
    pub fn related(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        match kind {
            Kind::VolumeAttachment => self.attachments.get(name).is_some_and(|attached| attached == node),
            Kind::Volume => match self.volumes.get(name) {
                Some((namespace, claim)) => self.related(node, Kind::Claim, namespace, claim),
                None => false,
            },
            _ => {
                let reference = (kind, namespace.to_owned(), name.to_owned());
                self.nodes.get(&reference).is_some_and(|nodes| nodes.contains_key(node))
            }
        }
    }

    /// A pod was made or changed.
    pub fn put_pod(&mut self, pod: &Pod) {
        let namespace = owned(pod.metadata.namespace.as_ref());
        let name = owned(pod.metadata.name.as_ref());
        self.delete_pod(&namespace, &name);
        let Some(spec) = &pod.spec else { return };
        let Some(node) = spec.node_name.clone().filter(|node| !node.is_empty()) else { return };
        let mut references = vec![(Kind::Pod, namespace.clone(), name.clone())];
        // A kubelet makes its mirror pods itself: they must not give it anything.
        let mirror =
            pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR_POD));
        if !mirror {
            let mut add = |kind, name: &str| references.push((kind, namespace.clone(), name.to_owned()));
            pod_references::secrets(spec).into_iter().for_each(|name| add(Kind::Secret, name));
            pod_references::config_maps(spec).into_iter().for_each(|name| add(Kind::ConfigMap, name));
            pod_references::claims(pod).iter().for_each(|name| add(Kind::Claim, name));
            spec.service_account_name.iter().for_each(|name| add(Kind::ServiceAccount, name));
        }
        for reference in &references {
            *self.nodes.entry(reference.clone()).or_default().entry(node.clone()).or_default() += 1;
        }
        self.pods.insert((namespace, name), PodEntry { node, references });
    }

    /// A pod is gone.
    pub fn delete_pod(&mut self, namespace: &str, name: &str) {
        let Some(entry) = self.pods.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        for reference in entry.references {
            let Some(nodes) = self.nodes.get_mut(&reference) else { continue };
            if let Some(count) = nodes.get_mut(&entry.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&entry.node);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(&reference);
            }
        }
    }

    /// Forgets all pods, before a fresh list.
    pub fn clear_pods(&mut self) {
        self.pods.clear();
        self.nodes.clear();
    }

    /// A volume was made or changed.
    pub fn put_volume(&mut self, volume: &PersistentVolume) {
        let name = owned(volume.metadata.name.as_ref());
        match volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) {
            Some(claim) => {
                self.volumes.insert(name, (owned(claim.namespace.as_ref()), owned(claim.name.as_ref())));
            }
            None => {
                self.volumes.remove(&name);
            }
        }
    }

    /// A volume is gone.
    pub fn delete_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    /// Forgets all volumes, before a fresh list.
    pub fn clear_volumes(&mut self) {
        self.volumes.clear();
    }

    /// An attachment was made or changed.
    pub fn put_attachment(&mut self, attachment: &VolumeAttachment) {
        self.attachments.insert(owned(attachment.metadata.name.as_ref()), attachment.spec.node_name.clone());
    }

    /// An attachment is gone.
    pub fn delete_attachment(&mut self, name: &str) {
        self.attachments.remove(name);
    }

    /// Forgets all attachments, before a fresh list.
    pub fn clear_attachments(&mut self) {
        self.attachments.clear();
    }
}
