//! What others need to verify our service account tokens: `/.well-known/openid-configuration` and `/openid/v1/jwks`.
//!
//! The paths are ordinary non-resource URLs behind authentication and authorization.
//! Upstream: `pkg/serviceaccount/openidmetadata.go` and `pkg/routes/openidmetadata.go`.

use apimachinery::status::ApiError;
use http::{HeaderValue, Response, header};

use super::service_account::ServiceAccountConfig;
use crate::body::Body;

/// Where the configuration is.
pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
/// Where the keys are.
pub const KEYS_PATH: &str = "/openid/v1/jwks";

/// Answers `path`; `None` if it is neither of the two, or if the issuer cannot be discovered.
pub fn serve(config: &ServiceAccountConfig, path: &str) -> Option<Result<Response<Body>, ApiError>> {
    let (content_type, document) = match path {
        CONFIGURATION_PATH => ("application/json", configuration(config)?),
        KEYS_PATH => ("application/jwk-set+json", keys(config)),
        _ => return None,
    };
    let mut response = Response::new(Body::full(document.to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Some(Ok(response))
}

fn configuration(config: &ServiceAccountConfig) -> Option<serde_json::Value> {
    let issuer = config.issuers.first()?;
    // Only an https issuer can be discovered.
    issuer.strip_prefix("https://")?;
    let jwks =
        config.jwks_uri.clone().unwrap_or_else(|| format!("{}{KEYS_PATH}", issuer.trim_end_matches('/')));
    let mut algorithms: Vec<&str> = config.keys.iter().map(|key| key.algorithm().name()).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    Some(serde_json::json!({
        "issuer": issuer,
        "jwks_uri": jwks,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    }))
}

fn keys(config: &ServiceAccountConfig) -> serde_json::Value {
    serde_json::json!({ "keys": config.keys.iter().map(super::service_account_keys::VerificationKey::jwk).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::service_account::tests::accounts;
    use super::*;
    use crate::lookup::fake::Objects;

    #[test]
    fn documents() {
        let accounts = accounts(Arc::new(Objects::default()));
        let configuration = configuration(&accounts.config).unwrap();
        assert_eq!(configuration["issuer"], "https://issuer");
        assert_eq!(configuration["jwks_uri"], "https://issuer/openid/v1/jwks");
        assert_eq!(configuration["id_token_signing_alg_values_supported"], serde_json::json!(["ES256"]));
        let keys = keys(&accounts.config);
        let key = &keys["keys"][0];
        assert_eq!((&key["kty"], &key["crv"], &key["use"]), (&"EC".into(), &"P-256".into(), &"sig".into()));
        assert!(key.get("d").is_none(), "no private part");
        assert!(serve(&accounts.config, "/openid/v1/other").is_none());
    }
}
