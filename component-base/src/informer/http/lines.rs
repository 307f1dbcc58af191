//! Cuts a watch's body into its lines, one JSON event each, whatever way the chunks fall.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};

use crate::{client::raw::RawError, informer::source::SourceError};

/// An event longer than this is not waited for: etcd holds no object of that size.
const LONGEST_LINE: usize = 16 << 20;

/// The lines of `chunks`; empty ones are left out. A last line without its newline was cut off and is dropped.
pub(super) fn split(
    chunks: impl Stream<Item = Result<Bytes, RawError>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, SourceError>> + Send {
    let state = Splitter { chunks: Box::pin(chunks), buffer: BytesMut::new(), scanned: 0, failed: false };
    stream::unfold(state, |mut state| async move {
        let line = state.next().await?;
        state.failed = line.is_err();
        Some((line, state))
    })
}

struct Splitter<S> {
    chunks: std::pin::Pin<Box<S>>,
    buffer: BytesMut,
    /// How much of the buffer holds no newline for sure.
    scanned: usize,
    failed: bool,
}

impl<S: Stream<Item = Result<Bytes, RawError>>> Splitter<S> {
    async fn next(&mut self) -> Option<Result<Bytes, SourceError>> {
        if self.failed {
            return None;
        }
        loop {
            if let Some(at) = self.buffer[self.scanned..].iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(self.scanned + at + 1).freeze();
                self.scanned = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Some(Ok(line));
            }
            self.scanned = self.buffer.len();
            if self.scanned > LONGEST_LINE {
                return Some(Err(SourceError::Malformed("watch event is too long".to_owned())));
            }
            match self.chunks.next().await? {
                Ok(chunk) if self.buffer.is_empty() => self.buffer = BytesMut::from(chunk),
                Ok(chunk) => self.buffer.extend_from_slice(&chunk),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_do_not_depend_on_chunks() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\r\n{\"cut off";
        for size in 1..text.len() {
            let chunks: Vec<_> = text.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
            let lines: Vec<Bytes> = split(stream::iter(chunks)).map(Result::unwrap).collect().await;
            assert_eq!(lines, ["{\"a\":1}\n", "{\"b\":2}\r\n"], "chunks of {size}");
        }
    }
}
