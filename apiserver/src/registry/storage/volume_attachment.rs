//! VolumeAttachments (upstream `registry/storage/volumeattachment`).

use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::{GROUP, boolean};
use crate::registry::object_meta::validate_immutable;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

/// The strategy of volumeattachments.
#[derive(Debug)]
pub struct VolumeAttachmentStrategy;

impl Strategy for VolumeAttachmentStrategy {
    type Object = VolumeAttachment;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            status: true,
            ..ResourceInfo::new(
                GROUP,
                "v1",
                "VolumeAttachment",
                "volumeattachments",
                "volumeattachment",
                false,
            )
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut VolumeAttachment) {
        obj.status = Some(Default::default());
    }

    fn validate(&self, obj: &VolumeAttachment) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec");
        if obj.spec.attacher.is_empty() {
            errors.push(Error::required(&path.child("attacher"), ""));
        }
        if obj.spec.node_name.is_empty() {
            errors.push(Error::required(&path.child("nodeName"), ""));
        }
        let source = path.child("source");
        match (&obj.spec.source.persistent_volume_name, &obj.spec.source.inline_volume_spec) {
            (None, None) => {
                let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                errors.push(Error::required(&source, detail));
            }
            (Some(_), Some(_)) => {
                let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                errors.push(Error::forbidden(&source, detail));
            }
            (Some(name), None) if name.is_empty() => {
                errors.push(Error::required(
                    &source.child("persistentVolumeName"),
                    "must specify non empty persistentVolumeName",
                ));
            }
            _ => {}
        }
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut VolumeAttachment, old: &VolumeAttachment) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(&self, new: &VolumeAttachment, old: &VolumeAttachment) -> ErrorList {
        let mut errors = self.validate(new);
        validate_immutable(&new.spec, &old.spec, &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_status_update(
        &self,
        _ctx: &RequestContext,
        new: &mut VolumeAttachment,
        old: &VolumeAttachment,
    ) {
        new.spec.clone_from(&old.spec);
        let meta = new.metadata.clone();
        new.metadata.clone_from(&old.metadata);
        new.metadata.resource_version = meta.resource_version;
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Attacher", "Driver that attaches the volume."),
            Column::string("PV", "Volume to attach."),
            Column::string("Node", "Node to attach the volume to."),
            boolean("Attached", "Whether the volume is attached."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, obj: &VolumeAttachment, now: Timestamp) -> Vec<Cell> {
        let volume = obj.spec.source.persistent_volume_name.as_deref();
        vec![
            cells::name(&obj.metadata),
            Cell::from(obj.spec.attacher.as_str()),
            Cell::from(volume.unwrap_or_default()),
            Cell::from(obj.spec.node_name.as_str()),
            Cell::from(obj.status.as_ref().is_some_and(|s| s.attached)),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
