//! Which lists of the built-in types merge by key under a strategic merge patch, and which types lead to them.
//!
//! Upstream says this with `patchStrategy` and `patchMergeKey` tags on the Go fields; the OpenAPI documents
//! carry it as `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key`. Types are named as in
//! OpenAPI without the `io.k8s.` prefix.

/// How one field of a type takes a strategic merge patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Merge as an object of the named type.
    Object(&'static str),
    /// Merge as an object of the named type; keys not in `$retainKeys` go.
    RetainKeys(&'static str),
    /// Merge a list of objects of the named type by the key.
    List(&'static str, &'static str),
    /// As [`Strategy::List`], and each element may carry `$retainKeys`.
    ListRetainKeys(&'static str, &'static str),
    /// Merge a list of scalars as a set.
    Set,
    /// Replace the whole value.
    Replace,
}

use Strategy::{List, ListRetainKeys, Object, Replace, RetainKeys, Set};

const META: &str = "apimachinery.pkg.apis.meta.v1.ObjectMeta";
const CONDITION: &str = "apimachinery.pkg.apis.meta.v1.Condition";
const TEMPLATE: &str = "api.core.v1.PodTemplateSpec";

/// A type, a field of it, and how the field merges. Fields that are not listed merge as plain objects when
/// they are objects and are replaced otherwise.
pub const TABLE: &[(&str, &str, Strategy)] = &[
    (META, "finalizers", Set),
    (META, "ownerReferences", List("apimachinery.pkg.apis.meta.v1.OwnerReference", "uid")),
    (
        "api.admissionregistration.v1.MutatingWebhook",
        "matchConditions",
        List("api.admissionregistration.v1.MatchCondition", "name"),
    ),
    (
        "api.admissionregistration.v1.MutatingWebhookConfiguration",
        "webhooks",
        List("api.admissionregistration.v1.MutatingWebhook", "name"),
    ),
    (
        "api.admissionregistration.v1.MutatingAdmissionPolicy",
        "spec",
        Object("api.admissionregistration.v1.MutatingAdmissionPolicySpec"),
    ),
    (
        "api.admissionregistration.v1.MutatingAdmissionPolicySpec",
        "matchConditions",
        List("api.admissionregistration.v1.MatchCondition", "name"),
    ),
    (
        "api.admissionregistration.v1.ValidatingAdmissionPolicy",
        "spec",
        Object("api.admissionregistration.v1.ValidatingAdmissionPolicySpec"),
    ),
    (
        "api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
        "matchConditions",
        List("api.admissionregistration.v1.MatchCondition", "name"),
    ),
    (
        "api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
        "variables",
        List("api.admissionregistration.v1.Variable", "name"),
    ),
    (
        "api.admissionregistration.v1.ValidatingWebhook",
        "matchConditions",
        List("api.admissionregistration.v1.MatchCondition", "name"),
    ),
    (
        "api.admissionregistration.v1.ValidatingWebhookConfiguration",
        "webhooks",
        List("api.admissionregistration.v1.ValidatingWebhook", "name"),
    ),
    ("api.apps.v1.DaemonSet", "spec", Object("api.apps.v1.DaemonSetSpec")),
    ("api.apps.v1.DaemonSet", "status", Object("api.apps.v1.DaemonSetStatus")),
    ("api.apps.v1.DaemonSetSpec", "template", Object(TEMPLATE)),
    ("api.apps.v1.DaemonSetStatus", "conditions", List("api.apps.v1.DaemonSetCondition", "type")),
    ("api.apps.v1.Deployment", "spec", Object("api.apps.v1.DeploymentSpec")),
    ("api.apps.v1.Deployment", "status", Object("api.apps.v1.DeploymentStatus")),
    ("api.apps.v1.DeploymentSpec", "strategy", RetainKeys("api.apps.v1.DeploymentStrategy")),
    ("api.apps.v1.DeploymentSpec", "template", Object(TEMPLATE)),
    ("api.apps.v1.DeploymentStatus", "conditions", List("api.apps.v1.DeploymentCondition", "type")),
    ("api.apps.v1.ReplicaSet", "spec", Object("api.apps.v1.ReplicaSetSpec")),
    ("api.apps.v1.ReplicaSet", "status", Object("api.apps.v1.ReplicaSetStatus")),
    ("api.apps.v1.ReplicaSetSpec", "template", Object(TEMPLATE)),
    ("api.apps.v1.ReplicaSetStatus", "conditions", List("api.apps.v1.ReplicaSetCondition", "type")),
    ("api.apps.v1.StatefulSet", "spec", Object("api.apps.v1.StatefulSetSpec")),
    ("api.apps.v1.StatefulSet", "status", Object("api.apps.v1.StatefulSetStatus")),
    ("api.apps.v1.StatefulSetSpec", "template", Object(TEMPLATE)),
    ("api.apps.v1.StatefulSetStatus", "conditions", List("api.apps.v1.StatefulSetCondition", "type")),
    (
        "api.autoscaling.v2.HorizontalPodAutoscaler",
        "status",
        Object("api.autoscaling.v2.HorizontalPodAutoscalerStatus"),
    ),
    (
        "api.autoscaling.v2.HorizontalPodAutoscalerStatus",
        "conditions",
        List("api.autoscaling.v2.HorizontalPodAutoscalerCondition", "type"),
    ),
    ("api.batch.v1.CronJob", "spec", Object("api.batch.v1.CronJobSpec")),
    ("api.batch.v1.CronJobSpec", "jobTemplate", Object("api.batch.v1.JobTemplateSpec")),
    ("api.batch.v1.Job", "spec", Object("api.batch.v1.JobSpec")),
    ("api.batch.v1.Job", "status", Object("api.batch.v1.JobStatus")),
    ("api.batch.v1.JobSpec", "template", Object(TEMPLATE)),
    ("api.batch.v1.JobStatus", "conditions", List("api.batch.v1.JobCondition", "type")),
    ("api.batch.v1.JobTemplateSpec", "metadata", Object(META)),
    ("api.batch.v1.JobTemplateSpec", "spec", Object("api.batch.v1.JobSpec")),
    ("api.core.v1.ComponentStatus", "conditions", List("api.core.v1.ComponentCondition", "type")),
    ("api.core.v1.Container", "env", List("api.core.v1.EnvVar", "name")),
    ("api.core.v1.Container", "ports", List("api.core.v1.ContainerPort", "containerPort")),
    ("api.core.v1.Container", "volumeDevices", List("api.core.v1.VolumeDevice", "devicePath")),
    ("api.core.v1.Container", "volumeMounts", List("api.core.v1.VolumeMount", "mountPath")),
    ("api.core.v1.ContainerStatus", "allocatedResourcesStatus", List("api.core.v1.ResourceStatus", "name")),
    ("api.core.v1.ContainerStatus", "volumeMounts", List("api.core.v1.VolumeMountStatus", "mountPath")),
    ("api.core.v1.EphemeralContainer", "env", List("api.core.v1.EnvVar", "name")),
    ("api.core.v1.EphemeralContainer", "ports", List("api.core.v1.ContainerPort", "containerPort")),
    ("api.core.v1.EphemeralContainer", "volumeDevices", List("api.core.v1.VolumeDevice", "devicePath")),
    ("api.core.v1.EphemeralContainer", "volumeMounts", List("api.core.v1.VolumeMount", "mountPath")),
    ("api.core.v1.Namespace", "status", Object("api.core.v1.NamespaceStatus")),
    ("api.core.v1.NamespaceStatus", "conditions", List("api.core.v1.NamespaceCondition", "type")),
    ("api.core.v1.Node", "spec", Object("api.core.v1.NodeSpec")),
    ("api.core.v1.Node", "status", Object("api.core.v1.NodeStatus")),
    ("api.core.v1.NodeSpec", "podCIDRs", Set),
    ("api.core.v1.NodeStatus", "addresses", List("api.core.v1.NodeAddress", "type")),
    ("api.core.v1.NodeStatus", "conditions", List("api.core.v1.NodeCondition", "type")),
    ("api.core.v1.PersistentVolumeClaim", "status", Object("api.core.v1.PersistentVolumeClaimStatus")),
    (
        "api.core.v1.PersistentVolumeClaimStatus",
        "conditions",
        List("api.core.v1.PersistentVolumeClaimCondition", "type"),
    ),
    ("api.core.v1.Pod", "spec", Object("api.core.v1.PodSpec")),
    ("api.core.v1.Pod", "status", Object("api.core.v1.PodStatus")),
    ("api.core.v1.PodSpec", "containers", List("api.core.v1.Container", "name")),
    ("api.core.v1.PodSpec", "ephemeralContainers", List("api.core.v1.EphemeralContainer", "name")),
    ("api.core.v1.PodSpec", "hostAliases", List("api.core.v1.HostAlias", "ip")),
    ("api.core.v1.PodSpec", "imagePullSecrets", List("api.core.v1.LocalObjectReference", "name")),
    ("api.core.v1.PodSpec", "initContainers", List("api.core.v1.Container", "name")),
    ("api.core.v1.PodSpec", "resourceClaims", ListRetainKeys("api.core.v1.PodResourceClaim", "name")),
    ("api.core.v1.PodSpec", "schedulingGates", List("api.core.v1.PodSchedulingGate", "name")),
    (
        "api.core.v1.PodSpec",
        "topologySpreadConstraints",
        List("api.core.v1.TopologySpreadConstraint", "topologyKey"),
    ),
    ("api.core.v1.PodSpec", "volumes", ListRetainKeys("api.core.v1.Volume", "name")),
    ("api.core.v1.PodStatus", "conditions", List("api.core.v1.PodCondition", "type")),
    ("api.core.v1.PodStatus", "hostIPs", List("api.core.v1.HostIP", "ip")),
    ("api.core.v1.PodStatus", "podIPs", List("api.core.v1.PodIP", "ip")),
    (
        "api.core.v1.PodStatus",
        "resourceClaimStatuses",
        ListRetainKeys("api.core.v1.PodResourceClaimStatus", "name"),
    ),
    ("api.core.v1.PodTemplate", "template", Object(TEMPLATE)),
    (TEMPLATE, "metadata", Object(META)),
    (TEMPLATE, "spec", Object("api.core.v1.PodSpec")),
    ("api.core.v1.ReplicationController", "spec", Object("api.core.v1.ReplicationControllerSpec")),
    ("api.core.v1.ReplicationController", "status", Object("api.core.v1.ReplicationControllerStatus")),
    ("api.core.v1.ReplicationControllerSpec", "template", Object(TEMPLATE)),
    (
        "api.core.v1.ReplicationControllerStatus",
        "conditions",
        List("api.core.v1.ReplicationControllerCondition", "type"),
    ),
    ("api.core.v1.Service", "spec", Object("api.core.v1.ServiceSpec")),
    ("api.core.v1.Service", "status", Object("api.core.v1.ServiceStatus")),
    ("api.core.v1.ServiceAccount", "secrets", List("api.core.v1.ObjectReference", "name")),
    ("api.core.v1.ServiceSpec", "ports", List("api.core.v1.ServicePort", "port")),
    ("api.core.v1.ServiceStatus", "conditions", List(CONDITION, "type")),
    ("api.flowcontrol.v1.FlowSchema", "status", Object("api.flowcontrol.v1.FlowSchemaStatus")),
    (
        "api.flowcontrol.v1.FlowSchemaStatus",
        "conditions",
        List("api.flowcontrol.v1.FlowSchemaCondition", "type"),
    ),
    (
        "api.flowcontrol.v1.PriorityLevelConfiguration",
        "status",
        Object("api.flowcontrol.v1.PriorityLevelConfigurationStatus"),
    ),
    (
        "api.flowcontrol.v1.PriorityLevelConfigurationStatus",
        "conditions",
        List("api.flowcontrol.v1.PriorityLevelConfigurationCondition", "type"),
    ),
    ("api.networking.v1.ServiceCIDR", "status", Object("api.networking.v1.ServiceCIDRStatus")),
    ("api.networking.v1.ServiceCIDRStatus", "conditions", List(CONDITION, "type")),
    ("api.policy.v1.PodDisruptionBudget", "spec", Object("api.policy.v1.PodDisruptionBudgetSpec")),
    ("api.policy.v1.PodDisruptionBudget", "status", Object("api.policy.v1.PodDisruptionBudgetStatus")),
    ("api.policy.v1.PodDisruptionBudgetSpec", "selector", Replace),
    ("api.policy.v1.PodDisruptionBudgetStatus", "conditions", List(CONDITION, "type")),
    ("api.resource.v1.ResourceClaim", "status", Object("api.resource.v1.ResourceClaimStatus")),
    (
        "api.resource.v1.ResourceClaimStatus",
        "reservedFor",
        List("api.resource.v1.ResourceClaimConsumerReference", "uid"),
    ),
    ("api.storage.v1.CSINode", "spec", Object("api.storage.v1.CSINodeSpec")),
    ("api.storage.v1.CSINodeSpec", "drivers", List("api.storage.v1.CSINodeDriver", "name")),
    (
        "kube-aggregator.pkg.apis.apiregistration.v1.APIService",
        "status",
        Object("kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus"),
    ),
    (
        "kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus",
        "conditions",
        List("kube-aggregator.pkg.apis.apiregistration.v1.APIServiceCondition", "type"),
    ),
];

/// The type that a strategic merge patch starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchKind {
    type_name: &'static str,
}

