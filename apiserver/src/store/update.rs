//! Changing an object: PUT, PATCH, status and the other subresources that write their parent.
//!
//! One loop of read, change, check and commit on the revision read. Upstream: `registry/rest/update.go`
//! (`BeforeUpdate`) and `Store.Update`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use apimachinery::validation::{Error, Path};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Current, Saved, Store, Target, api_error, decode, metadata};
use crate::admission::Operation;
use crate::allocation::{Change, SideWrite};
use crate::registry::{Object, UpdateKind};
use crate::request::RequestContext;
use crate::storage::{Commit, Committed, Stored, Write};

/// Tries to commit against other writers before the client is asked to try again.
const ATTEMPTS: usize = 64;

/// The new object for an update, from the stored one.
pub trait NewObject: Send {
    /// `current` carries its resourceVersion.
    fn new_object(&mut self, current: &dyn Object) -> Result<Box<dyn Object>, ApiError>;

    /// The object to create when none is stored and the resource allows creation by PUT.
    fn to_create(&mut self) -> Option<Box<dyn Object>> {
        None
    }
}

impl<F: FnMut(&dyn Object) -> Result<Box<dyn Object>, ApiError> + Send> NewObject for F {
    fn new_object(&mut self, current: &dyn Object) -> Result<Box<dyn Object>, ApiError> {
        self(current)
    }
}

/// What kind of update, and how.
#[derive(Debug, Clone, Copy)]
pub struct UpdateRequest<'a> {
    pub kind: UpdateKind<'a>,
    pub dry_run: bool,
    /// Whether admission sees it (scale and binding bring their own attributes).
    pub admission: bool,
}

impl<'a> UpdateRequest<'a> {
    pub fn new(kind: UpdateKind<'a>, dry_run: bool) -> Self {
        Self { kind, dry_run, admission: true }
    }
}

impl Store {
    /// Replaces the object that `target` names with what `change` makes of it.
    pub async fn update(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        request: UpdateRequest<'_>,
        change: &mut dyn NewObject,
    ) -> Result<Saved, ApiError> {
        let key = self.key(target.info(), target.namespace, target.name);
        let mut current = self.current(&key).await?;
        for _ in 0..ATTEMPTS {
            let attempt = match &current.stored {
                Some(stored) => self.try_update(ctx, target, request, change, &key, stored).await,
                None => Err(target.not_found()),
            };
            let outcome = match attempt {
                Ok(Attempt::Done(saved)) => return Ok(saved),
                Ok(Attempt::Conflict(newer)) => {
                    current = Current { stored: newer, fresh: true };
                    continue;
                }
                Ok(Attempt::Again) => continue,
                Ok(Attempt::Unknown(error)) => return Err(error),
                Ok(Attempt::Unchanged(saved)) => Ok(saved),
                Err(error) => Err(error),
            };
            if !self.confirm(&key, &mut current).await? {
                continue;
            }
            if current.stored.is_none()
                && request.kind == UpdateKind::Main
                && target.resource.allow_create_on_update()
                && let Some(object) = change.to_create()
            {
                return self.create(ctx, target, object, request.dry_run).await;
            }
            return outcome;
        }
        Err(stale(target))
    }

    async fn try_update(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        request: UpdateRequest<'_>,
        change: &mut dyn NewObject,
        key: &str,
        stored: &Stored,
    ) -> Result<Attempt, ApiError> {
        let resource = target.resource;
        let old = decode(resource, &stored.value, stored.revision)?;
        let mut new = change.new_object(&*old)?;
        check_revision(target, request.kind, new.meta_mut(), stored.revision)?;
        metadata::set_namespace(target, new.meta_mut())?;
        check_uid(target, new.meta(), old.meta())?;
        resource.default(&mut *new);
        if request.admission {
            self.admit(ctx, target, Operation::Update, Some(&mut *new), Some(&*old), request.dry_run).await?;
        }
        metadata::carry_over(new.meta_mut(), old.meta());
        resource.prepare_for_update(request.kind, ctx, &mut *new, &*old);

        let side = self.validate_update(ctx, target, request, &mut *new, &*old).await?;

        if goes_now(resource, &*new, &*old) {
            return self.delete_instead(key, resource, new, stored, &side, request.dry_run).await;
        }
        let value = Self::encode(resource, &mut *new)?;
        if request.dry_run || (value == stored.value && side.is_empty()) {
            let saved = self.saved(resource, new, &value, stored.revision, false)?;
            return Ok(Attempt::Unchanged(saved));
        }
        let write = self.put(resource, &*new, &value);
        let commit = Commit { key, expected: stored.revision, write, side: &side };
        let committed = match self.storage.commit(&commit).await {
            Ok(committed) => committed,
            Err(error) => return Ok(Attempt::Unknown(api_error(error))),
        };
        Ok(match committed {
            Committed::At(revision) => Attempt::Done(self.saved(resource, new, &value, revision, false)?),
            Committed::Conflict(newer) => Attempt::Conflict(newer),
            Committed::SideConflict => Attempt::Again,
        })
    }

