//! Tokens asked for: bounds, bindings and the claims that come out.

use super::super::service_account::tests::{accounts, everything, meta};
use super::*;
use crate::lookup::fake::Objects;

fn endpoint() -> (TokenRequests, ServiceAccount) {
    let objects = Arc::new(Objects::default());
    everything(&objects);
    let account = ServiceAccount { metadata: meta("web", "shop", "sa-uid"), ..ServiceAccount::default() };
    (TokenRequests::new(Arc::new(accounts(objects))), account)
}

fn request(change: impl FnOnce(&mut TokenRequestSpec)) -> TokenRequest {
    let mut spec = TokenRequestSpec::default();
    change(&mut spec);
    TokenRequest { spec: Some(spec), ..TokenRequest::default() }
}

fn bind(kind: &str, name: &str, uid: &str) -> BoundObjectReference {
    BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some(kind.into()),
        name: Some(name.into()),
        uid: (!uid.is_empty()).then(|| uid.into()),
    }
}

async fn ask(change: impl FnOnce(&mut TokenRequestSpec)) -> Result<(TokenRequest, Claims), ApiError> {
    let (endpoint, account) = endpoint();
    let issued = endpoint.issue(&RequestContext::loopback(), &account, request(change)).await?;
    let token = issued.status.as_ref().unwrap().token.as_deref().unwrap();
    let claims = super::super::service_account_token::parse(token, &endpoint.accounts.config.keys).unwrap();
    Ok((issued, claims))
}

#[tokio::test]
async fn defaults_are_an_hour_for_the_server() {
    let (issued, claims) = ask(|_| {}).await.unwrap();
    assert_eq!(claims.exp - claims.iat, 3600);
    assert_eq!((claims.nbf, claims.kubernetes.warnafter), (claims.iat, None));
    assert_eq!(claims.aud, ["https://issuer"]);
    assert_eq!(claims.sub, "system:serviceaccount:web:shop");
    assert_eq!(claims.jti.len(), 36);
    let spec = issued.spec.unwrap();
    assert_eq!((spec.expiration_seconds, spec.audiences.unwrap().len()), (Some(3600), 1));
    let expires = issued.status.unwrap().expiration_timestamp.unwrap();
    assert_eq!(expires.0.as_second(), claims.exp);
}

#[tokio::test]
async fn lifetimes_have_bounds() {
    for (seconds, good) in [(599, false), (600, true), (1 << 32, true), ((1 << 32) + 1, false), (-1, false)] {
        let result = ask(|spec| spec.expiration_seconds = Some(seconds)).await;
        assert_eq!(result.is_ok(), good, "{seconds}");
        assert!(good || result.unwrap_err().code() == 422);
    }
}

#[tokio::test]
async fn a_pods_token_lives_longer_than_it_says() {
    let pod = || Some(bind("Pod", "pod", "pod-uid"));
    let (issued, claims) = ask(|spec| {
        spec.expiration_seconds = Some(POD_TOKEN_SECONDS);
        spec.bound_object_ref = pod();
    })
    .await
    .unwrap();
    assert_eq!(claims.exp - claims.iat, EXTENDED_EXPIRATION);
    assert_eq!(claims.kubernetes.warnafter, Some(claims.iat + POD_TOKEN_SECONDS));
    assert_eq!(
        issued.status.unwrap().expiration_timestamp.unwrap().0.as_second(),
        claims.iat + POD_TOKEN_SECONDS
    );
    // Not so for another audience, another lifetime, or no pod.
    let (_, other) = ask(|spec| {
        spec.expiration_seconds = Some(POD_TOKEN_SECONDS);
        spec.bound_object_ref = pod();
        spec.audiences = Some(vec!["vault".into()]);
    })
    .await
    .unwrap();
    assert_eq!(other.exp - other.iat, POD_TOKEN_SECONDS);
    let (_, unbound) = ask(|spec| spec.expiration_seconds = Some(POD_TOKEN_SECONDS)).await.unwrap();
    assert_eq!(unbound.exp - unbound.iat, POD_TOKEN_SECONDS);
}

#[tokio::test]
async fn bindings_name_existing_objects_of_this_account() {
    let cases = [
        (bind("Pod", "pod", ""), 0),
        (bind("Pod", "pod", "other-uid"), 409),
        (bind("Pod", "gone", ""), 404),
        (bind("Pod", "other-account", ""), 400),
        (bind("Secret", "secret", "secret-uid"), 0),
        (bind("Node", "node", "node-uid"), 0),
        (bind("Node", "gone", ""), 404),
        (bind("ConfigMap", "any", ""), 400),
    ];
    for (reference, code) in cases {
        let result = ask(|spec| spec.bound_object_ref = Some(reference.clone())).await;
        assert_eq!(result.err().map_or(0, |error| error.code()), code, "{reference:?}");
    }
    let (_, claims) = ask(|spec| spec.bound_object_ref = Some(bind("Pod", "pod", ""))).await.unwrap();
    assert_eq!(claims.kubernetes.pod, Some(Ref { name: "pod".into(), uid: "pod-uid".into() }));
    assert_eq!(claims.kubernetes.node, Some(Ref { name: "node".into(), uid: "node-uid".into() }));
}

#[tokio::test]
async fn a_request_for_another_name_is_refused() {
    let (endpoint, account) = endpoint();
    let mut request = request(|_| {});
    request.metadata.name = Some("other".into());
    let error = endpoint.issue(&RequestContext::loopback(), &account, request).await.unwrap_err();
    assert_eq!(error.code(), 400);
}
