//! Creates the node's object, or makes an existing one fit. Upstream's concept: `tryRegisterWithAPIServer`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};

use super::status::{Facts, generate};
use super::{NodeOwner, machine};
use crate::config::NodeConfig;
use crate::events::EventType;

const ATTACH_DETACH_ANNOTATION: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// The kubelet's own labels and those of `--node-labels`.
fn labels(config: &NodeConfig) -> BTreeMap<String, String> {
    let architecture = machine::architecture();
    let own = [
        ("kubernetes.io/hostname", config.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture),
    ];
    let mut labels: BTreeMap<_, _> = own.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    labels.extend(config.labels.clone());
    labels
}

fn initial_node(owner: &NodeOwner, facts: &Facts, now: Timestamp) -> Node {
    let config = &owner.config;
    let mut node = Node {
        metadata: ObjectMeta {
            name: Some(config.name.clone()),
            labels: Some(labels(config)),
            annotations: Some([(ATTACH_DETACH_ANNOTATION.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: config.provider_id.clone(),
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            ..NodeSpec::default()
        }),
        ..Node::default()
    };
    node.status = Some(generate(facts, &node.status.take().unwrap_or_default(), now));
    node
}

/// Returns the object as the apiserver has it.
pub(super) async fn register(
    owner: &NodeOwner,
    api: &Api<Node>,
    facts: &Facts,
    now: Timestamp,
) -> Result<Node, kube::Error> {
    let wanted = initial_node(owner, facts, now);
    match api.create(&PostParams::default(), &wanted).await {
        Ok(node) => {
            tracing::info!(node = %owner.config.name, "successfully registered node");
            return Ok(node);
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error),
    }
    let existing = api.get(&owner.config.name).await?;
    tracing::info!(node = %owner.config.name, "node was previously registered");
    announce_reboot(owner, &existing);
    let held = existing.metadata.labels.clone().unwrap_or_default();
    let missing: BTreeMap<_, _> =
        labels(&owner.config).into_iter().filter(|(key, value)| held.get(key) != Some(value)).collect();
    if missing.is_empty() {
        return Ok(existing);
    }
    let body = serde_json::json!({ "metadata": { "labels": missing } });
    api.patch(&owner.config.name, &PatchParams::default(), &Patch::Strategic(body)).await
}

fn announce_reboot(owner: &NodeOwner, existing: &Node) {
    let boot_id = machine::boot_id();
    let before =
        existing.status.as_ref().and_then(|s| s.node_info.as_ref()).map(|info| info.boot_id.as_str());
    if before.is_some_and(|before| !before.is_empty() && before != boot_id) {
        let message = format!("Node {} has been rebooted, boot id: {boot_id}", owner.config.name);
        owner.event(EventType::Warning, "Rebooted", &message);
    }
}
