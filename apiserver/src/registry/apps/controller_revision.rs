//! ControllerRevisions (upstream `registry/apps/controllerrevision`): snapshots of a workload's template.

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::registry::object_meta::{validate_immutable, validate_nonnegative};
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::table::{self, AGE, Cell, Column, NAME};

/// The strategy of controllerrevisions.
#[derive(Debug)]
pub struct ControllerRevisionStrategy;

impl Strategy for ControllerRevisionStrategy {
    type Object = ControllerRevision;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new(
            "apps",
            "v1",
            "ControllerRevision",
            "controllerrevisions",
            "controllerrevision",
            true,
        )
    }

    fn validate(&self, obj: &ControllerRevision) -> ErrorList {
        let mut errors = ErrorList::new();
        if obj.data.is_none() {
            errors.push(Error::required(&Path::new("data"), "data is mandatory"));
        }
        validate_nonnegative(Some(obj.revision), &Path::new("revision"), &mut errors);
        errors
    }

    fn validate_update(&self, new: &ControllerRevision, old: &ControllerRevision) -> ErrorList {
        let mut errors = self.validate(new);
        validate_immutable(&new.data, &old.data, &Path::new("data"), &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Controller", "Object that the revision belongs to."),
            Column::string("Revision", "Number of the revision."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, obj: &ControllerRevision, now: Timestamp) -> Vec<Cell> {
        let controller = apimachinery::owner::controller_of(&obj.metadata);
        let controller = controller.map(|owner| {
            let group = owner.api_version.split_once('/').map(|(group, _)| group).unwrap_or_default();
            let kind = owner.kind.to_lowercase();
            let dot = if group.is_empty() { "" } else { "." };
            format!("{kind}{dot}{group}/{}", owner.name)
        });
        vec![
            cells::name(&obj.metadata),
            cells::text(controller.as_deref()),
            Cell::from(obj.revision),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
