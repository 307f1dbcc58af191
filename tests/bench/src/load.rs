//! The loads: create, get, list, watch and delete pods of 2.9 KB.

use crate::Args;
use crate::client::{Connection, Target};
use crate::report::Row;
use crate::usage::Usage;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const JSON: Option<&str> = Some("application/json");
const PODS: &str = "/api/v1/namespaces/bench/pods";
/// Watches on one connection: servers limit concurrent streams.
const WATCHES_PER_CONNECTION: u32 = 25;

/// Makes the namespace, and the service account that the pods run under.
pub(crate) async fn prepare(target: &Target) -> Result<()> {
    let mut connection = target.connect().await?;
    for (path, object) in [
        (
            "/api/v1/namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}),
        ),
        (
            "/api/v1/namespaces/bench/serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
        ),
    ] {
        connection.size(Method::POST, path, JSON, object.to_string()).await?;
    }
    Ok(())
}

/// A pod whose JSON has about 2.9 KB, as real ones do.
fn pod(index: u32) -> Value {
    let env: Vec<Value> =
        (0..12).map(|i| json!({"name": format!("SETTING_{i}"), "value": "x".repeat(48)})).collect();
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("pod-{index:06}"),
            "labels": {"app": "bench", "index": format!("{index}"), "team": "platform"},
            "annotations": {},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "nodeSelector": {"bench.keelson.dev/nowhere": "true"},
            "containers": [{
                "name": "main",
                "image": "registry.example.org/team/application:v1.2.3",
                "command": ["/usr/local/bin/application", "--verbose", "--config=/etc/application/config.yaml"],
                "env": env,
                "ports": [{"containerPort": 8080, "name": "http"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            }],
        },
    });
    // The server adds about 700 bytes of defaults and metadata.
    let missing = 2200_usize.saturating_sub(pod.to_string().len());
    pod["metadata"]["annotations"]["bench.keelson.dev/padding"] = Value::String("p".repeat(missing));
    pod
}

/// What every client does over and over.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Create,
    Get,
    Patch,
    Delete,
}

