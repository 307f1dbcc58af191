//! Ingresses (upstream `registry/networking/ingress`).

use apimachinery::validation::names::{
    is_dns1123_label, is_dns1123_subdomain, is_valid_port_name, is_valid_port_num,
    is_wildcard_dns1123_subdomain, parse_ip,
};
use apimachinery::validation::{Error, ErrorList, Path};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressSpec};

use super::GROUP;
use crate::registry::object_meta::set_generation;
use crate::registry::{ResourceInfo, Strategy, cells};
use crate::request::RequestContext;
use crate::table::{self, AGE, Cell, Column, NAME};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// How many hosts the column shows.
const SHOWN: usize = 3;

/// The strategy of ingresses.
#[derive(Debug)]
pub struct IngressStrategy;

impl Strategy for IngressStrategy {
    type Object = Ingress;

    fn info(&self) -> ResourceInfo {
        ResourceInfo {
            short_names: &["ing"],
            storage_prefix: "ingress",
            status: true,
            ..ResourceInfo::new(GROUP, "v1", "Ingress", "ingresses", "ingress", true)
        }
    }

    fn prepare_for_create(&self, _ctx: &RequestContext, obj: &mut Ingress) {
        let status = obj.status.insert(Default::default());
        status.load_balancer = Some(Default::default());
        obj.metadata.generation = Some(1);
    }

    fn validate(&self, obj: &Ingress) -> ErrorList {
        let mut errors = ErrorList::new();
        let none = IngressSpec::default();
        validate_spec(obj.spec.as_ref().unwrap_or(&none), &Path::new("spec"), &mut errors);
        errors
    }

    fn prepare_for_update(&self, _ctx: &RequestContext, new: &mut Ingress, old: &Ingress) {
        new.status.clone_from(&old.status);
        set_generation(&mut new.metadata, &old.metadata, new.spec != old.spec);
    }

    fn prepare_for_status_update(&self, _ctx: &RequestContext, new: &mut Ingress, old: &Ingress) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate_status_update(&self, new: &Ingress, _old: &Ingress) -> ErrorList {
        let mut errors = ErrorList::new();
        let balancer = new.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let path = Path::new("status").child("loadBalancer").child("ingress");
        for (i, ingress) in balancer.iter().flat_map(|b| b.ingress.iter().flatten()).enumerate() {
            if let Some(ip) = ingress.ip.as_deref().filter(|ip| !ip.is_empty())
                && parse_ip(ip).is_none()
            {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                errors.push(Error::invalid(&path.index(i).child("ip"), ip, detail));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            Column::string("Class", "Class of the ingress."),
            Column::string("Hosts", "Hosts that the rules are for."),
            Column::string("Address", "Addresses of the load balancer."),
            Column::string("Ports", "Ports of the load balancer."),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, obj: &Ingress, now: Timestamp) -> Vec<Cell> {
        let none = IngressSpec::default();
        let spec = obj.spec.as_ref().unwrap_or(&none);
        let annotation = obj.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
        let class = spec.ingress_class_name.as_ref().or(annotation);
        let tls = spec.tls.as_ref().is_some_and(|t| !t.is_empty());
        let balancer = obj.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let addresses: Vec<&str> = balancer
            .iter()
            .flat_map(|b| b.ingress.iter().flatten())
            .filter_map(|i| i.ip.as_deref().filter(|ip| !ip.is_empty()).or(i.hostname.as_deref()))
            .collect();
        vec![
            cells::name(&obj.metadata),
            cells::text(class.map(String::as_str)),
            Cell::from(hosts(spec)),
            Cell::from(addresses.join(",")),
            Cell::from(if tls { "80, 443" } else { "80" }),
            table::age(obj.metadata.creation_timestamp.as_ref(), now),
        ]
    }
}

fn hosts(spec: &IngressSpec) -> String {
    let hosts = spec.rules.iter().flatten().filter_map(|r| r.host.as_deref().filter(|h| !h.is_empty()));
    let mut hosts: Vec<&str> = hosts.collect();
    if hosts.is_empty() {
        return "*".to_owned();
    }
    let more = hosts.len().saturating_sub(SHOWN);
    hosts.truncate(SHOWN);
    let shown = hosts.join(",");
    if more > 0 { format!("{shown} + {more} more...") } else { shown }
}

fn validate_spec(spec: &IngressSpec, path: &Path, errors: &mut ErrorList) {
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(Error::invalid(path, serde_json::json!(rules), detail));
    }
    if let Some(backend) = &spec.default_backend {
        validate_backend(backend, &path.child("defaultBackend"), errors);
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(i);
        validate_host(rule.host.as_deref().unwrap_or_default(), &path.child("host"), errors);
        let Some(http) = &rule.http else { continue };
        let paths = path.child("http").child("paths");
        if http.paths.is_empty() {
            errors.push(Error::required(&paths, ""));
        }
        for (i, http_path) in http.paths.iter().enumerate() {
            validate_path(http_path, &paths.index(i), errors);
        }
    }
    for (i, tls) in spec.tls.iter().flatten().enumerate() {
        for (j, host) in tls.hosts.iter().flatten().enumerate() {
            let path = path.child("tls").index(i).child("hosts").index(j);
            validate_host(host, &path, errors);
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        for problem in is_dns1123_subdomain(class) {
            errors.push(Error::invalid(&path.child("ingressClassName"), class, problem));
        }
    }
}

fn validate_host(host: &str, path: &Path, errors: &mut ErrorList) {
    if host.is_empty() {
        return;
    }
    if parse_ip(host).is_some() {
        errors.push(Error::invalid(path, host, "must be a DNS name, not an IP address"));
        return;
    }
    let problems =
        if host.contains('*') { is_wildcard_dns1123_subdomain(host) } else { is_dns1123_subdomain(host) };
    for problem in problems {
        errors.push(Error::invalid(path, host, problem));
    }
}

fn validate_path(http: &HTTPIngressPath, path: &Path, errors: &mut ErrorList) {
    let all = ["Exact", "ImplementationSpecific", "Prefix"];
    let value = http.path.as_deref().unwrap_or_default();
    let value_path = path.child("path");
    match http.path_type.as_str() {
        "" => errors.push(Error::required(&path.child("pathType"), "pathType must be specified")),
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                errors.push(Error::invalid(&value_path, value, "must be an absolute path"));
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if value.contains(bad) {
                    errors.push(Error::invalid(&value_path, value, format!("must not contain '{bad}'")));
                }
            }
            for bad in ["/..", "/."] {
                if value.ends_with(bad) {
                    errors.push(Error::invalid(&value_path, value, format!("cannot end with '{bad}'")));
                }
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.push(Error::invalid(&value_path, value, "must be an absolute path"));
            }
        }
        other => errors.push(Error::not_supported(&path.child("pathType"), other, &all)),
    }
    validate_backend(&http.backend, &path.child("backend"), errors);
}

