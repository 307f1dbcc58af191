//! What configuration files and flags become, and what is refused.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

fn flags(extra: &[&str]) -> Args {
    let base = ["kubelet", "--container-runtime-endpoint=unix:///run/c.sock", "--hostname-override=node"];
    Cli::try_parse_from(base.iter().chain(extra)).unwrap().args
}

const HEADER: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfailSwapOn: false\nfailCgroupV1: false\n";

fn configure_text(text: &str, extra: &[&str]) -> Result<Config, String> {
    let file = parse(&format!("{HEADER}{text}"))?;
    build(flags(extra), file).map_err(|error| error.to_string())
}

#[test]
fn defaults_are_upstreams() {
    let config = configure_text("", &[]).unwrap();
    assert_eq!(config.node.max_pods, 110);
    assert_eq!(config.healthz, Some("127.0.0.1:10248".parse().unwrap()));
    let server = config.server.unwrap();
    assert_eq!(server.address, "0.0.0.0:10250".parse().unwrap());
    assert!(!server.auth.anonymous);
    assert_eq!(config.node.status_update_frequency, Duration::from_secs(10));
    assert_eq!(config.node.status_report_frequency, Duration::from_secs(300));
    assert_eq!(config.sync_frequency, Duration::from_secs(60));
    assert_eq!(config.static_pod_path, None);
}

#[test]
fn flags_win_over_the_file() {
    let config = configure_text(
        "port: 1\nmaxPods: 5\nclusterDNS: [10.96.0.10]\nstaticPodPath: /a\n",
        &["--port=2", "--pod-manifest-path=/b"],
    )
    .unwrap();
    assert_eq!(config.server.unwrap().address.port(), 2);
    assert_eq!(config.node.max_pods, 5);
    assert_eq!(config.static_pod_path.as_deref(), Some(Path::new("/b")));
    assert_eq!(config.cluster_dns.len(), 1);
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let cases = [
        ("nonsense: 1\n", "unknown field `nonsense`"),
        ("port: many\n", "strict decoding error"),
        ("shutdownGracePeriod: 30s\n", "\"shutdownGracePeriod\""),
        ("featureGates: {Foo: true}\n", "\"featureGates\""),
        ("readOnlyPort: 10255\n", "readOnlyPort"),
        ("maxPods: -1\n", "maxPods"),
        ("cgroupDriver: other\n", "unknown cgroup driver"),
        ("systemReserved: {gpu: \"1\"}\n", "cannot reserve"),
        ("authorization: {mode: Webhook}\n", "no client provided"),
        ("tlsCertFile: /a\n", "together"),
    ];
    for (text, expected) in cases {
        let error = configure_text(text, &[]).unwrap_err();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    assert!(parse("kind: Pod\napiVersion: v1\n").unwrap_err().contains("KubeletConfiguration"));
}

#[test]
fn the_file_that_kubeadm_writes_is_accepted() {
    let text = "
authentication:
  anonymous: {enabled: false}
  webhook: {cacheTTL: 0s, enabled: true}
  x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}
authorization:
  mode: Webhook
  webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: \"\"
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
logging:
  flushFrequency: 0
  options: {json: {infoBufferSize: \"0\"}, text: {infoBufferSize: \"0\"}}
  verbosity: 0
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
";
    let config = configure_text(text, &["--kubeconfig=/k"]).unwrap();
    assert_eq!(config.sync_frequency, Duration::from_secs(60), "zero means the default");
    assert_eq!(config.node.status_update_frequency, Duration::from_secs(10));
    assert_eq!(config.cgroup_driver, CgroupDriver::Systemd);
    assert!(config.server.unwrap().auth.authorize);
}
