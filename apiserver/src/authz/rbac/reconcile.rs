//! Brings the stored roles and bindings up to the default policy at the start: what is missing is added, what people added
//! stays, and objects annotated `autoupdate: "false"` are left alone.
//!
//! Upstream: `pkg/registry/rbac/rest/storage_rbac.go` and `component-helpers/auth/rbac/reconciliation`.

use apimachinery::status::ApiError;
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta};

use super::bootstrap_policy::{AUTOUPDATE, Policy};
use super::rules;
use crate::registry::{KubeObject, Object, UpdateKind};
use crate::request::RequestContext;
use crate::store::{Store, Target, UpdateRequest};

/// Objects written at a time.
const CONCURRENCY: usize = 32;

/// A kind of the policy.
pub trait Reconciled: KubeObject {
    /// What `self`, as stored, must become to contain `expected`.
    fn reconciled(&self, expected: &Self) -> Outcome<Self>;
}

/// What is to be done with a stored object.
#[derive(Debug, PartialEq)]
pub enum Outcome<T> {
    /// Nothing.
    Keep,
    /// Write this.
    Update(Box<T>),
    /// Delete it and create the expected one: what differs can't be changed.
    Recreate,
}

fn is_protected(meta: &ObjectMeta) -> bool {
    meta.annotations
        .as_ref()
        .and_then(|annotations| annotations.get(AUTOUPDATE))
        .is_some_and(|value| value == "false")
}

