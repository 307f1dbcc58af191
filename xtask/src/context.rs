//! Puts the cluster into the caller's kubeconfig and takes it out again.
//!
//! kubectl itself edits the files (`kubectl config`), so that its own rules hold: the list in $KUBECONFIG, the file
//! that defines an entry or else the first that exists, its lock file, and every other entry as it was.

use crate::command::{Run, run};
use crate::journal::{Entry, Journal};
use crate::layout;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Whose kubeconfig: with sudo it is the one of the user who typed the command.
#[derive(Debug)]
struct Caller {
    files: String,
    home: String,
    owner: Option<(u32, u32)>,
}

impl Caller {
    fn find() -> Result<Caller> {
        let id = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        let sudo = id("SUDO_UID").zip(id("SUDO_GID")).filter(|(uid, _)| *uid != 0);
        let home = match sudo {
            Some((uid, _)) => nix::unistd::User::from_uid(uid.into())?.map(|user| user.dir),
            None => std::env::var_os("HOME").map(PathBuf::from),
        };
        Ok(Caller {
            files: std::env::var("KUBECONFIG").unwrap_or_default(),
            home: home.unwrap_or_else(|| PathBuf::from("/root")).display().to_string(),
            owner: sudo,
        })
    }

    fn paths(&self) -> Vec<PathBuf> {
        if self.files.is_empty() {
            return vec![Path::new(&self.home).join(".kube/config")];
        }
        self.files.split(':').filter(|file| !file.is_empty()).map(PathBuf::from).collect()
    }

    fn config(&self, words: &[&str]) -> Run {
        run("kubectl").env("KUBECONFIG", &self.files).env("HOME", &self.home).arg("config").args(words)
    }

    /// kubectl writes as root here: a user's file must stay the user's, and nobody else's to read.
    fn restore_ownership(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for path in self.paths().iter().filter(|path| path.is_file()) {
            if let Some((uid, gid)) = self.owner {
                std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
                if let Some(dir) = path.parent().filter(|dir| dir.ends_with(".kube")) {
                    std::os::unix::fs::chown(dir, Some(uid), Some(gid))?;
                }
            }
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        }
        Ok(())
    }

    /// A copy of each file as it was before the first merge.
    fn back_up(&self) -> Result<()> {
        for path in self.paths().iter().filter(|path| path.is_file()) {
            let copy = PathBuf::from(format!("{}.before-keelson", path.display()));
            if !copy.exists() {
                std::fs::copy(path, &copy).with_context(|| format!("cannot back up {}", path.display()))?;
                if let Some((uid, gid)) = self.owner {
                    std::os::unix::fs::chown(&copy, Some(uid), Some(gid))?;
                }
            }
        }
        Ok(())
    }
}

/// Adds the context, or refreshes it, and makes it the current one. Returns the KUBECONFIG value that reaches it.
pub(crate) fn merge(server: &str) -> Result<String> {
    let caller = Caller::find()?;
    let pki = |file: &str| format!("{}/{file}", layout::PKI);
    let current = caller.config(&["current-context"]).output()?;
    let before = String::from_utf8_lossy(&current.stdout).trim().to_owned();
    let mut journal = Journal::open()?;
    if !journal.entries().iter().any(|entry| matches!(entry, Entry::Context { files, home, .. } if *files == caller.files && *home == caller.home)) {
        caller.back_up()?;
        journal.record(Entry::Context {
            files: caller.files.clone(),
            home: caller.home.clone(),
            owner: caller.owner,
            before: if before == layout::CONTEXT { String::new() } else { before },
            created: caller.paths().into_iter().filter(|path| !path.exists()).collect(),
        })?;
    }
    let name = layout::CONTEXT;
    let authority = format!("--certificate-authority={}", pki("ca.crt"));
    let server = format!("--server={server}");
    caller.config(&["set-cluster", name, &server, &authority, "--embed-certs=true"]).ok()?;
    let cert = format!("--client-certificate={}", pki("admin.crt"));
    let key = format!("--client-key={}", pki("admin.key"));
    caller.config(&["set-credentials", name, &cert, &key, "--embed-certs=true"]).ok()?;
    caller.config(&["set-context", name, &format!("--cluster={name}"), &format!("--user={name}")]).ok()?;
    caller.config(&["use-context", name]).ok()?;
    caller.restore_ownership()?;
    Ok(if caller.files.is_empty() { format!("{}/.kube/config", caller.home) } else { caller.files })
}

/// Takes the context out of the kubeconfig that the journal names.
pub(crate) fn remove(entry: &Entry) -> Result<()> {
    let Entry::Context { files, home, owner, before, created } = entry else { return Ok(()) };
    let caller = Caller { files: files.clone(), home: home.clone(), owner: *owner };
    if !caller.paths().iter().any(|path| path.is_file()) {
        return Ok(());
    }
    let name = layout::CONTEXT;
    let current = caller.config(&["current-context"]).output()?;
    let is_current = String::from_utf8_lossy(&current.stdout).trim() == name;
    for (list, delete) in
        [("get-contexts", "delete-context"), ("get-clusters", "delete-cluster"), ("get-users", "delete-user")]
    {
        let known = if list == "get-contexts" { vec![list, "-o", "name"] } else { vec![list] };
        if caller.config(&known).stdout()?.lines().any(|line| line == name) {
            caller.config(&[delete, name]).ok()?;
        }
    }
    if is_current {
        if before.is_empty() {
            caller.config(&["unset", "current-context"]).ok()?;
        } else {
            caller.config(&["set", "current-context", before]).ok()?;
        }
    }
    for path in created {
        remove_if_empty(path)?;
    }
    caller.restore_ownership()
}

/// Removes a kubeconfig that `up` made, unless somebody has put something else into it since.
fn remove_if_empty(path: &Path) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(()) };
    let config: serde_json::Value =
        serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))?;
    let is_empty =
        |field: &str| config[field].is_null() || config[field].as_array().is_some_and(Vec::is_empty);
    if ["clusters", "contexts", "users"].into_iter().all(is_empty) {
        std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let empty = "apiVersion: v1\nclusters: null\ncontexts: []\ncurrent-context: \"\"\nkind: Config\nusers: null\n";
        std::fs::write(&path, format!("{empty}users: [{{name: other}}]\n").replace("users: null\n", ""))
            .unwrap();
        remove_if_empty(&path).unwrap();
        assert!(path.exists());
        std::fs::write(&path, empty).unwrap();
        remove_if_empty(&path).unwrap();
        assert!(!path.exists());
        remove_if_empty(&path).unwrap();
    }
}
