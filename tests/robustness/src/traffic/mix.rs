//! What a client does next, by chance.

use super::objects::{keys, scopes};
use crate::history::{Key, Resource, Scope};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// A request, before it is known what the client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Get(Key, Fresh),
    List(Scope, Fresh),
    Pages(Scope),
    /// Creates the object, or replaces it if the client has read it.
    Put(Key),
    Patch(Key),
    Delete(Key),
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    Consistent,
    Any,
    /// As new as the newest that any client was shown.
    NotOlder,
    Exact,
}

/// Draws a step.
pub(super) fn step(random: &mut StdRng) -> Step {
    let key = keys().choose(random).cloned().expect("there are objects");
    match random.random_range(0..100) {
        0..14 => Step::Get(key, Fresh::Consistent),
        14..20 => Step::Get(key, Fresh::Any),
        20..24 => Step::Get(key, Fresh::NotOlder),
        24..30 => Step::List(scope(random), Fresh::Consistent),
        30..34 => Step::List(scope(random), Fresh::Any),
        34..36 => Step::List(scope(random), Fresh::NotOlder),
        36..38 => Step::List(scope(random), Fresh::Exact),
        38..42 => Step::Pages(scope(random)),
        42..70 => Step::Put(key),
        70..90 => Step::Patch(key),
        _ => Step::Delete(key),
    }
}

fn scope(random: &mut StdRng) -> Scope {
    let resource = *Resource::ALL.choose(random).expect("there are resources");
    scopes(resource).choose(random).cloned().expect("there are scopes")
}
