//! ImageLocality: a node that holds the pod's images already scores higher, less so when most nodes do not.

use std::collections::HashMap;

use crate::cache::Snapshot;
use crate::framework::{ClusterEvent, CycleState, MAX_NODE_SCORE, Plugin, Score};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// Name of the plugin.
pub const NAME: &str = "ImageLocality";

const MIB: i64 = 1024 * 1024;
const MIN_THRESHOLD: i64 = 23 * MIB;
const MAX_CONTAINER_THRESHOLD: i64 = 1000 * MIB;

/// The plugin.
#[derive(Debug)]
pub struct ImageLocality;

/// The share of nodes that hold each image of the pod.
struct Spread(HashMap<String, f64>);

/// The name under which nodes report an image: with a tag.
fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

fn images(pod: &PodInfo) -> Vec<String> {
    apimachinery::pod::all_containers(&pod.pod).filter_map(|c| c.image.as_deref()).map(normalized).collect()
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        NAME
    }

    fn may_help(&self, _: &PodInfo, _: &ClusterEvent<'_>) -> bool {
        false
    }
}

impl Score for ImageLocality {
    fn pre_score(&self, state: &mut CycleState, pod: &PodInfo, snapshot: &Snapshot) {
        let total = snapshot.nodes.len().max(1) as f64;
        let share = |image: String| {
            let holders = snapshot.image_nodes.get(&image).copied().unwrap_or(0) as f64;
            (image, holders / total)
        };
        let spread: HashMap<String, f64> =
            images(pod).into_iter().map(share).filter(|(_, s)| *s > 0.0).collect();
        if spread.is_empty() {
            state.skip_score(NAME);
        } else {
            state.write(NAME, Spread(spread));
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a share of 0..=1 of a size")]
    fn score(&self, state: &CycleState, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let Some(Spread(spread)) = state.read::<Spread>(NAME) else { return 0 };
        let held: i64 = images(pod)
            .iter()
            .filter_map(|image| Some((*node.images.get(image)? as f64 * spread.get(image)?) as i64))
            .sum();
        let containers = apimachinery::pod::all_containers(&pod.pod).count();
        let max = MAX_CONTAINER_THRESHOLD * i64::try_from(containers.max(1)).unwrap_or(1);
        MAX_NODE_SCORE * (held.clamp(MIN_THRESHOLD, max) - MIN_THRESHOLD) / (max - MIN_THRESHOLD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag() {
        for (image, want) in [
            ("web", "web:latest"),
            ("web:1", "web:1"),
            ("host:5000/web", "host:5000/web:latest"),
            ("web@sha256:ab", "web@sha256:ab"),
        ] {
            assert_eq!(normalized(image), want);
        }
    }
}
