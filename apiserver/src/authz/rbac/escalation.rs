//! Nobody hands on permissions that he does not have: checks on writes of roles and bindings, lifted by the verbs `escalate`
//! and `bind`.
//!
//! An admission plugin without a switch, since upstream has the checks in the resources themselves
//! (`pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased`).

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};

use super::{Rbac, rules};
use crate::admission::{self, Operation, Plugin};
use crate::authn::{SYSTEM_MASTERS, UserInfo};
use crate::authz::{Attributes, Authorizer, Decision};
use crate::registry::ResourceInfo;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The check.
pub struct Escalation {
    rbac: Arc<Rbac>,
    authorizer: Arc<dyn Authorizer>,
}

impl std::fmt::Debug for Escalation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Escalation").finish_non_exhaustive()
    }
}

/// What a write would grant.
struct Grant<'a> {
    rules: Vec<PolicyRule>,
    /// The verb that allows it regardless, and on what.
    verb: &'static str,
    resource: &'static str,
    name: &'a str,
}

impl Escalation {
    /// Judges by the index in `rbac`; `authorizer` is asked for the lifting verbs.
    pub fn new(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { rbac, authorizer }
    }

    async fn check(&self, attributes: &admission::Attributes<'_>) -> Result<(), ApiError> {
        let user = &attributes.ctx.user;
        if user.groups.iter().any(|group| group == SYSTEM_MASTERS) {
            return Ok(());
        }
        let Some(grant) = self.grant(attributes)? else { return Ok(()) };
        let lifting = Attributes {
            user,
            verb: grant.verb,
            is_resource: true,
            group: GROUP,
            version: "v1",
            resource: grant.resource,
            subresource: "",
            namespace: attributes.namespace,
            name: grant.name,
            path: "",
            label_selector: None,
            field_selector: None,
        };
        if matches!(self.authorizer.authorize(lifting).await, Decision::Allow(_)) {
            return Ok(());
        }
        let own = self.rbac.rules_for(user, attributes.namespace);
        let missing = rules::uncovered(&own, &grant.rules);
        if missing.is_empty() { Ok(()) } else { Err(attributes.forbidden(&problem(user, &missing))) }
    }

    /// The rules that the write grants; `None` if it changes none.
    fn grant<'a>(&self, attributes: &'a admission::Attributes<'_>) -> Result<Option<Grant<'a>>, ApiError> {
        let name = attributes.object_name();
        if let Some(new) = attributes.new_ref::<ClusterRole>() {
            let old = attributes.old::<ClusterRole>();
            if old.is_some_and(|old| old.rules == new.rules && old.aggregation_rule == new.aggregation_rule) {
                return Ok(None);
            }
            let aggregates = new.aggregation_rule.is_some();
            let rules = if aggregates { everything() } else { new.rules.clone().unwrap_or_default() };
            return Ok(Some(Grant { rules, verb: "escalate", resource: "clusterroles", name }));
        }
        if let Some(new) = attributes.new_ref::<Role>() {
            if attributes.old::<Role>().is_some_and(|old| old.rules == new.rules) {
                return Ok(None);
            }
            let rules = new.rules.clone().unwrap_or_default();
            return Ok(Some(Grant { rules, verb: "escalate", resource: "roles", name }));
        }
        if let Some(new) = attributes.new_ref::<ClusterRoleBinding>() {
            let old = attributes.old::<ClusterRoleBinding>();
            if old.is_some_and(|old| old.subjects == new.subjects && old.role_ref == new.role_ref) {
                return Ok(None);
            }
            return self.bound(&new.role_ref, "").map(Some);
        }
        if let Some(new) = attributes.new_ref::<RoleBinding>() {
            let old = attributes.old::<RoleBinding>();
            if old.is_some_and(|old| old.subjects == new.subjects && old.role_ref == new.role_ref) {
                return Ok(None);
            }
            return self.bound(&new.role_ref, attributes.namespace).map(Some);
        }
        Ok(None)
    }

    fn bound<'a>(&self, role: &'a RoleRef, namespace: &str) -> Result<Grant<'a>, ApiError> {
        let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
        // A role that does not exist grants nothing yet, and could grant anything later: it can be bound only with `bind`.
        let rules = self.rbac.role_rules(&role.kind, namespace, &role.name).unwrap_or_else(everything);
        Ok(Grant { rules, verb: "bind", resource, name: &role.name })
    }
}

fn everything() -> Vec<PolicyRule> {
    let all = || vec!["*".to_owned()];
    vec![
        PolicyRule { verbs: all(), api_groups: Some(all()), resources: Some(all()), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: Some(all()), ..PolicyRule::default() },
    ]
}

