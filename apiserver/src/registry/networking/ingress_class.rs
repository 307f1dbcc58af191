//! IngressClasses (upstream `registry/networking/ingressclass`).

use apimachinery::validation::names::is_qualified_name;
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IngressClass;

use super::GROUP;
use crate::registry::object_meta::{immutable, set_generation};
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const MAX_CONTROLLER: usize = 250;

/// The strategy of ingressclasses.
#[derive(Debug)]
pub struct IngressClassStrategy;

impl Strategy for IngressClassStrategy {
    type Object = IngressClass;

    fn info(&self) -> ResourceInfo {
        ResourceInfo::new(GROUP, "v1", "IngressClass", "ingressclasses", "ingressclass", false)
    }

    fn default(&self, obj: &mut IngressClass) {
        let parameters = obj.spec.as_mut().and_then(|s| s.parameters.as_mut());
        if let Some(parameters) = parameters {
            parameters.scope.get_or_insert_with(|| "Cluster".to_owned());
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut IngressClass) {
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &IngressClass) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec");
        let controller = obj.spec.as_ref().and_then(|s| s.controller.as_deref()).unwrap_or_default();
        if controller.len() > MAX_CONTROLLER {
            errors.push(Error::too_long(&path.child("controller"), MAX_CONTROLLER));
        }
        if !controller.contains('/') || controller.starts_with('/') || controller.ends_with('/') {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(Error::invalid(&path.child("controller"), controller, detail));
        }
        let parameters = obj.spec.as_ref().and_then(|s| s.parameters.as_ref());
        let Some(parameters) = parameters else { return errors };
        let path = path.child("parameters");
        for (field, value) in [("kind", &parameters.kind), ("name", &parameters.name)] {
            if value.is_empty() {
                errors.push(Error::required(&path.child(field), ""));
            }
        }
        for problem in parameters.api_group.iter().flat_map(|g| is_qualified_name(g)) {
            let group = parameters.api_group.as_deref().unwrap_or_default();
            errors.push(Error::invalid(&path.child("apiGroup"), group, problem));
        }
        let namespace = parameters.namespace.as_deref().unwrap_or_default();
        match parameters.scope.as_deref().unwrap_or_default() {
            "" => errors.push(Error::required(&path.child("scope"), "")),
            "Cluster" => {
                if !namespace.is_empty() {
                    let detail = "`parameters.scope` is set to 'Cluster'";
                    errors.push(Error::forbidden(&path.child("namespace"), detail));
                }
            }
            "Namespace" => {
                if namespace.is_empty() {
                    let detail = "`parameters.scope` is set to 'Namespace'";
                    errors.push(Error::required(&path.child("namespace"), detail));
                }
            }
            other => {
                let all = ["Cluster", "Namespace"];
                errors.push(Error::not_supported(&path.child("scope"), other, &all));
            }
        }
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut IngressClass, old: &IngressClass) {
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn validate_update(&self, new: &IngressClass, old: &IngressClass) -> ErrorList {
        let mut errors = self.validate(new);
        let controller = |obj: &IngressClass| obj.spec.as_ref().and_then(|s| s.controller.clone());
        if controller(new) != controller(old) {
            errors.push(immutable(&controller(new), &Path::new("spec").child("controller")));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Controller", "Controller that serves ingresses of the class."),
            Column::string("Parameters", "Object with the controller's settings."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, obj: &IngressClass, now: Timestamp) -> Vec<Cell> {
        let spec = obj.spec.as_ref();
        let parameters = spec.and_then(|s| s.parameters.as_ref()).map(|parameters| {
            let group = parameters.api_group.as_deref().filter(|g| !g.is_empty());
            let dotted = group.map(|g| format!(".{g}")).unwrap_or_default();
            format!("{}{dotted}/{}", parameters.kind, parameters.name)
        });
        vec![
            cells::name(&obj.metadata),
            Cell::from(spec.and_then(|s| s.controller.as_deref()).unwrap_or_default()),
            cells::text(parameters.as_deref()),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}
