//! subPath: one file or directory of a volume, resolved so that no symlink inside the volume, planted before or while
//! we look, leads outside (CVE-2017-1002101, CVE-2021-25741). The path is opened with openat2's RESOLVE_IN_ROOT, and
//! what was opened, not its name, is bind-mounted to a place that only the kubelet can write. Upstream's concept:
//! `pkg/volume/util/subpath`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};

/// A sub path that can't be mounted.
#[derive(Debug, thiserror::Error)]
pub enum SubPathError {
    /// It would have to leave the volume.
    #[error("subPath {0:?} must be a relative path without \"..\"")]
    Invalid(String),
    /// Opening or making it failed; a symlink that runs in circles ends here too.
    #[error("{path:?} in volume: {source}")]
    Resolve {
        /// The sub path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The bind mount failed.
    #[error("bind mount to {target}: {source}")]
    Bind {
        /// Where to.
        target: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where a container's sub path is mounted for the runtime to find.
#[must_use]
pub fn bind_target(pod_dir: &Path, volume: &str, container: &str, index: usize) -> PathBuf {
    pod_dir.join("volume-subpaths").join(volume).join(container).join(index.to_string())
}

fn parts(sub_path: &str) -> Result<Vec<&OsStr>, SubPathError> {
    Path::new(sub_path)
        .components()
        .filter(|component| !matches!(component, Component::CurDir))
        .map(|component| match component {
            Component::Normal(part) => Ok(part),
            _ => Err(SubPathError::Invalid(sub_path.to_owned())),
        })
        .collect()
}

fn open_in_root(root: &OwnedFd, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(root, path, how) {
            // The kernel saw a rename while it resolved: it may be harmless, so ask again.
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
}

/// Opens the sub path below the volume's root, making missing directories on the way.
fn resolve(volume: &Path, sub_path: &str) -> Result<OwnedFd, SubPathError> {
    let error = |errno: Errno| SubPathError::Resolve { path: sub_path.to_owned(), source: errno.into() };
    let parts = parts(sub_path)?;
    let root = open(volume, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(error)?;
    let full: PathBuf = parts.iter().collect();
    if full.as_os_str().is_empty() {
        return Ok(root);
    }
    match open_in_root(&root, &full, OFlag::O_PATH) {
        Err(Errno::ENOENT) => {}
        other => return other.map_err(error),
    }
    let mut reached = PathBuf::new();
    for part in parts {
        let parent = if reached.as_os_str().is_empty() { Path::new(".") } else { reached.as_path() };
        let parent = open_in_root(&root, parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(error)?;
        match mkdirat(&parent, part, Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(error(errno)),
        }
        reached.push(part);
    }
    open_in_root(&root, &full, OFlag::O_PATH).map_err(error)
}

/// Bind-mounts the sub path of a volume to `target`, over what may still be mounted there from an earlier attempt.
pub fn bind(volume: &Path, sub_path: &str, target: &Path) -> Result<(), SubPathError> {
    let source = resolve(volume, sub_path)?;
    let failed = |source: io::Error| SubPathError::Bind { target: target.to_owned(), source };
    unmount(target).map_err(failed)?;
    let is_dir = fs::metadata(fd_path(&source)).map_err(failed)?.is_dir();
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    if is_dir {
        fs::create_dir_all(target).map_err(failed)?;
    } else {
        fs::OpenOptions::new().create(true).append(true).open(target).map_err(failed)?;
    }
    mount(Some(&fd_path(&source)), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| failed(errno.into()))
}

/// The open file itself, whatever its name leads to by now.
fn fd_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Takes away a mount, if there is one, and the empty file or directory it was mounted on.
pub fn unmount(target: &Path) -> io::Result<()> {
    loop {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Mounts may lie over each other.
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let removed = match fs::symlink_metadata(target) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(target),
        Ok(_) => fs::remove_file(target),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes away all sub path mounts of a pod.
pub fn unmount_all(pod_dir: &Path) -> io::Result<()> {
    let base = pod_dir.join("volume-subpaths");
    for volume in children(&base)? {
        for container in children(&volume)? {
            for target in children(&container)? {
                unmount(&target)?;
            }
            fs::remove_dir(&container)?;
        }
        fs::remove_dir(&volume)?;
    }
    match fs::remove_dir(&base) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|e| e.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    fn content(volume: &Path, sub_path: &str) -> Result<String, SubPathError> {
        let fd = resolve(volume, sub_path)?;
        let mut text = String::new();
        fs::File::open(fd_path(&fd)).unwrap().read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn symlinks_never_leave_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(volume.join("sub")).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        fs::write(volume.join("secret"), "inside").unwrap();
        symlink("/secret", volume.join("absolute")).unwrap();
        symlink("../../../../secret", volume.join("sub/relative")).unwrap();
        symlink("loop", volume.join("loop")).unwrap();
        // Absolute links and too many ".." end at the volume's root.
        assert_eq!(content(&volume, "absolute").unwrap(), "inside");
        assert_eq!(content(&volume, "sub/relative").unwrap(), "inside");
        assert!(matches!(content(&volume, "loop"), Err(SubPathError::Resolve { .. })));
        for bad in ["../secret", "/secret", "sub/../../secret"] {
            assert!(matches!(resolve(&volume, bad), Err(SubPathError::Invalid(_))), "{bad}");
        }
    }

    #[test]
    fn missing_directories_are_made_inside() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir_all(&volume).unwrap();
        symlink("/", volume.join("root")).unwrap();
        resolve(&volume, "a/b/c").unwrap();
        assert!(volume.join("a/b/c").is_dir());
        resolve(&volume, "root/d").unwrap();
        assert!(volume.join("d").is_dir());
    }
}
