//! What strategies do to and demand of `metadata`: generation, the part that a status update may not touch,
//! labels and annotations of embedded templates. The store validates an object's own metadata.

use std::collections::BTreeMap;

use apimachinery::validation::names::{is_qualified_name, is_valid_label_value};
use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// All annotations of an object together may be this long.
const TOTAL_ANNOTATION_SIZE_LIMIT: usize = 256 * 1024;

/// The text of upstream's error for a field that may not change.
pub(crate) const FIELD_IMMUTABLE: &str = "field is immutable";

/// Generation of an updated object: one more than the stored one when the desired state changed.
pub(crate) fn set_generation(new: &mut ObjectMeta, old: &ObjectMeta, changed: bool) {
    new.generation = if changed { Some(old.generation.unwrap_or(0) + 1) } else { old.generation };
}

/// Keeps what an update of the status may not touch (upstream `metav1.ResetObjectMetaForStatus`).
pub(crate) fn reset_for_status(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.generation = old.generation;
    new.labels.clone_from(&old.labels);
    new.annotations.clone_from(&old.annotations);
    new.finalizers.clone_from(&old.finalizers);
    new.owner_references.clone_from(&old.owner_references);
    new.managed_fields.clone_from(&old.managed_fields);
}

/// Labels: qualified keys, valid values.
pub(crate) fn validate_labels(
    labels: Option<&BTreeMap<String, String>>,
    path: &Path,
    errors: &mut ErrorList,
) {
    for (key, value) in labels.into_iter().flatten() {
        for problem in is_qualified_name(key) {
            errors.push(Error::invalid(path, key, problem));
        }
        for problem in is_valid_label_value(value) {
            errors.push(Error::invalid(path, value, problem));
        }
    }
}

/// Annotations: qualified keys (in any case), bounded size.
pub(crate) fn validate_annotations(
    annotations: Option<&BTreeMap<String, String>>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        for problem in is_qualified_name(&key.to_lowercase()) {
            errors.push(Error::invalid(path, key, problem));
        }
        size += key.len() + value.len();
    }
    if size > TOTAL_ANNOTATION_SIZE_LIMIT {
        errors.push(Error::too_long(path, TOTAL_ANNOTATION_SIZE_LIMIT));
    }
}

/// A field that must stay as it was.
pub(crate) fn validate_immutable<T: PartialEq + serde::Serialize>(
    new: &T,
    old: &T,
    path: &Path,
    errors: &mut ErrorList,
) {
    if new != old {
        errors.push(immutable(new, path));
    }
}

/// The error for a field that must stay as it was and did not.
pub(crate) fn immutable<T: serde::Serialize>(new: &T, path: &Path) -> Error {
    let value = serde_json::to_value(new).unwrap_or_default();
    Error::invalid(path, value, FIELD_IMMUTABLE)
}

/// A count or duration that may not be negative.
pub(crate) fn validate_nonnegative(value: Option<i64>, path: &Path, errors: &mut ErrorList) {
    if let Some(value) = value
        && value < 0
    {
        errors.push(Error::invalid(path, value, "must be greater than or equal to 0"));
    }
}
