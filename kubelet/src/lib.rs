//! The kubelet: runs a node's pods over CRI and reports on them.
//!
//! A set of small owners, wired together here and nowhere else: pod sources, pod manager, pod workers, PLEG, prober,
//! status manager, volume manager, node registration/status/lease, and the server on 10250.

pub mod events;
pub mod runtime;
pub mod volumes;
