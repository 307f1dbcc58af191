//! Who may do what: authenticators and authorizers from their flags, with the endpoints that speak about them.

use std::path::Path;
use std::sync::Arc;

use component_base::Shutdown;
use tokio::sync::watch;

use super::RunError;
use crate::authn::Authenticator;
use crate::authn::bearer::BearerTokens;
use crate::authn::issuer_discovery;
use crate::authn::reviews::{SelfSubjectReviews, TokenReviews};
use crate::authn::service_account::{ServiceAccountConfig, ServiceAccounts};
use crate::authn::service_account_keys::{SigningKey, VerificationKey, public_keys_from_pem};
use crate::authn::token_request::TokenRequests;
use crate::authn::union::Union;
use crate::authn::x509::X509;
use crate::authz::modes::{Chain, Mode};
use crate::authz::node::NodeAuthorizer;
use crate::authz::rbac::Rbac;
use crate::authz::reviews::{AccessReviews, RulesReviews};
use crate::authz::{Authorizer, node, rbac};
use crate::config::Args;
use crate::endpoints::special::Handler;
use crate::lookup::Lookup;
use crate::server::Page;
use crate::store::Store;

/// Everything about authentication.
pub(super) struct Authentication {
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) specials: Vec<Box<dyn Handler>>,
    pub(super) pages: Vec<Page>,
}

/// Client certificates, service account tokens if there are keys for them, and anonymous.
pub(super) fn authentication(args: &Args, lookup: &Arc<dyn Lookup>) -> Result<Authentication, RunError> {
    let accounts =
        service_accounts(args)?.map(|config| Arc::new(ServiceAccounts::new(config, Arc::clone(lookup))));
    let tokens = Arc::new(BearerTokens::new(accounts.clone()));
    let mut specials: Vec<Box<dyn Handler>> =
        vec![Box::new(TokenReviews::new(Arc::clone(&tokens))), Box::new(SelfSubjectReviews)];
    let mut pages: Vec<Page> = Vec::new();
    if let Some(accounts) = accounts {
        specials.push(Box::new(TokenRequests::new(Arc::clone(&accounts))));
        pages.push(Box::new(move |path, _, _| issuer_discovery::serve(&accounts.config, path)));
    }
    let methods: Vec<Box<dyn Authenticator>> = vec![Box::new(X509), Box::new(tokens)];
    Ok(Authentication { authenticator: Arc::new(Union::new(methods, args.anonymous_auth)), specials, pages })
}

fn read(flag: &'static str, file: &Path) -> Result<Vec<u8>, RunError> {
    std::fs::read(file).map_err(|source| RunError::File {
        flag,
        file: file.display().to_string(),
        source: source.into(),
    })
}

fn service_accounts(args: &Args) -> Result<Option<ServiceAccountConfig>, RunError> {
    const KEYS: &str = "service-account-key-file";
    const SIGNING: &str = "service-account-signing-key-file";
    let bad = |flag: &'static str, file: &Path, source: component_base::cli::BoxError| RunError::File {
        flag,
        file: file.display().to_string(),
        source,
    };
    let mut keys: Vec<VerificationKey> = Vec::new();
    for file in &args.service_account_key_file {
        let pem = read(KEYS, file)?;
        keys.append(&mut public_keys_from_pem(&pem).map_err(|error| bad(KEYS, file, error.into()))?);
    }
    let signing_key = match &args.service_account_signing_key_file {
        Some(file) => {
            Some(SigningKey::from_pem(&read(SIGNING, file)?).map_err(|e| bad(SIGNING, file, e.into()))?)
        }
        None => None,
    };
    if keys.is_empty() && signing_key.is_none() {
        return Ok(None);
    }
    if args.service_account_issuer.is_empty() {
        return Err(RunError::Flag(
            "service-account-issuer is required with service account keys".to_owned(),
        ));
    }
    let audiences = if args.api_audiences.is_empty() {
        args.service_account_issuer.clone()
    } else {
        args.api_audiences.clone()
    };
    Ok(Some(ServiceAccountConfig {
        keys,
        signing_key,
        issuers: args.service_account_issuer.clone(),
        audiences,
        max_expiration: args
            .service_account_max_token_expiration
            .and_then(|duration| i64::try_from(duration.as_secs()).ok())
            .filter(|seconds| *seconds > 0),
        extend_expiration: args.service_account_extend_token_expiration,
        jwks_uri: args.service_account_jwks_uri.clone(),
    }))
}

/// Everything about authorization.
pub(super) struct Authorization {
    pub(super) authorizer: Arc<dyn Authorizer>,
    /// The index that escalation checks read, whatever the modes.
    pub(super) rbac: Arc<Rbac>,
    pub(super) specials: Vec<Box<dyn Handler>>,
    /// Turn true when an index first equals the store.
    pub(super) feeds: Vec<watch::Receiver<bool>>,
}

/// The chain of the modes in force, and what feeds it.
pub(super) fn authorization(modes: &[Mode], store: &Arc<Store>, shutdown: &Shutdown) -> Authorization {
    let (rbac, node) = (Arc::new(Rbac::default()), Arc::new(NodeAuthorizer::default()));
    let mut feeds = Vec::new();
    if modes.contains(&Mode::Rbac) {
        feeds.append(&mut rbac::feed::start(&rbac, store, shutdown));
    }
    if modes.contains(&Mode::Node) {
        feeds.append(&mut node::feed::start(&node, store, shutdown));
    }
    let mut specials: Vec<Box<dyn Handler>> = Vec::new();
    for review in [AccessReviews::Subject, AccessReviews::LocalSubject, AccessReviews::SelfSubject] {
        specials.push(Box::new(review));
    }
    specials.push(Box::new(RulesReviews::new(Arc::clone(&rbac), modes.to_vec())));
    Authorization { authorizer: Arc::new(Chain::new(modes, &rbac, &node)), rbac, specials, feeds }
}
