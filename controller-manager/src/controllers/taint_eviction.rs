//! taint-eviction-controller: deletes pods that do not tolerate a NoExecute taint of their node, at once or when their
//! tolerationSeconds are over. The time counts from the taint's `timeAdded`, so a restart of this process neither
//! prolongs nor shortens it. Upstream: pkg/controller/tainteviction.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta::{self, ObjectKey};
use apimachinery::{pod, taints};
use component_base::events::{EventRecorder, EventType};
use component_base::informer::{Change, Store};
use component_base::workqueue::{self, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use kube::Client;

use crate::context::{Context, RunError};
use crate::disruption::{self, DisruptionError};
use crate::informers;

const WORKERS: usize = 8;

/// What is to become of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may stay.
    Stays,
    /// It is deleted now.
    Evict,
    /// It is looked at again after this time.
    Later(Duration),
}

/// Judges a pod by the NoExecute taints of its node.
pub fn decide(pod: &Pod, node: Option<&Node>, now: Timestamp) -> Verdict {
    if pod.metadata.deletion_timestamp.is_some() {
        return Verdict::Stays;
    }
    let taints =
        node.and_then(|node| node.spec.as_ref()).and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let mut deadline: Option<i64> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        let Some(toleration) = tolerations.iter().find(|toleration| taints::tolerates(toleration, taint))
        else {
            return Verdict::Evict;
        };
        if let Some(ends) = toleration_ends(toleration, taint, created, now) {
            deadline = Some(deadline.map_or(ends, |deadline| deadline.min(ends)));
        }
    }
    match deadline.map(|deadline| deadline - now.as_millisecond()) {
        None => Verdict::Stays,
        Some(left) => match u64::try_from(left) {
            Ok(left) if left > 0 => Verdict::Later(Duration::from_millis(left)),
            _ => Verdict::Evict,
        },
    }
}

/// When toleration of the taint ends, in milliseconds since the epoch; never without tolerationSeconds. A pod that came
/// after the taint has its time from its creation on.
fn toleration_ends(
    toleration: &Toleration,
    taint: &Taint,
    created: Option<Timestamp>,
    now: Timestamp,
) -> Option<i64> {
    let seconds = toleration.toleration_seconds?.max(0);
    let added = taint.time_added.as_ref().map(|time| time.0);
    let start = added.max(created).unwrap_or(now);
    Some(start.as_millisecond().saturating_add(seconds.saturating_mul(1_000)))
}

struct TaintEviction {
    client: Client,
    recorder: EventRecorder,
    pods: Store<Pod>,
    nodes: Store<Node>,
    queue: WorkQueue<ObjectKey>,
}

/// Runs until shutdown.
pub async fn run(context: Context) -> Result<(), RunError> {
    let client = context.client("node-controller");
    let pods = context.informers.pods();
    let nodes = context.informers.nodes();
    if !(context.wait_synced(&nodes).await && context.wait_synced(&pods).await) {
        return Ok(());
    }
    let queue: WorkQueue<ObjectKey> = context.queue("noexec_taint_pod");
    context.on_change(&pods, {
        let queue = queue.clone();
        move |change| {
            let concerned = match &change {
                Change::Deleted(_) => false,
                Change::Added(pod) => !pod::node_name(pod).is_empty(),
                Change::Updated { old, new } => {
                    let tolerations = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.tolerations.clone());
                    pod::node_name(old) != pod::node_name(new) || tolerations(old) != tolerations(new)
                }
            };
            if concerned {
                queue.add(change.key());
            }
        }
    });
    context.on_change(&nodes, {
        let (queue, pods) = (queue.clone(), pods.store());
        move |change| {
            let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
            let concerned = match &change {
                Change::Added(node) => taints(node).is_some(),
                Change::Updated { old, new } => taints(old) != taints(new),
                Change::Deleted(_) => false,
            };
            if concerned {
                for pod in pods.by_index(informers::NODE_NAME, &change.key().name) {
                    queue.add(meta::key_of(pod.as_ref()));
                }
            }
        }
    });
    let controller = Arc::new(TaintEviction {
        recorder: context.recorder(&client, "taint-eviction-controller"),
        client,
        pods: pods.store(),
        nodes: nodes.store(),
        queue: queue.clone(),
    });
    workqueue::run_workers(queue, WORKERS, context.shutdown.clone(), move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.sync(&key).await }
    })
    .await;
    Ok(())
}

