//! The HTTP verbs of the API: one file each, over the generic store.
//!
//! Upstream: `apiserver/pkg/endpoints`.

pub mod exchange;
pub mod special;
