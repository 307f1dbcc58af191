//! Who a request comes from. The pipeline asks an [`Authenticator`]; each method is a file in `authn/`.
//!
//! Upstream: `apiserver/pkg/authentication`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::HeaderMap;

pub mod bearer;
pub mod impersonation;
pub mod issuer_discovery;
pub mod reviews;
pub mod service_account;
pub mod service_account_keys;
pub mod service_account_token;
pub mod token_request;
pub mod union;
pub mod x509;

/// Group of every authenticated user.
pub const ALL_AUTHENTICATED: &str = "system:authenticated";
/// Group of anonymous requests.
pub const ALL_UNAUTHENTICATED: &str = "system:unauthenticated";
/// Name of the anonymous user.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub const SYSTEM_MASTERS: &str = "system:masters";

/// An authenticated (or anonymous) user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![ALL_UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// The server's own identity.
    pub fn loopback() -> Self {
        Self {
            name: "system:apiserver".to_owned(),
            groups: vec![SYSTEM_MASTERS.to_owned(), ALL_AUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }
}

/// A verified client certificate's subject as a user, read once for each connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub user: Arc<UserInfo>,
    /// When the certificate ends to be valid, in seconds since the epoch.
    pub not_after: i64,
}

impl PeerIdentity {
    pub fn new(common_name: String, mut groups: Vec<String>, not_after: i64) -> Self {
        // Added here, so that requests can share the user.
        groups.push(ALL_AUTHENTICATED.to_owned());
        let user = UserInfo { name: common_name, groups, ..UserInfo::default() };
        Self { user: Arc::new(user), not_after }
    }
}

/// The parts of a request that identify its sender.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    pub headers: &'a HeaderMap,
    /// The client certificate's subject, if one was presented and verified against `--client-ca-file`.
    pub peer: Option<&'a PeerIdentity>,
}

/// Why presented credentials are refused; the client sees only 401 Unauthorized.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthnError(pub String);

/// One method, or a union of methods, of authentication.
pub trait Authenticator: Send + Sync {
    /// `Ok(None)`: no credentials that this method understands.
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<UserInfo>>, AuthnError>>;
}

impl<T: Authenticator + ?Sized> Authenticator for Arc<T> {
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Option<Arc<UserInfo>>, AuthnError>> {
        (**self).authenticate(credentials)
    }
}
