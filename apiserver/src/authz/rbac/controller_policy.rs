//! Default ClusterRoles of the controllers in kube-controller-manager: one row each, bound to the service account of the same
//! name in kube-system. Upstream: `bootstrappolicy/controller_policy.go`.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::bootstrap_policy::{events, named, rule};

const READ: &str = "get list watch";

/// Controller name and rules.
pub(super) fn controllers() -> Vec<(&'static str, Vec<PolicyRule>)> {
    [workloads(), replicas(), cluster(), network(), storage(), security()].concat()
}

fn workloads() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let revisions = || rule("create delete get list patch update watch", "apps", "controllerrevisions");
    let pods = || rule("create delete list patch watch", "core", "pods");
    vec![
        (
            "cronjob-controller",
            vec![
                rule("get list update watch", "batch", "cronjobs"),
                rule("create delete get list patch update watch", "batch", "jobs"),
                rule("update", "batch", "cronjobs/status"),
                rule("update", "batch", "cronjobs/finalizers"),
                rule("delete list watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "daemon-set-controller",
            vec![
                rule(READ, "apps extensions", "daemonsets"),
                rule("update", "apps extensions", "daemonsets/status"),
                rule("update", "apps extensions", "daemonsets/finalizers"),
                rule("list watch", "core", "nodes"),
                pods(),
                rule("create", "core", "pods/binding"),
                revisions(),
                events(),
            ],
        ),
        (
            "deployment-controller",
            vec![
                rule("get list update watch", "apps extensions", "deployments"),
                rule("update", "apps extensions", "deployments/status"),
                rule("update", "apps extensions", "deployments/finalizers"),
                rule("create delete get list patch update watch", "apps extensions", "replicasets"),
                rule("get list update watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "disruption-controller",
            vec![
                rule(READ, "apps extensions", "deployments"),
                rule(READ, "apps extensions", "replicasets"),
                rule(READ, "core", "replicationcontrollers"),
                rule(READ, "policy", "poddisruptionbudgets"),
                rule(READ, "apps", "statefulsets"),
                rule("update", "policy", "poddisruptionbudgets/status"),
                rule("patch update", "core", "pods/status"),
                rule("get", "*", "*/scale"),
                events(),
            ],
        ),
        (
            "horizontal-pod-autoscaler",
            vec![
                rule(READ, "autoscaling", "horizontalpodautoscalers"),
                rule("update", "autoscaling", "horizontalpodautoscalers/status"),
                rule("get update", "*", "*/scale"),
                rule("list watch", "core", "pods"),
                rule("list watch", "metrics.k8s.io", "pods"),
                rule(READ, "custom.metrics.k8s.io", "*"),
                rule(READ, "external.metrics.k8s.io", "*"),
                events(),
            ],
        ),
        (
            "job-controller",
            vec![
                rule("get list patch update watch", "batch", "jobs"),
                rule("update", "batch", "jobs/status"),
                rule("update", "batch", "jobs/finalizers"),
                pods(),
                events(),
            ],
        ),
    ]
}

fn replicas() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let revisions = || rule("create delete get list patch update watch", "apps", "controllerrevisions");
    let pods = || rule("create delete list patch watch", "core", "pods");
    vec![
        (
            "replicaset-controller",
            vec![
                rule("get list update watch", "apps extensions", "replicasets"),
                rule("update", "apps extensions", "replicasets/status"),
                rule("update", "apps extensions", "replicasets/finalizers"),
                pods(),
                events(),
            ],
        ),
        (
            "replication-controller",
            vec![
                rule("get list update watch", "core", "replicationcontrollers"),
                rule("update", "core", "replicationcontrollers/status"),
                rule("update", "core", "replicationcontrollers/finalizers"),
                pods(),
                events(),
            ],
        ),
        (
            "statefulset-controller",
            vec![
                rule("list watch", "core", "pods"),
                rule(READ, "apps", "statefulsets"),
                rule("update", "apps", "statefulsets/status"),
                rule("update", "apps", "statefulsets/finalizers"),
                rule("create delete get patch update", "core", "pods"),
                revisions(),
                rule("create get list watch", "core", "persistentvolumeclaims"),
                rule("delete update", "core", "persistentvolumeclaims"),
                rule("update", "core", "pods/finalizers"),
                events(),
            ],
        ),
        ("ttl-after-finished-controller", vec![rule("delete get list watch", "batch", "jobs"), events()]),
    ]
}

fn cluster() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        ("generic-garbage-collector", vec![rule("delete get list patch update watch", "*", "*"), events()]),
        (
            "namespace-controller",
            vec![
                rule("delete get list watch", "core", "namespaces"),
                rule("update", "core", "namespaces/finalize namespaces/status"),
                rule("delete deletecollection get list watch", "*", "*"),
            ],
        ),
        (
            "node-controller",
            vec![
                rule("delete get list patch update watch", "core", "nodes"),
                rule("patch update", "core", "nodes/status"),
                rule("patch update", "core", "pods/status"),
                rule("delete get list watch", "core", "pods"),
                events(),
            ],
        ),
        (
            "pod-garbage-collector",
            vec![
                rule("delete list watch", "core", "pods"),
                rule(READ, "core", "nodes"),
                rule("patch", "core", "pods/status"),
            ],
        ),
        (
            "resourcequota-controller",
            vec![rule("list watch", "*", "*"), rule("update", "core", "resourcequotas/status"), events()],
        ),
        ("ttl-controller", vec![rule("list patch update watch", "core", "nodes"), events()]),
        (
            "resource-claim-controller",
            vec![
                rule(READ, "core", "pods"),
                rule("update", "core", "pods/finalizers"),
                rule("create delete get list watch", "resource.k8s.io", "resourceclaims"),
                rule("patch update", "resource.k8s.io", "resourceclaims resourceclaims/status"),
                rule("patch update", "core", "pods/status"),
                events(),
            ],
        ),
        (
            "device-taint-eviction-controller",
            vec![
                rule("delete get list watch", "core", "pods"),
                rule("patch update", "core", "pods/status"),
                rule(READ, "resource.k8s.io", "deviceclasses devicetaintrules resourceclaims resourceslices"),
                rule("patch update", "resource.k8s.io", "devicetaintrules/status"),
                events(),
            ],
        ),
        (
            "validatingadmissionpolicy-status-controller",
            vec![
                rule(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
                rule(
                    "get patch update",
                    "admissionregistration.k8s.io",
                    "validatingadmissionpolicies/status",
                ),
                events(),
            ],
        ),
    ]
}

fn network() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let slices = || rule("create delete get list update watch", "discovery.k8s.io", "endpointslices");
    vec![
        (
            "endpoint-controller",
            vec![
                rule(READ, "core", "pods services"),
                rule("create delete get list update watch", "core", "endpoints"),
                rule("create", "core", "endpoints/restricted"),
                events(),
            ],
        ),
        (
            "endpointslice-controller",
            vec![
                rule(READ, "core", "nodes pods services"),
                rule("update", "core", "services/finalizers"),
                slices(),
                events(),
            ],
        ),
        (
            "endpointslicemirroring-controller",
            vec![
                rule(READ, "core", "endpoints services"),
                rule("update", "core", "services/finalizers"),
                rule("update", "core", "endpoints/finalizers"),
                slices(),
                events(),
            ],
        ),
        (
            "route-controller",
            vec![rule("list watch", "core", "nodes"), rule("patch", "core", "nodes/status"), events()],
        ),
        (
            "service-controller",
            vec![
                rule(READ, "core", "services"),
                rule("patch update", "core", "services/status"),
                rule("list watch", "core", "nodes"),
                events(),
            ],
        ),
        (
            "service-cidrs-controller",
            vec![
                rule("get list patch update watch", "networking.k8s.io", "servicecidrs"),
                rule("patch update", "networking.k8s.io", "servicecidrs/finalizers"),
                rule("patch update", "networking.k8s.io", "servicecidrs/status"),
                rule(READ, "networking.k8s.io", "ipaddresses"),
                events(),
            ],
        ),
    ]
}

