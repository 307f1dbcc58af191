//! An informer sees what the server has, whatever happens to its connection.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Result;
use apimachinery::meta::{ObjectKey, key_of};
use component_base::{
    Shutdown,
    client::raw,
    informer::{Change, Changes, Connection, Informer, InformerBuilder},
    workqueue::{WorkQueue, run_workers},
};
use http::{Request, Response, StatusCode};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    client::Body,
};
use serde_json::json;

use crate::server::{PATIENCE, Server, eventually};

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(BTreeMap::from([("suite".into(), "informers".into())])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("value".into(), value.into())])),
        ..ConfigMap::default()
    }
}

fn api(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

async fn create(api: &Api<ConfigMap>, name: &str, value: &str) -> Result<()> {
    api.create(&PostParams::default(), &config_map(name, value)).await?;
    Ok(())
}

async fn set(api: &Api<ConfigMap>, name: &str, value: &str) -> Result<()> {
    let patch = Patch::Merge(json!({"data": {"value": value}}));
    api.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn delete(api: &Api<ConfigMap>, name: &str) -> Result<()> {
    api.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

fn start(connection: impl Into<Connection>, shutdown: &Shutdown) -> Informer<ConfigMap> {
    InformerBuilder::new(connection)
        .namespace("default")
        .label_selector("suite=informers")
        .index("value", |map: &ConfigMap| value(map).into_iter().collect())
        .start(shutdown)
}

fn value(map: &ConfigMap) -> Option<String> {
    map.data.as_ref()?.get("value").cloned()
}

fn held(informer: &Informer<ConfigMap>) -> BTreeMap<String, String> {
    let name_and_value = |map: Arc<ConfigMap>| (key_of(&*map).name, value(&map).unwrap_or_default());
    informer.store().list().into_iter().map(name_and_value).collect()
}

fn want(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// As a server without the watch service looks to this client.
fn over_http(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move {
            if request.uri().path().starts_with("/keelson.") {
                let refusal = Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty());
                return refusal.map_err(tower::BoxError::from);
            }
            client.send(request).await.map_err(tower::BoxError::from)
        }
    });
    Client::new(service, namespace)
}

/// How many streams of the watch service the server has accepted.
async fn streams(client: &Client) -> Result<String> {
    let metrics = raw::collect(raw::get(client, "/metrics", "text/plain").await?).await?;
    let text = String::from_utf8(metrics.to_vec())?;
    let calls = text.lines().find(|line| {
        line.starts_with("apiserver_request_total{verb=\"POST\",group=\"\",version=\"\",resource=\"\"")
            && line.contains("code=\"200\"")
    });
    Ok(calls.and_then(|line| line.rsplit(' ').next()).unwrap_or("none").to_owned())
}

async fn next(changes: &mut Changes<ConfigMap>) -> String {
    let change =
        tokio::time::timeout(PATIENCE, changes.recv()).await.expect("a change in time").expect("not ended");
    let text = |map: &ConfigMap| value(map).unwrap_or_default();
    let name = change.key().name;
    match change {
        Change::Added(new) => format!("+{name}={}", text(&new)),
        Change::Updated { old, new } => format!("{name}={}>{}", text(&old), text(&new)),
        Change::Deleted(old) => format!("-{name}={}", text(&old)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_arrive_in_order_and_survive_cut_connections() -> Result<()> {
    let server = Server::start().await?;
    follow(&server, server.client().await?).await?;
    assert_ne!(streams(&server.client().await?).await?, "none");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_over_http() -> Result<()> {
    let server = Server::start().await?;
    follow(&server, over_http(server.client().await?)).await?;
    assert_eq!(streams(&server.client().await?).await?, "none");
    Ok(())
}

async fn follow(server: &Server, client: Client) -> Result<()> {
    let api = api(&server.client().await?);
    create(&api, "before", "1").await?;
    let shutdown = Shutdown::new();
    let informer = start(client, &shutdown);
    assert!(informer.wait_synced().await);
    assert_eq!(held(&informer), want(&[("before", "1")]));
    assert!(informer.store().list()[0].metadata.managed_fields.is_none());

    let mut changes = informer.subscribe();
    assert_eq!(next(&mut changes).await, "+before=1");
    create(&api, "a", "1").await?;
    assert_eq!(next(&mut changes).await, "+a=1");
    set(&api, "a", "2").await?;
    assert_eq!(next(&mut changes).await, "a=1>2");
    assert_eq!(informer.store().by_index("value", "2").len(), 1);
    delete(&api, "a").await?;
    assert_eq!(next(&mut changes).await, "-a=2");

    // Cut again and again while objects come, change and go.
    for round in 0..5 {
        let value = round.to_string();
        create(&api, &format!("r{round}"), &value).await?;
        server.proxy.cut();
        // The client of this test is cut, too; its own retries are not what is tested.
        let mut done = false;
        while !done {
            done = set(&api, "before", &format!("round {round}")).await.is_ok();
        }
        if round > 0 {
            delete(&api, &format!("r{}", round - 1)).await?;
        }
    }
    eventually("the store after the cuts", want(&[("before", "round 4"), ("r4", "4")]), async || {
        held(&informer)
    })
    .await;

    // What one subscriber was told adds up to the same.
    let mut told = want(&[("before", "1")]);
    while let Some(change) = changes.try_recv() {
        let name = change.key().name;
        match change {
            Change::Added(new) => {
                assert_eq!(told.insert(name, value(&new).expect("the test writes values")), None)
            }
            Change::Updated { old, new } => {
                assert_eq!(told.insert(name, value(&new).expect("the test writes values")), value(&old))
            }
            Change::Deleted(old) => assert_eq!(told.remove(&name), value(&old)),
        }
    }
    assert_eq!(told, held(&informer));

    shutdown.cancel();
    eventually("the end of the changes", true, async || {
        tokio::time::timeout(Duration::from_millis(10), changes.recv())
            .await
            .is_ok_and(|change| change.is_none())
    })
    .await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn informers_of_a_process_share_a_connection_and_a_stream() -> Result<()> {
    let server = Server::start().await?;
    let client = server.client().await?;
    let shutdown = Shutdown::new();
    let connection = Connection::new(client.clone());
    let informers: Vec<_> = (0..10).map(|_| start(connection.clone(), &shutdown)).collect();
    for informer in &informers {
        assert!(informer.wait_synced().await);
    }
    eventually("connections of ten informers", 1, async || server.proxy.open()).await;
    assert_eq!(streams(&client).await?, "1");
    shutdown.cancel();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_reaches_its_goal() -> Result<()> {
    let server = Server::start().await?;
    let client = server.client().await?;
    let shutdown = Shutdown::new();
    let informer = start(client.clone(), &shutdown);
    let queue = WorkQueue::<ObjectKey>::new();
    let mut changes = informer.subscribe();
    let feed = {
        let queue = queue.clone();
        tokio::spawn(async move {
            while let Some(change) = changes.recv().await {
                queue.add(change.key());
            }
        })
    };
    let sync = {
        let (store, api) = (informer.store(), api(&client));
        move |key: ObjectKey| {
            let (store, api) = (store.clone(), api.clone());
            async move {
                let Some(map) = store.get(&key) else { return Ok(()) };
                if value(&map).as_deref() == Some("done") {
                    return Ok::<_, kube::Error>(());
                }
                // The version from the cache: a conflict, now and then, is retried by the queue.
                let mut map = ConfigMap::clone(&map);
                map.data.get_or_insert_default().insert("value".into(), "done".into());
                api.replace(&key.name, &PostParams::default(), &map).await.map(drop)
            }
        }
    };
    let workers = tokio::spawn(run_workers(queue.clone(), 2, shutdown.clone(), sync));
    let api = api(&client);
    for number in 0..20 {
        create(&api, &format!("m{number}"), "todo").await?;
        set(&api, &format!("m{number}"), "changed").await?;
    }
    let all_done = || held(&informer).values().filter(|value| *value == "done").count();
    eventually("objects that are done", 20, async || all_done()).await;
    shutdown.cancel();
    workers.await?;
    feed.await?;
    Ok(())
}
