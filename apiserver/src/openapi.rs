//! The OpenAPI documents: `/openapi/v2` for all, `/openapi/v3` one for each group and version.
//!
//! Types come from the schemas of k8s-openapi, paths from the registry. Documents are built when first asked
//! for and kept. Of `/openapi/v2` only the JSON form is served; who asks for protobuf alone gets 406, upon which
//! kubectl falls back on v3. Upstream: `kube-openapi` and `apiserver/pkg/endpoints/openapi`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use apimachinery::status::ApiError;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::body::Body;
use crate::registry::resources::Resources;

mod definitions;
mod operations;
mod parameters;
mod paths;
mod v2;
mod v3;

use definitions::Definitions;

const JSON: &str = "application/json";
/// How clients may name the v2 document in JSON.
const V2_JSON: &[&str] =
    &[JSON, "application/*", "*/*", "application/com.github.proto-openapi.spec.v2@v1.0+json"];
/// How clients may name a v3 document in JSON.
const V3_JSON: &[&str] =
    &[JSON, "application/*", "*/*", "application/com.github.proto-openapi.spec.v3.v1.0+json"];

/// The documents, built lazily.
#[derive(Debug)]
pub struct OpenApi {
    resources: Resources,
    v2: OnceLock<Document>,
    v3: OnceLock<Index>,
}

/// The v3 documents by path (`api/v1`, `apis/apps/v1`), and their index.
#[derive(Debug)]
struct Index {
    index: Document,
    documents: BTreeMap<String, Document>,
}

#[derive(Debug)]
struct Document {
    body: Bytes,
    etag: HeaderValue,
}

impl Document {
    fn new(value: &Value) -> Self {
        let body = Bytes::from(value.to_string());
        let etag = format!("\"{}\"", hash(&body));
        let etag = HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""));
        Self { body, etag }
    }
}

fn hash(body: &[u8]) -> String {
    Sha256::digest(body).iter().map(|byte| format!("{byte:02X}")).collect()
}

impl OpenApi {
    /// The documents of these resources.
    pub fn new(resources: Resources) -> Self {
        Self { resources, v2: OnceLock::new(), v3: OnceLock::new() }
    }

    /// Answers a path below `/openapi`; `None` if it is none.
    pub fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Result<Response<Body>, ApiError>> {
        match path.trim_end_matches('/') {
            "/openapi/v2" => Some(respond(self.v2(), V2_JSON, headers)),
            "/openapi/v3" => Some(respond(&self.v3().index, V3_JSON, headers)),
            path => {
                let name = path.strip_prefix("/openapi/v3/")?;
                let document = self.v3().documents.get(name)?;
                Some(respond(document, V3_JSON, headers))
            }
        }
    }

    fn v2(&self) -> &Document {
        self.v2.get_or_init(|| {
            let definitions = Definitions::of(&self.resources);
            let paths = paths::all(&self.resources);
            Document::new(&v2::document(&paths, &definitions))
        })
    }

    fn v3(&self) -> &Index {
        self.v3.get_or_init(|| {
            let definitions = Definitions::of(&self.resources);
            let mut by_version: BTreeMap<String, Vec<operations::PathItem>> = BTreeMap::new();
            for item in paths::all(&self.resources) {
                by_version.entry(item.document.clone()).or_default().push(item);
            }
            let documents: BTreeMap<String, Document> = by_version
                .into_iter()
                .map(|(name, paths)| (name, Document::new(&v3::document(&paths, &definitions))))
                .collect();
            let paths: serde_json::Map<String, Value> = documents
                .iter()
                .map(|(name, document)| {
                    let hash = document.etag.to_str().unwrap_or_default().trim_matches('"');
                    (name.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{name}?hash={hash}")}))
                })
                .collect();
            Index { index: Document::new(&json!({"paths": paths})), documents }
        })
    }
}

fn respond(document: &Document, types: &[&str], headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    if !accepts(headers, types) {
        return Err(ApiError::not_acceptable(&[JSON]));
    }
    let fresh = headers.get(IF_NONE_MATCH) == Some(&document.etag);
    let mut response = Response::new(if fresh { Body::empty() } else { Body::full(document.body.clone()) });
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    out.insert(ETAG, document.etag.clone());
    out.insert(VARY, HeaderValue::from_static("Accept"));
    out.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// Whether the client takes one of these media types; no header means that it takes anything.
fn accepts(headers: &HeaderMap, types: &[&str]) -> bool {
    let mut given = false;
    for header in headers.get_all(ACCEPT) {
        for range in header.to_str().unwrap_or_default().split(',') {
            let range = range.split(';').next().unwrap_or_default().trim();
            given |= !range.is_empty();
            if types.contains(&range) {
                return true;
            }
        }
    }
    !given
}

#[cfg(test)]
mod tests;
