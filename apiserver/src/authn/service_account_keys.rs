//! Keys that sign and verify service account tokens: PEM files of `--service-account-key-file` and
//! `--service-account-signing-key-file`, the key id and the JSON Web Key of each.
//!
//! RSA (RS256) and ECDSA on P-256, P-384 and P-521 (ES256, ES384, ES512). The algorithm belongs to the key and never to the
//! token, so a token cannot talk the verifier into another one. Upstream: `pkg/serviceaccount/jwt.go` and `keyutil`.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as X509PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The key file cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The file is not PEM.
    #[error("data does not contain any valid RSA or ECDSA keys: {0}")]
    Pem(String),
    /// No block of the file holds a key of a known type.
    #[error("data does not contain any valid RSA or ECDSA keys")]
    NoKey,
    /// A block was of a known type but its content is wrong, or the key is of an unsupported type or size.
    #[error("unsupported or malformed key in PEM block {0:?}")]
    Unsupported(String),
    /// The crypto library failed to sign.
    #[error("signing failed")]
    Sign,
}

/// The signature algorithms that service account tokens use (`alg` of RFC 7518).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwsAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
}

impl JwsAlgorithm {
    /// The `alg` header's value.
    pub fn name(self) -> &'static str {
        match self {
            JwsAlgorithm::Rs256 => "RS256",
            JwsAlgorithm::Es256 => "ES256",
            JwsAlgorithm::Es384 => "ES384",
            JwsAlgorithm::Es512 => "ES512",
        }
    }

    /// The algorithm named by an `alg` header; symmetric ones and `none` are unknown by design.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Rs256, Self::Es256, Self::Es384, Self::Es512].into_iter().find(|a| a.name() == name)
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            JwsAlgorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            JwsAlgorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            JwsAlgorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
            JwsAlgorithm::Es512 => &ECDSA_P521_SHA512_FIXED,
        }
    }

    fn curve(self) -> Option<&'static str> {
        match self {
            JwsAlgorithm::Rs256 => None,
            JwsAlgorithm::Es256 => Some("P-256"),
            JwsAlgorithm::Es384 => Some("P-384"),
            JwsAlgorithm::Es512 => Some("P-521"),
        }
    }
}

/// One key that tokens are verified with.
#[derive(Clone)]
pub struct VerificationKey {
    key_id: String,
    algorithm: JwsAlgorithm,
    spki: Vec<u8>,
    parsed: ParsedPublicKey,
}

impl std::fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerificationKey")
            .field("key_id", &self.key_id)
            .field("algorithm", &self.algorithm)
            .finish()
    }
}

impl VerificationKey {
    /// From the bits of a public key: SubjectPublicKeyInfo, a PKCS#1 RSA key, or an uncompressed point.
    fn new(algorithm: JwsAlgorithm, bytes: &[u8]) -> Option<Self> {
        let parsed = ParsedPublicKey::new(algorithm.verification(), bytes).ok()?;
        let spki: PublicKeyX509Der<'_> = parsed.as_der().ok()?;
        let spki = spki.as_ref().to_vec();
        Some(Self { key_id: URL_SAFE_NO_PAD.encode(Sha256::digest(&spki)), algorithm, spki, parsed })
    }

    /// From SubjectPublicKeyInfo, choosing the algorithm by the key's type and curve.
    fn from_spki(spki: &[u8]) -> Option<Self> {
        let (_, info) = SubjectPublicKeyInfo::from_der(spki).ok()?;
        let candidates = match info.parsed().ok()? {
            X509PublicKey::RSA(_) => &[JwsAlgorithm::Rs256][..],
            X509PublicKey::EC(_) => &[JwsAlgorithm::Es256, JwsAlgorithm::Es384, JwsAlgorithm::Es512][..],
            _ => return None,
        };
        candidates.iter().find_map(|a| Self::new(*a, spki))
    }

    /// The key's id: the SHA-256 of its SubjectPublicKeyInfo, base64url, as upstream derives it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The only algorithm this key verifies.
    pub fn algorithm(&self) -> JwsAlgorithm {
        self.algorithm
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }

