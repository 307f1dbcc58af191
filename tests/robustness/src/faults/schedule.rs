//! Which fault comes next.

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::time::Duration;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// kill -9 of an API server, and its restart.
    KillServer,
    /// SIGSTOP of an API server for a while.
    PauseServer,
    /// kill -9 of a member of etcd, and its restart.
    KillMember,
    /// SIGSTOP of etcd's leader for a while.
    PauseLeader,
    /// An API server reaches no member of etcd but one that was stopped for a while and is behind.
    LaggingMember,
    /// All members of etcd are killed, and restarted after a while.
    EtcdDown,
    /// Connections between clients and an API server pass nothing for a while, and are then cut.
    FreezeClients,
    /// An API server's connections to etcd are cut, and refused for a while.
    Partition,
    /// An API server's connections to etcd pass nothing for a while.
    FreezeEtcd,
    /// They pass everything late for a while.
    DelayEtcd,
    /// The watches of an API server pass nothing for a while, all else passes.
    FreezeWatches,
    /// Another member becomes leader.
    MoveLeader,
    /// etcd forgets everything but the present state.
    Compact,
    /// A member of etcd rewrites its database.
    Defragment,
    /// Connections between clients and an API server are cut.
    CutClients,
    /// An API server's connections to etcd are cut when etcd has done what it was asked and has not answered.
    LoseAnswers,
}

/// Those that take a while and come one after the other.
const LASTING: [Fault; 11] = [
    Fault::KillServer,
    Fault::PauseServer,
    Fault::KillMember,
    Fault::PauseLeader,
    Fault::LaggingMember,
    Fault::EtcdDown,
    Fault::FreezeClients,
    Fault::Partition,
    Fault::FreezeEtcd,
    Fault::DelayEtcd,
    Fault::FreezeWatches,
];

/// Those that are done at once and come at any time, also during others.
const SUDDEN: [Fault; 5] =
    [Fault::MoveLeader, Fault::Compact, Fault::Defragment, Fault::CutClients, Fault::LoseAnswers];

/// An endless sequence in which each kind comes once before any comes again.
#[derive(Debug)]
pub struct Schedule {
    kinds: Vec<Fault>,
    random: StdRng,
    left: Vec<Fault>,
    pauses: (u64, u64),
}

/// A fault with what chance has to say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    pub fault: Fault,
    /// How long all is well before it.
    pub pause: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// Which of those that it may concern: take it modulo their number.
    pub choice: usize,
}

impl Schedule {
    /// The faults that last. `pace`: how many milliseconds each pause and each fault may take.
    pub fn lasting(seed: u64, pace: (u64, u64)) -> Schedule {
        Schedule::new(&LASTING, seed, pace)
    }

    /// The faults that are done at once.
    pub fn sudden(seed: u64, pace: (u64, u64)) -> Schedule {
        Schedule::new(&SUDDEN, seed.wrapping_add(1), pace)
    }

    fn new(kinds: &[Fault], seed: u64, pauses: (u64, u64)) -> Schedule {
        Schedule { kinds: kinds.to_vec(), random: StdRng::seed_from_u64(seed), left: Vec::new(), pauses }
    }

    /// Leaves out all but the kinds of these names; no name: none.
    #[must_use]
    pub fn only(mut self, names: &[String]) -> Schedule {
        self.kinds.retain(|kind| names.is_empty() || names.contains(&format!("{kind:?}")));
        self
    }

    /// The kinds that it draws from.
    pub fn kinds(&self) -> &[Fault] {
        &self.kinds
    }
}

impl Iterator for Schedule {
    type Item = Drawn;

    fn next(&mut self) -> Option<Drawn> {
        if self.left.is_empty() {
            self.left = self.kinds.clone();
            self.left.shuffle(&mut self.random);
        }
        let (least, most) = self.pauses;
        let mut time = || Duration::from_millis(self.random.random_range(least..=most));
        Some(Drawn {
            fault: self.left.pop()?,
            pause: time(),
            lasts: time(),
            choice: self.random.random_range(0..1_000_000),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_seed_gives_one_sequence_with_every_kind() {
        let draw = |seed| Schedule::lasting(seed, (100, 200)).take(25).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        for round in draw(7).chunks_exact(LASTING.len()) {
            let kinds: HashSet<Fault> = round.iter().map(|drawn| drawn.fault).collect();
            assert_eq!(kinds.len(), LASTING.len());
        }
        let one = Schedule::lasting(7, (0, 0)).only(&["Partition".to_owned()]);
        assert!(one.take(3).all(|drawn| drawn.fault == Fault::Partition));
        assert!(draw(7).iter().all(|drawn| (100..=200).contains(&drawn.lasts.as_millis())));
    }
}