fn storage() -> Vec<(&'static str, Vec<PolicyRule>)> {
    vec![
        (
            "attachdetach-controller",
            vec![
                rule("list watch", "core", "persistentvolumeclaims persistentvolumes"),
                rule(READ, "core", "nodes"),
                rule("patch update", "core", "nodes/status"),
                rule("list watch", "core", "pods"),
                events(),
                rule("create delete get list watch", "storage.k8s.io", "volumeattachments"),
                rule(READ, "storage.k8s.io", "csidrivers csinodes"),
            ],
        ),
        (
            "ephemeral-volume-controller",
            vec![
                rule(READ, "core", "pods"),
                rule("update", "core", "pods/finalizers"),
                rule("create get list watch", "core", "persistentvolumeclaims"),
                events(),
            ],
        ),
        (
            "expand-controller",
            vec![
                rule("get list patch update watch", "core", "persistentvolumes"),
                rule("patch update", "core", "persistentvolumeclaims/status"),
                rule(READ, "core", "persistentvolumeclaims"),
                events(),
            ],
        ),
        (
            "persistent-volume-binder",
            vec![
                rule("create delete get list update watch", "core", "persistentvolumes"),
                rule("update", "core", "persistentvolumes/status"),
                rule("get list update watch", "core", "persistentvolumeclaims"),
                rule("update", "core", "persistentvolumeclaims/status"),
                rule("create delete get list watch", "core", "pods"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("list watch", "core", "nodes"),
                rule("watch", "core", "events"),
                events(),
            ],
        ),
        (
            "pv-protection-controller",
            vec![rule("get list update watch", "core", "persistentvolumes"), events()],
        ),
        (
            "pvc-protection-controller",
            vec![
                rule("get list update watch", "core", "persistentvolumeclaims"),
                rule(READ, "core", "pods"),
                events(),
            ],
        ),
        (
            "selinux-warning-controller",
            vec![
                events(),
                rule(READ, "core", "persistentvolumeclaims persistentvolumes pods"),
                rule(READ, "storage.k8s.io", "csidrivers"),
            ],
        ),
        (
            "volumeattributesclass-protection-controller",
            vec![
                rule(READ, "core", "persistentvolumeclaims persistentvolumes"),
                rule("get list update watch", "storage.k8s.io", "volumeattributesclasses"),
                events(),
            ],
        ),
    ]
}

fn security() -> Vec<(&'static str, Vec<PolicyRule>)> {
    let certificates = "certificates.k8s.io";
    let kubelet_client = "kubernetes.io/kube-apiserver-client-kubelet";
    let signers = "kubernetes.io/legacy-unknown kubernetes.io/kube-apiserver-client \
                   kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving";
    vec![
        (
            "certificate-controller",
            vec![
                rule("delete get list watch", certificates, "certificatesigningrequests"),
                rule(
                    "update",
                    certificates,
                    "certificatesigningrequests/approval certificatesigningrequests/status",
                ),
                named("approve", certificates, "signers", kubelet_client),
                named("sign", certificates, "signers", signers),
                rule("create", "authorization.k8s.io", "subjectaccessreviews"),
                events(),
            ],
        ),
        (
            "clusterrole-aggregation-controller",
            vec![rule("escalate get list patch update watch", "rbac.authorization.k8s.io", "clusterroles")],
        ),
        (
            "legacy-service-account-token-cleaner",
            vec![
                named("get", "core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
                rule("delete patch", "core", "secrets"),
            ],
        ),
        ("root-ca-cert-publisher", vec![rule("create update", "core", "configmaps"), events()]),
        ("service-account-controller", vec![rule("create", "core", "serviceaccounts"), events()]),
    ]
}
