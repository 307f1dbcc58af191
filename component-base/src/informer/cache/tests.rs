//! Indexes, replacement and the merging of changes.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::*;
use crate::informer::{Change, Store};

fn pod(name: &str, node: &str, version: u64, uid: &str) -> Pod {
    let mut pod = Pod {
        metadata: ObjectMeta {
            namespace: Some("ns".into()),
            name: Some(name.into()),
            uid: Some(uid.into()),
            resource_version: Some(version.to_string()),
            ..ObjectMeta::default()
        },
        ..Pod::default()
    };
    pod.spec.get_or_insert_default().node_name = Some(node.into());
    pod
}

fn cache() -> Arc<Cache<Pod>> {
    let by_node: IndexFunction<Pod> =
        Box::new(|pod| pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect());
    Arc::new(Cache::new(vec![("node", by_node)]))
}

fn drain(changes: &mut Changes<Pod>) -> Vec<String> {
    std::iter::from_fn(|| changes.try_recv())
        .map(|change| {
            let version = |pod: &Pod| pod.metadata.resource_version.clone().unwrap();
            let name = change.key().name;
            match &change {
                Change::Added(new) => format!("+{name}@{}", version(new)),
                Change::Updated { old, new } => format!("{name}@{}>{}", version(old), version(new)),
                Change::Deleted(old) => format!("-{name}@{}", version(old)),
            }
        })
        .collect()
}

#[test]
fn a_whole_state_replaces_what_is_newer() {
    // As after etcd was restored from a backup.
    let cache = cache();
    for (name, version, node) in [("a", 7, "n1"), ("b", 8, "n1"), ("c", 9, "n1"), ("d", 9, "n1")] {
        cache.upsert(pod(name, node, version, name));
    }
    let mut changes = cache.subscribe();
    drain(&mut changes);
    cache.replace(vec![pod("a", "n1", 7, "a"), pod("b", "n1", 5, "b"), pod("c", "n2", 9, "c")]);
    let mut told = drain(&mut changes);
    told.sort();
    assert_eq!(told, ["-d@9", "b@8>5", "c@9>9"]);
    cache.upsert(pod("b", "n1", 4, "b"));
    cache.upsert(pod("b", "n3", 5, "b"));
    assert!(drain(&mut changes).is_empty());
}

#[test]
fn indexes_follow_every_change() {
    let cache = cache();
    let store = Store::new(Arc::clone(&cache));
    let names = |node: &str| -> Vec<String> {
        store.by_index("node", node).iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
    };
    cache.upsert(pod("b", "n1", 1, "u1"));
    cache.upsert(pod("a", "n1", 2, "u2"));
    assert_eq!(names("n1"), ["a", "b"]);
    cache.upsert(pod("a", "n2", 3, "u2"));
    assert_eq!((names("n1"), names("n2")), (vec!["b".to_owned()], vec!["a".to_owned()]));
    cache.delete(&ObjectKey::new("ns", "a"), Some(pod("a", "n3", 4, "u2")));
    assert!(names("n2").is_empty() && names("n3").is_empty());
    cache.replace(vec![pod("c", "n1", 5, "u3")]);
    assert_eq!(names("n1"), ["c"]);
    assert_eq!(store.index_values("node"), ["n1"]);
}

#[test]
fn namespaces_are_ranges() {
    let objects = [("a", "z"), ("ns", "x"), ("ns", "y"), ("ns2", "x"), ("", "cluster")];
    let pods = objects.map(|(namespace, name)| {
        let mut pod = pod(name, "n", 1, "u");
        pod.metadata.namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        pod
    });
    let store = Store::from_objects(pods.to_vec());
    let names: Vec<_> =
        store.list_namespace("ns").iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["x", "y"]);
    assert_eq!(store.len(), 5);
    assert!(store.get(&ObjectKey::cluster("cluster")).is_some());
    assert!(store.get(&ObjectKey::new("ns", "z")).is_none());
}

#[test]
fn a_new_subscriber_first_gets_what_is_held() {
    let cache = cache();
    cache.upsert(pod("a", "n", 1, "u"));
    let mut changes = cache.subscribe();
    cache.upsert(pod("b", "n", 2, "u"));
    assert_eq!(drain(&mut changes), ["+a@1", "+b@2"]);
}

#[test]
fn unreceived_changes_of_an_object_merge() {
    let cache = cache();
    let mut changes = cache.subscribe();
    cache.upsert(pod("a", "n", 1, "u"));
    cache.upsert(pod("b", "n", 2, "u"));
    cache.upsert(pod("a", "n", 3, "u"));
    assert_eq!(drain(&mut changes), ["+a@3", "+b@2"]);
    cache.upsert(pod("a", "n", 4, "u"));
    cache.upsert(pod("a", "n", 5, "u"));
    assert_eq!(drain(&mut changes), ["a@3>5"]);
    cache.upsert(pod("a", "n", 6, "u"));
    cache.delete(&ObjectKey::new("ns", "a"), None);
    assert_eq!(drain(&mut changes), ["-a@5"]);
    cache.upsert(pod("c", "n", 7, "u"));
    cache.delete(&ObjectKey::new("ns", "c"), None);
    assert!(drain(&mut changes).is_empty());
}

#[test]
fn an_object_made_anew_is_two_changes() {
    let cache = cache();
    cache.upsert(pod("a", "n", 1, "first"));
    let mut changes = cache.subscribe();
    assert_eq!(drain(&mut changes), ["+a@1"]);
    cache.delete(&ObjectKey::new("ns", "a"), None);
    cache.upsert(pod("a", "n", 3, "second"));
    assert_eq!(drain(&mut changes), ["-a@1", "+a@3"]);
}

#[test]
fn replace_deletes_what_vanished_and_keeps_what_is_unchanged() {
    let cache = cache();
    cache.upsert(pod("gone", "n", 1, "u"));
    cache.upsert(pod("same", "n", 2, "u"));
    cache.upsert(pod("new", "n", 3, "u"));
    let mut changes = cache.subscribe();
    drain(&mut changes);
    cache.replace(vec![pod("same", "n", 2, "u"), pod("new", "n", 9, "u")]);
    assert_eq!(drain(&mut changes), ["new@3>9", "-gone@1"]);
}

#[test]
fn short_lived_objects_do_not_pile_up_while_nobody_receives() {
    let cache = cache();
    let mut changes = cache.subscribe();
    cache.upsert(pod("stays", "n", 1, "u"));
    for version in 2..10_000 {
        let name = format!("p{version}");
        cache.upsert(pod(&name, "n", version, "u"));
        cache.delete(&ObjectKey::new("ns", name), None);
    }
    assert!(format!("{changes:?}").len() < 40, "{changes:?}");
    assert_eq!(drain(&mut changes), ["+stays@1"]);
}

#[test]
fn older_versions_are_not_news() {
    let cache = cache();
    cache.upsert(pod("a", "n", 5, "u"));
    let mut changes = cache.subscribe();
    drain(&mut changes);
    cache.upsert(pod("a", "n", 4, "u"));
    cache.upsert(pod("a", "n", 5, "u"));
    cache.delete(&ObjectKey::new("ns", "a"), Some(pod("a", "n", 4, "old")));
    assert!(drain(&mut changes).is_empty());
}
