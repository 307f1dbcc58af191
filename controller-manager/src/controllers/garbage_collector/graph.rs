//! Who owns whom. An index fed with what watches show; it answers with what is worth a closer look, and never decides
//! that anything is to be deleted: what it holds may be old, so that is asked of the server. Pure. Upstream:
//! `GraphBuilder` of pkg/controller/garbagecollector.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// Where an object is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    pub api_version: String,
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// An object, or the owner that another object names and nobody has seen yet.
#[derive(Debug, Clone)]
pub struct Node {
    pub identity: Identity,
    pub owners: Vec<OwnerReference>,
    /// Uids of the objects that name it as an owner.
    pub dependents: BTreeSet<String>,
    /// Its deletion has begun.
    pub deleting: bool,
    /// It waits for its dependents to be deleted.
    pub deleting_dependents: bool,
    /// It waits for its dependents to be released.
    pub orphaning: bool,
    /// Known only from references.
    pub is_virtual: bool,
}

/// What is worth a closer look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Whether this object is to be deleted, or its deletion goes on.
    AttemptToDelete(String),
    /// Release this object's dependents.
    AttemptToOrphan(String),
    /// This object names an owner that is in another namespace (or none).
    InvalidOwner { dependent: String, owner: String },
}

/// See the module.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
}

impl Graph {
    /// The object of that uid.
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// An object was added or changed.
    pub fn apply(&mut self, api_version: &str, kind: &str, metadata: &ObjectMeta) -> Vec<Work> {
        let uid = metadata.uid.clone().unwrap_or_default();
        let identity = Identity {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: uid.clone(),
        };
        let owners = metadata.owner_references.clone().unwrap_or_default();
        let mut work = BTreeSet::new();
        let before = self.nodes.get(&uid).map(|node| node.owners.clone()).unwrap_or_default();
        self.place(identity, &mut work);
        if before != owners {
            self.change_owners(&uid, &before, owners, &mut work);
        }
        self.note_deletion(&uid, metadata, &mut work);
        work.into_iter().collect()
    }

    /// Makes the node, or corrects what was assumed of a virtual one.
    fn place(&mut self, identity: Identity, work: &mut BTreeSet<Work>) {
        let Some(node) = self.nodes.get_mut(&identity.uid) else {
            self.nodes.insert(identity.uid.clone(), Node::new(identity, false));
            return;
        };
        if !node.is_virtual {
            return;
        }
        node.is_virtual = false;
        let assumed = std::mem::replace(&mut node.identity, identity);
        if assumed != node.identity {
            // Some dependents named it wrongly: now that it is known, each is looked at.
            let dependents: Vec<String> = node.dependents.iter().cloned().collect();
            let uid = node.identity.uid.clone();
            for dependent in dependents {
                self.check_reference(&dependent, &uid, work);
                work.insert(Work::AttemptToDelete(dependent));
            }
        }
    }

    fn change_owners(
        &mut self,
        uid: &str,
        before: &[OwnerReference],
        owners: Vec<OwnerReference>,
        work: &mut BTreeSet<Work>,
    ) {
        let by_uid = |references: &[OwnerReference]| -> BTreeMap<String, OwnerReference> {
            references.iter().map(|reference| (reference.uid.clone(), reference.clone())).collect()
        };
        let (old, new) = (by_uid(before), by_uid(&owners));
        let namespace = self.nodes.get(uid).map(|node| node.identity.namespace.clone()).unwrap_or_default();
        if let Some(node) = self.nodes.get_mut(uid) {
            node.owners = owners;
        }
        for (owner, reference) in &new {
            if old.contains_key(owner) {
                continue;
            }
            let known = self.nodes.contains_key(owner);
            let node = self.nodes.entry(owner.clone()).or_insert_with(|| {
                let identity = Identity {
                    api_version: reference.api_version.clone(),
                    kind: reference.kind.clone(),
                    namespace: namespace.clone(),
                    name: reference.name.clone(),
                    uid: owner.clone(),
                };
                Node::new(identity, true)
            });
            node.dependents.insert(uid.to_owned());
            if known {
                self.check_reference(uid, owner, work);
            } else {
                // Whether it exists at all is asked of the server.
                work.insert(Work::AttemptToDelete(owner.clone()));
            }
        }
        for (owner, reference) in &old {
            let unblocked = new.get(owner).is_none_or(|new| !blocks(new));
            if !new.contains_key(owner) {
                self.forget_dependent(owner, uid);
            }
            // An owner that waited for this dependent may wait no more.
            if blocks(reference)
                && unblocked
                && self.nodes.get(owner).is_some_and(|node| node.deleting_dependents)
            {
                work.insert(Work::AttemptToDelete(owner.clone()));
            }
        }
        // An owner may be gone, or waiting.
        if !new.is_empty() && !before.is_empty() {
            work.insert(Work::AttemptToDelete(uid.to_owned()));
        }
    }

