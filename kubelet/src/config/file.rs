//! KubeletConfiguration, kubelet.config.k8s.io/v1beta1: the fields this kubelet follows, and a clear no to the others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::ServerAuth;

/// A Go duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Duration(pub(super) std::time::Duration);

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        component_base::duration::deserialize(deserializer).map(Self)
    }
}

/// The supported fields.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct KubeletConfiguration {
    pub(super) enable_server: Option<bool>,
    pub(super) static_pod_path: Option<PathBuf>,
    pub(super) pod_logs_dir: Option<PathBuf>,
    pub(super) sync_frequency: Option<Duration>,
    pub(super) file_check_frequency: Option<Duration>,
    pub(super) address: Option<IpAddr>,
    pub(super) port: Option<u16>,
    read_only_port: Option<u16>,
    pub(super) tls_cert_file: Option<PathBuf>,
    pub(super) tls_private_key_file: Option<PathBuf>,
    rotate_certificates: Option<bool>,
    authentication: Option<Authentication>,
    authorization: Option<Authorization>,
    pub(super) healthz_port: Option<u16>,
    pub(super) healthz_bind_address: Option<IpAddr>,
    pub(super) cluster_domain: Option<String>,
    #[serde(rename = "clusterDNS")]
    pub(super) cluster_dns: Option<Vec<IpAddr>>,
    pub(super) streaming_connection_idle_timeout: Option<Duration>,
    pub(super) node_status_update_frequency: Option<Duration>,
    pub(super) node_status_report_frequency: Option<Duration>,
    pub(super) node_lease_duration_seconds: Option<u32>,
    pub(super) cgroup_root: Option<String>,
    #[serde(rename = "cgroupsPerQOS")]
    pub(super) cgroups_per_qos: Option<bool>,
    pub(super) cgroup_driver: Option<String>,
    #[serde(rename = "failCgroupV1")]
    fail_cgroup_v1: Option<bool>,
    pub(super) runtime_request_timeout: Option<Duration>,
    pub(super) max_pods: Option<i32>,
    pub(super) pod_pids_limit: Option<i64>,
    pub(super) resolv_conf: Option<PathBuf>,
    #[serde(rename = "cpuCFSQuota")]
    pub(super) cpu_cfs_quota: Option<bool>,
    pub(super) node_status_max_images: Option<i32>,
    pub(super) serialize_image_pulls: Option<bool>,
    pub(super) fail_swap_on: Option<bool>,
    pub(super) system_reserved: Option<BTreeMap<String, String>>,
    pub(super) kube_reserved: Option<BTreeMap<String, String>>,
    pub(super) enable_debugging_handlers: Option<bool>,
    #[serde(rename = "providerID")]
    pub(super) provider_id: Option<String>,
    pub(super) container_runtime_endpoint: Option<String>,
    pub(super) register_with_taints: Option<Vec<Taint>>,
    pub(super) register_node: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Authentication {
    x509: Option<X509>,
    webhook: Option<WebhookAuthentication>,
    anonymous: Option<Anonymous>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct X509 {
    #[serde(rename = "clientCAFile")]
    client_ca_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WebhookAuthentication {
    enabled: Option<bool>,
    // The server keeps answers for upstream's default time; another wish is refused below.
    #[serde(rename = "cacheTTL")]
    cache_ttl: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Anonymous {
    enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Authorization {
    mode: Option<String>,
    webhook: Option<WebhookAuthorization>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookAuthorization {
    #[serde(rename = "cacheAuthorizedTTL")]
    cache_authorized_ttl: Option<Duration>,
    #[serde(rename = "cacheUnauthorizedTTL")]
    cache_unauthorized_ttl: Option<Duration>,
}

/// Fields that upstream has and this kubelet does not follow, with the values that change nothing (kubeadm's generated
/// file spells many defaults out as zero values).
fn unsupported() -> Vec<(&'static str, Vec<Value>)> {
    let zero_or = |value: &str| vec![json!("0s"), json!(value)];
    let off = || vec![json!(false)];
    let empty = || vec![json!({}), json!([]), json!(""), Value::Null];
    let number = |value: i64| vec![json!(0), json!(value)];
    vec![
        ("httpCheckFrequency", zero_or("20s")),
        ("staticPodURL", empty()),
        ("staticPodURLHeader", empty()),
        ("tlsCipherSuites", empty()),
        ("tlsMinVersion", vec![json!(""), json!("VersionTLS12")]),
        ("tlsCurvePreferences", empty()),
        ("serverTLSBootstrap", off()),
        ("registryPullQPS", vec![json!(5)]),
        ("registryBurst", vec![json!(0), json!(10)]),
        ("imagePullCredentialsVerificationPolicy", vec![json!(""), json!("NeverVerifyPreloadedImages")]),
        ("preloadedImagesVerificationAllowlist", empty()),
        ("maxParallelImagePulls", vec![json!(1), Value::Null]),
        ("eventRecordQPS", vec![json!(0), json!(50)]),
        ("eventBurst", vec![json!(0), json!(100)]),
        ("enableContentionProfiling", off()),
        ("oomScoreAdj", vec![json!(-999), json!(0)]),
        ("volumeStatsAggPeriod", zero_or("1m0s")),
        ("imageMinimumGCAge", zero_or("2m0s")),
        ("imageMaximumGCAge", vec![json!("0s")]),
        ("imageGCHighThresholdPercent", number(85)),
        ("imageGCLowThresholdPercent", number(80)),
        ("kubeletCgroups", empty()),
        ("systemCgroups", empty()),
        ("cpuManagerPolicy", vec![json!(""), json!("none")]),
        ("cpuManagerPolicyOptions", empty()),
        ("singleProcessOOMKill", vec![Value::Null]),
        ("cpuManagerReconcilePeriod", zero_or("10s")),
        ("memoryManagerPolicy", vec![json!(""), json!("None")]),
        ("topologyManagerPolicy", vec![json!(""), json!("none")]),
        ("topologyManagerScope", vec![json!(""), json!("container")]),
        ("topologyManagerPolicyOptions", empty()),
        ("qosReserved", empty()),
        ("hairpinMode", vec![json!(""), json!("promiscuous-bridge")]),
        ("podCIDR", empty()),
        ("cpuCFSQuotaPeriod", vec![json!("0s"), json!("100ms")]),
        ("maxOpenFiles", number(1_000_000)),
        (
            "contentType",
            vec![json!(""), json!("application/vnd.kubernetes.protobuf"), json!("application/json")],
        ),
        ("kubeAPIQPS", vec![json!(0), json!(50)]),
        ("kubeAPIBurst", vec![json!(0), json!(100)]),
        ("evictionHard", empty()),
        ("evictionSoft", empty()),
        ("evictionSoftGracePeriod", empty()),
        ("evictionPressureTransitionPeriod", zero_or("5m0s")),
        ("evictionMaxPodGracePeriod", vec![json!(0)]),
        ("evictionMinimumReclaim", empty()),
        ("mergeDefaultEvictionSettings", off()),
        ("podsPerCore", vec![json!(0)]),
        ("enableControllerAttachDetach", vec![json!(true)]),
        ("protectKernelDefaults", off()),
        ("makeIPTablesUtilChains", vec![json!(true), json!(false)]),
        ("iptablesMasqueradeBit", number(14)),
        ("iptablesDropBit", number(15)),
        ("featureGates", empty()),
        ("memorySwap", empty()),
        ("containerLogMaxSize", vec![json!(""), json!("10Mi")]),
        ("containerLogMaxFiles", number(5)),
        ("containerLogMaxWorkers", number(1)),
        ("containerLogMonitorInterval", zero_or("10s")),
        ("configMapAndSecretChangeDetectionStrategy", vec![json!(""), json!("Watch")]),
        ("reservedSystemCPUs", empty()),
        ("showHiddenMetricsForVersion", empty()),
        ("systemReservedCgroup", empty()),
        ("kubeReservedCgroup", empty()),
        ("enforceNodeAllocatable", vec![json!(["pods"]), json!([]), Value::Null]),
        ("allowedUnsafeSysctls", empty()),
        ("volumePluginDir", vec![json!(""), json!("/usr/libexec/kubernetes/kubelet-plugins/volume/exec/")]),
        ("kernelMemcgNotification", off()),
        ("logging", vec![json!({}), Value::Null, zero_logging()]),
        ("enableSystemLogHandler", vec![json!(false)]),
        ("enableSystemLogQuery", off()),
        ("shutdownGracePeriod", vec![json!("0s")]),
        ("shutdownGracePeriodCriticalPods", vec![json!("0s")]),
        ("shutdownGracePeriodByPodPriority", empty()),
        ("crashLoopBackOff", empty()),
        ("reservedMemory", empty()),
        ("enableProfilingHandler", vec![json!(false)]),
        ("enableDebugFlagsHandler", vec![json!(false)]),
        ("seccompDefault", off()),
        ("memoryThrottlingFactor", vec![json!(0.9), Value::Null]),
        ("tracing", empty()),
        ("localStorageCapacityIsolation", vec![json!(true)]),
        ("imageServiceEndpoint", empty()),
        ("userNamespaces", empty()),
    ]
}

/// What kubeadm writes for `logging`.
fn zero_logging() -> Value {
    json!({
        "flushFrequency": 0,
        "options": { "json": { "infoBufferSize": "0" }, "text": { "infoBufferSize": "0" } },
        "verbosity": 0
    })
}

/// Reads the file's text.
pub(super) fn parse(text: &str) -> Result<KubeletConfiguration, String> {
    let mut value: Value = serde_saphyr::from_str(text)
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
    let Some(map) = value.as_object_mut() else { return Err("not an object".to_owned()) };
    let api_version = map.remove("apiVersion");
    let kind = map.remove("kind");
    if api_version.as_ref().and_then(Value::as_str) != Some("kubelet.config.k8s.io/v1beta1")
        || kind.as_ref().and_then(Value::as_str) != Some("KubeletConfiguration")
    {
        return Err(format!(
            "no kind {} is registered for version {}: expected KubeletConfiguration of kubelet.config.k8s.io/v1beta1",
            kind.unwrap_or_default(),
            api_version.unwrap_or_default()
        ));
    }
    for (field, harmless) in unsupported() {
        let Some(found) = map.remove(field) else { continue };
        if !harmless.contains(&found) {
            return Err(format!("field {field:?} with value {found} is not supported by this kubelet"));
        }
    }
    // Addresses that are empty strings mean "not set", as upstream's zero values do.
    map.retain(|_, value| !value.is_null() && value.as_str() != Some(""));
    serde_json::from_value(value).map_err(|error| format!("strict decoding error: {error}"))
}

impl KubeletConfiguration {
    /// Fields whose values this kubelet can't follow.
    pub(super) fn validate(&self) -> Result<(), String> {
        if self.read_only_port.unwrap_or(0) != 0 {
            return Err("readOnlyPort is not supported: the port 10250 asks who is there".to_owned());
        }
        if self.rotate_certificates == Some(true) {
            // A client certificate file that something else renews is read again; requesting one is not supported.
            tracing::warn!("rotateCertificates: certificates are re-read but not requested by this kubelet");
        }
        if self.fail_cgroup_v1.unwrap_or(true)
            && !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
        {
            return Err("kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is \
                        deprecated; set failCgroupV1 to false to run on it"
                .to_owned());
        }
        if self.max_pods.is_some_and(|max| max < 0) {
            return Err(
                "invalid configuration: maxPods (--max-pods) must not be a negative number".to_owned()
            );
        }
        for (name, quantity) in self.system_reserved.iter().chain(&self.kube_reserved).flatten() {
            if !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage" | "pid") {
                return Err(format!("cannot reserve {name:?} resource"));
            }
            Quantity::parse(quantity).map_err(|error| format!("reserved {name}: {error}"))?;
        }
        let cached = self.authentication.as_ref().and_then(|a| a.webhook.as_ref()).and_then(|w| w.cache_ttl);
        let secs = |duration: Option<Duration>| duration.map(|d| d.0.as_secs());
        if !matches!(secs(cached), None | Some(0 | 120)) {
            return Err("authentication.webhook.cacheTTL other than 2m is not supported".to_owned());
        }
        let webhook = self.authorization.as_ref().and_then(|a| a.webhook.as_ref());
        if !matches!(secs(webhook.and_then(|w| w.cache_authorized_ttl)), None | Some(0 | 300))
            || !matches!(secs(webhook.and_then(|w| w.cache_unauthorized_ttl)), None | Some(0 | 30))
        {
            return Err(
                "authorization.webhook cache times other than 5m and 30s are not supported".to_owned()
            );
        }
        Ok(())
    }

    /// Who may use the port 10250. Upstream's defaults: no anonymous, webhook on. A standalone kubelet has no apiserver to
    /// ask, so there a webhook that nobody asked for is off.
    pub(super) fn server_auth(&self, has_apiserver: bool) -> Result<ServerAuth, String> {
        let authentication = self.authentication.as_ref();
        let webhook = authentication.and_then(|a| a.webhook.as_ref()).and_then(|w| w.enabled);
        let mode = self.authorization.as_ref().and_then(|a| a.mode.as_deref());
        let authorize = match mode {
            None => has_apiserver,
            Some("Webhook") => true,
            Some("AlwaysAllow") => false,
            Some(other) => return Err(format!("unknown authorization mode {other}")),
        };
        if !has_apiserver && (webhook == Some(true) || mode == Some("Webhook")) {
            return Err("no client provided, cannot use webhook authentication or authorization".to_owned());
        }
        Ok(ServerAuth {
            anonymous: authentication
                .and_then(|a| a.anonymous.as_ref())
                .and_then(|a| a.enabled)
                .unwrap_or(false),
            webhook: webhook.unwrap_or(has_apiserver),
            client_ca_file: authentication
                .and_then(|a| a.x509.as_ref())
                .and_then(|x| x.client_ca_file.clone()),
            authorize,
        })
    }

    /// systemReserved plus kubeReserved.
    pub(super) fn reserved(&self) -> BTreeMap<String, String> {
        let mut sum: BTreeMap<String, Quantity> = BTreeMap::new();
        for (name, text) in self.system_reserved.iter().chain(&self.kube_reserved).flatten() {
            if let Ok(quantity) = Quantity::parse(text) {
                let total = match sum.remove(name) {
                    Some(held) => held + quantity,
                    None => quantity,
                };
                sum.insert(name.clone(), total);
            }
        }
        sum.into_iter().map(|(name, quantity)| (name, quantity.to_string())).collect()
    }
}
