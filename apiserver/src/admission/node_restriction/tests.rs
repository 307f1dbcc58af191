//! Each rule, on create and on update (a patch is an update here, whatever its type).

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::api::storage::v1::CSINode;
use serde_json::{Value, json};

use super::super::tests::Request;
use super::*;
use crate::lookup::fake::Objects;

const USER: &str = "system:node:one";

fn plugin() -> NodeRestriction {
    let objects = Objects::default();
    objects.add(from::<Node>(json!({"metadata": {"name": "one", "uid": "n1"}})));
    for (name, node) in [("mine", "one"), ("theirs", "two")] {
        objects.add(pod(
            json!({"name": name, "uid": format!("{name}-uid")}),
            json!({"nodeName": node, "volumes": [
                {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
                    {"serviceAccountToken": {"path": "v", "audience": "vault"}}]}},
            ]}),
        ));
    }
    NodeRestriction::new(Arc::new(objects))
}

fn from<T: crate::registry::KubeObject>(value: Value) -> T {
    let mut value = value;
    value["apiVersion"] = T::API_VERSION.into();
    value["kind"] = T::KIND.into();
    serde_json::from_value(value).unwrap()
}

fn pod(metadata: Value, spec: Value) -> Pod {
    let mut metadata = metadata;
    let mut spec = spec;
    metadata["namespace"] = "web".into();
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    from(json!({"metadata": metadata, "spec": spec}))
}

fn as_node<'a>(request: Request<'a>) -> Request<'a> {
    request.user(USER, &["system:nodes", "system:authenticated"])
}

/// Asserts that the request is allowed, or refused with a text that contains `refusal`.
async fn expect(request: Request<'_>, refusal: &str, case: &str) {
    match request.admit(&plugin()).await {
        Ok(()) => assert_eq!(refusal, "", "{case}: allowed"),
        Err(error) => assert!(
            !refusal.is_empty() && error.message().contains(refusal),
            "{case}: {} does not contain {refusal:?}",
            error.message()
        ),
    }
}

/// A mirror pod as the kubelet makes it, with one thing changed by a JSON merge patch.
fn mirror(change: &Value) -> Pod {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "etcd-one", "namespace": "kube-system", "annotations": {"kubernetes.io/config.mirror": "h"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "one", "uid": "n1", "controller": true}],
        },
        "spec": {"nodeName": "one", "containers": [{"name": "c"}], "volumes": [{"name": "h", "hostPath": {"path": "/x"}}]},
    });
    merge(&mut value, change);
    serde_json::from_value(value).unwrap()
}

