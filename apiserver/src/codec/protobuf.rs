//! Protobuf request bodies to JSON, so that decoding, defaulting and validation stay one path whatever a client speaks.
//! Reads the envelope (`k8s\0` and a `runtime.Unknown`); `schema` knows the messages, `json` writes their fields. Does not
//! encode: answers are JSON, which every client that sends protobuf takes too.
//!
//! Upstream: `apimachinery/pkg/runtime/serializer/protobuf`.

use std::fmt::Write as _;

use apimachinery::status::ApiError;
use bytes::Bytes;
use prost_reflect::prost::DecodeError;
use prost_reflect::{DynamicMessage, Value as Field};
use serde_json::{Map, Value};
use thiserror::Error;

mod json;
mod schema;
#[cfg(test)]
mod tests;

use schema::Schema;

/// What every protobuf body begins with.
const MAGIC: &[u8] = b"k8s\0";
const UNKNOWN: &str = "k8s.io.apimachinery.pkg.runtime.Unknown";
/// Objects within objects (`RawExtension`); nothing that is served has more than one such level.
const MAX_NESTING: usize = 4;
/// Bytes of a body that an error shows.
const SHOWN: usize = 30;

/// Why a body cannot be read.
#[derive(Debug, Error)]
enum Error {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoPrefix,
    #[error("{0}")]
    Malformed(#[from] DecodeError),
    #[error("Object 'Kind' is missing in the protobuf envelope")]
    NoKind,
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    NotRegistered { api_version: String, kind: String },
    #[error(
        "content type \"{content_type}\" with encoding \"{encoding}\" is not supported in a protobuf envelope"
    )]
    Content { content_type: String, encoding: String },
    #[error("objects are nested too deeply")]
    TooDeep,
    #[error("{field}: {problem}")]
    Field { field: String, problem: String },
    #[error("the protobuf definitions are unusable: {0}")]
    Schema(&'static str),
}

/// The error and, once the envelope was read, the object's apiVersion and kind.
#[derive(Debug)]
struct Failure {
    error: Error,
    kind: Option<(String, String)>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, kind: None }
    }
}

/// The JSON form of a protobuf body, or 400.
pub fn to_json(body: Bytes) -> Result<Bytes, ApiError> {
    let shown = body.slice(..body.len().min(SHOWN));
    let value = decode(body, 0).map_err(|failure| api_error(&failure, &shown))?;
    serde_json::to_vec(&value).map(Bytes::from).map_err(ApiError::internal)
}

fn api_error(failure: &Failure, body: &[u8]) -> ApiError {
    let error = &failure.error;
    if matches!(error, Error::Schema(_)) {
        return ApiError::internal(error);
    }
    ApiError::bad_request(match &failure.kind {
        Some((api_version, kind)) => {
            let version = api_version.rsplit('/').next().unwrap_or_default();
            format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}")
        }
        None => format!("the object provided is unrecognized: {error} ({})", hex(body)),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Decodes an enveloped object; `nesting` counts the objects that it is in.
fn decode(body: Bytes, nesting: usize) -> Result<Value, Failure> {
    if nesting >= MAX_NESTING {
        return Err(Error::TooDeep.into());
    }
    if !body.starts_with(MAGIC) {
        return Err(Error::NoPrefix.into());
    }
    let schema = Schema::get()?;
    let envelope = schema.message(UNKNOWN).ok_or(Error::Schema("no runtime.Unknown"))?;
    let envelope = DynamicMessage::decode(envelope, body.slice(MAGIC.len()..)).map_err(Error::Malformed)?;
    let (api_version, kind) = match envelope.get_field_by_name("typeMeta").as_deref() {
        Some(Field::Message(meta)) => (text(meta, "apiVersion"), text(meta, "kind")),
        _ => (String::new(), String::new()),
    };
    if kind.is_empty() {
        return Err(Error::NoKind.into());
    }
    match object(schema, &envelope, &api_version, &kind, nesting) {
        Ok(mut object) => {
            object.insert("apiVersion".to_owned(), api_version.into());
            object.insert("kind".to_owned(), kind.into());
            Ok(Value::Object(object))
        }
        Err(error) => Err(Failure { error, kind: Some((api_version, kind)) }),
    }
}

fn object(
    schema: &Schema,
    envelope: &DynamicMessage,
    api_version: &str,
    kind: &str,
    nesting: usize,
) -> Result<Map<String, Value>, Error> {
    let (content_type, encoding) = (text(envelope, "contentType"), text(envelope, "contentEncoding"));
    if !encoding.is_empty() || !matches!(content_type.as_str(), "" | "application/vnd.kubernetes.protobuf") {
        return Err(Error::Content { content_type, encoding });
    }
    let descriptor = schema
        .object(api_version, kind)
        .ok_or_else(|| Error::NotRegistered { api_version: api_version.to_owned(), kind: kind.to_owned() })?;
    let raw = match envelope.get_field_by_name("raw").as_deref() {
        Some(Field::Bytes(raw)) => raw.clone(),
        _ => Bytes::new(),
    };
    json::Writer { schema, nesting }.object(&DynamicMessage::decode(descriptor, raw)?)
}

/// A string field; empty if it is not set.
fn text(message: &DynamicMessage, name: &str) -> String {
    match message.get_field_by_name(name).as_deref() {
        Some(Field::String(text)) => text.clone(),
        _ => String::new(),
    }
}
