//! Deleting an object: at once, gracefully, or when its finalizers are gone.
//!
//! [`decide`] is the whole policy, without IO. Upstream: `registry/rest/delete.go` (`BeforeDelete`) and
//! `Store.Delete`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Time};

use super::{Current, Saved, Store, Target, api_error, decode, metadata};
use crate::admission::Operation;
use crate::allocation::Change;
use crate::registry::{DefaultGarbageCollection, Object, Resource};
use crate::request::RequestContext;
use crate::storage::{Commit, Committed, Stored, Write};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What came of a delete.
#[derive(Debug)]
pub enum Deleted {
    /// It is gone; this was its last state.
    Gone(Saved),
    /// It is marked and will go when its grace period or finalizers end.
    Pending(Saved),
}

/// What to do about a delete of an object.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Remove the key.
    Remove,
    /// Store the object, which [`decide`] has marked.
    Mark,
    /// It is being deleted already and nothing changes.
    AlreadyPending,
}

impl Store {
    /// Deletes what `target` names.
    pub async fn delete(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let key = self.key(target.info(), target.namespace, target.name);
        let mut current = self.current(&key).await?;
        let mut admitted = false;
        loop {
            let attempt = match &current.stored {
                Some(stored) => self.try_delete(ctx, target, options, &key, stored, &mut admitted).await,
                None => Err(target.not_found()),
            };
            let outcome = match attempt {
                Ok(Attempt::Done(deleted)) => return Ok(deleted),
                Ok(Attempt::Conflict(newer)) => {
                    current = Current { stored: newer, fresh: true };
                    continue;
                }
                Ok(Attempt::Again) => continue,
                Ok(Attempt::Unknown(error)) => return Err(error),
                Ok(Attempt::Unchanged(deleted)) => Ok(deleted),
                Err(error) => Err(error),
            };
            if self.confirm(&key, &mut current).await? {
                return outcome;
            }
        }
    }

    async fn try_delete(
        &self,
        ctx: &RequestContext,
        target: Target<'_>,
        options: &DeleteOptions,
        key: &str,
        stored: &Stored,
        admitted: &mut bool,
    ) -> Result<Attempt, ApiError> {
        let resource = target.resource;
        let dry_run = options.dry_run.as_ref().is_some_and(|stages| !stages.is_empty());
        let mut object = decode(resource, &stored.value, stored.revision)?;
        check_preconditions(target, options, object.meta())?;
        if !*admitted {
            self.admit(ctx, target, Operation::Delete, None, Some(&*object), dry_run).await?;
            self.validate_admission(ctx, target, Operation::Delete, None, Some(&*object), dry_run).await?;
            *admitted = true;
        }
        let decision = decide(resource, &mut *object, options, ctx.now);
        if decision == Decision::AlreadyPending {
            let saved = self.saved(resource, object, &stored.value, stored.revision, false)?;
            return Ok(Attempt::Unchanged(Deleted::Pending(saved)));
        }
        let removes = decision == Decision::Remove;
        let mut side = Vec::new();
        if removes {
            for allocator in self.allocators(target.info()) {
                side.append(&mut allocator.allocate(ctx, Change::Delete { old: &*object }).await?);
            }
        }
        let value = Self::encode(resource, &mut *object)?;
        let deleted = |revision, object| {
            let saved = self.saved(resource, object, &value, revision, false)?;
            Ok::<_, ApiError>(if removes { Deleted::Gone(saved) } else { Deleted::Pending(saved) })
        };
        if dry_run {
            return Ok(Attempt::Unchanged(deleted(stored.revision, object)?));
        }
        let write = if removes { Write::Delete } else { self.put(resource, &*object, &value) };
        let commit = Commit { key, expected: stored.revision, write, side: &side };
        let committed = match self.storage.commit(&commit).await {
            Ok(committed) => committed,
            Err(error) => return Ok(Attempt::Unknown(api_error(error))),
        };
        Ok(match committed {
            Committed::At(revision) => Attempt::Done(deleted(revision, object)?),
            Committed::Conflict(newer) => Attempt::Conflict(newer),
            Committed::SideConflict => Attempt::Again,
        })
    }
}

enum Attempt {
    Done(Deleted),
    /// Nothing was written.
    Unchanged(Deleted),
    /// Another writer was first; this is what it left.
    Conflict(Option<Arc<Stored>>),
    /// Only a side write lost; the object is as it was.
    Again,
    /// It may have been done or not: never to be tried again.
    Unknown(ApiError),
}

