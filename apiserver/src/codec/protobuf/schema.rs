//! The messages of the API, and what Go's types say beyond them. Loaded on the first protobuf body, then kept.
//!
//! Upstream: the generated `Unmarshal` methods of `k8s.io/api`, and the scheme that names them.

use std::collections::HashSet;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, FieldDescriptor, MessageDescriptor};

use super::Error;

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";
/// Kinds that upstream registers in every group.
const EVERYWHERE: &[&str] =
    &["CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions"];

/// The descriptors and the options of `facts.proto`, by the full names of fields.
#[derive(Debug)]
pub(super) struct Schema {
    pool: DescriptorPool,
    pointers: HashSet<String>,
    inline: HashSet<String>,
}

static SCHEMA: LazyLock<Result<Schema, &'static str>> = LazyLock::new(Schema::load);

impl Schema {
    pub(super) fn get() -> Result<&'static Self, Error> {
        SCHEMA.as_ref().map_err(|problem| Error::Schema(problem))
    }

    fn load() -> Result<Self, &'static str> {
        let pool = DescriptorPool::decode(proto::KUBERNETES_DESCRIPTORS).map_err(|_| "not descriptors")?;
        let extension = |name| pool.get_extension_by_name(name).ok_or("an option is missing");
        let (pointer, inlined) = (extension("keelson.pointer")?, extension("keelson.inline")?);
        let (mut pointers, mut inline) = (HashSet::new(), HashSet::new());
        for field in pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>()) {
            let options = field.options();
            if options.has_extension(&pointer) {
                pointers.insert(field.full_name().to_owned());
            }
            if options.has_extension(&inlined) {
                inline.insert(field.full_name().to_owned());
            }
        }
        Ok(Self { pool, pointers, inline })
    }

    pub(super) fn message(&self, full_name: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(full_name)
    }

    /// The message of an object: the package is the group's first label.
    pub(super) fn object(&self, api_version: &str, kind: &str) -> Option<MessageDescriptor> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let group = if group.is_empty() { "core" } else { group };
        if EVERYWHERE.contains(&kind) || (group == "core" && kind == "Status") {
            return self.message(&format!("{META}.{kind}"));
        }
        let label = group.split('.').next().unwrap_or_default();
        self.message(&format!("k8s.io.api.{label}.{version}.{kind}"))
    }

    /// Go has a pointer here, so zero was set and is not just unset.
    pub(super) fn is_pointer(&self, field: &FieldDescriptor) -> bool {
        self.pointers.contains(field.full_name())
    }

    /// Go embeds the struct, whose fields JSON shows beside the others.
    pub(super) fn is_inline(&self, field: &FieldDescriptor) -> bool {
        self.inline.contains(field.full_name())
    }
}
