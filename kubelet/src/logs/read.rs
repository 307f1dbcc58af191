//! Reading a container's log for a client: the last lines or all, since a time, with times or without, and on until
//! the container ends, across rotations. One record and one chunk are in memory at a time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use inotify::{Inotify, WatchMask};
use jiff::Timestamp;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

use super::{format, tail};

const CHUNK: usize = 64 * 1024;
/// Runtimes cut lines at 16 KiB; a longer one isn't theirs and is left out.
const MAX_LINE: usize = 1024 * 1024;
/// Without an event the file is looked at this often: events can be lost, and containers end silently.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// What a client wants of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines written at this time or later.
    pub since: Option<Timestamp>,
    /// The time before each line.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// On until the container ends.
    pub follow: bool,
}

/// Turns raw lines into what the client gets. No IO.
#[derive(Debug)]
struct Formatter {
    since: Option<Timestamp>,
    timestamps: bool,
    remaining: Option<u64>,
    /// The last record was cut by the runtime: what follows continues its line.
    continued: bool,
    /// An incomplete line at the end of what was read.
    rest: Vec<u8>,
    /// A line that got too long is being passed over.
    skipping: bool,
}

impl Formatter {
    fn new(options: &LogOptions) -> Self {
        Self {
            since: options.since,
            timestamps: options.timestamps,
            remaining: options.limit_bytes,
            continued: false,
            rest: Vec::new(),
            skipping: false,
        }
    }

    fn is_done(&self) -> bool {
        self.remaining == Some(0)
    }

    /// Takes bytes of the file, whole lines or not.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut bytes = bytes;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, after) = bytes.split_at(end + 1);
            if std::mem::take(&mut self.skipping) {
                self.rest.clear();
            } else if self.rest.is_empty() {
                self.line(line, out);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.line(&whole, out);
            }
            bytes = after;
        }
        if self.rest.len() + bytes.len() > MAX_LINE {
            self.skipping = true;
            self.rest.clear();
        } else if !self.skipping {
            self.rest.extend_from_slice(bytes);
        }
    }

    /// The end of a file that won't grow: its last line may have no newline.
    fn finish(&mut self, out: &mut Vec<u8>) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() && !self.skipping {
            self.line(&rest, out);
        }
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(record) = format::parse(line) else { return };
        if let Some(since) = self.since {
            match record.time.parse::<Timestamp>() {
                Ok(time) if time >= since => {}
                _ => return,
            }
        }
        let begin = !std::mem::replace(&mut self.continued, record.partial);
        if self.timestamps && begin {
            self.emit(record.time.as_bytes(), out);
            self.emit(b" ", out);
        }
        self.emit(record.text, out);
        if !record.partial {
            self.emit(b"\n", out);
        }
    }

    fn emit(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let take = match &mut self.remaining {
            None => bytes.len(),
            Some(remaining) => {
                let take = bytes.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= take as u64;
                take
            }
        };
        out.extend_from_slice(&bytes[..take]);
    }
}

/// A log file that may be rotated away while it is read.
#[derive(Debug)]
struct LogFile {
    file: File,
    inode: u64,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode })
    }

    /// The file that has this name now, if it is another one.
    fn successor(&self, path: &Path) -> Option<Self> {
        Self::open(path).ok().filter(|other| other.inode != self.inode)
    }
}

/// Wakes a follower when the log's directory changes. The descriptor is read as a pipe: nothing of an event matters
/// but that it came.
fn watch(path: &Path) -> Option<Receiver> {
    let inotify = Inotify::init().ok()?;
    let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO;
    inotify.watches().add(path.parent()?, mask).ok()?;
    Receiver::from_owned_fd_unchecked(inotify.into()).ok()
}

async fn wait(watch: Option<&Receiver>) {
    let event = async {
        match watch {
            Some(watch) => {
                if watch.readable().await.is_ok() {
                    // Emptied, so that only a later event wakes again.
                    let mut events = [0; 4096];
                    while watch.try_read(&mut events).is_ok_and(|read| read > 0) {}
                }
            }
            None => std::future::pending().await,
        }
    };
    // Whichever comes first is a reason to look.
    let _ = tokio::time::timeout(CHECK_PERIOD, event).await;
}

