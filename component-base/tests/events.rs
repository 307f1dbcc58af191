//! Events reach the server, once each, with their count.

use anyhow::Result;
use component_base::events::{EventRecorder, EventType};
use k8s_openapi::api::{
    core::v1::{Event, Namespace},
    events::v1,
};
use kube::{Api, api::ListParams};

use crate::server::{Server, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_events_are_one_object() -> Result<()> {
    let server = Server::start().await?;
    let client = server.client().await?;
    let object = Api::<Namespace>::all(client.clone()).get("kube-system").await?;
    let recorder = EventRecorder::new(client.clone(), "test-controller", "host");
    for _ in 0..3 {
        recorder.event(&object, EventType::Warning, "Repeated", "again");
    }
    recorder.event(&object, EventType::Normal, "Once", "only");
    let events = Api::<Event>::namespaced(client.clone(), "default");
    let about = ListParams::default().fields("involvedObject.name=kube-system,involvedObject.kind=Namespace");
    let summary = async || {
        let list = events.list(&about).await.map(|list| list.items).unwrap_or_default();
        let mut lines: Vec<String> = list
            .iter()
            .map(|event| {
                let reason = event.reason.as_deref().unwrap_or_default();
                let component =
                    event.source.as_ref().and_then(|source| source.component.as_deref()).unwrap_or_default();
                format!("{reason} {} {component}", event.count.unwrap_or_default())
            })
            .collect();
        lines.sort();
        lines
    };
    let want = vec!["Once 1 test-controller".to_owned(), "Repeated 3 test-controller".to_owned()];
    eventually("the events", want, async || summary().await).await;

    for _ in 0..2 {
        recorder.event_with_action(&object, None, EventType::Normal, "Acted", "Acting", "note");
    }
    let events = Api::<v1::Event>::namespaced(client, "default");
    let series = async || {
        let list = events.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let event = list.into_iter().find(|event| event.reason.as_deref() == Some("Acted"))?;
        event.series.map(|series| series.count)
    };
    eventually("the series", Some(2), async || series().await).await;
    assert_eq!(recorder.dropped(), 0);
    Ok(())
}
