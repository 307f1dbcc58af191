//! `POST .../serviceaccounts/NAME/token`: a new token for a service account, bound to a pod, node or secret if asked.
//!
//! Upstream: `pkg/registry/core/serviceaccount/storage/token.go` and `pkg/serviceaccount/claims.go`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use apimachinery::validation::{Error, Path};
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus,
};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::service_account::{ServiceAccountConfig, ServiceAccounts};
use super::service_account_token::{Claims, PrivateClaims, Ref, issue, user_name};
use crate::admission::{Attributes, Operation};
use crate::body::Body;
use crate::endpoints::exchange;
use crate::endpoints::special::Handler;
use crate::lookup;
use crate::registry::ResourceInfo;
use crate::request::RequestContext;
use crate::server::ApiContext;

const HOUR: i64 = 3600;
const MIN_EXPIRATION: i64 = 600;
const MAX_EXPIRATION: i64 = 1 << 32;
/// The life that pods' own volumes ask for. Tokens asked for with exactly this are given a year, for clients that never reread
/// the file, and say in `warnafter` when they should have.
pub const POD_TOKEN_SECONDS: i64 = HOUR + 7;
const EXTENDED_EXPIRATION: i64 = 365 * 24 * HOUR;

/// What the token is bound to, as found in the store.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The pod.
    pub pod: Option<Ref>,
    /// The pod's node, or the node itself.
    pub node: Option<Ref>,
    /// The secret.
    pub secret: Option<Ref>,
}

/// The claims of a new token and the expiry that its holder is told.
pub fn claims(
    config: &ServiceAccountConfig,
    account: &ObjectMeta,
    spec: &TokenRequestSpec,
    bound: Bound,
    now: i64,
    id: String,
) -> (Claims, i64) {
    let asked = spec.expiration_seconds.unwrap_or(HOUR);
    let audiences =
        spec.audiences.clone().filter(|a| !a.is_empty()).unwrap_or_else(|| config.audiences.clone());
    let for_the_server = audiences.iter().all(|a| config.audiences.contains(a));
    let extend =
        config.extend_expiration && asked == POD_TOKEN_SECONDS && bound.pod.is_some() && for_the_server;
    let (lifetime, warnafter) = if extend { (EXTENDED_EXPIRATION, Some(now + asked)) } else { (asked, None) };
    let (namespace, name) = (text(account.namespace.as_ref()), text(account.name.as_ref()));
    let claims = Claims {
        aud: audiences,
        exp: now + lifetime,
        iat: now,
        iss: config.issuers.first().cloned().unwrap_or_default(),
        jti: id,
        kubernetes: PrivateClaims {
            namespace: namespace.to_owned(),
            node: bound.node,
            pod: bound.pod,
            secret: bound.secret,
            serviceaccount: Ref { name: name.to_owned(), uid: text(account.uid.as_ref()).to_owned() },
            warnafter,
        },
        nbf: now,
        sub: user_name(namespace, name),
    };
    (claims, now + asked)
}

fn text(value: Option<&String>) -> &str {
    value.map(String::as_str).unwrap_or_default()
}

