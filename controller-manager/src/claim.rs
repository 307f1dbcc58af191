//! Adoption and release by controllerRef: which objects that a selector matches belong to a controlling object.
//! Upstream: `ControllerRefManager`. The verdict is pure; [`Claimer`] sends the patches.

use std::fmt::Debug;
use std::sync::Arc;

use apimachinery::labels::Selector;
use apimachinery::owner;
use k8s_openapi::Metadata;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api_error;

/// What a controlling object does about one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Already ours, and the selector still matches.
    Owned,
    /// Nobody's, and the selector matches: take it.
    Adopt,
    /// Ours, but the selector no longer matches: let go.
    Release,
    /// Somebody else's, or of no interest.
    Ignore,
}

/// The controlling object, as far as claims go.
#[derive(Debug, Clone, Copy)]
pub struct Controller<'a> {
    /// apiVersion of the controlling object.
    pub api_version: &'a str,
    /// Kind of the controlling object.
    pub kind: &'a str,
    /// Its metadata.
    pub metadata: &'a ObjectMeta,
}

impl Controller<'_> {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or("")
    }

    /// Judges one candidate of the controller's namespace.
    pub fn judge(&self, selector: &Selector, candidate: &ObjectMeta) -> Verdict {
        let matches = selector.matches_opt(candidate.labels.as_ref());
        let controller_deleting = self.metadata.deletion_timestamp.is_some();
        match owner::controller_of(candidate) {
            Some(reference) if reference.uid != self.uid() => Verdict::Ignore,
            Some(_) if matches => Verdict::Owned,
            Some(_) if controller_deleting => Verdict::Ignore,
            Some(_) => Verdict::Release,
            None if controller_deleting || !matches || candidate.deletion_timestamp.is_some() => {
                Verdict::Ignore
            }
            None => Verdict::Adopt,
        }
    }
}

/// Why claiming failed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The live controlling object is not the one in the cache, so nothing may be adopted in its name.
    #[error("original {kind} {namespace}/{name} is gone: got uid {live}, wanted {cached}")]
    ControllerReplaced { kind: String, namespace: String, name: String, live: String, cached: String },
    /// The live controlling object is being deleted.
    #[error("{namespace}/{name} has just been deleted at {at}")]
    ControllerDeleting { namespace: String, name: String, at: String },
    /// A request failed.
    #[error("claim by controllerRef")]
    Request(#[from] Box<kube::Error>),
}

/// Sends the patches that adopt and release.
pub struct Claimer<'a> {
    /// Client of the controller.
    pub client: &'a Client,
    /// The object that claims.
    pub controller: Controller<'a>,
    /// What it selects.
    pub selector: &'a Selector,
}

impl std::fmt::Debug for Claimer<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Claimer").finish_non_exhaustive()
    }
}

