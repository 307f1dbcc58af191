//! Component tests of the kubelet: its runtime side over a real containerd.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod containerd;
mod pod_lifecycle;
mod server;
mod static_pods;
