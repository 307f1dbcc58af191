//! DefaultStorageClass: a claim without a class gets the default one, the newest if several are marked.
//!
//! Upstream: `plugin/pkg/admission/storage/storageclass/setdefault`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;

use super::{Attributes, Operation, Plugin};
use crate::lookup::{self, Lookup};
use crate::registry::ResourceInfo;

const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The plugin.
#[derive(Debug)]
pub struct DefaultStorageClass {
    lookup: Arc<dyn Lookup>,
}

impl DefaultStorageClass {
    /// Reads storage classes from `lookup`.
    pub fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup }
    }
}

fn default_class(mut classes: Vec<Arc<StorageClass>>) -> Option<String> {
    let annotated = |class: &Arc<StorageClass>| {
        let annotations = class.metadata.annotations.as_ref();
        DEFAULT.iter().any(|key| annotations.and_then(|a| a.get(*key)).is_some_and(|value| value == "true"))
    };
    classes.retain(annotated);
    let newest_first = |a: &&Arc<StorageClass>, b: &&Arc<StorageClass>| {
        let created = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        created(b).cmp(&created(a)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    };
    classes.iter().min_by(newest_first).and_then(|class| class.metadata.name.clone())
}

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, operation: Operation, resource: &ResourceInfo, subresource: &str) -> bool {
        operation == Operation::Create
            && resource.group.is_empty()
            && resource.plural == "persistentvolumeclaims"
            && subresource.is_empty()
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let Some(claim) = attributes.new_mut::<PersistentVolumeClaim>() else { return Ok(()) };
            let has_class = claim.spec.as_ref().is_some_and(|spec| spec.storage_class_name.is_some())
                || claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(BETA_CLASS));
            if has_class {
                return Ok(());
            }
            if let Some(class) = default_class(lookup::list::<StorageClass>(&self.lookup, "").await?) {
                claim.spec.get_or_insert_default().storage_class_name = Some(class);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::*;

    fn class(name: &str, default: &str, created: i64) -> Arc<StorageClass> {
        Arc::new(StorageClass {
            metadata: ObjectMeta {
                name: Some(name.into()),
                annotations: Some(BTreeMap::from([(DEFAULT[0].to_owned(), default.to_owned())])),
                creation_timestamp: Some(Time(Timestamp::from_second(created).unwrap())),
                ..ObjectMeta::default()
            },
            ..StorageClass::default()
        })
    }

    #[test]
    fn the_newest_marked_class_wins_then_the_first_name() {
        assert_eq!(default_class(vec![class("a", "false", 9)]), None);
        let classes =
            vec![class("a", "true", 1), class("c", "true", 5), class("b", "true", 5), class("d", "false", 9)];
        assert_eq!(default_class(classes).as_deref(), Some("b"));
    }
}
