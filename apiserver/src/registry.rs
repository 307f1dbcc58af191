//! What a resource is: the strategy hooks that one file per resource answers, and their type-erased form.
//!
//! A [`Strategy`] does no IO and knows nothing of HTTP or etcd. [`Typed`] turns it into a [`Resource`], which is all
//! that the store and the endpoints see, so that CRUD exists once and each kind's codec is compiled once.
//! The list of all resources is in `registry/all.rs`. Upstream: `registry/rest` strategies and `registry/generic`.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;

use apimachinery::status::ApiError;
use apimachinery::validation::ErrorList;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta};
use k8s_openapi::schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::request::RequestContext;
use crate::table::{Cell, Column};

pub mod all;
pub mod apps;
pub mod autoscaling;
pub mod batch;
mod cells;
pub mod certificates;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod events;
pub mod networking;
pub mod node;
mod object_meta;
mod pod_template;
pub mod policy;
pub mod rbac;
pub mod resources;
mod scale;
pub mod scheduling;
pub mod storage;

/// The verbs of an ordinary stored resource, in discovery's order.
pub const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The static description of a resource: names, place in etcd, subresources.
#[derive(Debug, Clone, Copy)]
pub struct ResourceInfo {
    /// API group, `""` for core.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// The path segment, e.g. `pods`.
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// Key prefix below `--etcd-prefix`, as upstream's: `pods`, `services/specs`, `minions`.
    pub storage_prefix: &'static str,
    pub verbs: &'static [&'static str],
    /// Whether there is a `status` subresource.
    pub status: bool,
    /// Whether there is a `scale` subresource ([`Strategy::scale`]).
    pub scale: bool,
    /// Subresources other than `status` and `scale`, for routing and discovery.
    pub subresources: &'static [SubresourceInfo],
    /// Objects expire `--event-ttl` after their last write (events).
    pub expires: bool,
    /// The stored form is another version's ([`Strategy::decode_stored`]), so stored bytes can't be served as they are.
    pub converted: bool,
}

impl ResourceInfo {
    /// The usual case: all verbs, no subresources, not expiring, stored as it is served.
    pub const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        singular: &'static str,
        namespaced: bool,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
            singular,
            short_names: &[],
            categories: &[],
            namespaced,
            storage_prefix: plural,
            verbs: ALL_VERBS,
            status: false,
            scale: false,
            subresources: &[],
            expires: false,
            converted: false,
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `deployments.apps`: how messages name the resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// A subresource other than `status` and `scale`.
#[derive(Debug, Clone, Copy)]
pub struct SubresourceInfo {
    /// e.g. `log`, `binding`, `token`.
    pub name: &'static str,
    /// Kind in discovery, with its group and version when they are not the parent's (`""` = parent's).
    pub kind: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub verbs: &'static [&'static str],
    /// Served by the generic store as an update of the parent through
    /// [`Strategy::prepare_for_subresource_update`] (`finalize`, `ephemeralcontainers`, `approval`);
    /// otherwise a [`crate::endpoints::special::Handler`] serves it.
    pub updates_parent: bool,
}

/// A type that a [`Strategy`] can serve: any k8s-openapi object kind.
pub trait KubeObject:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + JsonSchema
    + Clone
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
}

impl<T> KubeObject for T where
    T: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + JsonSchema
        + Clone
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// What happens to dependents when the client names no propagation policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultGarbageCollection {
    Background,
    Orphan,
}

