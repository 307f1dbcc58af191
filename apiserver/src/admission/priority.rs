//! Priority: a pod's priority class becomes its priority and preemption policy; at most one class is the default.
//!
//! Upstream: `plugin/pkg/admission/priority`.

use std::sync::Arc;

use apimachinery::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::scheduling::v1::PriorityClass;

use super::{Attributes, Operation, Plugin};
use crate::lookup::{self, Lookup};
use crate::registry::ResourceInfo;

const PREEMPT_LOWER_PRIORITY: &str = "PreemptLowerPriority";

/// The plugin.
#[derive(Debug)]
pub struct Priority {
    lookup: Arc<dyn Lookup>,
}

impl Priority {
    /// Reads priority classes from `lookup`.
    pub fn new(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup }
    }

    async fn default_class(&self) -> Result<Option<Arc<PriorityClass>>, ApiError> {
        let classes = lookup::list::<PriorityClass>(&self.lookup, "").await?;
        // Two defaults can only come from a race of two servers; the lowest one then counts.
        let defaults = classes.into_iter().filter(|class| class.global_default == Some(true));
        Ok(defaults.min_by_key(|class| class.value))
    }

    async fn admit_pod(&self, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(pod) = attributes.new_ref::<Pod>() else { return Ok(()) };
        let name = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.priority_class_name.clone())
            .filter(|name| !name.is_empty());
        let class = match &name {
            Some(name) => {
                let class = lookup::get::<PriorityClass>(&self.lookup, "", name).await?;
                let missing =
                    || attributes.forbidden(&format!("no PriorityClass with name {name} was found"));
                Some(class.ok_or_else(missing)?)
            }
            None => self.default_class().await?,
        };
        let resolved = resolve(class.as_deref());
        let result = match attributes.new_mut::<Pod>() {
            Some(pod) => set(pod.spec.get_or_insert_default(), resolved),
            None => Ok(()),
        };
        result.map_err(|problem| attributes.forbidden(&problem))
    }

    async fn validate_class(&self, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let Some(class) = attributes.new_ref::<PriorityClass>() else { return Ok(()) };
        if class.global_default != Some(true) {
            return Ok(());
        }
        match self.default_class().await? {
            Some(default) if default.metadata.name != class.metadata.name => {
                let name = default.metadata.name.as_deref().unwrap_or_default();
                let problem =
                    format!("PriorityClass {name} is already marked as default. Only one default can exist");
                Err(attributes.forbidden(&problem))
            }
            _ => Ok(()),
        }
    }
}

/// What a class means for a pod.
struct Resolved {
    class: Option<String>,
    priority: i32,
    policy: String,
}

fn resolve(class: Option<&PriorityClass>) -> Resolved {
    match class {
        Some(class) => Resolved {
            class: class.metadata.name.clone(),
            priority: class.value.unwrap_or_default(),
            policy: class.preemption_policy.clone().unwrap_or_else(|| PREEMPT_LOWER_PRIORITY.to_owned()),
        },
        None => Resolved { class: None, priority: 0, policy: PREEMPT_LOWER_PRIORITY.to_owned() },
    }
}

fn set(spec: &mut PodSpec, resolved: Resolved) -> Result<(), String> {
    let Resolved { class, priority, policy } = resolved;
    if let Some(given) = spec.priority.filter(|given| *given != priority) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed \
             {priority} from the given PriorityClass name"
        ));
    }
    if let Some(given) = spec.preemption_policy.as_ref().filter(|given| **given != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller \
             computed {policy} from the given PriorityClass name"
        ));
    }
    if let Some(class) = class {
        spec.priority_class_name = Some(class);
    }
    spec.priority = Some(priority);
    spec.preemption_policy = Some(policy);
    Ok(())
}

/// An update that leaves the computed fields out keeps them.
fn keep(new: &mut PodSpec, old: &PodSpec) {
    if new.priority.is_none() {
        new.priority = old.priority;
    }
    if new.preemption_policy.is_none() {
        new.preemption_policy.clone_from(&old.preemption_policy);
    }
}

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation, resource: &ResourceInfo, subresource: &str) -> bool {
        let kind = (resource.group, resource.plural);
        matches!(operation, Operation::Create | Operation::Update)
            && subresource.is_empty()
            && (kind == ("", "pods") || kind == ("scheduling.k8s.io", "priorityclasses"))
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            if attributes.operation == Operation::Create {
                return self.admit_pod(attributes).await;
            }
            let old = attributes.old::<Pod>().and_then(|pod| pod.spec.clone());
            if let (Some(old), Some(pod)) = (old, attributes.new_mut::<Pod>()) {
                keep(pod.spec.get_or_insert_default(), &old);
            }
            Ok(())
        })
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(self.validate_class(attributes))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::super::tests::Request;
    use super::*;
    use crate::lookup::fake::Objects;

    fn class(name: &str, value: i32, default: bool) -> PriorityClass {
        PriorityClass {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            value: Some(value),
            global_default: Some(default),
            ..PriorityClass::default()
        }
    }

    fn plugin(classes: &[PriorityClass]) -> Priority {
        let objects = Objects::default();
        classes.iter().for_each(|class| objects.add(class.clone()));
        Priority::new(Arc::new(objects))
    }

    fn pod(class: Option<&str>, priority: Option<i32>) -> Pod {
        let priority_class_name = class.map(str::to_owned);
        Pod { spec: Some(PodSpec { priority_class_name, priority, ..PodSpec::default() }), ..Pod::default() }
    }

    #[tokio::test]
    async fn classes_become_numbers() {
        let system = class("system-node-critical", 2_000_001_000, false);
        let default = class("usual", 7, true);
        for (classes, name, given, expected) in [
            (vec![], None, None, Ok(0)),
            (vec![], None, Some(0), Ok(0)),
            (vec![], None, Some(5), Err(())),
            (vec![], Some("gone"), None, Err(())),
            (vec![system.clone()], Some("system-node-critical"), None, Ok(2_000_001_000)),
            (vec![system.clone()], Some("system-node-critical"), Some(2_000_001_000), Ok(2_000_001_000)),
            (vec![system.clone()], Some("system-node-critical"), Some(1), Err(())),
            (vec![system.clone(), default.clone()], None, None, Ok(7)),
        ] {
            let mut pod = pod(name, given);
            let result = Request::new(Operation::Create, &mut pod).admit(&plugin(&classes)).await;
            let spec = pod.spec.unwrap();
            assert_eq!(
                result.map(|()| spec.priority.unwrap()).map_err(|_| ()),
                expected,
                "{name:?} {given:?}"
            );
            if expected.is_ok() {
                assert_eq!(spec.preemption_policy.as_deref(), Some(PREEMPT_LOWER_PRIORITY));
            }
        }
    }

    #[tokio::test]
    async fn an_update_keeps_what_was_computed() {
        let mut old = pod(None, Some(7));
        old.spec.as_mut().unwrap().preemption_policy = Some("Never".into());
        let mut new = pod(None, None);
        Request::new(Operation::Update, &mut new).old(&old).admit(&plugin(&[])).await.unwrap();
        assert_eq!(new.spec, old.spec);
    }

    #[tokio::test]
    async fn one_default_class() {
        let plugin = plugin(&[class("usual", 7, true)]);
        for (name, default, good) in [("other", true, false), ("other", false, true), ("usual", true, true)] {
            let mut class = class(name, 1, default);
            let result = Request::new(Operation::Create, &mut class).validate(&plugin).await;
            assert_eq!(result.is_ok(), good, "{name} {default}");
        }
    }
}
