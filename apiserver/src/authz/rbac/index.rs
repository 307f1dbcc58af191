//! Roles and bindings, indexed by subject, so that a decision costs as much as the asking user has bindings.
//!
//! Pure state: `put_*` and `delete_*` as objects come and go. Upstream walks all bindings for each request
//! (`pkg/registry/rbac/validation/rule.go`); the result is the same.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::authn::UserInfo;
use crate::authn::service_account_token::user_name;

/// A subject as users are matched with it: service accounts are users.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum SubjectKey {
    User(String),
    Group(String),
}

/// One subject's entry of a binding.
#[derive(Debug, Clone)]
struct Bound {
    role: RoleRef,
    subject: Subject,
}

/// The bindings of one scope: the cluster or a namespace.
#[derive(Debug, Default)]
struct Bindings {
    subjects: HashMap<String, Vec<SubjectKey>>,
    by_subject: HashMap<SubjectKey, BTreeMap<String, Bound>>,
}

impl Bindings {
    fn put(&mut self, name: &str, role: &RoleRef, subjects: &[Subject], namespace: &str) {
        self.delete(name);
        let mut keys = Vec::new();
        for subject in subjects {
            let Some(key) = key_of(subject, namespace) else { continue };
            let bound = Bound { role: role.clone(), subject: subject.clone() };
            self.by_subject.entry(key.clone()).or_default().insert(name.to_owned(), bound);
            keys.push(key);
        }
        self.subjects.insert(name.to_owned(), keys);
    }

    fn delete(&mut self, name: &str) {
        for key in self.subjects.remove(name).unwrap_or_default() {
            if let Some(bound) = self.by_subject.get_mut(&key) {
                bound.remove(name);
                if bound.is_empty() {
                    self.by_subject.remove(&key);
                }
            }
        }
    }
}

fn key_of(subject: &Subject, binding_namespace: &str) -> Option<SubjectKey> {
    match subject.kind.as_str() {
        "User" => Some(SubjectKey::User(subject.name.clone())),
        "Group" => Some(SubjectKey::Group(subject.name.clone())),
        "ServiceAccount" => {
            let namespace =
                subject.namespace.as_deref().filter(|ns| !ns.is_empty()).unwrap_or(binding_namespace);
            (!namespace.is_empty()).then(|| SubjectKey::User(user_name(namespace, &subject.name)))
        }
        _ => None,
    }
}

/// A binding that applies to a user, for reasons and messages.
#[derive(Debug, Clone, Copy)]
pub struct BindingRef<'a> {
    /// Empty for a ClusterRoleBinding.
    pub namespace: &'a str,
    /// The binding's name.
    pub name: &'a str,
    role: &'a RoleRef,
    subject: &'a Subject,
}

impl BindingRef<'_> {
    /// The message for a role that does not exist.
    pub fn missing_role(&self) -> String {
        format!("{}.rbac.authorization.k8s.io {:?} not found", self.role.kind.to_lowercase(), self.role.name)
    }
}

impl fmt::Display for BindingRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "ClusterRoleBinding {:?}", self.name)?;
        } else {
            write!(f, "RoleBinding {:?}", format!("{}/{}", self.name, self.namespace))?;
        }
        write!(f, " of {} {:?} to {} ", self.role.kind, self.role.name, self.subject.kind)?;
        match &self.subject.namespace {
            Some(namespace) => write!(f, "{:?}", format!("{}/{namespace}", self.subject.name)),
            None => write!(f, "{:?}", self.subject.name),
        }
    }
}

type Rules = Arc<[PolicyRule]>;

/// All roles and bindings.
#[derive(Debug, Default)]
pub struct Index {
    cluster_roles: HashMap<String, Rules>,
    roles: HashMap<String, HashMap<String, Rules>>,
    cluster_bindings: Bindings,
    bindings: HashMap<String, Bindings>,
}

fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

