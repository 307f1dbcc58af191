//! Which labels a kubelet may not put on its Node: those of Kubernetes that steer scheduling, but for a known few.
//!
//! Upstream: `getForbiddenLabels` and `kubelet/pkg/apis/well_known_labels.go`.

use std::collections::BTreeMap;

/// Labels of Kubernetes that kubelets set.
const KUBELET_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];
/// Prefixes under which kubelets may set what they like.
const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

type Labels = BTreeMap<String, String>;

/// The keys that differ between `new` and `old` and that a kubelet may not change, sorted.
pub(super) fn forbidden(new: Option<&Labels>, old: Option<&Labels>) -> Vec<String> {
    let empty = Labels::new();
    let (new, old) = (new.unwrap_or(&empty), old.unwrap_or(&empty));
    let mut keys: Vec<String> = new
        .keys()
        .chain(old.keys())
        .filter(|key| new.get(*key) != old.get(*key) && is_forbidden(key))
        .cloned()
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

fn is_forbidden(key: &str) -> bool {
    let Some((namespace, _)) = key.split_once('/') else { return false };
    let under = |domain: &str| {
        namespace == domain || namespace.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
    };
    if under("node-restriction.kubernetes.io") {
        return true;
    }
    let of_kubernetes = under("kubernetes.io") || under("k8s.io");
    of_kubernetes
        && !KUBELET_LABELS.contains(&key)
        && !KUBELET_NAMESPACES.iter().any(|allowed| under(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for (key, expected) in [
            ("plain", false),
            ("example.com/role", false),
            ("kubernetes.io/hostname", false),
            ("topology.kubernetes.io/zone", false),
            ("node.kubernetes.io/anything", false),
            ("sub.kubelet.kubernetes.io/x", false),
            ("node-role.kubernetes.io/control-plane", true),
            ("kubernetes.io/other", true),
            ("x.k8s.io/y", true),
            ("notkubernetes.io/y", false),
            ("node-restriction.kubernetes.io/x", true),
            ("sub.node-restriction.kubernetes.io/x", true),
        ] {
            assert_eq!(is_forbidden(key), expected, "{key}");
        }
    }

    #[test]
    fn only_changes_count() {
        let labels = |value: &str| Labels::from([("node-role.kubernetes.io/x".to_owned(), value.to_owned())]);
        assert!(forbidden(Some(&labels("a")), Some(&labels("a"))).is_empty());
        assert_eq!(forbidden(Some(&labels("a")), Some(&labels("b"))).len(), 1);
        assert_eq!(forbidden(None, Some(&labels("b"))).len(), 1);
        assert_eq!(forbidden(Some(&labels("a")), None).len(), 1);
    }
}
