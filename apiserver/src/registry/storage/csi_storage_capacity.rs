//! CSIStorageCapacities (upstream `registry/storage/csistoragecapacity`).

use apimachinery::validation::names::is_dns1123_subdomain;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;

use super::GROUP;
use crate::registry::core::pod::defaults::canonicalise_quantity;
use crate::registry::core::pod::validation::resources::validate_quantity;
use crate::registry::object_meta::validate_immutable;
use crate::registry::pod_template::validate_label_selector;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::table::{Cell, Column, NAME};

/// The strategy of csistoragecapacities.
#[derive(Debug)]
pub struct CsiStorageCapacityStrategy;

impl Strategy for CsiStorageCapacityStrategy {
    type Object = CSIStorageCapacity;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new(
            GROUP,
            "v1",
            "CSIStorageCapacity",
            "csistoragecapacities",
            "csistoragecapacity",
            true,
        )
    }

    fn default(&self, obj: &mut CSIStorageCapacity) {
        for quantity in [&mut obj.capacity, &mut obj.maximum_volume_size].into_iter().flatten() {
            canonicalise_quantity(quantity);
        }
    }

    fn validate(&self, obj: &CSIStorageCapacity) -> ErrorList {
        let mut errors = ErrorList::new();
        for problem in is_dns1123_subdomain(&obj.storage_class_name) {
            errors.push(Error::invalid(&Path::new("storageClassName"), &obj.storage_class_name, problem));
        }
        if let Some(selector) = &obj.node_topology {
            validate_label_selector(selector, &Path::new("nodeTopology"), &mut errors);
        }
        for (field, quantity) in
            [("capacity", &obj.capacity), ("maximumVolumeSize", &obj.maximum_volume_size)]
        {
            if let Some(quantity) = quantity {
                validate_quantity("storage", quantity, &Path::new(field), &mut errors);
            }
        }
        errors
    }

    fn validate_update(&self, new: &CSIStorageCapacity, old: &CSIStorageCapacity) -> ErrorList {
        let mut errors = self.validate(new);
        let path = Path::new("storageClassName");
        validate_immutable(&new.storage_class_name, &old.storage_class_name, &path, &mut errors);
        let path = Path::new("nodeTopology");
        validate_immutable(&new.node_topology, &old.node_topology, &path, &mut errors);
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("StorageClassName", "Class that the capacity is for."),
            Column::string("Capacity", "What is left."),
        ];
        COLUMNS
    }

    fn row(&self, obj: &CSIStorageCapacity, _now: Timestamp) -> Vec<Cell> {
        vec![
            cells::name(&obj.metadata),
            Cell::from(obj.storage_class_name.as_str()),
            Cell::from(obj.capacity.as_ref().map_or(cells::UNSET, |q| q.0.as_str())),
        ]
    }
}
