//! Which of the controller's own writes the cache does not show yet: slices have generated names, so acting on a cache
//! that is behind would make duplicates. Upstream: `EndpointSliceTracker`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use apimachinery::meta::{self, ObjectKey};
use component_base::informer::Store;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;

/// How soon to look again; the slice's event usually comes much earlier.
pub(super) const RECHECK: Duration = Duration::from_secs(1);
/// A write that is not seen for so long was overtaken by another (a deletion that merged with it, for one). Should it
/// show up late after all, the next pass removes what is double.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Write {
    uid: String,
    /// None for a deletion.
    resource_version: Option<u64>,
    since: Instant,
}

/// Outstanding writes by Service and slice.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    by_service: Mutex<HashMap<ObjectKey, HashMap<ObjectKey, Write>>>,
}

impl Tracker {
    /// A slice was created or updated.
    pub(super) fn written(&self, service: &ObjectKey, slice: &EndpointSlice) {
        self.record(service, slice, Some(resource_version(slice)));
    }

    /// A slice was deleted.
    pub(super) fn deleted(&self, service: &ObjectKey, slice: &EndpointSlice) {
        self.record(service, slice, None);
    }

    fn record(&self, service: &ObjectKey, slice: &EndpointSlice, resource_version: Option<u64>) {
        let write = Write { uid: meta::uid_of(slice).to_owned(), resource_version, since: Instant::now() };
        self.by_service.lock().entry(service.clone()).or_default().insert(meta::key_of(slice), write);
    }

    /// Whether the cache shows all that was written for the Service.
    pub(super) fn is_caught_up(&self, service: &ObjectKey, slices: &Store<EndpointSlice>) -> bool {
        self.is_caught_up_at(service, slices, Instant::now())
    }

    fn is_caught_up_at(&self, service: &ObjectKey, slices: &Store<EndpointSlice>, now: Instant) -> bool {
        let mut by_service = self.by_service.lock();
        let Some(writes) = by_service.get_mut(service) else { return true };
        writes.retain(|key, write| {
            let held = slices.get(key).filter(|slice| meta::uid_of(slice.as_ref()) == write.uid);
            let seen = match (held, write.resource_version) {
                (Some(held), Some(written)) => resource_version(&held) >= written,
                (None, None) => true,
                _ => false,
            };
            !seen && now.saturating_duration_since(write.since) < PATIENCE
        });
        let caught_up = writes.is_empty();
        if caught_up {
            by_service.remove(service);
        }
        caught_up
    }

    /// Forgets a Service that is gone.
    pub(super) fn forget(&self, service: &ObjectKey) {
        self.by_service.lock().remove(service);
    }
}

fn resource_version(slice: &EndpointSlice) -> u64 {
    slice.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(uid: &str, resource_version: &str) -> EndpointSlice {
        let mut slice = EndpointSlice::default();
        slice.metadata.name = Some("web-1".into());
        slice.metadata.namespace = Some("default".into());
        slice.metadata.uid = Some(uid.into());
        slice.metadata.resource_version = Some(resource_version.into());
        slice
    }

    #[test]
    fn writes_must_be_seen() {
        let service = ObjectKey::new("default", "web");
        let check = |write: &dyn Fn(&Tracker), held: Vec<EndpointSlice>| {
            let tracker = Tracker::default();
            write(&tracker);
            tracker.is_caught_up(&service, &Store::from_objects(held))
        };
        let written = |tracker: &Tracker| tracker.written(&service, &slice("1", "20"));
        let deleted = |tracker: &Tracker| tracker.deleted(&service, &slice("1", "20"));
        assert!(!check(&written, vec![]));
        assert!(!check(&written, vec![slice("1", "19")]));
        assert!(!check(&written, vec![slice("2", "30")]));
        assert!(check(&written, vec![slice("1", "20")]));
        assert!(check(&written, vec![slice("1", "100")]));
        assert!(!check(&deleted, vec![slice("1", "20")]));
        assert!(check(&deleted, vec![]));
        assert!(check(&deleted, vec![slice("2", "30")]));
        assert!(check(&|_| (), vec![]));
    }

    #[test]
    fn patience_ends() {
        let service = ObjectKey::new("default", "web");
        let tracker = Tracker::default();
        tracker.written(&service, &slice("1", "20"));
        let store = Store::from_objects(vec![]);
        assert!(tracker.is_caught_up_at(&service, &store, Instant::now() + PATIENCE));
    }
}
