//! ServiceAccount tokens for projected volumes: asked for with TokenRequest, bound to the pod, kept until 80 % of their
//! life is over. Upstream's concept: `pkg/kubelet/token`.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use parking_lot::Mutex;

/// A token is never used longer than this, whatever its life.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// A token that can't be had; the text ends up in the FailedMount event.
#[derive(Debug, thiserror::Error)]
#[error("failed to fetch token: {0}")]
pub struct TokenError(String);

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    pod_uid: String,
    account: String,
    audience: String,
    expiration_seconds: i64,
}

#[derive(Debug, Clone)]
struct Held {
    token: String,
    issued: Timestamp,
    expires: Timestamp,
}

impl Held {
    /// Whether it is time for a new one.
    fn is_due(&self, now: Timestamp) -> bool {
        let life = self.expires.duration_since(self.issued);
        let age = now.duration_since(self.issued);
        age >= life * 4 / 5
            || age >= jiff::SignedDuration::try_from(MAX_AGE).unwrap_or(jiff::SignedDuration::MAX)
    }
}

/// The node's tokens.
#[derive(Default)]
pub struct TokenManager {
    held: Mutex<HashMap<Key, Held>>,
}

/// Tokens stay out of logs.
impl std::fmt::Debug for TokenManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenManager").field("tokens", &self.held.lock().len()).finish()
    }
}

impl TokenManager {
    /// The token that a projection wants, a new one when the old one nears its end. While the apiserver is away the
    /// old one serves as long as it lives.
    pub async fn token(
        &self,
        client: Option<&kube::Client>,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<String, TokenError> {
        let meta = &pod.metadata;
        let account =
            pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).filter(|a| !a.is_empty());
        let key = Key {
            pod_uid: meta.uid.clone().unwrap_or_default(),
            account: account.unwrap_or("default").to_owned(),
            audience: projection.audience.clone().unwrap_or_default(),
            expiration_seconds: projection.expiration_seconds.unwrap_or(3600),
        };
        let now = Timestamp::now();
        let held = self.held.lock().get(&key).cloned();
        if let Some(held) = held.as_ref().filter(|held| !held.is_due(now)) {
            return Ok(held.token.clone());
        }
        match request(client, pod, &key).await {
            Ok(fresh) => {
                let token = fresh.token.clone();
                self.held.lock().insert(key, Held { issued: now, ..fresh });
                Ok(token)
            }
            Err(error) => match held.filter(|held| held.expires > now) {
                Some(held) => {
                    tracing::warn!(namespace = meta.namespace, name = meta.name, %error, "token not refreshed");
                    Ok(held.token)
                }
                None => Err(error),
            },
        }
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
        self.held.lock().retain(|key, _| key.pod_uid != pod_uid);
    }
}

async fn request(client: Option<&kube::Client>, pod: &Pod, key: &Key) -> Result<Held, TokenError> {
    let Some(client) = client else { return Err(TokenError("the kubelet has no API server".to_owned())) };
    let meta = &pod.metadata;
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: (!key.audience.is_empty()).then(|| vec![key.audience.clone()]),
            expiration_seconds: Some(key.expiration_seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
            }),
        }),
        ..Default::default()
    };
    let accounts = kube::Api::<ServiceAccount>::namespaced(
        client.clone(),
        meta.namespace.as_deref().unwrap_or_default(),
    );
    let answer = accounts
        .create_token_request(&key.account, &PostParams::default(), &request)
        .await
        .map_err(|error| match error {
            kube::Error::Api(status) => TokenError(status.message),
            other => TokenError(other.to_string()),
        })?;
    let status = answer.status.unwrap_or_default();
    match (status.token, status.expiration_timestamp) {
        (Some(token), Some(expires)) if !token.is_empty() => {
            Ok(Held { token, issued: Timestamp::now(), expires: expires.0 })
        }
        _ => Err(TokenError("the API server answered without a token".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_at_four_fifths() {
        let issued: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds: i64| issued + jiff::SignedDuration::from_secs(seconds);
        let held = |life: i64| Held { token: String::new(), issued, expires: after(life) };
        for (life, age, due) in [
            (3600, 0, false),
            (3600, 2879, false),
            (3600, 2880, true),
            (864_000, 86_399, false),
            (864_000, 86_400, true),
        ] {
            assert_eq!(held(life).is_due(after(age)), due, "{life} {age}");
        }
    }
}
