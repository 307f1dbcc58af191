//! The configuration of a pod's sandbox, as a pure function of the pod and the node. Upstream's concept:
//! `kuberuntime_sandbox.go`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use proto::runtime_v1 as v1;

use super::dns::{self, DnsInputs};
use super::labels::{identity, sandbox_annotations, sandbox_labels};
use super::resources::{NodeResources, sandbox_resources};
use super::security::{all_containers, sandbox_context};
use super::types::Warnings;

/// The longest host name the kernel takes.
const MAX_HOSTNAME: usize = 63;
const MAX_FQDN_HOSTNAME: usize = 64;

/// A sandbox that can't be configured.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// dnsPolicy.
    #[error(transparent)]
    Dns(#[from] dns::InvalidPolicy),
    /// setHostnameAsFQDN with a name too long for the kernel.
    #[error(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {0} is too long \
         (64 characters is the max, {1} characters requested)"
    )]
    FqdnTooLong(String, usize),
    /// An identity that can't stand in paths.
    #[error("pod has an unusable {0}: {1:?}")]
    Identity(&'static str, String),
}

/// What of the node goes into a sandbox.
#[derive(Debug, Clone, Copy)]
pub struct SandboxInputs<'a> {
    /// `podLogsDir`.
    pub pod_logs_dir: &'a Path,
    /// DNS of cluster and host.
    pub dns: DnsInputs<'a>,
    /// The pod's cgroup, as the runtime wants it.
    pub cgroup_parent: &'a str,
    /// The node's resources.
    pub node: NodeResources,
}

/// A pod's directory of logs.
#[must_use]
pub fn pod_log_dir(pod_logs_dir: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    pod_logs_dir.join(format!("{namespace}_{name}_{uid}"))
}

/// A pod's host name and its domain (empty without a subdomain).
#[must_use]
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec.as_ref();
    let id = identity(pod);
    let hostname = spec.and_then(|s| s.hostname_override.as_deref().or(s.hostname.as_deref())).unwrap_or("");
    let hostname = if hostname.is_empty() { truncate_hostname(id.name) } else { hostname.to_owned() };
    let domain = match spec.and_then(|s| s.subdomain.as_deref()) {
        Some(subdomain) if !subdomain.is_empty() => {
            format!("{subdomain}.{}.svc.{cluster_domain}", id.namespace)
        }
        _ => String::new(),
    };
    (hostname, domain)
}

fn truncate_hostname(name: &str) -> String {
    let short: String = name.chars().take(MAX_HOSTNAME).collect();
    short.trim_end_matches(['-', '.']).to_owned()
}

/// The name that `hostname` prints in the pod: with setHostnameAsFQDN the domain too.
fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, SandboxError> {
    let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
    let as_fqdn = pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn).unwrap_or(false);
    if !as_fqdn || domain.is_empty() {
        return Ok(hostname);
    }
    let fqdn = format!("{hostname}.{domain}");
    if fqdn.len() > MAX_FQDN_HOSTNAME {
        return Err(SandboxError::FqdnTooLong(fqdn.clone(), fqdn.len()));
    }
    Ok(fqdn)
}

