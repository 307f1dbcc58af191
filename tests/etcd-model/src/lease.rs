//! Leases and the keys that hang on them. Upstream: `lease/lessor.go`.

use crate::Error;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Seconds: the default election timeout of 1 s and a half, rounded up.
const MIN_TTL: i64 = 2;
/// Seconds.
const MAX_TTL: i64 = 9_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Seconds.
    pub(crate) ttl: i64,
    pub(crate) expires_ms: u64,
    pub(crate) keys: BTreeSet<Bytes>,
}

/// A key hangs on one lease at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lessor {
    pub(crate) leases: BTreeMap<i64, Lease>,
    lease_of: BTreeMap<Bytes, i64>,
}

impl Lessor {
    /// The id 0 asks for any free one.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64, now_ms: u64) -> Result<(i64, i64), Error> {
        if ttl > MAX_TTL {
            return Err(Error::LeaseTtlTooLarge);
        }
        let id = if id == 0 { self.free_id() } else { id };
        if self.leases.contains_key(&id) {
            return Err(Error::LeaseExists);
        }
        let ttl = ttl.max(MIN_TTL);
        self.leases.insert(id, Lease { ttl, expires_ms: expiry(now_ms, ttl), keys: BTreeSet::new() });
        Ok((id, ttl))
    }

    fn free_id(&self) -> i64 {
        (1..).find(|id| !self.leases.contains_key(id)).expect("there are fewer leases than numbers")
    }

    pub(crate) fn check(&self, id: i64) -> Result<(), Error> {
        if id == 0 || self.leases.contains_key(&id) { Ok(()) } else { Err(Error::LeaseNotFound) }
    }

    /// Its whole time anew, and how long that is; `None` if there is no such lease.
    pub(crate) fn renew(&mut self, id: i64, now_ms: u64) -> Option<i64> {
        let lease = self.leases.get_mut(&id)?;
        lease.expires_ms = expiry(now_ms, lease.ttl);
        Some(lease.ttl)
    }

    /// As a new leader does: it can't know how much of each lease has passed.
    pub(crate) fn extend_all(&mut self, now_ms: u64) {
        for lease in self.leases.values_mut() {
            lease.expires_ms = expiry(now_ms, lease.ttl);
        }
    }

    pub(crate) fn first_expired(&self, now_ms: u64) -> Option<i64> {
        let expired = self.leases.iter().filter(|(_, lease)| lease.expires_ms <= now_ms);
        expired.min_by_key(|(id, lease)| (lease.expires_ms, **id)).map(|(id, _)| *id)
    }

    /// Hangs a key on a lease, 0 for none, and takes it off the one it hung on.
    pub(crate) fn attach(&mut self, key: &Bytes, id: i64) {
        if let Some(old) = self.lease_of.remove(key)
            && let Some(lease) = self.leases.get_mut(&old)
        {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key.clone());
            self.lease_of.insert(key.clone(), id);
        }
    }
}

fn expiry(now_ms: u64, ttl: i64) -> u64 {
    now_ms.saturating_add(ttl.unsigned_abs().saturating_mul(1000))
}
