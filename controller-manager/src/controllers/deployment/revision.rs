//! Revisions: which ReplicaSet is the new one, the annotations it gets from the deployment, the revision history, and
//! which old ReplicaSets are cleaned up. Pure.

use std::collections::BTreeMap;

use apimachinery::{hash, owner};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::bounds::{self, DESIRED_REPLICAS, MAX_REPLICAS};

/// Revision of a deployment and of its ReplicaSets.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// Longest revision history kept, in characters.
const REVISION_HISTORY_LENGTH: usize = 2_000;
/// Annotations of a deployment that its ReplicaSets do not take over.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
const MAX_NAME_LENGTH: usize = 253;

/// Oldest first, names deciding among equals.
pub fn by_creation(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let created = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    created(a).cmp(&created(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

/// Whether the ReplicaSet runs the deployment's template; the hash label that the deployment controller adds is ignored.
pub fn runs_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = deployment.spec.as_ref().map(|spec| without_hash(&spec.template));
    let running = set.spec.as_ref().and_then(|spec| spec.template.as_ref()).map(without_hash);
    wanted == running
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(metadata) = template.metadata.as_mut() {
        if let Some(labels) = metadata.labels.as_mut() {
            labels.remove(POD_TEMPLATE_HASH);
        }
        // An empty map and an absent one are the same thing on the wire.
        metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
        metadata.annotations = metadata.annotations.take().filter(|annotations| !annotations.is_empty());
        metadata.creation_timestamp = None;
    }
    if template.metadata == Some(ObjectMeta::default()) {
        template.metadata = None;
    }
    template
}

/// The revision recorded on an object, 0 when there is none.
pub fn revision(metadata: &ObjectMeta) -> i64 {
    metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(REVISION))
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

/// The ReplicaSet to create for the deployment's template: named by the template's hash, so that creating it twice makes
/// one. It has no replicas and no annotations yet.
pub fn new_replica_set(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash::pod_template_hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let owner = owner::new_controller_ref(deployment);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(replica_set_name(deployment.metadata.name.as_deref().unwrap_or(""), &hash)),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

fn replica_set_name(deployment: &str, hash: &str) -> String {
    let room = MAX_NAME_LENGTH.saturating_sub(hash.len() + 1);
    let base = deployment.get(..room).unwrap_or(deployment);
    format!("{base}-{hash}")
}

/// Brings the new ReplicaSet's annotations up to the deployment's and to `revision`; whether anything changed.
pub fn annotate_new(deployment: &Deployment, set: &mut ReplicaSet, revision: i64, exists: bool) -> bool {
    let mut changed = copy_annotations(deployment, set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let old = annotations.get(REVISION).cloned();
    let old_revision = old.as_deref().and_then(|value| value.parse::<i64>().ok()).unwrap_or(0);
    if old_revision < revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        changed = true;
        if let Some(old) = old {
            push_history(annotations, &old);
        }
    }
    if !exists && set_replicas_annotations(deployment, set) {
        changed = true;
    }
    changed
}

fn copy_annotations(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let mut changed = false;
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) && annotations.get(key) != Some(value) {
            annotations.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    changed
}

/// Appends a revision to the history, dropping the oldest that no longer fit.
fn push_history(annotations: &mut BTreeMap<String, String>, old: &str) {
    let history = annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|revision| !revision.is_empty()).collect();
    revisions.push(old);
    let mut length: usize = revisions.iter().map(|revision| revision.len() + 1).sum::<usize>() - 1;
    let mut start = 0;
    while length > REVISION_HISTORY_LENGTH && start + 1 < revisions.len() {
        length -= revisions[start].len() + 1;
        start += 1;
    }
    if length <= REVISION_HISTORY_LENGTH {
        annotations.insert(REVISION_HISTORY.to_owned(), revisions[start..].join(","));
    }
}

/// Records the deployment's desired and maximal replicas on a ReplicaSet; whether anything changed.
pub fn set_replicas_annotations(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let desired = bounds::replicas(deployment);
    let maximum = desired + bounds::max_surge(deployment);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in [(DESIRED_REPLICAS, desired.to_string()), (MAX_REPLICAS, maximum.to_string())] {
        if annotations.get(key) != Some(&value) {
            annotations.insert(key.to_owned(), value);
            changed = true;
        }
    }
    changed
}

/// Records the new ReplicaSet's revision on the deployment.
pub fn set_revision(deployment: &mut Deployment, revision: &str) {
    let annotations = deployment.metadata.annotations.get_or_insert_default();
    annotations.insert(REVISION.to_owned(), revision.to_owned());
}

/// The old ReplicaSets beyond `spec.revisionHistoryLimit` that nothing uses any more, lowest revision first.
pub fn to_clean_up<'a>(
    deployment: &Deployment,
    old: impl IntoIterator<Item = &'a ReplicaSet>,
) -> Vec<&'a ReplicaSet> {
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
    let Some(limit) = limit.filter(|limit| *limit != i32::MAX).and_then(|limit| usize::try_from(limit).ok())
    else {
        return Vec::new();
    };
    let mut alive: Vec<&ReplicaSet> =
        old.into_iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    let excess = alive.len().saturating_sub(limit);
    alive.sort_by(|a, b| revision(&a.metadata).cmp(&revision(&b.metadata)).then_with(|| by_creation(a, b)));
    alive.truncate(excess);
    alive.retain(|set| {
        bounds::actual_replicas(set) == 0 && bounds::set_replicas(set) == 0 && is_observed(set)
    });
    alive
}

