//! One active replica of a daemon at a time, by a coordination.k8s.io Lease.
//!
//! client-go's leaderelection with the Lease lock. The rules are in `elector`, a state machine with time passed in;
//! here is what carries them out. Time is the monotonic clock: a process that was stopped for longer than the renew
//! deadline finds, before it does anything else, that it leads no more. Two guards see to that: the leading task is
//! not polled past the deadline, and a client wrapped by the [`Fence`] sends no request past it.

mod args;
mod elector;
mod fence;
#[cfg(test)]
mod tests;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};

use apimachinery::meta::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams};

pub use args::{LeaderElectionArgs, LeaderElectionArgsError};
pub use fence::{Fence, NotLeading};

use crate::{
    Shutdown,
    cli::BoxError,
    error_chain::Chain,
    events::{EventRecorder, EventType},
};
use elector::{Decision, Elector};

/// The parameters of an election; the durations' defaults are upstream's.
#[derive(Debug, Clone)]
pub struct LeaderElectionConfig {
    /// The Lease.
    pub lease: ObjectKey,
    /// This replica, unlike any other.
    pub identity: String,
    /// How long others wait for a leader that does not renew.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Pause between attempts to acquire or renew.
    pub retry_period: Duration,
    /// Opens while this replica leads; see [`Fence::guard`].
    pub fence: Fence,
    /// Tells people who became leader.
    pub recorder: Option<EventRecorder>,
}

impl LeaderElectionConfig {
    /// An election on `name` in kube-system, as a replica that [`identity`] names.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            lease: ObjectKey::new("kube-system", name),
            identity: identity(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            fence: Fence::closed(),
            recorder: None,
        }
    }
}

/// An identity in upstream's form: the host's name and a random UUID.
#[must_use]
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), uuid::Uuid::new_v4())
}

/// Why leading ended.
#[derive(Debug, thiserror::Error)]
pub enum LeaderElectionError {
    /// The lease could not be renewed in time, or another replica has it. The process must end.
    #[error("leaderelection lost")]
    Lost,
    /// The leading task failed.
    #[error("leading")]
    Leading(#[source] BoxError),
}

/// Waits to become leader, then runs `lead` and renews the lease beside it.
///
/// Returns when `lead` does (the lease is released then), when `shutdown` comes before leadership, or with
/// [`LeaderElectionError::Lost`]; then the token given to `lead` is cancelled and `lead` itself dropped. After
/// `shutdown`, `lead` is expected to finish by itself; the lease is kept renewed until it does.
///
/// # Errors
/// When leadership is lost or `lead` fails.
pub async fn run<F, Fut, E>(
    config: LeaderElectionConfig,
    client: Client,
    shutdown: Shutdown,
    lead: F,
) -> Result<(), LeaderElectionError>
where
    F: FnOnce(Shutdown) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let mut candidate = Candidate {
        api: Api::namespaced(client, &config.lease.namespace),
        elector: Elector::new(&config),
        config,
    };
    if shutdown.run_until_cancelled(candidate.acquire()).await.is_none() {
        return Ok(());
    }
    let lost = Shutdown::new();
    // Whatever way this ends, what `lead` has spawned hears of it.
    let guard = lost.clone().drop_guard();
    let fence = candidate.config.fence.clone();
    let outcome = {
        let mut leading = pin!(fenced(fence.clone(), Box::pin(lead(lost.clone()))));
        let mut renewing = pin!(candidate.renew());
        tokio::select! {
            biased;
            () = renewing.as_mut() => Err(LeaderElectionError::Lost),
            outcome = leading.as_mut() => match outcome {
                Some(outcome) => outcome.map_err(|error| LeaderElectionError::Leading(error.into())),
                None => Err(LeaderElectionError::Lost),
            },
        }
    };
    fence.close();
    drop(guard);
    match &outcome {
        Err(LeaderElectionError::Lost) => {
            tracing::error!(lease = %candidate.config.lease, "stopped leading");
        }
        _ => candidate.release().await,
    }
    outcome
}