fn check_preconditions(
    target: Target<'_>,
    options: &DeleteOptions,
    meta: &ObjectMeta,
) -> Result<(), ApiError> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    let (uid, version) = (metadata::text(meta.uid.as_ref()), metadata::text(meta.resource_version.as_ref()));
    if let Some(wanted) = &wanted.uid
        && wanted != uid
    {
        let problem =
            format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
        return Err(target.conflict(&problem));
    }
    if let Some(wanted) = &wanted.resource_version
        && wanted != version
    {
        let problem = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
        );
        return Err(target.conflict(&problem));
    }
    Ok(())
}

/// Decides, and marks `object` for what was decided.
fn decide(
    resource: &dyn Resource,
    object: &mut dyn Object,
    options: &DeleteOptions,
    now: Timestamp,
) -> Decision {
    let was_marked = object.meta().deletion_timestamp.is_some();
    let graceful = match resource.graceful_delete(object, options) {
        Some(seconds) if was_marked => match shorten(object.meta_mut(), options.grace_period_seconds) {
            Shortened::No => return Decision::AlreadyPending,
            Shortened::By => Some(seconds),
            Shortened::NotGraceful => None,
        },
        Some(seconds) => {
            object.meta_mut().deletion_timestamp = Some(Time(now + SignedDuration::from_secs(seconds)));
            object.meta_mut().deletion_grace_period_seconds = Some(seconds);
            bump_generation(object.meta_mut());
            Some(seconds)
        }
        None => None,
    };
    set_collection_finalizers(resource, object.meta_mut(), options);
    let held = object.meta().finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())
        || resource.has_other_finalizers(object);
    match graceful {
        Some(seconds) if seconds > 0 || held => Decision::Mark,
        Some(_) => Decision::Remove,
        None if held => {
            let meta = object.meta_mut();
            if meta.deletion_timestamp.as_ref().is_none_or(|time| time.0 > now) {
                meta.deletion_timestamp = Some(Time(now));
            }
            if meta.finalizers.is_some() {
                meta.deletion_grace_period_seconds = Some(0);
            }
            if !was_marked {
                bump_generation(meta);
                resource.deletion_started(object);
            }
            Decision::Mark
        }
        None => Decision::Remove,
    }
}

enum Shortened {
    /// The object's grace period stands.
    No,
    /// It now ends earlier.
    By,
    /// It was marked without a grace period.
    NotGraceful,
}

/// A second delete may only shorten the grace period of the first.
fn shorten(meta: &mut ObjectMeta, asked: Option<i64>) -> Shortened {
    let (Some(period), Some(deadline)) =
        (meta.deletion_grace_period_seconds, meta.deletion_timestamp.as_ref())
    else {
        return Shortened::NotGraceful;
    };
    match asked {
        Some(asked) if asked < period => {
            let deadline = deadline.0 - SignedDuration::from_secs(period) + SignedDuration::from_secs(asked);
            meta.deletion_timestamp = Some(Time(deadline));
            meta.deletion_grace_period_seconds = Some(asked);
            Shortened::By
        }
        _ => Shortened::No,
    }
}

/// Generation counts the mark as a change of the desired state, where it is counted at all.
fn bump_generation(meta: &mut ObjectMeta) {
    if let Some(generation) = meta.generation.filter(|generation| *generation > 0) {
        meta.generation = Some(generation + 1);
    }
}

/// Sets the finalizers that tell the garbage collector what to do with dependents.
fn set_collection_finalizers(resource: &dyn Resource, meta: &mut ObjectMeta, options: &DeleteOptions) {
    if resource.info().expires {
        return;
    }
    let finalizers = meta.finalizers.take().unwrap_or_default();
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let policy = options.propagation_policy.as_deref();
    let orphan = match (options.orphan_dependents, policy) {
        (Some(orphan), _) => orphan,
        (None, Some(policy)) => policy == "Orphan",
        (None, None) if has(ORPHAN) => true,
        (None, None) if has(FOREGROUND) => false,
        (None, None) => resource.default_garbage_collection() == DefaultGarbageCollection::Orphan,
    };
    let foreground = match (options.orphan_dependents, policy) {
        (Some(_), _) => false,
        (None, Some(policy)) => policy == "Foreground",
        (None, None) => !orphan && has(FOREGROUND),
    };
    let mut finalizers: Vec<String> =
        finalizers.into_iter().filter(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND).collect();
    if orphan {
        finalizers.push(ORPHAN.to_owned());
    }
    if foreground {
        finalizers.push(FOREGROUND.to_owned());
    }
    meta.finalizers = (!finalizers.is_empty()).then_some(finalizers);
}
