//! DefaultIngressClass: an Ingress without a class gets the default one, the newest if several are marked.
//!
//! Upstream: `plugin/pkg/admission/network/defaultingressclass`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::{Attributes, Operation, Plugin};
use crate::lookup::{self, Lookup};
use crate::registry::ResourceInfo;

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

/// The plugin.
#[derive(Debug)]
pub struct DefaultIngressClass {
    lookup: Arc<dyn Lookup>,
}

impl DefaultIngressClass {
    /// Reads ingress classes from `lookup`.
    pub fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup }
    }
}

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, operation: Operation, resource: &ResourceInfo, subresource: &str) -> bool {
        operation == Operation::Create
            && resource.group == "networking.k8s.io"
            && resource.plural == "ingresses"
            && subresource.is_empty()
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let Some(ingress) = attributes.new_mut::<Ingress>() else { return Ok(()) };
            let has_class = ingress.spec.as_ref().is_some_and(|spec| spec.ingress_class_name.is_some())
                || ingress.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(OLD_CLASS));
            if has_class {
                return Ok(());
            }
            let marked = |class: &Arc<IngressClass>| {
                class
                    .metadata
                    .annotations
                    .as_ref()
                    .and_then(|a| a.get(DEFAULT))
                    .is_some_and(|value| value == "true")
            };
            let mut classes = lookup::list::<IngressClass>(&self.lookup, "").await?;
            classes.retain(marked);
            classes.sort_by(|a, b| {
                let created =
                    |class: &IngressClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
                created(b).cmp(&created(a)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
            });
            if let Some(class) = classes.first() {
                ingress.spec.get_or_insert_default().ingress_class_name.clone_from(&class.metadata.name);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::super::tests::Request;
    use super::*;
    use crate::lookup::fake::Objects;

    #[tokio::test]
    async fn the_marked_class_fills_in() {
        let objects = Objects::default();
        objects.add(IngressClass {
            metadata: ObjectMeta {
                name: Some("front".into()),
                annotations: Some(BTreeMap::from([(DEFAULT.to_owned(), "true".to_owned())])),
                ..ObjectMeta::default()
            },
            ..IngressClass::default()
        });
        let plugin = DefaultIngressClass::new(Arc::new(objects));
        let mut ingress = Ingress::default();
        Request::new(Operation::Create, &mut ingress).admit(&plugin).await.unwrap();
        assert_eq!(ingress.spec.unwrap().ingress_class_name.as_deref(), Some("front"));
    }
}
