//! Role based access control: decides over an in-memory [`Index`] of roles and bindings that a watch keeps current; no
//! request reads the store.
//!
//! Upstream: `plugin/pkg/auth/authorizer/rbac`.

use futures::future::BoxFuture;
use k8s_openapi::api::rbac::v1::PolicyRule;
use parking_lot::RwLock;

use super::{Attributes, Authorizer, Decision};
use crate::authn::UserInfo;

pub mod bootstrap_policy;
mod controller_policy;
pub mod escalation;
pub mod feed;
pub mod index;
pub mod reconcile;
pub mod rules;

pub use index::Index;

/// The RBAC authorizer.
#[derive(Debug, Default)]
pub struct Rbac {
    index: RwLock<Index>,
}

impl Rbac {
    /// Changes the index.
    pub fn update<R>(&self, change: impl FnOnce(&mut Index) -> R) -> R {
        change(&mut self.index.write())
    }

    /// The decision, made at once.
    pub fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let index = self.index.read();
        let mut allowed = None;
        let mut missing = Vec::new();
        index.visit(attributes.user, attributes.namespace, |binding, rules| {
            match rules {
                Some(rules) => {
                    if rules.iter().any(|rule| rules::allows(rule, attributes)) {
                        allowed = Some(format!("RBAC: allowed by {binding}"));
                    }
                }
                None => missing.push(binding.missing_role()),
            }
            allowed.is_none()
        });
        if let Some(reason) = allowed {
            return Decision::Allow(reason);
        }
        missing.sort();
        missing.dedup();
        let reason = match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        };
        Decision::NoOpinion(reason)
    }

    /// All rules that apply to a user in a namespace (and, with none, at the cluster scope).
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<PolicyRule> {
        let mut found = Vec::new();
        self.index.read().visit(user, namespace, |_, rules| {
            found.extend(rules.unwrap_or_default().iter().cloned());
            true
        });
        found
    }

    /// The rules of a role that a binding refers to, if it exists.
    pub fn role_rules(&self, kind: &str, namespace: &str, name: &str) -> Option<Vec<PolicyRule>> {
        self.index.read().role(kind, namespace, name).map(<[PolicyRule]>::to_vec)
    }
}

