//! A client for each controller. With `--use-service-account-credentials` a controller acts as a ServiceAccount of its
//! own in kube-system, by tokens from TokenRequest that are renewed before they expire; otherwise as the controller
//! manager. Upstream: `DynamicControllerClientBuilder`.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Response, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::client::Body;
use kube::{Api, Client};
use tokio::sync::Mutex;
use tower::{BoxError, Service};

use crate::api_error;

const NAMESPACE: &str = "kube-system";
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// Makes clients.
#[derive(Clone)]
pub struct ClientBuilder {
    own: Client,
    /// A client without credentials, when each controller has its own.
    bare: Option<Client>,
}

/// Why a token could not be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("get or create service account {0}")]
    ServiceAccount(String, #[source] Box<kube::Error>),
    #[error("request a token for service account {0}")]
    Request(String, #[source] Box<kube::Error>),
    #[error("the answer to the token request for {0} has no usable token")]
    Empty(String),
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClientBuilder").finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// All controllers act as the controller manager.
    pub fn shared(own: Client) -> Self {
        Self { own, bare: None }
    }

    /// Each controller acts as its own ServiceAccount, over `bare`, a client without credentials.
    pub fn service_accounts(own: Client, bare: Client) -> Self {
        Self { own, bare: Some(bare) }
    }

    /// The client of the controller whose ServiceAccount has that name.
    pub fn client(&self, service_account: &str) -> Client {
        let Some(bare) = &self.bare else { return self.own.clone() };
        let tokens =
            Tokens { client: self.own.clone(), name: service_account.to_owned(), current: Mutex::new(None) };
        Client::new(Bearer { inner: bare.clone(), tokens: Arc::new(tokens) }, "default")
    }
}

/// The token of one ServiceAccount.
struct Tokens {
    client: Client,
    name: String,
    current: Mutex<Option<(HeaderValue, Instant)>>,
}

impl Tokens {
    /// The Authorization header, with a token that is good for a while yet.
    async fn header(&self) -> Result<HeaderValue, TokenError> {
        let mut current = self.current.lock().await;
        if let Some((header, renew_at)) = current.as_ref()
            && Instant::now() < *renew_at
        {
            return Ok(header.clone());
        }
        let asked = Instant::now();
        let (token, lifetime) = self.request().await?;
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| TokenError::Empty(self.name.clone()))?;
        header.set_sensitive(true);
        *current = Some((header.clone(), asked + lifetime.mul_f64(0.8)));
        Ok(header)
    }

    async fn request(&self) -> Result<(String, Duration), TokenError> {
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), NAMESPACE);
        self.ensure_account(&api)
            .await
            .map_err(|error| TokenError::ServiceAccount(self.name.clone(), Box::new(error)))?;
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: i64::try_from(TOKEN_LIFETIME.as_secs()).ok(),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let answer: TokenRequest = api
            .create_subresource("token", &self.name, &PostParams::default(), &request)
            .await
            .map_err(|error| TokenError::Request(self.name.clone(), Box::new(error)))?;
        let empty = || TokenError::Empty(self.name.clone());
        let status = answer.status.ok_or_else(empty)?;
        let token = status.token.filter(|token| !token.is_empty()).ok_or_else(empty)?;
        let expires = status.expiration_timestamp.ok_or_else(empty)?;
        let left = expires.0.as_second() - jiff::Timestamp::now().as_second();
        let lifetime = Duration::from_secs(u64::try_from(left).unwrap_or(0)).min(TOKEN_LIFETIME);
        Ok((token, lifetime))
    }

    async fn ensure_account(&self, api: &Api<ServiceAccount>) -> Result<(), kube::Error> {
        if api.get_opt(&self.name).await?.is_some() {
            return Ok(());
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match api.create(&PostParams::default(), &account).await {
            Ok(_) => Ok(()),
            Err(error) if api_error::is_already_exists(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Puts the token on every request.
#[derive(Clone)]
struct Bearer {
    inner: Client,
    tokens: Arc<Tokens>,
}

impl Service<Request<Body>> for Bearer {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The inner client is cloned for each request and made ready there.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (inner, tokens) = (self.inner.clone(), Arc::clone(&self.tokens));
        Box::pin(async move {
            let header = tokens.header().await?;
            request.headers_mut().insert(AUTHORIZATION, header);
            let response = inner.send(request).await?;
            if response.status() == StatusCode::UNAUTHORIZED {
                // The account may have been made anew: the next request asks for another token.
                *tokens.current.lock().await = None;
            }
            Ok(response)
        })
    }
}
