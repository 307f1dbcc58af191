//! Component tests of the kubelet: its runtime side over a real containerd.

mod containerd;
mod pod_lifecycle;
mod server;
