//! Static pods: the manifests of a directory, watched with inotify and listed again now and then.
//!
//! A manifest that can't be read or parsed is refused alone; the pod it gave before keeps running. Only regular files
//! (symlinks to them too) of at most 10 MB are read. Upstream's concept: `pkg/kubelet/config/file.go`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use inotify::{Inotify, WatchMask};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{SourceUpdate, manifest};
use crate::pod;

/// Upstream's limit of a manifest.
const MAX_MANIFEST_BYTES: u64 = 10 << 20;
/// Several events of one save are taken together.
const SETTLE: Duration = Duration::from_millis(50);

/// What one file gave last, kept while it can't be parsed.
#[derive(Debug)]
struct Known {
    stamp: Option<(SystemTime, u64)>,
    pod: Option<Arc<Pod>>,
}

/// The source's state: the files it knows.
#[derive(Debug)]
pub struct FileSource {
    directory: PathBuf,
    node_name: String,
    known: BTreeMap<PathBuf, Known>,
    missing_logged: bool,
}

impl FileSource {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(directory: PathBuf, node_name: String) -> Self {
        Self { directory, node_name, known: BTreeMap::new(), missing_logged: false }
    }

    /// Lists the directory and answers the pods of all its manifests.
    fn list(&mut self) -> Vec<Arc<Pod>> {
        let paths = match self.paths() {
            Ok(paths) => {
                self.missing_logged = false;
                paths
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if !std::mem::replace(&mut self.missing_logged, true) {
                    tracing::info!(path = %self.directory.display(), "static pod path does not exist, ignoring");
                }
                Vec::new()
            }
            Err(error) => {
                // What ran keeps running: a directory that can't be listed says nothing about its manifests.
                tracing::error!(path = %self.directory.display(), %error, "can't list the static pod path");
                return self.pods();
            }
        };
        self.known.retain(|path, _| paths.contains(path));
        for path in paths {
            self.refresh(path);
        }
        self.pods()
    }

    fn paths(&self) -> std::io::Result<Vec<PathBuf>> {
        let metadata = std::fs::metadata(&self.directory)?;
        if metadata.is_file() {
            return Ok(vec![self.directory.clone()]);
        }
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !hidden {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn refresh(&mut self, path: PathBuf) {
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "can't read the manifest");
                return;
            }
        };
        if metadata.is_dir() {
            return;
        }
        let stamp = metadata.modified().ok().map(|modified| (modified, metadata.len()));
        if stamp.is_some() && self.known.get(&path).is_some_and(|known| known.stamp == stamp) {
            return;
        }
        let parsed = read(&path, &metadata).and_then(|bytes| {
            manifest::decode(&bytes, &path, &self.node_name, Timestamp::now())
                .map_err(|error| error.to_string())
        });
        let known = self.known.entry(path.clone()).or_insert(Known { stamp: None, pod: None });
        known.stamp = stamp;
        match parsed {
            Ok(pod) => {
                // The first-seen time of an unchanged manifest stays.
                if known.pod.as_ref().is_none_or(|held| held.metadata.uid != pod.metadata.uid) {
                    known.pod = Some(Arc::new(pod));
                }
            }
            Err(error) => tracing::error!(path = %path.display(), %error, "can't process the manifest file"),
        }
    }

    /// One pod a name: the first file wins.
    fn pods(&self) -> Vec<Arc<Pod>> {
        let mut by_name: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        for (path, known) in &self.known {
            let Some(found) = known.pod.as_ref() else { continue };
            let full_name = pod::full_name(found);
            if by_name.contains_key(&full_name) {
                tracing::error!(path = %path.display(), pod = %full_name, "another manifest has a pod of that name");
                continue;
            }
            by_name.insert(full_name, found.clone());
        }
        by_name.into_values().collect()
    }

    /// Watches until shutdown. `check_frequency`: the listing that does not depend on inotify.
    pub async fn run(
        mut self,
        check_frequency: Duration,
        updates: mpsc::UnboundedSender<SourceUpdate>,
        shutdown: CancellationToken,
    ) {
        loop {
            // Made anew before each listing: nothing is missed in between, and a directory that was replaced is followed.
            let watch = watch_directory(&self.directory);
            if updates.send(SourceUpdate::Manifests(self.list())).is_err() {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(check_frequency) => {}
                () = changed(watch.as_ref()) => tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(SETTLE) => {}
                },
            }
        }
    }
}

