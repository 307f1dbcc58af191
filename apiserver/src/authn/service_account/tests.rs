//! Tokens against the objects they are bound to.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::service_account_keys::tests::generated;
use super::super::service_account_token::{PrivateClaims, issue};
use super::*;
use crate::lookup::fake::Objects;

const ISSUER: &str = "https://issuer";

pub(crate) fn meta(namespace: &str, name: &str, uid: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: (!namespace.is_empty()).then(|| namespace.into()),
        uid: Some(uid.into()),
        ..ObjectMeta::default()
    }
}

pub(crate) fn accounts(objects: Arc<Objects>) -> ServiceAccounts {
    let signing_key = generated(&rcgen::PKCS_ECDSA_P256_SHA256);
    let config = ServiceAccountConfig {
        keys: vec![signing_key.public().clone()],
        signing_key: Some(signing_key),
        issuers: vec![ISSUER.into()],
        audiences: vec![ISSUER.into()],
        max_expiration: None,
        extend_expiration: true,
        jwks_uri: None,
    };
    ServiceAccounts::new(config, objects)
}

pub(crate) fn claims(pod: bool, secret: bool, node: bool) -> Claims {
    let now = Timestamp::now().as_second();
    let bound = |yes: bool, name: &str| yes.then(|| Ref { name: name.into(), uid: format!("{name}-uid") });
    Claims {
        aud: vec![ISSUER.into()],
        exp: now + 600,
        iat: now,
        iss: ISSUER.into(),
        jti: "id".into(),
        kubernetes: PrivateClaims {
            namespace: "web".into(),
            node: bound(node, "node"),
            pod: bound(pod, "pod"),
            secret: bound(secret, "secret"),
            serviceaccount: Ref { name: "shop".into(), uid: "sa-uid".into() },
            warnafter: None,
        },
        nbf: now,
        sub: "system:serviceaccount:web:shop".into(),
    }
}

async fn authenticate(accounts: &ServiceAccounts, claims: &Claims) -> Result<Authenticated, TokenError> {
    let token = issue(claims, accounts.config.signing_key.as_ref().unwrap()).unwrap();
    accounts.authenticate(&token, None).await
}

pub(crate) fn everything(objects: &Objects) {
    objects.add(ServiceAccount { metadata: meta("web", "shop", "sa-uid"), ..ServiceAccount::default() });
    let spec = |account: &str| {
        Some(PodSpec {
            service_account_name: Some(account.into()),
            node_name: Some("node".into()),
            ..PodSpec::default()
        })
    };
    objects.add(Pod { metadata: meta("web", "pod", "pod-uid"), spec: spec("shop"), ..Pod::default() });
    objects.add(Pod { metadata: meta("web", "other-account", "uid"), spec: spec("other"), ..Pod::default() });
    objects.add(Secret { metadata: meta("web", "secret", "secret-uid"), ..Secret::default() });
    objects.add(Node { metadata: meta("", "node", "node-uid"), ..Node::default() });
}

#[tokio::test]
async fn a_good_token_is_the_account_with_its_groups_and_extra() {
    let objects = Arc::new(Objects::default());
    everything(&objects);
    let accounts = accounts(objects);
    let user = authenticate(&accounts, &claims(true, false, true)).await.unwrap().user;
    assert_eq!(user.name, "system:serviceaccount:web:shop");
    assert_eq!(user.uid, "sa-uid");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:web"]);
    let extra: Vec<_> =
        user.extra.iter().map(|(k, v)| (k.trim_start_matches(EXTRA), v[0].as_str())).collect();
    assert_eq!(
        extra,
        [
            ("credential-id", "JTI=id"),
            ("node-name", "node"),
            ("node-uid", "node-uid"),
            ("pod-name", "pod"),
            ("pod-uid", "pod-uid")
        ]
    );
}

#[tokio::test]
async fn a_token_dies_with_each_object_it_is_bound_to() {
    let objects = Arc::new(Objects::default());
    let accounts = accounts(objects.clone());
    for (pod, secret, node) in
        [(false, false, false), (true, false, false), (false, true, false), (false, false, true)]
    {
        let claims = claims(pod, secret, node);
        objects.clear();
        everything(&objects);
        assert!(authenticate(&accounts, &claims).await.is_ok(), "{pod} {secret} {node}");
        // Each object replaced by another of its name, then gone.
        objects.clear();
        let replaced = |yes: bool, old: &'static str| if yes { "new-uid" } else { old };
        let plain = !pod && !secret && !node;
        objects.add(ServiceAccount {
            metadata: meta("web", "shop", replaced(plain, "sa-uid")),
            ..ServiceAccount::default()
        });
        objects.add(Pod { metadata: meta("web", "pod", replaced(pod, "pod-uid")), ..Pod::default() });
        objects.add(Secret {
            metadata: meta("web", "secret", replaced(secret, "secret-uid")),
            ..Secret::default()
        });
        objects.add(Node { metadata: meta("", "node", replaced(node, "node-uid")), ..Node::default() });
        assert!(authenticate(&accounts, &claims).await.is_err(), "{pod} {secret} {node} replaced");
        objects.clear();
        if !plain {
            objects
                .add(ServiceAccount { metadata: meta("web", "shop", "sa-uid"), ..ServiceAccount::default() });
        }
        assert!(authenticate(&accounts, &claims).await.is_err(), "{pod} {secret} {node} gone");
    }
}

#[tokio::test]
async fn a_terminating_pod_keeps_its_token_for_a_minute() {
    for (ago, good) in [(30, true), (90, false)] {
        let objects = Arc::new(Objects::default());
        objects.add(ServiceAccount { metadata: meta("web", "shop", "sa-uid"), ..ServiceAccount::default() });
        let deleted = Timestamp::now() - SignedDuration::from_secs(ago);
        let metadata =
            ObjectMeta { deletion_timestamp: Some(Time(deleted)), ..meta("web", "pod", "pod-uid") };
        objects.add(Pod { metadata, ..Pod::default() });
        let accounts = accounts(objects);
        assert_eq!(authenticate(&accounts, &claims(true, false, false)).await.is_ok(), good, "{ago}");
    }
}

#[tokio::test]
async fn a_token_for_other_audiences_is_good_only_for_them() {
    let objects = Arc::new(Objects::default());
    everything(&objects);
    let accounts = accounts(objects);
    let claims = Claims { aud: vec!["vault".into()], ..claims(false, false, false) };
    let token = issue(&claims, accounts.config.signing_key.as_ref().unwrap()).unwrap();
    assert!(accounts.authenticate(&token, None).await.is_err());
    let good = accounts.authenticate(&token, Some(&["vault".into(), "x".into()])).await.unwrap();
    assert_eq!(good.audiences, ["vault"]);
}
