//! Checks what kube-apiserver promises about reads, writes and watches while things break: concurrent clients, random
//! faults, a recorded history, and a checker that compares the history with what etcd really holds.
//!
//! [`run`] does it all once; [`checker`] is pure and judges a history that was kept just as well. The truth is etcd's own
//! sequence of revisions, and because a resourceVersion is such a revision, linearizability needs no search: the order
//! of revisions must agree with real time, and every read must be explained by a state between its call and its answer.
//! What etcd's robustness tests (`etcd:tests/robustness`) do for etcd, through an API server.

pub mod checker;
pub mod faults;
pub mod history;
pub mod reduce;
pub mod report;
pub mod run;
pub mod setup;
pub mod traffic;
mod truth_watch;