/// Sends a log to a client until its end, the client's end or, when following, the container's. `running` is asked
/// when there is nothing to read.
pub async fn read<F>(
    path: &Path,
    options: &LogOptions,
    mut running: impl FnMut() -> F,
    client: &mpsc::Sender<Bytes>,
) -> io::Result<()>
where
    F: Future<Output = bool>,
{
    let mut log = LogFile::open(path)?;
    if let Some(lines) = options.tail_lines {
        let start = tail::find_start(&mut log.file, lines)?;
        log.file.seek(SeekFrom::Start(start))?;
    }
    let watch = options.follow.then(|| watch(path)).flatten();
    let mut formatter = Formatter::new(options);
    let mut chunk = vec![0; CHUNK];
    // The container was seen not running: what is read after that is all there will be.
    let mut ended = !options.follow;
    loop {
        let read = log.file.read(&mut chunk)?;
        let mut out = Vec::new();
        formatter.push(&chunk[..read], &mut out);
        let successor = if read == 0 { log.successor(path) } else { None };
        if read == 0 && (ended || successor.is_some()) {
            formatter.finish(&mut out);
        }
        if !out.is_empty() && client.send(Bytes::from(out)).await.is_err() {
            return Ok(());
        }
        if formatter.is_done() || client.is_closed() {
            return Ok(());
        }
        if read > 0 {
            continue;
        }
        match successor {
            Some(next) if options.follow => log = next,
            _ if ended => return Ok(()),
            _ => {
                tokio::select! {
                    () = wait(watch.as_ref()) => {}
                    () = client.closed() => return Ok(()),
                }
                if log.file.stream_position()? == log.file.metadata()?.len() && log.successor(path).is_none()
                {
                    ended = !running().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n\
                       2026-01-01T00:00:03Z stderr F o\nnonsense\n2026-01-01T00:00:04.5Z stdout F three\n";

    fn all(options: &LogOptions, text: &str) -> String {
        let mut whole = Vec::new();
        let mut formatter = Formatter::new(options);
        formatter.push(text.as_bytes(), &mut whole);
        formatter.finish(&mut whole);
        // However the file is cut, the client gets the same.
        let mut bytewise = Vec::new();
        let mut formatter = Formatter::new(options);
        for byte in text.as_bytes() {
            formatter.push(&[*byte], &mut bytewise);
        }
        formatter.finish(&mut bytewise);
        assert_eq!(whole, bytewise);
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn formats() {
        let options = LogOptions::default;
        assert_eq!(all(&options(), LOG), "one\ntwo\nthree\n");
        assert_eq!(
            all(&LogOptions { timestamps: true, ..options() }, LOG),
            "2026-01-01T00:00:01Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:04.5Z three\n"
        );
        let since = Some("2026-01-01T00:00:04Z".parse().unwrap());
        assert_eq!(all(&LogOptions { since, ..options() }, LOG), "three\n");
        assert_eq!(all(&LogOptions { limit_bytes: Some(5), ..options() }, LOG), "one\nt");
        assert_eq!(all(&options(), "2026-01-01T00:00:01Z stdout F no newline"), "no newline\n");
    }

    #[test]
    fn memory_is_bounded() {
        let mut formatter = Formatter::new(&LogOptions::default());
        let mut out = Vec::new();
        for _ in 0..100 {
            formatter.push(&vec![b'x'; CHUNK], &mut out);
            assert!(formatter.rest.len() <= MAX_LINE);
        }
        formatter.push(b"\n2026-01-01T00:00:01Z stdout F after\n", &mut out);
        assert_eq!(out, b"after\n");
    }

    #[tokio::test]
    async fn following_crosses_a_rotation_and_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let running = Arc::new(AtomicBool::new(true));
        let (sender, mut receiver) = mpsc::channel(4);
        let options = LogOptions { follow: true, tail_lines: Some(1), ..Default::default() };
        let task = tokio::spawn({
            let (path, running) = (path.clone(), running.clone());
            async move {
                read(&path, &options, || std::future::ready(running.load(Ordering::SeqCst)), &sender).await
            }
        });
        assert_eq!(receiver.recv().await.unwrap(), "three\n");
        let mut old = File::options().append(true).open(&path).unwrap();
        old.write_all(b"2026-01-01T00:00:05Z stdout F four\n").unwrap();
        assert_eq!(receiver.recv().await.unwrap(), "four\n");
        old.write_all(b"2026-01-01T00:00:06Z stdout F five\n").unwrap();
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        std::fs::write(&path, "2026-01-01T00:00:07Z stdout F six\n").unwrap();
        assert_eq!(receiver.recv().await.unwrap(), "five\n");
        assert_eq!(receiver.recv().await.unwrap(), "six\n");
        running.store(false, Ordering::SeqCst);
        assert!(receiver.recv().await.is_none());
        task.await.unwrap().unwrap();
    }
}
