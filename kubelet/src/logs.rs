//! Containers' logs in the CRI format (`TIME STREAM P|F TEXT`), read as `kubectl logs` wants them and rotated when they
//! grow. Memory is bounded whatever the file holds. Upstream's concept: `pkg/kubelet/kuberuntime/logs`,
//! `pkg/kubelet/logs`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

pub mod format;
pub mod read;
pub mod rotate;
pub mod tail;

/// The text of a log's last lines, without times: at most so many lines and bytes.
pub fn tail_lines(path: &Path, lines: usize, bytes: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = tail::find_start(&mut file, lines as u64)?;
    file.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if let Some(record) = format::parse(&line) {
            text.extend_from_slice(record.text);
            if !record.partial {
                text.push(b'\n');
            }
        }
        if text.len() > 2 * bytes {
            text.drain(..text.len() - bytes);
        }
    }
    let excess = text.len().saturating_sub(bytes);
    Ok(String::from_utf8_lossy(&text[excess..]).into_owned())
}
