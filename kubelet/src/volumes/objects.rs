//! ConfigMaps and Secrets that volumes are made of, read from the apiserver and kept for a short while so that the
//! pods of a node share them. Upstream's concept: `pkg/kubelet/util/manager` (its TTL variant).

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// How long an object counts as fresh. The pod workers ask about once a minute.
const TTL: Duration = Duration::from_secs(45);

/// An object that can't be had; the text ends up in the FailedMount event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// The apiserver's answer.
    #[error("{0}")]
    Refused(String),
    /// It doesn't exist.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// In lower case.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A standalone kubelet.
    #[error("{kind} {name:?} can't be read: the kubelet has no API server")]
    NoApiserver {
        /// In lower case.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

#[derive(Debug)]
struct Held<K> {
    object: Arc<K>,
    read: Instant,
}

type Map<K> = Mutex<HashMap<(String, String), Held<K>>>;

/// The node's cache of objects.
pub struct ObjectCache {
    client: Option<kube::Client>,
    config_maps: Map<ConfigMap>,
    secrets: Map<Secret>,
}

/// Objects may be secret: only their number is shown.
impl Debug for ObjectCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectCache")
            .field("config_maps", &self.config_maps.lock().len())
            .field("secrets", &self.secrets.lock().len())
            .finish_non_exhaustive()
    }
}

impl ObjectCache {
    /// An empty cache.
    #[must_use]
    pub fn new(client: Option<kube::Client>) -> Self {
        Self { client, config_maps: Mutex::default(), secrets: Mutex::default() }
    }

    /// The apiserver, if there is one.
    #[must_use]
    pub fn client(&self) -> Option<&kube::Client> {
        self.client.as_ref()
    }

    /// A ConfigMap as it was at most `TTL` ago.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        self.get(&self.config_maps, "configmap", namespace, name).await
    }

    /// A Secret as it was at most `TTL` ago.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        self.get(&self.secrets, "secret", namespace, name).await
    }

    async fn get<K>(
        &self,
        held: &Map<K>,
        kind: &'static str,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<K>, ObjectError>
    where
        K: kube::Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
        K::DynamicType: Default,
    {
        let Some(client) = &self.client else {
            return Err(ObjectError::NoApiserver { kind, name: name.to_owned() });
        };
        let key = (namespace.to_owned(), name.to_owned());
        let now = Instant::now();
        let stale = {
            let mut held = held.lock();
            // Nobody asks any more: the pods are gone.
            held.retain(|_, entry| now.duration_since(entry.read) < 10 * TTL);
            match held.get(&key) {
                Some(entry) if now.duration_since(entry.read) < TTL => return Ok(entry.object.clone()),
                Some(entry) => Some(entry.object.clone()),
                None => None,
            }
        };
        match kube::Api::<K>::namespaced(client.clone(), namespace).get_opt(name).await {
            Ok(Some(object)) => {
                let object = Arc::new(object);
                held.lock().insert(key, Held { object: object.clone(), read: now });
                Ok(object)
            }
            Ok(None) => {
                held.lock().remove(&key);
                Err(ObjectError::NotFound { kind, name: name.to_owned() })
            }
            Err(kube::Error::Api(status)) if stale.is_none() || status.is_forbidden() => {
                Err(ObjectError::Refused(status.message))
            }
            // A pod keeps what it has while the apiserver is away.
            Err(error) => {
                stale.ok_or_else(|| ObjectError::Refused(format!("failed to sync {kind} cache: {error}")))
            }
        }
    }
}
