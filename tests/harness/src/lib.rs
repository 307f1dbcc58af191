//! Starts real programs for tests and benchmarks, and talks to a real cluster: etcd, kube-apiserver, kubectl.
//!
//! Everything started here listens on loopback, keeps its data in a directory of its own, and ends with its value.
//! When a test panics, data and logs stay, and their place is printed.

pub mod apiserver;
pub mod cluster;
pub mod condition;
pub mod etcd;
pub mod process;
pub mod proxy;
pub mod suite;
