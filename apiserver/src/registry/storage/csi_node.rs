//! CSINodes (upstream `registry/storage/csinode`).

use std::collections::BTreeSet;

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSINode;

use super::GROUP;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::table::{self, AGE, Cell, Column, NAME};

const NODE_ID_MAX: usize = 192;

/// The strategy of csinodes.
#[derive(Debug)]
pub struct CsiNodeStrategy;

impl Strategy for CsiNodeStrategy {
    type Object = CSINode;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new(GROUP, "v1", "CSINode", "csinodes", "csinode", false)
    }

    fn validate(&self, obj: &CSINode) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut names = BTreeSet::new();
        for (i, driver) in obj.spec.drivers.iter().enumerate() {
            let path = Path::new("spec").child("drivers").index(i);
            if driver.name.is_empty() {
                errors.push(Error::required(&path.child("name"), ""));
            }
            if !names.insert(&driver.name) {
                errors.push(Error::duplicate(&path.child("name"), &driver.name));
            }
            if driver.node_id.is_empty() {
                errors.push(Error::required(&path.child("nodeID"), ""));
            } else if driver.node_id.len() > NODE_ID_MAX {
                let detail = format!("must be {NODE_ID_MAX} characters or less");
                errors.push(Error::invalid(&path.child("nodeID"), &driver.node_id, detail));
            }
        }
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[NAME, Column::integer("Drivers", "CSI drivers on the node."), AGE];
        COLUMNS
    }

    fn row(&self, obj: &CSINode, now: Timestamp) -> Vec<Cell> {
        vec![
            cells::name(&obj.metadata),
            Cell::from(obj.spec.drivers.len()),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
