//! Names, values, and a tree in a plain directory that stands for cgroupfs.

use super::*;
use serde_json::json;

fn config(driver: CgroupDriver) -> CgroupConfig {
    CgroupConfig { driver, root: String::new(), per_qos: true, pids_limit: Some(100), cfs_quota: true }
}

fn pod(resources: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "11-22"},
        "spec": {"containers": [{"name": "c", "resources": resources}]}
    }))
    .unwrap()
}

const HYBRID: &str = "\
30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
35 30 0:27 / /elsewhere/cpu rw,relatime - cgroup cgroup rw,cpu
";

#[test]
fn mounts_are_found_once() {
    let mounts = parse_mounts(HYBRID);
    let paths: Vec<_> = mounts.iter().map(|m| m.path.to_str().unwrap()).collect();
    assert_eq!(
        paths,
        ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"]
    );
    assert_eq!(CgroupManager::with_mounts(&config(CgroupDriver::Cgroupfs), mounts).version(), Version::V1);
    let unified = parse_mounts("30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    assert_eq!(CgroupManager::with_mounts(&config(CgroupDriver::Cgroupfs), unified).version(), Version::V2);
}

#[test]
fn parents_by_class_and_driver() {
    let guaranteed = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
    for (resources, cgroupfs, systemd) in [
        (guaranteed, "/kubepods/pod11-22", "/kubepods.slice/kubepods-pod11_22.slice"),
        (
            json!({"requests": {"cpu": "1"}}),
            "/kubepods/burstable/pod11-22",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod11_22.slice",
        ),
        (
            json!({}),
            "/kubepods/besteffort/pod11-22",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod11_22.slice",
        ),
    ] {
        let parent = |driver| {
            CgroupManager::with_mounts(&config(driver), Vec::new()).pod_cgroup_parent(&pod(resources.clone()))
        };
        assert_eq!(parent(CgroupDriver::Cgroupfs), cgroupfs);
        assert_eq!(parent(CgroupDriver::Systemd), systemd);
    }
}

#[test]
fn values_follow_requests_and_limits() {
    let both = pod_values(
        &pod(json!({"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}})),
        true,
    );
    assert_eq!(both.cpu_shares, Some(256));
    assert_eq!(both.cpu_quota, Some(50_000));
    assert_eq!(both.memory_limit, Some(64 << 20));
    assert_eq!(pod_values(&pod(json!({})), true), CgroupValues { cpu_shares: Some(2), ..Default::default() });
    assert_eq!(pod_values(&pod(json!({"limits": {"cpu": "1m"}})), true).cpu_quota, Some(1000));
    assert_eq!(pod_values(&pod(json!({"limits": {"cpu": "1"}})), false).cpu_quota, None);
    assert_eq!(values::shares_to_weight(1024), 39);
    assert_eq!(values::shares_to_weight(2), 1);
    assert_eq!(values::shares_to_weight(262_144), 10_000);
    let v2 = both.files(Version::V2, &[]);
    assert!(v2.contains(&("cpu.max", "50000 100000".to_owned())), "{v2:?}");
    assert!(
        both.files(Version::V1, &["memory".to_owned()]).iter().all(|(file, _)| file.starts_with("memory."))
    );
}

#[tokio::test]
async fn pods_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let mount =
        |name: &str| Mount { path: dir.path().join(name), controllers: vec![name.to_owned()], v2: false };
    // `freezer` carries no limit of ours, but the runtime makes directories there that we must remove.
    let manager =
        CgroupManager::with_mounts(&config(CgroupDriver::Cgroupfs), vec![mount("cpu"), mount("freezer")]);
    manager.ensure_qos_tree(2, 1 << 30).unwrap();
    let burstable = pod(json!({"requests": {"cpu": "2"}}));
    manager.ensure_pod(&burstable).unwrap();
    let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(read("cpu/kubepods/cpu.shares"), "2048");
    assert_eq!(read("cpu/kubepods/burstable/pod11-22/cpu.shares"), "2048");
    assert_eq!(manager.pods_on_disk(), BTreeSet::from(["11-22".to_owned()]));
    std::fs::create_dir_all(dir.path().join("freezer/kubepods/burstable/pod11-22/container")).unwrap();
    // In cgroupfs the files go with their directory.
    std::fs::remove_file(dir.path().join("cpu/kubepods/burstable/pod11-22/cpu.shares")).unwrap();
    manager.remove_pod("11-22").await.unwrap();
    manager.remove_pod("../..").await.unwrap();
    assert!(manager.pods_on_disk().is_empty());
    assert!(!dir.path().join("freezer/kubepods/burstable/pod11-22").exists());
    assert!(dir.path().join("cpu/kubepods/burstable").exists());
}
