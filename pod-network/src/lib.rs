//! pod-network: the CNI configuration of one node, made from `spec.podCIDRs` of its Node.
//!
//! The plugins are those of the CNI project: `bridge` with `host-local` addresses, `portmap` for host ports.
//! What to write is decided in [`plan`], a pure function of the ranges; this file writes it and checks every
//! half minute that it still stands. Nothing is taken back at the end: pods keep their network while the
//! daemon restarts.

pub mod config;
pub mod plan;

use std::path::Path;
use std::time::Duration;

use component_base::Shutdown;
use component_base::error_chain::Chain;
use component_base::informer::InformerBuilder;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Config;
use crate::plan::Plan;

const CHECK_PERIOD: Duration = Duration::from_secs(30);
/// Bridged packets pass the rules of kube-proxy too: answers between two pods of one node take that way.
const BRIDGE_SYSCTLS: [&str; 2] =
    ["/proc/sys/net/bridge/bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-ip6tables"];
const FORWARD_SYSCTLS: [&str; 2] =
    ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];

/// Runs until `shutdown`.
///
/// # Errors
/// The API server's address or credentials can't be loaded.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    tracing::info!(node = config.node_name, cluster_cidrs = ?config.cluster_cidrs, dir = ?config.cni_conf_dir, "configuration");
    let client = component_base::client::load(config.kubeconfig.as_deref(), "pod-network").await?;
    let nodes = InformerBuilder::<Node>::new(client)
        .field_selector(format!("metadata.name={}", config.node_name))
        .start(&shutdown);
    let mut changes = nodes.subscribe();
    let mut check = interval(CHECK_PERIOD);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut plan: Option<Plan> = None;
    loop {
        let due = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(change) = changes.recv() => {
                let ranges = change.new().map(|n| pod_cidrs(n)).unwrap_or_default();
                if ranges.is_empty() {
                    tracing::info!(node = config.node_name, "the node has no podCIDR yet");
                    false
                } else {
                    let new = Plan::new(&config, ranges);
                    let changed = plan.as_ref() != Some(&new);
                    plan = Some(new);
                    changed
                }
            }
            _ = check.tick() => true,
        };
        if due
            && let Some(plan) = &plan
            && let Err(error) = apply(plan, &config).await
        {
            tracing::error!(error = %Chain(&*error), "the pod network could not be set up, trying again");
        }
    }
}

fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let ranges = spec.and_then(|s| s.pod_cidrs.clone()).or_else(|| spec?.pod_cidr.clone().map(|c| vec![c]));
    ranges.unwrap_or_default().iter().filter_map(|c| c.parse().ok()).collect()
}

/// Brings the machine to the plan; does nothing where it is there already.
async fn apply(plan: &Plan, config: &Config) -> anyhow::Result<()> {
    for sysctl in BRIDGE_SYSCTLS.iter().chain(&FORWARD_SYSCTLS) {
        set_sysctl(Path::new(sysctl));
    }
    for table in plan.tables() {
        let standing = nft::chain(table.family, plan::TABLE, plan::CHAIN).await?;
        if !standing.is_some_and(|text| text.contains(&table.marker())) {
            nft::run(&table.script()).await?;
            tracing::info!(family = table.family, "masquerading rules written");
        }
    }
    let path = config.cni_conf_dir.join(plan::FILE);
    let text = plan.conflist();
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    std::fs::create_dir_all(&config.cni_conf_dir)?;
    // The runtime reads the directory at any moment: the file appears whole, under a name it takes only then.
    let unfinished = config.cni_conf_dir.join(format!(".{}.tmp", plan::FILE));
    std::fs::write(&unfinished, &text)?;
    std::fs::rename(&unfinished, &path)?;
    tracing::info!(file = ?path, "CNI configuration written");
    Ok(())
}

/// Sets a switch to 1. One that is missing (no bridge netfilter, no IPv6) or read-only is only logged: the
/// host may have set it, and a wrong guess here must not keep pods from starting.
fn set_sysctl(path: &Path) {
    match std::fs::read_to_string(path) {
        Ok(value) if value.trim() == "1" => {}
        Ok(_) => {
            if let Err(error) = std::fs::write(path, "1") {
                tracing::warn!(?path, %error, "sysctl could not be set");
            }
        }
        Err(error) => tracing::debug!(?path, %error, "sysctl is not there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> Config {
        Config {
            kubeconfig: None,
            node_name: "n".into(),
            cluster_cidrs: vec!["10.244.0.0/16".parse().expect("valid")],
            cni_conf_dir: dir.to_owned(),
            bridge_name: "cni0".into(),
        }
    }

    #[test]
    fn ranges_come_from_pod_cidrs_or_pod_cidr() {
        let node = |spec: serde_json::Value| -> Node {
            serde_json::from_value(serde_json::json!({"metadata": {"name": "n"}, "spec": spec}))
                .expect("valid")
        };
        let texts = |n: &Node| pod_cidrs(n).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&node(serde_json::json!({"podCIDR": "10.244.1.0/24"}))), ["10.244.1.0/24"]);
        let dual =
            serde_json::json!({"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00::/64"]});
        assert_eq!(texts(&node(dual)), ["10.244.1.0/24", "fd00::/64"]);
        assert!(pod_cidrs(&node(serde_json::json!({}))).is_empty());
    }

    #[test]
    fn plan_depends_on_ranges() {
        let dir = tempfile::tempdir().expect("temp dir");
        let config = config(dir.path());
        let plan = |c: &str| Plan::new(&config, vec![c.parse().expect("valid")]);
        assert_eq!(plan("10.244.1.0/24"), plan("10.244.1.0/24"));
        assert_ne!(plan("10.244.1.0/24").conflist(), plan("10.244.2.0/24").conflist());
    }
}
