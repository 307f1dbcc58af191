//! A containerd of the test's own: sockets, state, images, CNI network and cgroups apart from the machine's, and all
//! of it gone when the value is dropped.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use kubelet::cri;
use kubelet::events::Recorder;
use kubelet::runtime::{CgroupDriver, Runtime, RuntimeConfig};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::{Digest, Sha256};

pub(crate) const BUSYBOX: &str = "keelson.local/busybox:test";
const PAUSE: &str = "keelson.local/pause:test";

static COUNT: AtomicU8 = AtomicU8::new(0);

/// A running containerd. Dropping it stops its pods and takes everything away.
pub(crate) struct Containerd {
    dir: PathBuf,
    child: Option<Child>,
    bridge: String,
    cgroup: String,
}

/// Whether this process may run containers; says why not.
pub(crate) fn can_run() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: containers need root");
    }
    root
}

fn config(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
[grpc]
address = "{dir}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{dir}/cni"
"#
    )
}

/// A bridge without masquerading: it needs no firewall rule, so none can be left behind.
fn network(dir: &Path, bridge: &str, subnet: u8) -> String {
    let dir = dir.display();
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "{bridge}", "plugins": [
            {{"type": "bridge", "bridge": "{bridge}", "isGateway": true, "ipMasq": false,
              "ipam": {{"type": "host-local", "dataDir": "{dir}/ipam",
                       "ranges": [[{{"subnet": "10.244.{subnet}.0/24"}}]]}}}}]}}"#
    )
}

