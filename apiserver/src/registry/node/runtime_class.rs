//! RuntimeClasses (upstream `registry/node/runtimeclass`).

use apimachinery::validation::names::is_dns1123_label;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::node::v1::RuntimeClass;

use crate::registry::core::pod::defaults::canonicalise;
use crate::registry::core::pod::validation::resources::validate_list;
use crate::registry::object_meta::{validate_immutable, validate_labels};
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::table::{self, AGE, Cell, Column, NAME};

/// The strategy of runtimeclasses.
#[derive(Debug)]
pub struct RuntimeClassStrategy;

impl Strategy for RuntimeClassStrategy {
    type Object = RuntimeClass;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "runtimeclass", false)
    }

    fn default(&self, obj: &mut RuntimeClass) {
        canonicalise(obj.overhead.as_mut().and_then(|o| o.pod_fixed.as_mut()));
    }

    fn validate(&self, obj: &RuntimeClass) -> ErrorList {
        let mut errors = ErrorList::new();
        for problem in is_dns1123_label(&obj.handler) {
            errors.push(Error::invalid(&Path::new("handler"), &obj.handler, problem));
        }
        if let Some(fixed) = obj.overhead.as_ref().and_then(|o| o.pod_fixed.as_ref()) {
            validate_list(fixed, &Path::new("overhead").child("podFixed"), &mut errors);
        }
        let selector = obj.scheduling.as_ref().and_then(|s| s.node_selector.as_ref());
        validate_labels(selector, &Path::new("scheduling").child("nodeSelector"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &RuntimeClass, old: &RuntimeClass) -> ErrorList {
        let mut errors = self.validate(new);
        validate_immutable(&new.handler, &old.handler, &Path::new("handler"), &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::string("Handler", "The runtime's own name of it."), AGE];
        COLUMNS
    }

    fn row(&self, obj: &RuntimeClass, now: Timestamp) -> Vec<Cell> {
        vec![
            cells::name(&obj.metadata),
            Cell::from(obj.handler.as_str()),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
