//! How fast nodes of a zone may be evicted from: slower, or not at all, when so many fail together that the fault is
//! likely in the network between. Pure. Upstream: `handleDisruption`, `ComputeZoneState`, `RateLimitedTimedQueue`.

use std::collections::HashMap;

use apimachinery::meta;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

/// The health of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Few nodes fail.
    Normal,
    /// Many fail.
    PartialDisruption,
    /// All fail.
    FullDisruption,
}

/// The flags about evictions.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// `--node-eviction-rate`.
    pub normal: f32,
    /// `--secondary-node-eviction-rate`.
    pub secondary: f32,
    /// `--unhealthy-zone-threshold`.
    pub unhealthy_threshold: f32,
    /// `--large-cluster-size-threshold`.
    pub large_cluster: usize,
}

/// The zone that a node is in.
pub fn zone_of(node: &Node) -> String {
    let label = |key| meta::label(&node.metadata, key).unwrap_or("");
    format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

/// The state that so many ready and other nodes amount to.
#[expect(clippy::cast_precision_loss, reason = "node counts are far below 2^23")]
pub fn state(ready: usize, not_ready: usize, rates: Rates) -> State {
    if ready == 0 && not_ready > 0 {
        State::FullDisruption
    } else if not_ready > 2 && not_ready as f32 / (ready + not_ready) as f32 >= rates.unhealthy_threshold {
        State::PartialDisruption
    } else {
        State::Normal
    }
}

/// Evictions per second in a zone of `nodes` nodes.
pub fn rate(state: State, nodes: usize, rates: Rates) -> f32 {
    match state {
        State::Normal | State::FullDisruption => rates.normal,
        State::PartialDisruption if nodes > rates.large_cluster => rates.secondary,
        State::PartialDisruption => 0.0,
    }
}

/// Gives out evictions at a zone's rate, one at a time.
#[derive(Debug, Default)]
pub struct Limiter {
    last: HashMap<String, Timestamp>,
}

impl Limiter {
    /// Whether one more node of the zone may be evicted from now; if so it is counted.
    pub fn allow(&mut self, zone: &str, rate: f32, now: Timestamp) -> bool {
        if rate <= 0.0 {
            return false;
        }
        let due = match self.last.get(zone) {
            None => true,
            Some(last) => {
                let waited = std::time::Duration::from_millis(
                    u64::try_from(now.as_millisecond() - last.as_millisecond()).unwrap_or(0),
                );
                waited.as_secs_f32() * rate >= 1.0
            }
        };
        if due {
            self.last.insert(zone.to_owned(), now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    const RATES: Rates = Rates { normal: 0.1, secondary: 0.01, unhealthy_threshold: 0.55, large_cluster: 50 };

    #[test]
    fn states() {
        for (ready, not_ready, expected) in [
            (0, 0, State::Normal),
            (0, 1, State::FullDisruption),
            (1, 2, State::Normal),
            (2, 3, State::PartialDisruption),
            (3, 3, State::Normal),
            (10, 1, State::Normal),
        ] {
            assert_eq!(state(ready, not_ready, RATES), expected, "{ready} {not_ready}");
        }
    }

    #[test]
    fn rates_by_state() {
        assert_eq!(rate(State::Normal, 5, RATES).to_bits(), 0.1_f32.to_bits());
        assert_eq!(rate(State::PartialDisruption, 50, RATES).to_bits(), 0.0_f32.to_bits());
        assert_eq!(rate(State::PartialDisruption, 51, RATES).to_bits(), 0.01_f32.to_bits());
    }

    #[test]
    fn one_node_in_ten_seconds() {
        let mut limiter = Limiter::default();
        assert!(limiter.allow("a", 0.1, at(0)));
        assert!(!limiter.allow("a", 0.1, at(9)));
        assert!(limiter.allow("b", 0.1, at(9)), "zones do not share");
        assert!(limiter.allow("a", 0.1, at(10)));
        assert!(!limiter.allow("c", 0.0, at(10)));
    }
}