/// The hooks of one resource. All are pure: no IO, no clock but the context's.
///
/// Order on create: decode, [`default`](Self::default), mutating admission, generic metadata (name, uid, times),
/// [`prepare_for_create`](Self::prepare_for_create), [`validate`](Self::validate), validating admission, storage.
#[expect(unused_variables, reason = "default bodies document the parameters by name")]
pub trait Strategy: Send + Sync + 'static {
    type Object: KubeObject;

    fn info(&self) -> ResourceInfo;

    /// Fills unset fields (upstream's `defaults.go`). Runs on every decoded body.
    fn default(&self, obj: &mut Self::Object) {}

    /// Clears what a client may not set (status), sets generation 1.
    fn prepare_for_create(&self, ctx: &RequestContext, obj: &mut Self::Object) {}

    /// Validates everything but generic metadata, which the store validates with [`validate_name`](Self::validate_name).
    fn validate(&self, obj: &Self::Object) -> ErrorList;

    /// Messages for the `Warning` header.
    fn warnings(&self, obj: &Self::Object, old: Option<&Self::Object>) -> Vec<String> {
        Vec::new()
    }

    /// Problems of an object name, in upstream's words; empty when fine. `prefix`: the value is a generateName.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        apimachinery::validation::names::is_dns1123_subdomain(if prefix {
            name.trim_end_matches('-')
        } else {
            name
        })
    }

    /// Restores what an ordinary update may not change (status) and bumps generation when the spec changed.
    fn prepare_for_update(&self, ctx: &RequestContext, new: &mut Self::Object, old: &Self::Object) {}

    /// Validates a change; normally `self.validate(new)` plus immutability.
    fn validate_update(&self, new: &Self::Object, old: &Self::Object) -> ErrorList {
        self.validate(new)
    }

    /// Restores everything but status (and what upstream lets a status update change).
    fn prepare_for_status_update(&self, ctx: &RequestContext, new: &mut Self::Object, old: &Self::Object) {}

    fn validate_status_update(&self, new: &Self::Object, old: &Self::Object) -> ErrorList {
        ErrorList::new()
    }

    /// For subresources with [`SubresourceInfo::updates_parent`].
    fn prepare_for_subresource_update(
        &self,
        subresource: &str,
        ctx: &RequestContext,
        new: &mut Self::Object,
        old: &Self::Object,
    ) {
    }

    fn validate_subresource_update(
        &self,
        subresource: &str,
        new: &Self::Object,
        old: &Self::Object,
    ) -> ErrorList {
        ErrorList::new()
    }

    /// PUT to a missing name creates (leases, endpoints, events…).
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// PUT without resourceVersion overwrites.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Field selector labels beyond `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// The value of one of [`selectable_fields`](Self::selectable_fields).
    fn field<'a>(&self, obj: &'a Self::Object, field: &str) -> Cow<'a, str> {
        Cow::Borrowed("")
    }

    /// kubectl's table columns, `Name` first.
    fn columns(&self) -> &'static [Column] {
        crate::table::DEFAULT_COLUMNS
    }

    fn row(&self, obj: &Self::Object, now: Timestamp) -> Vec<Cell> {
        crate::table::default_row(obj.meta(), now)
    }

    /// `Some(seconds)` if deletion of this object is graceful (pods): the grace period to use.
    /// `None`: it goes at once (when no finalizer holds it).
    fn graceful_delete(&self, obj: &Self::Object, options: &DeleteOptions) -> Option<i64> {
        None
    }

    fn default_garbage_collection(&self) -> DefaultGarbageCollection {
        DefaultGarbageCollection::Background
    }

    /// Whether finalizers outside metadata hold the object (namespace `spec.finalizers`).
    fn has_other_finalizers(&self, obj: &Self::Object) -> bool {
        false
    }

    /// Told once, when deletionTimestamp is set (namespace: phase Terminating).
    fn deletion_started(&self, obj: &mut Self::Object) {}

    /// The autoscaling/v1 view of the object, when [`ResourceInfo::scale`].
    fn scale(&self, obj: &Self::Object) -> Option<Scale> {
        None
    }

    fn set_replicas(&self, obj: &mut Self::Object, replicas: i32) {}

    /// Reads the stored form; differs from the served one for a resource stored in another version.
    fn decode_stored(&self, bytes: &[u8]) -> Result<Self::Object, serde_json::Error> {
        codec::decode_stored(bytes)
    }

    /// Writes the stored form to the end of `out`. metadata.resourceVersion is unset when this is called.
    fn encode_stored(&self, obj: &Self::Object, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        serde_json::to_writer(out, obj)
    }
}

/// An object whose kind is known at run time only.
pub trait Object: Any + fmt::Debug + Send + Sync {
    fn meta(&self) -> &ObjectMeta;
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    fn clone_box(&self) -> Box<dyn Object>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// The object as JSON, in the version it is served in.
    fn to_json(&self) -> Result<Vec<u8>, serde_json::Error>;
    fn to_value(&self) -> Result<serde_json::Value, serde_json::Error>;
}

