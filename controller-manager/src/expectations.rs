//! What a controller has written and its cache does not show yet. While anything is outstanding the cache is behind the
//! controller's own writes, and acting on it would make duplicates or delete too many. Upstream: `ControllerExpectations`
//! and `UIDTrackingControllerExpectations`; here it is not events that are counted but the store that is asked, since an
//! informer may merge a creation and a deletion into nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use apimachinery::meta::{self, ObjectKey};
use component_base::informer::Store;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

/// After this long a pod that was created and never appeared is worth a question to the API server.
const DOUBT: Duration = Duration::from_secs(5);
/// How soon to look again while something is outstanding; the pod's event usually comes much earlier.
pub const RECHECK: Duration = Duration::from_secs(1);

/// A pod that was created and that the cache has not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseen {
    /// The pod.
    pub pod: ObjectKey,
    /// Its uid.
    pub uid: String,
}

/// Whether the cache has caught up.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It shows every write.
    Satisfied,
    /// It does not yet.
    Outstanding,
    /// These creations are outstanding for so long that the pods may be gone already: ask the server, and tell
    /// [`Expectations::gone`] when they are.
    Doubtful(Vec<Unseen>),
}

#[derive(Debug, Default)]
struct Writes {
    created: HashMap<ObjectKey, (String, Instant)>,
    deleted: HashMap<ObjectKey, String>,
}

/// Outstanding pod writes of each controlling object.
#[derive(Debug, Default)]
pub struct Expectations {
    by_controller: Mutex<HashMap<ObjectKey, Writes>>,
}

impl Expectations {
    /// `pod` was created for `controller`.
    pub fn created(&self, controller: &ObjectKey, pod: &Pod) {
        let mut all = self.by_controller.lock();
        let writes = all.entry(controller.clone()).or_default();
        writes.created.insert(meta::key_of(pod), (meta::uid_of(pod).to_owned(), Instant::now()));
    }

    /// The deletion of `pod` was accepted.
    pub fn deleted(&self, controller: &ObjectKey, pod: &Pod) {
        let mut all = self.by_controller.lock();
        let writes = all.entry(controller.clone()).or_default();
        writes.deleted.insert(meta::key_of(pod), meta::uid_of(pod).to_owned());
    }

    /// Compares what was written with what the cache shows.
    pub fn check(&self, controller: &ObjectKey, pods: &Store<Pod>) -> Outcome {
        self.check_at(controller, pods, Instant::now())
    }

    fn check_at(&self, controller: &ObjectKey, pods: &Store<Pod>, now: Instant) -> Outcome {
        let mut all = self.by_controller.lock();
        let Some(writes) = all.get_mut(controller) else { return Outcome::Satisfied };
        writes
            .created
            .retain(|key, (uid, _)| pods.get(key).is_none_or(|pod| meta::uid_of(pod.as_ref()) != uid));
        writes.deleted.retain(|key, uid| {
            pods.get(key).is_some_and(|pod| {
                meta::uid_of(pod.as_ref()) == uid && pod.metadata.deletion_timestamp.is_none()
            })
        });
        if writes.created.is_empty() && writes.deleted.is_empty() {
            all.remove(controller);
            return Outcome::Satisfied;
        }
        let doubtful: Vec<Unseen> = writes
            .created
            .iter()
            .filter(|(_, (_, since))| now.saturating_duration_since(*since) >= DOUBT)
            .map(|(pod, (uid, _))| Unseen { pod: pod.clone(), uid: uid.clone() })
            .collect();
        if doubtful.is_empty() { Outcome::Outstanding } else { Outcome::Doubtful(doubtful) }
    }

    /// The server says that the pod is gone: nothing more will be seen of it.
    pub fn gone(&self, controller: &ObjectKey, unseen: &Unseen) {
        if let Some(writes) = self.by_controller.lock().get_mut(controller) {
            writes.created.remove(&unseen.pod);
        }
    }

    /// Forgets a controlling object that is gone.
    pub fn forget(&self, controller: &ObjectKey) {
        self.by_controller.lock().remove(controller);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod, time};

    fn key() -> ObjectKey {
        ObjectKey::new("default", "rs")
    }

    #[test]
    fn nothing_written_nothing_outstanding() {
        let store = Store::from_objects(Vec::new());
        assert_eq!(Expectations::default().check(&key(), &store), Outcome::Satisfied);
    }

    #[test]
    fn a_creation_must_be_seen_with_its_uid() {
        let expectations = Expectations::default();
        expectations.created(&key(), &pod("a").uid("1").build());
        for (held, outcome) in [
            (Vec::new(), Outcome::Outstanding),
            (vec![pod("a").uid("another").build()], Outcome::Outstanding),
            (vec![pod("a").uid("1").build()], Outcome::Satisfied),
            (Vec::new(), Outcome::Satisfied),
        ] {
            assert_eq!(expectations.check(&key(), &Store::from_objects(held)), outcome);
        }
    }

    #[test]
    fn a_deletion_must_be_seen() {
        let mut deleting = pod("a").uid("1").build();
        deleting.metadata.deletion_timestamp = Some(time(1));
        for (held, outcome) in [
            (vec![pod("a").uid("1").build()], Outcome::Outstanding),
            (vec![deleting], Outcome::Satisfied),
            (vec![pod("a").uid("another").build()], Outcome::Satisfied),
            (Vec::new(), Outcome::Satisfied),
        ] {
            let expectations = Expectations::default();
            expectations.deleted(&key(), &pod("a").uid("1").build());
            assert_eq!(expectations.check(&key(), &Store::from_objects(held)), outcome);
        }
    }

    #[test]
    fn a_pod_that_never_appears_is_asked_for() {
        let expectations = Expectations::default();
        expectations.created(&key(), &pod("a").uid("1").build());
        let store = Store::from_objects(Vec::new());
        let Outcome::Doubtful(unseen) = expectations.check_at(&key(), &store, Instant::now() + DOUBT) else {
            panic!("should be doubtful");
        };
        expectations.gone(&key(), &unseen[0]);
        assert_eq!(expectations.check(&key(), &store), Outcome::Satisfied);
    }

    #[test]
    fn forgotten_controllers_hold_nothing_back() {
        let expectations = Expectations::default();
        expectations.created(&key(), &pod("a").uid("1").build());
        expectations.forget(&key());
        assert_eq!(expectations.check(&key(), &Store::from_objects(Vec::new())), Outcome::Satisfied);
    }
}
