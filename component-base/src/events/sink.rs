//! Writes events, in the order they were recorded, one at a time.

use std::time::Duration;

use futures::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1 as core, events::v1 as events},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    Action, RecordedEvent,
    correlator::{self, Correlator},
    series::{self, Series},
};
use crate::error_chain::Chain;

/// client-go's: an event is tried so often while the server is away.
const ATTEMPTS: u32 = 12;
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(10);
const SWEEP: Duration = Duration::from_secs(60);
/// The longest note that events.k8s.io accepts.
const MAX_NOTE: usize = 1024;

/// Who records.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) component: String,
    pub(super) host: String,
}

/// See the module.
pub(super) struct Sink {
    client: Client,
    source: Source,
    correlator: Correlator,
    series: Series,
}

impl Sink {
    pub(super) fn new(client: Client, source: Source) -> Self {
        Self { client, source, correlator: Correlator::new(), series: Series::new() }
    }

    /// Until every recorder is gone.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<RecordedEvent>) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = queue.recv() => match event {
                    Some(event) if event.action.is_some() => self.write_events_v1(event).await,
                    Some(event) => self.write_core(event).await,
                    None => return,
                },
                _ = sweep.tick() => {
                    for update in self.series.sweep(Timestamp::now()) {
                        self.write_series(&update).await;
                    }
                }
            }
        }
    }

    async fn write_core(&mut self, event: RecordedEvent) {
        let Some(outcome) = self.correlator.observe(&event, Timestamp::now()) else { return };
        let api = Api::<core::Event>::namespaced(self.client.clone(), &namespace(&event));
        let object = core_event(&event, &outcome, &self.source);
        let write = || async {
            if outcome.count > 1 {
                let patch = Patch::Strategic(json!({
                    "count": outcome.count,
                    "lastTimestamp": Time(outcome.last),
                    "message": outcome.message,
                }));
                match api.patch(&outcome.name, &PatchParams::default(), &patch).await {
                    // It expired meanwhile; it is made again with its count.
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    other => return other.map(drop),
                }
            }
            api.create(&PostParams::default(), &object).await.map(drop)
        };
        report(&event, with_retries(|| write().boxed()).await);
    }

    async fn write_events_v1(&mut self, event: RecordedEvent) {
        let namespace = namespace(&event);
        match self.series.observe(&event, &namespace, Timestamp::now()) {
            series::Outcome::Counted => {}
            series::Outcome::Series(update) => {
                if !self.write_series(&update).await {
                    self.series.forget(&event);
                }
            }
            series::Outcome::Create { name, at } => {
                let Some(action) = &event.action else { return };
                let api = Api::<events::Event>::namespaced(self.client.clone(), &namespace);
                let object = events_v1_event(&event, action, name, at, &self.source);
                let write = || async { api.create(&PostParams::default(), &object).await.map(drop) };
                let created = with_retries(|| write().boxed()).await;
                if created.is_err() {
                    self.series.forget(&event);
                }
                report(&event, created);
            }
        }
    }

    /// False when the Event is gone.
    async fn write_series(&self, update: &series::Update) -> bool {
        let api = Api::<events::Event>::namespaced(self.client.clone(), &update.namespace);
        let patch = Patch::Strategic(json!({
            "series": { "count": update.count, "lastObservedTime": MicroTime(update.last) },
        }));
        let write = || async { api.patch(&update.name, &PatchParams::default(), &patch).await.map(drop) };
        match with_retries(|| write().boxed()).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(name = update.name, error = %Chain(&error), "event series not written");
                false
            }
        }
    }
}

/// Tries again only what never reached the server.
async fn with_retries<'a>(
    write: impl Fn() -> BoxFuture<'a, Result<(), kube::Error>>,
) -> Result<(), kube::Error> {
    let mut attempt = 1;
    loop {
        match write().await {
            Err(error) if attempt < ATTEMPTS && !matches!(error, kube::Error::Api(_)) => {
                tracing::debug!(attempt, error = %Chain(&error), "event not written, will retry");
                attempt += 1;
                tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            }
            outcome => return outcome,
        }
    }
}

fn report(event: &RecordedEvent, written: Result<(), kube::Error>) {
    let Err(error) = written else { return };
    let (namespace, name) = (event.regarding.namespace.as_deref(), event.regarding.name.as_deref());
    tracing::warn!(namespace, name, reason = event.reason, error = %Chain(&error), "event not written");
}

/// Events about cluster-scoped objects live in `default`.
fn namespace(event: &RecordedEvent) -> String {
    event
        .regarding
        .namespace
        .clone()
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or_else(|| "default".to_owned())
}

fn core_event(event: &RecordedEvent, outcome: &correlator::Outcome, source: &Source) -> core::Event {
    core::Event {
        metadata: ObjectMeta {
            name: Some(outcome.name.clone()),
            namespace: Some(namespace(event)),
            ..ObjectMeta::default()
        },
        involved_object: event.regarding.clone(),
        reason: Some(event.reason.clone()),
        message: Some(outcome.message.clone()),
        type_: Some(event.event_type.as_str().to_owned()),
        count: Some(outcome.count),
        first_timestamp: Some(Time(outcome.first)),
        last_timestamp: Some(Time(outcome.last)),
        source: Some(core::EventSource {
            component: Some(source.component.clone()),
            host: (!source.host.is_empty()).then(|| source.host.clone()),
        }),
        reporting_component: Some(source.component.clone()),
        reporting_instance: Some(source.host.clone()),
        ..core::Event::default()
    }
}

fn events_v1_event(
    event: &RecordedEvent,
    action: &Action,
    name: String,
    at: Timestamp,
    source: &Source,
) -> events::Event {
    let note: String = event.message.chars().take(MAX_NOTE).collect();
    // The API requires an instance; upstream's is component-host.
    let instance = if source.host.is_empty() {
        source.component.clone()
    } else {
        format!("{}-{}", source.component, source.host)
    };
    events::Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace(event)), ..ObjectMeta::default() },
        event_time: Some(MicroTime(at)),
        action: Some(action.action.clone()),
        reason: Some(event.reason.clone()),
        note: Some(note),
        type_: Some(event.event_type.as_str().to_owned()),
        regarding: Some(event.regarding.clone()),
        related: action.related.clone(),
        reporting_controller: Some(source.component.clone()),
        reporting_instance: Some(instance),
        ..events::Event::default()
    }
}
