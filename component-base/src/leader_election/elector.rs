//! The rules of the election: when to take, renew or leave a lease. No IO; both clocks are passed in.
//!
//! The monotonic clock decides; wall time is only written into the Lease for people to read. A lease is free when
//! it is unchanged for its whole duration *as watched here*: the holder's clock is never compared with ours.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use super::LeaderElectionConfig;

/// What to do now.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// Another replica leads.
    Wait,
    /// Write this lease, which is not there.
    Create(Lease),
    /// Write this lease over the one observed (its resource version guards it).
    Update(Lease),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Elector {
    namespace: String,
    name: String,
    identity: String,
    lease_duration: Duration,
    renew_deadline: Duration,
    /// The lease as last read or written. `Some(None)` is: looked, not there.
    known: Option<Option<Lease>>,
    /// The last record that differed from the one before, and when it was first seen.
    observed: Option<(LeaseSpec, Instant)>,
    /// When the last successful write was begun, while this replica leads.
    renewed: Option<Instant>,
}

impl Elector {
    pub(super) fn new(config: &LeaderElectionConfig) -> Self {
        Self {
            namespace: config.lease.namespace.clone(),
            name: config.lease.name.clone(),
            identity: config.identity.clone(),
            lease_duration: config.lease_duration,
            renew_deadline: config.renew_deadline,
            known: None,
            observed: None,
            renewed: None,
        }
    }

    /// Whether the lease can be written without reading it again: after a write of our own.
    pub(super) fn knows_lease(&self) -> bool {
        self.known.is_some()
    }

    /// The lease was read at `now`.
    pub(super) fn observe(&mut self, lease: Option<Lease>, now: Instant) {
        let spec = lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        if self.observed.as_ref().is_none_or(|(before, _)| *before != spec) {
            self.observed = Some((spec, now));
        }
        self.known = Some(lease);
    }

    /// What is known may be outdated: read before the next decision.
    pub(super) fn forget_lease(&mut self) {
        self.known = None;
    }

    /// What to write, having looked.
    pub(super) fn decide(&mut self, now: Instant, wall: Timestamp) -> Decision {
        let lease = match &self.known {
            Some(Some(lease)) => lease.clone(),
            Some(None) | None => {
                let metadata = ObjectMeta {
                    namespace: Some(self.namespace.clone()),
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                };
                return Decision::Create(Lease { metadata, spec: Some(self.spec(wall, wall, 0)) });
            }
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or(0);
        let mine = holder == self.identity;
        if !mine && !holder.is_empty() && !self.ran_out(&spec, now) {
            self.renewed = None;
            self.known = None;
            return Decision::Wait;
        }
        let spec = if mine {
            let acquired = spec.acquire_time.map_or(wall, |time| time.0);
            self.spec(acquired, wall, transitions)
        } else {
            self.spec(wall, wall, transitions.saturating_add(1))
        };
        Decision::Update(Lease { spec: Some(spec), ..lease })
    }

    /// The decision was carried out; the attempt began at `started`, which is what the others may count from.
    pub(super) fn written(&mut self, lease: Lease, started: Instant) {
        self.observed = lease.spec.clone().map(|spec| (spec, started));
        self.known = Some(Some(lease));
        self.renewed = Some(started);
    }

    /// Whether this replica holds the lease, as far as is known.
    pub(super) fn leads(&self) -> bool {
        self.renewed.is_some()
    }

    /// When leadership ends unless it is renewed before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + self.renew_deadline)
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.known.as_ref()?.as_ref()
    }

    /// The lease to write so that others need not wait; `None` when it is not ours to release.
    pub(super) fn release(&mut self, wall: Timestamp) -> Option<Lease> {
        self.renewed.take()?;
        let lease = self.known.clone()??;
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            ..self.spec(wall, wall, transitions)
        };
        Some(Lease { spec: Some(spec), ..lease })
    }

    fn ran_out(&self, spec: &LeaseSpec, now: Instant) -> bool {
        let Some((_, since)) = &self.observed else { return false };
        let duration = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        now.saturating_duration_since(*since) > Duration::from_secs(duration)
    }

    fn spec(&self, acquired: Timestamp, renewed: Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.lease_duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(MicroTime(acquired)),
            renew_time: Some(MicroTime(renewed)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}