    /// The key as a JSON Web Key, for `/openid/v1/jwks`.
    pub fn jwk(&self) -> serde_json::Value {
        let mut jwk = serde_json::json!({
            "use": "sig", "kid": self.key_id, "alg": self.algorithm.name(),
        });
        let parsed = SubjectPublicKeyInfo::from_der(&self.spki).ok();
        let b64 = |bytes: &[u8]| serde_json::Value::from(URL_SAFE_NO_PAD.encode(bytes));
        match parsed.as_ref().and_then(|(_, info)| info.parsed().ok()) {
            Some(X509PublicKey::RSA(rsa)) => {
                jwk["kty"] = "RSA".into();
                jwk["n"] = b64(without_leading_zeros(rsa.modulus));
                jwk["e"] = b64(without_leading_zeros(rsa.exponent));
            }
            Some(X509PublicKey::EC(point)) => {
                let coordinates = point.data().get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                jwk["kty"] = "EC".into();
                jwk["crv"] = self.algorithm.curve().unwrap_or_default().into();
                jwk["x"] = b64(x);
                jwk["y"] = b64(y);
            }
            _ => {}
        }
        jwk
    }
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
    bytes.get(first..).unwrap_or_default()
}

enum PrivateKey {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
}

/// The key that new tokens are signed with.
pub struct SigningKey {
    private: PrivateKey,
    public: VerificationKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// From the first private key of a PEM file (PKCS#1, SEC1 or PKCS#8).
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        for block in blocks(pem)? {
            if let Some(key) = Self::from_block(&block)? {
                return Ok(key);
            }
        }
        Err(KeyError::NoKey)
    }

    fn from_block(block: &Pem) -> Result<Option<Self>, KeyError> {
        let der = &block.contents;
        let unsupported = || KeyError::Unsupported(block.label.clone());
        match block.label.as_str() {
            "RSA PRIVATE KEY" => Self::rsa(RsaKeyPair::from_der(der).map_err(|_| unsupported())?)
                .map(Some)
                .ok_or_else(unsupported),
            "EC PRIVATE KEY" | "PRIVATE KEY" => {
                if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
                    return Self::rsa(pair).map(Some).ok_or_else(unsupported);
                }
                let curves: [(JwsAlgorithm, &'static EcdsaSigningAlgorithm); 3] = [
                    (JwsAlgorithm::Es256, &ECDSA_P256_SHA256_FIXED_SIGNING),
                    (JwsAlgorithm::Es384, &ECDSA_P384_SHA384_FIXED_SIGNING),
                    (JwsAlgorithm::Es512, &ECDSA_P521_SHA512_FIXED_SIGNING),
                ];
                for (algorithm, curve) in curves {
                    let pair = EcdsaKeyPair::from_pkcs8(curve, der)
                        .or_else(|_| EcdsaKeyPair::from_private_key_der(curve, der));
                    if let Ok(pair) = pair {
                        let public = VerificationKey::new(algorithm, pair.public_key().as_ref())
                            .ok_or_else(unsupported)?;
                        return Ok(Some(Self { private: PrivateKey::Ecdsa(pair), public }));
                    }
                }
                Err(unsupported())
            }
            _ => Ok(None),
        }
    }

    fn rsa(pair: RsaKeyPair) -> Option<Self> {
        let public = VerificationKey::new(JwsAlgorithm::Rs256, pair.public_key().as_ref())?;
        Some(Self { private: PrivateKey::Rsa(pair), public })
    }

    /// The public half.
    pub fn public(&self) -> &VerificationKey {
        &self.public
    }

    /// A signature over `message` in JWS form.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let rng = SystemRandom::new();
        match &self.private {
            PrivateKey::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &rng, message, &mut out).map_err(|_| KeyError::Sign)?;
                Ok(out)
            }
            PrivateKey::Ecdsa(pair) => {
                let signed: signature::Signature = pair.sign(&rng, message).map_err(|_| KeyError::Sign)?;
                Ok(signed.as_ref().to_vec())
            }
        }
    }
}

