//! Identity of objects: the namespace/name key, generated names, and small reads of `ObjectMeta`.
//!
//! Upstream: `k8s.io/apimachinery/pkg/types.NamespacedName`, `k8s.io/apiserver/pkg/storage/names`.

use std::fmt;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rand::Rng;

/// The namespace and name of an object. The namespace is empty for a cluster-scoped object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace, or `""` for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// The key of a namespaced object.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self { namespace: String::new(), name: name.into() }
    }

    /// The key that `metadata` gives its object.
    pub fn of_meta(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Parses `namespace/name`, or `name` for a cluster-scoped object.
    ///
    /// Returns `None` when there is more than one slash.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), None, None) => Some(Self::cluster(name)),
            (Some(namespace), Some(name), None) => Some(Self::new(namespace, name)),
            _ => None,
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The key of `object`.
pub fn key_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> ObjectKey {
    ObjectKey::of_meta(object.metadata())
}

/// `metadata.name`, or `""`.
pub fn name_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().name.as_deref().unwrap_or_default()
}

/// `metadata.namespace`, or `""`.
pub fn namespace_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().namespace.as_deref().unwrap_or_default()
}

/// `metadata.uid`, or `""`.
pub fn uid_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().uid.as_deref().unwrap_or_default()
}

/// The value of an annotation.
pub fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The value of a label.
pub fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// True once the object has been asked to go (`metadata.deletionTimestamp` is set).
pub fn is_deleting(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

/// Letters and digits that can't spell a word by accident: upstream's `rand.SafeEncodeString` alphabet.
pub const SAFE_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Longest name that the API server generates, in bytes.
const MAX_NAME_LENGTH: usize = 63;
const SUFFIX_LENGTH: usize = 5;

/// A name made of `base` and five random characters, cut so that the whole fits 63 bytes.
pub fn generate_name(base: &str) -> String {
    let keep = base.len().min(MAX_NAME_LENGTH - SUFFIX_LENGTH);
    let keep = (0..=keep).rev().find(|&at| base.is_char_boundary(at)).unwrap_or(0);
    let mut name = base[..keep].to_owned();
    name.push_str(&random_suffix(SUFFIX_LENGTH));
    name
}

/// `length` random characters of [`SAFE_ALPHABET`].
pub fn random_suffix(length: usize) -> String {
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(SAFE_ALPHABET[rng.random_range(0..SAFE_ALPHABET.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_print_and_parse() {
        for (text, key) in [
            ("default/web", Some(ObjectKey::new("default", "web"))),
            ("node-1", Some(ObjectKey::cluster("node-1"))),
            ("a/b/c", None),
        ] {
            assert_eq!(ObjectKey::parse(text), key, "{text}");
            if let Some(key) = key {
                assert_eq!(key.to_string(), text);
            }
        }
    }

    #[test]
    fn generated_names_fit_a_label() {
        let name = generate_name(&"x".repeat(80));
        assert_eq!(name.len(), 63);
        let name = generate_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert!(name.bytes().skip(4).all(|b| SAFE_ALPHABET.contains(&b)));
    }
}
