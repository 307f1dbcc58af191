//! Objects from their JSON, one by one, so that one that the server should not have (a CRD changed, a newer server) costs
//! itself only.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use apimachinery::meta::ObjectKey;
use serde::Deserialize;

use super::{Object, source::Event};

/// What can be saved of an object that cannot be decoded, and all that is needed of a bookmark.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Remains {
    name: Option<String>,
    namespace: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl Remains {
    pub(super) fn of(json: &[u8]) -> Self {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct WithMetadata {
            metadata: Remains,
        }
        serde_json::from_slice::<WithMetadata>(json).unwrap_or_default().metadata
    }

    /// The event of an object that could not be decoded.
    pub(super) fn into_event<K>(self, is_deletion: bool) -> Event<K> {
        let key = self.name.map(|name| ObjectKey { namespace: self.namespace.unwrap_or_default(), name });
        Event::Malformed { resource_version: self.resource_version, deleted: key.filter(|_| is_deletion) }
    }
}

/// Decodes an object. One that cannot be is counted in `malformed` and logged.
pub(super) fn object<K: Object>(json: &[u8], malformed: &AtomicU64) -> Result<K, Remains> {
    let problem = match serde_json::from_slice::<K>(json) {
        Ok(object) if object.metadata().name.is_some() => return Ok(object),
        Ok(_) => "no metadata.name".to_owned(),
        Err(error) => error.to_string(),
    };
    malformed.fetch_add(1, Ordering::Relaxed);
    let remains = Remains::of(json);
    tracing::error!(
        kind = K::KIND,
        namespace = remains.namespace.as_deref().unwrap_or_default(),
        name = remains.name.as_deref().unwrap_or_default(),
        error = problem,
        "object cannot be decoded and is left out"
    );
    Err(remains)
}