fn port_mappings(spec: &PodSpec) -> Vec<v1::PortMapping> {
    all_containers(spec)
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| v1::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp,
                Some("SCTP") => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

fn sysctls(spec: &PodSpec) -> HashMap<String, String> {
    let sysctls = spec.security_context.as_ref().and_then(|c| c.sysctls.as_ref());
    // `net/ipv4/x` and `net.ipv4.x` are the same name; runc knows only the dots.
    sysctls.into_iter().flatten().map(|s| (dotted_sysctl(&s.name), s.value.clone())).collect()
}

/// Turns the slash form of a sysctl's name into the dotted one (a dot inside a part becomes a slash).
fn dotted_sysctl(name: &str) -> String {
    let first = name.find(['.', '/']);
    if first.is_none_or(|i| name.as_bytes().get(i) == Some(&b'.')) {
        return name.to_owned();
    }
    name.chars()
        .map(|c| {
            if c == '/' {
                '.'
            } else if c == '.' {
                '/'
            } else {
                c
            }
        })
        .collect()
}

/// Refuses identities that would leave their place in a path: static pods' manifests are not validated by an apiserver.
fn check_identity(pod: &Pod) -> Result<(), SandboxError> {
    let id = identity(pod);
    for (what, value) in [("namespace", id.namespace), ("name", id.name), ("uid", id.uid)] {
        if value.is_empty() || value.starts_with('.') || value.contains(['/', '\0']) {
            return Err(SandboxError::Identity(what, value.to_owned()));
        }
    }
    Ok(())
}

/// A pod's sandbox and the warnings (event reason, message) that came up.
pub fn sandbox_config(
    pod: &Pod,
    attempt: u32,
    inputs: &SandboxInputs<'_>,
) -> Result<(v1::PodSandboxConfig, Warnings), SandboxError> {
    check_identity(pod)?;
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let id = identity(pod);
    let host_network = spec.host_network.unwrap_or(false);
    let dns = dns::pod_dns(pod, &inputs.dns)?;
    let log_directory = pod_log_dir(inputs.pod_logs_dir, id.namespace, id.name, id.uid);
    let config = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: id.name.to_owned(),
            uid: id.uid.to_owned(),
            namespace: id.namespace.to_owned(),
            attempt,
        }),
        hostname: if host_network { String::new() } else { kernel_hostname(pod, inputs.dns.cluster_domain)? },
        log_directory: log_directory.to_string_lossy().into_owned(),
        dns_config: Some(dns.config),
        port_mappings: port_mappings(spec),
        labels: sandbox_labels(pod),
        annotations: sandbox_annotations(pod),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: inputs.cgroup_parent.to_owned(),
            security_context: Some(sandbox_context(spec)),
            sysctls: sysctls(spec),
            overhead: None,
            resources: Some(sandbox_resources(pod, inputs.node)),
        }),
    };
    Ok((config, dns.warnings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::Version;
    use serde_json::json;

    fn config(pod: serde_json::Value) -> Result<v1::PodSandboxConfig, SandboxError> {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let inputs = SandboxInputs {
            pod_logs_dir: Path::new("/var/log/pods"),
            dns: DnsInputs {
                cluster_dns: &[],
                cluster_domain: "cluster.local",
                host_resolv_conf: Some("nameserver 192.0.2.1"),
            },
            cgroup_parent: "/kubepods/besteffort/podu",
            node: NodeResources { cpus: 2, memory: 1 << 30, cgroup_version: Version::V1, cfs_quota: true },
        };
        sandbox_config(&pod, 3, &inputs).map(|(config, _)| config)
    }

    #[test]
    fn identity_paths_and_ports() {
        let got = config(json!({"metadata": {"name": "web", "namespace": "ns", "uid": "u", "annotations": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}]}],
                     "subdomain": "sub", "setHostnameAsFQDN": true,
                     "securityContext": {"sysctls": [{"name": "net/ipv4/ip_forward", "value": "1"}]}}}))
        .unwrap();
        assert_eq!(got.log_directory, "/var/log/pods/ns_web_u");
        assert_eq!(got.hostname, "web.sub.ns.svc.cluster.local");
        assert_eq!(got.metadata.unwrap().attempt, 3);
        assert_eq!(
            (got.port_mappings[0].host_port, got.port_mappings[0].protocol()),
            (8080, v1::Protocol::Udp)
        );
        assert_eq!(got.annotations["a"], "b");
        let linux = got.linux.unwrap();
        assert_eq!(linux.cgroup_parent, "/kubepods/besteffort/podu");
        assert_eq!(linux.sysctls["net.ipv4.ip_forward"], "1");
    }

    #[test]
    fn hostnames() {
        let name = "a".repeat(62) + "-" + &"b".repeat(20);
        let long = config(
            json!({"metadata": {"name": name, "namespace": "ns", "uid": "u"}, "spec": {"containers": []}}),
        );
        assert_eq!(long.unwrap().hostname, "a".repeat(62));
        let host = config(json!({"metadata": {"name": "n", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [], "hostNetwork": true}}));
        assert_eq!(host.unwrap().hostname, "");
        let too_long = config(json!({"metadata": {"name": "x".repeat(60), "namespace": "ns", "uid": "u"},
            "spec": {"containers": [], "subdomain": "s", "setHostnameAsFQDN": true}}));
        assert!(matches!(too_long, Err(SandboxError::FqdnTooLong(..))));
    }

    #[test]
    fn identities_that_would_leave_their_place_are_refused() {
        for (name, namespace, uid) in
            [("..", "ns", "u"), ("n", "a/b", "u"), ("n", "ns", ""), ("n", "ns", "../../etc")]
        {
            let got = config(
                json!({"metadata": {"name": name, "namespace": namespace, "uid": uid}, "spec": {"containers": []}}),
            );
            assert!(matches!(got, Err(SandboxError::Identity(..))), "{name} {namespace} {uid}");
        }
    }
}
