//! What a kubelet may do.

use serde_json::json;

use super::super::tests::attributes;
use super::*;
use crate::authn::UserInfo;

fn authorizer() -> NodeAuthorizer {
    let node = NodeAuthorizer::default();
    node.update(|graph| {
        for (name, on, mirror) in [("web-1", "one", false), ("web-2", "two", false), ("etcd-one", "one", true), ("new", "", false)] {
            let annotations = if mirror { json!({"kubernetes.io/config.mirror": "h"}) } else { json!({}) };
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "web", "annotations": annotations},
                "spec": {
                    "nodeName": on, "serviceAccountName": format!("{name}-sa"),
                    "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": format!("{name}-secret")}}]}],
                    "volumes": [
                        {"name": "m", "configMap": {"name": format!("{name}-map")}},
                        {"name": "s", "secret": {"secretName": "shared"}},
                        {"name": "p", "persistentVolumeClaim": {"claimName": format!("{name}-claim")}},
                    ],
                },
            });
            graph.put_pod(&serde_json::from_value(pod).unwrap());
        }
        for (volume, claim) in [("v1", "web-1-claim"), ("v2", "web-2-claim")] {
            let volume = json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
                "spec": {"claimRef": {"namespace": "web", "name": claim}},
            });
            graph.put_volume(&serde_json::from_value(volume).unwrap());
        }
    });
    node
}

fn node(name: &str) -> UserInfo {
    UserInfo {
        name: format!("system:node:{name}"),
        groups: vec!["system:nodes".into()],
        ..UserInfo::default()
    }
}

fn allowed(authorizer: &NodeAuthorizer, attributes: &Attributes<'_>) -> bool {
    matches!(authorizer.decide(attributes), Decision::Allow(_))
}

#[test]
fn objects_of_own_pods_only() {
    let authorizer = authorizer();
    let user = node("one");
    let cases = [
        ("get", "", "secrets", "web", "web-1-secret", true),
        ("list", "", "secrets", "web", "web-1-secret", true),
        ("watch", "", "secrets", "web", "shared", true),
        ("get", "", "secrets", "web", "web-2-secret", false),
        ("get", "", "secrets", "other", "web-1-secret", false),
        ("list", "", "secrets", "web", "", false),
        ("list", "", "secrets", "", "", false),
        ("update", "", "secrets", "web", "web-1-secret", false),
        ("get", "", "secrets", "web", "etcd-one-secret", false),
        ("get", "", "secrets", "web", "new-secret", false),
        ("get", "", "configmaps", "web", "web-1-map", true),
        ("get", "", "configmaps", "web", "web-2-map", false),
        ("get", "", "persistentvolumeclaims", "web", "web-1-claim", true),
        ("patch", "", "persistentvolumeclaims/status", "web", "web-1-claim", true),
        ("patch", "", "persistentvolumeclaims/status", "web", "web-2-claim", false),
        ("list", "", "persistentvolumeclaims", "web", "web-1-claim", false),
        ("get", "", "persistentvolumes", "", "v1", true),
        ("get", "", "persistentvolumes", "", "v2", false),
        ("create", "", "serviceaccounts/token", "web", "web-1-sa", true),
        ("create", "", "serviceaccounts/token", "web", "web-2-sa", false),
        ("create", "", "serviceaccounts/token", "web", "etcd-one-sa", false),
        ("get", "", "serviceaccounts", "web", "web-1-sa", false),
        ("get", "", "pods", "web", "web-1", true),
        ("get", "", "pods", "web", "etcd-one", true),
        ("get", "", "pods", "web", "web-2", false),
    ];
    for (verb, group, resource, namespace, name, expected) in cases {
        let attributes = attributes(&user, verb, group, resource, namespace, name);
        assert_eq!(allowed(&authorizer, &attributes), expected, "{verb} {resource} {namespace}/{name}");
    }
}

