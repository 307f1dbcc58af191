//! The system's priority classes. Upstream: `pkg/apis/scheduling/v1/helpers.go`.

use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The lowest of the values that are the system's.
const SYSTEM: i32 = 2_000_000_000;

/// `system-node-critical` and `system-cluster-critical`.
pub fn system() -> [PriorityClass; 2] {
    [
        class(
            "system-node-critical",
            SYSTEM + 1000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            SYSTEM,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

fn class(name: &str, value: i32, description: &str) -> PriorityClass {
    PriorityClass {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        value: Some(value),
        description: Some(description.to_owned()),
        ..PriorityClass::default()
    }
}
