//! PATCH: JSON patch, merge patch and strategic merge patch. Server-side apply is refused until it is served.
//!
//! Upstream: `endpoints/handlers/patch.go`.

use apimachinery::patch::{self, PatchKind};
use apimachinery::status::ApiError;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;

use super::options::{FieldValidation, WriteOptions};
use super::{Call, negotiation, read_body, respond};
use crate::body::Body;
use crate::registry::{Object, UpdateKind};
use crate::store::{NewObject, UpdateRequest};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const ACCEPTED: &[&str] = &[JSON_PATCH, MERGE_PATCH, STRATEGIC];

/// A patch document and how to apply it.
#[derive(Debug, Clone)]
pub struct Patch {
    form: Form,
    document: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Merge,
    Strategic(PatchKind),
}

impl Patch {
    /// Reads the body as the patch its content type says.
    pub fn parse(media_type: &str, body: &[u8], kind: PatchKind) -> Result<Self, ApiError> {
        let form = match media_type {
            JSON_PATCH => Form::Json,
            MERGE_PATCH => Form::Merge,
            STRATEGIC => Form::Strategic(kind),
            _ => return Err(ApiError::unsupported_media_type(ACCEPTED)),
        };
        let document = serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
        Ok(Self { form, document })
    }

    pub fn apply(&self, current: Value) -> Result<Value, ApiError> {
        let patched = match self.form {
            Form::Json => patch::json_patch(current, &self.document),
            Form::Merge => patch::merge_patch(current, &self.document),
            Form::Strategic(kind) => patch::strategic_merge_patch(current, self.document.clone(), kind),
        };
        patched.map_err(|error| match error {
            patch::Error::Malformed(_) => ApiError::bad_request(error.to_string()),
            patch::Error::TooManyOperations(_) => ApiError::request_entity_too_large(error),
            patch::Error::DoesNotApply(_) => {
                let message =
                    format!("the server rejected our request due to an error in our request: {error}");
                ApiError::new(422, "Invalid", message)
            }
        })
    }
}

pub async fn patch(call: Call<'_>, kind: UpdateKind<'_>, body: Incoming) -> Result<Response<Body>, ApiError> {
    let accepted = negotiation::accept(call.headers)?;
    let options = WriteOptions::parse(call.query, "PatchOptions")?;
    let info = call.target.info();
    let media_type = negotiation::media_type(call.headers);
    let patch_kind = PatchKind::for_kind(info.group, info.version, info.kind);
    let patch = Patch::parse(media_type, &read_body::read(body).await?, patch_kind)?;
    let mut change = Patched { call, patch, validation: options.field_validation };
    let request = UpdateRequest::new(kind, options.dry_run);
    let saved = call.api.store.update(call.ctx, call.target, request, &mut change).await?;
    respond::saved(call.target.resource, accepted, StatusCode::OK, saved)
}

/// The stored object with the patch applied.
struct Patched<'a> {
    call: Call<'a>,
    patch: Patch,
    validation: FieldValidation,
}

impl NewObject for Patched<'_> {
    fn new_object(&mut self, current: &dyn Object) -> Result<Box<dyn Object>, ApiError> {
        let value = current.to_value().map_err(ApiError::internal)?;
        let json = serde_json::to_vec(&self.patch.apply(value)?).map_err(ApiError::internal)?;
        let object = read_body::decode(self.call.ctx, self.call.target.resource, &json, self.validation)?;
        read_body::check_name(&*object, self.call.target.name, self.call.target.namespace)?;
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_content_type_is_its_own_patch() {
        let kind = PatchKind::for_kind("", "v1", "Pod");
        let current = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
        for (media_type, body, pointer, want) in [
            (
                JSON_PATCH,
                r#"[{"op":"replace","path":"/metadata/labels/a","value":"2"}]"#,
                "/metadata/labels/a",
                json!("2"),
            ),
            (MERGE_PATCH, r#"{"metadata":{"labels":{"a":null}}}"#, "/metadata/labels/a", Value::Null),
            (
                STRATEGIC,
                r#"{"spec":{"containers":[{"name":"c","image":"y"}]}}"#,
                "/spec/containers/0/image",
                json!("y"),
            ),
        ] {
            let patched =
                Patch::parse(media_type, body.as_bytes(), kind).unwrap().apply(current.clone()).unwrap();
            assert_eq!(patched.pointer(pointer).cloned().unwrap_or(Value::Null), want, "{media_type}");
        }
    }

    #[test]
    fn errors_have_upstreams_codes() {
        let kind = PatchKind::for_kind("", "v1", "Pod");
        for other in ["application/apply-patch+yaml", "application/json", ""] {
            assert_eq!(Patch::parse(other, b"{}", kind).unwrap_err().code(), 415, "{other}");
        }
        assert_eq!(Patch::parse(MERGE_PATCH, b"{", kind).unwrap_err().code(), 400);
        let test = br#"[{"op":"test","path":"/a","value":2}]"#;
        let error = Patch::parse(JSON_PATCH, test, kind).unwrap().apply(json!({"a": 1})).unwrap_err();
        assert_eq!(error.code(), 422);
    }
}