fn merge(target: &mut Value, patch: &Value) {
    match (target.as_object_mut(), patch.as_object()) {
        (Some(target), Some(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *target = patch.clone(),
    }
}

fn owners(changes: &[Value]) -> Value {
    let base = json!({"apiVersion": "v1", "kind": "Node", "name": "one", "uid": "n1", "controller": true});
    let owners: Vec<Value> = changes
        .iter()
        .map(|change| {
            let mut owner = base.clone();
            merge(&mut owner, change);
            owner
        })
        .collect();
    json!({"metadata": {"ownerReferences": owners}})
}

#[tokio::test]
async fn created_pods_are_mirrors_that_refer_to_nothing() {
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        merge(&mut volume, &source);
        json!({"spec": {"volumes": [volume]}})
    };
    let env =
        |list: &str| json!({"spec": {list: [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]}});
    let cases = [
        (json!({}), ""),
        (json!({"metadata": {"annotations": null}}), "can only create mirror pods"),
        (json!({"spec": {"nodeName": "two"}}), "spec.nodeName set to itself"),
        (json!({"spec": {"nodeName": null}}), "spec.nodeName set to itself"),
        (owners(&[]), "owner reference set to itself"),
        (owners(&[json!({}), json!({})]), "a single owner reference"),
        (owners(&[json!({"name": "two"})]), "owner reference set to itself"),
        (owners(&[json!({"kind": "Pod"})]), "owner reference set to itself"),
        (owners(&[json!({"apiVersion": "v2"})]), "owner reference set to itself"),
        (owners(&[json!({"controller": false})]), "a controller owner reference"),
        (owners(&[json!({"blockOwnerDeletion": true})]), "must not set blockOwnerDeletion"),
        (owners(&[json!({"uid": "old"})]), "UID mismatch: expected old got n1"),
        (json!({"spec": {"serviceAccountName": "default"}}), "reference a service account"),
        (json!({"spec": {"serviceAccount": "default"}}), "reference a service account"),
        (env("initContainers"), "reference secrets"),
        (env("ephemeralContainers"), "reference secrets"),
        (json!({"spec": {"imagePullSecrets": [{"name": "s"}]}}), "reference secrets"),
        (volume(json!({"secret": {"secretName": "s"}})), "reference secrets"),
        (volume(json!({"configMap": {"name": "m"}})), "reference configmaps"),
        (volume(json!({"persistentVolumeClaim": {"claimName": "c"}})), "reference persistentvolumeclaims"),
        (volume(json!({"ephemeral": {}})), "reference persistentvolumeclaims"),
        (
            json!({"spec": {"resourceClaims": [{"name": "gpu", "resourceClaimName": "g"}]}}),
            "reference resourceclaims",
        ),
        (
            volume(json!({"projected": {"sources": [{"clusterTrustBundle": {"name": "b", "path": "p"}}]}})),
            "reference clustertrustbundles",
        ),
    ];
    for (change, refusal) in cases {
        let mut pod = mirror(&change);
        let request = as_node(Request::new(Operation::Create, &mut pod).namespace("kube-system"));
        expect(request, refusal, &change.to_string()).await;
    }
}

#[tokio::test]
async fn pods_are_not_updated_and_only_own_ones_deleted() {
    let old = mirror(&json!({}));
    let mut new = old.clone();
    expect(as_node(Request::new(Operation::Update, &mut new).old(&old)), "unexpected operation", "update")
        .await;
    for (node, refusal) in [("one", ""), ("two", "can only delete pods with spec.nodeName set to itself")] {
        let pod = pod(json!({"name": "p"}), json!({"nodeName": node}));
        expect(as_node(Request::delete(&pod).namespace("web").name("p")), refusal, node).await;
    }
    let unbound = pod(json!({"name": "p"}), json!({}));
    expect(as_node(Request::delete(&unbound)), "can only delete", "unbound").await;
    for subresource in ["binding", "ephemeralcontainers", "resize"] {
        let request = Request::new(Operation::Update, &mut new).path::<Pod>(subresource).old(&old);
        expect(as_node(request), "unexpected pod subresource", subresource).await;
    }
}

#[tokio::test]
async fn pod_status_is_the_own_pods_and_nothing_more() {
    let claims = |name: &str| json!({"status": {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": name}]}});
    let cases = [
        (json!({"spec": {"nodeName": "one"}}), json!({"status": {"phase": "Running"}}), ""),
        (
            json!({"spec": {"nodeName": "two"}}),
            json!({}),
            "update pod status for pods with spec.nodeName set to itself",
        ),
        (
            json!({"spec": {"nodeName": "two"}}),
            json!({"spec": {"nodeName": "one"}}),
            "spec.nodeName set to itself",
        ),
        (json!({}), json!({"metadata": {"labels": {"app": "web"}}}), "can not update labels"),
        (
            json!({"metadata": {"labels": {"app": "web"}}}),
            json!({"metadata": {"labels": null}}),
            "can not update labels",
        ),
        (json!({}), claims("other"), "cannot update resource claim statuses"),
        (claims("mine"), claims("other"), "cannot update resource claim statuses"),
    ];
    for (before, change, refusal) in cases {
        let case = format!("{before} {change}");
        let old = mirror(&before);
        let mut both = before.clone();
        merge(&mut both, &change);
        let mut new = mirror(&both);
        expect(
            as_node(Request::new(Operation::Update, &mut new).path::<Pod>("status").old(&old)),
            refusal,
            &case,
        )
        .await;
    }
    let mut new = mirror(&json!({}));
    expect(
        as_node(Request::new(Operation::Create, &mut new).path::<Pod>("status")),
        "unexpected operation",
        "create",
    )
    .await;
}

#[tokio::test]
async fn evictions_of_own_pods() {
    for (name, refusal) in [
        ("mine", ""),
        ("theirs", "can only evict pods"),
        ("gone", "not found"),
        ("", "could not determine pod"),
    ] {
        let mut eviction = Eviction::default();
        let request = Request::new(Operation::Create, &mut eviction)
            .path::<Pod>("eviction")
            .namespace("web")
            .name(name);
        expect(as_node(request), refusal, name).await;
    }
}

/// Each forbidden change of a Node, as (before, after): tried as create of `after` and as update from `before`.
#[tokio::test]
async fn the_node_itself() {
    let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}]}});
    let role = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
    let isolation = json!({"metadata": {"labels": {"x.node-restriction.kubernetes.io/y": "z"}}});
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let cases = [
        (
            "plain",
            json!({}),
            json!({"metadata": {"labels": {"kubernetes.io/hostname": "one", "own": "x"}}}),
            "",
            "",
        ),
        ("owner", json!({}), owner.clone(), "modify ownerReferences", "modify ownerReferences"),
        (
            "owner removed",
            owner.clone(),
            json!({"metadata": {"ownerReferences": null}}),
            "",
            "modify ownerReferences",
        ),
        ("owner kept", owner.clone(), json!({}), "modify ownerReferences", ""),
        ("role", json!({}), role.clone(), "set the following labels: node-role", "modify labels: node-role"),
        ("role kept", role.clone(), json!({}), "set the following labels", ""),
        ("isolation", json!({}), isolation, "set the following labels", "modify labels"),
        ("taint", json!({}), taint.clone(), "", "modify taints"),
        ("untaint", taint, json!({"spec": {"taints": null}}), "", "modify taints"),
    ];
    let node = |changes: &[&Value]| {
        let mut value = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}, "spec": {}});
        changes.iter().for_each(|change| merge(&mut value, change));
        serde_json::from_value::<Node>(value).unwrap()
    };
    for (case, before, change, on_create, on_update) in &cases {
        let (old, mut new) = (node(&[before]), node(&[before, change]));
        expect(as_node(Request::new(Operation::Create, &mut new)), on_create, &format!("{case}: create"))
            .await;
        for subresource in ["", "status"] {
            let request =
                Request::new(Operation::Update, &mut new).path::<Node>(subresource).old(&old).name("one");
            expect(as_node(request), on_update, &format!("{case}: update {subresource}")).await;
        }
    }
    let (mut other, old) = (node(&[&json!({"metadata": {"name": "two"}})]), node(&[]));
    let refusal = "is not allowed to modify node";
    expect(as_node(Request::new(Operation::Create, &mut other)), refusal, "create another").await;
    expect(
        as_node(Request::new(Operation::Update, &mut other).old(&old).name("two")),
        refusal,
        "update another",
    )
    .await;
    expect(as_node(Request::delete(&old).name("two")), refusal, "delete another").await;
}

