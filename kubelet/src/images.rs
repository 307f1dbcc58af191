//! Images on the node: pull policy, back-off, credentials, events. One call per container start; the runtime does the
//! pulling. Upstream's concept: `pkg/kubelet/images`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use proto::runtime_v1 as v1;
use tokio::time::Instant;

pub mod credentials;
pub mod reference;

use crate::cri;
use crate::events::{EventType, Recorder};
use crate::runtime::StartError;
use credentials::{DockerConfig, Keyring};

const INITIAL_BACK_OFF: Duration = Duration::from_secs(10);
const MAX_BACK_OFF: Duration = Duration::from_secs(300);

/// How far the back-off of one pod's image has got, and why.
#[derive(Debug, Clone)]
struct BackOff {
    wait: Duration,
    since: Instant,
    /// `ErrImagePull: …`, repeated in the message of ImagePullBackOff.
    error: String,
}

/// Back-off of pulls, by pod uid and image.
#[derive(Debug, Default)]
struct BackOffs(HashMap<(String, String), BackOff>);

impl BackOffs {
    /// The last error while a pull must still wait.
    fn waiting(&self, key: &(String, String), now: Instant) -> Option<String> {
        let entry = self.0.get(key)?;
        (now.duration_since(entry.since) < entry.wait).then(|| entry.error.clone())
    }

    fn failed(&mut self, key: (String, String), error: String, now: Instant) {
        // Forget pods that are long gone.
        self.0.retain(|_, entry| now.duration_since(entry.since) < 2 * MAX_BACK_OFF);
        let wait = self.0.get(&key).map_or(INITIAL_BACK_OFF, |entry| (entry.wait * 2).min(MAX_BACK_OFF));
        self.0.insert(key, BackOff { wait, since: now, error });
    }

    fn succeeded(&mut self, key: &(String, String)) {
        self.0.remove(key);
    }
}

/// What `imagePullPolicy` comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The policy of a container; manifests without an apiserver's defaults get the same ones here.
fn pull_policy(container: &Container, image: &str) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ if reference::tag(image) == Some("latest") => PullPolicy::Always,
        _ => PullPolicy::IfNotPresent,
    }
}

/// Brings images onto the node.
#[derive(Debug)]
pub struct ImageManager {
    cri: cri::Client,
    recorder: Recorder,
    back_offs: Mutex<BackOffs>,
    /// With `serializeImagePulls` one pull at a time.
    serial: Option<Arc<tokio::sync::Mutex<()>>>,
}

/// An image that a container can be created from.
#[derive(Debug, Clone, PartialEq)]
pub struct PresentImage {
    /// What the runtime knows of it.
    pub image: v1::Image,
    /// The name it was asked for by, with a tag.
    pub name: String,
}

impl ImageManager {
    /// A manager that has pulled nothing yet.
    #[must_use]
    pub fn new(cri: cri::Client, recorder: Recorder, serialize_pulls: bool) -> Self {
        Self { cri, recorder, back_offs: Mutex::default(), serial: serialize_pulls.then(Arc::default) }
    }

    /// Finds or pulls a container's image, by its policy. `docker_configs` are those of the pod's imagePullSecrets and
    /// the node.
    pub async fn ensure_image(
        &self,
        pod: &Pod,
        container: &Container,
        docker_configs: Vec<DockerConfig>,
        sandbox_config: &v1::PodSandboxConfig,
    ) -> Result<PresentImage, StartError> {
        let asked = container.image.as_deref().unwrap_or_default();
        let event = |kind: EventType, reason: &str, message: &str| {
            self.recorder.container(pod, &container.name, kind, reason, message);
        };
        let name = reference::with_default_tag(asked).map_err(|error| {
            let message = format!("Failed to apply default image tag {asked:?}: {error}");
            event(EventType::Warning, "InspectFailed", &message);
            StartError { reason: "InvalidImageName".to_owned(), message }
        })?;
        let present = self.cri.image_status(&name).await.map_err(|error| {
            let message = format!("Failed to inspect image {name:?}: {error}");
            event(EventType::Warning, "InspectFailed", &message);
            StartError { reason: "ImageInspectError".to_owned(), message }
        })?;
        let policy = pull_policy(container, &name);
        match (policy, present) {
            (PullPolicy::IfNotPresent | PullPolicy::Never, Some(image)) => {
                let message = format!(
                    "Container image {asked:?} already present on machine and can be accessed by the pod"
                );
                event(EventType::Normal, "Pulled", &message);
                Ok(PresentImage { image, name })
            }
            (PullPolicy::Never, None) => {
                let message = format!("Container image {asked:?} is not present with pull policy of Never");
                event(EventType::Warning, "ErrImageNeverPull", &message);
                Err(StartError { reason: "ErrImageNeverPull".to_owned(), message })
            }
            (PullPolicy::IfNotPresent, None) | (PullPolicy::Always, _) => {
                let keyring = Keyring::new(docker_configs);
                self.pull(pod, container, name, &keyring, sandbox_config).await
            }
        }
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        name: String,
        keyring: &Keyring,
        sandbox_config: &v1::PodSandboxConfig,
    ) -> Result<PresentImage, StartError> {
        let asked = container.image.as_deref().unwrap_or_default();
        let event = |kind: EventType, reason: &str, message: &str| {
            self.recorder.container(pod, &container.name, kind, reason, message);
        };
        let key = (pod.metadata.uid.clone().unwrap_or_default(), name.clone());
        if let Some(error) = self.back_offs.lock().waiting(&key, Instant::now()) {
            let message = format!("Back-off pulling image {asked:?}: {error}");
            event(EventType::Normal, "BackOff", &format!("Back-off pulling image {asked:?}"));
            return Err(StartError { reason: "ImagePullBackOff".to_owned(), message });
        }
        event(EventType::Normal, "Pulling", &format!("Pulling image {asked:?}"));
        let queued = Instant::now();
        let _turn = match &self.serial {
            Some(serial) => Some(serial.lock().await),
            None => None,
        };
        let started = Instant::now();
        let pulled = async {
            self.pull_with_credentials(&name, keyring, sandbox_config).await?;
            let image = self.cri.image_status(&name).await?;
            image.ok_or_else(|| cri::Error {
                call: "ImageStatus",
                code: tonic::Code::NotFound,
                message: format!("image {name:?} is not there after it was pulled"),
            })
        };
        match pulled.await {
            Ok(image) => {
                self.back_offs.lock().succeeded(&key);
                let message = format!(
                    "Successfully pulled image {asked:?} in {} ({} including waiting). Image size: {} bytes.",
                    duration(started.elapsed()),
                    duration(queued.elapsed()),
                    image.size
                );
                event(EventType::Normal, "Pulled", &message);
                Ok(PresentImage { image, name })
            }
            Err(error) => {
                event(
                    EventType::Warning,
                    "Failed",
                    &format!("Failed to pull image {asked:?}: {}", error.message),
                );
                let reason = pull_error_reason(&error.message).to_owned();
                self.back_offs.lock().failed(key, format!("{reason}: {}", error.message), Instant::now());
                Err(StartError { reason, message: error.message })
            }
        }
    }