fn read(path: &Path, metadata: &std::fs::Metadata) -> Result<Vec<u8>, String> {
    // Opening a FIFO would wait for a writer for ever.
    if !metadata.is_file() {
        return Err("not a directory or file".to_owned());
    }
    if metadata.len() > MAX_MANIFEST_BYTES {
        return Err(format!("the file is larger than {MAX_MANIFEST_BYTES} bytes"));
    }
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let read =
        file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_MANIFEST_BYTES {
        return Err(format!("the file is larger than {MAX_MANIFEST_BYTES} bytes"));
    }
    Ok(bytes)
}

/// `None` when the directory isn't there (yet): the periodic listing finds it. The descriptor is read as a pipe, since
/// nothing of an event matters but that it came.
fn watch_directory(directory: &Path) -> Option<Receiver> {
    let inotify = Inotify::init().ok()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::MODIFY
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF;
    inotify.watches().add(directory, mask).ok()?;
    Receiver::from_owned_fd_unchecked(inotify.into()).ok()
}

/// Waits for the first event.
async fn changed(watch: Option<&Receiver>) {
    match watch {
        // An error is a reason to look too; the next round makes a new watch.
        Some(watch) => watch.readable().await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, image: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: '{image}'}}]}}\n"
        )
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|p| pod::name(p)).collect()
    }

    #[test]
    fn a_directory_is_listed_and_bad_manifests_are_refused_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = FileSource::new(dir.path().to_owned(), "node".to_owned());
        std::fs::write(dir.path().join("a.yaml"), manifest("a", "i:1")).unwrap();
        std::fs::write(dir.path().join("b.yaml"), "nonsense: [").unwrap();
        std::fs::write(dir.path().join(".hidden.yaml"), manifest("hidden", "i:1")).unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("dangling")).unwrap();
        let first = source.list();
        assert_eq!(names(&first), ["a-node"]);

        std::fs::write(dir.path().join("a.yaml"), "broken: [, while somebody edits").unwrap();
        assert_eq!(source.list()[0].metadata.uid, first[0].metadata.uid, "the old one keeps running");
        std::fs::write(dir.path().join("a.yaml"), manifest("a", "i:22")).unwrap();
        assert_ne!(source.list()[0].metadata.uid, first[0].metadata.uid);

        std::fs::write(dir.path().join("z.yaml"), manifest("a", "i:3")).unwrap();
        assert_eq!(source.list().len(), 1, "a second pod of the same name is refused");
        std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert_eq!(names(&source.list()), ["a-node"], "and taken when the first is gone");
        std::fs::remove_file(dir.path().join("z.yaml")).unwrap();
        assert!(source.list().is_empty());
    }

    #[test]
    fn a_huge_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("huge.yaml")).unwrap();
        file.set_len(MAX_MANIFEST_BYTES + 1).unwrap();
        let mut source = FileSource::new(dir.path().to_owned(), "node".to_owned());
        assert!(source.list().is_empty());
    }

    #[tokio::test]
    async fn a_rename_into_the_directory_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let staging = tempfile::tempdir_in(dir.path().parent().unwrap()).unwrap();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let source = FileSource::new(dir.path().to_owned(), "node".to_owned());
        let task = tokio::spawn(source.run(Duration::from_secs(3600), sender, shutdown.clone()));
        let next = async |receiver: &mut mpsc::UnboundedReceiver<SourceUpdate>| {
            let update = tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await;
            match update.expect("no update in time").expect("the source ended") {
                SourceUpdate::Manifests(pods) => pods,
                other => panic!("unexpected {other:?}"),
            }
        };
        assert!(next(&mut receiver).await.is_empty());
        std::fs::write(staging.path().join("a.yaml"), manifest("a", "i:1")).unwrap();
        std::fs::rename(staging.path().join("a.yaml"), dir.path().join("a.yaml")).unwrap();
        assert_eq!(names(&next(&mut receiver).await), ["a-node"]);
        shutdown.cancel();
        task.await.unwrap();
    }
}
