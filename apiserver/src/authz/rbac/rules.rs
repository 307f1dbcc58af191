//! One RBAC rule: whether it allows a request, and whether a set of rules covers another rule.
//!
//! Pure. Upstream: `pkg/apis/rbac/v1/evaluation_helpers.go` and `component-helpers/auth/rbac/validation`.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::authz::Attributes;

const ALL: &str = "*";

/// Whether `rule` allows the request.
pub fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    if !has(&rule.verbs, attributes.verb) {
        return false;
    }
    if !attributes.is_resource {
        return rule.non_resource_urls.iter().flatten().any(|url| url_matches(url, attributes.path));
    }
    has(list(rule.api_groups.as_ref()), attributes.group)
        && list(rule.resources.as_ref())
            .iter()
            .any(|r| resource_matches(r, attributes.resource, attributes.subresource))
        && name_matches(list(rule.resource_names.as_ref()), attributes.name)
}

fn list(list: Option<&Vec<String>>) -> &[String] {
    list.map(Vec::as_slice).unwrap_or_default()
}

fn has(allowed: &[String], asked: &str) -> bool {
    allowed.iter().any(|a| a == ALL || a == asked)
}

/// `*`, `pods`, `pods/log` or `*/scale`.
fn resource_matches(allowed: &str, resource: &str, subresource: &str) -> bool {
    if allowed == ALL {
        return true;
    }
    match allowed.split_once('/') {
        None => subresource.is_empty() && allowed == resource,
        Some((left, right)) => {
            !subresource.is_empty() && right == subresource && (left == ALL || left == resource)
        }
    }
}

fn name_matches(allowed: &[String], name: &str) -> bool {
    allowed.is_empty() || allowed.iter().any(|a| a == name)
}

