//! A pod's life over a real containerd: sandbox, image, containers, environment, logs, exec, hooks, kill, adoption
//! after a restart, and nothing left at the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};
use kubelet::events::Recorder;
use kubelet::runtime::{
    ContainerKind, ContainerState, PodContext, Runtime, RuntimeContainerStatus, RuntimePodStatus,
    SandboxState, StartError,
};
use kubelet::volumes::{MountedVolume, MountedVolumes};
use serde_json::{Value, json};

use crate::containerd::{BUSYBOX, Containerd, can_run};

fn pod(name: &str, spec: Value) -> Arc<Pod> {
    let uid = format!("uid-{name}");
    Arc::new(
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "default", "uid": uid}, "spec": spec}),
        )
        .unwrap(),
    )
}

fn first(pod: &Pod) -> &Container {
    &pod.spec.as_ref().unwrap().containers[0]
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap()
}

fn phase(name: &str, since: &mut Instant) {
    eprintln!("{name}: {:?}", since.elapsed());
    *since = Instant::now();
}

async fn status(runtime: &Runtime, pod: &Pod) -> RuntimePodStatus {
    runtime.pod_status(uid(pod), pod.metadata.name.as_deref().unwrap(), "default").await.unwrap()
}

async fn context(runtime: &Runtime, pod: &Arc<Pod>, volumes: MountedVolumes) -> PodContext {
    let sandbox_id = runtime.create_sandbox(pod, 0).await.unwrap();
    let pod_ips = status(runtime, pod).await.ips().to_vec();
    PodContext { pod: pod.clone(), sandbox_id, pod_ips, volumes }
}

async fn start(runtime: &Runtime, context: &PodContext) -> Result<String, StartError> {
    runtime.start_container(context, first(&context.pod), ContainerKind::Regular, 0).await
}

