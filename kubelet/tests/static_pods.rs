//! A whole kubelet without an apiserver: a manifest becomes a running pod, outlives a restart of the kubelet untouched,
//! and ends with its manifest.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use component_base::Shutdown;
use kubelet::config::{Config, NodeConfig};
use kubelet::events::Recorder;
use kubelet::runtime::{ContainerState, Runtime, RuntimePodSummary};

use crate::containerd::{BUSYBOX, Containerd, can_run};

fn config(containerd: &Containerd, manifests: &Path) -> Config {
    let runtime = containerd.runtime_config(Recorder::log_only());
    Config {
        kubeconfig: None,
        node: NodeConfig {
            name: runtime.node_name.clone(),
            hostname: runtime.node_name.clone(),
            ips: runtime.node_ips.clone(),
            register: false,
            labels: Default::default(),
            taints: Vec::new(),
            max_pods: 110,
            status_update_frequency: Duration::from_secs(10),
            status_report_frequency: Duration::from_secs(300),
            lease_duration: Duration::from_secs(40),
            max_images: 50,
            provider_id: None,
            port: 0,
            reserved: Default::default(),
            root_dir: runtime.root_dir.clone(),
        },
        static_pod_path: Some(manifests.to_owned()),
        file_check_frequency: Duration::from_secs(20),
        sync_frequency: Duration::from_secs(60),
        root_dir: runtime.root_dir,
        pod_logs_dir: runtime.pod_logs_dir,
        runtime_endpoint: runtime.endpoint,
        runtime_request_timeout: runtime.request_timeout,
        cgroup_driver: runtime.cgroup_driver,
        cgroup_root: runtime.cgroup_root,
        cgroups_per_qos: runtime.cgroups_per_qos,
        cpu_cfs_quota: runtime.cpu_cfs_quota,
        pod_pids_limit: runtime.pod_pids_limit,
        serialize_image_pulls: runtime.serialize_image_pulls,
        cluster_dns: runtime.cluster_dns,
        cluster_domain: runtime.cluster_domain,
        resolv_conf: runtime.resolv_conf,
        server: None,
        healthz: None,
    }
}

struct Kubelet {
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<Result<(), kubelet::kubelet::RunError>>,
}

impl Kubelet {
    fn start(config: Config) -> Self {
        let shutdown = Shutdown::new();
        Self { task: tokio::spawn(kubelet::kubelet::run(config, shutdown.clone())), shutdown }
    }

    async fn stop(self) {
        let began = Instant::now();
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "a kubelet ends within five seconds");
    }
}

async fn wait_for<T>(runtime: &Runtime, what: &str, check: impl Fn(&[RuntimePodSummary]) -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let pods = runtime.list_pods().await.unwrap();
        if let Some(found) = check(&pods) {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: last seen {pods:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The id of the newest running container of that name.
fn running(pods: &[RuntimePodSummary], name: &str) -> Option<String> {
    let containers = pods.iter().flat_map(|pod| &pod.containers);
    let mut running = containers.filter(|c| c.name == name && c.state == ContainerState::Running);
    running.next().map(|c| c.id.clone())
}

#[tokio::test]
async fn manifests_become_pods_that_outlive_the_kubelet() {
    if !can_run() {
        return;
    }
    let containerd = Containerd::start();
    let manifests = containerd.dir().join("manifests");
    fs::create_dir(&manifests).unwrap();
    let manifest = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: kube-system}}\nspec:\n  \
             terminationGracePeriodSeconds: 1\n  hostNetwork: true\n  \
             initContainers: [{{name: first, image: '{BUSYBOX}', command: ['true']}}]\n  containers:\n  \
             - {{name: keep, image: '{BUSYBOX}', command: [sleep, '1000'], env: [{{name: A, value: {value}}}]}}\n  \
             - {{name: ends, image: '{BUSYBOX}', command: ['false']}}\n"
        )
    };
    fs::write(manifests.join("web.yaml"), manifest("one")).unwrap();
    fs::write(manifests.join("broken.yaml"), "apiVersion: v1\nkind: Pod\nspec: 5\n").unwrap();
    let runtime = containerd.runtime(Recorder::log_only());

    let first = Kubelet::start(config(&containerd, &manifests));
    let keep = wait_for(&runtime, "the pod runs", |pods| running(pods, "keep")).await;
    let attempts = |pods: &[RuntimePodSummary]| {
        pods.iter().flat_map(|pod| &pod.containers).filter(|c| c.name == "ends").map(|c| c.attempt).max()
    };
    wait_for(&runtime, "a container that ends is restarted", |pods| attempts(pods).filter(|n| *n >= 1)).await;
    first.stop().await;
    assert_eq!(running(&runtime.list_pods().await.unwrap(), "keep"), Some(keep.clone()));

    let second = Kubelet::start(config(&containerd, &manifests));
    let before = attempts(&runtime.list_pods().await.unwrap()).unwrap();
    wait_for(&runtime, "the restart count goes on", |pods| attempts(pods).filter(|n| *n > before)).await;
    assert_eq!(running(&runtime.list_pods().await.unwrap(), "keep"), Some(keep.clone()), "untouched");

    fs::write(manifests.join("web.yaml"), manifest("two")).unwrap();
    wait_for(&runtime, "a changed manifest is a new pod", |pods| {
        running(pods, "keep").filter(|id| *id != keep)
    })
    .await;
    fs::remove_file(manifests.join("web.yaml")).unwrap();
    wait_for(&runtime, "nothing is left of it", |pods| pods.is_empty().then_some(())).await;
    second.stop().await;
}
