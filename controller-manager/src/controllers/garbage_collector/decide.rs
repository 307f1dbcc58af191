//! What becomes of an object, once it and its owners have been looked up live. Pure. Upstream: `attemptToDeleteItem` and
//! `classifyReferences`.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::graph::{FOREGROUND, ORPHAN};

/// An owner as the server shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It is there.
    Solid,
    /// There is no object of that uid at that place.
    Absent,
    /// It is being deleted and waits for its dependents.
    WaitingForDependents,
}

/// How the API server shall treat the dependents of what is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It stays as it is.
    Keep,
    /// It stays, without the references to these owners.
    RemoveOwners(BTreeSet<String>),
    /// It is deleted. `unblock`: first let its owners not wait for it any more, since they wait for each other.
    Delete { propagation: Propagation, unblock: bool },
}

/// The owner's state, given what was found where the reference points.
pub fn owner(reference: &OwnerReference, found: Option<&ObjectMeta>) -> Owner {
    match found {
        Some(found) if found.uid.as_deref() == Some(reference.uid.as_str()) => {
            if found.deletion_timestamp.is_some() && has_finalizer(found, FOREGROUND) {
                Owner::WaitingForDependents
            } else {
                Owner::Solid
            }
        }
        _ => Owner::Absent,
    }
}

/// Decides by the state of each owner. `dependents_deleting` tells for each dependent of the object whether it waits for
/// its own dependents.
pub fn decide(live: &ObjectMeta, owners: &[(String, Owner)], dependents_deleting: &[bool]) -> Decision {
    if owners.is_empty() {
        return Decision::Keep;
    }
    let of =
        |state: Owner| owners.iter().filter(move |(_, owner)| *owner == state).map(|(uid, _)| uid.clone());
    let waiting = of(Owner::WaitingForDependents).next().is_some();
    if of(Owner::Solid).next().is_some() {
        let others: BTreeSet<String> = of(Owner::Absent).chain(of(Owner::WaitingForDependents)).collect();
        return if others.is_empty() { Decision::Keep } else { Decision::RemoveOwners(others) };
    }
    if waiting && !dependents_deleting.is_empty() {
        let unblock = dependents_deleting.contains(&true);
        return Decision::Delete { propagation: Propagation::Foreground, unblock };
    }
    let propagation = if has_finalizer(live, ORPHAN) {
        Propagation::Orphan
    } else if has_finalizer(live, FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    Decision::Delete { propagation, unblock: false }
}

fn has_finalizer(metadata: &ObjectMeta, name: &str) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::time;

    fn decided(owners: &[Owner], dependents: &[bool], finalizers: &[&str]) -> Decision {
        let live = ObjectMeta {
            finalizers: Some(finalizers.iter().map(|finalizer| (*finalizer).to_owned()).collect()),
            ..ObjectMeta::default()
        };
        let owners: Vec<_> = owners.iter().enumerate().map(|(i, owner)| (i.to_string(), *owner)).collect();
        decide(&live, &owners, dependents)
    }

    #[test]
    fn decisions() {
        use Owner::{Absent, Solid, WaitingForDependents as Waiting};
        let delete = |propagation| Decision::Delete { propagation, unblock: false };
        let remove =
            |uids: &[&str]| Decision::RemoveOwners(uids.iter().map(|uid| (*uid).to_owned()).collect());
        assert_eq!(decided(&[], &[], &[]), Decision::Keep);
        assert_eq!(decided(&[Solid], &[], &[]), Decision::Keep);
        assert_eq!(decided(&[Solid, Absent, Waiting], &[], &[]), remove(&["1", "2"]));
        assert_eq!(decided(&[Absent], &[], &[]), delete(Propagation::Background));
        assert_eq!(decided(&[Absent], &[], &[ORPHAN]), delete(Propagation::Orphan));
        assert_eq!(decided(&[Absent], &[false], &[FOREGROUND]), delete(Propagation::Foreground));
        assert_eq!(decided(&[Waiting], &[], &[]), delete(Propagation::Background));
        assert_eq!(decided(&[Waiting], &[false], &[]), delete(Propagation::Foreground));
        let circle = Decision::Delete { propagation: Propagation::Foreground, unblock: true };
        assert_eq!(decided(&[Waiting], &[false, true], &[]), circle);
    }

    #[test]
    fn an_owner_is_known_by_its_uid() {
        let reference = OwnerReference { uid: "1".into(), ..OwnerReference::default() };
        let mut found = ObjectMeta { uid: Some("1".into()), ..ObjectMeta::default() };
        assert_eq!(owner(&reference, None), Owner::Absent);
        assert_eq!(owner(&reference, Some(&found)), Owner::Solid);
        found.deletion_timestamp = Some(time(1));
        assert_eq!(
            owner(&reference, Some(&found)),
            Owner::Solid,
            "deleted in the background, its dependents follow later"
        );
        found.finalizers = Some(vec![FOREGROUND.into()]);
        assert_eq!(owner(&reference, Some(&found)), Owner::WaitingForDependents);
        found.uid = Some("2".into());
        assert_eq!(owner(&reference, Some(&found)), Owner::Absent, "another object of the same name");
    }
}
