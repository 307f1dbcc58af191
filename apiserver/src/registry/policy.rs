//! The policy group, v1.

pub mod pod_disruption_budget;
