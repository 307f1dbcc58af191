//! Creating an object.
//!
//! Upstream: `registry/rest/create.go` (`BeforeCreate`) and `Store.Create`.

use apimachinery::status::ApiError;
use bytes::Bytes;

use super::{Saved, Store, Target, api_error, metadata};
use crate::admission::{Attributes, Operation};
use crate::allocation::{Change, SideWrite};
use crate::registry::Object;
use crate::request::RequestContext;
use crate::storage::{Commit, Committed, Freshness};

/// Tries to find a free name for one generateName.
const GENERATE_NAME_ATTEMPTS: usize = 8;
/// Tries to commit while other writers take the side keys that an allocator chose.
const SIDE_ATTEMPTS: usize = 32;

impl Store {
    /// Creates `object`, whose name may be generated.
    pub async fn create(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        mut object: Box<dyn Object>,
        dry_run: bool,
    ) -> Result<Saved, ApiError> {
        let resource = target.resource;
        let info = target.info();
        metadata::set_namespace(target, object.meta_mut())?;
        resource.default(&mut *object);
        self.admit(ctx, target, Operation::Create, Some(&mut *object), None, dry_run).await?;
        if object
            .meta()
            .resource_version
            .as_ref()
            .is_some_and(|version| !version.is_empty() && version != "0")
        {
            return Err(ApiError::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        object.meta_mut().resource_version = None;
        metadata::fill_new(object.meta_mut(), ctx.now);
        resource.prepare_for_create(ctx, &mut *object);

        let base = match (&object.meta().name, &object.meta().generate_name) {
            (Some(name), _) if !name.is_empty() => None,
            (_, Some(base)) if !base.is_empty() => Some(base.clone()),
            _ => None,
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            if let Some(base) = &base {
                object.meta_mut().name = Some(apimachinery::meta::generate_name(base));
            }
            match self.create_named(ctx, target, &mut *object, attempt == 1, dry_run).await? {
                Outcome::Created { value, revision } => {
                    return self.saved(resource, object, &value, revision, true);
                }
                Outcome::DryRun => {
                    let json = object.to_json().map_err(ApiError::internal)?.into();
                    return Ok(Saved { object, json, revision: 0, created: true });
                }
                Outcome::Taken if base.is_some() && attempt < GENERATE_NAME_ATTEMPTS => {}
                Outcome::Taken => {
                    let name = metadata::text(object.meta().name.as_ref());
                    return Err(ApiError::already_exists(info.group, info.plural, name));
                }
                Outcome::Deleting => {
                    let name = metadata::text(object.meta().name.as_ref());
                    let mut status = ApiError::already_exists(info.group, info.plural, name).status().clone();
                    status.message =
                        status.message.map(|message| format!("object is being deleted: {message}"));
                    return Err(ApiError::from_status(status));
                }
            }
        }
    }

    async fn create_named(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        object: &mut dyn Object,
        first: bool,
        dry_run: bool,
    ) -> Result<Outcome, ApiError> {
        let (resource, info) = (target.resource, target.info());
        for _ in 0..SIDE_ATTEMPTS {
            let mut side: Vec<SideWrite> = Vec::new();
            for allocator in self.allocators(info) {
                side.append(&mut allocator.allocate(ctx, Change::Create { new: &mut *object }).await?);
            }
            let mut errors = metadata::validate(object.meta(), info.namespaced, &|name, prefix| {
                resource.validate_name(name, prefix)
            });
            errors.append(&mut resource.validate(&*object));
            let name = metadata::text(object.meta().name.as_ref()).to_owned();
            if !errors.is_empty() {
                return Err(ApiError::invalid(info.group, info.kind, &name, &errors));
            }
            if first {
                for warning in resource.warnings(&*object, None) {
                    ctx.warn(warning);
                }
            }
            self.validate_admission(ctx, target, Operation::Create, Some(&mut *object), None, dry_run)
                .await?;

            let value = Self::encode(resource, &mut *object)?;
            let key = self.key(info, target.namespace, &name);
            if dry_run {
                let (current, _) = self.storage.get(&key, Freshness::Consistent).await.map_err(api_error)?;
                return Ok(current.map_or(Outcome::DryRun, |current| taken(resource, &current.value)));
            }
            let write = self.put(resource, &*object, &value);
            let commit = Commit { key: &key, expected: 0, write, side: &side };
            match self.storage.commit(&commit).await.map_err(api_error)? {
                Committed::At(revision) => return Ok(Outcome::Created { value, revision }),
                Committed::Conflict(current) => {
                    return Ok(current.map_or(Outcome::Taken, |current| taken(resource, &current.value)));
                }
                Committed::SideConflict => {}
            }
        }
        Err(target.conflict("allocation of shared values kept losing to other writers"))
    }

    /// The mutating half of admission.
    pub(super) async fn admit(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        operation: Operation,
        object: Option<&mut dyn Object>,
        old_object: Option<&dyn Object>,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        let mut attributes = attributes(ctx, target, operation, object, old_object, dry_run);
        self.admission().admit(&mut attributes).await
    }

    /// The validating half of admission.
    pub(super) async fn validate_admission(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        operation: Operation,
        object: Option<&mut dyn Object>,
        old_object: Option<&dyn Object>,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        let attributes = attributes(ctx, target, operation, object, old_object, dry_run);
        self.admission().validate(&attributes).await
    }
}

enum Outcome {
    Created {
        value: Bytes,
        revision: i64,
    },
    /// It would have been created.
    DryRun,
    /// The name is taken.
    Taken,
    /// The name is taken by an object that is being deleted.
    Deleting,
}

fn taken(resource: &dyn crate::registry::Resource, current: &[u8]) -> Outcome {
    match resource.decode_stored(current) {
        Ok(object) if object.meta().deletion_timestamp.is_some() => Outcome::Deleting,
        _ => Outcome::Taken,
    }
}

fn attributes<'a>(
    ctx: &'a RequestContext,
    target: Target<'a>,
    operation: Operation,
    object: Option<&'a mut dyn Object>,
    old_object: Option<&'a dyn Object>,
    dry_run: bool,
) -> Attributes<'a> {
    Attributes {
        operation,
        resource: target.info(),
        subresource: &ctx.info.subresource,
        name: target.name,
        namespace: target.namespace,
        ctx,
        object,
        old_object,
        dry_run,
    }
}