#[tokio::test]
async fn leases_and_csinodes_of_the_same_name() {
    let named = |name: &str| json!({"metadata": {"name": name}});
    for (namespace, name, refusal) in [
        ("kube-node-lease", "one", ""),
        ("kube-node-lease", "two", "same name as the requesting node"),
        ("kube-system", "one", "can only access leases in the \"kube-node-lease\" system namespace"),
        ("kube-system", "kube-scheduler", "can only access leases"),
    ] {
        for operation in [Operation::Create, Operation::Update] {
            let mut lease: Lease = from(named(name));
            expect(as_node(Request::new(operation, &mut lease).namespace(namespace)), refusal, name).await;
        }
    }
    for (name, refusal) in [("one", ""), ("two", "same name as the requesting node")] {
        let mut csi = CSINode {
            metadata: serde_json::from_value(json!({"name": name})).unwrap(),
            ..CSINode::default()
        };
        expect(as_node(Request::new(Operation::Create, &mut csi)), refusal, name).await;
    }
}

#[tokio::test]
async fn claims_by_status_only() {
    let claim = |spec: &str, status: Value| -> PersistentVolumeClaim {
        from(json!({"metadata": {"name": "c"}, "spec": {"volumeName": spec}, "status": status}))
    };
    let old = claim("v", json!({"phase": "Bound"}));
    for (mut new, refusal) in [
        (claim("v", json!({"phase": "Bound", "capacity": {"storage": "2Gi"}})), ""),
        (claim("w", json!({"phase": "Bound"})), "fields other than status"),
        (claim("v", json!({"phase": "Lost"})), "fields other than status"),
    ] {
        let request =
            Request::new(Operation::Update, &mut new).path::<PersistentVolumeClaim>("status").old(&old);
        expect(as_node(request), refusal, "status").await;
        let request = Request::new(Operation::Update, &mut new).old(&old);
        expect(as_node(request), "may only update PVC status", "main").await;
    }
}