async fn wait_for(
    runtime: &Runtime,
    pod: &Pod,
    what: impl Fn(&RuntimeContainerStatus) -> bool,
) -> RuntimeContainerStatus {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = status(runtime, pod).await;
        if let Some(container) = status.containers.first().filter(|c| what(c)) {
            return container.clone();
        }
        assert!(Instant::now() < deadline, "still {status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn remove(runtime: &Runtime, pod: &Pod) {
    let status = status(runtime, pod).await;
    for container in &status.containers {
        runtime.kill_container(pod, &container.id, &container.name, 0, "").await.unwrap();
        runtime.remove_container(&container.id).await.unwrap();
        runtime.remove_container(&container.id).await.unwrap();
    }
    for sandbox in &status.sandboxes {
        runtime.stop_sandbox(&sandbox.id).await.unwrap();
        runtime.remove_sandbox(&sandbox.id).await.unwrap();
        runtime.remove_sandbox(&sandbox.id).await.unwrap();
    }
    runtime.cleanup_pod(uid(pod), pod.metadata.name.as_deref().unwrap(), "default").await.unwrap();
}

fn log(container: &RuntimeContainerStatus) -> String {
    std::fs::read_to_string(&container.log_path).unwrap_or_default()
}

fn cgroup_value(runtime: &Runtime, controller: &str, pod: &str, v1: &str, v2: &str) -> String {
    let root = runtime.config().cgroup_root.trim_start_matches('/');
    let v1 = format!("/sys/fs/cgroup/{controller}/{root}/kubepods/{pod}/{v1}");
    let v2 = format!("/sys/fs/cgroup/{root}/kubepods/{pod}/{v2}");
    std::fs::read_to_string(v1).or_else(|_| std::fs::read_to_string(v2)).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn life_of_pods() {
    if !can_run() {
        return;
    }
    let mut since = Instant::now();
    let mut containerd = Containerd::start();
    phase("containerd", &mut since);
    let recorder = Recorder::fake();
    let runtime = containerd.runtime(recorder.clone());
    assert_eq!(runtime.version().await.unwrap().name, "containerd");
    let conditions = runtime.conditions().await.unwrap();
    assert!(conditions.runtime.status && conditions.network.status, "{conditions:?}");
    assert!(runtime.list_images().await.unwrap().iter().any(|i| i.names.contains(&BUSYBOX.to_owned())));
    assert!(!runtime.image_fs_info().await.unwrap().mountpoint.is_empty());

    runs_and_ends(&runtime, &recorder, &mut containerd).await;
    phase("runs_and_ends", &mut since);
    mounts_and_environment(&runtime, containerd.dir()).await;
    phase("mounts_and_environment", &mut since);
    refusals(&runtime, &recorder).await;
    phase("refusals", &mut since);
    hooks(&runtime, &recorder).await;
    phase("hooks", &mut since);
    assert!(runtime.list_pods().await.unwrap().is_empty());
    assert!(runtime.cgroups().pods_on_disk().is_empty());
}

async fn runs_and_ends(runtime: &Runtime, recorder: &Recorder, containerd: &mut Containerd) {
    let pod = pod(
        "web",
        json!({"hostname": "hosty", "containers": [{
            "name": "c", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c"], "args": ["echo hello from $(hostname); trap 'echo bye; exit 3' TERM; while true; do sleep 0.1; done"],
            "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}}]}),
    );
    let context = context(runtime, &pod, MountedVolumes::default()).await;
    assert!(context.pod_ips[0].to_string().starts_with("10.244."), "{context:?}");
    let id = start(runtime, &context).await.unwrap();
    let running =
        wait_for(runtime, &pod, |c| c.state == ContainerState::Running && log(c).contains("hello")).await;
    assert_eq!((running.id.as_str(), running.restart_count), (id.as_str(), 0));
    assert!(log(&running).contains(" stdout F hello from hosty\n"), "{}", log(&running));
    let reasons: Vec<_> = recorder.collected().into_iter().map(|e| e.reason).collect();
    assert_eq!(reasons, ["MissingClusterDNS", "Pulled", "Created", "Started"]);
    assert_eq!(
        cgroup_value(runtime, "memory", "burstable/poduid-web", "memory.limit_in_bytes", "memory.max"),
        "67108864"
    );

    let exec = |command: &str| {
        let command: Vec<String> = ["sh", "-c", command].map(str::to_owned).to_vec();
        let (runtime, id) = (runtime.clone(), id.clone());
        async move { runtime.exec_sync(&id, &command, Duration::from_secs(10)).await }
    };
    let output = exec("cat /etc/hosts; echo oops >&2; exit 7").await.unwrap();
    assert_eq!(output.exit_code, 7);
    assert_eq!(output.stderr, b"oops\n");
    let hosts = String::from_utf8(output.stdout).unwrap();
    assert!(hosts.contains(&format!("{}\thosty\n", context.pod_ips[0])), "{hosts}");
    let slow: Vec<String> = ["sleep", "60"].map(str::to_owned).to_vec();
    let cut = runtime.exec_sync(&id, &slow, Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(cut, kubelet::runtime::RuntimeError::Timeout(_)), "{cut:?}");

    // Neither a new kubelet nor a new containerd touches what runs.
    containerd.restart();
    let adopted = containerd.runtime(Recorder::fake());
    let summary = adopted.list_pods().await.unwrap();
    assert_eq!(summary[0].containers[0].id, id);
    assert_eq!(summary[0].containers[0].state, ContainerState::Running);
    assert_eq!(status(&adopted, &pod).await.sandboxes[0].state, SandboxState::Ready);

    let killing = Instant::now();
    adopted.kill_container(&pod, &id, "c", 10, "Stopping container c").await.unwrap();
    assert!(killing.elapsed() < Duration::from_secs(8), "TERM was enough");
    let ended = wait_for(&adopted, &pod, |c| c.state == ContainerState::Exited).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (3, "Error"));
    assert!(log(&ended).contains("bye"));
    remove(&adopted, &pod).await;
    assert!(!ended.log_path.exists());
    assert!(!runtime.config().pod_logs_dir.join("default_web_uid-web").exists());
}

async fn mounts_and_environment(runtime: &Runtime, dir: &Path) {
    let volume = dir.join("volume");
    std::fs::create_dir_all(volume.join("sub")).unwrap();
    std::fs::write(volume.join("sub/file"), "content").unwrap();
    std::fs::create_dir(volume.join("etc")).unwrap();
    std::os::unix::fs::symlink("/etc", volume.join("escape")).unwrap();
    let volumes = MountedVolumes(Arc::new(BTreeMap::from([(
        "v".to_owned(),
        MountedVolume { host_path: volume.clone(), read_only: false },
    )])));
    let script = "cat /data/file; echo; id -u; id -g; echo $GREETING $WHERE; ls /hole; echo words > /dev/termination-log; \
                  grep NoNewPrivs /proc/self/status; touch /rootfs || echo read-only";
    let pod = pod(
        "mounts",
        json!({"volumes": [], "securityContext": {"runAsUser": 33, "runAsGroup": 34, "runAsNonRoot": true},
            "containers": [{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", script],
                "terminationMessagePath": "/dev/termination-log",
                "env": [{"name": "NAME", "value": "you"}, {"name": "GREETING", "value": "hi $(NAME)"},
                        {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                                    "seccompProfile": {"type": "RuntimeDefault"}, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "v", "mountPath": "/data", "subPath": "sub"},
                                 {"name": "v", "mountPath": "/hole", "subPath": "escape"}]}]}),
    );
    let context = context(runtime, &pod, volumes).await;
    start(runtime, &context).await.unwrap();
    let ended = wait_for(runtime, &pod, |c| c.state == ContainerState::Exited).await;
    let lines: Vec<String> =
        log(&ended).lines().map(|l| l.splitn(4, ' ').nth(3).unwrap_or_default().to_owned()).collect();
    let text = lines.join("\n");
    assert!(text.starts_with(&format!("content\n33\n34\nhi you {}\n", context.pod_ips[0])), "{text}");
    assert!(!text.contains("passwd"), "the link led outside: {text}");
    assert!(text.contains("NoNewPrivs:\t1") && text.contains("read-only"), "{text}");
    assert_eq!(ended.message, "words\n");
    remove(runtime, &pod).await;
    kubelet::volumes::subpath::unmount_all(&runtime.config().root_dir.join("pods/uid-mounts")).unwrap();
}

async fn refusals(runtime: &Runtime, recorder: &Recorder) {
    let check = async |container: Value, reason: &str, message: &str| {
        let mut container = container;
        container["name"] = json!("c");
        let pod = pod("refused", json!({"containers": [container]}));
        let context = context(runtime, &pod, MountedVolumes::default()).await;
        let error = start(runtime, &context).await.unwrap_err();
        assert_eq!(error.reason, reason, "{error}");
        assert!(error.message.contains(message), "{error}");
        let again = start(runtime, &context).await.unwrap_err();
        remove(runtime, &pod).await;
        again
    };
    let missing = json!({"image": "127.0.0.1:9/none:1"});
    let again =
        check(missing, "ErrImagePull", "failed to pull and unpack image \"127.0.0.1:9/none:1\"").await;
    assert_eq!(again.reason, "ImagePullBackOff");
    assert!(
        again.message.starts_with("Back-off pulling image \"127.0.0.1:9/none:1\": ErrImagePull: "),
        "{again}"
    );
    check(json!({"image": "Bad Name"}), "InvalidImageName", "").await;
    check(json!({"image": "none.invalid/x:1", "imagePullPolicy": "Never"}), "ErrImageNeverPull", "Never")
        .await;
    let root = json!({"image": BUSYBOX, "securityContext": {"runAsNonRoot": true}});
    check(root, "CreateContainerConfigError", "image will run as root").await;
    let seccomp = json!({"type": "Localhost", "localhostProfile": ""});
    let seccomp = json!({"image": BUSYBOX, "securityContext": {"seccompProfile": seccomp}});
    check(seccomp, "CreateContainerConfigError", "localhostProfile must be set").await;
    let volume = json!({"image": BUSYBOX, "volumeMounts": [{"name": "none", "mountPath": "/x"}]});
    check(volume, "CreateContainerConfigError", "cannot find volume").await;
    check(json!({"image": BUSYBOX, "command": ["/no/such"]}), "RunContainerError", "no such file").await;
    let failures: Vec<_> =
        recorder.collected().into_iter().filter(|e| e.reason == "Failed").map(|e| e.message).collect();
    for text in [
        "Failed to pull image",
        "Error: ErrImagePull",
        "Error: ImagePullBackOff",
        "Error: container has runAsNonRoot",
    ] {
        assert!(failures.iter().any(|message| message.starts_with(text)), "{text} in {failures:?}");
    }
}

async fn hooks(runtime: &Runtime, recorder: &Recorder) {
    let good = pod(
        "hooks",
        json!({"containers": [{"name": "c", "image": BUSYBOX, "command": ["sh", "-c", "while true; do sleep 0.1; done"],
            "lifecycle": {"postStart": {"exec": {"command": ["touch", "/started"]}},
                          "preStop": {"exec": {"command": ["sh", "-c", "test -e /started && echo stopping > /proc/1/fd/1"]}}}}]}),
    );
    let context_good = context(runtime, &good, MountedVolumes::default()).await;
    let id = start(runtime, &context_good).await.unwrap();
    runtime.kill_container(&good, &id, "c", 2, "").await.unwrap();
    let ended = wait_for(runtime, &good, |c| c.state == ContainerState::Exited).await;
    assert!(log(&ended).contains("stopping"), "{}", log(&ended));
    assert_eq!(ended.exit_code, 137);
    remove(runtime, &good).await;

    let bad = pod(
        "bad-hook",
        json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": BUSYBOX, "command": ["sleep", "600"],
            "lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "echo why; exit 9"]}}}}]}),
    );
    let context_bad = context(runtime, &bad, MountedVolumes::default()).await;
    let error = start(runtime, &context_bad).await.unwrap_err();
    assert_eq!(error.reason, "PostStartHookError");
    assert!(error.message.contains("exited with 9") && error.message.contains("why"), "{error}");
    wait_for(runtime, &bad, |c| c.state == ContainerState::Exited).await;
    assert!(recorder.collected().iter().any(|e| e.reason == "FailedPostStartHook"));
    remove(runtime, &bad).await;
}
