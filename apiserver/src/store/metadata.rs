//! The part of metadata that the server owns, and its validation.
//!
//! Upstream: `registry/rest/{create,update,meta}.go` and `api/validation/objectmeta.go`.

use apimachinery::status::ApiError;
use apimachinery::validation::names::{is_dns1123_label, is_qualified_name, is_valid_label_value};
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use super::Target;

/// All annotations of an object together may be this long.
const TOTAL_ANNOTATION_SIZE_LIMIT: usize = 256 * 1024;
const FINALIZERS: &[&str] = &["orphan", "foregroundDeletion", "kubernetes"];

/// Unset and empty mean the same for a string of metadata.
pub(super) fn text(field: Option<&String>) -> &str {
    field.map_or("", String::as_str)
}

/// Puts the namespace of the URL into the object, or refuses when they differ.
pub(super) fn set_namespace(target: Target<'_>, meta: &mut ObjectMeta) -> Result<(), ApiError> {
    let given = text(meta.namespace.as_ref());
    if !target.info().namespaced {
        // Left in place for validation to refuse.
        if given.is_empty() {
            meta.namespace = None;
        }
        return Ok(());
    }
    if given.is_empty() {
        meta.namespace = Some(target.namespace.to_owned());
    } else if given != target.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// What only the server sets on a new object.
pub(super) fn fill_new(meta: &mut ObjectMeta, now: Timestamp) {
    meta.creation_timestamp = Some(Time(now));
    meta.uid = Some(uuid::Uuid::new_v4().to_string());
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.self_link = None;
    // Field ownership is not tracked before server-side apply is served.
    meta.managed_fields = None;
}

/// What an update may not change without saying so, restored from the stored object.
pub(super) fn carry_over(new: &mut ObjectMeta, old: &ObjectMeta) {
    if text(new.uid.as_ref()).is_empty() {
        new.uid.clone_from(&old.uid);
    }
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    if new.deletion_timestamp.is_none() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    if new.deletion_grace_period_seconds.is_none() {
        new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    }
    if text(new.generate_name.as_ref()).is_empty() {
        new.generate_name.clone_from(&old.generate_name);
    }
    new.generation = old.generation;
    new.self_link = None;
    new.managed_fields.clone_from(&old.managed_fields);
}

/// Validates metadata of a new or changed object. `name_problems` are the resource's own.
pub(super) fn validate(
    meta: &ObjectMeta,
    namespaced: bool,
    validate_name: &dyn Fn(&str, bool) -> Vec<String>,
) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    let generate_name = text(meta.generate_name.as_ref());
    if !generate_name.is_empty() {
        for problem in validate_name(generate_name, true) {
            errors.push(Error::invalid(&path.child("generateName"), generate_name, problem));
        }
    }
    let name = text(meta.name.as_ref());
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), "name or generateName is required"));
    } else {
        for problem in validate_name(name, false) {
            errors.push(Error::invalid(&path.child("name"), name, problem));
        }
    }
    let namespace = text(meta.namespace.as_ref());
    if namespaced {
        if namespace.is_empty() {
            errors.push(Error::required(&path.child("namespace"), ""));
        } else {
            for problem in is_dns1123_label(namespace) {
                errors.push(Error::invalid(&path.child("namespace"), namespace, problem));
            }
        }
    } else if !namespace.is_empty() {
        errors.push(Error::forbidden(&path.child("namespace"), "not allowed on this type"));
    }
    validate_maps(meta, &path, &mut errors);
    validate_owner_references(meta.owner_references.as_deref().unwrap_or_default(), &path, &mut errors);
    validate_finalizers(meta.finalizers.as_deref().unwrap_or_default(), &path, &mut errors);
    errors
}

