//! Mirror pods: the apiserver's image of each static pod, so that users see it with kubectl.
//!
//! A static pod runs whether or not its mirror exists. Upstream's concept: `pkg/kubelet/pod/mirror_client.go`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api_error::ApiError;
use crate::pod::{self, CONFIG_MIRROR_ANNOTATION};
use crate::pod_manager::PodManager;

const RETRY_PERIOD: Duration = Duration::from_secs(1);
const FULL_SYNC_PERIOD: Duration = Duration::from_secs(30);

/// What a static pod and its mirror ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Keep,
    Create,
    Delete,
}

fn decide(static_pod: Option<&Pod>, mirror: Option<&Pod>) -> Action {
    match (static_pod, mirror) {
        (Some(wanted), Some(mirror)) => {
            let same = pod::config_hash(wanted) == pod::mirror_hash(mirror);
            // A mirror that the user deletes is replaced: deleting it does not stop the static pod.
            if same && mirror.metadata.deletion_timestamp.is_none() { Action::Keep } else { Action::Delete }
        }
        (Some(_), None) => Action::Create,
        (None, Some(_)) => Action::Delete,
        (None, None) => Action::Keep,
    }
}

/// The object to create.
fn mirror_of(static_pod: &Pod, node: &OwnerReference) -> Pod {
    let mut mirror = static_pod.clone();
    let hash = pod::config_hash(static_pod).unwrap_or_default().to_owned();
    mirror.metadata.annotations.get_or_insert_default().insert(CONFIG_MIRROR_ANNOTATION.to_owned(), hash);
    mirror.metadata.uid = None;
    mirror.metadata.owner_references = Some(vec![node.clone()]);
    mirror.status = None;
    mirror
}

/// The reference that makes the garbage collector remove mirrors with their node.
#[must_use]
pub fn node_owner(node: &Node) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone()?,
        uid: node.metadata.uid.clone()?,
        controller: Some(true),
        block_owner_deletion: None,
    })
}

/// Keeps mirrors as they should be; cheap to clone.
#[derive(Debug, Clone)]
pub struct MirrorPods {
    pods: PodManager,
    changed: Arc<Notify>,
    owner: Arc<Mutex<Option<OwnerReference>>>,
    /// Set once the manifests have been read: before that, a mirror without a static pod means nothing.
    manifests_known: Arc<std::sync::atomic::AtomicBool>,
}

impl MirrorPods {
    /// Over the pods that `pods` holds.
    #[must_use]
    pub fn new(pods: PodManager) -> Self {
        Self { pods, changed: Arc::default(), owner: Arc::default(), manifests_known: Arc::default() }
    }

    /// The manifests have been read.
    pub fn manifests_are_known(&self) {
        self.manifests_known.store(true, std::sync::atomic::Ordering::Release);
        self.poke();
    }

    /// The node's object is there (or is another one than before).
    pub fn set_owner(&self, owner: Option<OwnerReference>) {
        let mut held = self.owner.lock();
        if *held != owner {
            *held = owner;
            self.changed.notify_one();
        }
    }

    /// A static pod or a mirror changed.
    pub fn poke(&self) {
        self.changed.notify_one();
    }

    /// Creates and deletes until shutdown.
    pub async fn run(self, client: kube::Client, shutdown: CancellationToken) {
        let mut wait = RETRY_PERIOD;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            wait = if self.sync(&client).await { FULL_SYNC_PERIOD } else { RETRY_PERIOD };
        }
    }

    /// True when all mirrors are as they should be.
    async fn sync(&self, client: &kube::Client) -> bool {
        let mut done = true;
        for static_pod in self.pods.pods().into_iter().filter(|pod| pod::is_static(pod)) {
            let mirror = self.pods.mirror_of(&static_pod);
            match decide(Some(&static_pod), mirror.as_deref()) {
                Action::Keep => {}
                Action::Create => done &= self.create(client, &static_pod).await,
                Action::Delete => {
                    // It is created again when the watch has told of the deletion.
                    if let Some(mirror) = mirror {
                        done &= self.delete(client, &mirror).await;
                    }
                }
            }
        }
        if self.manifests_known.load(std::sync::atomic::Ordering::Acquire) {
            for mirror in self.pods.orphaned_mirrors() {
                if decide(None, Some(&mirror)) == Action::Delete {
                    done &= self.delete(client, &mirror).await;
                }
            }
        }
        done
    }

    async fn create(&self, client: &kube::Client, static_pod: &Pod) -> bool {
        let Some(owner) = self.owner.lock().clone() else { return false };
        let api: Api<Pod> = Api::namespaced(client.clone(), pod::namespace(static_pod));
        match api.create(&PostParams::default(), &mirror_of(static_pod, &owner)).await {
            Ok(_) => true,
            // The watch will tell of it.
            Err(kube::Error::Api(status)) if status.code == 409 => true,
            Err(error) => {
                tracing::warn!(name = pod::name(static_pod), error = %ApiError(&error), "failed creating a mirror pod");
                false
            }
        }
    }

    async fn delete(&self, client: &kube::Client, mirror: &Pod) -> bool {
        let api: Api<Pod> = Api::namespaced(client.clone(), pod::namespace(mirror));
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(pod::name(mirror), &params).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
            Err(error) => {
                tracing::warn!(name = pod::name(mirror), error = %ApiError(&error), "failed deleting a mirror pod");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::*;
    use crate::pod::CONFIG_HASH_ANNOTATION;

    fn pod(annotation: &str, hash: &str, deleting: bool) -> Pod {
        Pod {
            metadata: ObjectMeta {
                annotations: Some([(annotation.to_owned(), hash.to_owned())].into()),
                deletion_timestamp: deleting.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn mirrors_follow_their_static_pods() {
        let wanted = pod(CONFIG_HASH_ANNOTATION, "a", false);
        let cases = [
            (Some(&wanted), None, Action::Create),
            (Some(&wanted), Some(pod(CONFIG_MIRROR_ANNOTATION, "a", false)), Action::Keep),
            (Some(&wanted), Some(pod(CONFIG_MIRROR_ANNOTATION, "b", false)), Action::Delete),
            (Some(&wanted), Some(pod(CONFIG_MIRROR_ANNOTATION, "a", true)), Action::Delete),
            (None, Some(pod(CONFIG_MIRROR_ANNOTATION, "a", false)), Action::Delete),
        ];
        for (wanted, mirror, expected) in cases {
            assert_eq!(decide(wanted, mirror.as_ref()), expected, "{mirror:?}");
        }
    }

    #[test]
    fn a_mirror_has_no_uid_of_its_own_and_belongs_to_the_node() {
        let mut wanted = pod(CONFIG_HASH_ANNOTATION, "a", false);
        wanted.metadata.uid = Some("a".to_owned());
        let owner = OwnerReference { name: "node".to_owned(), ..Default::default() };
        let mirror = mirror_of(&wanted, &owner);
        assert_eq!((mirror.metadata.uid.as_deref(), pod::mirror_hash(&mirror)), (None, Some("a")));
        assert_eq!(mirror.metadata.owner_references, Some(vec![owner]));
    }
}
