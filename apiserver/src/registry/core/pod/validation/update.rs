//! What may change of a pod that exists (upstream `ValidatePodUpdate` and its siblings for subresources).

use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};

use super::validate_pod_spec;

const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An ordinary update: images, deadline and additional tolerations.
pub(crate) fn validate_pod_update(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let none = PodSpec::default();
    let (spec, was) = (new.spec.as_ref().unwrap_or(&none), old.spec.as_ref().unwrap_or(&none));
    let path = Path::new("spec");
    validate_pod_spec(spec, &path, &mut errors);
    let init_count = |spec: &PodSpec| spec.init_containers.as_ref().map_or(0, Vec::len);
    let mut shape_changed = false;
    for (field, now, before) in [
        ("containers", spec.containers.len(), was.containers.len()),
        ("initContainers", init_count(spec), init_count(was)),
    ] {
        if now != before {
            let detail = "pod updates may not add or remove containers";
            errors.push(Error::forbidden(&path.child(field), detail));
            shape_changed = true;
        }
    }
    if shape_changed {
        return errors;
    }
    validate_deadline(spec, was, &path, &mut errors);
    validate_gates(spec, was, &path, &mut errors);
    validate_added_tolerations(spec, was, &path, &mut errors);
    let gated = was.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
    if gated {
        validate_node_selector(spec, was, &path, &mut errors);
    }
    let allowed = with_mutable_fields(was, spec, gated);
    if allowed != *spec {
        let detail = format!("{MUTABLE}\n{}", changed_fields(&allowed, spec));
        errors.push(Error::forbidden(&path, detail));
    }
    errors
}

/// The old spec with what an update may change taken from the new one.
fn with_mutable_fields(was: &PodSpec, spec: &PodSpec, gated: bool) -> PodSpec {
    let mut allowed = was.clone();
    for (to, from) in allowed.containers.iter_mut().zip(&spec.containers) {
        to.image.clone_from(&from.image);
    }
    let inits = allowed.init_containers.iter_mut().flatten();
    for (to, from) in inits.zip(spec.init_containers.iter().flatten()) {
        to.image.clone_from(&from.image);
    }
    allowed.active_deadline_seconds = spec.active_deadline_seconds;
    allowed.tolerations.clone_from(&spec.tolerations);
    allowed.scheduling_gates.clone_from(&spec.scheduling_gates);
    let negative = was.termination_grace_period_seconds.is_some_and(|s| s < 0);
    if negative && spec.termination_grace_period_seconds == Some(1) {
        allowed.termination_grace_period_seconds = Some(1);
    }
    if gated {
        allowed.node_selector.clone_from(&spec.node_selector);
        if was.affinity.as_ref().is_none_or(|a| a.node_affinity.is_none()) {
            let node_affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.clone());
            if node_affinity.is_some() {
                allowed.affinity.get_or_insert_default().node_affinity = node_affinity;
            }
        }
    }
    allowed
}

/// The names of the spec's fields that differ, each with both values.
fn changed_fields(before: &PodSpec, after: &PodSpec) -> String {
    let as_map = |spec: &PodSpec| match serde_json::to_value(spec) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (as_map(before), as_map(after));
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut text = String::new();
    for key in keys.into_iter().filter(|key| before.get(*key) != after.get(*key)) {
        for (sign, side) in [('-', &before), ('+', &after)] {
            if let Some(value) = side.get(key) {
                text.push_str(&format!("{sign} {key}: {value}\n"));
            }
        }
    }
    text
}

fn validate_deadline(spec: &PodSpec, was: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let Some(before) = was.active_deadline_seconds else { return };
    let path = path.child("activeDeadlineSeconds");
    match spec.active_deadline_seconds {
        None => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(Error::invalid(&path, serde_json::Value::Null, detail));
        }
        Some(now) if now > before => {
            let detail = "must be less than or equal to previous value";
            errors.push(Error::invalid(&path, now, detail));
        }
        Some(_) => {}
    }
}

fn validate_gates(spec: &PodSpec, was: &PodSpec, path: &Path, errors: &mut ErrorList) {
    for gate in spec.scheduling_gates.iter().flatten() {
        if !was.scheduling_gates.iter().flatten().any(|g| g.name == gate.name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.push(Error::forbidden(&path.child("schedulingGates"), detail));
        }
    }
}

