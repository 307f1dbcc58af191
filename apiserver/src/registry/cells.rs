//! How the columns of several kinds print labels, selectors, containers and lists.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::table::{Cell, Column};

/// What an empty cell shows.
pub(crate) const NONE: &str = "<none>";
/// What a value that is not known yet shows.
pub(crate) const UNKNOWN: &str = "<unknown>";
/// What a value that was never set shows.
pub(crate) const UNSET: &str = "<unset>";

/// Wide column of workloads.
pub(crate) const CONTAINERS: Column =
    Column::string("Containers", "Names of the containers in the pod template.").wide();
/// Wide column of workloads.
pub(crate) const IMAGES: Column =
    Column::string("Images", "Images of the containers in the pod template.").wide();
/// Wide column of workloads and services.
pub(crate) const SELECTOR: Column =
    Column::string("Selector", "Selector of the pods that belong to the object.").wide();

/// A string cell, `<none>` when there is nothing to show.
pub(crate) fn text(value: Option<&str>) -> Cell {
    Cell::from(value.filter(|v| !v.is_empty()).unwrap_or(NONE))
}

/// The name cell.
pub(crate) fn name(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Cell {
    Cell::from(meta.name.as_deref().unwrap_or_default())
}

/// Items joined by commas, `<none>` when there are none.
pub(crate) fn list<I: IntoIterator<Item = S>, S: AsRef<str>>(items: I) -> Cell {
    let items: Vec<String> = items.into_iter().map(|s| s.as_ref().to_owned()).collect();
    if items.is_empty() { Cell::from(NONE) } else { Cell::from(items.join(",")) }
}

/// `a=b,c=d`, `<none>` when empty.
pub(crate) fn labels(labels: Option<&BTreeMap<String, String>>) -> Cell {
    list(labels.into_iter().flatten().map(|(k, v)| format!("{k}={v}")))
}

/// A label selector as kubectl shows it.
pub(crate) fn label_selector(selector: Option<&LabelSelector>) -> Cell {
    let Some(selector) = selector else { return Cell::from(NONE) };
    match apimachinery::labels::Selector::from_label_selector(selector) {
        Ok(selector) => {
            let text = selector.to_string();
            if text.is_empty() { Cell::from(NONE) } else { Cell::from(text) }
        }
        Err(_) => Cell::from("<error>"),
    }
}

/// Names and images of a template's containers.
pub(crate) fn containers(template: Option<&PodTemplateSpec>) -> [Cell; 2] {
    let containers =
        template.and_then(|t| t.spec.as_ref()).map(|s| s.containers.as_slice()).unwrap_or_default();
    let join = |items: Vec<&str>| Cell::from(items.join(","));
    [
        join(containers.iter().map(|c| c.name.as_str()).collect()),
        join(containers.iter().map(|c| c.image.as_deref().unwrap_or_default()).collect()),
    ]
}