fn validate_backend(backend: &IngressBackend, path: &Path, errors: &mut ErrorList) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            errors.push(Error::invalid(path, "", detail));
        }
        (Some(_), None) => {}
        (None, service) => {
            let path = path.child("service");
            let none = Default::default();
            let service = service.as_ref().unwrap_or(&none);
            if service.name.is_empty() {
                errors.push(Error::required(&path.child("name"), ""));
            } else {
                for problem in is_dns1123_label(&service.name) {
                    errors.push(Error::invalid(&path.child("name"), &service.name, problem));
                }
            }
            let port = service.port.clone().unwrap_or_default();
            let number = port.number.unwrap_or(0);
            match port.name.as_deref().unwrap_or_default() {
                "" if number == 0 => {
                    errors.push(Error::required(&path, "port name or number is required"));
                }
                "" => {
                    for problem in is_valid_port_num(number) {
                        errors.push(Error::invalid(&path.child("port").child("number"), number, problem));
                    }
                }
                _ if number != 0 => {
                    errors.push(Error::invalid(&path, "", "cannot set both port name & port number"));
                }
                name => {
                    for problem in is_valid_port_name(name) {
                        errors.push(Error::invalid(&path.child("port").child("name"), name, problem));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value, want: &[&str]) {
        let obj: Ingress = serde_json::from_value(json!({"spec": spec})).unwrap();
        let texts: Vec<String> = IngressStrategy.validate(&obj).iter().map(ToString::to_string).collect();
        assert_eq!(texts, want);
    }

    #[test]
    fn validation() {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        check(json!({"defaultBackend": backend}), &[]);
        check(json!({}), &["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"]);
        check(
            json!({"rules": [{"host": "10.0.0.1", "http": {"paths": [
                {"path": "x", "pathType": "Prefix", "backend": backend}, {"backend": {"service": {"name": "s"}}}]}}]}),
            &[
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
                "spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified",
                "spec.rules[0].http.paths[1].backend.service: Required value: port name or number is required",
            ],
        );
    }

    #[test]
    fn row() {
        let obj: Ingress = serde_json::from_value(json!({
            "metadata": {"name": "i"},
            "spec": {"ingressClassName": "c", "tls": [{}], "rules": [
                {"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "h"}]}}}))
        .unwrap();
        let row = IngressStrategy.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row), json!(["i", "c", "a,b,c + 1 more...", "1.2.3.4,h", "80, 443", "<unknown>"]));
    }
}
