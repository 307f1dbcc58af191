//! What runs: CRI's answers turned into the kubelet's values. The conversions trust nothing: a state, a time or a
//! label that makes no sense becomes "unknown" or "none", never a panic. Upstream's concept: `getPodContainerStatuses`,
//! `GetPods`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;

use futures::future::try_join_all;
use jiff::Timestamp;
use proto::runtime_v1 as v1;

use super::labels::{
    CONTAINER_HASH, CONTAINER_NAME, CONTAINER_RESTART_COUNT, POD_NAME, POD_NAMESPACE, POD_UID, pod_selector,
};
use super::termination;
use super::types::{
    ContainerState, ContainerSummary, RuntimeContainerStatus, RuntimeError, RuntimePodStatus,
    RuntimePodSummary, SandboxState, SandboxStatus, SandboxSummary,
};
use crate::cri;

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Runtimes use 0 for "never".
fn optional_timestamp(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| timestamp(nanos))
}

fn container_state(state: v1::ContainerState) -> ContainerState {
    match state {
        v1::ContainerState::ContainerCreated => ContainerState::Created,
        v1::ContainerState::ContainerRunning => ContainerState::Running,
        v1::ContainerState::ContainerExited => ContainerState::Exited,
        v1::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}

fn sandbox_state(state: v1::PodSandboxState) -> SandboxState {
    match state {
        v1::PodSandboxState::SandboxReady => SandboxState::Ready,
        v1::PodSandboxState::SandboxNotready => SandboxState::NotReady,
    }
}

/// An enum's number from the wire: one that this version doesn't know counts as unknown.
fn state_of(number: i32) -> ContainerState {
    v1::ContainerState::try_from(number).map_or(ContainerState::Unknown, container_state)
}

fn sandbox_state_of(number: i32) -> SandboxState {
    v1::PodSandboxState::try_from(number).map_or(SandboxState::NotReady, sandbox_state)
}

fn label(labels: &HashMap<String, String>, key: &str) -> String {
    labels.get(key).cloned().unwrap_or_default()
}

/// Groups the two listings by pod. Things without a pod's labels are not the kubelet's.
pub(super) fn summarise(
    sandboxes: Vec<v1::PodSandbox>,
    containers: Vec<v1::Container>,
) -> Vec<RuntimePodSummary> {
    let mut pods: BTreeMap<String, RuntimePodSummary> = BTreeMap::new();
    for sandbox in sandboxes {
        let Some(metadata) = sandbox.metadata.filter(|m| !m.uid.is_empty()) else { continue };
        let pod = pods.entry(metadata.uid.clone()).or_insert_with(|| RuntimePodSummary {
            uid: metadata.uid,
            name: metadata.name,
            namespace: metadata.namespace,
            ..Default::default()
        });
        pod.sandboxes.push(SandboxSummary {
            id: sandbox.id,
            attempt: metadata.attempt,
            state: sandbox_state_of(sandbox.state),
            created_at: timestamp(sandbox.created_at),
        });
    }
    for container in containers {
        let uid = label(&container.labels, POD_UID);
        let name = label(&container.labels, CONTAINER_NAME);
        if uid.is_empty() || name.is_empty() {
            continue;
        }
        let pod = pods.entry(uid.clone()).or_insert_with(|| RuntimePodSummary {
            uid,
            name: label(&container.labels, POD_NAME),
            namespace: label(&container.labels, POD_NAMESPACE),
            ..Default::default()
        });
        pod.containers.push(ContainerSummary {
            id: container.id,
            name,
            sandbox_id: container.pod_sandbox_id,
            attempt: container.metadata.map_or(0, |m| m.attempt),
            state: state_of(container.state),
            created_at: timestamp(container.created_at),
        });
    }
    let mut pods: Vec<_> = pods.into_values().collect();
    for pod in &mut pods {
        pod.sandboxes.sort_by_key(|s| std::cmp::Reverse(s.created_at));
        pod.containers.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    }
    pods
}

fn sandbox_status(status: v1::PodSandboxStatus) -> SandboxStatus {
    let options = status.linux.as_ref().and_then(|l| l.namespaces.as_ref()).and_then(|n| n.options.as_ref());
    let host_network = options.is_some_and(|o| o.network() == v1::NamespaceMode::Node);
    let network = status.network.filter(|_| !host_network).unwrap_or_default();
    let texts = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    let ips: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
    SandboxStatus {
        id: status.id,
        attempt: status.metadata.map_or(0, |m| m.attempt),
        state: sandbox_state_of(status.state),
        created_at: timestamp(status.created_at),
        ips,
        host_network,
    }
}

fn container_status(container: &v1::Container, status: v1::ContainerStatus) -> RuntimeContainerStatus {
    let state = state_of(status.state);
    let message = match state {
        ContainerState::Exited => termination::message(&status),
        _ => status.message.clone(),
    };
    let attempt = status.metadata.as_ref().map_or(0, |m| m.attempt);
    let restart_count =
        status.annotations.get(CONTAINER_RESTART_COUNT).and_then(|text| text.parse().ok()).unwrap_or(attempt);
    let image = status.image.unwrap_or_default();
    RuntimeContainerStatus {
        id: status.id,
        name: label(&status.labels, CONTAINER_NAME),
        sandbox_id: container.pod_sandbox_id.clone(),
        restart_count,
        state,
        created_at: timestamp(status.created_at),
        started_at: optional_timestamp(status.started_at),
        finished_at: optional_timestamp(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message,
        image: if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image },
        image_id: status.image_ref,
        spec_hash: status.annotations.get(CONTAINER_HASH).cloned(),
        log_path: PathBuf::from(status.log_path),
    }
}

/// All of one pod: two listings, then a status each, at once. What vanishes in between is left out.
pub(super) async fn pod_status(
    cri: &cri::Client,
    uid: &str,
    name: &str,
    namespace: &str,
) -> Result<RuntimePodStatus, cri::Error> {
    let (sandboxes, containers) = futures::future::try_join(
        cri.list_pod_sandbox(pod_selector(uid)),
        cri.list_containers(pod_selector(uid)),
    )
    .await?;
    let sandboxes = try_join_all(sandboxes.iter().map(|s| gone_is_none(cri.pod_sandbox_status(&s.id))));
    let statuses = try_join_all(containers.iter().map(|c| gone_is_none(cri.container_status(&c.id))));
    let (sandboxes, statuses) = futures::future::try_join(sandboxes, statuses).await?;
    let mut sandboxes: Vec<_> = sandboxes.into_iter().flatten().map(sandbox_status).collect();
    let mut containers: Vec<_> = containers
        .iter()
        .zip(statuses)
        .filter_map(|(container, status)| Some(container_status(container, status?)))
        .collect();
    sandboxes.sort_by_key(|s| std::cmp::Reverse(s.created_at));
    containers.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    Ok(RuntimePodStatus {
        uid: uid.to_owned(),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        sandboxes,
        containers,
    })
}

async fn gone_is_none<T>(call: impl Future<Output = Result<T, cri::Error>>) -> Result<Option<T>, cri::Error> {
    match call.await {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A failed call as the rest of the kubelet sees it.
pub(super) fn runtime_error(endpoint: &str, error: cri::Error) -> RuntimeError {
    match error.code {
        tonic::Code::NotFound => RuntimeError::NotFound(error.message),
        tonic::Code::DeadlineExceeded => RuntimeError::Timeout(error.message),
        tonic::Code::Unavailable => {
            RuntimeError::Unreachable { endpoint: endpoint.to_owned(), message: error.message }
        }
        _ => RuntimeError::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lying_runtime_is_survived() {
        let metadata = |uid: &str| Some(v1::PodSandboxMetadata { uid: uid.to_owned(), ..Default::default() });
        let sandbox = |uid: &str, state: i32, created_at: i64| v1::PodSandbox {
            id: format!("{uid}-{created_at}"),
            metadata: metadata(uid),
            state,
            created_at,
            ..Default::default()
        };
        let pods = summarise(
            vec![
                sandbox("a", 0, 1),
                sandbox("a", 77, i64::MAX),
                sandbox("", 0, 1),
                v1::PodSandbox::default(),
            ],
            vec![v1::Container::default()],
        );
        assert_eq!(pods.len(), 1);
        assert_eq!(
            pods[0].sandboxes[0].state,
            SandboxState::NotReady,
            "newest first, unknown state is not ready"
        );

        let status = v1::ContainerStatus {
            state: 9,
            started_at: -5,
            finished_at: 0,
            exit_code: i32::MIN,
            annotations: HashMap::from([(CONTAINER_RESTART_COUNT.to_owned(), "many".to_owned())]),
            ..Default::default()
        };
        let got = container_status(&v1::Container::default(), status);
        assert_eq!((got.state, got.started_at, got.restart_count), (ContainerState::Unknown, None, 0));
        let ips = sandbox_status(v1::PodSandboxStatus {
            network: Some(v1::PodSandboxNetworkStatus { ip: "not an ip".to_owned(), additional_ips: vec![] }),
            ..Default::default()
        })
        .ips;
        assert!(ips.is_empty());
    }
}
