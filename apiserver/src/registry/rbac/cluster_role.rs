//! ClusterRoles (upstream `registry/rbac/clusterrole`). Columns are the default ones.

use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::rbac::v1::ClusterRole;

use super::policy_rule::validate_rules;
use super::{GROUP, validate_rbac_name};
use crate::registry::pod_template::validate_label_selector;
use crate::registry::{ResourceInfo, Strategy};

/// The strategy of clusterroles.
#[derive(Debug)]
pub struct ClusterRoleStrategy;

impl Strategy for ClusterRoleStrategy {
    type Object = ClusterRole;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new(GROUP, "v1", "ClusterRole", "clusterroles", "clusterrole", false)
    }

    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        validate_rbac_name(name)
    }

    fn validate(&self, obj: &ClusterRole) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_rules(obj.rules.as_ref(), false, &mut errors);
        let selectors =
            obj.aggregation_rule.as_ref().map(|r| r.cluster_role_selectors.as_deref().unwrap_or_default());
        if let Some(selectors) = selectors {
            let path = Path::new("aggregationRule").child("clusterRoleSelectors");
            if selectors.is_empty() {
                let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(Error::required(&path, detail));
            }
            for (i, selector) in selectors.iter().enumerate() {
                validate_label_selector(selector, &path.index(i), &mut errors);
            }
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}