fn url_matches(allowed: &str, path: &str) -> bool {
    allowed == ALL
        || allowed == path
        || allowed.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// The rules of `wanted` that `owner` does not cover, split into their smallest parts: what an author may not hand on.
pub fn uncovered(owner: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(parts).filter(|part| !owner.iter().any(|rule| covers(rule, part))).collect()
}

/// Splits a rule into rules with one verb, group, resource, name or URL each.
fn parts(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    let one = |value: &String| Some(vec![value.clone()]);
    for verb in &rule.verbs {
        for group in list(rule.api_groups.as_ref()) {
            for resource in list(rule.resources.as_ref()) {
                let part = PolicyRule {
                    verbs: vec![verb.clone()],
                    api_groups: one(group),
                    resources: one(resource),
                    ..PolicyRule::default()
                };
                let names = list(rule.resource_names.as_ref());
                if names.is_empty() {
                    parts.push(part);
                } else {
                    parts.extend(names.iter().map(|n| PolicyRule { resource_names: one(n), ..part.clone() }));
                }
            }
        }
        for url in list(rule.non_resource_urls.as_ref()) {
            parts.push(PolicyRule {
                verbs: vec![verb.clone()],
                non_resource_urls: one(url),
                ..PolicyRule::default()
            });
        }
    }
    parts
}

/// Whether `owner` covers the single-valued rule `part`.
fn covers(owner: &PolicyRule, part: &PolicyRule) -> bool {
    let all_in = |owned: &[String], asked: &[String]| {
        owned.iter().any(|o| o == ALL) || asked.iter().all(|a| owned.contains(a))
    };
    let resources = list(owner.resources.as_ref());
    let names = list(owner.resource_names.as_ref());
    let asked_names = list(part.resource_names.as_ref());
    all_in(&owner.verbs, &part.verbs)
        && all_in(list(owner.api_groups.as_ref()), list(part.api_groups.as_ref()))
        && list(part.resources.as_ref()).iter().all(|asked| {
            resources.iter().any(|owned| {
                owned == ALL
                    || owned == asked
                    || asked.split_once('/').is_some_and(|(_, sub)| {
                        owned.strip_prefix("*/").is_some_and(|owned_sub| owned_sub == sub)
                    })
            })
        })
        && (names.is_empty() || (!asked_names.is_empty() && asked_names.iter().all(|n| names.contains(n))))
        && list(part.non_resource_urls.as_ref()).iter().all(|asked| {
            list(owner.non_resource_urls.as_ref()).iter().any(|owned| {
                owned == asked
                    || owned == ALL
                    || owned.strip_suffix('*').is_some_and(|prefix| asked.starts_with(prefix))
            })
        })
}

/// A rule as messages show it: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
pub fn compact(rule: &PolicyRule) -> String {
    let field = |name: &str, values: &[String]| {
        let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
        (!values.is_empty()).then(|| format!("{name}:[{}]", quoted.join(" ")))
    };
    let fields: Vec<String> = [
        field("APIGroups", list(rule.api_groups.as_ref())),
        field("NonResourceURLs", list(rule.non_resource_urls.as_ref())),
        field("ResourceNames", list(rule.resource_names.as_ref())),
        field("Resources", list(rule.resources.as_ref())),
        field("Verbs", &rule.verbs),
    ]
    .into_iter()
    .flatten()
    .collect();
    format!("{{{}}}", fields.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::bootstrap_policy::{named, rule};
    use super::*;
    use crate::authn::UserInfo;
    use crate::authz::tests::attributes;

    fn request<'a>(
        user: &'a UserInfo,
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        attributes(user, verb, group, resource, "ns", name)
    }

    #[test]
    fn resource_rules() {
        let user = UserInfo::default();
        let cases = [
            (rule("get", "core", "pods"), "get", "", "pods", "a", true),
            (rule("get", "core", "pods"), "list", "", "pods", "", false),
            (rule("get", "core", "pods"), "get", "apps", "pods", "a", false),
            (rule("get", "core", "pods"), "get", "", "pods/log", "a", false),
            (rule("get", "core", "pods/log"), "get", "", "pods/log", "a", true),
            (rule("get", "core", "pods/log"), "get", "", "pods", "a", false),
            (rule("*", "*", "*"), "escalate", "x.io", "things/sub", "a", true),
            (rule("get", "*", "*/scale"), "get", "apps", "deployments/scale", "a", true),
            (rule("get", "*", "*/scale"), "get", "apps", "deployments", "a", false),
            (rule("get", "core", "pods/*"), "get", "", "pods/log", "a", false),
            (named("get", "core", "secrets", "one two"), "get", "", "secrets", "two", true),
            (named("get", "core", "secrets", "one"), "get", "", "secrets", "three", false),
            (named("list", "core", "secrets", "one"), "list", "", "secrets", "", false),
        ];
        for (rule, verb, group, resource, name, expected) in cases {
            let attributes = request(&user, verb, group, resource, name);
            assert_eq!(allows(&rule, &attributes), expected, "{rule:?} {verb} {group}/{resource} {name}");
        }
    }

    #[test]
    fn url_rules_do_not_allow_resources_and_the_other_way_round() {
        let user = UserInfo::default();
        let urls = |url: &str| PolicyRule {
            verbs: vec!["get".into()],
            non_resource_urls: Some(vec![url.into()]),
            ..PolicyRule::default()
        };
        let path = |path| Attributes { is_resource: false, path, ..request(&user, "get", "", "", "") };
        assert!(allows(&urls("/healthz"), &path("/healthz")));
        assert!(!allows(&urls("/healthz"), &path("/healthz/etcd")));
        assert!(allows(&urls("/healthz/*"), &path("/healthz/etcd")));
        assert!(!allows(&urls("/healthz/*"), &path("/healthzebra")));
        assert!(allows(&urls("*"), &path("/anything")));
        assert!(!allows(&urls("*"), &request(&user, "get", "", "pods", "a")));
        assert!(!allows(&rule("*", "*", "*"), &path("/metrics")));
    }

    #[test]
    fn covering() {
        let cases = [
            (rule("*", "*", "*"), rule("get list", "core apps", "pods/log secrets"), 0),
            (rule("get list", "core", "pods"), rule("get list watch", "core", "pods"), 1),
            (rule("get", "core", "pods"), rule("get", "core apps", "pods"), 1),
            (rule("get", "core", "*/scale"), rule("get", "core", "pods/scale pods"), 1),
            (named("get", "core", "secrets", "one"), rule("get", "core", "secrets"), 1),
            (rule("get", "core", "secrets"), named("get", "core", "secrets", "one two"), 0),
            (named("get", "core", "secrets", "one"), named("get", "core", "secrets", "one two"), 1),
            (rule("get", "core", "pods"), rule("*", "core", "pods"), 1),
            (rule("get", "core", "pods"), rule("get", "core", "*"), 1),
        ];
        for (owner, wanted, missing) in cases {
            assert_eq!(
                uncovered(std::slice::from_ref(&owner), std::slice::from_ref(&wanted)).len(),
                missing,
                "{owner:?} {wanted:?}"
            );
        }
    }
}
