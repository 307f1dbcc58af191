//! The storage.k8s.io group, v1.

pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
pub mod storage_class;
pub mod volume_attachment;
pub mod volume_attributes_class;

/// The group's name.
const GROUP: &str = "storage.k8s.io";

/// A column of booleans that is always shown.
const fn boolean(name: &'static str, description: &'static str) -> crate::table::Column {
    crate::table::Column { name, r#type: "boolean", format: "", description, priority: 0 }
}
