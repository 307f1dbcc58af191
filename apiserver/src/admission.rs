//! The last word on a write, after authorization: [`Plugin`]s mutate, then validate. One file per plugin in `admission/`.
//!
//! Upstream: `apiserver/pkg/admission`.

use std::fmt;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;

use crate::registry::{Object, ResourceInfo};
use crate::request::RequestContext;

/// What kind of request is being admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
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
