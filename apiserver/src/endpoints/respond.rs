//! Objects, lists and errors as HTTP responses.
//!
//! Upstream: `endpoints/handlers/{response,responsewriters}`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::value::RawValue;

use super::negotiation::{Accepted, Format, Shape};
use super::table;
use crate::body::Body;
use crate::registry::{Object, Resource};
use crate::storage::encoded::Layout;
use crate::storage::{Stored, encoded};
use crate::store::Saved;

/// List bodies below this size are sent whole, with their length.
const CHUNK: usize = 64 * 1024;

/// A response with a JSON body, re-encoded if the client wants YAML.
pub fn json(status: StatusCode, format: Format, body: Bytes) -> Result<Response<Body>, ApiError> {
    let (content_type, body) = match format {
        Format::Json => ("application/json", body),
        Format::Yaml => ("application/yaml", to_yaml(&body)?),
    };
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

fn to_yaml(json: &[u8]) -> Result<Bytes, ApiError> {
    let value: serde_json::Value = serde_json::from_slice(json).map_err(ApiError::internal)?;
    serde_saphyr::to_string(&value).map(Bytes::from).map_err(ApiError::internal)
}

/// Any serialisable value as JSON (or YAML).
pub fn value(
    status: StatusCode,
    format: Format,
    value: &impl serde::Serialize,
) -> Result<Response<Body>, ApiError> {
    json(status, format, Bytes::from(serde_json::to_vec(value).map_err(ApiError::internal)?))
}

/// An error as its Status.
pub fn error(error: &ApiError) -> Response<Body> {
    // Encoding a Status cannot fail; an empty body still carries the code.
    let body = serde_json::to_vec(error.status()).unwrap_or_default();
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let retry = error.status().details.as_ref().and_then(|details| details.retry_after_seconds);
    if let Some(seconds) = retry.filter(|seconds| *seconds > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// One stored object.
pub fn stored(
    resource: &dyn Resource,
    accepted: Accepted,
    stored: &Stored,
) -> Result<Response<Body>, ApiError> {
    let body = match accepted.shape {
        Shape::Object if resource.info().converted => converted(resource, stored, stored.revision)?,
        Shape::Object => encoded::with_revision(&stored.value, stored.revision),
        Shape::Metadata => partial_metadata(&stored.value, stored.revision)?,
        Shape::Table => {
            let object = crate::store::decode(resource, &stored.value, stored.revision)?;
            table::of_one(resource, &*object)?
        }
    };
    json(StatusCode::OK, accepted.format, body)
}

/// The outcome of a write.
pub fn saved(
    resource: &dyn Resource,
    accepted: Accepted,
    status: StatusCode,
    saved: Saved,
) -> Result<Response<Body>, ApiError> {
    let body = match accepted.shape {
        Shape::Object => saved.json,
        Shape::Metadata => partial_metadata_of(&*saved.object)?,
        Shape::Table => table::of_one(resource, &*saved.object)?,
    };
    json(status, accepted.format, body)
}

/// An object whose stored form is not the served one.
pub fn converted(resource: &dyn Resource, stored: &Stored, revision: i64) -> Result<Bytes, ApiError> {
    let object = crate::store::decode(resource, &stored.value, revision)?;
    object.to_json().map(Bytes::from).map_err(ApiError::internal)
}

#[derive(serde::Deserialize)]
struct Partial<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// The metadata of a stored object as PartialObjectMetadata, without decoding the object.
pub fn partial_metadata(value: &[u8], revision: i64) -> Result<Bytes, ApiError> {
    let partial: Partial<'_> = serde_json::from_slice(value).map_err(ApiError::internal)?;
    let metadata = partial.metadata.get().trim_start();
    let rest = metadata.strip_prefix('{').unwrap_or("}").trim_start();
    let comma = if rest.starts_with('}') { "" } else { "," };
    Ok(Bytes::from(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{{\"resourceVersion\":\"{revision}\"{comma}{rest}}}"
    )))
}

/// The metadata of a decoded object as PartialObjectMetadata.
pub fn partial_metadata_of(object: &dyn Object) -> Result<Bytes, ApiError> {
    let metadata = serde_json::to_string(object.meta()).map_err(ApiError::internal)?;
    Ok(Bytes::from(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata}}}"
    )))
}

