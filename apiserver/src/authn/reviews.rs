//! TokenReview (whose token is this?) and SelfSubjectReview (who am I?).
//!
//! Upstream: `pkg/registry/authentication/{tokenreview,selfsubjectreview}`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo as ReviewedUser,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::bearer::BearerTokens;
use super::{ALL_AUTHENTICATED, UserInfo};
use crate::body::Body;
use crate::endpoints::exchange;
use crate::endpoints::special::Handler;
use crate::request::RequestContext;
use crate::server::ApiContext;

const GROUP: &str = "authentication.k8s.io";

fn reviewed(user: &UserInfo) -> ReviewedUser {
    ReviewedUser {
        username: Some(user.name.clone()),
        uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups.clone()).filter(|groups| !groups.is_empty()),
        extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
    }
}

/// `POST /apis/authentication.k8s.io/v1/tokenreviews`.
#[derive(Debug)]
pub struct TokenReviews {
    tokens: Arc<BearerTokens>,
}

impl TokenReviews {
    /// Reviews with the server's own token authenticator.
    pub fn new(tokens: Arc<BearerTokens>) -> Self {
        Self { tokens }
    }
}

async fn review(tokens: &BearerTokens, mut review: TokenReview) -> Result<TokenReview, ApiError> {
    if review.spec.token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = review.spec.audiences.as_deref().filter(|audiences| !audiences.is_empty());
    review.status = Some(match tokens.authenticate_token(&review.spec.token, audiences).await {
        Ok(mut authenticated) => {
            authenticated.user.groups.push(ALL_AUTHENTICATED.to_owned());
            TokenReviewStatus {
                audiences: Some(authenticated.audiences).filter(|_| audiences.is_some()),
                authenticated: Some(true),
                error: None,
                user: Some(reviewed(&authenticated.user)),
            }
        }
        Err(error) => TokenReviewStatus {
            error: Some(format!("[invalid bearer token, {error}]")),
            user: Some(ReviewedUser::default()),
            ..TokenReviewStatus::default()
        },
    });
    Ok(review)
}

impl Handler for TokenReviews {
    fn serves(&self) -> (&'static str, &'static str, &'static str) {
        (GROUP, "tokenreviews", "")
    }

    fn handle(
        &self,
        _: Arc<ApiContext>,
        _: Arc<RequestContext>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Result<Response<Body>, ApiError>> {
        let tokens = self.tokens.clone();
        Box::pin(async move { exchange::created(&review(&tokens, exchange::read(request).await?).await?) })
    }
}

/// `POST /apis/authentication.k8s.io/v1/selfsubjectreviews`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SelfSubjectReviews;

impl Handler for SelfSubjectReviews {
    fn serves(&self) -> (&'static str, &'static str, &'static str) {
        (GROUP, "selfsubjectreviews", "")
    }

    fn handle(
        &self,
        _: Arc<ApiContext>,
        ctx: Arc<RequestContext>,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, Result<Response<Body>, ApiError>> {
        Box::pin(async move {
            let mut review: SelfSubjectReview = exchange::read(request).await?;
            review.metadata.creation_timestamp = Some(Time(ctx.now));
            review.status = Some(SelfSubjectReviewStatus { user_info: Some(reviewed(&ctx.user)) });
            exchange::created(&review)
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::TokenReviewSpec;

    use super::super::service_account::tests::{accounts, claims, everything};
    use super::super::service_account_token::issue;
    use super::*;
    use crate::lookup::fake::Objects;

    #[tokio::test]
    async fn good_and_bad_tokens() {
        let objects = Arc::new(Objects::default());
        everything(&objects);
        let accounts = Arc::new(accounts(objects));
        let good = issue(&claims(true, false, false), accounts.config.signing_key.as_ref().unwrap()).unwrap();
        let tokens = BearerTokens::new(Some(accounts));
        let ask = |token: &str, audiences: Option<Vec<String>>| {
            let spec = TokenReviewSpec { token: token.to_owned(), audiences };
            review(&tokens, TokenReview { spec, ..TokenReview::default() })
        };
        let status = ask(&good, None).await.unwrap().status.unwrap();
        assert_eq!(status.authenticated, Some(true));
        let user = status.user.unwrap();
        assert_eq!(user.username.as_deref(), Some("system:serviceaccount:web:shop"));
        assert!(user.groups.unwrap().contains(&ALL_AUTHENTICATED.to_owned()));
        let status = ask(&good, Some(vec!["vault".into()])).await.unwrap().status.unwrap();
        assert!(status.authenticated.is_none() && status.error.is_some());
        let status = ask("nonsense", None).await.unwrap().status.unwrap();
        assert!(status.authenticated.is_none());
        assert_eq!(ask("", None).await.unwrap_err().code(), 400);
    }
}
