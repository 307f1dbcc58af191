//! The API's view of a pod (`status`), made from its spec and what the runtime reports: a pure function.
//!
//! It does not write anything; `status_manager` does. Upstream's concept: `generateAPIPodStatus` and
//! `convertToAPIContainerStatuses` in `pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/status/generate.go`.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodIP, PodStatus};

use crate::pod;
use crate::runtime::{RuntimePodStatus, StartError};

mod conditions;
mod containers;
mod phase;
#[cfg(test)]
mod tests;

pub use conditions::{owns_condition, ready_conditions};
pub use phase::phase;

/// What the prober knows of one container.
pub trait Readiness {
    /// Whether the startup probe (if there is one) has succeeded for this container id.
    fn started(&self, pod: &Pod, container_name: &str, container_id: &str) -> bool;
    /// Whether the readiness probe (if there is one) says ready for this container id.
    fn ready(&self, pod: &Pod, container_name: &str, container_id: &str) -> bool;
}

/// What the status is made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The pod as its source gave it.
    pub pod: &'a Pod,
    /// What the runtime reports.
    pub runtime: &'a RuntimePodStatus,
    /// The status as last known: the status manager's, else the apiserver's.
    pub old: &'a PodStatus,
    /// Why containers that should run don't: by container name.
    pub start_errors: &'a HashMap<String, StartError>,
    /// The prober's answers.
    pub readiness: &'a dyn Readiness,
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// `containerd`, as in `containerd://ID`.
    pub runtime_name: &'a str,
    /// Nothing of the pod will run again (it was deleted, evicted, or ended).
    pub is_terminal: bool,
    /// Now.
    pub now: Timestamp,
}

impl std::fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs").field("pod", &pod::format(self.pod)).finish_non_exhaustive()
    }
}

/// Makes the status.
#[must_use]
pub fn generate(inputs: &Inputs<'_>) -> PodStatus {
    let pod = inputs.pod;
    let Some(spec) = pod.spec.as_ref() else { return inputs.old.clone() };
    let mut status = PodStatus {
        init_container_statuses: containers::init_statuses(inputs, spec),
        container_statuses: containers::regular_statuses(inputs, spec),
        ..PodStatus::default()
    };
    let mut new_phase = phase(spec, &status, inputs.is_terminal).to_owned();
    // A pod that has ended never runs again, whatever the runtime says.
    if let Some(old_phase) = inputs.old.phase.as_deref().filter(|p| pod::is_terminal_phase(Some(p))) {
        old_phase.clone_into(&mut new_phase);
        status.reason.clone_from(&inputs.old.reason);
        status.message.clone_from(&inputs.old.message);
    }
    status.phase = Some(new_phase);
    status.qos_class = Some(qos_class(pod, inputs.old));
    status.observed_generation = pod.metadata.generation;
    addresses(inputs, &mut status);
    status.start_time = Some(inputs.old.start_time.clone().unwrap_or_else(|| pod::time(started(inputs))));
    carry_over(inputs.old, &mut status);
    conditions::set(inputs, spec, &mut status);
    status
}

/// When the kubelet first took the pod up: after its own restart, the oldest sandbox remembers.
fn started(inputs: &Inputs<'_>) -> Timestamp {
    inputs.runtime.sandboxes.iter().map(|sandbox| sandbox.created_at).min().unwrap_or(inputs.now)
}

fn qos_class(pod: &Pod, old: &PodStatus) -> String {
    old.qos_class.clone().unwrap_or_else(|| apimachinery::pod::qos_class(pod).to_owned())
}

/// Fields that others write and the kubelet only keeps.
fn carry_over(old: &PodStatus, status: &mut PodStatus) {
    status.nominated_node_name.clone_from(&old.nominated_node_name);
    status.resource_claim_statuses.clone_from(&old.resource_claim_statuses);
    status.extended_resource_claim_status.clone_from(&old.extended_resource_claim_status);
    status.ephemeral_container_statuses.clone_from(&old.ephemeral_container_statuses);
    status.resize.clone_from(&old.resize);
}

fn addresses(inputs: &Inputs<'_>, status: &mut PodStatus) {
    let hosts: Vec<String> = inputs.host_ips.iter().map(ToString::to_string).collect();
    if let Some(first) = hosts.first() {
        status.host_ip = Some(first.clone());
        status.host_ips = Some(hosts.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    }
    let mut ips: Vec<String> = if pod::is_host_network(inputs.pod) {
        hosts
    } else {
        inputs.runtime.ips().iter().map(ToString::to_string).collect()
    };
    if ips.is_empty() {
        // An ended pod keeps showing the address it had.
        ips = inputs.old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    }
    if let Some(first) = ips.first() {
        status.pod_ip = Some(first.clone());
        status.pod_ips = Some(ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect());
    }
}
