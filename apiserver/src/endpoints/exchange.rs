//! Endpoints that take one object and answer with one, storing nothing: reviews and token requests.
//!
//! Upstream: the virtual resources of `registry/{authentication,authorization}` under the ordinary create handler.

use apimachinery::status::ApiError;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::read_body;
use crate::body::Body;
use crate::codec;
use crate::registry::KubeObject;

/// Reads the request's object.
pub async fn read<T: KubeObject>(request: Request<Incoming>) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let body = read_body::read(body).await?;
    parse(&read_body::to_json(&parts.headers, body)?)
}

/// Decodes a body, whose apiVersion and kind, if given, must be those of `T`.
fn parse<T: KubeObject>(body: &[u8]) -> Result<T, ApiError> {
    let mut given: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(|error| {
            ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
        })?;
    let text = |key: &str| given.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let fits = |given: &str, expected: &str| given.is_empty() || given == expected;
    if !fits(&version, T::API_VERSION) || !fits(&kind, T::KIND) {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: the endpoint takes {} {}",
            T::KIND,
            T::API_VERSION,
            T::KIND,
        )));
    }
    if version.is_empty() || kind.is_empty() {
        // k8s-openapi insists on both fields; upstream takes them from the path.
        given.insert("apiVersion".to_owned(), T::API_VERSION.into());
        given.insert("kind".to_owned(), T::KIND.into());
        let body = serde_json::to_vec(&given).map_err(ApiError::internal)?;
        return codec::decode_json(&body, None);
    }
    codec::decode_json(body, None)
}

/// Answers 201 with `object`.
pub fn created<T: KubeObject>(object: &T) -> Result<Response<Body>, ApiError> {
    json(StatusCode::CREATED, serde_json::to_vec(object).map_err(ApiError::internal)?)
}

/// Answers with JSON.
pub fn json(status: StatusCode, bytes: Vec<u8>) -> Result<Response<Body>, ApiError> {
    let mut response = Response::new(Body::full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::TokenRequest;

    use super::*;

    #[test]
    fn kind_and_version_may_be_left_to_the_path() {
        for (body, good) in [
            (
                r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"audiences":[]}}"#,
                true,
            ),
            (r#"{"spec":{"audiences":[]}}"#, true),
            (r#"{"kind":"TokenReview","spec":{"audiences":[]}}"#, false),
            (r#"{"apiVersion":"v1","kind":"TokenRequest"}"#, false),
            ("[]", false),
            ("", false),
        ] {
            assert_eq!(parse::<TokenRequest>(body.as_bytes()).is_ok(), good, "{body}");
        }
    }
}