impl Operation {
    async fn perform(self, connection: &mut Connection, index: u32) -> Result<()> {
        let path = format!("{PODS}/pod-{index:06}");
        match self {
            Operation::Create => connection.size(Method::POST, PODS, JSON, pod(index).to_string()).await,
            Operation::Get => connection.size(Method::GET, &path, None, "").await,
            Operation::Patch => {
                let patch =
                    format!(r#"{{"metadata":{{"annotations":{{"bench.keelson.dev/patch":"{index}"}}}}}}"#);
                connection.size(Method::PATCH, &path, Some("application/merge-patch+json"), patch).await
            }
            Operation::Delete => {
                connection.size(Method::DELETE, &format!("{path}?gracePeriodSeconds=0"), None, "").await
            }
        }
        .map(drop)
    }
}

/// Runs `count` operations on `clients` connections, over the pods in turn; returns how long it took and the
/// server's CPU time.
async fn spread(
    target: &Target,
    pid: u32,
    args: &Args,
    count: u32,
    operation: Operation,
) -> Result<(Duration, Duration)> {
    let mut connections = Vec::new();
    for _ in 0..args.clients {
        connections.push(target.connect().await?);
    }
    let next = Arc::new(AtomicU32::new(0));
    let pods = args.pods.max(1);
    let before = Usage::of(pid)?;
    let begun = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let next = next.clone();
            tokio::spawn(async move {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return Ok::<_, anyhow::Error>(());
                    }
                    operation.perform(&mut connection, index % pods).await?;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let took = begun.elapsed();
    Ok((took, Usage::of(pid)?.cpu - before.cpu))
}

fn per_second(count: u32, took: Duration) -> f64 {
    f64::from(count) / took.as_secs_f64()
}

pub(crate) async fn create(target: &Target, pid: u32, args: &Args) -> Result<Vec<Row>> {
    eprintln!("creating {} pods", args.pods);
    let (took, cpu) = spread(target, pid, args, args.pods, Operation::Create).await?;
    let mut connection = target.connect().await?;
    let size = connection.size(Method::GET, &format!("{PODS}/pod-000000"), None, "").await?;
    eprintln!("a pod has {size} bytes");
    Ok(vec![
        Row::rate(&format!("create pods, {} clients", args.clients), per_second(args.pods, took), 1147.0),
        Row::micros("CPU for one create", cpu / args.pods, 1270.0),
    ])
}

pub(crate) async fn get(target: &Target, pid: u32, args: &Args) -> Result<Vec<Row>> {
    let count = args.pods * 10;
    eprintln!("getting a pod {count} times");
    let (took, cpu) = spread(target, pid, args, count, Operation::Get).await?;
    Ok(vec![
        Row::rate(&format!("get a pod, {} clients", args.clients), per_second(count, took), 2930.0),
        Row::micros("CPU for one get", cpu / count, 460.0),
    ])
}

pub(crate) async fn delete(target: &Target, pid: u32, args: &Args) -> Result<Vec<Row>> {
    eprintln!("deleting {} pods", args.pods);
    let (took, cpu) = spread(target, pid, args, args.pods, Operation::Delete).await?;
    Ok(vec![
        Row::rate(&format!("delete pods, {} clients", args.clients), per_second(args.pods, took), 865.0),
        Row::micros("CPU for one delete", cpu / args.pods, 1490.0),
    ])
}

/// Lists, one after the other; the median counts.
pub(crate) async fn lists(target: &Target, pid: u32, args: &Args) -> Result<Vec<Row>> {
    const TIMES: u32 = 15;
    eprintln!("listing {} pods", args.pods);
    let mut connection = target.connect().await?;
    let mut rows = Vec::new();
    let mut cpu_of_one = Duration::ZERO;
    for (what, query, upstream) in [
        ("consistent", "", 220.0),
        ("resourceVersion=0", "?resourceVersion=0", 200.0),
        ("selector that matches none", "?labelSelector=app%3Dnothing", 3.0),
    ] {
        let mut times = Vec::new();
        let mut size = 0;
        let before = Usage::of(pid)?;
        for _ in 0..TIMES {
            let begun = Instant::now();
            size = connection.size(Method::GET, &format!("{PODS}{query}"), None, "").await?;
            times.push(begun.elapsed());
        }
        if query.is_empty() {
            cpu_of_one = (Usage::of(pid)?.cpu - before.cpu) / TIMES;
        }
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let megabytes = Duration::from_nanos(size as u64).as_secs_f64() * 1e3;
        rows.push(Row::millis(
            &format!("list {} pods, {megabytes:.1} MB, {what}", args.pods),
            median,
            upstream,
        ));
    }
    rows.push(Row::millis("CPU for one consistent list", cpu_of_one, 240.0));
    Ok(rows)
}

/// Patches pods while many watchers look on, until each watcher has seen every patch.
pub(crate) async fn fan_out(target: &Target, pid: u32, args: &Args) -> Result<Vec<Row>> {
    eprintln!("{} patches seen by {} watchers", args.patches, args.watchers);
    let mut first = target.connect().await?;
    let list = first.send(Method::GET, &format!("{PODS}?limit=1"), None, "").await?;
    let list: Value = serde_json::from_slice(&list.into_body().collect().await?.to_bytes())?;
    let version =
        list["metadata"]["resourceVersion"].as_str().context("the list has no resourceVersion")?.to_owned();
    let path = format!("{PODS}?watch=true&resourceVersion={version}");
    let seen = Arc::new(AtomicU64::new(0));
    let mut watchers = Vec::new();
    let mut connection = first;
    for index in 0..args.watchers {
        if index % WATCHES_PER_CONNECTION == 0 {
            connection = target.connect().await?;
        }
        let answer = connection.send(Method::GET, &path, None, "").await?;
        ensure!(answer.status().is_success(), "watch: {}", answer.status());
        let (seen, mut body) = (seen.clone(), answer.into_body());
        watchers.push(tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                if let Some(data) = frame.data_ref() {
                    seen.fetch_add(events(data), Ordering::Relaxed);
                }
            }
        }));
    }
    let wanted = u64::from(args.watchers) * u64::from(args.patches);
    let before = Usage::of(pid)?;
    let begun = Instant::now();
    spread(target, pid, args, args.patches, Operation::Patch).await?;
    let until = begun + Duration::from_secs(120);
    while seen.load(Ordering::Relaxed) < wanted {
        ensure!(
            Instant::now() < until,
            "only {} of {wanted} events came within 120 s",
            seen.load(Ordering::Relaxed)
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = begun.elapsed();
    let cpu = Usage::of(pid)?.cpu - before.cpu;
    for watcher in watchers {
        watcher.abort();
    }
    let count = u32::try_from(wanted).unwrap_or(u32::MAX).max(1);
    Ok(vec![
        Row::rate(
            &format!("watch fan-out, {} patches to {} watchers", args.patches, args.watchers),
            f64::from(count) / took.as_secs_f64(),
            70_000.0,
        ),
        Row::micros("CPU for one event delivered", cpu / count, 19.0),
    ])
}

/// Events in a piece of a watch stream: each ends in a newline, and JSON has none inside.
fn events(data: &Bytes) -> u64 {
    data.iter().filter(|byte| **byte == b'\n').count() as u64
}