    /// Whether the reference says where its owner really is; if not, the dependent is looked at.
    fn check_reference(&self, dependent: &str, owner: &str, work: &mut BTreeSet<Work>) {
        let (Some(dependent), Some(owner)) = (self.nodes.get(dependent), self.nodes.get(owner)) else {
            return;
        };
        if owner.is_virtual {
            return;
        }
        let uid = &owner.identity.uid;
        let Some(reference) = dependent.owners.iter().find(|reference| reference.uid == *uid) else { return };
        let named = reference.name == owner.identity.name && reference.kind == owner.identity.kind;
        let same_group = group(&reference.api_version) == group(&owner.identity.api_version);
        let namespace = &owner.identity.namespace;
        let reachable = namespace.is_empty() || *namespace == dependent.identity.namespace;
        if !reachable {
            work.insert(Work::InvalidOwner { dependent: dependent.identity.uid.clone(), owner: uid.clone() });
        }
        if !(named && same_group && reachable) {
            work.insert(Work::AttemptToDelete(dependent.identity.uid.clone()));
        }
    }

    fn note_deletion(&mut self, uid: &str, metadata: &ObjectMeta, work: &mut BTreeSet<Work>) {
        let Some(node) = self.nodes.get_mut(uid) else { return };
        let deleting = metadata.deletion_timestamp.is_some();
        let finalizer = |name: &str| metadata.finalizers.iter().flatten().any(|finalizer| finalizer == name);
        node.deleting = deleting;
        let foreground = deleting && finalizer(FOREGROUND);
        let orphaning = deleting && finalizer(ORPHAN);
        if foreground && !node.deleting_dependents {
            work.extend(node.dependents.iter().cloned().map(Work::AttemptToDelete));
            work.insert(Work::AttemptToDelete(uid.to_owned()));
        }
        if orphaning && !node.orphaning {
            work.insert(Work::AttemptToOrphan(uid.to_owned()));
        }
        node.deleting_dependents = foreground;
        node.orphaning = orphaning;
    }

    /// An object is gone.
    pub fn delete(&mut self, uid: &str) -> Vec<Work> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut work: BTreeSet<Work> = node.dependents.iter().cloned().map(Work::AttemptToDelete).collect();
        for owner in &node.owners {
            self.forget_dependent(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(|owner| owner.deleting_dependents) {
                work.insert(Work::AttemptToDelete(owner.uid.clone()));
            }
        }
        if !node.dependents.is_empty() {
            // The dependents still name it: until they are gone too it is an owner known from references.
            let identity = node.identity;
            let keep = Node { dependents: node.dependents, ..Node::new(identity, true) };
            self.nodes.insert(uid.to_owned(), keep);
        }
        work.into_iter().collect()
    }

    fn forget_dependent(&mut self, owner: &str, dependent: &str) {
        if let Some(node) = self.nodes.get_mut(owner) {
            node.dependents.remove(dependent);
            if node.is_virtual && node.dependents.is_empty() {
                self.nodes.remove(owner);
            }
        }
    }

    /// The dependents that hold back the foreground deletion of an object.
    pub fn blocking_dependents(&self, uid: &str) -> Vec<&Node> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        let dependents = node.dependents.iter().filter_map(|dependent| self.nodes.get(dependent));
        dependents
            .filter(|dependent| dependent.owners.iter().any(|owner| owner.uid == uid && blocks(owner)))
            .collect()
    }
}

impl Node {
    fn new(identity: Identity, is_virtual: bool) -> Self {
        Self {
            identity,
            owners: Vec::new(),
            dependents: BTreeSet::new(),
            deleting: false,
            deleting_dependents: false,
            orphaning: false,
            is_virtual,
        }
    }
}

/// The group of an apiVersion.
pub fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

