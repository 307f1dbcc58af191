//! Namespaces (upstream `registry/core/namespace`): they go in two steps, through the finalizers of their spec.

use std::borrow::Cow;

use apimachinery::validation::names::{is_dns1123_label, is_qualified_name};
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;

use crate::registry::{ResourceInfo, Strategy, SubresourceInfo, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
const FINALIZER: &str = "kubernetes";

/// The strategy of namespaces.
#[derive(Debug)]
pub struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    type Object = Namespace;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["ns"],
            verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
            status: true,
            subresources: &[SubresourceInfo {
                name: "finalize",
                kind: "Namespace",
                group: "",
                version: "v1",
                verbs: &["update"],
                updates_parent: true,
            }],
            ..ResourceInfo::new("", "v1", "Namespace", "namespaces", "namespace", false)
        }
    }

    fn default(&self, obj: &mut Namespace) {
        // Selectors over namespaces rely on every namespace carrying its name as a label.
        if let Some(name) = obj.metadata.name.clone().filter(|n| !n.is_empty()) {
            obj.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut Namespace) {
        // A generated name is known only now.
        self.default(obj);
        let status = obj.status.insert(Default::default());
        status.phase = Some("Active".to_owned());
        let finalizers = obj.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        is_dns1123_label(if prefix { name.trim_end_matches('-') } else { name })
    }

    fn validate(&self, obj: &Namespace) -> ErrorList {
        let path = Path::new("spec").child("finalizers");
        let finalizers = obj.spec.iter().flat_map(|s| s.finalizers.iter().flatten());
        finalizers
            .enumerate()
            .flat_map(|(i, f)| {
                let path = path.index(i);
                is_qualified_name(f).into_iter().map(move |p| Error::invalid(&path, f, p))
            })
            .collect()
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut Namespace, old: &Namespace) {
        let finalizers = old.spec.as_ref().and_then(|s| s.finalizers.clone());
        new.spec.get_or_insert_default().finalizers = finalizers;
        new.status.clone_from(&old.status);
    }

    fn validate_update(&self, _new: &Namespace, _old: &Namespace) -> ErrorList {
        ErrorList::new()
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut Namespace, old: &Namespace) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_status_update(&self, new: &Namespace, _old: &Namespace) -> ErrorList {
        let phase = phase(new);
        let path = Path::new("status").child("Phase");
        match (new.metadata.deletion_timestamp.is_some(), phase) {
            (false, "Active") | (true, "Terminating") => Vec::new(),
            (false, _) => {
                vec![Error::invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty")]
            }
            (true, _) => {
                let detail = "may only be 'Terminating' if `deletionTimestamp` is not empty";
                vec![Error::invalid(&path, phase, detail)]
            }
        }
    }

    fn prepare_for_subresource_update(
        &self,
        _subresource: &str,
        _ctx: &RequestContext,
        new: &mut Namespace,
        old: &Namespace,
    ) {
        new.status.clone_from(&old.status);
    }

    fn validate_subresource_update(
        &self,
        _subresource: &str,
        new: &Namespace,
        _old: &Namespace,
    ) -> ErrorList {
        self.validate(new)
    }

    fn has_other_finalizers(&self, obj: &Namespace) -> bool {
        obj.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| !f.is_empty())
    }

    fn deletion_started(&self, obj: &mut Namespace) {
        obj.status.get_or_insert_default().phase = Some("Terminating".to_owned());
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["name", "status.phase"]
    }

    fn field<'a>(&self, obj: &'a Namespace, field: &str) -> Cow<'a, str> {
        match field {
            "status.phase" => Cow::Borrowed(phase(obj)),
            "name" => Cow::Borrowed(obj.metadata.name.as_deref().unwrap_or_default()),
            _ => Cow::Borrowed(""),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] =
            &[NAME, Column::string("Status", "Active, or Terminating once it is being deleted."), AGE];
        COLUMNS
    }

    fn row(&self, obj: &Namespace, now: Timestamp) -> Vec<Cell> {
        vec![
            cells::name(&obj.metadata),
            Cell::from(phase(obj)),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

fn phase(obj: &Namespace) -> &str {
    obj.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}
