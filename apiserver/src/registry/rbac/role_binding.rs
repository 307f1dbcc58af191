//! RoleBindings (upstream `registry/rbac/rolebinding`).

use apimachinery::validation::ErrorList;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::RoleBinding;

use super::{GROUP, subject, validate_rbac_name};
use crate::registry::{ResourceInfo, Strategy};
use crate::table::{Cell, Column};

/// The strategy of rolebindings.
#[derive(Debug)]
pub struct RoleBindingStrategy;

impl Strategy for RoleBindingStrategy {
    type Object = RoleBinding;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new(GROUP, "v1", "RoleBinding", "rolebindings", "rolebinding", true)
    }

    fn default(&self, obj: &mut RoleBinding) {
        subject::set_defaults(&mut obj.role_ref, obj.subjects.as_mut());
    }

    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        validate_rbac_name(name)
    }

    fn validate(&self, obj: &RoleBinding) -> ErrorList {
        subject::validate(&obj.role_ref, obj.subjects.as_ref(), false)
    }

    fn validate_update(&self, new: &RoleBinding, old: &RoleBinding) -> ErrorList {
        let mut errors = self.validate(new);
        subject::validate_same_role(&new.role_ref, &old.role_ref, &mut errors);
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        subject::COLUMNS
    }

    fn row(&self, obj: &RoleBinding, now: Timestamp) -> Vec<Cell> {
        subject::row(&obj.metadata, &obj.role_ref, obj.subjects.as_ref(), now)
    }
}