/// Whether the ReplicaSet controller has seen the latest spec.
fn is_observed(set: &ReplicaSet) -> bool {
    let observed = set.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
    set.metadata.generation.unwrap_or(0) <= observed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{deployment, owned_replica_set};

    #[test]
    fn new_replica_set_is_deterministic_and_selects_by_hash() {
        let d = deployment("web", 3);
        let (first, second) = (new_replica_set(&d), new_replica_set(&d));
        assert_eq!(first, second);
        assert!(runs_template(&d, &first));
        let spec = first.spec.as_ref().unwrap();
        let hash = first.metadata.labels.as_ref().unwrap()[POD_TEMPLATE_HASH].clone();
        assert_eq!(first.metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
        assert_eq!(spec.selector.match_labels.as_ref().unwrap()[POD_TEMPLATE_HASH], hash);
        let mut collided = d.clone();
        collided.status.get_or_insert_default().collision_count = Some(1);
        assert_ne!(new_replica_set(&collided).metadata.name, first.metadata.name);
    }

    #[test]
    fn a_changed_template_is_another_revision() {
        let d = deployment("web", 3);
        let set = new_replica_set(&d);
        let mut changed = d;
        changed.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image =
            Some("v2".into());
        assert!(!runs_template(&changed, &set));
    }

    #[test]
    fn annotations_follow_the_deployment() {
        let mut d = deployment("web", 4);
        d.metadata.annotations = Some(
            [("note", "x"), ("kubectl.kubernetes.io/last-applied-configuration", "{}"), (REVISION, "9")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        );
        let mut set = new_replica_set(&d);
        assert!(annotate_new(&d, &mut set, 1, false));
        let annotations = set.metadata.annotations.clone().unwrap();
        assert_eq!(annotations["note"], "x");
        assert_eq!(annotations[REVISION], "1");
        assert_eq!((annotations[DESIRED_REPLICAS].as_str(), annotations[MAX_REPLICAS].as_str()), ("4", "5"));
        assert!(!annotations.contains_key("kubectl.kubernetes.io/last-applied-configuration"));
        assert!(!annotate_new(&d, &mut set, 1, true), "nothing to do twice");
        assert!(annotate_new(&d, &mut set, 3, true), "a rollback takes a new revision");
        let annotations = set.metadata.annotations.clone().unwrap();
        assert_eq!((annotations[REVISION].as_str(), annotations[REVISION_HISTORY].as_str()), ("3", "1"));
        assert!(!annotate_new(&d, &mut set, 2, true), "a revision never falls");
    }

    #[test]
    fn history_is_bounded() {
        let mut annotations = BTreeMap::new();
        for revision in 0..1_000 {
            push_history(&mut annotations, &revision.to_string());
        }
        let history = &annotations[REVISION_HISTORY];
        assert!(history.len() <= REVISION_HISTORY_LENGTH);
        assert!(history.ends_with(",998,999") && !history.starts_with("0,"));
    }

    #[test]
    fn clean_up_keeps_the_limit_and_what_is_in_use() {
        let mut d = deployment("web", 1);
        d.spec.as_mut().unwrap().revision_history_limit = Some(1);
        let set = |name: &str, revision: i64, replicas: i32| {
            let mut set = owned_replica_set(&d, name, replicas);
            set.metadata.annotations.get_or_insert_default().insert(REVISION.into(), revision.to_string());
            set
        };
        let sets = [set("third", 3, 0), set("first", 1, 0), set("second", 2, 1)];
        let names: Vec<_> =
            to_clean_up(&d, &sets).iter().filter_map(|set| set.metadata.name.clone()).collect();
        assert_eq!(names, ["first"]);
        d.spec.as_mut().unwrap().revision_history_limit = None;
        assert!(to_clean_up(&d, &sets).is_empty());
    }
}
