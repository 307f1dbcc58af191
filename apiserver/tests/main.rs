//! Component tests: the whole API server in this process, over a real etcd each.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests themselves do")]

mod bad_requests;
mod crud;
mod deletion;
mod discovery;
mod listing;
mod openapi;
mod patches;
mod pods;
mod server;
mod simulation;
mod tables;
mod watch_service;
mod watches;
