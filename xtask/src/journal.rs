//! The list of what `up` changed on the machine outside its own directories, so that `down` undoes exactly that.

use crate::layout;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One change, with what is needed to undo it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(crate) enum Entry {
    /// A kernel parameter and its value before.
    Sysctl { key: String, before: String },
    /// A route, as the words after `ip route add`.
    Route { words: Vec<String> },
    /// A file that `up` wrote outside its own directories.
    File { path: PathBuf },
    /// A systemd unit.
    Unit { name: String },
    /// The context merged into a kubeconfig: the files in use, and the current context before.
    /// `created` are files that did not exist before.
    Context { files: String, home: String, owner: Option<(u32, u32)>, before: String, created: Vec<PathBuf> },
}

impl Entry {
    /// Whether both describe a change of the same thing, whatever its value before.
    fn same_thing(&self, other: &Entry) -> bool {
        match (self, other) {
            (Entry::Sysctl { key: a, .. }, Entry::Sysctl { key: b, .. }) => a == b,
            (Entry::Context { files: a, home: ah, .. }, Entry::Context { files: b, home: bh, .. }) => {
                a == b && ah == bh
            }
            (a, b) => a == b,
        }
    }
}

/// The journal file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Journal {
    /// Reads the machine's journal; a missing file is an empty journal.
    pub(crate) fn open() -> Result<Journal> {
        Journal::open_at(Path::new(layout::JOURNAL))
    }

    fn open_at(path: &Path) -> Result<Journal> {
        let entries = match std::fs::read(path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Journal { path: path.to_owned(), entries })
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Writes the entry down before the change is made. A thing that stands there already keeps its first entry:
    /// that one has the value from before Keelson.
    pub(crate) fn record(&mut self, entry: Entry) -> Result<()> {
        if self.entries.iter().any(|known| known.same_thing(&entry)) {
            return Ok(());
        }
        self.entries.push(entry);
        self.write()
    }

    /// Strikes out an entry whose change has been undone.
    pub(crate) fn strike(&mut self, entry: &Entry) -> Result<()> {
        self.entries.retain(|known| known != entry);
        if self.entries.is_empty() {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("cannot remove {}", self.path.display()))
                }
                _ => Ok(()),
            };
        }
        self.write()
    }

    fn write(&self) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(&self.entries)?;
        write_atomically(&self.path, &bytes, 0o600)
    }
}

/// Replaces a file's content in one step, so that a crash leaves either the old or the new one.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let dir = path.parent().context("a file needs a directory")?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut file =
        tempfile::NamedTempFile::new_in(dir).with_context(|| format!("cannot write in {}", dir.display()))?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Writes the file when its content or mode differs; true when it did.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8], mode: u32) -> Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    if std::fs::read(path).is_ok_and(|old| old == bytes)
        && std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o7777 == mode)
    {
        return Ok(false);
    }
    write_atomically(path, bytes, mode)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_value_is_kept_and_an_undone_journal_vanishes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/journal.json");
        let sysctl =
            |before: &str| Entry::Sysctl { key: "net.ipv4.ip_forward".into(), before: before.into() };
        let mut journal = Journal::open_at(&path).unwrap();
        journal.record(sysctl("0")).unwrap();
        journal.record(sysctl("1")).unwrap();
        let mut journal = Journal::open_at(&path).unwrap();
        assert_eq!(journal.entries(), [sysctl("0")]);
        journal.strike(&sysctl("0")).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn unchanged_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(write_if_changed(&path, b"a", 0o600).unwrap());
        assert!(!write_if_changed(&path, b"a", 0o600).unwrap());
        assert!(write_if_changed(&path, b"a", 0o644).unwrap());
        assert!(write_if_changed(&path, b"b", 0o644).unwrap());
    }
}
