//! What every daemon needs around its own work: flags, logging, metrics, health, client, informers.
//!
//! The counterpart of upstream's component-base and client-go. Nothing here knows a particular daemon; a daemon's
//! `main` is one call of [`cli::main`], and everything it learns about the cluster comes from an
//! [`informer::Informer`].

pub mod cli;
pub mod client;
pub mod duration;
pub mod error_chain;
pub mod events;
pub mod informer;
pub mod leader_election;
pub mod metrics;
pub mod serving;
pub mod tls;
pub mod version;
pub mod workqueue;

/// Tells every part of a daemon to finish: cancelled once, by SIGTERM or SIGINT.
pub use tokio_util::sync::CancellationToken as Shutdown;
