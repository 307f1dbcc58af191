//! The default RBAC policy: cluster roles, bindings and namespaced roles that exist in every cluster.
//!
//! The policy is written as a table: verbs, groups (`core` is the group without a name) and resources as words. `admin`, `edit`
//! and `view` carry the rules their aggregation will give, so that they work before the aggregation controller runs. Roles of
//! controllers are in `controller_policy.rs`; writing them to the store is `reconcile.rs`.
//! Upstream: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::controller_policy;

const RBAC: &str = "rbac.authorization.k8s.io";
/// Objects whose annotation says otherwise are left alone by reconciliation.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";

/// Everything the apiserver makes sure of at its start.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// ClusterRoles.
    pub cluster_roles: Vec<ClusterRole>,
    /// ClusterRoleBindings.
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    /// Roles of kube-system and kube-public.
    pub roles: Vec<Role>,
    /// RoleBindings of kube-system and kube-public.
    pub role_bindings: Vec<RoleBinding>,
}

/// The default policy.
pub fn policy() -> Policy {
    let mut policy = Policy {
        cluster_roles: cluster_roles(),
        cluster_role_bindings: cluster_role_bindings(),
        ..Policy::default()
    };
    for (name, rules) in controller_policy::controllers() {
        let role = format!("system:controller:{name}");
        policy.cluster_roles.push(cluster_role(&role, rules));
        policy.cluster_role_bindings.push(cluster_binding(&role, vec![service_account("kube-system", name)]));
    }
    namespaced(&mut policy);
    policy
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(|word| if word == "core" { String::new() } else { word.to_owned() }).collect()
}

/// A rule on resources.
pub(super) fn rule(verbs: &str, groups: &str, resources: &str) -> PolicyRule {
    PolicyRule {
        verbs: words(verbs),
        api_groups: Some(words(groups)),
        resources: Some(words(resources)),
        ..PolicyRule::default()
    }
}

/// A rule on named objects.
pub(super) fn named(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
    PolicyRule { resource_names: Some(words(names)), ..rule(verbs, groups, resources) }
}

/// What nearly every component needs.
pub(super) fn events() -> PolicyRule {
    rule("create patch update", "core events.k8s.io", "events")
}

fn urls(paths: &str) -> PolicyRule {
    PolicyRule { verbs: words("get"), non_resource_urls: Some(words(paths)), ..PolicyRule::default() }
}

fn meta(namespace: Option<&str>, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(BTreeMap::from([(
            "kubernetes.io/bootstrapping".to_owned(),
            "rbac-defaults".to_owned(),
        )])),
        annotations: Some(BTreeMap::from([(AUTOUPDATE.to_owned(), "true".to_owned())])),
        ..ObjectMeta::default()
    }
}

fn cluster_role(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole { metadata: meta(None, name), rules: Some(rules), aggregation_rule: None }
}

fn label(mut role: ClusterRole, aggregate_to: &str) -> ClusterRole {
    let key = format!("rbac.authorization.k8s.io/aggregate-to-{aggregate_to}");
    role.metadata.labels.get_or_insert_default().insert(key, "true".to_owned());
    role
}

fn aggregated(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    let key = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
    let selector = LabelSelector {
        match_labels: Some(BTreeMap::from([(key, "true".to_owned())])),
        match_expressions: None,
    };
    ClusterRole {
        aggregation_rule: Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) }),
        ..cluster_role(name, rules)
    }
}

fn to_admin() -> Vec<PolicyRule> {
    vec![
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
        rule(READ_WRITE, RBAC, "rolebindings roles"),
    ]
}

