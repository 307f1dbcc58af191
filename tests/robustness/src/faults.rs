//! What is broken during a run: which and when is drawn from a seed, and every fault heals itself.

mod etcd_control;
mod inject;
mod schedule;
mod watch_gate;

pub use inject::{Faults, inject};
pub use schedule::{Fault, Schedule};
pub use watch_gate::WatchGate;