/// Checks what can be checked without looking anything up.
fn validate(request: &TokenRequest, namespace: &str, name: &str) -> Result<(), ApiError> {
    let given = |value: &Option<String>| value.clone().filter(|v| !v.is_empty());
    if given(&request.metadata.name).is_some_and(|given| given != name) {
        let problem = "the name of the object does not match the name on the URL";
        return Err(ApiError::bad_request(problem));
    }
    if given(&request.metadata.namespace).is_some_and(|given| given != namespace) {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let path = Path::new("spec").child("expirationSeconds");
    let mut errors = Vec::new();
    if let Some(seconds) = request.spec.as_ref().and_then(|spec| spec.expiration_seconds) {
        if seconds < MIN_EXPIRATION {
            errors.push(Error::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > MAX_EXPIRATION {
            errors.push(Error::invalid(
                &path,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", name, &errors))
    }
}

/// The endpoint.
#[derive(Debug)]
pub struct TokenRequests {
    accounts: Arc<ServiceAccounts>,
}

impl TokenRequests {
    /// Issues with the keys of `accounts`.
    pub fn new(accounts: Arc<ServiceAccounts>) -> Self {
        Self { accounts }
    }

    /// Issues the token that `request` asks for.
    pub async fn issue(
        &self,
        ctx: &RequestContext,
        account: &ServiceAccount,
        request: TokenRequest,
    ) -> Result<TokenRequest, ApiError> {
        let config = &self.accounts.config;
        let key = config.signing_key.as_ref().ok_or_else(ApiError::path_not_found)?;
        let (namespace, name) =
            (text(account.metadata.namespace.as_ref()), text(account.metadata.name.as_ref()));
        validate(&request, namespace, name)?;
        let mut spec = request.spec.unwrap_or_default();
        let asked = spec.expiration_seconds.unwrap_or(HOUR);
        if let Some(max) = config.max_expiration.filter(|max| asked > *max) {
            ctx.warn(format!("requested expiration of {asked} seconds shortened to {max} seconds"));
            spec.expiration_seconds = Some(max);
        } else {
            spec.expiration_seconds = Some(asked);
        }
        if spec.audiences.as_ref().is_none_or(Vec::is_empty) {
            spec.audiences = Some(config.audiences.clone());
        }
        let bound = match &spec.bound_object_ref {
            Some(reference) => self.bound(namespace, name, reference).await?,
            None => Bound::default(),
        };
        let now = ctx.now.as_second();
        let (claims, expires) =
            claims(config, &account.metadata, &spec, bound, now, uuid::Uuid::new_v4().to_string());
        let token = issue(&claims, key)
            .map_err(|error| ApiError::internal(format!("failed to generate token: {error}")))?;
        let expires = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(expires);
        Ok(TokenRequest {
            metadata: ObjectMeta {
                name: account.metadata.name.clone(),
                namespace: account.metadata.namespace.clone(),
                creation_timestamp: Some(Time(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(now))),
                ..request.metadata
            },
            spec: Some(spec),
            status: Some(TokenRequestStatus {
                expiration_timestamp: Some(Time(expires)),
                token: Some(token),
            }),
        })
    }

    async fn bound(
        &self,
        namespace: &str,
        account: &str,
        wanted: &BoundObjectReference,
    ) -> Result<Bound, ApiError> {
        let lookup = self.accounts.lookup();
        let name = text(wanted.name.as_ref());
        let (version, kind) = (text(wanted.api_version.as_ref()), text(wanted.kind.as_ref()));
        let missing = |resource: &str| ApiError::not_found("", resource, name);
        match (version, kind) {
            ("v1", "Pod") => {
                let pod =
                    lookup::get::<Pod>(lookup, namespace, name).await?.ok_or_else(|| missing("pods"))?;
                let spec = pod.spec.as_ref();
                if text(spec.and_then(|spec| spec.service_account_name.as_ref())) != account {
                    return Err(ApiError::bad_request(format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                    )));
                }
                let node_name = spec.and_then(|spec| spec.node_name.clone());
                let node = match node_name.filter(|name| !name.is_empty()) {
                    Some(name) => {
                        // A pod can outlive its node object; then only the name is known.
                        let node = lookup::get::<Node>(lookup, "", &name).await?;
                        let uid = node.and_then(|node| node.metadata.uid.clone()).unwrap_or_default();
                        Some(Ref { name, uid })
                    }
                    None => None,
                };
                Ok(Bound {
                    pod: Some(reference("Pod", name, wanted, pod.metadata.uid.clone())?),
                    node,
                    secret: None,
                })
            }
            ("v1", "Node") => {
                let node = lookup::get::<Node>(lookup, "", name).await?.ok_or_else(|| missing("nodes"))?;
                Ok(Bound {
                    node: Some(reference("Node", name, wanted, node.metadata.uid.clone())?),
                    ..Bound::default()
                })
            }
            ("v1", "Secret") => {
                let secret = lookup::get::<Secret>(lookup, namespace, name)
                    .await?
                    .ok_or_else(|| missing("secrets"))?;
                Ok(Bound {
                    secret: Some(reference("Secret", name, wanted, secret.metadata.uid.clone())?),
                    ..Bound::default()
                })
            }
            _ => Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount to type {version}, Kind={kind}"
            ))),
        }
    }
}

fn reference(
    kind: &str,
    name: &str,
    wanted: &BoundObjectReference,
    uid: Option<String>,
) -> Result<Ref, ApiError> {
    let uid = uid.unwrap_or_default();
    match wanted.uid.as_deref().filter(|wanted| !wanted.is_empty()) {
        Some(wanted) if wanted != uid => Err(ApiError::conflict(
            "",
            kind,
            name,
            &format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have \
                 been deleted and then recreated"
            ),
        )),
        _ => Ok(Ref { name: name.to_owned(), uid }),
    }
}

impl Handler for TokenRequests {
    fn serves(&self) -> (&'static str, &'static str, &'static str) {
        ("", "serviceaccounts", "token")
    }

    fn handle(
        &self,
        api: Arc<ApiContext>,
        ctx: Arc<RequestContext>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Result<Response<Body>, ApiError>> {
        const INFO: ResourceInfo =
            ResourceInfo::new("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount", true);
        let endpoint = Self::new(self.accounts.clone());
        Box::pin(async move {
            if ctx.info.verb != "create" {
                return Err(ApiError::method_not_supported("", "serviceaccounts/token", &ctx.info.verb));
            }
            let (namespace, name) = (ctx.info.namespace.as_str(), ctx.info.name.as_str());
            let mut wanted: TokenRequest = exchange::read(request).await?;
            let account = lookup::get::<ServiceAccount>(endpoint.accounts.lookup(), namespace, name).await?;
            let account = account.ok_or_else(|| ApiError::not_found("", "serviceaccounts", name))?;
            let mut attributes = Attributes {
                operation: Operation::Create,
                resource: &INFO,
                subresource: "token",
                name,
                namespace,
                ctx: &ctx,
                object: Some(&mut wanted),
                old_object: None,
                dry_run: false,
            };
            let admission = api.store.admission();
            admission.admit(&mut attributes).await?;
            admission.validate(&attributes).await?;
            exchange::created(&endpoint.issue(&ctx, &account, wanted).await?)
        })
    }
}

#[cfg(test)]
#[path = "token_request/tests.rs"]
mod tests;
