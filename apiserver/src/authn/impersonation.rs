//! Acting as somebody else: `Impersonate-User`, `-Group`, `-Uid` and `-Extra-*` headers, each of which needs the verb
//! `impersonate` on what it names.
//!
//! Constrained impersonation (verbs `impersonate:*`) is not done. Upstream: `endpoints/filters/impersonation`.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::status::ApiError;
use http::HeaderMap;

use super::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, UserInfo};
use crate::authz::{Attributes, Authorizer, Decision, forbidden};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Who is asked to be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
}

/// The headers' wish; `None` if there is none.
fn wanted(headers: &HeaderMap) -> Result<Option<Wanted>, ApiError> {
    let mut wanted = Wanted::default();
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("impersonate-") {
            continue;
        }
        let value = value
            .to_str()
            .map_err(|_| ApiError::bad_request(format!("unreadable header {name:?}")))?
            .to_owned();
        match name {
            USER => wanted.user = value,
            GROUP => wanted.groups.push(value),
            UID => wanted.uid = value,
            _ => {
                if let Some(key) = name.strip_prefix(EXTRA) {
                    wanted.extra.entry(unescape(key)).or_default().push(value);
                }
            }
        }
    }
    if wanted == Wanted::default() {
        return Ok(None);
    }
    if wanted.user.is_empty() {
        return Err(ApiError::internal("requested groups, uid or extra without impersonating a user"));
    }
    Ok(Some(wanted))
}

/// Header names can't carry every key, so clients percent-encode them.
fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

/// The user that the request is to be taken for: `user`, or whom it may impersonate.
pub async fn impersonate(
    authorizer: &dyn Authorizer,
    user: Arc<UserInfo>,
    headers: &HeaderMap,
) -> Result<Arc<UserInfo>, ApiError> {
    let Some(wanted) = wanted(headers)? else { return Ok(user) };
    let account = service_account(&wanted.user);
    match account {
        Some((namespace, name)) => check(authorizer, &user, "", "serviceaccounts", namespace, name).await?,
        None => check(authorizer, &user, "", "users", "", &wanted.user).await?,
    }
    for group in &wanted.groups {
        check(authorizer, &user, "", "groups", "", group).await?;
    }
    if !wanted.uid.is_empty() {
        check(authorizer, &user, "authentication.k8s.io", "uids", "", &wanted.uid).await?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            check(authorizer, &user, "authentication.k8s.io", &format!("userextras/{key}"), "", value)
                .await?;
        }
    }
    let mut groups = wanted.groups;
    if let Some((namespace, _)) = account.filter(|_| groups.is_empty()) {
        groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let known = if wanted.user == ANONYMOUS { ALL_UNAUTHENTICATED } else { ALL_AUTHENTICATED };
    if !groups.iter().any(|group| group == ALL_AUTHENTICATED || group == ALL_UNAUTHENTICATED) {
        groups.push(known.to_owned());
    }
    tracing::info!(user = user.name, impersonated = wanted.user, "impersonation");
    Ok(Arc::new(UserInfo { name: wanted.user.clone(), uid: wanted.uid, groups, extra: wanted.extra }))
}

fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

async fn check(
    authorizer: &dyn Authorizer,
    user: &UserInfo,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<(), ApiError> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let attributes = Attributes {
        user,
        verb: "impersonate",
        is_resource: true,
        group,
        version: "v1",
        resource,
        subresource,
        namespace,
        name,
        path: "",
        label_selector: None,
        field_selector: None,
    };
    match authorizer.authorize(attributes).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(&attributes, &reason)),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::authz::rbac::Rbac;

    fn rbac(rules: Vec<PolicyRule>) -> Rbac {
        let rbac = Rbac::default();
        let metadata = ObjectMeta { name: Some("r".into()), ..ObjectMeta::default() };
        let subject = Subject { kind: "User".into(), name: "anna".into(), ..Subject::default() };
        rbac.update(|index| {
            index.put_cluster_role(&ClusterRole {
                metadata: metadata.clone(),
                rules: Some(rules),
                aggregation_rule: None,
            });
            index.put_cluster_role_binding(&ClusterRoleBinding {
                metadata,
                role_ref: RoleRef { api_group: None, kind: "ClusterRole".into(), name: "r".into() },
                subjects: Some(vec![subject]),
            });
        });
        rbac
    }

    fn rule(group: &str, resource: &str, names: &[&str]) -> PolicyRule {
        PolicyRule {
            verbs: vec!["impersonate".into()],
            api_groups: Some(vec![group.into()]),
            resources: Some(vec![resource.into()]),
            resource_names: Some(names.iter().map(|&name| name.to_owned()).collect()),
            ..PolicyRule::default()
        }
    }

    async fn ask(rules: Vec<PolicyRule>, list: &[(&str, &str)]) -> Result<Arc<UserInfo>, ApiError> {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let anna = UserInfo { name: "anna".into(), ..UserInfo::default() };
        impersonate(&rbac(rules), Arc::new(anna), &headers).await
    }

    #[tokio::test]
    async fn without_headers_nothing_changes() {
        assert_eq!(ask(vec![], &[]).await.unwrap().name, "anna");
    }

    #[tokio::test]
    async fn every_part_needs_its_permission() {
        let user = || rule("", "users", &["bert"]);
        let full = [
            ("impersonate-user", "bert"),
            ("impersonate-group", "dev"),
            ("impersonate-uid", "u"),
            ("impersonate-extra-acme.com%2fproject", "p"),
        ];
        let all = || {
            vec![
                user(),
                rule("", "groups", &["dev"]),
                rule("authentication.k8s.io", "uids", &["u"]),
                rule("authentication.k8s.io", "userextras/acme.com/project", &["p"]),
            ]
        };
        let bert = ask(all(), &full).await.unwrap();
        assert_eq!((bert.name.as_str(), bert.uid.as_str()), ("bert", "u"));
        assert_eq!(bert.groups, ["dev", ALL_AUTHENTICATED]);
        assert_eq!(bert.extra["acme.com/project"], ["p"]);
        for missing in 0..4 {
            let mut rules = all();
            rules.remove(missing);
            assert_eq!(ask(rules, &full).await.unwrap_err().code(), 403, "{missing}");
        }
        let error = ask(vec![], &full[..1]).await.unwrap_err();
        assert_eq!(
            error.message(),
            r#"users "bert" is forbidden: User "anna" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
        assert!(ask(vec![user()], &[("impersonate-group", "system:masters")]).await.is_err());
    }

    #[tokio::test]
    async fn service_accounts_come_with_their_groups() {
        let header = [("impersonate-user", "system:serviceaccount:web:shop")];
        let shop = ask(vec![rule("", "serviceaccounts", &["shop"])], &header).await.unwrap();
        assert_eq!(shop.groups, ["system:serviceaccounts", "system:serviceaccounts:web", ALL_AUTHENTICATED]);
        // The right to a user of that name is not the right to the account.
        let name = rule("", "users", &["system:serviceaccount:web:shop"]);
        assert!(ask(vec![name], &header).await.is_err());
    }
}