impl<T: KubeObject> Object for T {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }
    fn clone_box(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
    fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
    fn to_value(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(self)
    }
}

impl dyn Object {
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        self.as_any().downcast_ref()
    }
    pub fn downcast_mut<T: 'static>(&mut self) -> Option<&mut T> {
        self.as_any_mut().downcast_mut()
    }
}

/// Which kind of update a write is: each has its own hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateKind<'a> {
    Main,
    Status,
    Subresource(&'a str),
    /// An endpoint of this server made the change and judged it (binding): no hook has a say.
    Internal,
}

/// A [`Strategy`] with its object type erased. See there for the meaning of each hook.
pub trait Resource: Send + Sync {
    fn info(&self) -> &ResourceInfo;
    /// The kind's name in the OpenAPI documents.
    fn schema_name(&self) -> Cow<'static, str>;
    /// Adds the kind's schema to those that the generator knows, and names it.
    fn register_schema(&self, generator: &mut SchemaGenerator) -> Cow<'static, str>;
    /// Decodes a request body (JSON); unknown and duplicate fields are described in `strict`.
    fn decode(&self, body: &[u8], strict: Option<&mut Vec<String>>) -> Result<Box<dyn Object>, ApiError>;
    fn decode_stored(&self, bytes: &[u8]) -> Result<Box<dyn Object>, serde_json::Error>;
    fn encode_stored(&self, obj: &dyn Object, out: &mut Vec<u8>) -> Result<(), serde_json::Error>;
    fn default(&self, obj: &mut dyn Object);
    fn prepare_for_create(&self, ctx: &RequestContext, obj: &mut dyn Object);
    fn validate(&self, obj: &dyn Object) -> ErrorList;
    fn warnings(&self, obj: &dyn Object, old: Option<&dyn Object>) -> Vec<String>;
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String>;
    fn prepare_for_update(
        &self,
        kind: UpdateKind<'_>,
        ctx: &RequestContext,
        new: &mut dyn Object,
        old: &dyn Object,
    );
    fn validate_update(&self, kind: UpdateKind<'_>, new: &dyn Object, old: &dyn Object) -> ErrorList;
    fn allow_create_on_update(&self) -> bool;
    fn allow_unconditional_update(&self) -> bool;
    fn selectable_fields(&self) -> &'static [&'static str];
    fn field<'a>(&self, obj: &'a dyn Object, field: &str) -> Cow<'a, str>;
    fn columns(&self) -> &'static [Column];
    fn row(&self, obj: &dyn Object, now: Timestamp) -> Vec<Cell>;
    fn graceful_delete(&self, obj: &dyn Object, options: &DeleteOptions) -> Option<i64>;
    fn default_garbage_collection(&self) -> DefaultGarbageCollection;
    fn has_other_finalizers(&self, obj: &dyn Object) -> bool;
    fn deletion_started(&self, obj: &mut dyn Object);
    fn scale(&self, obj: &dyn Object) -> Option<Scale>;
    fn set_replicas(&self, obj: &mut dyn Object, replicas: i32);
}

impl fmt::Debug for dyn Resource + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({})", self.info().qualified())
    }
}

/// The adapter from a [`Strategy`] to a [`Resource`].
#[derive(Debug)]
pub struct Typed<S> {
    strategy: S,
    info: ResourceInfo,
}

impl<S: Strategy> Typed<S> {
    pub fn new(strategy: S) -> Self {
        let info = strategy.info();
        Self { strategy, info }
    }

    /// `strategy` ready for the list of all resources.
    pub fn boxed(strategy: S) -> Box<dyn Resource> {
        Box::new(Self::new(strategy))
    }
}

/// Objects reach a resource's hooks only through that resource's own decoders and the router.
const SAME_KIND: &str = "an object is only handed to the resource that decoded it";

fn cast<T: 'static>(obj: &dyn Object) -> &T {
    obj.downcast_ref().expect(SAME_KIND)
}

fn cast_mut<T: 'static>(obj: &mut dyn Object) -> &mut T {
    obj.downcast_mut().expect(SAME_KIND)
}

