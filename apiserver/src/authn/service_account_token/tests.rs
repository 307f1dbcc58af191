//! Attacks on tokens, one row each.

use super::super::service_account_keys::tests::generated;
use super::*;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

fn claims() -> Claims {
    Claims {
        aud: vec![ISSUER.into()],
        exp: NOW + 3600,
        iat: NOW,
        iss: ISSUER.into(),
        jti: "7c1a".into(),
        kubernetes: PrivateClaims {
            namespace: "web".into(),
            node: None,
            pod: Some(Ref { name: "shop-1".into(), uid: "p1".into() }),
            secret: None,
            serviceaccount: Ref { name: "shop".into(), uid: "u1".into() },
            warnafter: None,
        },
        nbf: NOW,
        sub: "system:serviceaccount:web:shop".into(),
    }
}

fn key() -> SigningKey {
    generated(&rcgen::PKCS_ECDSA_P256_SHA256)
}

fn b64(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

#[test]
fn an_issued_token_is_read_back() {
    let key = key();
    let token = issue(&claims(), &key).unwrap();
    assert_eq!(parse(&token, &[key.public().clone()]).unwrap(), claims());
    assert!(has_issuer(&token, &[ISSUER.into()]));
    assert!(!has_issuer(&token, &["https://other".into()]));
}

#[test]
fn rotated_keys_stay_valid_while_listed() {
    let (old, new) = (key(), key());
    let token = issue(&claims(), &old).unwrap();
    let both = [new.public().clone(), old.public().clone()];
    assert!(parse(&token, &both).is_ok());
    assert_eq!(parse(&token, &both[..1]), Err(TokenError::Signature));
    assert_eq!(parse(&token, &[]), Err(TokenError::Signature));
}

#[test]
fn forged_tokens_are_refused() {
    let key = key();
    let keys = [key.public().clone()];
    let good = issue(&claims(), &key).unwrap();
    let mut parts = good.split('.');
    let (header, payload, signature) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let mut admin = claims();
    admin.sub = "system:serviceaccount:kube-system:admin".into();
    let other_payload = b64(&serde_json::to_string(&admin).unwrap());
    let kid = key.public().key_id();
    let cases: Vec<(&str, String, TokenError)> = vec![
        ("alg none", format!("{}.{payload}.", b64(r#"{"alg":"none"}"#)), TokenError::Algorithm),
        ("alg None", format!("{}.{payload}.{signature}", b64(r#"{"alg":"None"}"#)), TokenError::Algorithm),
        (
            "hmac with the public key",
            format!("{}.{payload}.{signature}", b64(r#"{"alg":"HS256"}"#)),
            TokenError::Algorithm,
        ),
        (
            "other asymmetric algorithm",
            format!("{}.{payload}.{signature}", b64(r#"{"alg":"RS256"}"#)),
            TokenError::Signature,
        ),
        (
            "algorithm of another curve with our key id",
            format!("{}.{payload}.{signature}", b64(&format!(r#"{{"alg":"ES384","kid":"{kid}"}}"#))),
            TokenError::Signature,
        ),
        ("changed claims", format!("{header}.{other_payload}.{signature}"), TokenError::Signature),
        ("no signature", format!("{header}.{payload}."), TokenError::Signature),
        ("signature of another key", issue(&claims(), &super::tests::key()).unwrap(), TokenError::Signature),
        (
            "critical extension",
            format!("{}.{payload}.{signature}", b64(r#"{"alg":"ES256","crit":["exp"]}"#)),
            TokenError::Malformed("critical header extensions"),
        ),
        ("two parts", format!("{header}.{payload}"), TokenError::Malformed("not three parts")),
        ("four parts", format!("{good}.{signature}"), TokenError::Malformed("not three parts")),
        ("five parts (JWE)", format!("{good}.a.b"), TokenError::Malformed("not three parts")),
        ("empty", String::new(), TokenError::Malformed("not three parts")),
        ("padding", format!("{header}==.{payload}.{signature}"), TokenError::Malformed("not base64url")),
        (
            "header not JSON",
            format!("{}.{payload}.{signature}", b64("x")),
            TokenError::Malformed("header is not JSON"),
        ),
        (
            "too long",
            format!("{header}.{}.{signature}", "A".repeat(MAX_TOKEN_BYTES)),
            TokenError::Malformed("too long"),
        ),
    ];
    for (name, token, expected) in cases {
        assert_eq!(parse(&token, &keys), Err(expected), "{name}");
    }
}

#[test]
fn duplicate_or_missing_claims_do_not_parse() {
    let key = key();
    for payload in ["{}", r#"{"iss":"a","iss":"b"}"#, "[]", "null", r#"{"sub":1}"#] {
        let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, key.public().key_id());
        let signed = format!("{}.{}", b64(&header), b64(payload));
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).unwrap()));
        assert_eq!(parse(&token, &[key.public().clone()]), Err(TokenError::Malformed("claims")), "{payload}");
    }
}

type Change = fn(&mut Claims);

#[test]
fn claims_are_checked_against_issuer_audience_clock_and_subject() {
    let issuers = vec![ISSUER.to_owned(), "https://old".to_owned()];
    let audiences = vec![ISSUER.to_owned()];
    let cases: [(&str, Change, Option<TokenError>); 11] = [
        ("good", |_| {}, None),
        ("second issuer", |c| c.iss = "https://old".into(), None),
        ("foreign issuer", |c| c.iss = "https://evil".into(), Some(TokenError::Issuer)),
        ("legacy issuer", |c| c.iss = "kubernetes/serviceaccount".into(), Some(TokenError::Issuer)),
        (
            "foreign audience",
            |c| c.aud = vec!["vault".into()],
            Some(TokenError::Audience(vec!["vault".into()], vec![ISSUER.into()])),
        ),
        ("no audience", |c| c.aud.clear(), Some(TokenError::Audience(vec![], vec![ISSUER.into()]))),
        ("one of two audiences", |c| c.aud.push("vault".into()), None),
        ("expired", |c| c.exp = NOW - LEEWAY_SECONDS - 1, Some(TokenError::Expired)),
        ("expired within the leeway", |c| c.exp = NOW - LEEWAY_SECONDS, None),
        ("not yet", |c| c.nbf = NOW + LEEWAY_SECONDS + 1, Some(TokenError::NotYet)),
        (
            "subject of another account",
            |c| c.sub = "system:serviceaccount:web:admin".into(),
            Some(TokenError::Subject),
        ),
    ];
    for (name, change, expected) in cases {
        let mut claims = claims();
        change(&mut claims);
        assert_eq!(validate(&claims, &issuers, &audiences, NOW).err(), expected, "{name}");
    }
}
