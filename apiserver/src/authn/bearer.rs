//! Bearer tokens: where a request carries one, and its authentication as a service account's, with a short memory of the
//! tokens that were good.
//!
//! A token comes in the `Authorization` header, or, from browsers, as a WebSocket sub-protocol. A token that is presented and
//! not accepted refuses the request; it never falls through to anonymous.
//! Upstream: `apiserver/pkg/authentication/request/{bearertoken,websocket}` and `token/cache`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::service_account::{Authenticated, ServiceAccounts};
use super::service_account_token::MAX_TOKEN_BYTES;
use super::{Authenticator, AuthnError, Credentials, UserInfo};

/// The prefix of the sub-protocol that carries a token.
pub const WEBSOCKET_TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// How long a good token is believed without a new look: upstream's success TTL.
const SUCCESS_TTL: Duration = Duration::from_secs(10);
/// How many good tokens are remembered.
const REMEMBERED: usize = 4096;

/// The token of a request, if it has one.
pub fn token(headers: &HeaderMap) -> Result<Option<String>, AuthnError> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let value = value.to_str().map_err(|_| AuthnError("invalid bearer token".into()))?.trim();
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        let token = token.trim_start();
        if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
            return Ok(Some(token.to_owned()));
        }
        return Ok(None);
    }
    websocket_token(headers)
}

fn websocket_token(headers: &HeaderMap) -> Result<Option<String>, AuthnError> {
    let upgrades =
        headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !upgrades {
        return Ok(None);
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = protocols
        .flat_map(|value| value.split(','))
        .filter_map(|protocol| protocol.trim().strip_prefix(WEBSOCKET_TOKEN_PREFIX));
    let Some(encoded) = tokens.next() else { return Ok(None) };
    if tokens.next().is_some() {
        return Err(AuthnError("multiple base64.bearer.authorization tokens specified".into()));
    }
    let decoded = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.map(Some).ok_or_else(|| AuthnError("invalid base64.bearer.authorization token encoding".into()))
}

type Remembered = HashMap<[u8; 32], (Instant, Arc<UserInfo>)>;

/// The authenticator of bearer tokens.
#[derive(Debug)]
pub struct BearerTokens {
    service_accounts: Option<Arc<ServiceAccounts>>,
    good: Mutex<Remembered>,
}

impl BearerTokens {
    /// Tokens of service accounts, if their keys are configured.
    pub fn new(service_accounts: Option<Arc<ServiceAccounts>>) -> Self {
        Self { service_accounts, good: Mutex::default() }
    }

    /// Authenticates a token for `audiences`, or for the server's own, without the memory.
    pub async fn authenticate_token(
        &self,
        token: &str,
        audiences: Option<&[String]>,
    ) -> Result<Authenticated, AuthnError> {
        let accounts = self
            .service_accounts
            .as_ref()
            .ok_or_else(|| AuthnError("no token authenticator is configured".into()))?;
        accounts.authenticate(token, audiences).await.map_err(|error| AuthnError(error.to_string()))
    }

    async fn user(&self, token: &str) -> Result<Arc<UserInfo>, AuthnError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthnError("invalid bearer token".into()));
        }
        // The table holds digests, so that no token can be read out of the process's memory through it.
        let digest: [u8; 32] = Sha256::digest(token).into();
        let now = Instant::now();
        if let Some((until, user)) = self.good.lock().get(&digest)
            && *until > now
        {
            return Ok(user.clone());
        }
        let accounts = self
            .service_accounts
            .as_ref()
            .ok_or_else(|| AuthnError("no token authenticator is configured".into()))?;
        let authenticated =
            accounts.authenticate(token, None).await.map_err(|e| AuthnError(e.to_string()))?;
        let user = Arc::new(authenticated.user);
        let mut good = self.good.lock();
        if good.len() >= REMEMBERED {
            good.retain(|_, (until, _)| *until > now);
            if good.len() >= REMEMBERED {
                good.clear();
            }
        }
        good.insert(digest, (now + SUCCESS_TTL, user.clone()));
        Ok(user)
    }
}

impl Authenticator for BearerTokens {
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<UserInfo>>, AuthnError>> {
        Box::pin(async move {
            match token(credentials.headers)? {
                Some(token) => self.user(&token).await.map(Some),
                None => Ok(None),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn tokens_are_found_in_the_header() {
        let cases = [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER  abc", Some("abc")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
        ];
        for (value, expected) in cases {
            assert_eq!(
                token(&headers(&[("authorization", value)])).unwrap().as_deref(),
                expected,
                "{value:?}"
            );
        }
    }

    #[test]
    fn tokens_are_found_in_websocket_protocols() {
        let protocol =
            format!("v5.channel.k8s.io, {WEBSOCKET_TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode("abc"));
        let upgrade = [("upgrade", "websocket"), ("sec-websocket-protocol", protocol.as_str())];
        assert_eq!(token(&headers(&upgrade)).unwrap().as_deref(), Some("abc"));
        assert_eq!(token(&headers(&upgrade[1..])).unwrap(), None);
        let bad = format!("{WEBSOCKET_TOKEN_PREFIX}***");
        assert!(token(&headers(&[("upgrade", "websocket"), ("sec-websocket-protocol", &bad)])).is_err());
        let twice = format!("{protocol}, {WEBSOCKET_TOKEN_PREFIX}eA");
        assert!(token(&headers(&[("upgrade", "websocket"), ("sec-websocket-protocol", &twice)])).is_err());
    }

    #[tokio::test]
    async fn a_token_nobody_knows_refuses_the_request() {
        let tokens = BearerTokens::new(None);
        for value in ["Bearer abc", &format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1))] {
            let headers = headers(&[("authorization", value)]);
            assert!(tokens.authenticate(Credentials { headers: &headers, peer: None }).await.is_err());
        }
    }
}
