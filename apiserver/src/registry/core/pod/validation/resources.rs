//! Resource requests and limits (upstream `ValidateContainerResourceRequirements`).

use std::collections::BTreeMap;

use apimachinery::quantity::{Quantity, parse_k8s};
use apimachinery::validation::names::is_qualified_name;
use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

type List = BTreeMap<String, ApiQuantity>;

/// What upstream's decoder says of a quantity that does not parse.
const QUANTITY_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Requests and limits of one container.
pub(super) fn validate_container(resources: &ResourceRequirements, path: &Path, errors: &mut ErrorList) {
    let none = List::new();
    let limits = resources.limits.as_ref().unwrap_or(&none);
    let requests = resources.requests.as_ref().unwrap_or(&none);
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    validate_named(limits, &limits_path, errors);
    validate_named(requests, &requests_path, errors);
    validate_requests_fit(requests, limits, path, errors);
}

fn validate_named(list: &List, path: &Path, errors: &mut ErrorList) {
    for (name, quantity) in list {
        let path = path.key(name);
        validate_container_resource_name(name, &path, errors);
        validate_quantity(name, quantity, &path, errors);
    }
}

/// Requests and limits of a whole pod, of which only some resources can be given.
pub(super) fn validate_pod_level(resources: &ResourceRequirements, path: &Path, errors: &mut ErrorList) {
    let none = List::new();
    let limits = resources.limits.as_ref().unwrap_or(&none);
    let requests = resources.requests.as_ref().unwrap_or(&none);
    for (field, list) in [("limits", limits), ("requests", requests)] {
        for (name, quantity) in list {
            let path = path.child(field).key(name);
            if !matches!(name.as_str(), "cpu" | "memory") && !is_huge_page(name) {
                errors.push(Error::not_supported(&path, name, &["cpu", "hugepages-", "memory"]));
            }
            validate_quantity(name, quantity, &path, errors);
        }
    }
    validate_requests_fit(requests, limits, path, errors);
}

/// A plain list of resources (overhead, quotas, capacities).
pub(crate) fn validate_list(list: &List, path: &Path, errors: &mut ErrorList) {
    for (name, quantity) in list {
        validate_quantity(name, quantity, &path.key(name), errors);
    }
}

/// A resource that can't be shared out: what is requested is the limit.
fn is_overcommit_allowed(name: &str) -> bool {
    is_standard(name) && !is_huge_page(name)
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Resources in no domain, or in kubernetes.io's.
fn is_standard(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn validate_container_resource_name(name: &str, path: &Path, errors: &mut ErrorList) {
    for problem in is_qualified_name(name) {
        errors.push(Error::invalid(path, name, problem));
    }
    if !name.contains('/') && !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
        errors.push(Error::invalid(path, name, "must be a standard resource type or fully qualified"));
        errors.push(Error::invalid(path, name, "must be a standard resource for containers"));
    }
}

/// Not negative, and whole where fractions mean nothing.
pub(crate) fn validate_quantity(name: &str, quantity: &ApiQuantity, path: &Path, errors: &mut ErrorList) {
    let Ok(parsed) = parse_k8s(quantity) else {
        errors.push(Error::invalid(path, &quantity.0, QUANTITY_FORMAT));
        return;
    };
    if parsed.is_negative() {
        errors.push(Error::invalid(path, &quantity.0, "must be greater than or equal to 0"));
    }
    let whole = !is_standard(name) || is_huge_page(name) || matches!(name, "pods" | "services");
    if whole && !parsed.is_whole() {
        errors.push(Error::invalid(path, &quantity.0, "must be an integer"));
    }
}

fn validate_requests_fit(requests: &List, limits: &List, path: &Path, errors: &mut ErrorList) {
    let parse = |quantity: &ApiQuantity| -> Option<Quantity> { parse_k8s(quantity).ok() };
    for (name, request) in requests {
        let path = path.child("requests");
        match limits.get(name) {
            Some(limit) => {
                let (Some(asked), Some(allowed)) = (parse(request), parse(limit)) else { continue };
                if !is_overcommit_allowed(name) && asked != allowed {
                    let detail = format!("must be equal to {name} limit of {}", limit.0);
                    errors.push(Error::invalid(&path, &request.0, detail));
                } else if asked > allowed {
                    let detail = format!("must be less than or equal to {name} limit of {}", limit.0);
                    errors.push(Error::invalid(&path, &request.0, detail));
                }
            }
            None if !is_overcommit_allowed(name) => {
                let detail = "Limit must be set for non overcommitable resources";
                errors.push(Error::required(&path, detail));
            }
            None => {}
        }
    }
}