impl<S: Strategy> Resource for Typed<S> {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }
    fn schema_name(&self) -> Cow<'static, str> {
        S::Object::schema_name()
    }
    fn register_schema(&self, generator: &mut SchemaGenerator) -> Cow<'static, str> {
        generator.subschema_for::<S::Object>();
        S::Object::schema_name()
    }
    fn decode(&self, body: &[u8], strict: Option<&mut Vec<String>>) -> Result<Box<dyn Object>, ApiError> {
        Ok(Box::new(codec::decode_json::<S::Object>(body, strict)?))
    }
    fn decode_stored(&self, bytes: &[u8]) -> Result<Box<dyn Object>, serde_json::Error> {
        Ok(Box::new(self.strategy.decode_stored(bytes)?))
    }
    fn encode_stored(&self, obj: &dyn Object, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        self.strategy.encode_stored(cast(obj), out)
    }
    fn default(&self, obj: &mut dyn Object) {
        self.strategy.default(cast_mut(obj));
    }
    fn prepare_for_create(&self, ctx: &RequestContext, obj: &mut dyn Object) {
        self.strategy.prepare_for_create(ctx, cast_mut(obj));
    }
    fn validate(&self, obj: &dyn Object) -> ErrorList {
        self.strategy.validate(cast(obj))
    }
    fn warnings(&self, obj: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        self.strategy.warnings(cast(obj), old.map(cast))
    }
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        self.strategy.validate_name(name, prefix)
    }
    fn prepare_for_update(
        &self,
        kind: UpdateKind<'_>,
        ctx: &RequestContext,
        new: &mut dyn Object,
        old: &dyn Object,
    ) {
        let (new, old) = (cast_mut(new), cast(old));
        match kind {
            UpdateKind::Main => self.strategy.prepare_for_update(ctx, new, old),
            UpdateKind::Status => self.strategy.prepare_for_status_update(ctx, new, old),
            UpdateKind::Subresource(name) => {
                self.strategy.prepare_for_subresource_update(name, ctx, new, old)
            }
            UpdateKind::Internal => {}
        }
    }
    fn validate_update(&self, kind: UpdateKind<'_>, new: &dyn Object, old: &dyn Object) -> ErrorList {
        let (new, old) = (cast(new), cast(old));
        match kind {
            UpdateKind::Main => self.strategy.validate_update(new, old),
            UpdateKind::Status => self.strategy.validate_status_update(new, old),
            UpdateKind::Subresource(name) => self.strategy.validate_subresource_update(name, new, old),
            UpdateKind::Internal => ErrorList::new(),
        }
    }
    fn allow_create_on_update(&self) -> bool {
        self.strategy.allow_create_on_update()
    }
    fn allow_unconditional_update(&self) -> bool {
        self.strategy.allow_unconditional_update()
    }
    fn selectable_fields(&self) -> &'static [&'static str] {
        self.strategy.selectable_fields()
    }
    fn field<'a>(&self, obj: &'a dyn Object, field: &str) -> Cow<'a, str> {
        self.strategy.field(cast(obj), field)
    }
    fn columns(&self) -> &'static [Column] {
        self.strategy.columns()
    }
    fn row(&self, obj: &dyn Object, now: Timestamp) -> Vec<Cell> {
        self.strategy.row(cast(obj), now)
    }
    fn graceful_delete(&self, obj: &dyn Object, options: &DeleteOptions) -> Option<i64> {
        self.strategy.graceful_delete(cast(obj), options)
    }
    fn default_garbage_collection(&self) -> DefaultGarbageCollection {
        self.strategy.default_garbage_collection()
    }
    fn has_other_finalizers(&self, obj: &dyn Object) -> bool {
        self.strategy.has_other_finalizers(cast(obj))
    }
    fn deletion_started(&self, obj: &mut dyn Object) {
        self.strategy.deletion_started(cast_mut(obj));
    }
    fn scale(&self, obj: &dyn Object) -> Option<Scale> {
        self.strategy.scale(cast(obj))
    }
    fn set_replicas(&self, obj: &mut dyn Object, replicas: i32) {
        self.strategy.set_replicas(cast_mut(obj), replicas);
    }
}
