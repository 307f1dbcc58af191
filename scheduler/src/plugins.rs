//! The list of plugins and the default profile.
//!
//! Upstream: `pkg/scheduler/framework/plugins/registry.go` and the default plugins of KubeSchedulerConfiguration
//! v1 with their weights. Not here yet: InterPodAffinity, PodTopologySpread, the volume plugins,
//! DynamicResources and DefaultPreemption; `UnsupportedConstraints` keeps pods that depend on them waiting.

pub mod default_binder;
pub mod image_locality;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced_allocation;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod scheduling_gates;
pub mod taint_toleration;
pub mod unsupported_constraints;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::framework::{Filter, Framework, Plugin, PreEnqueue, PreFilter, Score};

/// Every plugin that a profile may name.
pub const NAMES: &[&str] = &[
    scheduling_gates::NAME,
    "PrioritySort",
    unsupported_constraints::NAME,
    node_unschedulable::NAME,
    node_name::NAME,
    taint_toleration::NAME,
    node_affinity::NAME,
    node_ports::NAME,
    node_resources_fit::NAME,
    node_resources_balanced_allocation::NAME,
    image_locality::NAME,
    default_binder::NAME,
];

/// Plugins that decide what would otherwise be decided wrongly; a profile can't do without them.
pub const REQUIRED: &[&str] = &["PrioritySort", unsupported_constraints::NAME];

struct Builder<'a> {
    framework: Framework,
    disabled: &'a BTreeSet<String>,
}

impl Builder<'_> {
    fn wants(&self, name: &str) -> bool {
        !self.disabled.contains(name)
    }

    fn add<P: Plugin + 'static>(&mut self, plugin: P, place: impl FnOnce(&mut Framework, Arc<P>)) {
        if self.wants(plugin.name()) {
            let plugin = Arc::new(plugin);
            self.framework.register(Arc::clone(&plugin) as Arc<dyn Plugin>);
            place(&mut self.framework, plugin);
        }
    }
}

fn pre_enqueue<P: PreEnqueue + 'static>(framework: &mut Framework, plugin: Arc<P>) {
    framework.pre_enqueue.push(plugin);
}

fn pre_filter<P: PreFilter + 'static>(framework: &mut Framework, plugin: Arc<P>) {
    framework.pre_filter.push(plugin);
}

fn filter<P: Filter + 'static>(framework: &mut Framework, plugin: Arc<P>) {
    framework.filter.push(plugin);
}

fn filter_and_score<P: Filter + Score + 'static>(weight: i64) -> impl FnOnce(&mut Framework, Arc<P>) {
    move |framework, plugin| {
        framework.filter.push(Arc::clone(&plugin) as Arc<dyn Filter>);
        framework.score.push((plugin, weight));
    }
}

fn score<P: Score + 'static>(weight: i64) -> impl FnOnce(&mut Framework, Arc<P>) {
    move |framework, plugin| framework.score.push((plugin, weight))
}

/// The default profile without the plugins `disabled`, and without a binder.
pub fn default_profile(disabled: &BTreeSet<String>) -> Framework {
    let mut builder = Builder { framework: Framework::default(), disabled };
    // Cheap filters and those that reject most come first.
    builder.add(scheduling_gates::SchedulingGates, pre_enqueue);
    builder.add(unsupported_constraints::UnsupportedConstraints, pre_filter);
    builder.add(node_unschedulable::NodeUnschedulable, filter);
    builder.add(node_name::NodeName, filter);
    builder.add(taint_toleration::TaintToleration, filter_and_score(3));
    builder.add(node_affinity::NodeAffinity, |framework, plugin| {
        framework.pre_filter.push(Arc::clone(&plugin) as Arc<dyn PreFilter>);
        filter_and_score(2)(framework, plugin);
    });
    builder.add(node_ports::NodePorts, filter);
    builder.add(node_resources_fit::NodeResourcesFit, filter_and_score(1));
    builder.add(node_resources_balanced_allocation::NodeResourcesBalancedAllocation, score(1));
    builder.add(image_locality::ImageLocality, score(1));
    builder.framework
}

/// The default profile, for unit tests.
#[cfg(test)]
pub(crate) fn for_tests() -> Framework {
    default_profile(&BTreeSet::new())
}

/// Objects for the plugins' unit tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::node_info::NodeInfo;
    use crate::pod_info::PodInfo;

    /// A pod with the given spec.
    pub(crate) fn pod(spec: Value) -> PodInfo {
        let mut value =
            json!({"metadata": {"namespace": "ns", "name": "p", "uid": "p"}, "spec": {"containers": []}});
        merge(&mut value["spec"], spec);
        PodInfo::new(Arc::new(serde_json::from_value(value).expect("a pod")))
    }

    /// A node called `n` with what the value says on top.
    pub(crate) fn node(extra: Value) -> NodeInfo {
        let mut value = json!({
            "metadata": {"name": "n"},
            "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}
        });
        merge(&mut value, extra);
        let mut info = NodeInfo::default();
        info.set_node(Arc::new(serde_json::from_value(value).expect("a node")));
        info
    }

    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }
}
