//! Informers, queues, elections and events against a real kube-apiserver over a real etcd, with a proxy between that
//! cuts and freezes connections.
//!
//! The program under `KEELSON_KUBE_APISERVER` is used, or else the `kube-apiserver` that was built beside this test.

mod elections;
mod events;
mod informers;
mod server;
