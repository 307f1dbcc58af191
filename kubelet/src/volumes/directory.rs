//! Volumes that are directories of the node: emptyDir (on disk or in memory) and hostPath; and what all volumes share:
//! memory file systems, group ownership, taking mounts away. Upstream's concept: `pkg/volume/{emptydir,hostpath}`,
//! `pkg/volume/volume_linux.go`.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Whether a file system is mounted on this directory.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(fs::symlink_metadata(path)?.dev() != fs::symlink_metadata(parent)?.dev())
}

/// Makes a directory with exactly these permissions, its parents with 0750.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Mounts a memory file system on a directory, unless one is there already.
pub fn mount_memory(path: &Path, size: Option<u64>) -> io::Result<()> {
    if is_mount_point(path)? {
        return Ok(());
    }
    let options = size.map(|size| format!("size={size}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, options.as_deref()).map_err(io::Error::from)
}

/// An emptyDir: everybody may write.
pub fn empty_dir(path: &Path, memory: bool, size: Option<u64>) -> io::Result<()> {
    make(path, 0o777)?;
    if memory {
        mount_memory(path, size)?;
        // The new file system's root has permissions of its own.
        if fs::metadata(path)?.permissions().mode() & 0o777 != 0o777 {
            fs::set_permissions(path, Permissions::from_mode(0o777))?;
        }
    }
    Ok(())
}

/// What a hostPath must be; the error's text ends up in the FailedMount event.
pub fn check_host_path(path: &Path, kind: &str) -> Result<(), String> {
    let failed = |what: &str| Err(format!("hostPath type check failed: {} {what}", path.display()));
    let metadata = || fs::metadata(path).ok();
    let is = |test: fn(&Metadata) -> bool| metadata().is_some_and(|m| test(&m));
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" => {
            if metadata().is_none() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(path)
                    .map_err(|error| error.to_string())?;
            }
            if is(Metadata::is_dir) { Ok(()) } else { failed("is not a directory") }
        }
        "Directory" if is(Metadata::is_dir) => Ok(()),
        "Directory" => failed("is not a directory"),
        "FileOrCreate" => {
            if metadata().is_none() {
                let options = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
                options.map(|_: File| ()).map_err(|error| error.to_string())?;
            }
            if is(Metadata::is_file) { Ok(()) } else { failed("is not a file") }
        }
        "File" if is(Metadata::is_file) => Ok(()),
        "File" => failed("is not a file"),
        "Socket" if is(|m| m.file_type().is_socket()) => Ok(()),
        "Socket" => failed("is not a socket file"),
        "CharDevice" if is(|m| m.file_type().is_char_device()) => Ok(()),
        "CharDevice" => failed("is not a character device"),
        "BlockDevice" if is(|m| m.file_type().is_block_device()) => Ok(()),
        "BlockDevice" => failed("is not a block device"),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

/// Gives a volume's files to a group: readable by it, and writable unless the volume is read-only. Links are given
/// away themselves, never what they point to.
pub fn give_to_group(root: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        lchown(&path, None, Some(group))?;
        if metadata.is_symlink() {
            continue;
        }
        let mut mode = metadata.permissions().mode() & 0o7777 | if read_only { 0o440 } else { 0o660 };
        if metadata.is_dir() {
            mode |= 0o2110;
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Whether a directory already belongs to the group with the right permissions, so that its tree need not be walked
/// (`fsGroupChangePolicy: OnRootMismatch`, and ours for volumes that only pods write).
pub fn belongs_to_group(root: &Path, group: u32) -> io::Result<bool> {
    let metadata = fs::metadata(root)?;
    Ok(metadata.gid() == group && metadata.mode() & 0o2770 == 0o2770)
}

/// The mount points below a directory, the deepest first.
pub fn mounts_below(directory: &Path, mountinfo: &str) -> Vec<PathBuf> {
    let paths =
        mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|path| PathBuf::from(unescape(path)));
    let mut below: Vec<_> = paths.filter(|path| path.starts_with(directory)).collect();
    below.reverse();
    below
}

/// mountinfo writes blanks as octal escapes.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Takes away every mount below a directory, then the directory. With a mount left nothing is removed: what is
/// mounted there may be somebody's data.
pub fn remove_with_mounts(directory: &Path) -> io::Result<()> {
    for path in mounts_below(directory, &fs::read_to_string("/proc/self/mountinfo")?) {
        match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let left = mounts_below(directory, &fs::read_to_string("/proc/self/mountinfo")?);
    if let Some(path) = left.first() {
        return Err(io::Error::other(format!("{} is still mounted", path.display())));
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_path_types() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for (name, kind, error) in [
            ("none", "", None),
            ("new", "DirectoryOrCreate", None),
            ("new", "Directory", None),
            ("newfile", "FileOrCreate", None),
            ("file", "File", None),
            ("socket", "Socket", None),
            ("file", "Directory", Some("is not a directory")),
            ("none", "File", Some("is not a file")),
            ("file", "DirectoryOrCreate", Some("is not a directory")),
            ("file", "BlockDevice", Some("is not a block device")),
            ("file", "CharDevice", Some("is not a character device")),
            ("file", "Odd", Some("invalid volume type")),
        ] {
            let got = check_host_path(&path(name), kind);
            match error {
                None => assert_eq!(got, Ok(()), "{name} {kind}"),
                Some(text) => assert!(got.clone().unwrap_err().contains(text), "{got:?}"),
            }
        }
    }

    #[test]
    fn mounts_are_found_deepest_first() {
        let info = "1 0 0:1 / /a rw - x y z\n2 1 0:2 / /a/b rw - x y z\n3 1 0:3 / /a/b/c\\040d rw - x y z\n4 1 0:4 / /ab rw - x\n";
        assert_eq!(mounts_below(Path::new("/a/b"), info), [PathBuf::from("/a/b/c d"), PathBuf::from("/a/b")]);
    }

    #[test]
    fn groups() {
        let dir = tempfile::tempdir().unwrap();
        let group = nix::unistd::getegid().as_raw();
        let root = dir.path().join("v");
        empty_dir(&root, false, None).unwrap();
        fs::write(root.join("f"), "").unwrap();
        fs::set_permissions(root.join("f"), Permissions::from_mode(0o400)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("l")).unwrap();
        give_to_group(&root, group, false).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&root), 0o2777);
        assert_eq!(mode(&root.join("f")), 0o660);
        assert!(belongs_to_group(&root, group).unwrap());
    }
}
