//! Service account tokens as signed text: claims, issuing, parsing and checking the signature, issuer, audience and times.
//!
//! Pure: whether the objects named in the claims still exist is asked for in `service_account.rs`. Only compact JWS with an
//! asymmetric algorithm is accepted; legacy tokens from Secrets (issuer `kubernetes/serviceaccount`) are not known.
//! Upstream: `pkg/serviceaccount/{jwt,claims}.go`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::service_account_keys::{JwsAlgorithm, KeyError, SigningKey, VerificationKey};

/// The longest token that is looked at. Ours are about a kilobyte; the bound keeps hostile input cheap.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Tolerance for clocks of other machines, as upstream's JOSE library has it.
pub const LEEWAY_SECONDS: i64 = 60;

/// Why a token is not accepted. Reported to logs only; the client gets a plain 401.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not a compact JWS, too long, or its parts are not what they should be.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// The header names an algorithm that no key uses.
    #[error("unexpected signature algorithm")]
    Algorithm,
    /// No configured key made the signature.
    #[error("invalid signature")]
    Signature,
    /// The issuer is not one of ours.
    #[error("token issuer is not accepted")]
    Issuer,
    /// None of the audiences is accepted.
    #[error("token audiences {0:?} is invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
    /// Past `exp`.
    #[error("service account token has expired")]
    Expired,
    /// Before `nbf`.
    #[error("service account token is not valid yet")]
    NotYet,
    /// The subject does not fit the private claims.
    #[error("sub claim does not match the kubernetes.io claim")]
    Subject,
    /// An object that the token is bound to is gone or was replaced.
    #[error("{0}")]
    Bound(String),
}

/// A reference in the private claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    /// The object's name.
    pub name: String,
    /// The object's uid; absent only in references to nodes that do not exist yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The `kubernetes.io` claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateClaims {
    /// Namespace of the account and of a bound pod or secret.
    pub namespace: String,
    /// The node of the bound pod, or the bound node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
    /// The bound pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    /// The bound secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
    /// The account.
    pub serviceaccount: Ref,
    /// When the holder should have renewed a token whose life was extended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// All claims of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Audiences.
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Expiry, seconds since the epoch.
    pub exp: i64,
    /// Issued at.
    pub iat: i64,
    /// Issuer.
    pub iss: String,
    /// The token's id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// Kubernetes' private claims.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: PrivateClaims,
    /// Not before.
    pub nbf: i64,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(d)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kid: String,
    /// Extensions that must be understood: none is, so any makes the token unacceptable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

/// The user name of a service account.
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// Signs `claims`.
pub fn issue(claims: &Claims, key: &SigningKey) -> Result<String, KeyError> {
    let header =
        Header { alg: key.public().algorithm().name().into(), kid: key.public().key_id().into(), crit: None };
    let encode = |json: Result<Vec<u8>, serde_json::Error>| {
        json.map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).map_err(|_| KeyError::Sign)
    };
    let signed = format!("{}.{}", encode(serde_json::to_vec(&header))?, encode(serde_json::to_vec(claims))?);
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

/// Whether the token claims to be from one of `issuers`, without trusting it: other authenticators may know it otherwise.
pub fn has_issuer(token: &str, issuers: &[String]) -> bool {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Ok(payload) = URL_SAFE_NO_PAD.decode(payload) else { return false };
    serde_json::from_slice::<Issuer>(&payload).is_ok_and(|claims| issuers.contains(&claims.iss))
}

/// Checks a token's form and signature and returns its claims, still unchecked against the clock and the configuration.
pub fn parse(token: &str, keys: &[VerificationKey]) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed("too long"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("not three parts"))?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed("not three parts"))?;
    if payload.contains('.') {
        return Err(TokenError::Malformed("not three parts"));
    }
    let decode =
        |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("not base64url"));
    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed("header is not JSON"))?;
    if header.crit.is_some() {
        return Err(TokenError::Malformed("critical header extensions"));
    }
    let algorithm = JwsAlgorithm::from_name(&header.alg).ok_or(TokenError::Algorithm)?;
    let signature = decode(signature)?;
    let with_id = |key: &&VerificationKey| key.key_id() == header.kid;
    // A token that names a known key is checked with that key only; otherwise each key of the algorithm is tried.
    let named: Vec<&VerificationKey> = keys.iter().filter(with_id).collect();
    let candidates = if named.is_empty() { keys.iter().collect() } else { named };
    let signed_by = candidates
        .into_iter()
        .filter(|key| key.algorithm() == algorithm)
        .any(|key| key.verifies(signed.as_bytes(), &signature));
    if !signed_by {
        return Err(TokenError::Signature);
    }
    serde_json::from_slice(&decode(payload)?).map_err(|_| TokenError::Malformed("claims"))
}

/// Checks the claims against the configuration and the clock; gives the audiences that both sides named.
pub fn validate(
    claims: &Claims,
    issuers: &[String],
    accepted_audiences: &[String],
    now: i64,
) -> Result<Vec<String>, TokenError> {
    if !issuers.contains(&claims.iss) {
        return Err(TokenError::Issuer);
    }
    let audiences: Vec<String> =
        claims.aud.iter().filter(|a| accepted_audiences.contains(a)).cloned().collect();
    if audiences.is_empty() {
        return Err(TokenError::Audience(claims.aud.clone(), accepted_audiences.to_vec()));
    }
    if now.saturating_sub(LEEWAY_SECONDS) > claims.exp {
        return Err(TokenError::Expired);
    }
    if now.saturating_add(LEEWAY_SECONDS) < claims.nbf {
        return Err(TokenError::NotYet);
    }
    let private = &claims.kubernetes;
    let named = !private.namespace.is_empty() && !private.serviceaccount.name.is_empty();
    if !named || claims.sub != user_name(&private.namespace, &private.serviceaccount.name) {
        return Err(TokenError::Subject);
    }
    Ok(audiences)
}

#[cfg(test)]
#[path = "service_account_token/tests.rs"]
mod tests;