/// Polls `task` only while the fence is open; `None` when it is closed first.
async fn fenced<T>(fence: Fence, mut task: Pin<Box<impl Future<Output = T>>>) -> Option<T> {
    poll_fn(|context| {
        if !fence.is_open() {
            return Poll::Ready(None);
        }
        task.as_mut().poll(context).map(Some)
    })
    .await
}

struct Candidate {
    config: LeaderElectionConfig,
    api: Api<Lease>,
    elector: Elector,
}

impl Candidate {
    /// Until this replica leads.
    async fn acquire(&mut self) {
        tracing::info!(lease = %self.config.lease, identity = self.config.identity, "attempting to acquire leader lease");
        loop {
            if self.attempt().await {
                tracing::info!(lease = %self.config.lease, "successfully acquired lease");
                self.announce("became leader");
                return;
            }
            // client-go's jitter, so that replicas do not try in step.
            tokio::time::sleep(self.config.retry_period.mul_f64(1.0 + 1.2 * rand::random::<f64>())).await;
        }
    }

    /// Until this replica leads no more.
    async fn renew(&mut self) {
        loop {
            let Some(deadline) = self.elector.deadline() else { return };
            let pause = self.config.retry_period;
            let rest = deadline.saturating_duration_since(Instant::now());
            tokio::time::sleep(pause.min(rest)).await;
            // Looked at before the attempt: after a stop of the process the lease may be another's already.
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return tracing::error!(lease = %self.config.lease, "failed to renew lease in time");
            }
            // An attempt that hangs is cut at the deadline; one that fails is tried again.
            if tokio::time::timeout(rest, self.attempt()).await.is_ok() && !self.elector.leads() {
                return tracing::error!(lease = %self.config.lease, "lease was taken by another replica");
            }
        }
    }

    /// One try to acquire or renew; whether it succeeded.
    async fn attempt(&mut self) -> bool {
        let started = Instant::now();
        match self.write(started).await {
            Ok(leads) => leads,
            Err(kube::Error::Api(status)) if status.code == 409 => {
                // Somebody was quicker; the next look shows who.
                self.elector.forget_lease();
                false
            }
            Err(error) => {
                tracing::warn!(lease = %self.config.lease, error = %Chain(&error), "error retrieving or updating lease");
                self.elector.forget_lease();
                false
            }
        }
    }

    async fn write(&mut self, started: Instant) -> Result<bool, kube::Error> {
        if !self.elector.knows_lease() {
            let found = self.api.get_opt(&self.config.lease.name).await?;
            self.elector.observe(found, Instant::now());
        }
        let written = match self.elector.decide(started, Timestamp::now()) {
            Decision::Wait => return Ok(false),
            Decision::Create(lease) => self.api.create(&PostParams::default(), &lease).await?,
            Decision::Update(lease) => {
                self.api.replace(&self.config.lease.name, &PostParams::default(), &lease).await?
            }
        };
        self.elector.written(written, started);
        if let Some(deadline) = self.elector.deadline() {
            self.config.fence.open_until(deadline);
        }
        Ok(true)
    }

    /// Lets others lead at once.
    async fn release(&mut self) {
        let Some(lease) = self.elector.release(Timestamp::now()) else { return };
        let parameters = PostParams::default();
        let write = self.api.replace(&self.config.lease.name, &parameters, &lease);
        // The process is ending: the lease runs out by itself if this takes long.
        match tokio::time::timeout(Duration::from_secs(2), write).await {
            Ok(Ok(_)) => {
                tracing::info!(lease = %self.config.lease, "released lease");
                self.announce("stopped leading");
            }
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.config.lease, error = %Chain(&error), "lease not released");
            }
            Err(_) => tracing::warn!(lease = %self.config.lease, "lease not released in time"),
        }
    }

    fn announce(&self, what: &str) {
        if let (Some(recorder), Some(lease)) = (&self.config.recorder, self.elector.lease()) {
            let message = format!("{} {what}", self.config.identity);
            recorder.event(lease, EventType::Normal, "LeaderElection", message);
        }
    }
}