    async fn validate_update(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        request: UpdateRequest<'_>,
        new: &mut dyn Object,
        old: &dyn Object,
    ) -> Result<Vec<SideWrite>, ApiError> {
        let (resource, info) = (target.resource, target.info());
        let mut side = Vec::new();
        if request.kind == UpdateKind::Main {
            for allocator in self.allocators(info) {
                side.append(&mut allocator.allocate(ctx, Change::Update { new: &mut *new, old }).await?);
            }
        }
        // The name was valid when the object was created; it can't have changed.
        let mut errors = metadata::validate(new.meta(), info.namespaced, &|_, _| Vec::new());
        errors.append(&mut metadata::validate_update(new.meta(), old.meta()));
        errors.append(&mut resource.validate_update(request.kind, &*new, old));
        if !errors.is_empty() {
            return Err(ApiError::invalid(info.group, info.kind, target.name, &errors));
        }
        if request.kind == UpdateKind::Main {
            for warning in resource.warnings(&*new, Some(old)) {
                ctx.warn(warning);
            }
        }
        if request.admission {
            self.validate_admission(ctx, target, Operation::Update, Some(new), Some(old), request.dry_run)
                .await?;
        }
        Ok(side)
    }

    /// The update took away the last thing that held an object that was to be deleted.
    async fn delete_instead(
        &self,
        key: &str,
        resource: &dyn crate::registry::Resource,
        mut new: Box<dyn Object>,
        stored: &Stored,
        side: &[SideWrite],
        dry_run: bool,
    ) -> Result<Attempt, ApiError> {
        let value = Self::encode(resource, &mut *new)?;
        if dry_run {
            return Ok(Attempt::Unchanged(self.saved(resource, new, &value, stored.revision, false)?));
        }
        let commit = Commit { key, expected: stored.revision, write: Write::Delete, side };
        let committed = match self.storage.commit(&commit).await {
            Ok(committed) => committed,
            Err(error) => return Ok(Attempt::Unknown(api_error(error))),
        };
        Ok(match committed {
            Committed::At(revision) => Attempt::Done(self.saved(resource, new, &value, revision, false)?),
            Committed::Conflict(newer) => Attempt::Conflict(newer),
            Committed::SideConflict => Attempt::Again,
        })
    }
}

enum Attempt {
    Done(Saved),
    /// Nothing was written.
    Unchanged(Saved),
    /// Another writer was first; this is what it left.
    Conflict(Option<Arc<Stored>>),
    /// Only a side write lost; the object is as it was.
    Again,
    /// It may have been done or not: never to be tried again.
    Unknown(ApiError),
}

/// An object being deleted goes with the update that removes its last finalizer.
fn goes_now(resource: &dyn crate::registry::Resource, new: &dyn Object, old: &dyn Object) -> bool {
    old.meta().deletion_timestamp.is_some()
        && old.meta().deletion_grace_period_seconds.unwrap_or(0) == 0
        && new.meta().finalizers.as_ref().is_none_or(Vec::is_empty)
        && !resource.has_other_finalizers(new)
}

fn stale(target: Target<'_>) -> ApiError {
    ApiError::stale(target.info().group, target.info().plural, target.name)
}

/// Holds the client to the revision it gave, if any.
fn check_revision(
    target: Target<'_>,
    kind: UpdateKind<'_>,
    new: &mut ObjectMeta,
    revision: i64,
) -> Result<(), ApiError> {
    let given = metadata::text(new.resource_version.as_ref());
    if given.is_empty() || given == "0" {
        if kind == UpdateKind::Main && !target.resource.allow_unconditional_update() {
            let path = Path::new("metadata").child("resourceVersion");
            let error = Error::invalid(&path, "", "must be specified for an update");
            return Err(ApiError::invalid(
                target.info().group,
                target.info().kind,
                target.name,
                &vec![error],
            ));
        }
        return Ok(());
    }
    match given.parse::<i64>() {
        Ok(given) if given == revision => Ok(()),
        Ok(_) => Err(stale(target)),
        Err(_) => {
            let path = Path::new("metadata").child("resourceVersion");
            let error = Error::invalid(&path, given, "strconv.ParseUint: parsing: invalid syntax");
            Err(ApiError::invalid(target.info().group, target.info().kind, target.name, &vec![error]))
        }
    }
}

/// A uid in the new object says which incarnation the client means.
fn check_uid(target: Target<'_>, new: &ObjectMeta, old: &ObjectMeta) -> Result<(), ApiError> {
    let (new, old) = (metadata::text(new.uid.as_ref()), metadata::text(old.uid.as_ref()));
    if new.is_empty() || new == old {
        return Ok(());
    }
    Err(target
        .conflict(&format!("Precondition failed: UID in precondition: {new}, UID in object meta: {old}")))
}