    /// Tries every matching credential in turn, or none when none matches; the last refusal counts.
    async fn pull_with_credentials(
        &self,
        name: &str,
        keyring: &Keyring,
        sandbox_config: &v1::PodSandboxConfig,
    ) -> Result<(), cri::Error> {
        let mut last = None;
        let credentials = keyring.look_up(name);
        let attempts: Vec<_> =
            if credentials.is_empty() { vec![None] } else { credentials.into_iter().map(Some).collect() };
        for auth in attempts {
            match self.cri.pull_image(name, auth, sandbox_config.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("at least one attempt was made, and only failures go on"))
    }
}

/// Runtimes mark two causes in their message; everything else is plain ErrImagePull.
fn pull_error_reason(message: &str) -> &'static str {
    if message.starts_with("RegistryUnavailable") {
        "RegistryUnavailable"
    } else if message.starts_with("SignatureValidationFailed") {
        "SignatureValidationFailed"
    } else {
        "ErrImagePull"
    }
}

/// A time the way Go prints one cut to milliseconds.
fn duration(elapsed: Duration) -> String {
    let millis = elapsed.as_millis();
    if millis < 1000 { format!("{millis}ms") } else { format!("{}.{:03}s", millis / 1000, millis % 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn back_off_doubles_and_ends() {
        let key = ("uid".to_owned(), "image".to_owned());
        let start = Instant::now();
        let mut back_offs = BackOffs::default();
        assert_eq!(back_offs.waiting(&key, start), None);
        back_offs.failed(key.clone(), "no".to_owned(), start);
        assert_eq!(back_offs.waiting(&key, start + Duration::from_secs(9)), Some("no".to_owned()));
        let second = start + Duration::from_secs(10);
        assert_eq!(back_offs.waiting(&key, second), None);
        back_offs.failed(key.clone(), "still no".to_owned(), second);
        assert!(back_offs.waiting(&key, second + Duration::from_secs(19)).is_some());
        assert!(back_offs.waiting(&key, second + Duration::from_secs(20)).is_none());
        for _ in 0..10 {
            back_offs.failed(key.clone(), String::new(), second);
        }
        assert!(back_offs.waiting(&key, second + Duration::from_secs(299)).is_some());
        assert!(back_offs.waiting(&key, second + MAX_BACK_OFF).is_none());
        back_offs.succeeded(&key);
        assert!(back_offs.0.is_empty());
    }

    #[test]
    fn policies_default_by_tag() {
        let policy = |image: &str, policy: Option<&str>| {
            let container: Container =
                serde_json::from_value(json!({"name": "c", "image": image, "imagePullPolicy": policy}))
                    .unwrap();
            pull_policy(&container, &reference::with_default_tag(image).unwrap())
        };
        assert_eq!(policy("busybox", None), PullPolicy::Always);
        assert_eq!(policy("busybox:1", None), PullPolicy::IfNotPresent);
        assert_eq!(policy("localhost:5000/busybox", None), PullPolicy::Always);
        assert_eq!(policy("busybox", Some("Never")), PullPolicy::Never);
        let digest = format!("busybox@sha256:{}", "a".repeat(64));
        assert_eq!(policy(&digest, None), PullPolicy::IfNotPresent);
    }
}
