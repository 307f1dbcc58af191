//! Sums of compute resources over the containers of a pod.
//!
//! Upstream: `k8s.io/component-helpers/resource`: regular containers and sidecars add up, an init container
//! counts with the sidecars started before it, the larger of both phases wins, overhead comes on top.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::quantity::{Quantity, parse_k8s};

/// Amounts by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// The parsed form of an API resource list; a quantity that can't be parsed counts as zero, since the API
/// server refuses it before it is stored.
pub fn parse_list(list: Option<&BTreeMap<String, ApiQuantity>>) -> ResourceList {
    list.into_iter()
        .flatten()
        .map(|(name, quantity)| (name.clone(), parse_k8s(quantity).unwrap_or_default()))
        .collect()
}

/// Adds `other` to `list`.
pub fn add(list: &mut ResourceList, other: &ResourceList) {
    for (name, quantity) in other {
        *list.entry(name.clone()).or_default() += *quantity;
    }
}

/// Raises `list` to at least `other`, resource by resource.
pub fn max(list: &mut ResourceList, other: &ResourceList) {
    for (name, quantity) in other {
        let have = list.entry(name.clone()).or_insert(*quantity);
        if *quantity > *have {
            *have = *quantity;
        }
    }
}

/// True for an init container that keeps running beside the pod (`restartPolicy: Always`).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn sum(spec: &PodSpec, of: impl Fn(&ResourceRequirements) -> ResourceList) -> ResourceList {
    let of = |c: &Container| c.resources.as_ref().map(&of).unwrap_or_default();
    let mut running = ResourceList::new();
    for container in &spec.containers {
        add(&mut running, &of(container));
    }
    let mut sidecars = ResourceList::new();
    let mut starting = ResourceList::new();
    for container in spec.init_containers.iter().flatten() {
        let mut at_once = sidecars.clone();
        add(&mut at_once, &of(container));
        max(&mut starting, &at_once);
        if is_sidecar(container) {
            sidecars = at_once;
        }
    }
    add(&mut running, &sidecars);
    max(&mut running, &starting);
    running
}

/// What the pod asks a node to set aside for it, overhead included. Pod-level requests, where given, replace
/// the sum of the containers'.
pub fn requests(pod: &Pod) -> ResourceList {
    let Some(spec) = &pod.spec else { return ResourceList::new() };
    let mut list = sum(spec, |r| {
        let mut list = parse_list(r.requests.as_ref());
        // A limit without a request stands for the request, as defaulting does.
        for (name, quantity) in parse_list(r.limits.as_ref()) {
            list.entry(name).or_insert(quantity);
        }
        list
    });
    if let Some(resources) = &spec.resources {
        list.extend(parse_list(resources.requests.as_ref()));
    }
    add(&mut list, &parse_list(spec.overhead.as_ref()));
    list
}

/// The most that the pod may use, of the resources that all counted containers limit.
pub fn limits(pod: &Pod) -> ResourceList {
    let Some(spec) = &pod.spec else { return ResourceList::new() };
    let mut list = sum(spec, |r| parse_list(r.limits.as_ref()));
    if let Some(resources) = &spec.resources {
        list.extend(parse_list(resources.limits.as_ref()));
    }
    let overhead = parse_list(spec.overhead.as_ref());
    for (name, quantity) in &mut list {
        if let Some(extra) = overhead.get(name) {
            *quantity += *extra;
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str, sidecar: bool) -> Container {
        let list = BTreeMap::from([("cpu".to_owned(), ApiQuantity(cpu.to_owned()))]);
        Container {
            resources: Some(ResourceRequirements { requests: Some(list), ..ResourceRequirements::default() }),
            restart_policy: sidecar.then(|| "Always".to_owned()),
            ..Container::default()
        }
    }

    #[test]
    fn init_and_sidecar_containers_count_as_upstream() {
        let cpu = |init: Vec<Container>, containers: Vec<Container>| {
            let spec = PodSpec { init_containers: Some(init), containers, ..PodSpec::default() };
            requests(&Pod { spec: Some(spec), ..Pod::default() })["cpu"].to_string()
        };
        let c = |t: &str| container(t, false);
        let s = |t: &str| container(t, true);
        assert_eq!(cpu(vec![], vec![c("1"), c("500m")]), "1500m");
        assert_eq!(cpu(vec![c("2"), c("3")], vec![c("1")]), "3");
        assert_eq!(cpu(vec![s("1")], vec![c("1")]), "2");
        assert_eq!(cpu(vec![s("1"), c("3")], vec![c("1")]), "4");
        assert_eq!(cpu(vec![c("3"), s("1")], vec![c("1")]), "3");
    }
}
