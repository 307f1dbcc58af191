//! Probes and lifecycle hooks of a container.

use apimachinery::validation::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{
    Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction,
};

use crate::registry::core::service::validation::validate_port_num_or_name;
use crate::registry::object_meta::validate_nonnegative;

pub(super) fn validate_probes(container: &Container, path: &Path, errors: &mut ErrorList) {
    for (field, probe, liveness) in [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ] {
        let Some(probe) = probe else { continue };
        let path = path.child(field);
        validate_probe(probe, &path, errors);
        let successes = probe.success_threshold.unwrap_or(1);
        if liveness && successes != 1 {
            errors.push(Error::invalid(&path.child("successThreshold"), successes, "must be 1"));
        }
        let period_path = path.child("terminationGracePeriodSeconds");
        match probe.termination_grace_period_seconds {
            Some(_) if !liveness => {
                let shown = probe.termination_grace_period_seconds.unwrap_or(0);
                errors.push(Error::invalid(&period_path, shown, "must not be set for readinessProbes"));
            }
            Some(period) if period <= 0 => {
                errors.push(Error::invalid(&period_path, period, "must be greater than 0"));
            }
            _ => {}
        }
    }
}

fn validate_probe(probe: &Probe, path: &Path, errors: &mut ErrorList) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref().map(|g| g.port),
        sleep: None,
    };
    validate_handler(&handler, 0, path, errors);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        validate_nonnegative(value.map(i64::from), &path.child(field), errors);
    }
}

pub(super) fn validate_lifecycle(
    container: &Container,
    grace: Option<i64>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let Some(lifecycle) = &container.lifecycle else { return };
    let path = path.child("lifecycle");
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        let Some(hook) = hook else { continue };
        validate_handler(&Handler::from(hook), grace.unwrap_or(0), &path.child(field), errors);
    }
}

/// The ways to run a check or hook, of which exactly one must be given.
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<i32>,
    sleep: Option<i64>,
}

impl<'a> From<&'a LifecycleHandler> for Handler<'a> {
    fn from(hook: &'a LifecycleHandler) -> Self {
        Self {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref().map(|s| s.seconds),
        }
    }
}

fn validate_handler(handler: &Handler<'_>, grace: i64, path: &Path, errors: &mut ErrorList) {
    let mut handlers = 0;
    let mut count = |field: &str, errors: &mut ErrorList| {
        handlers += 1;
        if handlers > 1 {
            errors.push(Error::forbidden(&path.child(field), "may not specify more than 1 handler type"));
        }
        handlers == 1
    };
    if let Some(exec) = handler.exec
        && count("exec", errors)
        && exec.command.as_ref().is_none_or(Vec::is_empty)
    {
        errors.push(Error::required(&path.child("exec").child("command"), ""));
    }
    if let Some(http) = handler.http_get
        && count("httpGet", errors)
    {
        validate_http(http, &path.child("httpGet"), errors);
    }
    if let Some(tcp) = handler.tcp_socket
        && count("tcpSocket", errors)
    {
        validate_port_num_or_name(&tcp.port, &path.child("tcpSocket").child("port"), errors);
    }
    if let Some(port) = handler.grpc
        && count("grpc", errors)
    {
        for problem in apimachinery::validation::names::is_valid_port_num(port) {
            errors.push(Error::invalid(&path.child("grpc").child("port"), port, problem));
        }
    }
    if let Some(seconds) = handler.sleep
        && count("sleep", errors)
        && !(0..=grace).contains(&seconds)
    {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace}).");
        errors.push(Error::invalid(&path.child("sleep").child("seconds"), seconds, detail));
    }
    if handlers == 0 {
        errors.push(Error::required(path, "must specify a handler type"));
    }
}

fn validate_http(http: &HTTPGetAction, path: &Path, errors: &mut ErrorList) {
    if http.path.as_deref().unwrap_or_default().is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
    }
    validate_port_num_or_name(&http.port, &path.child("port"), errors);
    let scheme = http.scheme.as_deref().unwrap_or_default();
    if !["HTTP", "HTTPS"].contains(&scheme) {
        errors.push(Error::not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    for header in http.http_headers.iter().flatten() {
        let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if header.name.is_empty() || !header.name.bytes().all(token) {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.push(Error::invalid(&path.child("httpHeaders"), &header.name, detail));
        }
    }
}
