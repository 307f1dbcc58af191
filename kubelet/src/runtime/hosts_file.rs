//! A pod's /etc/hosts, written by the kubelet and mounted into its containers. Upstream's concept: `ensureHostsFile`
//! in `kubelet_pods.go`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use super::sandbox::hostname_and_domain;

fn aliases(list: Option<&[HostAlias]>) -> String {
    let list = list.unwrap_or_default();
    if list.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in list {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        out.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    out
}

/// The file's content. `host_file` is the node's own, which pods with host network start from.
#[must_use]
pub fn content(pod: &Pod, pod_ips: &[IpAddr], cluster_domain: &str, host_file: &str) -> String {
    let spec = pod.spec.as_ref();
    let host_aliases = aliases(spec.and_then(|s| s.host_aliases.as_deref()));
    if spec.and_then(|s| s.host_network).unwrap_or(false) {
        return format!("# Kubernetes-managed hosts file (host network).\n{host_file}{host_aliases}");
    }
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         fe00::\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
    for ip in pod_ips {
        if domain.is_empty() {
            out.push_str(&format!("{ip}\t{hostname}\n"));
        } else {
            out.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n"));
        }
    }
    out + &host_aliases
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_networks() {
        let pod = |host: bool| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {"containers": [],
                "subdomain": "sub", "hostNetwork": host, "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["a", "b"]}]}}))
            .unwrap()
        };
        let ips = ["10.244.0.5".parse().unwrap()];
        let own = content(&pod(false), &ips, "cluster.local", "");
        assert!(own.contains("10.244.0.5\tweb.sub.ns.svc.cluster.local\tweb\n"), "{own}");
        assert!(own.ends_with("\n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n"));
        let host = content(&pod(true), &ips, "cluster.local", "127.0.0.1 localhost\n");
        assert!(host.starts_with(
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n\n# Entries"
        ));
    }
}
