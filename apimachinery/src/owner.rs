//! Owner references.
//!
//! Upstream: `k8s.io/apimachinery/pkg/apis/meta/v1/controller_ref.go`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};

/// The one owner that manages the object, if it has one.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.as_ref()?.iter().find(|r| r.controller == Some(true))
}

/// Whether `owner` is the controller of the object; identity is the uid.
pub fn is_controlled_by(metadata: &ObjectMeta, owner: &ObjectMeta) -> bool {
    match (controller_of(metadata), owner.uid.as_deref()) {
        (Some(reference), Some(uid)) => reference.uid == uid,
        _ => false,
    }
}

/// A reference that makes `owner` the controller and blocks its foreground deletion.
pub fn new_controller_ref<K>(owner: &K) -> OwnerReference
where
    K: Resource + Metadata<Ty = ObjectMeta>,
{
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.metadata().name.clone().unwrap_or_default(),
        uid: owner.metadata().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;

    #[test]
    fn controller_is_known_by_uid() {
        let mut owner = ReplicaSet::default();
        owner.metadata.name = Some("web".into());
        owner.metadata.uid = Some("1".into());
        let reference = new_controller_ref(&owner);
        assert_eq!((reference.api_version.as_str(), reference.kind.as_str()), ("apps/v1", "ReplicaSet"));
        let mut owned = ObjectMeta { owner_references: Some(vec![reference]), ..ObjectMeta::default() };
        assert!(is_controlled_by(&owned, &owner.metadata));
        owner.metadata.uid = Some("2".into());
        assert!(!is_controlled_by(&owned, &owner.metadata));
        owned.owner_references = None;
        assert!(controller_of(&owned).is_none());
    }
}
