//! DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or not reachable, unless it says otherwise.
//!
//! The flags that change the five minutes are not supported. Upstream: `plugin/pkg/admission/defaulttolerationseconds`.

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, Toleration};

use super::{Attributes, Operation, Plugin};
use crate::registry::ResourceInfo;

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The plugin.
#[derive(Debug, Clone, Copy)]
pub struct DefaultTolerationSeconds;

fn add(tolerations: &mut Vec<Toleration>) {
    for taint in TAINTS {
        let tolerated = tolerations.iter().any(|toleration| {
            let key = toleration.key.as_deref().unwrap_or_default();
            let effect = toleration.effect.as_deref().unwrap_or_default();
            (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            tolerations.push(Toleration {
                key: Some(taint.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(SECONDS),
                value: None,
            });
        }
    }
}

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: Operation, resource: &ResourceInfo, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && resource.group.is_empty()
            && resource.plural == "pods"
            && subresource.is_empty()
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        if let Some(pod) = attributes.new_mut::<Pod>() {
            add(pod.spec.get_or_insert_default().tolerations.get_or_insert_default());
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, effect: &str) -> Toleration {
        Toleration {
            key: Some(key.into()),
            effect: Some(effect.into()),
            operator: Some("Exists".into()),
            ..Toleration::default()
        }
    }

    #[test]
    fn only_what_is_missing_is_added() {
        for (own, total) in [
            (vec![], 2),
            (vec![toleration("", "")], 1),
            (vec![toleration("", "NoExecute")], 1),
            (vec![toleration("", "NoSchedule")], 3),
            (vec![toleration("node.kubernetes.io/not-ready", "NoExecute")], 2),
            (vec![toleration("node.kubernetes.io/not-ready", "NoSchedule")], 3),
            (vec![toleration(TAINTS[0], ""), toleration(TAINTS[1], "")], 2),
        ] {
            let mut tolerations = own.clone();
            add(&mut tolerations);
            assert_eq!(tolerations.len(), total, "{own:?}");
            add(&mut tolerations);
            assert_eq!(tolerations.len(), total, "again: {own:?}");
        }
    }
}
