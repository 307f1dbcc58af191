//! Request bodies to objects: JSON decoding that notices unknown and duplicate fields on the way. Protobuf bodies become
//! JSON first (`protobuf`).
//!
//! Upstream: `apimachinery/pkg/runtime/serializer/json` and its strict decoder.

use apimachinery::status::ApiError;
use k8s_openapi::Resource;
use serde::de::DeserializeOwned;

pub mod protobuf;
mod strict;

use strict::{StrictDeserializer, Tracker};

/// Decodes a JSON body. What a strict decoder refuses is described in `strict` (`unknown field "spec.foo"`,
/// `duplicate field "data.a"`), and otherwise let pass.
pub fn decode_json<T: Resource + DeserializeOwned>(
    body: &[u8],
    strict: Option<&mut Vec<String>>,
) -> Result<T, ApiError> {
    decode(body, strict).map_err(|error| {
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {error}",
            kind = T::KIND,
            version = T::VERSION,
        ))
    })
}

/// Decodes what the server itself stored.
pub fn decode_stored<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    decode(bytes, None)
}

/// The one instantiation of each type's deserialiser: strict or not is decided at run time.
fn decode<T: DeserializeOwned>(
    body: &[u8],
    strict: Option<&mut Vec<String>>,
) -> Result<T, serde_json::Error> {
    let mut de = serde_json::Deserializer::from_slice(body);
    let mut tracker = Tracker::new(strict.is_some());
    let value = T::deserialize(StrictDeserializer::new(&mut de, &mut tracker))?;
    de.end()?;
    if let Some(strict) = strict {
        strict.append(&mut tracker.into_problems());
    }
    Ok(value)
}
