//! Rotation of logs: a log that has grown past the limit is renamed, the runtime opens a new one, and only so many old
//! ones stay. Upstream's concept: `pkg/kubelet/logs/container_log_manager.go` (old files are not compressed here).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use component_base::Shutdown;
use jiff::Timestamp;

use crate::cri;
use crate::runtime::labels::CONTAINER_NAME;

/// `containerLogMaxSize`, `containerLogMaxFiles`, `containerLogMonitorInterval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPolicy {
    /// Bytes after which a log is rotated.
    pub max_size: u64,
    /// Files to keep, the current one included.
    pub max_files: usize,
    /// How often to look.
    pub period: Duration,
}

impl Default for RotationPolicy {
    fn default() -> Self {
        Self { max_size: 10 * 1024 * 1024, max_files: 5, period: Duration::from_secs(10) }
    }
}

/// A log's rotated files, the oldest first: their names end in the time of their rotation.
fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix)) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Renames a log and removes the oldest of its predecessors. Returns the new name.
fn rename(log: &Path, max_files: usize, now: Timestamp) -> io::Result<PathBuf> {
    let old = rotated(log)?;
    // The current log and the one made here are kept besides.
    let keep = max_files.saturating_sub(2);
    for path in &old[..old.len().saturating_sub(keep)] {
        fs::remove_file(path)?;
    }
    let mut name = log.as_os_str().to_owned();
    name.push(now.strftime(".%Y%m%d-%H%M%S").to_string());
    let name = PathBuf::from(name);
    fs::rename(log, &name)?;
    Ok(name)
}

async fn rotate(cri: &cri::Client, id: &str, log: &Path, policy: RotationPolicy) -> Result<(), String> {
    let name = rename(log, policy.max_files, Timestamp::now()).map_err(|error| error.to_string())?;
    if let Err(error) = cri.reopen_container_log(id).await {
        // The runtime still writes to the renamed file: give it its name back, or the log would be lost.
        fs::rename(&name, log).map_err(|rename| format!("{error}; and then {rename}"))?;
        return Err(error.to_string());
    }
    Ok(())
}

async fn rotate_all(
    cri: &cri::Client,
    pod_logs_dir: &Path,
    policy: RotationPolicy,
) -> Result<(), cri::Error> {
    use proto::runtime_v1::ContainerState;
    for container in cri.list_containers(std::collections::HashMap::new()).await? {
        let ours = container.labels.contains_key(CONTAINER_NAME);
        if !ours || container.state() != ContainerState::ContainerRunning {
            continue;
        }
        let log = match cri.container_status(&container.id).await {
            Ok(status) => PathBuf::from(status.log_path),
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let size = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        if log.starts_with(pod_logs_dir)
            && size >= policy.max_size
            && let Err(error) = rotate(cri, &container.id, &log, policy).await
        {
            tracing::warn!(id = container.id, path = %log.display(), error, "log not rotated");
        }
    }
    Ok(())
}

/// Watches the sizes of all logs until shutdown.
pub async fn run(cri: cri::Client, pod_logs_dir: PathBuf, policy: RotationPolicy, shutdown: Shutdown) {
    loop {
        if shutdown.run_until_cancelled(tokio::time::sleep(policy.period)).await.is_none() {
            return;
        }
        if let Err(error) = rotate_all(&cri, &pod_logs_dir, policy).await {
            tracing::debug!(%error, "logs not looked at");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for (index, time) in ["01", "02", "03", "04", "05"].iter().enumerate() {
            fs::write(&log, index.to_string()).unwrap();
            rename(&log, 3, format!("2026-01-01T00:00:{time}Z").parse().unwrap()).unwrap();
        }
        let names: Vec<_> = rotated(&log)
            .unwrap()
            .iter()
            .map(|p| p.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["0.log.20260101-000004", "0.log.20260101-000005"]);
        assert!(!log.exists());
    }
}