impl TaintEviction {
    async fn sync(&self, key: &ObjectKey) -> Result<(), DisruptionError> {
        let Some(pod) = self.pods.get(key) else { return Ok(()) };
        let node = self.nodes.get(&ObjectKey::cluster(pod::node_name(&pod)));
        match decide(&pod, node.as_deref(), Timestamp::now()) {
            Verdict::Stays => Ok(()),
            Verdict::Later(after) => {
                self.queue.add_after(key.clone(), after);
                Ok(())
            }
            Verdict::Evict => {
                let message = format!("Marking for deletion Pod {key}");
                self.recorder.event(pod.as_ref(), EventType::Normal, "TaintManagerEviction", message);
                let condition = disruption::target(
                    "DeletionByTaintManager",
                    "Taint manager: deleting due to NoExecute taint",
                );
                disruption::mark(&self.client, &pod, &condition, None).await?;
                disruption::delete(&self.client, &pod, None).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, node, pod, time};

    fn tainted(taints: &[(&str, &str, i64)]) -> Node {
        let mut node = node("n", "Unknown");
        let taint = |(key, effect, added): &(&str, &str, i64)| Taint {
            key: (*key).into(),
            effect: (*effect).into(),
            time_added: Some(time(*added)),
            ..Taint::default()
        };
        node.spec.get_or_insert_default().taints = Some(taints.iter().map(taint).collect());
        node
    }

    fn tolerating(tolerations: &[(&str, Option<i64>)]) -> Pod {
        let toleration = |(key, seconds): &(&str, Option<i64>)| Toleration {
            key: Some((*key).into()),
            operator: Some("Exists".into()),
            toleration_seconds: *seconds,
            ..Toleration::default()
        };
        let tolerations = tolerations.iter().map(toleration).collect();
        pod("p").on("n").created(at(50)).spec(|spec| spec.tolerations = Some(tolerations)).build()
    }

    #[test]
    fn verdicts() {
        let unreachable = tainted(&[("unreachable", "NoExecute", 100)]);
        for (name, pod, node, now, expected) in [
            ("no taint", tolerating(&[]), tainted(&[]), 100, Verdict::Stays),
            (
                "NoSchedule is not for running pods",
                tolerating(&[]),
                tainted(&[("a", "NoSchedule", 1)]),
                100,
                Verdict::Stays,
            ),
            ("not tolerated", tolerating(&[]), unreachable.clone(), 100, Verdict::Evict),
            (
                "tolerated for ever",
                tolerating(&[("unreachable", None)]),
                unreachable.clone(),
                9_000,
                Verdict::Stays,
            ),
            (
                "tolerated for a time",
                tolerating(&[("unreachable", Some(300))]),
                unreachable.clone(),
                150,
                Verdict::Later(Duration::from_secs(250)),
            ),
            (
                "the time is over",
                tolerating(&[("unreachable", Some(300))]),
                unreachable.clone(),
                400,
                Verdict::Evict,
            ),
            ("no time", tolerating(&[("unreachable", Some(-1))]), unreachable, 100, Verdict::Evict),
            (
                "the shortest counts",
                tolerating(&[("a", Some(300)), ("b", Some(10))]),
                tainted(&[("a", "NoExecute", 100), ("b", "NoExecute", 100)]),
                100,
                Verdict::Later(Duration::from_secs(10)),
            ),
            (
                "a pod younger than the taint has its time from its creation",
                tolerating(&[("a", Some(30))]),
                tainted(&[("a", "NoExecute", 1)]),
                50,
                Verdict::Later(Duration::from_secs(30)),
            ),
        ] {
            assert_eq!(decide(&pod, Some(&node), at(now)), expected, "{name}");
        }
    }

    #[test]
    fn pods_being_deleted_are_left_alone() {
        let mut deleting = tolerating(&[]);
        deleting.metadata.deletion_timestamp = Some(time(1));
        let node = tainted(&[("a", "NoExecute", 1)]);
        assert_eq!(decide(&deleting, Some(&node), at(5)), Verdict::Stays);
    }
}
