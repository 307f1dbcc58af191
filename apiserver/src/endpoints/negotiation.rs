//! Which representation a client gets: `Accept`, and what of a body is read: `Content-Type`.
//!
//! Upstream: `endpoints/handlers/negotiation`.

use apimachinery::status::ApiError;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
/// Read, but not written: every client that sends it takes JSON too.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The encoding of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Json,
    Yaml,
}

/// In what shape objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// As they are.
    #[default]
    Object,
    /// meta.k8s.io Table.
    Table,
    /// meta.k8s.io PartialObjectMetadata or its list.
    Metadata,
}

/// An acceptable representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    pub format: Format,
    pub shape: Shape,
}

/// Picks the first acceptable media type; no header means JSON.
pub fn accept(headers: &HeaderMap) -> Result<Accepted, ApiError> {
    let mut given = false;
    for header in headers.get_all(ACCEPT) {
        let Ok(header) = header.to_str() else { continue };
        for range in header.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            given = true;
            if let Some(accepted) = one(range) {
                return Ok(accepted);
            }
        }
    }
    if given { Err(ApiError::not_acceptable(&[JSON, YAML])) } else { Ok(Accepted::default()) }
}

fn one(range: &str) -> Option<Accepted> {
    let mut parts = range.split(';').map(str::trim);
    let format = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Format::Json,
        "application/yaml" | "text/yaml" | "application/x-yaml" => Format::Yaml,
        _ => return None,
    };
    let (mut kind, mut group, mut version) = ("", "", "");
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("as", value)) => kind = value,
            Some(("g", value)) => group = value,
            Some(("v", value)) => version = value,
            _ => {}
        }
    }
    let shape = match (kind, group, version) {
        ("", _, _) => Shape::Object,
        ("Table", "meta.k8s.io", "v1" | "v1beta1") => Shape::Table,
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1" | "v1beta1") => {
            Shape::Metadata
        }
        _ => return None,
    };
    Some(Accepted { format, shape })
}

/// The encoding of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    Json,
    Yaml,
    Protobuf,
}

/// The media type of a request body without its parameters; empty if there is none.
pub fn media_type(headers: &HeaderMap) -> &str {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map_or("", str::trim)
}

/// How to read an object from a body.
pub fn body_format(headers: &HeaderMap) -> Result<BodyFormat, ApiError> {
    match media_type(headers) {
        "" | "*/*" | "application/json" => Ok(BodyFormat::Json),
        "application/yaml" | "text/yaml" | "application/x-yaml" => Ok(BodyFormat::Yaml),
        PROTOBUF => Ok(BodyFormat::Protobuf),
        _ => Err(ApiError::unsupported_media_type(&[JSON, YAML, PROTOBUF])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        headers
    }

    #[test]
    fn the_first_known_media_type_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let json = Accepted::default();
        for (accept_header, want) in [
            (kubectl, Accepted { shape: Shape::Table, ..json }),
            ("application/vnd.kubernetes.protobuf,application/json", json),
            ("application/yaml", Accepted { format: Format::Yaml, ..json }),
            ("text/html, */*", json),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Accepted { shape: Shape::Metadata, ..json },
            ),
        ] {
            assert_eq!(accept(&headers(accept_header)).unwrap(), want, "{accept_header}");
        }
        assert_eq!(accept(&HeaderMap::new()).unwrap(), json);
    }

    #[test]
    fn nothing_acceptable_is_406() {
        for unknown in
            ["text/html", "application/vnd.kubernetes.protobuf", "application/json;as=Other;g=x;v=v1"]
        {
            assert_eq!(accept(&headers(unknown)).unwrap_err().code(), 406, "{unknown}");
        }
    }
}
