//! Roles (upstream `registry/rbac/role`). Columns are the default ones.

use apimachinery::validation::ErrorList;
use k8s_openapi::api::rbac::v1::Role;

use super::policy_rule::validate_rules;
use super::{GROUP, validate_rbac_name};
use crate::registry::{ResourceInfo, Strategy};

/// The strategy of roles.
#[derive(Debug)]
pub struct RoleStrategy;

impl Strategy for RoleStrategy {
    type Object = Role;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new(GROUP, "v1", "Role", "roles", "role", true)
    }

    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        validate_rbac_name(name)
    }

    fn validate(&self, obj: &Role) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_rules(obj.rules.as_ref(), true, &mut errors);
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}
