//! Whether a DaemonSet's pod belongs on a node: the scheduler's filters that cannot change by themselves, applied to a
//! pod that does not exist yet. Pure. Upstream: `NodeShouldRunDaemonPod` and pkg/controller/daemon/util.

use apimachinery::{node_affinity, taints};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    PodTemplateSpec, Taint, Toleration,
};

/// Taints that no DaemonSet pod minds: its node may be unfit for others and still needs it.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What is to become of a node's pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// A pod should be started.
    pub should_run: bool,
    /// One that runs may go on.
    pub should_continue: bool,
}

/// The template with the tolerations that every DaemonSet pod has.
pub fn tolerating_template(daemon_set: &DaemonSet) -> PodTemplateSpec {
    let mut template = daemon_set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let spec = template.spec.get_or_insert_default();
    let host_network = spec.host_network.unwrap_or(false);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in TOLERATED.into_iter().chain(host_network.then_some(NETWORK_UNAVAILABLE)) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same = |held: &&mut Toleration| {
            held.key == toleration.key
                && held.effect == toleration.effect
                && held.operator == toleration.operator
        };
        match tolerations.iter_mut().find(same) {
            Some(held) => *held = toleration,
            None => tolerations.push(toleration),
        }
    }
    template
}

/// Judges a node for the pods of `template` (see [`tolerating_template`]).
pub fn fit(template: &PodTemplateSpec, node: &Node) -> Fit {
    let spec = template.spec.clone().unwrap_or_default();
    let name = node.metadata.name.as_deref().unwrap_or("");
    let pinned_elsewhere =
        spec.node_name.as_deref().is_some_and(|pinned| !pinned.is_empty() && pinned != name);
    let pod = Pod { spec: Some(spec), ..Pod::default() };
    if pinned_elsewhere || !node_affinity::required_matches(&pod, node) {
        return Fit { should_run: false, should_continue: false };
    }
    let tolerations = tolerations(pod.spec.as_ref());
    let node_taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let untolerated = |effects: &[&str]| {
        taints::find_untolerated(node_taints, tolerations, |taint: &Taint| {
            effects.contains(&taint.effect.as_str())
        })
        .is_some()
    };
    Fit {
        should_run: !untolerated(&["NoSchedule", "NoExecute"]),
        should_continue: !untolerated(&["NoExecute"]),
    }
}

fn tolerations(spec: Option<&PodSpec>) -> &[Toleration] {
    spec.and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

/// Makes the scheduler bind the pod to this node and no other.
pub fn pin(spec: &mut PodSpec, node: &str) {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    // The template's own terms were honoured when the node was chosen.
    node_affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{daemon_set, node};

    fn tainted(effect: &str, key: &str) -> Node {
        let mut node = node("n", "True");
        node.spec.get_or_insert_default().taints =
            Some(vec![Taint { key: key.into(), effect: effect.into(), ..Taint::default() }]);
        node
    }

    #[test]
    fn taints_selectors_and_names() {
        let runs = Fit { should_run: true, should_continue: true };
        let stays = Fit { should_run: false, should_continue: true };
        let no = Fit { should_run: false, should_continue: false };
        let ds = daemon_set("ds");
        let check = |ds: &DaemonSet, node: &Node, expected: Fit| {
            assert_eq!(fit(&tolerating_template(ds), node), expected, "{:?}", node.spec);
        };
        check(&ds, &node("n", "False"), runs);
        check(&ds, &tainted("NoSchedule", "mine"), stays);
        check(&ds, &tainted("NoExecute", "mine"), no);
        check(&ds, &tainted("PreferNoSchedule", "mine"), runs);
        check(&ds, &tainted("NoExecute", "node.kubernetes.io/unreachable"), runs);
        check(&ds, &tainted("NoSchedule", "node.kubernetes.io/unschedulable"), runs);
        check(&ds, &tainted("NoSchedule", NETWORK_UNAVAILABLE.0), stays);
        let mut host = ds.clone();
        host.spec.as_mut().unwrap().template.spec.as_mut().unwrap().host_network = Some(true);
        check(&host, &tainted("NoSchedule", NETWORK_UNAVAILABLE.0), runs);
        let mut selecting = ds.clone();
        selecting.spec.as_mut().unwrap().template.spec.as_mut().unwrap().node_selector =
            Some([("disk".to_owned(), "ssd".to_owned())].into());
        check(&selecting, &node("n", "True"), no);
        let mut named = ds;
        named.spec.as_mut().unwrap().template.spec.as_mut().unwrap().node_name = Some("other".into());
        check(&named, &node("n", "True"), no);
    }

    #[test]
    fn tolerations_are_added_once() {
        let mut ds = daemon_set("ds");
        ds.spec.as_mut().unwrap().template = tolerating_template(&ds);
        let tolerations = tolerating_template(&ds).spec.unwrap().tolerations.unwrap();
        assert_eq!(tolerations.len(), TOLERATED.len());
    }

    #[test]
    fn pinned_to_one_node() {
        let mut spec = PodSpec::default();
        pin(&mut spec, "n");
        let pod = Pod { spec: Some(spec), ..Pod::default() };
        assert_eq!(node_affinity::pinned_node_name(&pod), Some("n"));
        assert!(node_affinity::required_matches(&pod, &node("n", "True")));
        assert!(!node_affinity::required_matches(&pod, &node("m", "True")));
    }
}
