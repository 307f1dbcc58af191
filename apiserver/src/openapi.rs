//! The OpenAPI documents: `/openapi/v2` for all, `/openapi/v3` one for each group and version.
//!
//! Types come from the schemas of k8s-openapi, paths from the registry. Documents are built when first asked
//! for and kept packed. v2 is served as JSON and in protobuf, v3 as JSON. Upstream: `kube-openapi/pkg/handler`,
//! `handler3` and `apiserver/pkg/endpoints/openapi`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use apimachinery::status::ApiError;
use http::header::{CACHE_CONTROL, EXPIRES, HeaderValue, LOCATION};
use http::{HeaderMap, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::body::Body;
use crate::registry::resources::Resources;
use crate::request::Query;

mod definitions;
mod document;
mod negotiation;
mod operations;
mod parameters;
mod paths;
mod protobuf;
mod v2;
mod v3;

use definitions::Definitions;
use document::Document;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What kubectl calls it; no media type by the rules for their names, so the answer does not have it.
const PROTOBUF_DEPRECATED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// Document and address of a v3 document with a hash never change: upstream's word for never is a year.
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// The documents, built lazily.
#[derive(Debug)]
pub struct OpenApi {
    resources: Resources,
    v2: OnceLock<Swagger>,
    v3: OnceLock<Index>,
}

/// The v2 document in its two forms.
#[derive(Debug)]
struct Swagger {
    json: Document,
    protobuf: Result<Document, protobuf::EncodeError>,
}

/// The v3 documents by path (`api/v1`, `apis/apps/v1`), and their index.
#[derive(Debug)]
struct Index {
    index: Document,
    documents: BTreeMap<String, Document>,
}

impl OpenApi {
    /// The documents of these resources.
    pub fn new(resources: Resources) -> Self {
        Self { resources, v2: OnceLock::new(), v3: OnceLock::new() }
    }

    /// Answers a path below `/openapi`; `None` if it is none.
    pub fn answer(
        &self,
        path: &str,
        query: &Query,
        headers: &HeaderMap,
    ) -> Option<Result<Response<Body>, ApiError>> {
        match path.trim_end_matches('/') {
            "/openapi/v2" => Some(self.answer_v2(headers)),
            "/openapi/v3" => Some(Ok(self.v3().index.respond(JSON, headers))),
            path => {
                let name = path.strip_prefix("/openapi/v3/")?;
                let document = self.v3().documents.get(name)?;
                Some(answer_v3(name, document, query, headers))
            }
        }
    }

    fn answer_v2(&self, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
        let offers = [JSON, PROTOBUF_DEPRECATED, PROTOBUF];
        match negotiation::preferred(headers, &offers) {
            None => Err(ApiError::not_acceptable(&[JSON, PROTOBUF])),
            Some(JSON) => Ok(self.v2().json.respond(JSON, headers)),
            Some(_) => match &self.v2().protobuf {
                Ok(document) => Ok(document.respond(PROTOBUF, headers)),
                Err(error) => Err(ApiError::internal(error)),
            },
        }
    }

    fn v2(&self) -> &Swagger {
        self.v2.get_or_init(|| {
            let definitions = Definitions::of(&self.resources);
            let paths = paths::all(&self.resources);
            let value = v2::document(&paths, &definitions);
            let json = Document::new(&value);
            let protobuf = protobuf::encode(&value).map(|body| json.in_form(&body));
            if let Err(error) = &protobuf {
                tracing::error!(%error, "the OpenAPI v2 document has no protobuf form");
            }
            Swagger { json, protobuf }
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
                    (name.clone(), json!({"serverRelativeURL": relative_url(name, document)}))
                })
                .collect();
            Index { index: Document::new(&json!({"paths": paths})), documents }
        })
    }
}

fn relative_url(name: &str, document: &Document) -> String {
    format!("/openapi/v3/{name}?hash={}", document.hash)
}

/// A document that was asked for by its hash never changes; by another's hash, the client is sent to the right one.
fn answer_v3(
    name: &str,
    document: &Document,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<Body>, ApiError> {
    if negotiation::preferred(headers, &[JSON]).is_none() {
        return Err(ApiError::not_acceptable(&[JSON]));
    }
    let hash = query.text("hash");
    if hash.is_some_and(|hash| hash != document.hash) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let location = HeaderValue::from_str(&relative_url(name, document)).map_err(ApiError::internal)?;
        response.headers_mut().insert(LOCATION, location);
        return Ok(response);
    }
    let mut response = document.respond(JSON, headers);
    if hash.is_some() {
        let out = response.headers_mut();
        out.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        out.extend(document::http_date(Timestamp::now() + YEAR).map(|date| (EXPIRES, date)));
    }
    Ok(response)
}

#[cfg(test)]
mod tests;
