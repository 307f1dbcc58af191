//! What a connection writes while it is polled leaves together when the poll is over.
//!
//! h2 flushes after every frame of data, and each flush would be a TLS record and a system call of its own: fifty watchers
//! on one connection would cost fifty of each for an event. Here a flush means nothing; whoever polls the connection
//! flushes in truth, with [`Flusher`], after each poll. Everything is written by the connection's own task, so nothing stays
//! behind. (An upgraded HTTP/1.1 connection changes hands, and must not be gathered.)

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered at most: four TLS records, which rustls takes at once.
const CAPACITY: usize = 64 << 10;
/// A flush of no more than this gives the memory back: a connection that is quiet keeps none, and one that is not need not
/// ask for it again and again. (Each is pinged every now and then.)
const SMALL: usize = 4 << 10;

/// Halves of one stream: what a connection reads from and writes to, and what flushes it.
pub(super) fn gather<IO>(io: IO) -> (Gathered<IO>, Flusher<IO>) {
    let inner = Arc::new(Mutex::new(Inner { io, buffer: Vec::new(), written: 0 }));
    (Gathered(Arc::clone(&inner)), Flusher(inner))
}

/// The stream as the connection sees it.
#[derive(Debug)]
pub(super) struct Gathered<IO>(Arc<Mutex<Inner<IO>>>);

/// Flushes the stream.
#[derive(Debug)]
pub(super) struct Flusher<IO>(Arc<Mutex<Inner<IO>>>);

#[derive(Debug)]
struct Inner<IO> {
    io: IO,
    buffer: Vec<u8>,
    /// Of the buffer, what the stream has taken.
    written: usize,
}

impl<IO: AsyncWrite + Unpin> Inner<IO> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let taken = ready!(Pin::new(&mut self.io).poll_write(cx, &self.buffer[self.written..]))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += taken;
        }
        self.buffer.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn add(&mut self, slices: &[IoSlice<'_>], total: usize) {
        self.buffer.reserve(total);
        slices.iter().for_each(|slice| self.buffer.extend_from_slice(slice));
    }
}

impl<IO: AsyncWrite + Unpin> Flusher<IO> {
    /// Sends what has been gathered.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        if inner.buffer.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let gathered = inner.buffer.len();
        ready!(inner.poll_drain(cx))?;
        if gathered <= SMALL {
            inner.buffer = Vec::new();
        }
        Pin::new(&mut inner.io).poll_flush(cx)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gathered<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gathered<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        let total = slices.iter().map(|slice| slice.len()).sum();
        if inner.buffer.len() + total > CAPACITY {
            ready!(inner.poll_drain(cx))?;
        }
        if total > CAPACITY {
            return Pin::new(&mut inner.io).poll_write_vectored(cx, slices);
        }
        inner.add(slices, total);
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_written_leaves_with_the_flush() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut gathered, flusher) = gather(near);
        let mut arrived = vec![0; 1 << 20];
        for (size, count) in [(1, 3), (3_000, 20), (SMALL, 2), (CAPACITY - 1, 1), (CAPACITY, 1)] {
            let mut sent = Vec::new();
            for index in 0..count {
                let piece = vec![u8::try_from(index).unwrap(); size];
                gathered.write_all(&piece).await.unwrap();
                gathered.flush().await.unwrap();
                sent.extend(piece);
            }
            assert!(
                matches!(futures::poll!(std::pin::pin!(far.read(&mut arrived))), Poll::Pending),
                "{size}"
            );
            poll_fn(|cx| flusher.poll_flush(cx)).await.unwrap();
            far.read_exact(&mut arrived[..sent.len()]).await.unwrap();
            assert!(arrived[..sent.len()] == sent, "{size}");
            assert_eq!(flusher.0.lock().buffer.capacity() > 0, sent.len() > SMALL, "{size}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_takes_little_gets_everything_in_order() {
        let (near, mut far) = tokio::io::duplex(1_000);
        let (mut gathered, flusher) = gather(near);
        let sent: Vec<u8> = (0..300_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let write = async {
            for piece in sent.chunks(70_001) {
                gathered.write_all(piece).await.unwrap();
            }
            poll_fn(|cx| flusher.poll_flush(cx)).await.unwrap();
            gathered.shutdown().await.unwrap();
        };
        let mut arrived = Vec::new();
        let (_, read) = tokio::join!(write, far.read_to_end(&mut arrived));
        read.unwrap();
        assert!(arrived == sent);
    }
}
