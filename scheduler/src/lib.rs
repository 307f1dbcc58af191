//! Library of the daemon; see `main.rs`.
