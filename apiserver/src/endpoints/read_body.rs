//! Reading a request's body: bounded, decoded from JSON, YAML or protobuf, checked against the URL.
//!
//! Upstream: `endpoints/handlers/{create,update,rest}.go`.

use std::time::Duration;

use apimachinery::status::ApiError;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use serde::Deserialize;

use super::negotiation::{self, BodyFormat};
use super::options::FieldValidation;
use crate::codec::protobuf;
use crate::registry::{Object, Resource};
use crate::request::RequestContext;

/// Upstream's limit of a request body.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// What is still read, and thrown away, of a body that is too large: clients read an answer only after they have
/// sent theirs.
const MAX_DRAINED: usize = 16 * 1024 * 1024;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The whole body, or 413.
pub async fn read(mut body: Incoming) -> Result<Bytes, ApiError> {
    let result = read_bounded(&mut body).await;
    if matches!(&result, Err(error) if error.code() == 413) {
        // A client that is too slow or sends too much finds its stream reset.
        let _ = tokio::time::timeout(DRAIN_TIME, drain(body)).await;
    }
    result
}

async fn drain(mut body: Incoming) {
    let mut drained = 0;
    while let Some(Ok(frame)) = body.frame().await {
        drained += frame.data_ref().map_or(0, Bytes::len);
        if drained > MAX_DRAINED {
            return;
        }
    }
}

async fn read_bounded(body: &mut Incoming) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::request_entity_too_large(format!("limit is {MAX_BODY}"));
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let mut first: Option<Bytes> = None;
    let mut all: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ApiError::bad_request(format!("unable to read the request body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        match (&mut first, &mut all) {
            // Most bodies are one frame, which needs no copy.
            (None, None) => first = Some(data),
            (_, Some(all)) => all.extend_from_slice(&data),
            (Some(one), none) => {
                let mut joined = BytesMut::with_capacity(one.len() + data.len());
                joined.extend_from_slice(one);
                joined.extend_from_slice(&data);
                *none = Some(joined);
            }
        }
        let length = all.as_ref().map_or_else(|| first.as_ref().map_or(0, Bytes::len), BytesMut::len);
        if length > MAX_BODY {
            return Err(too_large());
        }
    }
    Ok(all.map_or_else(|| first.unwrap_or_default(), BytesMut::freeze))
}

/// The body as JSON, whatever it came as.
pub fn to_json(headers: &HeaderMap, body: Bytes) -> Result<Bytes, ApiError> {
    match negotiation::body_format(headers)? {
        BodyFormat::Json => Ok(body),
        BodyFormat::Yaml => yaml_to_json(&body),
        BodyFormat::Protobuf => protobuf::to_json(body),
    }
}

/// One YAML document as JSON.
pub fn yaml_to_json(body: &[u8]) -> Result<Bytes, ApiError> {
    let value: serde_json::Value = serde_saphyr::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("error converting YAML to JSON: yaml: {error}")))?;
    serde_json::to_vec(&value).map(Bytes::from).map_err(ApiError::internal)
}

#[derive(Deserialize)]
struct TypeMeta<'a> {
    #[serde(rename = "apiVersion", default, borrow)]
    api_version: std::borrow::Cow<'a, str>,
    #[serde(default, borrow)]
    kind: std::borrow::Cow<'a, str>,
}

/// Decodes an object of `resource` from JSON, treating unknown fields as the client asked.
pub fn decode(
    ctx: &RequestContext,
    resource: &dyn Resource,
    json: &[u8],
    validation: FieldValidation,
) -> Result<Box<dyn Object>, ApiError> {
    let mut strict = Vec::new();
    let wanted = (validation != FieldValidation::Ignore).then_some(&mut strict);
    let object =
        resource.decode(json, wanted).map_err(|error| wrong_type(resource, json).unwrap_or(error))?;
    if strict.is_empty() {
        return Ok(object);
    }
    if validation == FieldValidation::Strict {
        let info = resource.info();
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {problems}",
            kind = info.kind,
            version = info.version,
            problems = strict.join(", "),
        )));
    }
    for problem in strict {
        ctx.warn(problem);
    }
    Ok(object)
}

/// A clearer error than the decoder's, when the body is an object of another kind.
fn wrong_type(resource: &dyn Resource, json: &[u8]) -> Option<ApiError> {
    let found: TypeMeta<'_> = serde_json::from_slice(json).ok()?;
    let info = resource.info();
    let expected = info.api_version();
    if !found.api_version.is_empty() && found.api_version != expected {
        return Some(ApiError::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({expected})",
            found.api_version
        )));
    }
    if !found.kind.is_empty() && found.kind != info.kind {
        return Some(ApiError::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: the kind in the data does not match the expected kind",
            found.kind, info.version, info.kind
        )));
    }
    None
}

/// The name and namespace in the body must be the URL's.
pub fn check_name(object: &dyn Object, name: &str, namespace: &str) -> Result<(), ApiError> {
    let meta = object.meta();
    let found = meta.name.as_deref().unwrap_or_default();
    if found.is_empty() {
        return Err(ApiError::bad_request("name must be provided"));
    }
    if found != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({found}) does not match the name on the URL ({name})"
        )));
    }
    let found = meta.namespace.as_deref().unwrap_or_default();
    if !namespace.is_empty() && !found.is_empty() && found != namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({found}) does not match the namespace on the request ({namespace})"
        )));
    }
    Ok(())
}
