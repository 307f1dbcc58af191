//! ControllerRevisions of a DaemonSet: the templates it had, by which kubectl shows history and rolls back. Pure.
//! Upstream: pkg/controller/daemon/update.go.

use std::collections::HashSet;
use std::sync::Arc;

use apimachinery::{hash, meta, owner};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::plan::REVISION_HASH;

/// What to do about the revision of the present template.
#[derive(Debug, Clone, PartialEq)]
pub enum Current {
    /// It is recorded.
    Known(Arc<ControllerRevision>),
    /// It is recorded, and its number must rise: an older template is in use again.
    Renumber(Box<ControllerRevision>),
    /// It is new.
    Create(Box<ControllerRevision>),
}

/// Finds the revision of the present template among `revisions`; the others are returned beside it, oldest first.
pub fn current(
    daemon_set: &DaemonSet,
    revisions: Vec<Arc<ControllerRevision>>,
) -> (Current, Vec<Arc<ControllerRevision>>) {
    let (mut same, mut old): (Vec<_>, Vec<_>) =
        revisions.into_iter().partition(|revision| records(revision, daemon_set));
    old.sort_by(|a, b| a.revision.cmp(&b.revision).then_with(|| a.metadata.name.cmp(&b.metadata.name)));
    same.sort_by_key(|revision| revision.revision);
    let next = old.iter().map(|revision| revision.revision).max().unwrap_or(0) + 1;
    let current = match same.pop() {
        None => Current::Create(Box::new(snapshot(daemon_set, next))),
        Some(revision) if revision.revision < next => {
            Current::Renumber(Box::new(ControllerRevision { revision: next, ..revision.as_ref().clone() }))
        }
        Some(revision) => Current::Known(revision),
    };
    (current, old)
}

/// Whether the revision holds the DaemonSet's present template.
pub fn records(revision: &ControllerRevision, daemon_set: &DaemonSet) -> bool {
    let Some(RawExtension(data)) = &revision.data else { return false };
    let template = data.pointer("/spec/template").cloned().unwrap_or(Value::Null);
    let wanted = daemon_set.spec.as_ref().map(|spec| &spec.template);
    // Unknown keys (`$patch`) are no fields of a template and fall away.
    serde_json::from_value::<PodTemplateSpec>(template).is_ok_and(|held| Some(&held) == wanted)
}

fn snapshot(daemon_set: &DaemonSet, revision: i64) -> ControllerRevision {
    let template = daemon_set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let collisions = daemon_set.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash::pod_template_hash(&template, collisions);
    let mut labels =
        template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(REVISION_HASH.to_owned(), hash.clone());
    let mut data = json!({"spec": {"template": template}});
    // kubectl applies this as a strategic merge patch, and the template must come back whole.
    data["spec"]["template"]["$patch"] = "replace".into();
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", meta::name_of(daemon_set))),
            namespace: daemon_set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: daemon_set.metadata.annotations.clone(),
            owner_references: Some(vec![owner::new_controller_ref(daemon_set)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}

/// The old revisions beyond `spec.revisionHistoryLimit` that no pod runs, oldest first.
pub fn to_clean_up(
    daemon_set: &DaemonSet,
    old: &[Arc<ControllerRevision>],
    live: &HashSet<&str>,
) -> Vec<Arc<ControllerRevision>> {
    let limit = daemon_set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    let excess = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let is_live = |revision: &ControllerRevision| {
        meta::label(&revision.metadata, REVISION_HASH).is_some_and(|hash| live.contains(hash))
    };
    old.iter().filter(|revision| !is_live(revision)).take(excess).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::daemon_set;

    fn set_image(ds: &mut DaemonSet, image: &str) {
        ds.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
    }

    fn create(ds: &DaemonSet, known: &[Arc<ControllerRevision>]) -> Arc<ControllerRevision> {
        let (Current::Create(made), _) = current(ds, known.to_vec()) else { panic!("should create") };
        Arc::new(*made)
    }

    #[test]
    fn revisions_are_recorded_found_and_renumbered() {
        let mut ds = daemon_set("ds");
        let first = create(&ds, &[]);
        assert_eq!(first.revision, 1);
        let data = &first.data.as_ref().unwrap().0;
        assert_eq!(data["spec"]["template"]["$patch"], "replace");
        assert_eq!(current(&ds, vec![Arc::clone(&first)]).0, Current::Known(Arc::clone(&first)));

        set_image(&mut ds, "v2");
        let second = create(&ds, &[Arc::clone(&first)]);
        assert_eq!(second.revision, 2);
        assert_ne!(first.metadata.name, second.metadata.name);

        set_image(&mut ds, "v1");
        let (back, old) = current(&ds, vec![first, second]);
        let Current::Renumber(back) = back else { panic!("should renumber") };
        assert_eq!((back.revision, old.len()), (3, 1));
    }

    #[test]
    fn history_is_cut_but_live_ones_stay() {
        let mut ds = daemon_set("ds");
        ds.spec.as_mut().unwrap().revision_history_limit = Some(1);
        let old: Vec<_> = ["v1", "v2", "v3"]
            .iter()
            .map(|image| {
                set_image(&mut ds, image);
                create(&ds, &[])
            })
            .collect();
        let live = meta::label(&old[0].metadata, REVISION_HASH).unwrap();
        assert_eq!(
            to_clean_up(&ds, &old, &HashSet::from([live])),
            vec![Arc::clone(&old[1]), Arc::clone(&old[2])]
        );
        assert_eq!(to_clean_up(&ds, &old, &HashSet::new()), vec![Arc::clone(&old[0]), Arc::clone(&old[1])]);
    }
}
