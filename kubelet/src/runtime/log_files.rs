//! Where containers' logs lie: a directory per pod and container under podLogsDir, and links with flat names beside
//! it for collectors that expect them. Upstream's concept: `kuberuntime/legacy.go`, `logs/container_log_manager.go`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The longest part of a link's name before the container's id.
const MAX_LINK_PREFIX: usize = 251 - 64 - ".log".len();

/// Where the flat links are: `/var/log/containers` for `/var/log/pods`.
#[must_use]
pub fn links_dir(pod_logs_dir: &Path) -> PathBuf {
    pod_logs_dir.parent().unwrap_or(Path::new("/var/log")).join("containers")
}

fn link(links_dir: &Path, pod: &str, namespace: &str, container: &str, id: &str) -> PathBuf {
    let prefix: String = format!("{pod}_{namespace}_{container}").chars().take(MAX_LINK_PREFIX).collect();
    links_dir.join(format!("{prefix}-{id}.log"))
}

/// Links a container's log under its flat name.
pub fn make_link(
    pod_logs_dir: &Path,
    (namespace, pod): (&str, &str),
    container: &str,
    id: &str,
    log: &Path,
) -> io::Result<()> {
    let directory = links_dir(pod_logs_dir);
    fs::create_dir_all(&directory)?;
    let link = link(&directory, pod, namespace, container, id);
    match std::os::unix::fs::symlink(log, &link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes a container's log, its rotated files and the links to it.
pub fn remove_container_logs(pod_logs_dir: &Path, id: &str, log: &Path) -> io::Result<()> {
    // The runtime says where the log is; we only remove what is in our directory.
    if log.starts_with(pod_logs_dir)
        && let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str()))
    {
        for entry in entries(directory)? {
            let file = entry.file_name();
            let Some(file) = file.to_str() else { continue };
            if file == name || file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')) {
                remove_file(&entry.path())?;
            }
        }
    }
    let suffix = format!("-{id}.log");
    for entry in entries(&links_dir(pod_logs_dir))? {
        if entry.file_name().to_str().is_some_and(|name| name.ends_with(&suffix)) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a pod's directory of logs and the links that now lead nowhere.
pub fn remove_pod_logs(pod_logs_dir: &Path, pod_log_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(pod_log_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for entry in entries(&links_dir(pod_logs_dir))? {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(pod_log_dir)) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_come_and_go_with_their_logs() {
        let dir = tempfile::tempdir().unwrap();
        let pods = dir.path().join("pods");
        let pod = pods.join("ns_web_uid");
        fs::create_dir_all(pod.join("c")).unwrap();
        let log = pod.join("c/0.log");
        for file in ["0.log", "0.log.20260101", "1.log"] {
            fs::write(pod.join("c").join(file), "x").unwrap();
        }
        make_link(&pods, ("ns", "web"), "c", "abc", &log).unwrap();
        make_link(&pods, ("ns", "web"), "c", "abc", &log).unwrap();
        let link = dir.path().join("containers/web_ns_c-abc.log");
        assert_eq!(fs::read_link(&link).unwrap(), log);
        remove_container_logs(&pods, "abc", &log).unwrap();
        assert!(fs::symlink_metadata(&link).is_err() && pod.join("c/1.log").exists());
        assert!(!log.exists() && !pod.join("c/0.log.20260101").exists());
        let outside = dir.path().join("precious");
        fs::write(&outside, "x").unwrap();
        remove_container_logs(&pods, "abc", &outside).unwrap();
        assert!(outside.exists());
        make_link(&pods, ("ns", "web"), "c", "def", &pod.join("c/1.log")).unwrap();
        remove_pod_logs(&pods, &pod).unwrap();
        assert!(!pod.exists() && entries(&dir.path().join("containers")).unwrap().is_empty());
    }
}