/// The metadata of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListMetadata {
    pub revision: i64,
    pub continue_token: Option<String>,
    pub remaining: Option<i64>,
}

impl ListMetadata {
    pub fn to_json(&self) -> String {
        let mut out = format!("{{\"resourceVersion\":\"{}\"", self.revision);
        if let Some(token) = &self.continue_token {
            // A token is base64: nothing in it needs escaping.
            out.push_str(&format!(",\"continue\":\"{token}\""));
        }
        if let Some(remaining) = self.remaining {
            out.push_str(&format!(",\"remainingItemCount\":{remaining}"));
        }
        out.push('}');
        out
    }
}

/// A list of stored objects: a concatenation of their bytes, rendered as it is sent.
pub fn list(
    resource: &dyn Resource,
    accepted: Accepted,
    metadata: &ListMetadata,
    items: Vec<Arc<Stored>>,
) -> Result<Response<Body>, ApiError> {
    let info = resource.info();
    let (kind, api_version) = match accepted.shape {
        Shape::Object => (format!("{}List", info.kind), info.api_version()),
        Shape::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        Shape::Table => return Err(ApiError::internal("tables are rendered elsewhere")),
    };
    let mut items = if accepted.shape == Shape::Metadata {
        let partial =
            |stored: &Arc<Stored>| Ok(Item::Ready(partial_metadata(&stored.value, stored.revision)?));
        items.iter().map(partial).collect::<Result<Vec<_>, ApiError>>()?
    } else if info.converted {
        let ready = |stored: &Arc<Stored>| Ok(Item::Ready(converted(resource, stored, stored.revision)?));
        items.iter().map(ready).collect::<Result<Vec<_>, ApiError>>()?
    } else {
        items.into_iter().map(Item::Stored).collect()
    }
    .into_iter();
    let mut buffer = BytesMut::with_capacity(CHUNK);
    buffer.put_slice(
        format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{},\"items\":[",
            metadata.to_json()
        )
        .as_bytes(),
    );
    let mut first = true;
    fill(&mut buffer, &mut items, &mut first);
    if items.len() == 0 {
        buffer.put_slice(b"]}\n");
        return json(StatusCode::OK, accepted.format, buffer.freeze());
    }
    if accepted.format == Format::Yaml {
        while items.len() > 0 {
            fill_more(&mut buffer, &mut items, &mut first);
        }
        buffer.put_slice(b"]}\n");
        return json(StatusCode::OK, accepted.format, buffer.freeze());
    }
    let rest = stream::unfold(Some((items, false)), |state| async move {
        let (mut items, mut first) = state?;
        let mut buffer = BytesMut::with_capacity(CHUNK + 8 * 1024);
        fill(&mut buffer, &mut items, &mut first);
        let next = if items.len() == 0 {
            buffer.put_slice(b"]}\n");
            None
        } else {
            Some((items, first))
        };
        Some((buffer.freeze(), next))
    });
    let head = stream::once(std::future::ready(buffer.freeze()));
    let mut response = Response::new(Body::stream(futures::StreamExt::chain(head, rest)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// An item of a list, as late as possible.
enum Item {
    Stored(Arc<Stored>),
    Ready(Bytes),
}

/// Renders items until the buffer holds a chunk.
fn fill(buffer: &mut BytesMut, items: &mut std::vec::IntoIter<Item>, first: &mut bool) {
    while buffer.len() < CHUNK && items.len() > 0 {
        fill_more(buffer, items, first);
    }
}

fn fill_more(buffer: &mut BytesMut, items: &mut std::vec::IntoIter<Item>, first: &mut bool) {
    let Some(item) = items.next() else { return };
    if !std::mem::take(first) {
        buffer.put_u8(b',');
    }
    match item {
        Item::Ready(bytes) => buffer.put_slice(&bytes),
        Item::Stored(stored) => match Layout::of(&stored.value) {
            Some(layout) => layout.write_item(&stored.value, stored.revision, buffer),
            None => buffer.put_slice(&stored.value),
        },
    }
}

/// Adds the request's warnings to a response.
pub fn add_warnings(response: &mut Response<Body>, warnings: Vec<String>) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}
