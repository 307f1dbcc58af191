//! How many bytes of objects a watch may send before its client grants more.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;

/// One side takes, the other grants.
#[derive(Debug)]
pub(super) struct Window {
    left: AtomicI64,
    granted: Notify,
}

impl Window {
    /// 0 bytes: no limit.
    pub(super) fn new(bytes: u32) -> Self {
        // Half of the range is more than any watch lives to send.
        let left = if bytes == 0 { i64::MAX / 2 } else { i64::from(bytes) };
        Self { left: AtomicI64::new(left), granted: Notify::new() }
    }

    /// Waits until at least one byte may be sent.
    pub(super) async fn wait(&self) {
        while self.left() == 0 {
            // A grant since the look above left a permit.
            self.granted.notified().await;
        }
    }

    /// The bytes that may be sent; 0 while the window is overdrawn.
    pub(super) fn left(&self) -> usize {
        usize::try_from(self.left.load(Ordering::Acquire)).unwrap_or(0)
    }

    pub(super) fn take(&self, bytes: usize) {
        self.left.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::AcqRel);
    }

    pub(super) fn grant(&self, bytes: u32) {
        // The other side only takes, so the sum can be no larger than what is stored here.
        let left = self.left.load(Ordering::Acquire);
        self.left.fetch_add(i64::from(bytes).min(i64::MAX / 2 - left.max(0)), Ordering::AcqRel);
        self.granted.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_window_can_be_overdrawn_and_reopens_above_zero() {
        let window = Window::new(10);
        assert!(window.wait().now_or_never().is_some());
        window.take(25);
        assert_eq!(window.left(), 0);
        for grant in [5, 10] {
            window.grant(grant);
            assert!(window.wait().now_or_never().is_none(), "overdrawn by 15, so 15 make nothing");
        }
        window.grant(1);
        assert!(window.wait().now_or_never().is_some());
        assert_eq!(window.left(), 1);
    }

    #[test]
    fn no_window_is_no_limit_and_cannot_overflow() {
        let window = Window::new(0);
        window.take(1 << 40);
        for _ in 0..10 {
            window.grant(u32::MAX);
        }
        assert!(window.left() > 1 << 60);
        let window = Window::new(u32::MAX);
        for _ in 0..10 {
            window.grant(u32::MAX);
        }
        assert_eq!(window.left(), 11 * u32::MAX as usize);
    }
}
