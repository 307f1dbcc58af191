//! A persistent B+ tree of stored objects: a clone is a snapshot and costs one reference count.
//!
//! Whoever holds a clone keeps reading the same state while the owner goes on writing; only the nodes on the way to a
//! changed object are copied, and only while a clone holds them. Beside each object lies its signature, so that a
//! selector that matches few objects passes over the others without touching them. Upstream keeps its watch cache in
//! a copy-on-write B-tree too (`storage/cacher/store_btree.go`).

use std::cmp::Ordering;
use std::sync::Arc;

use crate::storage::stored::Stored;

/// Objects in a leaf, and children of an inner node.
const WIDTH: usize = 64;

/// How objects of a tree are ordered.
pub(super) trait Order {
    fn compare(&self, a: &Stored, b: &Stored) -> Ordering;
}

/// By etcd key.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByKey;

impl Order for ByKey {
    fn compare(&self, a: &Stored, b: &Stored) -> Ordering {
        a.key.cmp(&b.key)
    }
}

/// A set of objects in an order of its own.
#[derive(Debug, Clone)]
pub(super) struct Tree<O> {
    root: Arc<Node>,
    len: usize,
    order: O,
}

/// An object and its signature.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) signature: u64,
    pub(super) stored: Arc<Stored>,
}

#[derive(Debug, Clone)]
enum Node {
    Leaf(Vec<Slot>),
    Inner(Vec<Child>),
}

#[derive(Debug, Clone)]
struct Child {
    /// The least object below.
    first: Arc<Stored>,
    /// Objects below.
    len: usize,
    node: Arc<Node>,
}

impl Child {
    /// `None` for an empty node.
    fn of(node: Arc<Node>) -> Option<Self> {
        let (first, len) = match &*node {
            Node::Leaf(slots) => (Arc::clone(&slots.first()?.stored), slots.len()),
            Node::Inner(children) => {
                (Arc::clone(&children.first()?.first), children.iter().map(|child| child.len).sum())
            }
        };
        Some(Self { first, len, node })
    }
}

impl<O: Order> Tree<O> {
    pub(super) fn new(order: O) -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), len: 0, order }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The object that `probe` calls equal.
    pub(super) fn get(&self, probe: impl Fn(&Stored) -> Ordering) -> Option<&Arc<Stored>> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(slots) => {
                    let at = slots.binary_search_by(|slot| probe(&slot.stored)).ok()?;
                    return slots.get(at).map(|slot| &slot.stored);
                }
                Node::Inner(children) => node = &children.get(child_of(children, &probe))?.node,
            }
        }
    }

    /// Puts an object in the place of its equal, which is returned.
    pub(super) fn insert(&mut self, stored: Arc<Stored>) -> Option<Arc<Stored>> {
        let (replaced, split) = insert(Arc::make_mut(&mut self.root), stored, &self.order);
        if let Some(right) = split {
            let left = std::mem::replace(&mut self.root, Arc::new(Node::Leaf(Vec::new())));
            let children = [Child::of(left), Child::of(Arc::new(right))].into_iter().flatten().collect();
            self.root = Arc::new(Node::Inner(children));
        }
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Takes out the object that `probe` calls equal.
    pub(super) fn remove(&mut self, probe: impl Fn(&Stored) -> Ordering) -> Option<Arc<Stored>> {
        // Looked up first: what is not there must not copy nodes.
        self.get(&probe)?;
        let removed = remove(Arc::make_mut(&mut self.root), &probe);
        self.len -= usize::from(removed.is_some());
        while let Node::Inner(children) = &*self.root
            && children.len() <= 1
        {
            self.root = children
                .first()
                .map_or_else(|| Arc::new(Node::Leaf(Vec::new())), |only| Arc::clone(&only.node));
        }
        removed
    }

    /// How many objects `probe` calls less.
    pub(super) fn rank(&self, probe: impl Fn(&Stored) -> Ordering) -> usize {
        let (mut node, mut before) = (&*self.root, 0);
        loop {
            match node {
                Node::Leaf(slots) => {
                    return before + slots.partition_point(|slot| probe(&slot.stored).is_lt());
                }
                Node::Inner(children) => {
                    let at = child_of(children, &probe);
                    before += children.iter().take(at).map(|child| child.len).sum::<usize>();
                    match children.get(at) {
                        Some(child) => node = &child.node,
                        None => return before,
                    }
                }
            }
        }
    }

    /// The objects in order, from the first that `probe` does not call less.
    pub(super) fn iter_from(&self, probe: impl Fn(&Stored) -> Ordering) -> Iter<'_> {
        let mut iter = Iter { inner: Vec::new(), leaf: [].iter() };
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf(slots) => {
                    let at = slots.partition_point(|slot| probe(&slot.stored).is_lt());
                    iter.leaf = slots.get(at..).unwrap_or_default().iter();
                    return iter;
                }
                Node::Inner(children) => {
                    let at = child_of(children, &probe);
                    iter.inner.push(children.get(at + 1..).unwrap_or_default().iter());
                    match children.get(at) {
                        Some(child) => node = &child.node,
                        None => return iter,
                    }
                }
            }
        }
    }

    /// All objects in order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> Iter<'_> {
        self.iter_from(|_| Ordering::Greater)
    }
}