/// Adds the expected labels and annotations that are missing; says whether there were any.
fn merge_meta(meta: &mut ObjectMeta, expected: &ObjectMeta) -> bool {
    let before = (meta.labels.clone(), meta.annotations.clone());
    for (key, value) in expected.labels.iter().flatten() {
        meta.labels.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in expected.annotations.iter().flatten() {
        meta.annotations.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
    before != (meta.labels.clone(), meta.annotations.clone())
}

fn merge_rules(rules: &mut Option<Vec<PolicyRule>>, expected: Option<&Vec<PolicyRule>>) -> bool {
    let own = rules.clone().unwrap_or_default();
    let expected = expected.map(Vec::as_slice).unwrap_or_default();
    let missing: Vec<PolicyRule> = expected
        .iter()
        .filter(|rule| !rules::uncovered(&own, std::slice::from_ref(rule)).is_empty())
        .cloned()
        .collect();
    let changed = !missing.is_empty();
    rules.get_or_insert_default().extend(missing);
    changed
}

fn outcome<T: Clone>(changed: bool, object: T) -> Outcome<T> {
    if changed { Outcome::Update(Box::new(object)) } else { Outcome::Keep }
}

impl Reconciled for ClusterRole {
    fn reconciled(&self, expected: &Self) -> Outcome<Self> {
        if is_protected(&self.metadata) {
            return Outcome::Keep;
        }
        let mut role = self.clone();
        let mut changed = merge_meta(&mut role.metadata, &expected.metadata);
        changed |= merge_rules(&mut role.rules, expected.rules.as_ref());
        if let Some(expected) = &expected.aggregation_rule {
            let selectors =
                role.aggregation_rule.get_or_insert_default().cluster_role_selectors.get_or_insert_default();
            for selector in expected.cluster_role_selectors.iter().flatten() {
                if !selectors.contains(selector) {
                    selectors.push(selector.clone());
                    changed = true;
                }
            }
        }
        outcome(changed, role)
    }
}

impl Reconciled for Role {
    fn reconciled(&self, expected: &Self) -> Outcome<Self> {
        if is_protected(&self.metadata) {
            return Outcome::Keep;
        }
        let mut role = self.clone();
        let mut changed = merge_meta(&mut role.metadata, &expected.metadata);
        changed |= merge_rules(&mut role.rules, expected.rules.as_ref());
        outcome(changed, role)
    }
}

fn same_role(a: &RoleRef, b: &RoleRef) -> bool {
    a.kind == b.kind && a.name == b.name
}

/// Adds the expected subjects that are missing; says whether there were any.
fn merge_subjects(subjects: &mut Option<Vec<Subject>>, expected: Option<&Vec<Subject>>) -> bool {
    let own = subjects.clone().unwrap_or_default();
    let same =
        |a: &Subject, b: &Subject| (&a.kind, &a.name, &a.namespace) == (&b.kind, &b.name, &b.namespace);
    let missing: Vec<Subject> = expected
        .into_iter()
        .flatten()
        .filter(|expected| !own.iter().any(|subject| same(subject, expected)))
        .cloned()
        .collect();
    let changed = !missing.is_empty();
    if changed {
        subjects.get_or_insert_default().extend(missing);
    }
    changed
}

impl Reconciled for ClusterRoleBinding {
    fn reconciled(&self, expected: &Self) -> Outcome<Self> {
        if is_protected(&self.metadata) {
            return Outcome::Keep;
        }
        if !same_role(&self.role_ref, &expected.role_ref) {
            return Outcome::Recreate;
        }
        let mut binding = self.clone();
        let mut changed = merge_meta(&mut binding.metadata, &expected.metadata);
        changed |= merge_subjects(&mut binding.subjects, expected.subjects.as_ref());
        outcome(changed, binding)
    }
}

impl Reconciled for RoleBinding {
    fn reconciled(&self, expected: &Self) -> Outcome<Self> {
        if is_protected(&self.metadata) {
            return Outcome::Keep;
        }
        if !same_role(&self.role_ref, &expected.role_ref) {
            return Outcome::Recreate;
        }
        let mut binding = self.clone();
        let mut changed = merge_meta(&mut binding.metadata, &expected.metadata);
        changed |= merge_subjects(&mut binding.subjects, expected.subjects.as_ref());
        outcome(changed, binding)
    }
}

/// Makes the store hold at least `policy`.
pub async fn run(store: &Store, policy: Policy) -> Result<(), ApiError> {
    let roles = async {
        ensure_all(store, policy.cluster_roles).await?;
        ensure_all(store, policy.roles).await
    };
    let bindings = async {
        ensure_all(store, policy.cluster_role_bindings).await?;
        ensure_all(store, policy.role_bindings).await
    };
    tokio::try_join!(Box::pin(roles), Box::pin(bindings)).map(drop)
}

async fn ensure_all<T: Reconciled>(store: &Store, expected: Vec<T>) -> Result<(), ApiError> {
    // One list instead of a get for each: an ordinary start has nothing to write.
    let (stored, _) = store.list_as::<T>("").await?;
    let ensured = expected.into_iter().map(|expected| {
        let key = |meta: &ObjectMeta| (meta.namespace.clone(), meta.name.clone());
        let found = stored.iter().find(|object| key(object.metadata()) == key(expected.metadata()));
        ensure(store, found, expected)
    });
    // Together, since a first start writes them all, and etcd commits many in the time of one.
    stream::iter(ensured.collect::<Vec<_>>()).buffer_unordered(CONCURRENCY).try_collect::<Vec<()>>().await?;
    Ok(())
}

async fn ensure<T: Reconciled>(store: &Store, found: Option<&T>, expected: T) -> Result<(), ApiError> {
    let ctx = RequestContext::loopback();
    let resource = store.resources().of::<T>()?;
    let meta = expected.metadata().clone();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    let create = async |object: T| {
        let target = Target { resource, namespace, name: "" };
        match store.create(&ctx, target, Box::new(object), false).await {
            // Another API server starts at the same time.
            Err(error) if error.reason() == "AlreadyExists" => Ok(()),
            other => other.map(drop),
        }
    };
    let target = Target { resource, namespace, name };
    match found.map(|found| found.reconciled(&expected)) {
        None => create(expected).await,
        Some(Outcome::Keep) => Ok(()),
        Some(Outcome::Update(_)) => {
            let mut change = |current: &dyn Object| -> Result<Box<dyn Object>, ApiError> {
                let current =
                    current.downcast_ref::<T>().ok_or_else(|| ApiError::internal("unexpected type"))?;
                Ok(match current.reconciled(&expected) {
                    Outcome::Update(object) => object,
                    _ => Box::new(current.clone()),
                })
            };
            let request = UpdateRequest::new(UpdateKind::Main, false);
            store.update(&ctx, target, request, &mut change).await.map(drop)
        }
        Some(Outcome::Recreate) => {
            store.delete(&ctx, target, &DeleteOptions::default()).await?;
            create(expected).await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::bootstrap_policy::{policy, rule};
    use super::*;

    fn role(name: &str) -> ClusterRole {
        policy().cluster_roles.into_iter().find(|role| role.metadata.name.as_deref() == Some(name)).unwrap()
    }

    #[test]
    fn what_is_there_is_kept() {
        for role in policy().cluster_roles {
            assert_eq!(role.reconciled(&role), Outcome::Keep);
        }
        for binding in policy().cluster_role_bindings {
            assert_eq!(binding.reconciled(&binding), Outcome::Keep);
        }
    }

    #[test]
    fn missing_rules_come_back_and_added_ones_stay() {
        let expected = role("system:basic-user");
        let mut stored = expected.clone();
        let own = rule("get", "core", "pods");
        stored.rules = Some(vec![own.clone()]);
        let Outcome::Update(fixed) = stored.reconciled(&expected) else { panic!("no update") };
        let rules = fixed.rules.unwrap();
        assert_eq!(rules.len(), 3);
        assert_eq!(rules[0], own);
    }

    #[test]
    fn protected_objects_are_left_alone() {
        let expected = role("system:basic-user");
        let mut stored = expected.clone();
        stored.rules = None;
        stored.metadata.annotations = Some(BTreeMap::from([(AUTOUPDATE.to_owned(), "false".to_owned())]));
        assert_eq!(stored.reconciled(&expected), Outcome::Keep);
    }

    #[test]
    fn bindings_get_their_subjects_or_are_made_anew() {
        let expected = policy().cluster_role_bindings.remove(0);
        let mut stored = expected.clone();
        stored.subjects = None;
        let Outcome::Update(fixed) = stored.reconciled(&expected) else { panic!("no update") };
        assert_eq!(fixed.subjects, expected.subjects);
        stored.role_ref.name = "other".into();
        assert_eq!(stored.reconciled(&expected), Outcome::Recreate);
    }
}
