//! All methods in order: the first that knows the credentials decides; a request that presents none is anonymous.
//!
//! Upstream: `apiserver/pkg/authentication/{request/union,group,request/anonymous}`.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, Authenticator, AuthnError, Credentials, UserInfo};

/// The server's authenticator.
pub struct Union {
    methods: Vec<Box<dyn Authenticator>>,
    anonymous: bool,
}

impl std::fmt::Debug for Union {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Union")
            .field("methods", &self.methods.len())
            .field("anonymous", &self.anonymous)
            .finish()
    }
}

impl Union {
    /// `methods` in the order they are asked; `anonymous`: `--anonymous-auth`.
    pub fn new(methods: Vec<Box<dyn Authenticator>>, anonymous: bool) -> Self {
        Self { methods, anonymous }
    }
}

impl Authenticator for Union {
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<UserInfo>>, AuthnError>> {
        Box::pin(async move {
            let mut refused = None;
            for method in &self.methods {
                match method.authenticate(credentials).await {
                    Ok(Some(user)) => return Ok(Some(with_authenticated_group(user))),
                    Ok(None) => {}
                    Err(error) => refused = Some(error),
                }
            }
            match refused {
                // Credentials that were presented and are bad are never taken for none.
                Some(error) => Err(error),
                None if self.anonymous => Ok(Some(Arc::new(UserInfo::anonymous()))),
                None => Ok(None),
            }
        })
    }
}

fn with_authenticated_group(user: Arc<UserInfo>) -> Arc<UserInfo> {
    let has = |group: &str| user.groups.iter().any(|g| g == group);
    if has(ALL_AUTHENTICATED) || has(ALL_UNAUTHENTICATED) {
        return user;
    }
    let mut user = Arc::unwrap_or_clone(user);
    user.groups.push(ALL_AUTHENTICATED.to_owned());
    Arc::new(user)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::bearer::BearerTokens;
    use super::super::x509::X509;
    use super::super::{ANONYMOUS, PeerIdentity};
    use super::*;

    async fn ask(anonymous: bool, bearer: bool, peer: bool) -> Result<Option<Arc<UserInfo>>, AuthnError> {
        let union = Union::new(vec![Box::new(X509), Box::new(BearerTokens::new(None))], anonymous);
        let mut headers = HeaderMap::new();
        if bearer {
            headers.insert("authorization", "Bearer nonsense".parse().unwrap());
        }
        let identity = PeerIdentity::new("anna".into(), vec!["dev".into()], i64::MAX);
        union.authenticate(Credentials { headers: &headers, peer: peer.then_some(&identity) }).await
    }

    #[tokio::test]
    async fn no_credentials_are_anonymous_only_if_allowed() {
        let user = ask(true, false, false).await.unwrap().unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice()),
            (ANONYMOUS, &[ALL_UNAUTHENTICATED.to_owned()][..])
        );
        assert_eq!(ask(false, false, false).await.unwrap(), None);
    }

    #[tokio::test]
    async fn bad_credentials_are_not_anonymous() {
        assert!(ask(true, true, false).await.is_err());
    }

    #[tokio::test]
    async fn a_certificate_wins_over_a_bad_token() {
        let user = ask(true, true, true).await.unwrap().unwrap();
        assert_eq!(user.groups, ["dev", ALL_AUTHENTICATED]);
    }
}
