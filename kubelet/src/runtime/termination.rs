//! A container's last words: the file at its terminationMessagePath, or the end of its log. Upstream's concept:
//! `getTerminationMessage` in `kuberuntime_container.go`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use proto::runtime_v1::ContainerStatus;

use super::labels::{TERMINATION_MESSAGE_PATH, TERMINATION_MESSAGE_POLICY};
use crate::logs;

/// The longest message a file may give.
const MAX_MESSAGE_BYTES: u64 = 4096;
/// The longest message a log may give.
const MAX_LOG_BYTES: usize = 2048;
const MAX_LOG_LINES: usize = 80;

/// The end of a file that a container may have written anything to.
fn tail(path: &Path, limit: u64) -> io::Result<String> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn from_file(status: &ContainerStatus) -> Option<String> {
    let path = status.annotations.get(TERMINATION_MESSAGE_PATH).filter(|path| !path.is_empty())?;
    let mount = status.mounts.iter().find(|mount| &mount.container_path == path)?;
    match tail(Path::new(&mount.host_path), MAX_MESSAGE_BYTES) {
        Ok(message) => Some(message),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("Error on reading termination log {}: {error}", mount.host_path)),
    }
}

fn from_log(status: &ContainerStatus) -> Option<String> {
    let path = Path::new(&status.log_path);
    match logs::tail_lines(path, MAX_LOG_LINES, MAX_LOG_BYTES) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("Error reading termination message from logs: {error}")),
    }
}

/// The message of a container that ended: the runtime's own, and its last words.
pub(super) fn message(status: &ContainerStatus) -> String {
    let mut words = from_file(status).unwrap_or_default();
    let policy = status.annotations.get(TERMINATION_MESSAGE_POLICY).map(String::as_str);
    let failed = status.exit_code != 0 || status.reason == "OOMKilled";
    if words.is_empty() && failed && policy == Some("FallbackToLogsOnError") {
        words = from_log(status).unwrap_or_default();
    }
    match (status.message.is_empty(), words.is_empty()) {
        (_, true) => status.message.clone(),
        (true, false) => words,
        (false, false) => format!("{}: {words}", status.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::runtime_v1::Mount;
    use std::collections::HashMap;

    fn status(dir: &Path, policy: &str, exit_code: i32) -> ContainerStatus {
        ContainerStatus {
            exit_code,
            annotations: HashMap::from([
                (TERMINATION_MESSAGE_PATH.to_owned(), "/dev/termination-log".to_owned()),
                (TERMINATION_MESSAGE_POLICY.to_owned(), policy.to_owned()),
            ]),
            mounts: vec![Mount {
                container_path: "/dev/termination-log".to_owned(),
                host_path: dir.join("words").to_string_lossy().into_owned(),
                ..Default::default()
            }],
            log_path: dir.join("0.log").to_string_lossy().into_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn files_and_logs() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("0.log"), "2026-01-01T00:00:00Z stderr F oh no\n").unwrap();
        assert_eq!(message(&status(dir.path(), "File", 1)), "");
        assert_eq!(message(&status(dir.path(), "FallbackToLogsOnError", 1)), "oh no\n");
        assert_eq!(message(&status(dir.path(), "FallbackToLogsOnError", 0)), "");
        std::fs::write(dir.path().join("words"), "x".repeat(5000) + "end").unwrap();
        let long = message(&status(dir.path(), "File", 0));
        assert_eq!(long.len(), 4096);
        assert!(long.ends_with("end"));
        let mut own = status(dir.path(), "File", 0);
        own.message = "runtime says".to_owned();
        assert!(message(&own).starts_with("runtime says: xxx"));
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("words")).unwrap();
        let got = message(&status(dir.path(), "File", 0));
        assert!(got.starts_with("Error on reading termination log") && !got.contains("root:"), "{got}");
    }
}