fn problem(user: &UserInfo, missing: &[PolicyRule]) -> String {
    let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
    let lines: Vec<String> = merged(missing).iter().map(rules::compact).collect();
    format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        lines.join("\n")
    )
}

/// Rules that differ in their verbs only, as one.
fn merged(rules: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut by_rest: BTreeMap<String, PolicyRule> = BTreeMap::new();
    for rule in rules {
        let rest = super::rules::compact(&PolicyRule { verbs: vec![], ..rule.clone() });
        let merged = by_rest.entry(rest).or_insert_with(|| PolicyRule { verbs: vec![], ..rule.clone() });
        merged.verbs.extend(rule.verbs.iter().cloned());
    }
    by_rest.into_values().collect()
}

impl Plugin for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, operation: Operation, resource: &ResourceInfo, _: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && resource.group == GROUP
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a admission::Attributes<'_>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.check(attributes))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::rbac::v1::Subject;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::super::bootstrap_policy::rule;
    use super::*;
    use crate::admission::tests::Request;

    fn meta(name: &str) -> ObjectMeta {
        ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }
    }

    fn role(rules: Vec<PolicyRule>) -> ClusterRole {
        ClusterRole { metadata: meta("new"), rules: Some(rules), aggregation_rule: None }
    }

    fn binding(role: &str) -> ClusterRoleBinding {
        ClusterRoleBinding {
            metadata: meta("b"),
            role_ref: RoleRef {
                api_group: Some(GROUP.into()),
                kind: "ClusterRole".into(),
                name: role.into(),
            },
            subjects: None,
        }
    }

    /// A user `anna` who has `rules`.
    fn check(rules: Vec<PolicyRule>) -> Escalation {
        let rbac = Arc::new(Rbac::default());
        rbac.update(|index| {
            index.put_cluster_role(&ClusterRole { metadata: meta("own"), ..role(rules) });
            index.put_cluster_role(&ClusterRole {
                metadata: meta("strong"),
                ..role(vec![rule("*", "*", "*")])
            });
            let subject = Subject { kind: "User".into(), name: "anna".into(), ..Subject::default() };
            index.put_cluster_role_binding(&ClusterRoleBinding {
                subjects: Some(vec![subject]),
                ..binding("own")
            });
        });
        Escalation::new(rbac.clone(), rbac)
    }

    async fn write<T: crate::registry::KubeObject>(
        check: &Escalation,
        mut object: T,
    ) -> Result<(), ApiError> {
        Request::new(Operation::Create, &mut object).user("anna", &["dev"]).validate(check).await
    }

    #[tokio::test]
    async fn roles() {
        let own = || rule("get list", "core", "pods");
        assert!(write(&check(vec![own()]), role(vec![rule("get", "core", "pods")])).await.is_ok());
        let error = write(&check(vec![own()]), role(vec![rule("get delete watch", "core", "pods")]))
            .await
            .unwrap_err();
        assert_eq!(
            error.message(),
            "clusterroles.rbac.authorization.k8s.io \"new\" is forbidden: user \"anna\" (groups=[\"dev\"]) is attempting to \
             grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}"
        );
        let escalate = rule("escalate", GROUP, "clusterroles");
        assert!(write(&check(vec![escalate]), role(vec![rule("*", "*", "*")])).await.is_ok());
        let aggregating = ClusterRole { aggregation_rule: Some(Default::default()), ..role(vec![]) };
        assert!(write(&check(vec![own()]), aggregating).await.is_err());
    }

    #[tokio::test]
    async fn bindings() {
        let own = || rule("get list", "core", "pods");
        assert!(write(&check(vec![own()]), binding("own")).await.is_ok());
        assert!(write(&check(vec![own()]), binding("strong")).await.is_err());
        assert!(write(&check(vec![own()]), binding("missing")).await.is_err());
        let bind = super::super::bootstrap_policy::named("bind", GROUP, "clusterroles", "strong");
        assert!(write(&check(vec![bind.clone()]), binding("strong")).await.is_ok());
        assert!(write(&check(vec![bind]), binding("missing")).await.is_err());
    }

    #[tokio::test]
    async fn masters_and_unchanged_rules_pass() {
        let check = check(vec![]);
        let mut strong = role(vec![rule("*", "*", "*")]);
        let old = strong.clone();
        let masters = Request::new(Operation::Create, &mut strong).user("root", &[SYSTEM_MASTERS]);
        assert!(masters.validate(&check).await.is_ok());
        let relabel = Request::new(Operation::Update, &mut strong).old(&old).user("anna", &[]);
        assert!(relabel.validate(&check).await.is_ok());
    }
}
