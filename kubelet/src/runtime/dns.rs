//! The resolv.conf of a pod, by its dnsPolicy and dnsConfig. Reads nothing: the host's resolv.conf comes as text.
//! Upstream's concept: `pkg/kubelet/network/dns`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodSpec};
use proto::runtime_v1::DnsConfig;

use super::labels::identity;
use super::types::Warnings;

/// As many nameservers as glibc reads.
const MAX_NAMESERVERS: usize = 3;
/// Upstream's limit on search domains.
const MAX_SEARCHES: usize = 32;
/// Upstream's limit on all search domains together, the spaces between them included.
const MAX_SEARCH_CHARS: usize = 2048;

/// What the cluster and the host say about DNS.
#[derive(Debug, Clone, Copy)]
pub struct DnsInputs<'a> {
    /// `clusterDNS`.
    pub cluster_dns: &'a [IpAddr],
    /// `clusterDomain`.
    pub cluster_domain: &'a str,
    /// The text of the host's resolv.conf; `None` when `resolvConf` is empty, which switches look-ups off.
    pub host_resolv_conf: Option<&'a str>,
}

/// A pod's DNS configuration and the warnings (event reason, message) that come with it.
#[derive(Debug, Default, PartialEq)]
pub struct PodDns {
    /// What the sandbox gets.
    pub config: DnsConfig,
    /// Events about the pod.
    pub warnings: Warnings,
}

/// A dnsPolicy that doesn't exist.
#[derive(Debug, thiserror::Error)]
#[error("invalid DNSPolicy={0}")]
pub struct InvalidPolicy(String);

/// Reads a resolv.conf the way upstream's kubelet does: the last `search` line counts, options add up.
#[must_use]
pub fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.trim_start();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                config.searches =
                    words.map(|w| if w == "." { w } else { w.trim_end_matches('.') }.to_owned()).collect();
            }
            Some("options") => {
                for option in words {
                    push_unique(&mut config.options, option.to_owned());
                }
            }
            _ => {}
        }
    }
    config
}

fn push_unique(list: &mut Vec<String>, value: String) {
    if !list.contains(&value) {
        list.push(value);
    }
}

fn host_config(inputs: &DnsInputs<'_>) -> DnsConfig {
    match inputs.host_resolv_conf {
        Some(text) => parse_resolv_conf(text),
        None => DnsConfig {
            servers: vec!["127.0.0.1".to_owned()],
            searches: vec![".".to_owned()],
            ..Default::default()
        },
    }
}

fn cluster_config(inputs: &DnsInputs<'_>, namespace: &str) -> DnsConfig {
    let mut searches = Vec::new();
    if !inputs.cluster_domain.is_empty() {
        let domain = inputs.cluster_domain;
        searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    }
    for search in host_config(inputs).searches {
        push_unique(&mut searches, search);
    }
    DnsConfig {
        servers: inputs.cluster_dns.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

/// Adds a pod's own dnsConfig: servers and searches that are not there yet, options by name.
fn append(config: &mut DnsConfig, own: &PodDNSConfig) {
    for server in own.nameservers.iter().flatten() {
        push_unique(&mut config.servers, server.clone());
    }
    for search in own.searches.iter().flatten() {
        push_unique(&mut config.searches, search.clone());
    }
    for option in own.options.iter().flatten() {
        let Some(name) = option.name.as_deref() else { continue };
        config.options.retain(|existing| existing.split(':').next() != Some(name));
        config.options.push(match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.to_owned(),
        });
    }
}

fn limit(config: &mut DnsConfig, warnings: &mut Warnings) {
    const REASON: &str = "DNSConfigForming";
    if config.servers.len() > MAX_NAMESERVERS {
        config.servers.truncate(MAX_NAMESERVERS);
        let line = config.servers.join(" ");
        warnings.push((
            REASON,
            format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {line}"
            ),
        ));
    }
    let before = config.searches.len();
    config.searches.truncate(MAX_SEARCHES);
    let mut chars = 0;
    let fitting = config.searches.iter().take_while(|search| {
        chars += search.len() + usize::from(chars > 0);
        chars <= MAX_SEARCH_CHARS
    });
    let fitting = fitting.count();
    config.searches.truncate(fitting);
    if config.searches.len() < before {
        let line = config.searches.join(" ");
        warnings.push((
            REASON,
            format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {line}"
            ),
        ));
    }
}

