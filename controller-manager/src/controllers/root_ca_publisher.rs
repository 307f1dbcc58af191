//! root-ca-certificate-publisher-controller: every active namespace has the ConfigMap kube-root-ca.crt, by which pods
//! know the API server. Upstream: pkg/controller/certificates/rootcacertpublisher.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta::ObjectKey;
use component_base::informer::Store;
use component_base::workqueue::{self, WorkQueue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use super::serviceaccount::is_active;
use crate::api_error;
use crate::context::{Context, RunError};
use crate::informers::ROOT_CA_CONFIG_MAP;

const DATA_KEY: &str = "ca.crt";
const DESCRIPTION_ANNOTATION: &str = "kubernetes.io/description";
/// Upstream's text, word for word: it is part of the object's interface.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// Why the ConfigMap could not be written; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("create config map kube-root-ca.crt")]
    Create(#[source] Box<kube::Error>),
    #[error("update config map kube-root-ca.crt")]
    Update(#[source] Box<kube::Error>),
}

/// What to do for one namespace.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// It is as it should be.
    Nothing,
    /// Create this.
    Create(Box<ConfigMap>),
    /// Put this in place of what is there.
    Update(Box<ConfigMap>),
}

/// Compares the namespace's ConfigMap with what it should hold.
pub fn decide(namespace: &Namespace, current: Option<&ConfigMap>, root_ca: &str) -> Decision {
    if !is_active(namespace) {
        return Decision::Nothing;
    }
    let data: BTreeMap<String, String> = [(DATA_KEY.to_owned(), root_ca.to_owned())].into();
    let Some(current) = current else {
        return Decision::Create(Box::new(ConfigMap {
            metadata: ObjectMeta {
                name: Some(ROOT_CA_CONFIG_MAP.to_owned()),
                namespace: namespace.metadata.name.clone(),
                annotations: Some([(DESCRIPTION_ANNOTATION.to_owned(), DESCRIPTION.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        }));
    };
    let described = current
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(DESCRIPTION_ANNOTATION))
        .is_some_and(|description| !description.is_empty());
    if described && current.data.as_ref() == Some(&data) {
        return Decision::Nothing;
    }
    let mut updated = current.clone();
    updated.data = Some(data);
    if !described {
        let annotations = updated.metadata.annotations.get_or_insert_default();
        annotations.insert(DESCRIPTION_ANNOTATION.to_owned(), DESCRIPTION.to_owned());
    }
    Decision::Update(Box::new(updated))
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let root_ca = context.root_ca()?;
    let client = context.client("root-ca-cert-publisher");
    let namespaces = context.informers.namespaces();
    let config_maps = context.informers.root_ca_config_maps();
    let queue: WorkQueue<String> = context.queue("root_ca_cert_publisher_controller");
    context.on_change(&namespaces, {
        let queue = queue.clone();
        move |change| {
            if let Some(namespace) = change.new().and_then(|namespace| namespace.metadata.name.clone()) {
                queue.add(namespace);
            }
        }
    });
    context.on_change(&config_maps, {
        let queue = queue.clone();
        move |change| queue.add(change.key().namespace)
    });
    if !(context.wait_synced(&namespaces).await && context.wait_synced(&config_maps).await) {
        return Ok(());
    }
    let shared = Arc::new((namespaces.store(), config_maps.store(), root_ca));
    workqueue::run_workers(queue, 1, context.shutdown.clone(), move |namespace| {
        let (client, shared) = (client.clone(), Arc::clone(&shared));
        async move { sync(client, &shared.0, &shared.1, &shared.2, &namespace).await }
    })
    .await;
    Ok(())
}

async fn sync(
    client: Client,
    namespaces: &Store<Namespace>,
    config_maps: &Store<ConfigMap>,
    root_ca: &str,
    name: &str,
) -> Result<(), SyncError> {
    let Some(namespace) = namespaces.get(&ObjectKey::cluster(name)) else { return Ok(()) };
    let current = config_maps.get(&ObjectKey::new(name, ROOT_CA_CONFIG_MAP));
    let api = Api::<ConfigMap>::namespaced(client, name);
    match decide(&namespace, current.as_deref(), root_ca) {
        Decision::Nothing => Ok(()),
        Decision::Create(config_map) => match api.create(&PostParams::default(), &config_map).await {
            Ok(_) => Ok(()),
            // The namespace is going, or the cache was behind and its event comes.
            Err(error)
                if api_error::is_namespace_terminating(&error)
                    || api_error::is_not_found(&error)
                    || api_error::is_already_exists(&error) =>
            {
                Ok(())
            }
            Err(error) => Err(SyncError::Create(Box::new(error))),
        },
        Decision::Update(config_map) => {
            match api.replace(ROOT_CA_CONFIG_MAP, &PostParams::default(), &config_map).await {
                Ok(_) => Ok(()),
                Err(error) if api_error::is_not_found(&error) => Ok(()),
                Err(error) => Err(SyncError::Update(Box::new(error))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::namespace;

    #[test]
    fn creates_repairs_and_rests() {
        let active = namespace("a", "Active");
        let Decision::Create(made) = decide(&active, None, "PEM") else { panic!("should create") };
        assert_eq!(made.metadata.namespace.as_deref(), Some("a"));
        assert_eq!(made.data.as_ref().unwrap()[DATA_KEY], "PEM");
        assert_eq!(decide(&active, Some(&made), "PEM"), Decision::Nothing);

        let mut spoilt = made.as_ref().clone();
        spoilt.data.as_mut().unwrap().insert("extra".into(), "x".into());
        assert_eq!(decide(&active, Some(&spoilt), "PEM"), Decision::Update(made.clone()));

        let mut annotated = made.as_ref().clone();
        annotated.metadata.annotations.as_mut().unwrap().insert(DESCRIPTION_ANNOTATION.into(), "mine".into());
        assert_eq!(
            decide(&active, Some(&annotated), "PEM"),
            Decision::Nothing,
            "a user's own description stays"
        );
        assert!(matches!(decide(&active, Some(&made), "rotated"), Decision::Update(_)));
    }

    #[test]
    fn leaves_terminating_namespaces_alone() {
        assert_eq!(decide(&namespace("a", "Terminating"), None, "PEM"), Decision::Nothing);
    }
}
