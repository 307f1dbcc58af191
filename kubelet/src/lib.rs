//! The kubelet: runs a node's pods over CRI and reports on them.
//!
//! A set of small owners, wired together here and nowhere else: pod sources, pod manager, pod workers, PLEG, prober,
//! status manager, volume manager, node registration/status/lease, and the server on 10250.

pub mod admission;
pub mod api_error;
pub mod cgroups;
pub mod compute_actions;
pub mod config;
pub mod container_env;
pub mod crash_loop_backoff;
pub mod cri;
pub mod events;
pub mod garbage_collection;
pub mod images;
pub mod kubelet;
pub mod logs;
pub mod mirror_pods;
pub mod node;
pub mod pleg;
pub mod pod;
pub mod pod_manager;
pub mod pod_sources;
pub mod pod_status;
pub mod pod_workers;
pub mod prober;
pub mod runtime;
pub mod runtime_state;
pub mod server;
pub mod status_manager;
pub mod sync_loop;
pub mod sync_pod;
pub mod volumes;
pub mod worker_tasks;
