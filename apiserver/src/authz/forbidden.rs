//! The text of a refusal: `User "x" cannot list resource "pods" in API group "" in the namespace "y"`.
//!
//! Upstream: `endpoints/handlers/responsewriters/errors.go`.

use apimachinery::status::ApiError;

use super::Attributes;

/// The 403 for a request that no authorizer allowed; `reason` is what they said, often nothing.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> ApiError {
    let what = describe(attributes);
    let problem = if reason.is_empty() { what } else { format!("{what}: {reason}") };
    if attributes.is_resource {
        ApiError::forbidden(attributes.group, attributes.resource, attributes.name, &problem)
    } else {
        ApiError::forbidden("", "", "", &problem)
    }
}

fn describe(attributes: &Attributes<'_>) -> String {
    let Attributes { user, verb, group, resource, subresource, namespace, path, .. } = attributes;
    let user = &user.name;
    if !attributes.is_resource {
        return format!("User {user:?} cannot {verb} path {path:?}");
    }
    let resource =
        if subresource.is_empty() { (*resource).to_owned() } else { format!("{resource}/{subresource}") };
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::attributes;
    use super::*;
    use crate::authn::UserInfo;

    #[test]
    fn texts() {
        let user = UserInfo { name: "x".into(), ..UserInfo::default() };
        let list = attributes(&user, "list", "", "pods", "y", "");
        assert_eq!(
            forbidden(&list, "").message(),
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#
        );
        let get = attributes(&user, "get", "apps", "deployments/scale", "y", "web");
        assert_eq!(
            forbidden(&get, "RBAC: no").message(),
            "deployments.apps \"web\" is forbidden: User \"x\" cannot get resource \"deployments/scale\" in API group \
             \"apps\" in the namespace \"y\": RBAC: no"
        );
        let nodes = attributes(&user, "list", "", "nodes", "", "");
        assert!(forbidden(&nodes, "").message().ends_with(r#"in API group "" at the cluster scope"#));
        let path =
            Attributes { is_resource: false, path: "/metrics", ..attributes(&user, "get", "", "", "", "") };
        assert_eq!(forbidden(&path, "").message(), r#"forbidden: User "x" cannot get path "/metrics""#);
    }
}
