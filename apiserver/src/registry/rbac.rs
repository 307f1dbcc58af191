//! The rbac.authorization.k8s.io group, v1. That nobody grants more than they have is checked elsewhere, with
//! authorization; here is what makes a role or binding well-formed.

pub mod cluster_role;
pub mod cluster_role_binding;
mod policy_rule;
pub mod role;
pub mod role_binding;
mod subject;

/// The group's name, also the group of users and groups in bindings.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// Role names are free but for what a path can't hold.
fn validate_rbac_name(name: &str) -> Vec<String> {
    apimachinery::validation::names::is_path_segment(name)
}
