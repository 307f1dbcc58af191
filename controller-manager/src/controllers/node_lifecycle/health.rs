//! How long a node has been silent, and the conditions that say so. Pure: the clock is passed in. Upstream:
//! `tryUpdateNodeHealth`. Only the controller's own clock counts: what a node writes as its time may be wrong, so a change
//! of it is what proves life.

use std::time::Duration;

use apimachinery::node;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

/// Conditions that become Unknown with Ready.
const CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// How long silence is borne.
#[derive(Debug, Clone, Copy)]
pub struct GracePeriods {
    /// Of a node that has reported before.
    pub running: Duration,
    /// Of a node that never has.
    pub startup: Duration,
}

/// What is remembered of a node between looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    heartbeat: Option<Time>,
    renewed: Option<MicroTime>,
    /// When the node last gave a sign of life, by our clock.
    pub alive_at: Timestamp,
}

impl Health {
    /// The first look at a node: it has its whole grace period from now on (from its creation, if it never reported).
    pub fn first(node: &Node, lease: Option<&Lease>, now: Timestamp) -> Self {
        let ready = node::condition(node, "Ready");
        let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let alive_at = if ready.is_some() || lease.is_some() { now } else { created.unwrap_or(now) };
        Self {
            heartbeat: ready.and_then(|ready| ready.last_heartbeat_time.clone()),
            renewed: renew_time(lease),
            alive_at,
        }
    }

    /// Takes note of signs of life.
    pub fn observe(&mut self, node: &Node, lease: Option<&Lease>, now: Timestamp) {
        let heartbeat = node::condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.clone());
        if heartbeat.is_some() && heartbeat != self.heartbeat {
            self.heartbeat = heartbeat;
            self.alive_at = now;
        }
        let renewed = renew_time(lease);
        if renewed.is_some() && renewed > self.renewed {
            self.renewed = renewed;
            self.alive_at = now;
        }
    }

    /// Starts the grace period anew.
    pub fn pardon(&mut self, now: Timestamp) {
        self.alive_at = now;
    }

    /// The conditions to write when the node has been silent for too long; none when all is well or told already.
    pub fn overdue(&self, node: &Node, grace: GracePeriods, now: Timestamp) -> Vec<NodeCondition> {
        let grace = if node::condition(node, "Ready").is_some() { grace.running } else { grace.startup };
        let silent = now.as_millisecond() - self.alive_at.as_millisecond();
        if u128::try_from(silent).unwrap_or(0) <= grace.as_millis() {
            return Vec::new();
        }
        CONDITIONS.iter().filter_map(|type_| unknown(node, type_, now)).collect()
    }
}

fn renew_time(lease: Option<&Lease>) -> Option<MicroTime> {
    lease?.spec.as_ref()?.renew_time.clone()
}

fn unknown(node: &Node, type_: &str, now: Timestamp) -> Option<NodeCondition> {
    match node::condition(node, type_) {
        None => Some(NodeCondition {
            type_: type_.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some("NodeStatusNeverUpdated".to_owned()),
            message: Some("Kubelet never posted node status.".to_owned()),
            last_heartbeat_time: node.metadata.creation_timestamp.clone(),
            last_transition_time: Some(Time(now)),
        }),
        Some(current) if current.status != "Unknown" => Some(NodeCondition {
            status: "Unknown".to_owned(),
            reason: Some("NodeStatusUnknown".to_owned()),
            message: Some("Kubelet stopped posting node status.".to_owned()),
            last_transition_time: Some(Time(now)),
            ..current.clone()
        }),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, node, time};

    const GRACE: GracePeriods =
        GracePeriods { running: Duration::from_secs(50), startup: Duration::from_secs(60) };

    fn lease(renewed: i64) -> Lease {
        let mut lease = Lease::default();
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(at(renewed)));
        lease
    }

    #[test]
    fn silence_becomes_unknown_once() {
        let mut n = node("n", "True");
        let mut health = Health::first(&n, Some(&lease(1)), at(100));
        health.observe(&n, Some(&lease(1)), at(140));
        assert!(health.overdue(&n, GRACE, at(150)).is_empty());
        let conditions = health.overdue(&n, GRACE, at(151));
        let reasons: Vec<_> =
            conditions.iter().map(|c| (c.type_.as_str(), c.reason.as_deref().unwrap())).collect();
        assert_eq!(
            reasons,
            [
                ("Ready", "NodeStatusUnknown"),
                ("MemoryPressure", "NodeStatusNeverUpdated"),
                ("DiskPressure", "NodeStatusNeverUpdated"),
                ("PIDPressure", "NodeStatusNeverUpdated")
            ]
        );
        n.status.as_mut().unwrap().conditions = Some(conditions);
        assert!(health.overdue(&n, GRACE, at(999)).is_empty(), "nothing more to say");
    }

    #[test]
    fn a_renewed_lease_or_a_new_heartbeat_is_life() {
        let mut n = node("n", "True");
        let mut health = Health::first(&n, None, at(100));
        health.observe(&n, Some(&lease(5)), at(140));
        assert_eq!(health.alive_at, at(140), "whatever the node's own clock says");
        health.observe(&n, Some(&lease(4)), at(150));
        assert_eq!(health.alive_at, at(140), "an older renewal is no news");
        n.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].last_heartbeat_time = Some(time(7));
        health.observe(&n, Some(&lease(5)), at(160));
        assert_eq!(health.alive_at, at(160));
    }

    #[test]
    fn a_node_that_never_reported_has_the_startup_grace_from_its_creation() {
        let mut n = Node::default();
        n.metadata.creation_timestamp = Some(time(100));
        let health = Health::first(&n, None, at(130));
        assert!(health.overdue(&n, GRACE, at(160)).is_empty());
        assert_eq!(health.overdue(&n, GRACE, at(161)).len(), 4);
    }

    #[test]
    fn a_pardon_starts_anew() {
        let n = node("n", "True");
        let mut health = Health::first(&n, None, at(100));
        health.pardon(at(200));
        assert!(health.overdue(&n, GRACE, at(240)).is_empty());
    }
}