fn blocks(reference: &OwnerReference) -> bool {
    reference.block_owner_deletion == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::time;

    fn object(uid: &str, namespace: &str, owners: &[&str]) -> ObjectMeta {
        ObjectMeta {
            name: Some(uid.to_owned()),
            uid: Some(uid.to_owned()),
            namespace: Some(namespace.to_owned()),
            owner_references: Some(owners.iter().map(|owner| reference(owner)).collect()),
            ..ObjectMeta::default()
        }
    }

    fn reference(uid: &str) -> OwnerReference {
        OwnerReference {
            api_version: "v1".into(),
            kind: "Thing".into(),
            name: uid.to_owned(),
            uid: uid.to_owned(),
            block_owner_deletion: Some(true),
            controller: None,
        }
    }

    fn deleting(mut object: ObjectMeta, finalizer: &str) -> ObjectMeta {
        object.deletion_timestamp = Some(time(1));
        object.finalizers = Some(vec![finalizer.to_owned()]);
        object
    }

    fn apply(graph: &mut Graph, metadata: &ObjectMeta) -> Vec<Work> {
        graph.apply("v1", "Thing", metadata)
    }

    fn look(uid: &str) -> Work {
        Work::AttemptToDelete(uid.to_owned())
    }

    #[test]
    fn an_unseen_owner_is_asked_for() {
        let mut graph = Graph::default();
        assert_eq!(apply(&mut graph, &object("child", "ns", &["owner"])), [look("owner")]);
        assert!(graph.get("owner").unwrap().is_virtual);
        assert_eq!(apply(&mut graph, &object("owner", "ns", &[])), []);
        assert!(!graph.get("owner").unwrap().is_virtual);
        assert_eq!(graph.get("owner").unwrap().dependents.len(), 1);
    }

    #[test]
    fn dependents_of_the_deleted_are_looked_at() {
        let mut graph = Graph::default();
        apply(&mut graph, &object("owner", "ns", &[]));
        assert_eq!(apply(&mut graph, &object("child", "ns", &["owner"])), []);
        assert_eq!(graph.delete("owner"), [look("child")]);
        assert_eq!(graph.delete("child"), []);
        assert!(graph.is_empty());
    }

    #[test]
    fn foreground_deletion_looks_at_all_and_goes_on_as_they_go() {
        let mut graph = Graph::default();
        apply(&mut graph, &object("owner", "ns", &[]));
        apply(&mut graph, &object("child", "ns", &["owner"]));
        let going = deleting(object("owner", "ns", &[]), FOREGROUND);
        assert_eq!(apply(&mut graph, &going), [look("child"), look("owner")]);
        assert_eq!(apply(&mut graph, &going), [], "told once");
        assert_eq!(graph.blocking_dependents("owner").len(), 1);
        assert_eq!(graph.delete("child"), [look("owner")]);
        assert!(graph.blocking_dependents("owner").is_empty());
    }

    #[test]
    fn a_dependent_that_blocks_no_more_lets_its_owner_go_on() {
        let mut graph = Graph::default();
        apply(&mut graph, &object("child", "ns", &["owner"]));
        apply(&mut graph, &deleting(object("owner", "ns", &[]), FOREGROUND));
        let mut child = object("child", "ns", &["owner"]);
        child.owner_references.as_mut().unwrap()[0].block_owner_deletion = Some(false);
        assert!(apply(&mut graph, &child).contains(&look("owner")));
    }

    #[test]
    fn orphaning_is_told_once() {
        let mut graph = Graph::default();
        let going = deleting(object("owner", "ns", &[]), ORPHAN);
        assert_eq!(apply(&mut graph, &going), [Work::AttemptToOrphan("owner".into())]);
        assert_eq!(apply(&mut graph, &going), []);
    }

    #[test]
    fn owners_in_other_namespaces_are_invalid() {
        let mut graph = Graph::default();
        apply(&mut graph, &object("owner", "a", &[]));
        let work = apply(&mut graph, &object("child", "b", &["owner"]));
        let invalid = Work::InvalidOwner { dependent: "child".into(), owner: "owner".into() };
        assert_eq!(work, [look("child"), invalid.clone()]);
        // The other way round: the owner is seen after the dependent.
        let mut graph = Graph::default();
        apply(&mut graph, &object("child", "b", &["owner"]));
        assert!(apply(&mut graph, &object("owner", "a", &[])).contains(&invalid));
        // A cluster-scoped owner is fine.
        let mut graph = Graph::default();
        apply(&mut graph, &object("owner", "", &[]));
        assert_eq!(apply(&mut graph, &object("child", "b", &["owner"])), []);
    }

    #[test]
    fn cycles_are_harmless() {
        let mut graph = Graph::default();
        apply(&mut graph, &object("a", "ns", &["b"]));
        apply(&mut graph, &object("b", "ns", &["a"]));
        assert_eq!(graph.delete("a"), [look("b")]);
        assert_eq!(graph.delete("b"), []);
        assert!(graph.is_empty(), "{graph:?}");
    }

    #[test]
    fn released_dependents_are_forgotten() {
        let mut graph = Graph::default();
        apply(&mut graph, &object("owner", "ns", &[]));
        apply(&mut graph, &object("child", "ns", &["owner"]));
        apply(&mut graph, &object("child", "ns", &[]));
        assert_eq!(graph.delete("owner"), []);
    }
}
