//! What a request to the kubelet's port asks for, and the permission it needs. No IO. Upstream's concept:
//! `pkg/kubelet/server/{server,auth}.go`.

use http::Method;

/// A container named in a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPath {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid, where the path has one.
    pub uid: Option<String>,
    /// The container's name; empty for port forwarding.
    pub container: String,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/healthz`, `/healthz/ping`, `/healthz/log`, `/healthz/syncloop`.
    Healthz,
    /// `/metrics`.
    Metrics,
    /// `/pods`.
    Pods,
    /// `/runningpods`.
    RunningPods,
    /// `/stats/summary`.
    StatsSummary,
    /// `/containerLogs/…`.
    ContainerLogs(ContainerPath),
    /// `/exec/…`.
    Exec(ContainerPath),
    /// `/attach/…`.
    Attach(ContainerPath),
    /// `/portForward/…`.
    PortForward(ContainerPath),
    /// A path of upstream's that is not served here.
    NotSupported,
    /// No such path.
    NotFound,
    /// The path exists for other methods.
    MethodNotAllowed,
}

fn container_path(parts: &[&str]) -> Option<ContainerPath> {
    let (namespace, pod, uid, container) = match parts {
        [namespace, pod, container] => (namespace, pod, None, container),
        [namespace, pod, uid, container] => (namespace, pod, Some((*uid).to_owned()), container),
        _ => return None,
    };
    let whole = [namespace, pod, container].iter().all(|part| !part.is_empty());
    whole.then(|| ContainerPath {
        namespace: (*namespace).to_owned(),
        pod: (*pod).to_owned(),
        uid,
        container: (*container).to_owned(),
    })
}

fn pod_path(parts: &[&str]) -> Option<ContainerPath> {
    let (namespace, pod, uid) = match parts {
        [namespace, pod] => (namespace, pod, None),
        [namespace, pod, uid] => (namespace, pod, Some((*uid).to_owned())),
        _ => return None,
    };
    (!namespace.is_empty() && !pod.is_empty()).then(|| ContainerPath {
        namespace: (*namespace).to_owned(),
        pod: (*pod).to_owned(),
        uid,
        container: String::new(),
    })
}

/// Finds the route of a request. With debugging handlers off, what looks into pods doesn't exist.
#[must_use]
pub fn route(method: &Method, path: &str, debugging_handlers: bool) -> Route {
    let trimmed = path.trim_matches('/');
    let parts: Vec<&str> = trimmed.split('/').collect();
    let (first, rest) = (parts.first().copied().unwrap_or_default(), parts.get(1..).unwrap_or_default());
    let found = match (first, rest) {
        ("healthz", [] | ["ping" | "log" | "syncloop"]) => Some(Route::Healthz),
        ("metrics", []) => Some(Route::Metrics),
        ("pods", []) => Some(Route::Pods),
        ("stats", ["summary"]) => Some(Route::StatsSummary),
        ("runningpods", []) if debugging_handlers => Some(Route::RunningPods),
        ("containerLogs", rest) if debugging_handlers => container_path(rest).map(Route::ContainerLogs),
        ("exec", rest) if debugging_handlers => container_path(rest).map(Route::Exec),
        ("attach", rest) if debugging_handlers => container_path(rest).map(Route::Attach),
        ("portForward", rest) if debugging_handlers => pod_path(rest).map(Route::PortForward),
        ("metrics", ["cadvisor" | "probes" | "resource" | "slis"])
        | ("run" | "logs" | "checkpoint" | "debug" | "configz" | "statusz" | "flagz", _) => {
            Some(Route::NotSupported)
        }
        _ => None,
    };
    let streams = matches!(found, Some(Route::Exec(_) | Route::Attach(_) | Route::PortForward(_)));
    match found {
        None => Route::NotFound,
        Some(_) if *method != Method::GET && !(streams && *method == Method::POST) => Route::MethodNotAllowed,
        Some(route) => route,
    }
}

/// The verb that authorization is asked for.
#[must_use]
pub fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// The subresources of `nodes` that permit a path, each enough by itself.
#[must_use]
pub fn subresources(path: &str) -> Vec<&'static str> {
    let path = path.trim_end_matches('/');
    let below =
        |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    if below("/stats") {
        vec!["stats"]
    } else if below("/metrics") {
        vec!["metrics"]
    } else if below("/logs") {
        vec!["log"]
    } else if below("/checkpoint") {
        vec!["checkpoint"]
    } else if below("/healthz") {
        vec!["healthz", "proxy"]
    } else if below("/pods") || below("/runningpods") {
        vec!["pods", "proxy"]
    } else if below("/configz") {
        vec!["configz", "proxy"]
    } else {
        vec!["proxy"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let path = |uid: Option<&str>, container: &str| ContainerPath {
            namespace: "ns".to_owned(),
            pod: "p".to_owned(),
            uid: uid.map(str::to_owned),
            container: container.to_owned(),
        };
        for (method, text, expected) in [
            (Method::GET, "/healthz", Route::Healthz),
            (Method::GET, "/pods/", Route::Pods),
            (Method::POST, "/pods", Route::MethodNotAllowed),
            (Method::POST, "/exec/ns/p/c", Route::Exec(path(None, "c"))),
            (Method::GET, "/exec/ns/p/uid/c", Route::Exec(path(Some("uid"), "c"))),
            (Method::DELETE, "/exec/ns/p/c", Route::MethodNotAllowed),
            (Method::GET, "/containerLogs/ns/p/c", Route::ContainerLogs(path(None, "c"))),
            (Method::POST, "/containerLogs/ns/p/c", Route::MethodNotAllowed),
            (Method::POST, "/portForward/ns/p", Route::PortForward(path(None, ""))),
            (Method::GET, "/exec/ns/p", Route::NotFound),
            (Method::GET, "/exec/ns//c", Route::NotFound),
            (Method::GET, "/debug/pprof", Route::NotSupported),
            (Method::GET, "/logs/../etc/passwd", Route::NotSupported),
            (Method::GET, "/", Route::NotFound),
            (Method::GET, "/nothing", Route::NotFound),
        ] {
            assert_eq!(route(&method, text, true), expected, "{method} {text}");
        }
        assert_eq!(route(&Method::GET, "/containerLogs/ns/p/c", false), Route::NotFound);
    }

    #[test]
    fn permissions() {
        for (path, expected) in [
            ("/stats/summary", &["stats"][..]),
            ("/metrics", &["metrics"]),
            ("/metricsx", &["proxy"]),
            ("/exec/ns/p/c", &["proxy"]),
            ("/pods/", &["pods", "proxy"]),
            ("/healthz", &["healthz", "proxy"]),
        ] {
            assert_eq!(subresources(path), expected, "{path}");
        }
    }
}