/// The DNS configuration of a pod.
pub fn pod_dns(pod: &Pod, inputs: &DnsInputs<'_>) -> Result<PodDns, InvalidPolicy> {
    let default_spec = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default_spec);
    let id = identity(pod);
    let host_network = spec.host_network.unwrap_or(false);
    let mut warnings = Vec::new();
    let mut config = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => DnsConfig::default(),
        "Default" => host_config(inputs),
        "ClusterFirst" if host_network => host_config(inputs),
        "ClusterFirst" | "ClusterFirstWithHostNet" if !inputs.cluster_dns.is_empty() => {
            cluster_config(inputs, id.namespace)
        }
        "ClusterFirst" | "ClusterFirstWithHostNet" => {
            warnings.push((
                "MissingClusterDNS",
                format!(
                    "pod: \"{}_{}({})\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \
                     \"ClusterFirst\" policy. Falling back to \"Default\" policy.",
                    id.name, id.namespace, id.uid
                ),
            ));
            host_config(inputs)
        }
        other => return Err(InvalidPolicy(other.to_owned())),
    };
    if let Some(own) = &spec.dns_config {
        append(&mut config, own);
    }
    limit(&mut config, &mut warnings);
    Ok(PodDns { config, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOST: &str = "# made by hand\nnameserver 192.0.2.1\nsearch old.example\nsearch corp.example. lan\noptions edns0 edns0\n";

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}),
        )
        .unwrap()
    }

    fn dns(spec: serde_json::Value, cluster: &[&str]) -> PodDns {
        let cluster: Vec<IpAddr> = cluster.iter().map(|ip| ip.parse().unwrap()).collect();
        let inputs = DnsInputs {
            cluster_dns: &cluster,
            cluster_domain: "cluster.local",
            host_resolv_conf: Some(HOST),
        };
        pod_dns(&pod(spec), &inputs).unwrap()
    }

    #[test]
    fn policies() {
        let cluster = dns(json!({"containers": []}), &["10.96.0.10"]);
        assert_eq!(cluster.config.servers, ["10.96.0.10"]);
        assert_eq!(
            cluster.config.searches,
            ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example", "lan"]
        );
        assert_eq!(cluster.config.options, ["ndots:5"]);
        assert!(cluster.warnings.is_empty());

        let host = dns(json!({"containers": [], "hostNetwork": true}), &["10.96.0.10"]);
        assert_eq!(host.config.servers, ["192.0.2.1"]);
        assert_eq!(host.config.options, ["edns0"]);
        let with_host = dns(
            json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            &["10.96.0.10"],
        );
        assert_eq!(with_host.config.servers, ["10.96.0.10"]);

        let missing = dns(json!({"containers": []}), &[]);
        assert_eq!(missing.config.servers, ["192.0.2.1"]);
        assert_eq!(missing.warnings[0].0, "MissingClusterDNS");
        assert!(
            missing.warnings[0]
                .1
                .starts_with("pod: \"p_ns(u)\". kubelet does not have ClusterDNS IP configured")
        );
    }

    #[test]
    fn own_configuration_is_appended_and_limited() {
        let spec = json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"], "searches": ["a.example", "a.example"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        let own = dns(spec, &[]);
        assert_eq!(own.config.servers.len(), 3);
        assert_eq!(own.config.searches, ["a.example"]);
        assert_eq!(own.config.options, ["ndots:2", "edns0"]);
        assert_eq!(own.warnings[0].0, "DNSConfigForming");

        let merged = dns(
            json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
            &["10.96.0.10"],
        );
        assert_eq!(merged.config.options, ["ndots:1"]);

        let many: Vec<String> = (0..40).map(|i| format!("{}{i:02}.example", "x".repeat(90))).collect();
        let long = dns(
            json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.1"], "searches": many}}),
            &[],
        );
        assert!(long.config.searches.join(" ").len() <= 2048);
        assert_eq!(long.warnings.len(), 1);
    }

    #[test]
    fn unknown_policy_is_refused() {
        let inputs = DnsInputs { cluster_dns: &[], cluster_domain: "", host_resolv_conf: None };
        assert!(pod_dns(&pod(json!({"containers": [], "dnsPolicy": "Odd"})), &inputs).is_err());
        let off = pod_dns(&pod(json!({"containers": [], "dnsPolicy": "Default"})), &inputs).unwrap();
        assert_eq!(off.config.searches, ["."]);
    }
}
