//! Threads that make load: as many as the machine has cores, each with a runtime of its own, so that no connection of
//! the client ever moves between cores or takes a lock. They get ready, start together, and what the work took is
//! measured between that start and the end of the last one.

use crate::usage;
use anyhow::{Context, Result, anyhow};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// No load takes longer, whatever the server is.
const DEADLINE: Duration = Duration::from_secs(1200);

/// What a piece of work took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) time: Duration,
    /// CPU time of the server.
    pub(crate) server: Duration,
    /// CPU time of this program.
    pub(crate) client: Duration,
}

/// The clocks at the beginning of a piece of work.
struct Start {
    server: u32,
    begun: Instant,
    server_cpu: Duration,
    own_cpu: Duration,
}

impl Start {
    fn now(server: u32) -> Result<Start> {
        let (server_cpu, own_cpu) = (usage::cpu(server)?, usage::own_cpu()?);
        Ok(Start { server, begun: Instant::now(), server_cpu, own_cpu })
    }

    fn cost(&self) -> Result<Cost> {
        Ok(Cost {
            time: self.begun.elapsed(),
            server: usage::cpu(self.server)?.saturating_sub(self.server_cpu),
            client: usage::own_cpu()?.saturating_sub(self.own_cpu),
        })
    }
}

/// Which thread of how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    thread: u32,
    threads: u32,
}

impl Place {
    /// This thread's part of `count` things.
    pub(crate) fn share(self, count: u32) -> u32 {
        count / self.threads + u32::from(self.thread < count % self.threads)
    }
}

/// A runtime for one thread.
pub(crate) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("a runtime")
}

/// Runs `prepare` and then `work` on every thread and measures the work, beside the process `server`. What the work
/// returns is kept until all have ended, so that no connection closes while others are measured.
pub(crate) fn run<P, R>(
    server: u32,
    prepare: impl AsyncFn(Place) -> Result<P> + Sync,
    work: impl AsyncFn(P) -> Result<R> + Sync,
) -> Result<Cost> {
    let threads = u32::try_from(thread::available_parallelism()?.get())?;
    // The threads and this one meet here before, at the start, and at the end.
    let line = Barrier::new(threads as usize + 1);
    let hopeless = AtomicBool::new(false);
    let crew = |place| {
        let prepared = runtime().and_then(|runtime| {
            let prepared = runtime.block_on(bounded(prepare(place)))?;
            Ok((runtime, prepared))
        });
        hopeless.fetch_or(prepared.is_err(), Ordering::Relaxed);
        line.wait();
        line.wait();
        let result = prepared.and_then(|(runtime, prepared)| {
            if hopeless.load(Ordering::Relaxed) {
                // Whoever could not get ready says why.
                return Ok(None);
            }
            let kept = runtime.block_on(bounded(work(prepared)))?;
            Ok(Some((runtime, kept)))
        });
        line.wait();
        result.map(drop)
    };
    thread::scope(|scope| {
        let crew = &crew;
        let workers: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || crew(Place { thread, threads }))).collect();
        line.wait();
        let start = Start::now(server);
        line.wait();
        line.wait();
        let cost = start.and_then(|start| start.cost());
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a load thread panicked"))??;
        }
        cost
    })
}

async fn bounded<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(DEADLINE, work).await.with_context(|| format!("not done within {} s", DEADLINE.as_secs()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn shares_add_up() {
        for count in [0, 1, 31, 32] {
            let share = |thread| Place { thread, threads: 3 }.share(count);
            assert_eq!(share(0) + share(1) + share(2), count);
            assert!(share(0) - share(2) <= 1);
        }
    }

    #[test]
    fn all_work_is_done_and_measured() {
        let done = AtomicU32::new(0);
        let cost = run(
            std::process::id(),
            async |place| Ok(place.share(10)),
            async |share| {
                done.fetch_add(share, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 10);
        assert!(cost.time >= Duration::from_millis(5));
    }

    #[test]
    fn no_work_starts_when_one_thread_is_not_ready() {
        let worked = AtomicBool::new(false);
        let result = run(
            std::process::id(),
            async |place| if place.thread == 0 { Err(anyhow!("no connection")) } else { Ok(()) },
            async |()| {
                worked.store(true, Ordering::Relaxed);
                Ok(())
            },
        );
        assert_eq!(result.unwrap_err().to_string(), "no connection");
        assert!(!worked.load(Ordering::Relaxed));
    }
}
