//! Who a service account token stands for: the token is checked, then the objects that it is bound to are looked up, so that a
//! token dies with its account, pod, secret or node.
//!
//! Upstream: `pkg/serviceaccount/{jwt,claims}.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::UserInfo;
use super::service_account_keys::{SigningKey, VerificationKey};
use super::service_account_token::{self as token, Claims, LEEWAY_SECONDS, Ref, TokenError};
use crate::lookup::{self, Lookup};

const EXTRA: &str = "authentication.kubernetes.io/";

/// Keys, issuers and audiences of service account tokens.
#[derive(Debug)]
pub struct ServiceAccountConfig {
    /// Keys that tokens are verified with (`--service-account-key-file`).
    pub keys: Vec<VerificationKey>,
    /// The key that tokens are signed with (`--service-account-signing-key-file`).
    pub signing_key: Option<SigningKey>,
    /// Accepted issuers; the first one issues (`--service-account-issuer`).
    pub issuers: Vec<String>,
    /// The server's audiences (`--api-audiences`, by default the issuers).
    pub audiences: Vec<String>,
    /// `--service-account-max-token-expiration`, seconds.
    pub max_expiration: Option<i64>,
    /// `--service-account-extend-token-expiration`.
    pub extend_expiration: bool,
    /// `--service-account-jwks-uri`, if it is not derived from the issuer.
    pub jwks_uri: Option<String>,
}

/// A good token's meaning.
#[derive(Debug)]
pub struct Authenticated {
    /// The account as a user.
    pub user: UserInfo,
    /// The audiences that token and server share.
    pub audiences: Vec<String>,
}

/// The authenticator and the source of keys for the token endpoint.
#[derive(Debug)]
pub struct ServiceAccounts {
    /// The configuration.
    pub config: ServiceAccountConfig,
    lookup: Arc<dyn Lookup>,
}

impl ServiceAccounts {
    /// An authenticator that looks up bound objects in `lookup`.
    pub fn new(config: ServiceAccountConfig, lookup: Arc<dyn Lookup>) -> Self {
        Self { config, lookup }
    }

    /// Where bound objects are looked up.
    pub fn lookup(&self) -> &Arc<dyn Lookup> {
        &self.lookup
    }

    /// Authenticates a token for `audiences`, or for the server's own.
    pub async fn authenticate(
        &self,
        token: &str,
        audiences: Option<&[String]>,
    ) -> Result<Authenticated, TokenError> {
        let now = jiff::Timestamp::now().as_second();
        let claims = token::parse(token, &self.config.keys)?;
        let accepted = audiences.unwrap_or(&self.config.audiences);
        let audiences = token::validate(&claims, &self.config.issuers, accepted, now)?;
        self.check_bound(&claims, now).await?;
        Ok(Authenticated { user: user(&claims), audiences })
    }

    async fn check_bound(&self, claims: &Claims, now: i64) -> Result<(), TokenError> {
        let private = &claims.kubernetes;
        let namespace = private.namespace.as_str();
        let account = self.meta::<ServiceAccount>(namespace, &private.serviceaccount.name).await?;
        check("service account", account, &private.serviceaccount, now)?;
        if let Some(secret) = &private.secret {
            check("secret", self.meta::<Secret>(namespace, &secret.name).await?, secret, now)?;
        }
        if let Some(pod) = &private.pod {
            check("pod", self.meta::<Pod>(namespace, &pod.name).await?, pod, now)?;
        } else if let Some(node) = &private.node {
            // With a pod, the node is information about where the pod ran; without, the token is bound to it.
            check("node", self.meta::<Node>("", &node.name).await?, node, now)?;
        }
        Ok(())
    }

    async fn meta<T: crate::registry::KubeObject>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ObjectMeta>, TokenError> {
        let object = lookup::get::<T>(&self.lookup, namespace, name).await;
        let object =
            object.map_err(|error| TokenError::Bound(format!("{} lookup failed: {error}", T::KIND)))?;
        Ok(object.map(|object| object.metadata().clone()))
    }
}

/// Whether the object that `claimed` names is still the one the token was bound to.
fn check(what: &str, found: Option<ObjectMeta>, claimed: &Ref, now: i64) -> Result<(), TokenError> {
    let Some(meta) = found else {
        return Err(TokenError::Bound(format!("{what} {:?} no longer exists", claimed.name)));
    };
    // A deleted object's tokens still work for a moment, so that terminating pods can finish their work.
    if meta
        .deletion_timestamp
        .is_some_and(|deleted| deleted.0.as_second() < now.saturating_sub(LEEWAY_SECONDS))
    {
        return Err(TokenError::Bound(format!("{what} {:?} has been deleted", claimed.name)));
    }
    let uid = meta.uid.unwrap_or_default();
    if claimed.uid.is_empty() || uid != claimed.uid {
        return Err(TokenError::Bound(format!("{what} UID ({uid}) does not match claim ({})", claimed.uid)));
    }
    Ok(())
}

/// The user that checked claims describe.
pub fn user(claims: &Claims) -> UserInfo {
    let private = &claims.kubernetes;
    let mut extra = BTreeMap::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("{EXTRA}{key}"), vec![value.to_owned()]);
        }
    };
    if let Some(pod) = &private.pod {
        add("pod-name", &pod.name);
        add("pod-uid", &pod.uid);
    }
    if let Some(node) = &private.node {
        add("node-name", &node.name);
        add("node-uid", &node.uid);
    }
    if !claims.jti.is_empty() {
        add("credential-id", &format!("JTI={}", claims.jti));
    }
    UserInfo {
        name: token::user_name(&private.namespace, &private.serviceaccount.name),
        uid: private.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", private.namespace),
        ],
        extra,
    }
}

#[cfg(test)]
#[path = "service_account/tests.rs"]
pub(crate) mod tests;
