//! The autoscaling group: v2. The v1 view of autoscalers is not served.

pub mod horizontal_pod_autoscaler;
mod metrics;
