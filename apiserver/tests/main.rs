//! Component tests: the whole API server in this process, over a real etcd each.

mod bad_requests;
mod crud;
mod deletion;
mod discovery;
mod listing;
mod patches;
mod pods;
mod server;
mod tables;
mod watches;
