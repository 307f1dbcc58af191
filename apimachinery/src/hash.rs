//! Hashes that name generations of a template: `pod-template-hash`, `controller-revision-hash`.
//!
//! Upstream hashes a Go value's printed form with 32-bit FNV-1a; the form is Go's own, so the numbers differ
//! from ours. Nothing may depend on the number: a controller finds its ReplicaSet by comparing templates.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Serialize;

use crate::meta::SAFE_ALPHABET;

/// 32-bit FNV-1a.
pub fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &b| (hash ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// A number in letters and digits that spell no words (upstream's `rand.SafeEncodeString`).
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(SAFE_ALPHABET[usize::from(b) % SAFE_ALPHABET.len()])).collect()
}

/// The hash of any API value over its JSON form, told apart by `collision_count`.
pub fn object_hash<T: Serialize>(value: &T, collision_count: Option<i32>) -> String {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    if let Some(count) = collision_count {
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    safe_encode(&fnv32a(&bytes).to_string())
}

/// The `pod-template-hash` of a template.
pub fn pod_template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    object_hash(template, collision_count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_tells_templates_and_collisions_apart() {
        assert_eq!(fnv32a(b"a"), 0xe40c_292c);
        let mut template = PodTemplateSpec::default();
        let one = pod_template_hash(&template, None);
        assert_eq!(one, pod_template_hash(&template, None));
        assert_ne!(one, pod_template_hash(&template, Some(0)));
        template.spec = Some(k8s_openapi::api::core::v1::PodSpec::default());
        assert_ne!(one, pod_template_hash(&template, None));
        assert!(one.bytes().all(|b| SAFE_ALPHABET.contains(&b)));
    }
}
