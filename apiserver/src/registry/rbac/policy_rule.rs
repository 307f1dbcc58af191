//! Policy rules, which roles and cluster roles share.

use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::rbac::v1::PolicyRule;

pub(super) fn validate_rules(rules: Option<&Vec<PolicyRule>>, namespaced: bool, errors: &mut ErrorList) {
    for (i, rule) in rules.into_iter().flatten().enumerate() {
        validate_rule(rule, namespaced, &Path::new("rules").index(i), errors);
    }
}

fn validate_rule(rule: &PolicyRule, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    if rule.verbs.is_empty() {
        errors.push(Error::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    if !is_empty(&rule.non_resource_urls) {
        let shown = serde_json::json!(rule.non_resource_urls);
        let path = path.child("nonResourceURLs");
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(Error::invalid(&path, shown.clone(), detail));
        }
        if !is_empty(&rule.api_groups) || !is_empty(&rule.resources) || !is_empty(&rule.resource_names) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&path, shown, detail));
        }
        return;
    }
    if is_empty(&rule.api_groups) {
        let detail = "resource rules must supply at least one api group";
        errors.push(Error::required(&path.child("apiGroups"), detail));
    }
    if is_empty(&rule.resources) {
        let detail = "resource rules must supply at least one resource";
        errors.push(Error::required(&path.child("resources"), detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn rules() {
        let check = |rules: Value, namespaced: bool, want: &[&str]| {
            let rules: Vec<PolicyRule> = serde_json::from_value(rules).unwrap();
            let mut errors = ErrorList::new();
            validate_rules(Some(&rules), namespaced, &mut errors);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts, want);
        };
        check(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]), true, &[]);
        check(
            json!([{}]),
            false,
            &[
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ],
        );
        check(
            json!([{"verbs": ["get"], "nonResourceURLs": ["/x"]}]),
            true,
            &[
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
            ],
        );
        check(json!([{"verbs": ["get"], "nonResourceURLs": ["/x"]}]), false, &[]);
    }
}
