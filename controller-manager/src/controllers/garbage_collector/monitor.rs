//! Watches of metadata alone, one per resource, that feed the graph. Resources which another controller watches anyway
//! are taken from its informer.

use std::collections::HashSet;
use std::time::Duration;

use component_base::Shutdown;
use component_base::informer::{Change, Informer, Object};
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DynamicObject, ListParams, WatchParams};
use kube::core::WatchEvent;
use kube::{Api, Client};
use tokio::sync::watch;

use crate::discovery::Resource;

const PAGE: u32 = 500;
const FIRST_RETRY: Duration = Duration::from_millis(800);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Shorter than the server's own limit, so that it is this side that ends a watch.
const WATCH_SECONDS: u32 = 290;

/// What a monitor reports.
#[derive(Debug)]
pub enum Event<'a> {
    /// Added or changed.
    Applied(&'a ObjectMeta),
    /// Gone; the uid.
    Deleted(&'a str),
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("the revision is gone")]
    Expired,
    #[error(transparent)]
    Request(#[from] kube::Error),
    #[error("{0}")]
    Refused(String),
}

/// Lists and watches the resource until shutdown. `synced` becomes true after the first list.
pub async fn run(
    client: Client,
    resource: Resource,
    shutdown: Shutdown,
    synced: watch::Sender<bool>,
    mut report: impl FnMut(Event<'_>) + Send,
) {
    let api = Api::<DynamicObject>::all_with(client, &resource.api);
    let mut known = HashSet::new();
    let mut retry = FIRST_RETRY;
    let mut version: Option<String> = None;
    let follow = async {
        loop {
            let from = match version.take() {
                Some(version) => Ok(version),
                None => list(&api, &mut known, &mut report).await.map_err(WatchError::from),
            };
            let outcome = match from {
                Ok(from) => {
                    synced.send_replace(true);
                    retry = FIRST_RETRY;
                    let mut reached = from;
                    let outcome = follow(&api, &mut reached, &mut known, &mut report).await;
                    version = Some(reached);
                    outcome
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => continue,
                Err(WatchError::Expired) => version = None,
                Err(error) => {
                    let (group, plural) = (&resource.api.group, &resource.api.plural);
                    let error = component_base::error_chain::Chain(&error);
                    tracing::warn!(group, resource = plural, %error, "failed to watch metadata");
                }
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    };
    shutdown.run_until_cancelled(follow).await;
}

/// Reports everything there is, and what is not there any more; the revision of the list.
async fn list(
    api: &Api<DynamicObject>,
    known: &mut HashSet<String>,
    report: &mut impl FnMut(Event<'_>),
) -> Result<String, kube::Error> {
    let mut found = HashSet::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let page = api.list_metadata(&parameters).await?;
        for object in &page.items {
            found.extend(object.metadata.uid.clone());
            report(Event::Applied(&object.metadata));
        }
        match page.metadata.continue_.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => parameters = ListParams::default().limit(PAGE).continue_token(token),
            None => {
                for gone in known.difference(&found) {
                    report(Event::Deleted(gone));
                }
                *known = found;
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }
}

/// Reports changes after revision `reached` until the watch ends, and moves `reached` along.
async fn follow(
    api: &Api<DynamicObject>,
    reached: &mut String,
    known: &mut HashSet<String>,
    report: &mut impl FnMut(Event<'_>),
) -> Result<(), WatchError> {
    let parameters = WatchParams::default().timeout(WATCH_SECONDS);
    let mut events = Box::pin(api.watch_metadata(&parameters, reached).await?);
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                known.extend(object.metadata.uid.clone());
                report(Event::Applied(&object.metadata));
                advance(reached, object.metadata.resource_version);
            }
            WatchEvent::Deleted(object) => {
                let uid = object.metadata.uid.unwrap_or_default();
                known.remove(&uid);
                report(Event::Deleted(&uid));
                advance(reached, object.metadata.resource_version);
            }
            WatchEvent::Bookmark(bookmark) => advance(reached, Some(bookmark.metadata.resource_version)),
            WatchEvent::Error(status) if status.code == 410 => return Err(WatchError::Expired),
            WatchEvent::Error(status) => return Err(WatchError::Refused(status.message)),
        }
    }
    Ok(())
}

fn advance(reached: &mut String, version: Option<String>) {
    if let Some(version) = version.filter(|version| !version.is_empty()) {
        *reached = version;
    }
}

/// Reports what an informer shows until shutdown.
pub async fn run_shared<K: Object>(
    informer: Informer<K>,
    shutdown: Shutdown,
    synced: watch::Sender<bool>,
    mut report: impl FnMut(Event<'_>) + Send,
) {
    let mut changes = informer.subscribe();
    let follow = async {
        if informer.wait_synced().await {
            synced.send_replace(true);
        }
        while let Some(change) = changes.recv().await {
            match &change {
                Change::Added(object) | Change::Updated { new: object, .. } => {
                    report(Event::Applied(k8s_openapi::Metadata::metadata(object.as_ref())));
                }
                Change::Deleted(object) => {
                    let metadata = k8s_openapi::Metadata::metadata(object.as_ref());
                    report(Event::Deleted(metadata.uid.as_deref().unwrap_or("")));
                }
            }
        }
    };
    shutdown.run_until_cancelled(follow).await;
}
