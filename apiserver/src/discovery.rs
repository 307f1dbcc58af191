//! Discovery: which groups, versions and resources are served, in the old form and aggregated (v2, v2beta1).
//!
//! Documents are rendered once at start-up. Upstream: `apiserver/pkg/endpoints/discovery`.

use std::collections::BTreeMap;

use apimachinery::status::ApiError;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderValue, VARY};
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use crate::body::Body;
use crate::registry::resources::Resources;

mod documents;
mod entries;

/// All discovery documents, by path.
#[derive(Debug)]
pub struct Discovery {
    plain: BTreeMap<String, Bytes>,
    /// `/api` and `/apis`, in each aggregated version.
    aggregated: BTreeMap<(&'static str, Aggregated), Document>,
}

#[derive(Debug)]
struct Document {
    body: Bytes,
    etag: HeaderValue,
}

/// A version of aggregated discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Aggregated {
    V2,
    V2Beta1,
}

impl Aggregated {
    fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        })
    }
}

impl Discovery {
    /// `special`: (group, resource, subresource) of the endpoints that are not generic storage.
    pub fn new<'a>(
        resources: &Resources,
        special: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
    ) -> Self {
        let groups = entries::groups(resources, &special.collect::<Vec<_>>());
        let mut plain = BTreeMap::new();
        let mut add = |path: String, value: &Value| plain.insert(path, Bytes::from(value.to_string()));
        add(
            "/api".to_owned(),
            &json!({"kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}]}),
        );
        add("/apis".to_owned(), &documents::group_list(&groups));
        for group in &groups {
            if !group.name.is_empty() {
                add(format!("/apis/{}", group.name), &documents::group(group, true));
            }
            for version in &group.versions {
                add(version.path(group), &documents::resource_list(group, version));
            }
        }
        let mut aggregated = BTreeMap::new();
        for form in [Aggregated::V2, Aggregated::V2Beta1] {
            for (path, core) in [("/api", true), ("/apis", false)] {
                let groups = groups.iter().filter(|group| group.name.is_empty() == core);
                let body = documents::aggregated(groups, form.name()).to_string();
                aggregated
                    .insert((path, form), Document { etag: etag(body.as_bytes()), body: Bytes::from(body) });
            }
        }
        Self { plain, aggregated }
    }

    /// The paths of all documents.
    pub fn paths(&self) -> Vec<String> {
        self.plain.keys().cloned().collect()
    }

    /// Answers a discovery path; `None` if it is none.
    pub fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Result<Response<Body>, ApiError>> {
        let path = path.trim_end_matches('/');
        let plain = self.plain.get(path)?;
        let (body, content_type, etag) =
            match accepted(headers).and_then(|form| Some((form, self.aggregated(path, form)?))) {
                Some((form, document)) => (&document.body, form.content_type(), Some(&document.etag)),
                None => (plain, HeaderValue::from_static("application/json"), None),
            };
        let mut response = Response::new(Body::full(body.clone()));
        let out = response.headers_mut();
        out.insert(CONTENT_TYPE, content_type);
        if matches!(path, "/api" | "/apis") {
            out.insert(VARY, HeaderValue::from_static("Accept"));
        }
        if let Some(etag) = etag {
            out.insert(ETAG, etag.clone());
            if headers.get(http::header::IF_NONE_MATCH) == Some(etag) {
                *response.status_mut() = http::StatusCode::NOT_MODIFIED;
                *response.body_mut() = Body::empty();
            }
        }
        Some(Ok(response))
    }

    fn aggregated(&self, path: &str, form: Aggregated) -> Option<&Document> {
        let path = match path {
            "/api" => "/api",
            "/apis" => "/apis",
            _ => return None,
        };
        self.aggregated.get(&(path, form))
    }
}

/// The aggregated form that the client prefers to plain JSON, if any.
fn accepted(headers: &HeaderMap) -> Option<Aggregated> {
    for header in headers.get_all(ACCEPT) {
        for range in header.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            if parts.next() != Some("application/json") {
                continue;
            }
            let parameters: Vec<&str> = parts.collect();
            if parameters.iter().all(|parameter| parameter.starts_with("q=")) {
                return None;
            }
            let has = |parameter: &str| parameters.contains(&parameter);
            if has("g=apidiscovery.k8s.io") && has("as=APIGroupDiscoveryList") {
                if has("v=v2") {
                    return Some(Aggregated::V2);
                }
                if has("v=v2beta1") {
                    return Some(Aggregated::V2Beta1);
                }
            }
        }
    }
    None
}

fn etag(body: &[u8]) -> HeaderValue {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(body);
    let hex: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    HeaderValue::from_str(&format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}
