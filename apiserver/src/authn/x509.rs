//! Client certificates: the common name is the user, the organizations are its groups.
//!
//! The certificate was verified against `--client-ca-file` in the TLS handshake; a connection whose certificate did not verify
//! never gets here. Upstream: `apiserver/pkg/authentication/request/x509`.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Authenticator, AuthnError, Credentials, UserInfo};

/// The authenticator of verified client certificates.
#[derive(Debug, Clone, Copy, Default)]
pub struct X509;

impl Authenticator for X509 {
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<UserInfo>>, AuthnError>> {
        // A certificate without a common name identifies nobody.
        let user = credentials.peer.filter(|peer| !peer.common_name.is_empty()).map(|peer| {
            Arc::new(UserInfo {
                name: peer.common_name.clone(),
                groups: peer.organizations.clone(),
                ..UserInfo::default()
            })
        });
        Box::pin(std::future::ready(Ok(user)))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::PeerIdentity;
    use super::*;

    async fn user(common_name: &str, organizations: &[&str]) -> Option<Arc<UserInfo>> {
        let organizations = organizations.iter().map(|&o| o.to_owned()).collect();
        let peer = PeerIdentity { common_name: common_name.to_owned(), organizations };
        X509.authenticate(Credentials { headers: &HeaderMap::new(), peer: Some(&peer) }).await.unwrap()
    }

    #[tokio::test]
    async fn common_name_and_organizations() {
        let user = user("system:node:one", &["system:nodes"]).await.unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice()),
            ("system:node:one", &["system:nodes".to_owned()][..])
        );
    }

    #[tokio::test]
    async fn no_name_no_user() {
        assert_eq!(user("", &["system:masters"]).await, None);
    }
}