/// The child in which what `probe` looks for lies or would lie.
fn child_of(children: &[Child], probe: impl Fn(&Stored) -> Ordering) -> usize {
    children.partition_point(|child| probe(&child.first).is_le()).saturating_sub(1)
}

fn insert(node: &mut Node, stored: Arc<Stored>, order: &impl Order) -> (Option<Arc<Stored>>, Option<Node>) {
    match node {
        Node::Leaf(slots) => {
            let slot = Slot { signature: stored.signature(), stored };
            match slots.binary_search_by(|held| order.compare(&held.stored, &slot.stored)) {
                Ok(at) => match slots.get_mut(at) {
                    Some(held) => (Some(std::mem::replace(held, slot).stored), None),
                    None => (None, None),
                },
                Err(at) => {
                    slots.insert(at, slot);
                    (None, split(slots, at).map(Node::Leaf))
                }
            }
        }
        Node::Inner(children) => {
            let at = child_of(children, |first| order.compare(first, &stored));
            let Some(child) = children.get_mut(at) else { return (None, None) };
            let (replaced, right) = insert(Arc::make_mut(&mut child.node), stored, order);
            let right = right.and_then(|right| Child::of(Arc::new(right)));
            if let Some(left) = Child::of(Arc::clone(&child.node)) {
                *child = left;
            }
            match right {
                Some(right) => {
                    children.insert(at + 1, right);
                    (replaced, split(children, at + 1).map(Node::Inner))
                }
                None => (replaced, None),
            }
        }
    }
}

/// Takes the upper part of a list that has grown too long by the insertion at `at`. Insertion at the end, which is how a
/// tree is filled in order, leaves the lower part full.
fn split<T>(list: &mut Vec<T>, at: usize) -> Option<Vec<T>> {
    if list.len() <= WIDTH {
        return None;
    }
    let upper = if at + 1 == list.len() { at } else { list.len() / 2 };
    Some(list.split_off(upper))
}

fn remove(node: &mut Node, probe: &impl Fn(&Stored) -> Ordering) -> Option<Arc<Stored>> {
    match node {
        Node::Leaf(slots) => {
            let at = slots.binary_search_by(|slot| probe(&slot.stored)).ok()?;
            Some(slots.remove(at).stored)
        }
        Node::Inner(children) => {
            let at = child_of(children, probe);
            let child = children.get_mut(at)?;
            let removed = remove(Arc::make_mut(&mut child.node), probe);
            match Child::of(Arc::clone(&child.node)) {
                Some(left) => *child = left,
                None => drop(children.remove(at)),
            }
            merge(children, at);
            removed
        }
    }
}

/// Joins a child that has become small with its neighbour, so that a tree does not become a list of crumbs.
fn merge(children: &mut Vec<Child>, at: usize) {
    let small = |child: &Child| match &*child.node {
        Node::Leaf(slots) => slots.len() <= WIDTH / 4,
        Node::Inner(below) => below.len() <= WIDTH / 4,
    };
    let left = at.saturating_sub(1);
    let (Some(a), Some(b)) = (children.get(left), children.get(left + 1)) else { return };
    if !small(a) || !small(b) {
        return;
    }
    let joined = match (&*a.node, &*b.node) {
        (Node::Leaf(a), Node::Leaf(b)) => Node::Leaf(a.iter().chain(b).cloned().collect()),
        (Node::Inner(a), Node::Inner(b)) => Node::Inner(a.iter().chain(b).cloned().collect()),
        _ => return,
    };
    if let Some(joined) = Child::of(Arc::new(joined)) {
        children.splice(left..left + 2, [joined]);
    }
}