impl PatchKind {
    /// A kind by its API group (`""` for core), version and kind. A kind without rules of its own still
    /// merges its metadata by upstream's rules.
    pub fn for_kind(group: &str, version: &str, kind: &str) -> Self {
        let package = match group {
            "" => "core",
            other => other.split('.').next().unwrap_or_default(),
        };
        let tail = format!(".{package}.{version}.{kind}");
        let found = TABLE.iter().map(|(name, _, _)| *name).find(|name| name.ends_with(&tail));
        Self { type_name: found.unwrap_or_default() }
    }

    pub(super) fn type_name(self) -> &'static str {
        self.type_name
    }
}

/// How `field` of the type merges. `top` is true for the outermost object, whose `metadata` every kind has.
pub(super) fn strategy(type_name: &str, field: &str, top: bool) -> Option<Strategy> {
    if top && field == "metadata" {
        return Some(Object(META));
    }
    TABLE.iter().find(|(name, f, _)| *name == type_name && *f == field).map(|(_, _, s)| *s)
}

/// The OpenAPI extensions of a field: patch strategy and merge key, where it has them. `definition` is the
/// OpenAPI name of the type.
pub fn openapi_extensions(definition: &str, field: &str) -> Option<(&'static str, Option<&'static str>)> {
    match strategy(definition.strip_prefix("io.k8s.").unwrap_or(definition), field, false)? {
        Object(_) => None,
        RetainKeys(_) => Some(("retainKeys", None)),
        List(_, key) => Some(("merge", Some(key))),
        ListRetainKeys(_, key) => Some(("merge,retainKeys", Some(key))),
        Set => Some(("merge", None)),
        Replace => Some(("replace", None)),
    }
}
