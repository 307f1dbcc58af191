//! Writes the files of a volume so that a container sees the old set or the new set, never a mixture: the files go to
//! a fresh directory, `..data` is a link to it that is swapped by a rename, and the visible names are links through
//! `..data`. Nothing that exists is ever opened for writing, so a link planted in the volume leads nowhere.
//! Upstream's concept: `pkg/volume/util/atomic_writer.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProjection {
    /// Its content.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Its owner, where that isn't root.
    pub owner: Option<u32>,
}

/// The files of a volume by their relative paths.
pub type Payload = BTreeMap<String, FileProjection>;

/// A payload that can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A path that would leave the volume, or that the writer uses itself.
    #[error("invalid path: {0:?}")]
    Path(String),
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> WriteError + '_ {
    move |source| WriteError::Io { path: path.to_owned(), source }
}

fn validate(path: &str) -> Result<(), WriteError> {
    let bad = path.is_empty()
        || path.len() > MAX_PATH
        || path.starts_with("..")
        || path.contains('\0')
        || path
            .split('/')
            .any(|part| part.is_empty() || part == ".." || part == "." || part.len() > MAX_NAME);
    if bad { Err(WriteError::Path(path.to_owned())) } else { Ok(()) }
}

/// The visible name that a path is reached by.
fn visible(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn same(directory: &Path, path: &str, file: &FileProjection) -> bool {
    let path = directory.join(path);
    fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == file.data.len() as u64)
        && fs::read(&path).is_ok_and(|data| data == file.data)
}

fn write_file(path: &Path, file: &FileProjection) -> io::Result<()> {
    let mut handle = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .mode(file.mode)
        .open(path)?;
    handle.write_all(&file.data)?;
    // The mode above went through the umask.
    handle.set_permissions(Permissions::from_mode(file.mode))?;
    match file.owner {
        Some(owner) => fchown(&handle, Some(owner), None),
        None => Ok(()),
    }
}

/// The directory that `..data` names, if it is one that this writer made.
fn current(target: &Path) -> Option<PathBuf> {
    let name = fs::read_link(target.join(DATA)).ok()?;
    let text = name.to_str()?;
    (text.starts_with("..") && !text.contains('/') && text != "..").then(|| target.join(text))
}

/// All files below a directory, by their relative paths.
fn files_below(directory: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        for entry in fs::read_dir(directory.join(&relative))? {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                open.push(path);
            } else {
                found.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes `target` (an existing directory) hold exactly the payload; `finish` is called on the new files before they
/// can be seen. Returns whether anything had to be written.
pub fn write(
    target: &Path,
    payload: &Payload,
    finish: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<bool, WriteError> {
    for path in payload.keys() {
        validate(path)?;
    }
    let old = current(target).filter(|directory| directory.is_dir());
    let old_files = match &old {
        Some(directory) => files_below(directory).map_err(at(directory))?,
        None => BTreeSet::new(),
    };
    let names: BTreeSet<&str> = payload.keys().map(|path| visible(path)).collect();
    let unchanged = old.as_deref().is_some_and(|directory| {
        old_files.iter().eq(payload.keys()) && payload.iter().all(|(path, file)| same(directory, path, file))
    });
    if !unchanged {
        let fresh = target.join(format!("..{}", uuid::Uuid::new_v4().simple()));
        DirBuilder::new().mode(0o755).create(&fresh).map_err(at(&fresh))?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o755)).map_err(at(&fresh))?;
        fill(&fresh, payload)?;
        finish(&fresh).map_err(at(&fresh))?;
        let link = target.join(NEW_DATA);
        remove(&link).map_err(at(&link))?;
        symlink(fresh.file_name().unwrap_or_default(), &link).map_err(at(&link))?;
        fs::rename(&link, target.join(DATA)).map_err(at(&link))?;
    }
    for name in &names {
        let link = target.join(name);
        let points_at = Path::new(DATA).join(name);
        if fs::read_link(&link).is_ok_and(|to| to == points_at) {
            continue;
        }
        remove(&link).map_err(at(&link))?;
        symlink(&points_at, &link).map_err(at(&link))?;
    }
    sweep(target, &names)?;
    Ok(!unchanged)
}

fn fill(directory: &Path, payload: &Payload) -> Result<(), WriteError> {
    for (path, file) in payload {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(at(parent))?;
        }
        write_file(&path, file).map_err(at(&path))?;
    }
    Ok(())
}

/// Removes names that are gone, and directories of earlier writes, those of a crash in the middle too.
fn sweep(target: &Path, names: &BTreeSet<&str>) -> Result<(), WriteError> {
    let keep = fs::read_link(target.join(DATA)).map_err(at(target))?;
    for entry in fs::read_dir(target).map_err(at(target))? {
        let entry = entry.map_err(at(target))?;
        let name = entry.file_name();
        let kept = name == DATA
            || name.as_os_str() == keep
            || name.to_str().is_some_and(|name| names.contains(name));
        if !kept {
            remove(&entry.path()).map_err(at(&entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| FileProjection { data: data.as_bytes().to_vec(), mode: 0o640, owner: None };
        files.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    fn put(target: &Path, files: &[(&str, &str)]) -> bool {
        write(target, &payload(files), |_| Ok(())).unwrap()
    }

    fn visible_files(target: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(target).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with(".."));
        names.sort();
        names
    }

    #[test]
    fn files_appear_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path();
        assert!(put(target, &[("a", "1"), ("d/e/f", "2")]));
        assert_eq!(fs::read_to_string(target.join("d/e/f")).unwrap(), "2");
        assert_eq!(fs::metadata(target.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_link(target.join("d")).unwrap(), Path::new("..data/d"));
        assert!(!put(target, &[("a", "1"), ("d/e/f", "2")]), "nothing to do");
        let first = fs::read_link(target.join("..data")).unwrap();
        assert!(put(target, &[("a", "3")]));
        assert_ne!(fs::read_link(target.join("..data")).unwrap(), first);
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "3");
        assert_eq!(visible_files(target), ["a"]);
        assert!(!target.join(first).exists());
        assert!(put(target, &[]));
        assert!(visible_files(target).is_empty());
    }

    #[test]
    fn hostile_paths_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["", "/etc/passwd", "../x", "a/../../x", "..data", "..", "a//b", "a/./b", "a\0b", "a/"] {
            let result = write(dir.path(), &payload(&[(path, "x")]), |_| Ok(()));
            assert!(matches!(result, Err(WriteError::Path(_))), "{path:?}");
        }
    }

    #[test]
    fn planted_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (target, outside) = (dir.path().join("volume"), dir.path().join("outside"));
        fs::create_dir_all(&target).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("a"), "precious").unwrap();
        symlink(&outside, target.join("..data")).unwrap();
        symlink(outside.join("a"), target.join("a")).unwrap();
        symlink(&outside, target.join("..data_tmp")).unwrap();
        put(&target, &[("a", "new")]);
        assert_eq!(fs::read_to_string(outside.join("a")).unwrap(), "precious");
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "new");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn a_failing_finish_keeps_the_old_set() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &[("a", "old")]);
        let failed = write(dir.path(), &payload(&[("a", "new")]), |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "old");
        put(dir.path(), &[("a", "newer")]);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            3,
            "the crash's directory is swept: a, ..data, ..ID"
        );
    }
}