impl Claimer<'_> {
    /// The candidates that belong to the controller after adopting and releasing what is due. `O` is the controlling
    /// type, looked up live once before the first adoption.
    pub async fn claim<O, K>(&self, candidates: Vec<Arc<K>>) -> Result<Vec<Arc<K>>, ClaimError>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Metadata<Ty = ObjectMeta>,
        K: Clone + Debug + DeserializeOwned,
        O: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let namespace = self.controller.metadata.namespace.as_deref().unwrap_or("");
        let mut claimed = Vec::with_capacity(candidates.len());
        let mut may_adopt = false;
        for candidate in candidates {
            let metadata = Metadata::metadata(candidate.as_ref());
            let name = metadata.name.as_deref().unwrap_or("");
            match self.controller.judge(self.selector, metadata) {
                Verdict::Owned => claimed.push(candidate),
                Verdict::Ignore => {}
                Verdict::Adopt => {
                    if !may_adopt {
                        self.confirm_alive::<O>(namespace).await?;
                        may_adopt = true;
                    }
                    let patch = self.adopt_patch(metadata.uid.as_deref().unwrap_or(""));
                    if self.send::<K>(namespace, name, &patch).await? {
                        claimed.push(candidate);
                    }
                }
                Verdict::Release => {
                    let patch = self.release_patch(metadata.uid.as_deref().unwrap_or(""));
                    self.send::<K>(namespace, name, &patch).await?;
                }
            }
        }
        Ok(claimed)
    }

    async fn confirm_alive<O>(&self, namespace: &str) -> Result<(), ClaimError>
    where
        O: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let name = self.controller.metadata.name.clone().unwrap_or_default();
        let live = Api::<O>::namespaced(self.client.clone(), namespace).get(&name).await.map_err(Box::new)?;
        let uid = live.meta().uid.clone().unwrap_or_default();
        if uid != self.controller.uid() {
            return Err(ClaimError::ControllerReplaced {
                kind: self.controller.kind.to_owned(),
                namespace: namespace.to_owned(),
                name,
                live: uid,
                cached: self.controller.uid().to_owned(),
            });
        }
        match &live.meta().deletion_timestamp {
            Some(at) => Err(ClaimError::ControllerDeleting {
                namespace: namespace.to_owned(),
                name,
                at: at.0.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// The uid in the patch makes it fail on an object that only has the same name.
    fn adopt_patch(&self, uid: &str) -> serde_json::Value {
        json!({"metadata": {
            "ownerReferences": [{
                "apiVersion": self.controller.api_version,
                "kind": self.controller.kind,
                "name": self.controller.metadata.name,
                "uid": self.controller.uid(),
                "controller": true,
                "blockOwnerDeletion": true,
            }],
            "uid": uid,
        }})
    }

    fn release_patch(&self, uid: &str) -> serde_json::Value {
        json!({"metadata": {
            "ownerReferences": [{"$patch": "delete", "uid": self.controller.uid()}],
            "uid": uid,
        }})
    }

    /// False when the object is gone (or is another of the same name), which is as good as released.
    async fn send<K>(
        &self,
        namespace: &str,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<bool, ClaimError>
    where
        K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => Ok(true),
            Err(error) if api_error::is_not_found(&error) || api_error::is_invalid(&error) => Ok(false),
            Err(error) => Err(Box::new(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;
    use crate::testing::time;

    fn candidate(labels: &[(&str, &str)], owner: Option<&str>, deleting: bool) -> ObjectMeta {
        ObjectMeta {
            name: Some("pod".into()),
            labels: Some(
                labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
            ),
            owner_references: owner.map(|uid| {
                vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]
            }),
            deletion_timestamp: deleting.then(|| time(1)),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn verdicts() {
        let selector = Selector::parse("app=web").unwrap();
        let web = &[("app", "web")][..];
        let other = &[("app", "other")][..];
        for (controller_deleting, candidate, expected) in [
            (false, candidate(web, Some("me"), false), Verdict::Owned),
            (false, candidate(web, Some("me"), true), Verdict::Owned),
            (true, candidate(web, Some("me"), false), Verdict::Owned),
            (false, candidate(other, Some("me"), false), Verdict::Release),
            (true, candidate(other, Some("me"), false), Verdict::Ignore),
            (false, candidate(web, Some("you"), false), Verdict::Ignore),
            (false, candidate(web, None, false), Verdict::Adopt),
            (false, candidate(web, None, true), Verdict::Ignore),
            (true, candidate(web, None, false), Verdict::Ignore),
            (false, candidate(other, None, false), Verdict::Ignore),
        ] {
            let metadata = ObjectMeta {
                uid: Some("me".into()),
                deletion_timestamp: controller_deleting.then(|| time(1)),
                ..ObjectMeta::default()
            };
            let controller = Controller { api_version: "apps/v1", kind: "ReplicaSet", metadata: &metadata };
            assert_eq!(controller.judge(&selector, &candidate), expected, "{candidate:?}");
        }
    }
}
