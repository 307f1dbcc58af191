//! Amounts of resources as integers, the way the filters compare them.
//!
//! Upstream: `pkg/scheduler/framework.Resource`. CPU is in thousandths, everything else in whole units.

use std::collections::BTreeMap;

use apimachinery::resources::ResourceList;

/// CPU that a container without a request is thought to use, in thousandths: spreads best-effort pods.
const DEFAULT_MILLI_CPU: i64 = 100;
/// Memory that a container without a request is thought to use, in bytes.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// CPU in thousandths.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Local storage in bytes.
    pub ephemeral_storage: i64,
    /// Pods that the node takes; 0 in requests.
    pub pods: i64,
    /// Extended resources and huge pages.
    pub scalar: BTreeMap<String, i64>,
}

impl Resource {
    /// From a list of quantities.
    pub fn from_list(list: &ResourceList) -> Self {
        let mut resource = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                "cpu" => resource.milli_cpu = quantity.milli_value(),
                "memory" => resource.memory = quantity.value(),
                "ephemeral-storage" => resource.ephemeral_storage = quantity.value(),
                "pods" => resource.pods = quantity.value(),
                _ => {
                    resource.scalar.insert(name.clone(), quantity.value());
                }
            }
        }
        resource
    }

    /// Adds `other`, or takes it away when `sign` is -1.
    pub fn add(&mut self, other: &Self, sign: i64) {
        self.milli_cpu += sign * other.milli_cpu;
        self.memory += sign * other.memory;
        self.ephemeral_storage += sign * other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() += sign * amount;
        }
    }

    /// With the amounts that scoring assumes where nothing is requested, for `containers` containers.
    #[must_use]
    pub fn or_defaults(&self, containers: usize) -> Self {
        let count = i64::try_from(containers.max(1)).unwrap_or(1);
        let mut resource = self.clone();
        if resource.milli_cpu == 0 {
            resource.milli_cpu = DEFAULT_MILLI_CPU * count;
        }
        if resource.memory == 0 {
            resource.memory = DEFAULT_MEMORY * count;
        }
        resource
    }
}
