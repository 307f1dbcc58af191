//! Client certificates: the common name is the user, the organizations are its groups.
//!
//! The certificate was verified against `--client-ca-file` in the TLS handshake; a connection whose certificate did not verify
//! never gets here. One that has expired since is refused, on connections and resumed sessions that live on too. Upstream: `apiserver/pkg/authentication/request/x509`.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::{Authenticator, AuthnError, Credentials, UserInfo};

/// The authenticator of verified client certificates.
#[derive(Debug, Clone, Copy, Default)]
pub struct X509;

impl Authenticator for X509 {
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<UserInfo>>, AuthnError>> {
        Box::pin(std::future::ready(match credentials.peer {
            // A certificate without a common name identifies nobody.
            Some(peer) if peer.user.name.is_empty() => Ok(None),
            Some(peer) if peer.not_after < Timestamp::now().as_second() => {
                Err(AuthnError("x509: certificate has expired or is not yet valid".to_owned()))
            }
            peer => Ok(peer.map(|peer| Arc::clone(&peer.user))),
        }))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::{ALL_AUTHENTICATED, PeerIdentity};
    use super::*;

    async fn user(common_name: &str, organizations: &[&str]) -> Option<Arc<UserInfo>> {
        let organizations = organizations.iter().map(|&o| o.to_owned()).collect();
        let peer = PeerIdentity::new(common_name.to_owned(), organizations, i64::MAX);
        X509.authenticate(Credentials { headers: &HeaderMap::new(), peer: Some(&peer) }).await.unwrap()
    }

    #[tokio::test]
    async fn an_expired_certificate_is_refused() {
        let peer = PeerIdentity::new("anna".to_owned(), Vec::new(), 1_000);
        let credentials = Credentials { headers: &HeaderMap::new(), peer: Some(&peer) };
        assert!(X509.authenticate(credentials).await.is_err());
    }

    #[tokio::test]
    async fn common_name_and_organizations() {
        let user = user("system:node:one", &["system:nodes"]).await.unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice()),
            ("system:node:one", &["system:nodes".to_owned(), ALL_AUTHENTICATED.to_owned()][..])
        );
    }

    #[tokio::test]
    async fn no_name_no_user() {
        assert_eq!(user("", &["system:masters"]).await, None);
    }
}