#[test]
fn own_node_lease_and_the_roles_rules() {
    let authorizer = authorizer();
    let user = node("one");
    let cases = [
        ("get", "", "nodes", "", "one", true),
        ("get", "", "nodes", "", "two", false),
        ("list", "", "nodes", "", "", false),
        ("create", "", "nodes", "", "", true),
        ("patch", "", "nodes/status", "", "one", true),
        ("delete", "", "nodes", "", "one", false),
        ("get", "", "nodes/proxy", "", "one", false),
        ("update", "coordination.k8s.io", "leases", "kube-node-lease", "one", true),
        ("update", "coordination.k8s.io", "leases", "kube-node-lease", "two", false),
        ("create", "coordination.k8s.io", "leases", "kube-node-lease", "", true),
        ("get", "coordination.k8s.io", "leases", "kube-system", "one", false),
        ("list", "coordination.k8s.io", "leases", "kube-node-lease", "", false),
        ("get", "storage.k8s.io", "csinodes", "", "one", true),
        ("get", "storage.k8s.io", "csinodes", "", "two", false),
        ("list", "", "services", "", "", true),
        ("create", "", "events", "web", "", true),
        ("create", "authentication.k8s.io", "tokenreviews", "", "", true),
        ("create", "", "pods", "web", "", true),
        ("delete", "", "pods", "web", "web-2", true),
        ("patch", "", "pods/status", "web", "web-1", true),
        ("create", "", "pods/eviction", "web", "web-1", true),
        ("create", "", "pods/exec", "web", "web-1", false),
        ("create", "", "pods/binding", "web", "web-1", false),
        ("list", "rbac.authorization.k8s.io", "roles", "", "", false),
        ("list", "", "endpoints", "", "", false),
    ];
    for (verb, group, resource, namespace, name, expected) in cases {
        let attributes = attributes(&user, verb, group, resource, namespace, name);
        assert_eq!(allowed(&authorizer, &attributes), expected, "{verb} {resource} {namespace}/{name}");
    }
}

#[test]
fn field_selectors_confine_lists() {
    let authorizer = authorizer();
    let user = node("one");
    let cases = [
        ("pods", "", Some("spec.nodeName=one"), true),
        ("pods", "", Some("spec.nodeName==one,status.phase!=Failed"), true),
        ("pods", "", Some("spec.nodeName=two"), false),
        ("pods", "", Some("spec.nodeName!=one"), false),
        ("pods", "", Some("status.phase=Running"), false),
        ("pods", "", None, false),
        ("nodes", "", Some("metadata.name=one"), true),
        ("nodes", "", Some("metadata.name=two"), false),
        ("secrets", "web", Some("metadata.name=web-1-secret"), true),
        ("secrets", "web", Some("metadata.name=web-2-secret"), false),
    ];
    for (resource, namespace, field_selector, expected) in cases {
        for verb in ["list", "watch"] {
            let attributes =
                Attributes { field_selector, ..attributes(&user, verb, "", resource, namespace, "") };
            assert_eq!(allowed(&authorizer, &attributes), expected, "{verb} {resource} {field_selector:?}");
        }
    }
}

#[test]
fn relations_end_with_the_last_pod() {
    let authorizer = authorizer();
    let user = node("one");
    let shared = attributes(&user, "get", "", "secrets", "web", "shared");
    authorizer.update(|graph| graph.delete_pod("web", "web-2"));
    assert!(allowed(&authorizer, &shared));
    authorizer.update(|graph| graph.delete_pod("web", "web-1"));
    assert!(!allowed(&authorizer, &shared));
}

#[test]
fn others_are_no_nodes() {
    let authorizer = authorizer();
    let no_group = UserInfo { groups: vec![], ..node("one") };
    let no_name = node("");
    let wrong_name = UserInfo { name: "kubelet".into(), ..node("one") };
    for user in [no_group, no_name, wrong_name] {
        assert!(!allowed(&authorizer, &attributes(&user, "get", "", "nodes", "", "one")));
        assert!(!allowed(&authorizer, &attributes(&user, "list", "", "services", "", "")));
    }
}