impl Authorizer for Rbac {
    fn authorize<'a>(&'a self, attributes: Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(self.decide(&attributes)))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::super::tests::attributes;
    use super::*;

    fn default_policy() -> Rbac {
        let rbac = Rbac::default();
        let policy = bootstrap_policy::policy();
        rbac.update(|index| {
            policy.cluster_roles.iter().for_each(|role| index.put_cluster_role(role));
            policy.cluster_role_bindings.iter().for_each(|binding| index.put_cluster_role_binding(binding));
            policy.roles.iter().for_each(|role| index.put_role(role));
            policy.role_bindings.iter().for_each(|binding| index.put_role_binding(binding));
        });
        rbac
    }

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.into(),
            groups: groups.iter().map(|&g| g.to_owned()).collect(),
            ..UserInfo::default()
        }
    }

    fn allowed(rbac: &Rbac, attributes: &Attributes<'_>) -> bool {
        matches!(rbac.decide(attributes), Decision::Allow(_))
    }

    #[test]
    fn components_may_do_their_work_and_no_more() {
        let rbac = default_policy();
        let scheduler = user("system:kube-scheduler", &["system:authenticated"]);
        let manager = user("system:kube-controller-manager", &["system:authenticated"]);
        let deployments =
            user("system:serviceaccount:kube-system:deployment-controller", &["system:authenticated"]);
        let elsewhere =
            user("system:serviceaccount:default:deployment-controller", &["system:authenticated"]);
        let node = user("system:node:one", &["system:nodes", "system:authenticated"]);
        let proxy = user("system:kube-proxy", &["system:authenticated"]);
        let cases: [(&UserInfo, &str, &str, &str, &str, &str, bool); 17] = [
            (&scheduler, "create", "", "pods/binding", "web", "a", true),
            (&scheduler, "update", "coordination.k8s.io", "leases", "kube-system", "kube-scheduler", true),
            (
                &scheduler,
                "update",
                "coordination.k8s.io",
                "leases",
                "kube-system",
                "kube-controller-manager",
                false,
            ),
            (&scheduler, "get", "", "secrets", "web", "a", false),
            (&scheduler, "create", "authorization.k8s.io", "subjectaccessreviews", "", "", true),
            (&scheduler, "get", "", "configmaps", "kube-system", "extension-apiserver-authentication", true),
            (&scheduler, "get", "", "configmaps", "default", "extension-apiserver-authentication", false),
            (&manager, "list", "any.io", "things", "", "", true),
            (&manager, "create", "", "serviceaccounts/token", "kube-system", "x", true),
            (&manager, "create", "", "pods", "web", "", false),
            (&deployments, "create", "apps", "replicasets", "web", "", true),
            (&deployments, "create", "", "pods", "web", "", false),
            (&elsewhere, "create", "apps", "replicasets", "web", "", false),
            (&node, "get", "", "secrets", "web", "a", false),
            (&proxy, "watch", "discovery.k8s.io", "endpointslices", "", "", true),
            (&proxy, "watch", "", "secrets", "", "", false),
            (&proxy, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", "", true),
        ];
        for (user, verb, group, resource, namespace, name, expected) in cases {
            let attributes = attributes(user, verb, group, resource, namespace, name);
            assert_eq!(
                allowed(&rbac, &attributes),
                expected,
                "{} {verb} {group}/{resource} {name}",
                user.name
            );
        }
    }

    #[test]
    fn the_anonymous_see_health_and_version_only() {
        let rbac = default_policy();
        let anonymous = UserInfo::anonymous();
        let path =
            |path| Attributes { is_resource: false, path, ..attributes(&anonymous, "get", "", "", "", "") };
        for (url, expected) in [
            ("/healthz", true),
            ("/livez", true),
            ("/readyz", true),
            ("/version", true),
            ("/readyz/etcd", false),
            ("/metrics", false),
            ("/api", false),
            ("/openapi/v2", false),
        ] {
            assert_eq!(allowed(&rbac, &path(url)), expected, "{url}");
        }
        assert!(!allowed(&rbac, &attributes(&anonymous, "list", "", "pods", "default", "")));
    }

    fn binding(namespace: &str, role_kind: &str, role: &str, subject: Subject) -> RoleBinding {
        RoleBinding {
            metadata: ObjectMeta {
                name: Some("b".into()),
                namespace: Some(namespace.into()),
                ..ObjectMeta::default()
            },
            role_ref: RoleRef {
                api_group: Some("rbac.authorization.k8s.io".into()),
                kind: role_kind.into(),
                name: role.into(),
            },
            subjects: Some(vec![subject]),
        }
    }

    fn subject(kind: &str, name: &str) -> Subject {
        Subject { kind: kind.into(), name: name.into(), ..Subject::default() }
    }

    #[test]
    fn bindings_in_a_namespace_hold_there_only_and_end_with_it() {
        let rbac = default_policy();
        let anna = user("anna", &["dev"]);
        let ask = |namespace| attributes(&anna, "delete", "", "pods", namespace, "a");
        let bound = binding("web", "ClusterRole", "edit", subject("Group", "dev"));
        rbac.update(|index| index.put_role_binding(&bound));
        assert!(allowed(&rbac, &ask("web")));
        assert!(!allowed(&rbac, &ask("other")));
        assert!(!allowed(&rbac, &ask("")));
        assert_eq!(
            rbac.decide(&ask("web")),
            Decision::Allow(
                r#"RBAC: allowed by RoleBinding "b/web" of ClusterRole "edit" to Group "dev""#.into()
            )
        );
        rbac.update(|index| index.delete_role_binding("web", "b"));
        assert!(!allowed(&rbac, &ask("web")));
    }

    #[test]
    fn a_changed_binding_forgets_its_old_subjects() {
        let rbac = default_policy();
        let (anna, bert) = (user("anna", &[]), user("bert", &[]));
        rbac.update(|index| {
            index.put_role_binding(&binding("web", "ClusterRole", "view", subject("User", "anna")))
        });
        rbac.update(|index| {
            index.put_role_binding(&binding("web", "ClusterRole", "view", subject("User", "bert")))
        });
        assert!(!allowed(&rbac, &attributes(&anna, "list", "", "pods", "web", "")));
        assert!(allowed(&rbac, &attributes(&bert, "list", "", "pods", "web", "")));
    }

    #[test]
    fn a_binding_to_a_missing_role_allows_nothing_and_says_so() {
        let rbac = default_policy();
        let anna = user("anna", &[]);
        rbac.update(|index| index.put_role_binding(&binding("web", "Role", "gone", subject("User", "anna"))));
        assert_eq!(
            rbac.decide(&attributes(&anna, "list", "", "pods", "web", "")),
            Decision::NoOpinion(r#"RBAC: role.rbac.authorization.k8s.io "gone" not found"#.into())
        );
    }

    #[test]
    fn a_user_with_the_name_of_a_group_is_not_the_group() {
        let rbac = default_policy();
        let impostor = user("system:masters", &["cluster-admin"]);
        assert!(!allowed(&rbac, &attributes(&impostor, "get", "", "secrets", "web", "a")));
        let crb = ClusterRoleBinding {
            metadata: ObjectMeta { name: Some("b".into()), ..ObjectMeta::default() },
            role_ref: RoleRef { api_group: None, kind: "ClusterRole".into(), name: "view".into() },
            subjects: Some(vec![subject("ServiceAccount", "sa")]),
        };
        // A service account without a namespace is nobody.
        rbac.update(|index| index.put_cluster_role_binding(&crb));
        let nobody = user("system:serviceaccount::sa", &[]);
        assert!(!allowed(&rbac, &attributes(&nobody, "list", "", "pods", "web", "")));
    }
}
