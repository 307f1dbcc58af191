//! The three patch formats that change a stored object: JSON patch (RFC 6902), JSON merge patch (RFC 7386)
//! and Kubernetes' strategic merge patch.
//!
//! All of them take and give JSON values; which fields a user may change is validation's matter. Upstream:
//! `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`, `k8s.io/apimachinery/pkg/util/strategicpatch`.

use serde_json::{Map, Value};

pub mod merge_keys;
mod strategic;

pub use merge_keys::PatchKind;
pub use strategic::strategic_merge_patch;

/// Most operations in one JSON patch, as upstream.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// Why a patch can't be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The patch document has the wrong form.
    #[error("{0}")]
    Malformed(String),
    /// A JSON patch with more than [`MAX_JSON_PATCH_OPERATIONS`] operations.
    #[error("The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// A well-formed patch that does not fit the object, such as a failed `test` operation.
    #[error("{0}")]
    DoesNotApply(String),
}

/// Applies a JSON patch.
///
/// # Errors
/// A malformed patch, too many operations, or an operation that does not fit the object.
pub fn json_patch(mut document: Value, patch: &Value) -> Result<Value, Error> {
    let operations = patch.as_array().map_or(0, Vec::len);
    if operations > MAX_JSON_PATCH_OPERATIONS {
        return Err(Error::TooManyOperations(operations));
    }
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|e| Error::Malformed(e.to_string()))?;
    json_patch::patch(&mut document, &patch).map_err(|e| Error::DoesNotApply(e.to_string()))?;
    Ok(document)
}

/// Applies a JSON merge patch.
///
/// # Errors
/// A patch that is no object.
pub fn merge_patch(mut document: Value, patch: &Value) -> Result<Value, Error> {
    if !patch.is_object() {
        return Err(Error::Malformed("json: cannot unmarshal patch into a JSON object".to_owned()));
    }
    json_patch::merge(&mut document, patch);
    Ok(document)
}

/// The object behind `value`, or the error of a patch that should be one.
fn into_object(value: Value) -> Result<Map<String, Value>, Error> {
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(Error::Malformed("json: cannot unmarshal patch into a JSON object".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_patch_applies_or_says_why_not() {
        let pod = json!({"metadata": {"labels": {"a": "1"}}});
        let patched =
            json_patch(pod.clone(), &json!([{"op": "replace", "path": "/metadata/labels/a", "value": "2"}]));
        assert_eq!(patched, Ok(json!({"metadata": {"labels": {"a": "2"}}})));
        assert!(matches!(
            json_patch(pod.clone(), &json!([{"op": "test", "path": "/metadata/labels/a", "value": "2"}])),
            Err(Error::DoesNotApply(_))
        ));
        assert!(matches!(json_patch(pod.clone(), &json!({"op": "test"})), Err(Error::Malformed(_))));
        let many = Value::Array(vec![json!({"op": "remove", "path": "/x"}); 10_001]);
        assert_eq!(json_patch(pod.clone(), &many), Err(Error::TooManyOperations(10_001)));
    }

    #[test]
    fn merge_patch_deletes_by_null_and_replaces_lists() {
        let object = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        let patched = merge_patch(object.clone(), &json!({"a": {"b": null}, "l": [3]}));
        assert_eq!(patched, Ok(json!({"a": {"c": 2}, "l": [3]})));
        assert!(merge_patch(object.clone(), &json!([1])).is_err());
    }
}