fn validate_maps(meta: &ObjectMeta, path: &Path, errors: &mut ErrorList) {
    for (key, value) in meta.labels.iter().flatten() {
        for problem in is_qualified_name(key) {
            errors.push(Error::invalid(&path.child("labels"), key, problem));
        }
        for problem in is_valid_label_value(value) {
            errors.push(Error::invalid(&path.child("labels"), value, problem));
        }
    }
    let mut size = 0;
    for (key, value) in meta.annotations.iter().flatten() {
        for problem in is_qualified_name(&key.to_lowercase()) {
            errors.push(Error::invalid(&path.child("annotations"), key, problem));
        }
        size += key.len() + value.len();
    }
    if size > TOTAL_ANNOTATION_SIZE_LIMIT {
        errors.push(Error::too_long(&path.child("annotations"), TOTAL_ANNOTATION_SIZE_LIMIT));
    }
}

fn validate_owner_references(owners: &[OwnerReference], path: &Path, errors: &mut ErrorList) {
    let path = path.child("ownerReferences");
    let mut controller: Option<&str> = None;
    for (index, owner) in owners.iter().enumerate() {
        let path = path.index(index);
        if owner.api_version.is_empty() {
            errors.push(Error::invalid(
                &path.child("apiVersion"),
                owner.api_version.as_str(),
                "version must not be empty",
            ));
        }
        if owner.kind.is_empty() {
            errors.push(Error::invalid(&path.child("kind"), owner.kind.as_str(), "must not be empty"));
        }
        if owner.name.is_empty() {
            errors.push(Error::invalid(&path.child("name"), owner.name.as_str(), "must not be empty"));
        }
        if owner.uid.is_empty() {
            errors.push(Error::invalid(&path.child("uid"), owner.uid.as_str(), "must not be empty"));
        }
        if owner.controller == Some(true) {
            if let Some(first) = controller {
                errors.push(Error::invalid(
                    &path,
                    owner.name.as_str(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                        owner.name
                    ),
                ));
            }
            controller = Some(&owner.name);
        }
    }
}

fn validate_finalizers(finalizers: &[String], path: &Path, errors: &mut ErrorList) {
    let path = path.child("finalizers");
    for finalizer in finalizers {
        for problem in is_qualified_name(finalizer) {
            errors.push(Error::invalid(&path, finalizer, problem));
        }
        if !finalizer.contains('/') && !FINALIZERS.contains(&finalizer.as_str()) {
            errors.push(Error::invalid(
                &path,
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.push(Error::invalid(
            &path,
            finalizers.join(","),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
}

/// Validates what an update may not change.
pub(super) fn validate_update(new: &ObjectMeta, old: &ObjectMeta) -> ErrorList {
    const IMMUTABLE: &str = "field is immutable";
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    let mut same = |field: &str, new: &str, old: &str| {
        if new != old {
            errors.push(Error::invalid(&path.child(field), new, IMMUTABLE));
        }
    };
    same("name", text(new.name.as_ref()), text(old.name.as_ref()));
    same("namespace", text(new.namespace.as_ref()), text(old.namespace.as_ref()));
    same("uid", text(new.uid.as_ref()), text(old.uid.as_ref()));
    if new.deletion_timestamp != old.deletion_timestamp {
        let shown = new.deletion_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
        errors.push(Error::invalid(&path.child("deletionTimestamp"), shown, IMMUTABLE));
    }
    if new.deletion_grace_period_seconds != old.deletion_grace_period_seconds {
        let shown = new.deletion_grace_period_seconds.unwrap_or_default();
        errors.push(Error::invalid(&path.child("deletionGracePeriodSeconds"), shown, IMMUTABLE));
    }
    if old.deletion_timestamp.is_some() {
        // A finalizer added to an object that is going could outlive what it was to do.
        let old = old.finalizers.as_deref().unwrap_or_default();
        let added: Vec<&String> = new.finalizers.iter().flatten().filter(|f| !old.contains(f)).collect();
        if !added.is_empty() {
            errors.push(Error::forbidden(
                &path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{added:?}"
                ),
            ));
        }
    }
    errors
}
