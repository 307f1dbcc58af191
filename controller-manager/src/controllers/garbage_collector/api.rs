//! The collector's look-ups and writes: metadata of any resource, by what discovery says.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use parking_lot::{Mutex, RwLock};
use serde_json::json;

use super::decide::Propagation;
use super::graph::{Identity, group};
use crate::api_error;
use crate::discovery::Resource;

/// Absent owners remembered; uids never come back, so nothing here grows old.
const ABSENT_OWNERS: usize = 500;

/// Why an object could not be dealt with; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no resource is served for {api_version} {kind}")]
    UnknownKind { api_version: String, kind: String },
    #[error("{action} {kind} {namespace}/{name}")]
    Request { action: &'static str, kind: String, namespace: String, name: String, source: Box<kube::Error> },
    #[error("a watch has not shown {kind} {namespace}/{name} yet")]
    Unobserved { kind: String, namespace: String, name: String },
}

/// See the module.
pub struct GcApi {
    client: Client,
    resources: RwLock<HashMap<(String, String), Resource>>,
    absent: Mutex<HashMap<Identity, ()>>,
}

impl std::fmt::Debug for GcApi {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("GcApi").finish_non_exhaustive()
    }
}

impl GcApi {
    /// Knows no resources yet.
    pub fn new(client: Client) -> Self {
        Self { client, resources: RwLock::default(), absent: Mutex::default() }
    }

    /// Takes over what discovery found.
    pub fn set_resources(&self, resources: &[Resource]) {
        let by_kind = resources
            .iter()
            .filter(|resource| resource.supports("get"))
            .map(|resource| ((resource.api.group.clone(), resource.api.kind.clone()), resource.clone()));
        *self.resources.write() = by_kind.collect();
    }

    /// The resource that serves a kind.
    pub fn resource(&self, api_version: &str, kind: &str) -> Result<Resource, Error> {
        let key = (group(api_version).to_owned(), kind.to_owned());
        let unknown = || Error::UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() };
        self.resources.read().get(&key).cloned().ok_or_else(unknown)
    }

    fn api(&self, at: &Identity) -> Result<Api<DynamicObject>, Error> {
        let resource = self.resource(&at.api_version, &at.kind)?;
        Ok(if resource.namespaced {
            Api::namespaced_with(self.client.clone(), &at.namespace, &resource.api)
        } else {
            Api::all_with(self.client.clone(), &resource.api)
        })
    }

    /// The metadata of what is at that place now.
    pub async fn get(&self, at: &Identity) -> Result<Option<ObjectMeta>, Error> {
        let found = self.api(at)?.get_metadata_opt(&at.name).await.map_err(failed("get", at))?;
        Ok(found.map(|found| found.metadata))
    }

    /// The same for an owner, remembering those that do not exist.
    pub async fn get_owner(&self, at: &Identity) -> Result<Option<ObjectMeta>, Error> {
        if self.absent.lock().contains_key(at) {
            return Ok(None);
        }
        let found = self.get(at).await?;
        if found.as_ref().is_none_or(|found| found.uid.as_deref() != Some(at.uid.as_str())) {
            let mut absent = self.absent.lock();
            if absent.len() >= ABSENT_OWNERS {
                absent.clear();
            }
            absent.insert(at.clone(), ());
        }
        Ok(found)
    }

    /// Sets the object's owners, if it is as `live` says; its metadata then.
    pub async fn set_owners(&self, at: &Identity, live: &ObjectMeta) -> Result<ObjectMeta, Error> {
        let patch = json!({"metadata": {
            "uid": live.uid,
            "resourceVersion": live.resource_version,
            "ownerReferences": live.owner_references.as_ref().filter(|references| !references.is_empty()),
        }});
        self.patch("release", at, patch).await
    }

    /// Takes a finalizer off, if the object is as `live` says.
    pub async fn remove_finalizer(
        &self,
        at: &Identity,
        live: &ObjectMeta,
        finalizer: &str,
    ) -> Result<(), Error> {
        let left: Vec<&String> = live.finalizers.iter().flatten().filter(|held| *held != finalizer).collect();
        let patch = json!({"metadata": {
            "uid": live.uid,
            "resourceVersion": live.resource_version,
            "finalizers": (!left.is_empty()).then_some(left),
        }});
        match self.patch("take a finalizer off", at, patch).await {
            Ok(_) => Ok(()),
            Err(Error::Request { source, .. }) if api_error::is_not_found(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn patch(
        &self,
        action: &'static str,
        at: &Identity,
        patch: serde_json::Value,
    ) -> Result<ObjectMeta, Error> {
        let api = self.api(at)?;
        let patched = api.patch_metadata(&at.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        Ok(patched.map_err(failed(action, at))?.metadata)
    }

    /// Deletes the object, if it is as `live` says.
    pub async fn delete(
        &self,
        at: &Identity,
        live: &ObjectMeta,
        propagation: Propagation,
    ) -> Result<(), Error> {
        let parameters = match propagation {
            Propagation::Background => DeleteParams::background(),
            Propagation::Foreground => DeleteParams::foreground(),
            Propagation::Orphan => DeleteParams::orphan(),
        };
        let parameters = parameters.preconditions(Preconditions {
            uid: live.uid.clone(),
            resource_version: live.resource_version.clone(),
        });
        match self.api(at)?.delete(&at.name, &parameters).await {
            Ok(_) => Ok(()),
            Err(error) if api_error::is_not_found(&error) => Ok(()),
            Err(error) => Err(failed("delete", at)(error)),
        }
    }
}

fn failed(action: &'static str, at: &Identity) -> impl FnOnce(kube::Error) -> Error + use<> {
    let (kind, namespace, name) = (at.kind.clone(), at.namespace.clone(), at.name.clone());
    move |source| Error::Request { action, kind, namespace, name, source: Box::new(source) }
}