#[tokio::test]
async fn tokens_of_pods_that_run_here() {
    let bound = |reference: Value, audiences: Value| json!({"spec": {"boundObjectRef": reference, "audiences": audiences}});
    let pod = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    let cases = [
        (bound(pod("mine", "mine-uid"), json!([])), ""),
        (bound(pod("mine", "mine-uid"), json!(["vault"])), ""),
        (bound(pod("mine", "mine-uid"), json!(["other"])), "audience \"other\" not found in pod spec volume"),
        (bound(pod("mine", "mine-uid"), json!(["vault", ""])), "0 or 1 audiences"),
        (bound(pod("mine", "old"), json!([])), "does not match the UID in record"),
        (bound(pod("mine", ""), json!([])), "without a uid"),
        (bound(pod("theirs", "theirs-uid"), json!([])), "scheduled on a different node"),
        (bound(pod("gone", "x"), json!([])), "not found"),
        (bound(Value::Null, json!([])), "not bound to a pod"),
        (
            bound(json!({"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "u"}), json!([])),
            "not bound to a pod",
        ),
        (
            bound(json!({"apiVersion": "v1", "kind": "Node", "name": "one", "uid": "n1"}), json!([])),
            "not bound to a pod",
        ),
    ];
    for (value, refusal) in cases {
        let case = value.to_string();
        let mut request: TokenRequest = from(value);
        let request =
            Request::new(Operation::Create, &mut request).path::<ServiceAccount>("token").namespace("web");
        expect(as_node(request), refusal, &case).await;
    }
}

#[tokio::test]
async fn others_are_not_restricted_and_half_nodes_are_refused() {
    let old = mirror(&json!({}));
    let mut pod = old.clone();
    for (user, groups, refusal) in [
        ("kubernetes-admin", &["system:masters"][..], ""),
        ("system:node:one", &["system:authenticated"], ""),
        ("system:node:", &["system:nodes"], "could not determine node from user"),
    ] {
        let request = Request::new(Operation::Update, &mut pod).old(&old).user(user, groups);
        expect(request, refusal, user).await;
    }
    // Resources without a rule are left to authorization.
    let mut map = ConfigMap::default();
    expect(as_node(Request::new(Operation::Create, &mut map)), "", "configmaps").await;
    let mut secret = Secret::default();
    expect(as_node(Request::new(Operation::Create, &mut secret)), "", "secrets").await;
}
