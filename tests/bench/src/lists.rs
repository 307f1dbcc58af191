//! Lists, one after the other, read to the end and not looked into.

use crate::client;
use crate::crew;
use crate::operations::PODS;
use crate::samples::median_time;
use crate::server::Server;
use crate::usage;
use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Method;
use memchr::memmem::Finder;
use std::time::{Duration, Instant};

/// Selects no pod, by a label that every one of them has.
pub(crate) const NONE: &str = "?labelSelector=app%3Dnothing";

/// What lists took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    /// The median.
    pub(crate) time: Duration,
    /// CPU time of the server for one.
    pub(crate) cpu: Duration,
}

/// Lists `times` times, after one list that is not measured and in which there must be as many pods as `expected`.
pub(crate) fn list(server: &Server, query: &str, expected: u32, times: u32) -> Result<Listed> {
    crew::runtime()?.block_on(async {
        let connection = server.target.connect().await?;
        let path = format!("{PODS}{query}");
        let mut pods = Pods::default();
        let mut body = connection.get(&path).await?;
        while let Some(data) = client::next(&mut body).await? {
            pods.count(&data);
        }
        ensure!(pods.count == u64::from(expected), "{path}: {} pods, not {expected}", pods.count);
        let mut took = Vec::new();
        let before = usage::cpu(server.pid())?;
        for _ in 0..times {
            let begun = Instant::now();
            connection.size(Method::GET, &path, None, Bytes::new()).await?;
            took.push(begun.elapsed());
        }
        let cpu = (usage::cpu(server.pid())? - before) / times.max(1);
        Ok(Listed { time: median_time(&took), cpu })
    })
}

/// Counts the pods in a list that comes in pieces, by their names.
struct Pods {
    name: Finder<'static>,
    /// The last piece's end, in which a name may begin.
    open: Vec<u8>,
    count: u64,
}

impl Default for Pods {
    fn default() -> Pods {
        Pods { name: Finder::new(br#""name":"pod-"#), open: Vec::new(), count: 0 }
    }
}

impl Pods {
    fn count(&mut self, data: &[u8]) {
        self.open.extend_from_slice(data);
        self.count += self.name.find_iter(&self.open).count() as u64;
        let kept = self.name.needle().len() - 1;
        self.open.drain(..self.open.len().saturating_sub(kept));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_counted_wherever_the_pieces_end() {
        let list =
            br#"{"items":[{"metadata":{"name":"pod-1"}},{"metadata":{"name":"pod-2"}},{"name":"main"}]}"#;
        for size in 1..list.len() {
            let mut pods = Pods::default();
            list.chunks(size).for_each(|piece| pods.count(piece));
            assert_eq!(pods.count, 2, "pieces of {size}");
        }
    }
}