fn validate_added_tolerations(spec: &PodSpec, was: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let now = spec.tolerations.as_deref().unwrap_or_default();
    // Only how long an existing one holds may change.
    let kept = was.tolerations.iter().flatten().all(|before| {
        now.iter().any(|t| {
            (&t.key, &t.operator, &t.value, &t.effect)
                == (&before.key, &before.operator, &before.value, &before.effect)
        })
    });
    if !kept {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(Error::forbidden(&path.child("tolerations"), detail));
    }
}

fn validate_node_selector(spec: &PodSpec, was: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let now = spec.node_selector.as_ref();
    let kept = was.node_selector.iter().flatten().all(|(k, v)| now.and_then(|n| n.get(k)) == Some(v));
    if !kept {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        let shown = serde_json::json!(now);
        errors.push(Error::invalid(&path.child("nodeSelector"), shown, detail));
    }
}

/// An update of the status: a container that has ended for good stays ended.
pub(crate) fn validate_pod_status_update(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let none = PodStatus::default();
    let (status, was) = (new.status.as_ref().unwrap_or(&none), old.status.as_ref().unwrap_or(&none));
    let path = Path::new("status");
    let spec = old.spec.as_ref();
    let policy = spec.and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let init = spec.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
    let own_policy = |name: &str, containers: &[Container]| {
        containers.iter().find(|c| c.name == name).and_then(|c| c.restart_policy.clone())
    };
    let main = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    for (field, now, before, containers) in [
        ("containerStatuses", &status.container_statuses, &was.container_statuses, main),
        ("initContainerStatuses", &status.init_container_statuses, &was.init_container_statuses, init),
    ] {
        let now = now.as_deref().unwrap_or_default();
        for (i, before) in before.iter().flatten().enumerate() {
            let policy = own_policy(&before.name, containers).unwrap_or_else(|| policy.to_owned());
            if may_not_start_again(before, &policy) && is_running_again(&before.name, now) {
                let path = path.child(field).index(i).child("state");
                errors.push(Error::forbidden(&path, "may not be transitioned to non-terminated state"));
            }
        }
    }
    errors
}

fn may_not_start_again(status: &ContainerStatus, policy: &str) -> bool {
    let terminated = status.state.as_ref().and_then(|s| s.terminated.as_ref());
    match (terminated, policy) {
        (None, _) | (_, "Always") => false,
        (Some(terminated), "OnFailure") => terminated.exit_code == 0,
        (Some(_), _) => true,
    }
}

fn is_running_again(name: &str, statuses: &[ContainerStatus]) -> bool {
    let status = statuses.iter().find(|s| s.name == name);
    status.is_some_and(|s| s.state.as_ref().is_none_or(|s| s.terminated.is_none()))
}

/// Ephemeral containers are only ever added.
pub(crate) fn validate_ephemeral_containers_update(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    if let Some(spec) = &new.spec {
        validate_pod_spec(spec, &path, &mut errors);
    }
    let of =
        |pod: &'_ Pod| pod.spec.as_ref().and_then(|s| s.ephemeral_containers.clone()).unwrap_or_default();
    let now = of(new);
    let path = path.child("ephemeralContainers");
    for before in of(old) {
        match now.iter().find(|c| c.name == before.name) {
            None => {
                let detail = format!("existing ephemeral containers {:?} may not be removed\n", before.name);
                errors.push(Error::forbidden(&path, detail));
            }
            Some(now) if *now != before => {
                let detail = format!("existing ephemeral containers {:?} may not be changed\n", before.name);
                errors.push(Error::forbidden(&path, detail));
            }
            Some(_) => {}
        }
    }
    errors
}

/// What a resize takes from the proposed spec: resources and resize policies of containers that exist.
pub(crate) fn take_resources(spec: &mut PodSpec, proposed: &PodSpec) {
    let take = |to: &mut Container, from: &[Container]| {
        if let Some(from) = from.iter().find(|c| c.name == to.name) {
            to.resources.clone_from(&from.resources);
            to.resize_policy.clone_from(&from.resize_policy);
        }
    };
    for container in &mut spec.containers {
        take(container, &proposed.containers);
    }
    for container in spec.init_containers.iter_mut().flatten() {
        take(container, proposed.init_containers.as_deref().unwrap_or_default());
    }
    spec.resources.clone_from(&proposed.resources);
}

/// A resize keeps the pod's quality of service.
pub(crate) fn validate_resize(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    if let Some(spec) = &new.spec {
        validate_pod_spec(spec, &path, &mut errors);
    }
    let (now, before) = (apimachinery::pod::qos_class(new), apimachinery::pod::qos_class(old));
    if now != before {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(Error::invalid(&path, now, detail));
    }
    errors
}
