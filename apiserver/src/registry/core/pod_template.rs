//! PodTemplates (upstream `registry/core/podtemplate`).

use apimachinery::validation::{ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodTemplate, PodTemplateSpec};

use super::pod::defaults::set_pod_template_defaults;
use crate::registry::object_meta::set_generation;
use crate::registry::pod_template::validate_template;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{Cell, Column, NAME};

/// The strategy of podtemplates.
#[derive(Debug)]
pub struct PodTemplateStrategy;

impl Strategy for PodTemplateStrategy {
    type Object = PodTemplate;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new("", "v1", "PodTemplate", "podtemplates", "podtemplate", true)
    }

    fn default(&self, obj: &mut PodTemplate) {
        set_pod_template_defaults(obj.template.get_or_insert_default());
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut PodTemplate) {
        obj.metadata.generation = Some(1);
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut PodTemplate, old: &PodTemplate) {
        set_generation(&mut new.metadata, &old.metadata, new.template != old.template);
    }

    fn validate(&self, obj: &PodTemplate) -> ErrorList {
        let mut errors = ErrorList::new();
        let none = PodTemplateSpec::default();
        validate_template(obj.template.as_ref().unwrap_or(&none), &Path::new("template"), &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Containers", "Names of the containers in the pod template."),
            Column::string("Images", "Images of the containers in the pod template."),
            Column::string("Pod Labels", "Labels that the pods get."),
        ];
        COLUMNS
    }

    fn row(&self, obj: &PodTemplate, _now: Timestamp) -> Vec<Cell> {
        let [containers, images] = cells::containers(obj.template.as_ref());
        let labels = obj.template.as_ref().and_then(|t| t.metadata.as_ref()?.labels.as_ref());
        vec![cells::name(&obj.metadata), containers, images, cells::labels(labels)]
    }
}
