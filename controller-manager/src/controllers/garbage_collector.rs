//! garbage-collector-controller: deletes objects whose owners are all gone, carries foreground deletion and orphaning
//! through, and drops references to owners that do not exist. A [`graph`] fed by watches of everything deletable says what
//! to look at; what is then done is [`decide`]d on live objects only. Upstream: pkg/controller/garbagecollector.

pub mod api;
pub mod decide;
pub mod graph;
pub mod monitor;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use component_base::Shutdown;
use component_base::events::{EventRecorder, EventType};
use component_base::workqueue::{self, WorkQueue};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use self::api::{Error, GcApi};
use self::decide::{Decision, Owner};
use self::graph::{FOREGROUND, Graph, Identity, Node, ORPHAN, Work};
use self::monitor::Event;
use crate::api_error;
use crate::context::{Context, RunError};
use crate::discovery::{self, Resource};

const DISCOVERY_PERIOD: Duration = Duration::from_secs(30);
/// How long to wait for all watches before the first decision; decisions look live anyway.
const FIRST_SYNC: Duration = Duration::from_secs(30);
/// When a watch is behind what a look-up showed.
const UNOBSERVED: Duration = Duration::from_secs(2);

struct Collector {
    client: Client,
    api: GcApi,
    graph: Mutex<Graph>,
    recorder: EventRecorder,
    to_delete: WorkQueue<String>,
    to_orphan: WorkQueue<String>,
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("generic-garbage-collector");
    let collector = Arc::new(Collector {
        api: GcApi::new(client.clone()),
        graph: Mutex::default(),
        recorder: context.recorder(&client, "garbage-collector-controller"),
        client,
        to_delete: context.queue("garbage_collector_attempt_to_delete"),
        to_orphan: context.queue("garbage_collector_attempt_to_orphan"),
    });
    let mut monitors = Monitors { context: context.clone(), running: HashMap::new() };
    let mut period = tokio::time::interval(DISCOVERY_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Nothing is decided before the first look at what there is.
    while monitors.running.is_empty() {
        if context.shutdown.run_until_cancelled(period.tick()).await.is_none() {
            return Ok(());
        }
        monitors.update(&collector).await;
    }
    if context.shutdown.run_until_cancelled(monitors.wait_synced()).await.is_none() {
        return Ok(());
    }
    let workers = context.config.concurrent_gc_syncs;
    let deleting = workqueue::run_workers(collector.to_delete.clone(), workers, context.shutdown.clone(), {
        let collector = Arc::clone(&collector);
        move |uid| {
            let collector = Arc::clone(&collector);
            async move { later(collector.attempt_to_delete(&uid).await, &collector.to_delete, uid) }
        }
    });
    let orphaning = workqueue::run_workers(collector.to_orphan.clone(), workers, context.shutdown.clone(), {
        let collector = Arc::clone(&collector);
        move |uid| {
            let collector = Arc::clone(&collector);
            async move { later(collector.attempt_to_orphan(&uid).await, &collector.to_orphan, uid) }
        }
    });
    let watching = async {
        loop {
            tokio::select! {
                () = context.shutdown.cancelled() => return,
                _ = period.tick() => monitors.update(&collector).await,
            }
        }
    };
    tokio::join!(deleting, orphaning, watching);
    Ok(())
}

/// What a watch does not show yet is looked at again, and so is what changed in the meantime.
fn later(outcome: Result<(), Error>, queue: &WorkQueue<String>, uid: String) -> Result<(), Error> {
    match outcome {
        Err(Error::Unobserved { .. }) => {
            queue.add_after(uid, UNOBSERVED);
            Ok(())
        }
        outcome => api_error::retry_conflict(outcome, queue, uid),
    }
}

/// The running watches, by group and plural.
struct Monitors {
    context: Context,
    running: HashMap<(String, String), (Shutdown, watch::Receiver<bool>)>,
}

/// Whether objects of the resource can own or be owned in a way that matters.
fn is_collected(resource: &Resource) -> bool {
    let is_event =
        resource.api.plural == "events" && matches!(resource.api.group.as_str(), "" | "events.k8s.io");
    !is_event && ["list", "watch", "delete"].iter().all(|verb| resource.supports(verb))
}

impl Monitors {
    /// Starts what is new and stops what is gone.
    async fn update(&mut self, collector: &Arc<Collector>) {
        let discovered = match discovery::discover(&collector.client).await {
            Ok(discovered) => discovered,
            Err(error) => {
                let error = component_base::error_chain::Chain(&error);
                tracing::warn!(%error, "failed to discover resources");
                return;
            }
        };
        collector.api.set_resources(&discovered.resources);
        let key = |resource: &Resource| (resource.api.group.clone(), resource.api.plural.clone());
        let wanted: HashMap<_, _> = discovered
            .resources
            .iter()
            .filter(|resource| is_collected(resource))
            .map(|r| (key(r), r))
            .collect();
        self.running.retain(|key, (stop, _)| {
            let keep = wanted.contains_key(key);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for (key, resource) in wanted {
            if !self.running.contains_key(&key) {
                self.running.insert(key, self.start(collector, resource.clone()));
            }
        }
    }

    fn start(&self, collector: &Arc<Collector>, resource: Resource) -> (Shutdown, watch::Receiver<bool>) {
        let stop = self.context.shutdown.child_token();
        let (sender, synced) = watch::channel(false);
        let report = {
            let (collector, api) = (Arc::clone(collector), resource.api.clone());
            move |event: Event<'_>| collector.observe(&api.api_version, &api.kind, &event)
        };
        let informers = &self.context.informers;
        let token = stop.clone();
        // What other controllers watch anyway is not watched twice.
        match (resource.api.group.as_str(), resource.api.plural.as_str()) {
            ("", "pods") => tokio::spawn(monitor::run_shared(informers.pods(), token, sender, report)),
            ("", "nodes") => tokio::spawn(monitor::run_shared(informers.nodes(), token, sender, report)),
            ("", "services") => {
                tokio::spawn(monitor::run_shared(informers.services(), token, sender, report))
            }
            ("", "namespaces") => {
                tokio::spawn(monitor::run_shared(informers.namespaces(), token, sender, report))
            }
            ("", "endpoints") => {
                tokio::spawn(monitor::run_shared(informers.endpoints(), token, sender, report))
            }
            ("", "serviceaccounts") => {
                tokio::spawn(monitor::run_shared(informers.service_accounts(), token, sender, report))
            }
            ("discovery.k8s.io", "endpointslices") => {
                tokio::spawn(monitor::run_shared(informers.endpoint_slices(), token, sender, report))
            }
            ("apps", "deployments") => {
                tokio::spawn(monitor::run_shared(informers.deployments(), token, sender, report))
            }
            ("apps", "replicasets") => {
                tokio::spawn(monitor::run_shared(informers.replica_sets(), token, sender, report))
            }
            ("apps", "daemonsets") => {
                tokio::spawn(monitor::run_shared(informers.daemon_sets(), token, sender, report))
            }
            ("apps", "controllerrevisions") => {
                tokio::spawn(monitor::run_shared(informers.controller_revisions(), token, sender, report))
            }
            _ => {
                let client = collector.client.clone();
                tokio::spawn(monitor::run(client, resource, token, sender, report))
            }
        };
        (stop, synced)
    }

    async fn wait_synced(&self) {
        let all = async {
            for (_, synced) in self.running.values() {
                // Closed only at shutdown.
                if synced.clone().wait_for(|synced| *synced).await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(FIRST_SYNC, all).await.is_err() {
            let missing: Vec<String> = self
                .running
                .iter()
                .filter(|(_, (_, synced))| !*synced.borrow())
                .map(|((group, plural), _)| format!("{plural}.{group}"))
                .collect();
            tracing::warn!(missing = missing.join(","), "not all watches are there yet, going on without");
        }
    }
}

impl Collector {
    fn observe(&self, api_version: &str, kind: &str, event: &Event<'_>) {
        let work = {
            let mut graph = self.graph.lock();
            match event {
                Event::Applied(metadata) => graph.apply(api_version, kind, metadata),
                Event::Deleted(uid) => graph.delete(uid),
            }
        };
        self.enqueue(work);
    }

    fn enqueue(&self, work: Vec<Work>) {
        for work in work {
            match work {
                Work::AttemptToDelete(uid) => self.to_delete.add(uid),
                Work::AttemptToOrphan(uid) => self.to_orphan.add(uid),
                Work::InvalidOwner { dependent, owner } => self.report_invalid(&dependent, &owner),
            }
        }
    }

    fn node(&self, uid: &str) -> Option<Node> {
        self.graph.lock().get(uid).cloned()
    }

    fn report_invalid(&self, dependent: &str, owner: &str) {
        let Some(node) = self.node(dependent) else { return };
        if let Some(reference) = node.owners.iter().find(|reference| reference.uid == owner) {
            self.tell_invalid(&node.identity, reference);
        }
    }

    fn tell_invalid(&self, dependent: &Identity, reference: &OwnerReference) {
        let namespace = &dependent.namespace;
        let message = format!(
            "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace {namespace:?}",
            reference.api_version, reference.kind, reference.name, reference.uid
        );
        let regarding = ObjectReference {
            api_version: Some(dependent.api_version.clone()),
            kind: Some(dependent.kind.clone()),
            namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(dependent.name.clone()),
            uid: Some(dependent.uid.clone()),
            ..ObjectReference::default()
        };
        self.recorder.event_for(&regarding, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }

    async fn attempt_to_delete(&self, uid: &str) -> Result<(), Error> {
        let Some(node) = self.node(uid) else { return Ok(()) };
        if node.deleting && !node.deleting_dependents {
            // It goes by itself; its dependents are looked at when it is gone.
            return Ok(());
        }
        if !node.is_virtual && node.owners.is_empty() && !node.deleting_dependents {
            return Ok(());
        }
        let at = &node.identity;
        let live = match self.api.get(at).await? {
            Some(live) if live.uid.as_deref() == Some(uid) => live,
            _ => {
                // Gone, and the watch has not said so, or never will.
                let work = self.graph.lock().delete(uid);
                self.enqueue(work);
                return Ok(());
            }
        };
        if node.is_virtual {
            let (kind, namespace, name) = (at.kind.clone(), at.namespace.clone(), at.name.clone());
            return Err(Error::Unobserved { kind, namespace, name });
        }
        if node.deleting_dependents {
            return self.go_on_deleting(&node, &live).await;
        }
        let Some(owners) = self.classify(at, &live).await? else { return Ok(()) };
        let dependents: Vec<bool> = {
            let graph = self.graph.lock();
            let dependents = graph.get(uid).map(|node| node.dependents.clone()).unwrap_or_default();
            dependents.iter().filter_map(|uid| graph.get(uid)).map(|node| node.deleting_dependents).collect()
        };
        let decision = decide::decide(&live, &owners, &dependents);
        self.act(at, live, decision).await
    }

    async fn act(&self, at: &Identity, mut live: ObjectMeta, decision: Decision) -> Result<(), Error> {
        match decision {
            Decision::Keep => Ok(()),
            Decision::RemoveOwners(gone) => {
                if let Some(references) = live.owner_references.as_mut() {
                    references.retain(|reference| !gone.contains(&reference.uid));
                }
                self.api.set_owners(at, &live).await.map(drop)
            }
            Decision::Delete { propagation, unblock } => {
                if unblock {
                    for reference in live.owner_references.iter_mut().flatten() {
                        reference.block_owner_deletion = Some(false);
                    }
                    live = self.api.set_owners(at, &live).await?;
                }
                tracing::debug!(
                    kind = at.kind,
                    namespace = at.namespace,
                    name = at.name,
                    ?propagation,
                    "deleting object without owners"
                );
                self.api.delete(at, &live, propagation).await
            }
        }
    }

    /// The state of each owner; none when one of them cannot be an owner of such an object at all.
    async fn classify(
        &self,
        at: &Identity,
        live: &ObjectMeta,
    ) -> Result<Option<Vec<(String, Owner)>>, Error> {
        let references = live.owner_references.as_deref().unwrap_or_default();
        let mut owners = Vec::with_capacity(references.len());
        for reference in references {
            let resource = self.api.resource(&reference.api_version, &reference.kind)?;
            if resource.namespaced && at.namespace.is_empty() {
                self.tell_invalid(at, reference);
                return Ok(None);
            }
            let place = Identity {
                api_version: reference.api_version.clone(),
                kind: reference.kind.clone(),
                namespace: if resource.namespaced { at.namespace.clone() } else { String::new() },
                name: reference.name.clone(),
                uid: reference.uid.clone(),
            };
            let found = self.api.get_owner(&place).await?;
            owners.push((reference.uid.clone(), decide::owner(reference, found.as_ref())));
        }
        Ok(Some(owners))
    }

    /// Foreground deletion: the dependents that block go first, then the finalizer.
    async fn go_on_deleting(&self, node: &Node, live: &ObjectMeta) -> Result<(), Error> {
        let blocking: Vec<(String, bool)> = {
            let graph = self.graph.lock();
            let blocking = graph.blocking_dependents(&node.identity.uid);
            blocking.into_iter().map(|node| (node.identity.uid.clone(), node.deleting_dependents)).collect()
        };
        if blocking.is_empty() {
            return self.api.remove_finalizer(&node.identity, live, FOREGROUND).await;
        }
        for (uid, deleting) in blocking {
            if !deleting {
                self.to_delete.add(uid);
            }
        }
        Ok(())
    }

    /// Takes the owner out of its dependents' references, and then the finalizer off the owner.
    async fn attempt_to_orphan(&self, uid: &str) -> Result<(), Error> {
        let Some(node) = self.node(uid) else { return Ok(()) };
        for dependent in &node.dependents {
            let Some(dependent) = self.node(dependent) else { continue };
            let at = &dependent.identity;
            let Some(mut live) = self.api.get(at).await? else { continue };
            let owned = live.owner_references.iter().flatten().any(|reference| reference.uid == uid);
            if live.uid.as_deref() != Some(at.uid.as_str()) || !owned {
                continue;
            }
            if let Some(references) = live.owner_references.as_mut() {
                references.retain(|reference| reference.uid != uid);
            }
            self.api.set_owners(at, &live).await?;
        }
        match self.api.get(&node.identity).await? {
            Some(live) if live.uid.as_deref() == Some(uid) => {
                self.api.remove_finalizer(&node.identity, &live, ORPHAN).await
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ApiResource;

    use super::*;

    fn resource(group: &str, plural: &str, verbs: &[&str]) -> Resource {
        Resource {
            api: ApiResource {
                group: group.into(),
                version: "v1".into(),
                api_version: "v1".into(),
                kind: "Thing".into(),
                plural: plural.into(),
            },
            namespaced: true,
            verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        }
    }

    #[test]
    fn events_and_what_cannot_be_watched_or_deleted_are_left_out() {
        let all = ["get", "list", "watch", "delete"];
        assert!(is_collected(&resource("", "configmaps", &all)));
        assert!(is_collected(&resource("example.com", "events", &all)));
        assert!(!is_collected(&resource("", "events", &all)));
        assert!(!is_collected(&resource("events.k8s.io", "events", &all)));
        assert!(!is_collected(&resource("", "componentstatuses", &["get", "list"])));
    }
}