fn to_edit() -> Vec<PolicyRule> {
    vec![
        rule(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
        rule("impersonate", "core", "serviceaccounts"),
        rule(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
        rule("create", "core", "pods/eviction"),
        rule(
            WRITE,
            "core",
            "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
             serviceaccounts services services/proxy",
        ),
        rule("create", "core", "serviceaccounts/token"),
        rule(
            WRITE,
            "apps",
            "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets \
             statefulsets/scale",
        ),
        rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
        rule(WRITE, "batch", "cronjobs jobs"),
        rule(
            WRITE,
            "extensions",
            "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets \
             replicasets/scale replicationcontrollers/scale",
        ),
        rule(WRITE, "policy", "poddisruptionbudgets"),
        rule(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
        rule(READ_WRITE, "coordination.k8s.io", "leases"),
        rule(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
    ]
}

fn to_view() -> Vec<PolicyRule> {
    vec![
        rule(
            READ,
            "core",
            "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers \
             replicationcontrollers/scale serviceaccounts services services/status",
        ),
        rule(
            READ,
            "core",
            "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status \
             resourcequotas resourcequotas/status",
        ),
        rule(READ, "core", "namespaces"),
        rule(READ, "discovery.k8s.io", "endpointslices"),
        rule(
            READ,
            "apps",
            "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets \
             replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
        ),
        rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
        rule(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
        rule(
            READ,
            "extensions",
            "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status \
             networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale",
        ),
        rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
        rule(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
        rule(READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
    ]
}

fn cluster_roles() -> Vec<ClusterRole> {
    let (view, edit, admin) = (to_view(), to_edit(), to_admin());
    let everything =
        PolicyRule { verbs: words("*"), non_resource_urls: Some(words("*")), ..PolicyRule::default() };
    let delegation = || {
        vec![
            rule("create", "authentication.k8s.io", "tokenreviews"),
            rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        ]
    };
    let mut roles = vec![
        cluster_role("cluster-admin", vec![rule("*", "*", "*"), everything]),
        aggregated("admin", [admin.clone(), edit.clone(), view.clone()].concat()),
        label(aggregated("edit", [edit.clone(), view.clone()].concat()), "admin"),
        label(aggregated("view", view.clone()), "edit"),
        label(cluster_role("system:aggregate-to-admin", admin), "admin"),
        label(cluster_role("system:aggregate-to-edit", edit), "edit"),
        label(cluster_role("system:aggregate-to-view", view), "view"),
        cluster_role(
            "system:discovery",
            vec![urls(
                "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
            )],
        ),
        cluster_role("system:public-info-viewer", vec![urls("/healthz /livez /readyz /version /version/")]),
        cluster_role(
            "system:monitoring",
            vec![urls(
                "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/* /statusz /flagz",
            )],
        ),
        cluster_role(
            "system:service-account-issuer-discovery",
            vec![urls("/.well-known/openid-configuration /openid/v1/jwks")],
        ),
        cluster_role(
            "system:basic-user",
            vec![
                rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
                rule("create", "authentication.k8s.io", "selfsubjectreviews"),
            ],
        ),
        cluster_role("system:auth-delegator", delegation()),
        cluster_role("system:kube-aggregator", vec![rule(READ, "core", "endpoints services")]),
        cluster_role("system:kube-dns", vec![rule("list watch", "core", "endpoints services")]),
        cluster_role(
            "system:heapster",
            vec![rule(READ, "core", "events namespaces nodes pods"), rule(READ, "extensions", "deployments")],
        ),
        cluster_role(
            "system:kubelet-api-admin",
            vec![
                rule(READ, "core", "nodes"),
                rule("proxy", "core", "nodes"),
                rule(
                    "*",
                    "core",
                    "nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats",
                ),
            ],
        ),
        cluster_role(
            "system:persistent-volume-provisioner",
            vec![
                rule("create delete get list watch", "core", "persistentvolumes"),
                rule("get list update watch", "core", "persistentvolumeclaims"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("watch", "core", "events"),
                events(),
            ],
        ),
        cluster_role(
            "system:volume-scheduler",
            vec![
                rule("get list patch update watch", "core", "persistentvolumes"),
                rule(READ, "storage.k8s.io", "storageclasses"),
                rule("get list patch update watch", "core", "persistentvolumeclaims"),
            ],
        ),
        cluster_role("system:kube-controller-manager", [kube_controller_manager(), delegation()].concat()),
        cluster_role("system:kube-scheduler", [kube_scheduler(), delegation()].concat()),
        cluster_role("system:node", node()),
        cluster_role(
            "system:node-proxier",
            vec![
                rule("list watch", "core", "endpoints services"),
                rule(READ, "core", "nodes"),
                events(),
                rule("list watch", "discovery.k8s.io", "endpointslices"),
                rule("list watch", "networking.k8s.io", "servicecidrs"),
            ],
        ),
        cluster_role(
            "system:node-bootstrapper",
            vec![rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests")],
        ),
        cluster_role(
            "system:node-problem-detector",
            vec![rule("get", "core", "nodes"), rule("patch", "core", "nodes/status"), events()],
        ),
    ];
    roles.extend(certificate_roles());
    roles
}

fn certificate_roles() -> Vec<ClusterRole> {
    let group = "certificates.k8s.io";
    let request = |kind: &str| {
        cluster_role(
            &format!("system:certificates.k8s.io:certificatesigningrequests:{kind}"),
            vec![rule("create", group, &format!("certificatesigningrequests/{kind}"))],
        )
    };
    let approver = |name: &str, signer: &str| {
        cluster_role(
            &format!("system:certificates.k8s.io:{name}"),
            vec![named("approve", group, "signers", &format!("kubernetes.io/{signer}"))],
        )
    };
    vec![
        request("nodeclient"),
        request("selfnodeclient"),
        approver("kube-apiserver-client-approver", "kube-apiserver-client"),
        approver("kube-apiserver-client-kubelet-approver", "kube-apiserver-client-kubelet"),
        approver("kubelet-serving-approver", "kubelet-serving"),
        approver("legacy-unknown-approver", "legacy-unknown"),
    ]
}

fn kube_controller_manager() -> Vec<PolicyRule> {
    let leases = "coordination.k8s.io";
    vec![
        events(),
        rule("create", leases, "leases"),
        named("get update", leases, "leases", "kube-controller-manager"),
        rule("create", "core", "secrets serviceaccounts"),
        rule("delete", "core", "secrets"),
        rule("get", "core", "configmaps namespaces secrets serviceaccounts"),
        rule("update", "core", "secrets serviceaccounts"),
        rule("list watch", "*", "*"),
        rule("create", "core", "serviceaccounts/token"),
    ]
}

fn kube_scheduler() -> Vec<PolicyRule> {
    let leases = "coordination.k8s.io";
    vec![
        events(),
        rule("create", leases, "leases"),
        named("get update", leases, "leases", "kube-scheduler"),
        rule(READ, "core", "nodes"),
        rule("delete get list watch", "core", "pods"),
        rule("create", "core", "bindings pods/binding"),
        rule("patch update", "core", "pods/status"),
        rule(READ, "core", "replicationcontrollers services"),
        rule(READ, "apps extensions", "replicasets"),
        rule(READ, "apps", "statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "core", "persistentvolumeclaims persistentvolumes"),
        rule(READ, "core", "namespaces"),
        rule(READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities volumeattachments"),
        rule(READ, "resource.k8s.io", "deviceclasses resourceclaims resourceslices"),
        rule("patch update", "resource.k8s.io", "resourceclaims"),
        rule("patch update", "resource.k8s.io", "resourceclaims/status"),
        rule("update", "core", "pods/finalizers"),
    ]
}

/// What a node may do as far as RBAC knows: the rules of `system:node`.
pub fn node() -> Vec<PolicyRule> {
    vec![
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
        rule(READ, "core", "services"),
        rule("create get list watch", "core", "nodes"),
        rule("patch update", "core", "nodes/status"),
        rule("patch update", "core", "nodes"),
        rule("create patch update", "core events.k8s.io", "events"),
        rule(READ, "core", "pods"),
        rule("create delete", "core", "pods"),
        rule("patch update", "core", "pods/status"),
        rule("create", "core", "pods/eviction"),
        rule(READ, "core", "configmaps secrets"),
        rule("get", "core", "persistentvolumeclaims persistentvolumes"),
        rule("get", "core", "endpoints"),
        rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
        rule("create delete get patch update", "coordination.k8s.io", "leases"),
        rule("get", "storage.k8s.io", "volumeattachments"),
        rule("create", "core", "serviceaccounts/token"),
        rule("get patch update", "core", "persistentvolumeclaims/status"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule("create delete get patch update", "storage.k8s.io", "csinodes"),
        rule(READ, "node.k8s.io", "runtimeclasses"),
        rule("get", "resource.k8s.io", "resourceclaims"),
        rule(
            "create delete deletecollection get list patch update watch",
            "resource.k8s.io",
            "resourceslices",
        ),
    ]
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(RBAC.to_owned()), kind: kind.to_owned(), name: name.to_owned() }
}

fn group(name: &str) -> Subject {
    Subject {
        api_group: Some(RBAC.to_owned()),
        kind: "Group".to_owned(),
        name: name.to_owned(),
        namespace: None,
    }
}

fn user(name: &str) -> Subject {
    Subject {
        api_group: Some(RBAC.to_owned()),
        kind: "User".to_owned(),
        name: name.to_owned(),
        namespace: None,
    }
}

fn service_account(namespace: &str, name: &str) -> Subject {
    Subject {
        api_group: None,
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
    }
}

fn cluster_binding(role: &str, subjects: Vec<Subject>) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: meta(None, role),
        role_ref: role_ref("ClusterRole", role),
        subjects: (!subjects.is_empty()).then_some(subjects),
    }
}

fn cluster_role_bindings() -> Vec<ClusterRoleBinding> {
    vec![
        cluster_binding("cluster-admin", vec![group("system:masters")]),
        cluster_binding("system:monitoring", vec![group("system:monitoring")]),
        cluster_binding("system:discovery", vec![group("system:authenticated")]),
        cluster_binding("system:basic-user", vec![group("system:authenticated")]),
        cluster_binding(
            "system:public-info-viewer",
            vec![group("system:authenticated"), group("system:unauthenticated")],
        ),
        cluster_binding("system:service-account-issuer-discovery", vec![group("system:serviceaccounts")]),
        cluster_binding("system:node-proxier", vec![user("system:kube-proxy")]),
        cluster_binding("system:kube-controller-manager", vec![user("system:kube-controller-manager")]),
        cluster_binding("system:kube-dns", vec![service_account("kube-system", "kube-dns")]),
        cluster_binding("system:kube-scheduler", vec![user("system:kube-scheduler")]),
        cluster_binding("system:volume-scheduler", vec![user("system:kube-scheduler")]),
        // Nodes get their permissions from the Node authorizer; the binding is kept without subjects.
        cluster_binding("system:node", vec![]),
    ]
}

fn namespaced(policy: &mut Policy) {
    let mut role = |namespace: &str, name: &str, rules: Vec<PolicyRule>| {
        policy.roles.push(Role { metadata: meta(Some(namespace), name), rules: Some(rules) });
    };
    role(
        "kube-system",
        "extension-apiserver-authentication-reader",
        vec![named(READ, "core", "configmaps", "extension-apiserver-authentication")],
    );
    role("kube-system", "system:controller:bootstrap-signer", vec![rule(READ, "core", "secrets")]);
    role(
        "kube-system",
        "system:controller:cloud-provider",
        vec![rule("create get list watch update", "core", "configmaps")],
    );
    role(
        "kube-system",
        "system:controller:token-cleaner",
        vec![rule("get list watch delete", "core", "secrets"), events()],
    );
    for component in ["kube-controller-manager", "kube-scheduler"] {
        role(
            "kube-system",
            &format!("system::leader-locking-{component}"),
            vec![rule("watch", "core", "configmaps"), named("get update", "core", "configmaps", component)],
        );
    }
    role(
        "kube-public",
        "system:controller:bootstrap-signer",
        vec![
            rule(READ, "core", "configmaps"),
            named("update", "core", "configmaps", "cluster-info"),
            events(),
        ],
    );

    let mut bind = |namespace: &str, name: &str, subjects: Vec<Subject>| {
        policy.role_bindings.push(RoleBinding {
            metadata: meta(Some(namespace), name),
            role_ref: role_ref("Role", name),
            subjects: Some(subjects),
        });
    };
    let controller = |name: &str| vec![service_account("kube-system", name)];
    bind("kube-system", "system:controller:bootstrap-signer", controller("bootstrap-signer"));
    bind("kube-system", "system:controller:cloud-provider", controller("cloud-provider"));
    bind("kube-system", "system:controller:token-cleaner", controller("token-cleaner"));
    bind("kube-public", "system:controller:bootstrap-signer", controller("bootstrap-signer"));
    for component in ["kube-controller-manager", "kube-scheduler"] {
        let name = format!("system::leader-locking-{component}");
        let subjects = vec![user(&format!("system:{component}")), service_account("kube-system", component)];
        bind("kube-system", &name, subjects);
    }
    policy.role_bindings.push(RoleBinding {
        metadata: meta(Some("kube-system"), "system::extension-apiserver-authentication-reader"),
        role_ref: role_ref("Role", "extension-apiserver-authentication-reader"),
        subjects: Some(vec![user("system:kube-controller-manager"), user("system:kube-scheduler")]),
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_binding_names_an_existing_role_and_names_are_unique() {
        let policy = policy();
        let roles: BTreeSet<_> =
            policy.cluster_roles.iter().filter_map(|r| r.metadata.name.as_deref()).collect();
        assert_eq!(roles.len(), policy.cluster_roles.len());
        for binding in &policy.cluster_role_bindings {
            assert!(roles.contains(binding.role_ref.name.as_str()), "{}", binding.role_ref.name);
        }
        let namespaced: BTreeSet<_> =
            policy.roles.iter().map(|r| (&r.metadata.namespace, r.metadata.name.as_deref())).collect();
        for binding in &policy.role_bindings {
            assert!(
                namespaced.contains(&(&binding.metadata.namespace, Some(binding.role_ref.name.as_str())))
            );
        }
    }

    #[test]
    fn only_masters_are_bound_to_everything() {
        let bound: Vec<_> = policy()
            .cluster_role_bindings
            .into_iter()
            .filter(|b| b.role_ref.name == "cluster-admin")
            .collect();
        assert_eq!(bound.len(), 1);
        assert_eq!(bound[0].subjects.as_deref(), Some(&[group("system:masters")][..]));
    }

    #[test]
    fn the_unauthenticated_get_public_information_only() {
        let bound: Vec<_> = policy()
            .cluster_role_bindings
            .into_iter()
            .filter(|b| b.subjects.iter().flatten().any(|s| s.name == "system:unauthenticated"))
            .map(|b| b.role_ref.name)
            .collect();
        assert_eq!(bound, ["system:public-info-viewer"]);
    }

    #[test]
    fn view_shows_no_secrets_and_no_roles() {
        let policy = policy();
        let view = policy.cluster_roles.iter().find(|r| r.metadata.name.as_deref() == Some("view")).unwrap();
        for rule in view.rules.iter().flatten() {
            assert!(rule.verbs.iter().all(|v| READ.contains(v.as_str())));
            let resources = rule.resources.as_deref().unwrap();
            assert!(
                !resources.iter().any(|r| r == "secrets" || r == "roles" || r == "*" || r == "pods/exec")
            );
        }
    }

    #[test]
    fn the_roles_of_the_default_policy_are_complete() {
        // Row Q05: 31 roles without those of controllers; row Q07: 38 controllers.
        let (controllers, roles): (Vec<_>, Vec<_>) = policy()
            .cluster_roles
            .into_iter()
            .filter_map(|r| r.metadata.name)
            .partition(|name| name.starts_with("system:controller:"));
        assert_eq!(roles.len(), 31, "{roles:?}");
        assert_eq!(controllers.len(), 38, "{controllers:?}");
    }
}