impl Index {
    /// Adds or replaces a ClusterRole.
    pub fn put_cluster_role(&mut self, role: &ClusterRole) {
        self.cluster_roles
            .insert(name(&role.metadata).to_owned(), role.rules.iter().flatten().cloned().collect());
    }

    /// Removes a ClusterRole.
    pub fn delete_cluster_role(&mut self, name: &str) {
        self.cluster_roles.remove(name);
    }

    /// Adds or replaces a Role.
    pub fn put_role(&mut self, role: &Role) {
        let roles = self.roles.entry(namespace(&role.metadata).to_owned()).or_default();
        roles.insert(name(&role.metadata).to_owned(), role.rules.iter().flatten().cloned().collect());
    }

    /// Removes a Role.
    pub fn delete_role(&mut self, namespace: &str, name: &str) {
        if let Some(roles) = self.roles.get_mut(namespace) {
            roles.remove(name);
            if roles.is_empty() {
                self.roles.remove(namespace);
            }
        }
    }

    /// Adds or replaces a ClusterRoleBinding.
    pub fn put_cluster_role_binding(&mut self, binding: &ClusterRoleBinding) {
        let subjects = binding.subjects.as_deref().unwrap_or_default();
        self.cluster_bindings.put(name(&binding.metadata), &binding.role_ref, subjects, "");
    }

    /// Removes a ClusterRoleBinding.
    pub fn delete_cluster_role_binding(&mut self, name: &str) {
        self.cluster_bindings.delete(name);
    }

    /// Adds or replaces a RoleBinding.
    pub fn put_role_binding(&mut self, binding: &RoleBinding) {
        let namespace = namespace(&binding.metadata);
        let subjects = binding.subjects.as_deref().unwrap_or_default();
        let bindings = self.bindings.entry(namespace.to_owned()).or_default();
        bindings.put(name(&binding.metadata), &binding.role_ref, subjects, namespace);
    }

    /// Removes a RoleBinding.
    pub fn delete_role_binding(&mut self, namespace: &str, name: &str) {
        if let Some(bindings) = self.bindings.get_mut(namespace) {
            bindings.delete(name);
            if bindings.subjects.is_empty() {
                self.bindings.remove(namespace);
            }
        }
    }

    /// Forgets all objects of one resource, before a fresh list.
    pub fn clear_kind(&mut self, plural: &str) {
        match plural {
            "clusterroles" => self.cluster_roles.clear(),
            "clusterrolebindings" => self.cluster_bindings = Bindings::default(),
            "roles" => self.roles.clear(),
            "rolebindings" => self.bindings.clear(),
            _ => {}
        }
    }

    /// The rules of a role, by the kind and name of a roleRef.
    pub fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<&[PolicyRule]> {
        match kind {
            "ClusterRole" => self.cluster_roles.get(name).map(AsRef::as_ref),
            "Role" => self.roles.get(namespace)?.get(name).map(AsRef::as_ref),
            _ => None,
        }
    }

    /// Shows every binding of `user`, cluster-wide and in `namespace`, with its role's rules (`None`: no such role), until
    /// `visitor` returns false.
    pub fn visit(
        &self,
        user: &UserInfo,
        namespace: &str,
        mut visitor: impl FnMut(BindingRef<'_>, Option<&[PolicyRule]>) -> bool,
    ) {
        let subjects: Vec<SubjectKey> = std::iter::once(SubjectKey::User(user.name.clone()))
            .chain(user.groups.iter().cloned().map(SubjectKey::Group))
            .collect();
        let local = if namespace.is_empty() { None } else { self.bindings.get(namespace) };
        let scopes = [("", Some(&self.cluster_bindings)), (namespace, local)];
        for (scope, bindings) in scopes {
            let Some(bindings) = bindings else { continue };
            for (name, bound) in subjects.iter().filter_map(|s| bindings.by_subject.get(s)).flatten() {
                let binding =
                    BindingRef { namespace: scope, name, role: &bound.role, subject: &bound.subject };
                if !visitor(binding, self.role(&bound.role.kind, scope, &bound.role.name)) {
                    return;
                }
            }
        }
    }
}