/// See [`Tree::iter_from`].
#[derive(Debug, Clone)]
pub(super) struct Iter<'a> {
    /// What is left of each inner node on the way down.
    inner: Vec<std::slice::Iter<'a, Child>>,
    leaf: std::slice::Iter<'a, Slot>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Slot;

    fn next(&mut self) -> Option<&'a Slot> {
        loop {
            if let Some(slot) = self.leaf.next() {
                return Some(slot);
            }
            let mut node = loop {
                match self.inner.last_mut()?.next() {
                    Some(child) => break &*child.node,
                    None => drop(self.inner.pop()),
                }
            };
            loop {
                match node {
                    Node::Leaf(slots) => {
                        self.leaf = slots.iter();
                        break;
                    }
                    Node::Inner(children) => {
                        let mut rest = children.iter();
                        let Some(child) = rest.next() else { break };
                        self.inner.push(rest);
                        node = &child.node;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn stored(key: u32, revision: i64) -> Arc<Stored> {
        Arc::new(Stored::new(format!("{key:05}"), Bytes::new(), revision))
    }

    fn check(tree: &Tree<ByKey>, model: &BTreeMap<String, i64>) {
        assert_eq!(tree.len(), model.len());
        let held: Vec<_> =
            tree.iter().map(|slot| (slot.stored.key.to_string(), slot.stored.revision)).collect();
        let wanted: Vec<_> = model.iter().map(|(key, revision)| (key.clone(), *revision)).collect();
        assert_eq!(held, wanted);
    }

    #[test]
    fn behaves_as_a_sorted_map_and_its_clones_stay_as_they_were() {
        for seed in 0..20 {
            let mut random = SmallRng::seed_from_u64(seed);
            let (mut tree, mut model) = (Tree::new(ByKey), BTreeMap::new());
            let mut snapshots = Vec::new();
            for step in 0..4_000 {
                let key: u32 = random.random_range(0..3_000);
                let text = format!("{key:05}");
                // First more insertions, then more removals, so that the tree grows and shrinks.
                if random.random_range(0..4_000) > step {
                    let replaced = tree.insert(stored(key, step)).map(|stored| stored.revision);
                    assert_eq!(replaced, model.insert(text, step));
                } else {
                    let removed =
                        tree.remove(|held| (*held.key).cmp(text.as_str())).map(|held| held.revision);
                    assert_eq!(removed, model.remove(&text));
                }
                if step % 500 == 0 {
                    snapshots.push((tree.clone(), model.clone()));
                }
            }
            check(&tree, &model);
            for (tree, model) in &snapshots {
                check(tree, model);
            }
            for probe in 0..3_000 {
                let text = format!("{probe:05}");
                let compare = |held: &Stored| (*held.key).cmp(text.as_str());
                assert_eq!(tree.get(compare).map(|held| held.revision), model.get(&text).copied());
                assert_eq!(tree.rank(compare), model.range(..text.clone()).count());
                let next = tree.iter_from(compare).next().map(|slot| slot.stored.key.to_string());
                assert_eq!(next, model.range(text.clone()..).next().map(|(key, _)| key.clone()));
            }
        }
    }

    #[test]
    fn filling_in_order_leaves_full_leaves() {
        let mut tree = Tree::new(ByKey);
        for key in 0..10_000 {
            tree.insert(stored(key, 1));
        }
        let mut leaves = 0;
        let mut nodes = vec![&*tree.root];
        while let Some(node) = nodes.pop() {
            match node {
                Node::Leaf(_) => leaves += 1,
                Node::Inner(children) => nodes.extend(children.iter().map(|child| &*child.node)),
            }
        }
        assert!(leaves <= 10_000 / WIDTH + 1, "{leaves}");
    }
}