/// A docker archive of one image: busybox under all its names.
fn image_archive(path: &Path, name: &str, command: &[&str]) {
    let busybox = fs::read("/usr/bin/busybox").expect("busybox-static is installed");
    let applets = Command::new("/usr/bin/busybox").arg("--list").output().expect("busybox runs").stdout;
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let directory = |layer: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        layer.append_data(&mut header, name, std::io::empty()).unwrap();
    };
    for (name, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777), ("proc/", 0o555)] {
        directory(&mut layer, name, mode);
    }
    header.set_mode(0o755);
    header.set_size(busybox.len() as u64);
    layer.append_data(&mut header, "bin/busybox", busybox.as_slice()).unwrap();
    let passwd = b"root:x:0:0::/:/bin/sh\nwww:x:33:33::/:/bin/sh\n";
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(passwd.len() as u64);
    layer.append_data(&mut header, "etc/passwd", passwd.as_slice()).unwrap();
    for applet in String::from_utf8(applets).unwrap().lines().filter(|a| *a != "busybox") {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    })
    .to_string();
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let manifest =
        serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, bytes) in [
        ("layer.tar", layer.as_slice()),
        (&config_name, config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    archive.finish().unwrap();
}

impl Containerd {
    /// Starts one and imports the images.
    pub(crate) fn start() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        // Short: a unix socket's path may have 107 bytes, and shims add to it.
        let dir = std::env::temp_dir().join(format!("kl-{pid}-{count}"));
        let this = Self {
            bridge: format!("kl{pid}-{count}").chars().take(15).collect(),
            cgroup: format!("kl-{pid}-{count}"),
            child: None,
            dir,
        };
        fs::create_dir_all(this.dir.join("cni")).unwrap();
        fs::write(this.dir.join("config.toml"), config(&this.dir)).unwrap();
        fs::write(this.dir.join("cni/10-test.conflist"), network(&this.dir, &this.bridge, 99 - count))
            .unwrap();
        let mut this = this;
        this.spawn();
        for (name, image, command) in
            [("busybox", BUSYBOX, vec!["sh"]), ("pause", PAUSE, vec!["sleep", "2147483647"])]
        {
            let path = this.dir.join(format!("{name}.tar"));
            image_archive(&path, image, &command);
            this.ctr(&["images", "import", path.to_str().unwrap()]);
        }
        this
    }

    fn spawn(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd is installed");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        // Its CRI side is the last to come up: it first takes up the pods it finds.
        while let Err(error) = self.with_cri(async |cri| cri.list_pod_sandbox(HashMap::new()).await) {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "containerd doesn't answer: {error}\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Calls CRI from a thread with a runtime of its own: the caller, a drop perhaps, may be inside one.
    fn with_cri<T: Send + 'static>(&self, call: impl AsyncFnOnce(cri::Client) -> T + Send + 'static) -> T {
        let socket = self.dir.join("c.sock");
        let work = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { call(cri::Client::new(&socket, Duration::from_secs(20))).await })
        });
        work.join().expect("the call doesn't panic")
    }

    fn ctr(&self, args: &[&str]) {
        let socket = self.dir.join("c.sock");
        let mut ctr = Command::new("ctr");
        let output =
            ctr.arg("-a").arg(socket).args(["-n", "k8s.io"]).args(args).output().expect("ctr is installed");
        assert!(output.status.success(), "ctr {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Kills containerd at once and starts it again over the same state.
    pub(crate) fn restart(&mut self) {
        self.kill_daemon();
        self.spawn();
    }

    /// Kills containerd at once; its shims and containers live on.
    pub(crate) fn kill_daemon(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("containerd is our child");
            child.wait().expect("containerd is our child");
        }
    }

    /// Where the test keeps what the kubelet would keep in /var.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A configuration for the kubelet's runtime side.
    pub(crate) fn runtime_config(&self, recorder: Recorder) -> RuntimeConfig {
        RuntimeConfig {
            endpoint: format!("unix://{}", self.dir.join("c.sock").display()),
            root_dir: self.dir.join("kubelet"),
            pod_logs_dir: self.dir.join("log-pods/pods"),
            cgroup_driver: CgroupDriver::Cgroupfs,
            cgroup_root: format!("/{}", self.cgroup),
            cgroups_per_qos: true,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            node_name: "test-node".to_owned(),
            node_ips: vec![IpAddr::from([127, 0, 0, 1])],
            request_timeout: Duration::from_secs(60),
            serialize_image_pulls: true,
            cpu_cfs_quota: true,
            pod_pids_limit: None,
            connection: None,
            recorder,
        }
    }

    /// The kubelet's runtime side over this containerd.
    pub(crate) fn runtime(&self, recorder: Recorder) -> Runtime {
        Runtime::connect(self.runtime_config(recorder)).expect("the configuration is valid")
    }

    fn remove_pods(&self) {
        self.with_cri(async |cri| {
            for sandbox in cri.list_pod_sandbox(HashMap::new()).await.unwrap_or_default() {
                let stopped = cri.stop_pod_sandbox(&sandbox.id).await;
                let removed = cri.remove_pod_sandbox(&sandbox.id).await;
                if let Err(error) = stopped.and(removed) {
                    eprintln!("sandbox {} not removed: {error}", sandbox.id);
                }
            }
        });
    }

    /// Shims outlive containerd: ends those that were started for our socket.
    fn kill_shims(&self) {
        let mark = self.dir.display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if command.starts_with("/usr/bin/containerd-shim") && command.contains(&mark) {
                // Gone already is as good.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    fn unmount_all(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|p| Path::new(p).starts_with(&self.dir));
        for path in ours.collect::<Vec<_>>().into_iter().rev() {
            if let Err(error) = umount2(path, MntFlags::MNT_DETACH) {
                eprintln!("{path} not unmounted: {error}");
            }
        }
    }

    fn remove_cgroups(&self) {
        fn remove(path: &Path) {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    remove(&entry.path());
                }
            }
            for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
                let _ = kill(Pid::from_raw(pid.parse().unwrap_or(i32::MAX)), Signal::SIGKILL);
            }
            let deadline = Instant::now() + Duration::from_secs(2);
            while fs::remove_dir(path).is_err() && path.exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
            let Some(mount) = line.split(' ').nth(4) else { continue };
            remove(&Path::new(mount).join(&self.cgroup));
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.child.is_none() && !std::thread::panicking() {
            self.spawn();
        }
        self.remove_pods();
        self.kill_daemon();
        self.kill_shims();
        self.remove_cgroups();
        self.unmount_all();
        let _ = Command::new("ip").args(["link", "del", &self.bridge]).output();
        if std::thread::panicking() {
            eprintln!("logs are kept in {}", self.dir.display());
            for large in ["root", "busybox.tar", "pause.tar"] {
                let path = self.dir.join(large);
                let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            }
        } else if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{} not removed: {error}", self.dir.display());
        }
    }
}
