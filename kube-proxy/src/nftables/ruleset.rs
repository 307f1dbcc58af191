//! A rule set as a value, and the nft script that leads from one to another.
//!
//! A [`Piece`] is what one Service needs: chains and sets of its own, and elements of the shared maps and sets.
//! A [`Table`] holds the pieces of all Services in one family. Replacing a piece costs what changed, whatever
//! the size of the cluster. Two Services may claim one element (a pod behind both, one external IP): the
//! Service that came first keeps it, and the next one takes it over when the first lets go.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use apimachinery::meta::ObjectKey;

use super::TABLE;
use crate::service_map::Family;

/// The part of the rule set that one Service owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Rules by chain name.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Declarations by set name, such as `{ type ipv4_addr ; flags dynamic,timeout ; }`.
    pub sets: BTreeMap<String, String>,
    /// Elements of shared maps and sets: (map or set, key) to value, empty for a set.
    pub elements: BTreeMap<ElementKey, String>,
}

/// A shared map or set, and a key in it.
pub type ElementKey = (&'static str, String);

impl Piece {
    /// True when the Service needs nothing.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty() && self.elements.is_empty()
    }
}

/// All pieces of one family, as the kernel has them once the transactions made here are applied.
#[derive(Debug, Default)]
pub struct Table {
    pieces: BTreeMap<ObjectKey, Piece>,
    /// Who claims an element; the first claim is in the kernel. Elements claimed once, nearly all, have no
    /// entry here.
    contested: HashMap<ElementKey, Vec<ObjectKey>>,
    claims: HashMap<ElementKey, ObjectKey>,
}

impl Table {
    /// Replaces the piece of `owner`, adding the steps to `transaction`.
    pub fn replace(&mut self, family: Family, owner: &ObjectKey, new: Piece, transaction: &mut Transaction) {
        let old = self.pieces.remove(owner).unwrap_or_default();
        if old == new {
            if !new.is_empty() {
                self.pieces.insert(owner.clone(), new);
            }
            return;
        }
        transaction.difference(family, &old, &new);
        for (key, value) in &old.elements {
            if new.elements.get(key) != Some(value) && self.release(key, owner) {
                transaction.remove_element(family, key);
                if let Some((heir, value)) = self.heir(key) {
                    transaction.add_element(family, key, &value);
                    self.claims.insert(key.clone(), heir);
                }
            }
        }
        for (key, value) in &new.elements {
            if old.elements.get(key) != Some(value) && self.claim(key, owner) {
                transaction.add_element(family, key, value);
            }
        }
        if !new.is_empty() {
            self.pieces.insert(owner.clone(), new);
        }
    }

    /// The Services that have a piece.
    pub fn owners(&self) -> Vec<ObjectKey> {
        self.pieces.keys().cloned().collect()
    }

    /// Gives up a claim; true when it was the one in the kernel.
    fn release(&mut self, key: &ElementKey, owner: &ObjectKey) -> bool {
        if self.claims.get(key) == Some(owner) {
            self.claims.remove(key);
            return true;
        }
        if let Some(waiting) = self.contested.get_mut(key) {
            waiting.retain(|o| o != owner);
            if waiting.is_empty() {
                self.contested.remove(key);
            }
        }
        false
    }

    /// The Service that takes over an element, and its value for it.
    fn heir(&mut self, key: &ElementKey) -> Option<(ObjectKey, String)> {
        let waiting = self.contested.get_mut(key)?;
        let heir = waiting.remove(0);
        if waiting.is_empty() {
            self.contested.remove(key);
        }
        let value = self.pieces.get(&heir)?.elements.get(key)?.clone();
        Some((heir, value))
    }

    /// Claims an element; true when it is free.
    fn claim(&mut self, key: &ElementKey, owner: &ObjectKey) -> bool {
        if self.claims.contains_key(key) {
            self.contested.entry(key.clone()).or_default().push(owner.clone());
            return false;
        }
        self.claims.insert(key.clone(), owner.clone());
        true
    }
}

/// An nft script, kept in parts so that it comes out in an order that nft takes: chains exist before anything
/// goes to them, and nothing goes to a chain when it is deleted.
#[derive(Debug, Default)]
pub struct Transaction {
    declare: String,
    rules: String,
    remove_elements: String,
    add_elements: String,
    remove_rules: String,
    remove_chains: String,
}

impl Transaction {
    fn remove_element(&mut self, family: Family, (map, key): &ElementKey) {
        let ip = family.nft();
        push(&mut self.remove_elements, format_args!("delete element {ip} {TABLE} {map} {{ {key} }}"));
    }

    fn add_element(&mut self, family: Family, (map, key): &ElementKey, value: &str) {
        let ip = family.nft();
        let colon = if value.is_empty() { "" } else { " : " };
        push(
            &mut self.add_elements,
            format_args!("add element {ip} {TABLE} {map} {{ {key}{colon}{value} }}"),
        );
    }

