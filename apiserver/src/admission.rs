//! The last word on a write, after authorization: [`Plugin`]s mutate, then validate. One file per plugin in `admission/`.
//!
//! Upstream: `apiserver/pkg/admission`.

use std::fmt;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;

use crate::registry::{Object, ResourceInfo};
use crate::request::RequestContext;

pub mod default_ingress_class;
pub mod default_storage_class;
pub mod default_toleration_seconds;
pub mod deny_service_external_ips;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod plugins;
pub mod pod_references;
pub mod priority;
pub mod service_account;
pub mod taint_nodes_by_condition;

/// What kind of request is being admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As admission reviews spell it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// What a plugin sees of a request.
#[derive(Debug)]
pub struct Attributes<'a> {
    pub operation: Operation,
    /// The resource in the path (for `pods/binding`: pods).
    pub resource: &'a ResourceInfo,
    pub subresource: &'a str,
    /// Empty on a create with generateName.
    pub name: &'a str,
    pub namespace: &'a str,
    /// User, audit id, warnings.
    pub ctx: &'a RequestContext,
    /// The new object (`None` on delete). For `pods/binding` a Binding, for `pods/eviction` an Eviction, and so on.
    pub object: Option<&'a mut dyn Object>,
    pub old_object: Option<&'a dyn Object>,
    pub dry_run: bool,
}

impl Attributes<'_> {
    /// The new object, if it is a `T`.
    pub fn new_ref<T: 'static>(&self) -> Option<&T> {
        self.object.as_deref().and_then(<dyn Object>::downcast_ref)
    }

    /// The new object to change, if it is a `T`.
    pub fn new_mut<T: 'static>(&mut self) -> Option<&mut T> {
        self.object.as_deref_mut().and_then(<dyn Object>::downcast_mut)
    }

    /// The stored object, if it is a `T`.
    pub fn old<T: 'static>(&self) -> Option<&T> {
        self.old_object.and_then(<dyn Object>::downcast_ref)
    }

    /// The object's name: from the path, or on a create from the object.
    pub fn object_name(&self) -> &str {
        if self.name.is_empty() {
            self.object.as_deref().and_then(|object| object.meta().name.as_deref()).unwrap_or_default()
        } else {
            self.name
        }
    }

    /// The refusal of a plugin: `pods "name" is forbidden: PROBLEM`.
    pub fn forbidden(&self, problem: &str) -> ApiError {
        let name = self.object_name();
        let generated = self.object.as_deref().and_then(|object| object.meta().generate_name.as_deref());
        let name = match (name, generated) {
            ("", Some(base)) if !base.is_empty() => base,
            ("", _) => "Unknown",
            (name, _) => name,
        };
        ApiError::forbidden(self.resource.group, self.resource.plural, name, problem)
    }
}

/// An admission plugin. `handles` is asked first, so that most plugins cost nothing on most requests.
pub trait Plugin: Send + Sync {
    /// The name in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    fn handles(&self, operation: Operation, resource: &ResourceInfo, subresource: &str) -> bool;

    /// Changes the object (defaults), or refuses.
    fn admit<'a>(&'a self, _attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Refuses, or not; runs after validation.
    fn validate<'a>(&'a self, _attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The enabled plugins, in upstream's order.
#[derive(Default)]
pub struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.plugins.iter().map(|plugin| plugin.name())).finish()
    }
}

impl Chain {
    pub fn new(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self { plugins }
    }

    /// Runs the mutating half.
    pub async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        for plugin in &self.plugins {
            if plugin.handles(attributes.operation, attributes.resource, attributes.subresource) {
                plugin.admit(attributes).await?;
            }
        }
        Ok(())
    }

    /// Runs the validating half.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        for plugin in &self.plugins {
            if plugin.handles(attributes.operation, attributes.resource, attributes.subresource) {
                plugin.validate(attributes).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    //! A request to put before a plugin.

    use std::sync::Arc;

    use super::*;
    use crate::authn::UserInfo;
    use crate::registry::KubeObject;
    use crate::request::RequestInfo;

    /// What is asked, with setters for the parts that differ from the usual.
    pub(crate) struct Request<'a> {
        operation: Operation,
        resource: ResourceInfo,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
        user: UserInfo,
        object: Option<&'a mut dyn Object>,
        old: Option<&'a dyn Object>,
    }

    fn resource<T: KubeObject>() -> ResourceInfo {
        ResourceInfo::new(T::GROUP, T::VERSION, T::KIND, T::URL_PATH_SEGMENT, "", true)
    }

    impl<'a> Request<'a> {
        pub(crate) fn new<T: KubeObject>(operation: Operation, object: &'a mut T) -> Self {
            Self::empty::<T>(operation, Some(object), None)
        }

        pub(crate) fn delete<T: KubeObject>(old: &'a T) -> Self {
            Self::empty::<T>(Operation::Delete, None, Some(old))
        }

        fn empty<T: KubeObject>(
            operation: Operation,
            object: Option<&'a mut dyn Object>,
            old: Option<&'a dyn Object>,
        ) -> Self {
            let resource = resource::<T>();
            Self {
                operation,
                resource,
                subresource: "",
                namespace: "",
                name: "",
                user: UserInfo::default(),
                object,
                old,
            }
        }

        /// The path is another resource's (`serviceaccounts/token` carries a TokenRequest).
        pub(crate) fn path<T: KubeObject>(mut self, subresource: &'a str) -> Self {
            self.resource = resource::<T>();
            self.subresource = subresource;
            self
        }

        pub(crate) fn old(mut self, old: &'a dyn Object) -> Self {
            self.old = Some(old);
            self
        }

        pub(crate) fn namespace(mut self, namespace: &'a str) -> Self {
            self.namespace = namespace;
            self
        }

        pub(crate) fn name(mut self, name: &'a str) -> Self {
            self.name = name;
            self
        }

        pub(crate) fn user(mut self, name: &str, groups: &[&str]) -> Self {
            let groups = groups.iter().map(|&group| group.to_owned()).collect();
            self.user = UserInfo { name: name.to_owned(), groups, ..UserInfo::default() };
            self
        }

        async fn run(self, plugin: &dyn Plugin, mutating: bool) -> Result<(), ApiError> {
            let info = RequestInfo { subresource: self.subresource.to_owned(), ..RequestInfo::default() };
            let ctx = RequestContext::new(info, Arc::new(self.user), String::new(), String::new());
            let mut attributes = Attributes {
                operation: self.operation,
                resource: &self.resource,
                subresource: self.subresource,
                name: self.name,
                namespace: self.namespace,
                ctx: &ctx,
                object: self.object,
                old_object: self.old,
                dry_run: false,
            };
            if !plugin.handles(self.operation, &self.resource, self.subresource) {
                return Ok(());
            }
            if mutating { plugin.admit(&mut attributes).await } else { plugin.validate(&attributes).await }
        }

        pub(crate) async fn admit(self, plugin: &dyn Plugin) -> Result<(), ApiError> {
            self.run(plugin, true).await
        }

        pub(crate) async fn validate(self, plugin: &dyn Plugin) -> Result<(), ApiError> {
            self.run(plugin, false).await
        }
    }
}
