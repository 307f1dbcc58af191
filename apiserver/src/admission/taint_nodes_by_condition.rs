//! TaintNodesByCondition: a new node is tainted not-ready, so that nothing is scheduled to it before it reports.
//!
//! Upstream: `plugin/pkg/admission/nodetaint`.

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Taint};

use super::{Attributes, Operation, Plugin};
use crate::registry::ResourceInfo;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The plugin.
#[derive(Debug, Clone, Copy)]
pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: Operation, resource: &ResourceInfo, subresource: &str) -> bool {
        operation == Operation::Create
            && resource.group.is_empty()
            && resource.plural == "nodes"
            && subresource.is_empty()
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        if let Some(node) = attributes.new_mut::<Node>() {
            let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
            if !taints.iter().any(|taint| taint.key == NOT_READY && taint.effect == "NoSchedule") {
                let effect = "NoSchedule".to_owned();
                taints.push(Taint { key: NOT_READY.to_owned(), effect, ..Taint::default() });
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Request;
    use super::*;

    #[tokio::test]
    async fn a_new_node_gets_the_taint_once() {
        let mut node = Node::default();
        for _ in 0..2 {
            Request::new(Operation::Create, &mut node).admit(&TaintNodesByCondition).await.unwrap();
            assert_eq!(node.spec.as_ref().unwrap().taints.as_ref().unwrap().len(), 1);
        }
    }
}
