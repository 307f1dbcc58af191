//! What the caches hold, as metrics: `apiserver_resource_objects` and `apiserver_resource_size_estimate_bytes` as upstream
//! counts them, and the open watches.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::{MetricType, gauge::ConstGauge};

use super::Caches;
use super::resource::Counts;

/// Reads the caches when it is asked.
#[derive(Debug)]
pub(crate) struct CacheCollector(pub(crate) Arc<Caches>);

type Gauge = (&'static str, &'static str, fn(&Counts) -> usize);

const GAUGES: [Gauge; 3] = [
    ("apiserver_resource_objects", "Number of stored objects at the time of last check.", |counts| {
        counts.objects
    }),
    (
        "apiserver_resource_size_estimate_bytes",
        "Estimated size of stored objects in the watch cache.",
        |counts| counts.bytes,
    ),
    ("keelson_apiserver_watch_cache_watchers", "Watches that are served from the watch cache.", |counts| {
        counts.watchers
    }),
];

impl Collector for CacheCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (info, counts) in self.0.counts() {
                let labels = [("group", info.group), ("resource", info.plural)];
                let count = i64::try_from(value(&counts)).unwrap_or(i64::MAX);
                ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
