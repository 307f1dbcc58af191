//! The API machinery that every daemon shares: object keys, label and field selectors, quantities, patches,
//! validation, API errors, and the pure rules over pods and nodes that more than one daemon needs.
//!
//! Nothing here does IO, reads a clock or draws a random number except [`meta::generate_name`]; times and
//! state are passed in. The upstream counterparts are `k8s.io/apimachinery` and `k8s.io/component-helpers`.

pub mod backoff;
pub mod fields;
pub mod hash;
pub mod intstr;
pub mod labels;
pub mod meta;
pub mod node;
pub mod node_affinity;
pub mod owner;
pub mod patch;
pub mod pod;
pub mod quantity;
pub mod resources;
pub mod status;
pub mod taints;
pub mod validation;
