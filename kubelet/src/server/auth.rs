//! Who a request comes from, and whether the apiserver lets him. Answers are kept for upstream's times, so that a
//! scrape every few seconds is not two reviews every few seconds. Upstream's concept: `cmd/kubelet/app/auth.go`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use component_base::serving::Peer;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::route::{subresources, verb};

const TOKEN_TTL: Duration = Duration::from_secs(120);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
/// More callers than this are not remembered.
const MAX_CACHED: usize = 1024;
/// A token longer than this isn't one.
const MAX_TOKEN: usize = 16 * 1024;

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// Name.
    pub name: String,
    /// Uid, if the authenticator gave one.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Further attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 401.
    Unauthorized,
    /// 403, with the text.
    Forbidden(String),
    /// 500: the apiserver couldn't be asked.
    Unavailable(String),
}

/// Answers that are good for a while.
#[derive(Debug)]
struct Cache<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K: std::hash::Hash + Eq, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn get(&self, key: &K) -> Option<V> {
        self.0.lock().get(key).filter(|(_, until)| Instant::now() < *until).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, ttl: Duration) {
        let mut entries = self.0.lock();
        let now = Instant::now();
        if entries.len() >= MAX_CACHED {
            entries.retain(|_, (_, until)| now < *until);
        }
        if entries.len() < MAX_CACHED {
            entries.insert(key, (value, now + ttl));
        }
    }
}

/// What is asked of the apiserver: user, verb, subresource.
type Question = (User, &'static str, &'static str);

/// Checks requests.
pub struct Auth {
    anonymous: bool,
    webhook: bool,
    authorize: bool,
    node_name: String,
    client: Option<kube::Client>,
    tokens: Cache<[u8; 32], Option<User>>,
    decisions: Cache<Question, Result<(), String>>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("webhook", &self.webhook)
            .field("authorize", &self.authorize)
            .finish_non_exhaustive()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN).then_some(token)
}

impl Auth {
    /// Checks as configured, through this client.
    #[must_use]
    pub fn new(config: &crate::config::ServerAuth, node_name: String, client: Option<kube::Client>) -> Self {
        Self {
            anonymous: config.anonymous,
            webhook: config.webhook,
            authorize: config.authorize,
            node_name,
            client,
            tokens: Cache::new(),
            decisions: Cache::new(),
        }
    }

    /// Lets a request pass, or says why not.
    pub async fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        peer: &Peer,
    ) -> Result<(), Refusal> {
        let user = self.authenticate(headers, peer).await?;
        if !self.authorize {
            return Ok(());
        }
        let mut refused = String::new();
        for subresource in subresources(path) {
            match self.decide(&user, verb(method), subresource).await? {
                Ok(()) => return Ok(()),
                Err(reason) => refused = reason,
            }
        }
        Err(Refusal::Forbidden(refused))
    }

    async fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<User, Refusal> {
        if let Some(identity) = &peer.identity {
            let mut groups = identity.organizations.clone();
            groups.push("system:authenticated".to_owned());
            return Ok(User { name: identity.common_name.clone(), groups, ..Default::default() });
        }
        if headers.contains_key(AUTHORIZATION) {
            // A bad credential is refused, not taken for none.
            let token = bearer(headers).ok_or(Refusal::Unauthorized)?;
            return self.review(token).await?.ok_or(Refusal::Unauthorized);
        }
        if !self.anonymous {
            return Err(Refusal::Unauthorized);
        }
        Ok(User {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..Default::default()
        })
    }

    async fn review(&self, token: &str) -> Result<Option<User>, Refusal> {
        let Some(client) = self.client.as_ref().filter(|_| self.webhook) else { return Ok(None) };
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&key) {
            return Ok(known);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), ..Default::default() };
        let review = TokenReview { spec, ..Default::default() };
        let answer =
            kube::Api::<TokenReview>::all(client.clone()).create(&PostParams::default(), &review).await;
        let status = answer.map_err(unavailable)?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        self.tokens.put(key, user.clone(), TOKEN_TTL);
        Ok(user)
    }

    async fn decide(
        &self,
        user: &User,
        verb: &'static str,
        subresource: &'static str,
    ) -> Result<Result<(), String>, Refusal> {
        let question = (user.clone(), verb, subresource);
        if let Some(known) = self.decisions.get(&question) {
            return Ok(known);
        }
        let Some(client) = &self.client else {
            return Err(Refusal::Unavailable("no API server to ask".to_owned()));
        };
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: text(&user.name),
                uid: text(&user.uid),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node_name.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let reviews = kube::Api::<SubjectAccessReview>::all(client.clone());
        let status = reviews.create(&PostParams::default(), &review).await.map_err(unavailable)?.status;
        let allowed = status.is_some_and(|status| status.allowed);
        let decision = if allowed {
            Ok(())
        } else {
            Err(format!(
                "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])",
                user.name
            ))
        };
        self.decisions.put(question, decision.clone(), if allowed { ALLOWED_TTL } else { DENIED_TTL });
        Ok(decision)
    }
}

fn unavailable(error: kube::Error) -> Refusal {
    tracing::error!(%error, "the API server could not be asked about a request");
    Refusal::Unavailable("Internal Error".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerAuth;
    use component_base::tls::PeerIdentity;
    use std::sync::Arc;

    fn peer(name: Option<&str>) -> Peer {
        let identity = name.map(|name| {
            Arc::new(PeerIdentity {
                common_name: name.to_owned(),
                organizations: vec!["system:masters".to_owned()],
                serial: String::new(),
                not_after: i64::MAX,
            })
        });
        Peer { address: "127.0.0.1:1".parse().unwrap(), identity }
    }

    fn auth(anonymous: bool, authorize: bool) -> Auth {
        let config = ServerAuth { anonymous, webhook: false, client_ca_file: None, authorize };
        Auth::new(&config, "node".to_owned(), None)
    }

    #[tokio::test]
    async fn nobody_gets_in_without_credentials() {
        let none = HeaderMap::new();
        let mut token = HeaderMap::new();
        token.insert(AUTHORIZATION, "Bearer x".parse().unwrap());
        let closed = auth(false, false);
        let check = async |auth: &Auth, headers: &HeaderMap, who: Option<&str>| {
            auth.check(&Method::GET, "/pods", headers, &peer(who)).await
        };
        assert_eq!(check(&closed, &none, None).await, Err(Refusal::Unauthorized));
        assert_eq!(check(&closed, &token, None).await, Err(Refusal::Unauthorized));
        assert_eq!(check(&closed, &none, Some("apiserver")).await, Ok(()));
        assert_eq!(check(&auth(true, false), &none, None).await, Ok(()));
        assert_eq!(check(&auth(true, false), &token, None).await, Err(Refusal::Unauthorized));
        // Authorization without anybody to ask lets nobody in.
        assert!(matches!(check(&auth(true, true), &none, Some("a")).await, Err(Refusal::Unavailable(_))));
    }

    #[test]
    fn bearers() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("Bearer ", None),
            ("Bearer", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer(&headers), token, "{value}");
        }
    }
}