    /// Adds the steps for chains and sets from `old` to `new`.
    fn difference(&mut self, family: Family, old: &Piece, new: &Piece) {
        let t = format!("{} {TABLE}", family.nft());
        for (name, declaration) in &new.sets {
            if old.sets.get(name) != Some(declaration) {
                push(&mut self.declare, format_args!("add set {t} {name} {declaration}"));
            }
        }
        for (chain, rules) in &new.chains {
            let before = old.chains.get(chain);
            if before == Some(rules) {
                continue;
            }
            push(&mut self.declare, format_args!("add chain {t} {chain}"));
            if before.is_some() {
                push(&mut self.rules, format_args!("flush chain {t} {chain}"));
            }
            for rule in rules {
                push(&mut self.rules, format_args!("add rule {t} {chain} {rule}"));
            }
        }
        for chain in old.chains.keys().filter(|c| !new.chains.contains_key(*c)) {
            // Flush all before deleting any: chains of one piece jump to each other.
            push(&mut self.remove_rules, format_args!("flush chain {t} {chain}"));
            push(&mut self.remove_chains, format_args!("delete chain {t} {chain}"));
        }
        for set in old.sets.keys().filter(|s| !new.sets.contains_key(*s)) {
            push(&mut self.remove_chains, format_args!("delete set {t} {set}"));
        }
    }

    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        [
            &self.declare,
            &self.rules,
            &self.remove_elements,
            &self.add_elements,
            &self.remove_rules,
            &self.remove_chains,
        ]
        .into_iter()
        .all(String::is_empty)
    }

    /// The script for `nft -f`, which the kernel takes whole or not at all.
    pub fn script(&self) -> String {
        [
            self.declare.as_str(),
            &self.rules,
            &self.remove_elements,
            &self.add_elements,
            &self.remove_rules,
            &self.remove_chains,
        ]
        .concat()
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(chains: &[(&str, &[&str])], elements: &[(&'static str, &str, &str)]) -> Piece {
        Piece {
            chains: chains
                .iter()
                .map(|(c, rules)| ((*c).to_owned(), rules.iter().map(|r| (*r).to_owned()).collect()))
                .collect(),
            sets: BTreeMap::new(),
            elements: elements.iter().map(|(m, k, v)| ((*m, (*k).to_owned()), (*v).to_owned())).collect(),
        }
    }

    fn replace(table: &mut Table, owner: &str, piece: &Piece) -> Vec<String> {
        let mut transaction = Transaction::default();
        table.replace(Family::V4, &ObjectKey::new("ns", owner), piece.clone(), &mut transaction);
        transaction.script().lines().map(str::to_owned).collect()
    }

    #[test]
    fn difference_is_only_what_changed() {
        let old = piece(&[("a", &["r1"]), ("b", &["r2"])], &[("ips", "1", "goto a"), ("ips", "2", "goto b")]);
        let new = piece(
            &[("a", &["r1"]), ("c", &["r3"])],
            &[("ips", "1", "goto a"), ("ips", "2", "goto c"), ("set", "9", "")],
        );
        let mut table = Table::default();
        assert_eq!(replace(&mut table, "web", &old).len(), 6);
        assert_eq!(
            replace(&mut table, "web", &new),
            [
                "add chain ip kube-proxy c",
                "add rule ip kube-proxy c r3",
                "delete element ip kube-proxy ips { 2 }",
                "add element ip kube-proxy ips { 2 : goto c }",
                "add element ip kube-proxy set { 9 }",
                "flush chain ip kube-proxy b",
                "delete chain ip kube-proxy b",
            ]
        );
        assert!(replace(&mut table, "web", &new).is_empty());
        assert_eq!(table.owners(), [ObjectKey::new("ns", "web")]);
    }

    #[test]
    fn changed_rules_are_flushed_first() {
        let mut table = Table::default();
        replace(&mut table, "web", &piece(&[("a", &["r1"])], &[]));
        assert_eq!(
            replace(&mut table, "web", &piece(&[("a", &["r2"])], &[])),
            ["add chain ip kube-proxy a", "flush chain ip kube-proxy a", "add rule ip kube-proxy a r2"]
        );
    }

    #[test]
    fn an_element_claimed_twice_goes_over_to_the_second() {
        let mut table = Table::default();
        let (one, two) = (piece(&[], &[("ips", "1", "goto a")]), piece(&[], &[("ips", "1", "goto b")]));
        assert_eq!(replace(&mut table, "one", &one), ["add element ip kube-proxy ips { 1 : goto a }"]);
        assert!(replace(&mut table, "two", &two).is_empty());
        assert_eq!(
            replace(&mut table, "one", &Piece::default()),
            ["delete element ip kube-proxy ips { 1 }", "add element ip kube-proxy ips { 1 : goto b }"]
        );
        assert_eq!(replace(&mut table, "two", &Piece::default()), ["delete element ip kube-proxy ips { 1 }"]);
        assert!(table.claims.is_empty() && table.contested.is_empty() && table.pieces.is_empty());
    }

    #[test]
    fn a_loser_that_leaves_changes_nothing() {
        let mut table = Table::default();
        let one = piece(&[], &[("ips", "1", "goto a")]);
        replace(&mut table, "one", &one);
        replace(&mut table, "two", &one);
        assert!(replace(&mut table, "two", &Piece::default()).is_empty());
        assert!(table.contested.is_empty());
    }
}
