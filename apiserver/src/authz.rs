//! What a user may do. The pipeline asks an [`Authorizer`]; each mode is a file in `authz/`.
//!
//! Upstream: `apiserver/pkg/authorization/authorizer`.

use futures::future::BoxFuture;

use crate::authn::UserInfo;
use crate::request::RequestInfo;

pub mod forbidden;
pub mod modes;
pub mod node;
pub mod rbac;
pub mod reviews;

pub use forbidden::forbidden;

/// What an authorizer decides about.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    pub user: &'a UserInfo,
    pub verb: &'a str,
    /// Whether the fields below, or only `path`, describe the request.
    pub is_resource: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    pub label_selector: Option<&'a str>,
    pub field_selector: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    pub fn of(user: &'a UserInfo, info: &'a RequestInfo) -> Self {
        Self {
            user,
            verb: &info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            label_selector: info.label_selector.as_deref(),
            field_selector: info.field_selector.as_deref(),
        }
    }
}

/// An authorizer's answer with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    Deny(String),
    NoOpinion(String),
}

/// One mode, or the chain of all modes in order.
pub trait Authorizer: Send + Sync {
    fn authorize<'a>(&'a self, attributes: Attributes<'a>) -> BoxFuture<'a, Decision>;
}

/// `--authorization-mode=AlwaysAllow`.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize<'a>(&'a self, _: Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(Decision::Allow(String::new())))
    }
}

/// `--authorization-mode=AlwaysDeny`.
#[derive(Debug, Clone, Copy, Default)]
pub struct AlwaysDeny;

impl Authorizer for AlwaysDeny {
    fn authorize<'a>(&'a self, _: Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(Decision::NoOpinion("Everything is forbidden.".to_owned())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Attributes of a request for `resource` or `resource/subresource`.
    pub(crate) fn attributes<'a>(
        user: &'a UserInfo,
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            user,
            verb,
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
        }
    }
}