/// Every public key of a PEM file: public keys, certificates, and the public halves of private keys.
pub fn public_keys_from_pem(pem: &[u8]) -> Result<Vec<VerificationKey>, KeyError> {
    let mut keys = Vec::new();
    for block in blocks(pem)? {
        let der = &block.contents;
        let key = match block.label.as_str() {
            "PUBLIC KEY" => VerificationKey::from_spki(der),
            "RSA PUBLIC KEY" => VerificationKey::new(JwsAlgorithm::Rs256, der),
            "CERTIFICATE" => x509_parser::parse_x509_certificate(der)
                .ok()
                .and_then(|(_, cert)| VerificationKey::from_spki(cert.public_key().raw)),
            _ => match SigningKey::from_block(&block)? {
                Some(key) => Some(key.public),
                // Blocks of other types (EC PARAMETERS, comments of tools) are passed over.
                None => continue,
            },
        };
        keys.push(key.ok_or_else(|| KeyError::Unsupported(block.label.clone()))?);
    }
    if keys.is_empty() { Err(KeyError::NoKey) } else { Ok(keys) }
}

fn blocks(pem: &[u8]) -> Result<Vec<Pem>, KeyError> {
    Pem::iter_from_buffer(pem).collect::<Result<_, _>>().map_err(|e| KeyError::Pem(e.to_string()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A fresh signing key in PKCS#8, for tests of this crate.
    pub(crate) fn generated(algorithm: &'static rcgen::SignatureAlgorithm) -> SigningKey {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        SigningKey::from_pem(pair.serialize_pem().as_bytes()).unwrap()
    }

    #[test]
    fn signs_and_verifies_with_every_curve() {
        let cases = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, "ES256", "P-256"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, "ES384", "P-384"),
            (&rcgen::PKCS_ECDSA_P521_SHA512, "ES512", "P-521"),
        ];
        for (algorithm, name, curve) in cases {
            let key = generated(algorithm);
            assert_eq!(key.public().algorithm().name(), name);
            let signature = key.sign(b"message").unwrap();
            assert!(key.public().verifies(b"message", &signature));
            assert!(!key.public().verifies(b"massage", &signature));
            assert_eq!(key.public().jwk()["crv"], curve);
        }
    }

    #[test]
    fn public_and_private_pem_give_the_same_key_id() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let private = public_keys_from_pem(pair.serialize_pem().as_bytes()).unwrap();
        let public = public_keys_from_pem(pair.public_key_pem().as_bytes()).unwrap();
        assert_eq!(private[0].key_id(), public[0].key_id());
        assert_eq!(public[0].key_id().len(), 43);
    }

    #[test]
    fn several_keys_in_one_file_are_all_read() {
        let one = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let two = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let file = format!("{}{}", one.public_key_pem(), two.public_key_pem());
        assert_eq!(public_keys_from_pem(file.as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn rsa_keys_are_read_from_every_form() {
        let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = |label: &str, der: &[u8]| {
            let body = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        let signing = SigningKey::from_pem(pem("PRIVATE KEY", pkcs8.as_ref()).as_bytes()).unwrap();
        let pkcs1 =
            public_keys_from_pem(pem("RSA PUBLIC KEY", pair.public_key().as_ref()).as_bytes()).unwrap();
        let spki = public_keys_from_pem(pem("PUBLIC KEY", &pkcs1[0].spki).as_bytes()).unwrap();
        let signature = signing.sign(b"m").unwrap();
        assert!(pkcs1[0].verifies(b"m", &signature) && spki[0].verifies(b"m", &signature));
        assert_eq!(spki[0].jwk()["kty"], "RSA");
        assert_eq!(spki[0].jwk()["e"], "AQAB");
    }

    #[test]
    fn refuses_files_without_keys() {
        assert!(public_keys_from_pem(b"not pem at all").is_err());
        assert!(public_keys_from_pem(b"").is_err());
        assert!(
            SigningKey::from_pem(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").is_err()
        );
    }

    #[test]
    fn unknown_algorithms_have_no_name() {
        for name in ["none", "None", "HS256", "PS256", "EdDSA", "rs256", ""] {
            assert_eq!(JwsAlgorithm::from_name(name), None, "{name}");
        }
    }
}
