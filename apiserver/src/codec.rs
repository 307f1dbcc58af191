//! Request bodies to objects: JSON decoding with unknown and duplicate fields detected.
//!
//! Upstream: `apimachinery/pkg/runtime/serializer/json` and its strict decoder.

use apimachinery::status::ApiError;
use k8s_openapi::Resource;
use serde::de::DeserializeOwned;
use serde_ignored::Path;

/// Decodes a JSON body. Fields that the type does not have are described in `strict`
/// (`unknown field "spec.foo"`), and otherwise ignored.
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

/// The one instantiation of each type's deserialiser.
fn decode<T: DeserializeOwned>(body: &[u8], strict: Option<&mut Vec<String>>) -> Result<T, serde_json::Error> {
    let mut de = serde_json::Deserializer::from_slice(body);
    let mut found = Vec::new();
    let wanted = strict.is_some();
    let mut note = |path: Path<'_>| {
        if wanted {
            found.push(format!("unknown field \"{}\"", field_path(&path)));
        }
    };
    let note: &mut dyn FnMut(Path<'_>) = &mut note;
    let mut track = |path: Path<'_>| note(path);
    let value = T::deserialize(serde_ignored::Deserializer::new(&mut de, &mut track))?;
    de.end()?;
    if let Some(strict) = strict {
        strict.append(&mut found);
    }
    Ok(value)
}

/// `spec.containers[0].foo`.
fn field_path(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", field_path(parent)),
        Path::Map { parent, key } => {
            let parent = field_path(parent);
            if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") }
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => field_path(parent),
    }
}
