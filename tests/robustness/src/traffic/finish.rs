//! The end of a run: last writes that every watcher must hear of.

use super::client::{JSON, listed, object_path};
use super::objects::{self, Mark, SHADES, keys};
use super::{Shared, Watcher, outcome};
use crate::history::{
    Action, Freshness, Key, List, Operation, Outcome, Record, Resource, Revision, Scope, Selector, Shown,
    Version, version_of,
};
use anyhow::{Result, bail};
use http::Method;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The number of the client that writes last.
const CLIENT: u32 = 999;
/// How long a server may take to write again after the last fault, and watchers to hear of the last writes.
const PATIENCE: Duration = Duration::from_secs(45);
/// How long one write may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Writes every object once more, then waits for the watchers. What they still lack is the checker's to say.
///
/// # Errors
/// A server does not take writes again.
pub async fn finish(shared: &Shared, watchers: &[Watcher]) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut last = Vec::new();
    for (index, key) in keys().into_iter().enumerate() {
        // Alternately, so that objects of both shades are among them, and a write by each server.
        let shade = SHADES[index % SHADES.len()];
        let server = index % shared.target.servers();
        let version = loop {
            // One that is tried again is another write: the first may have been done.
            let mark =
                || Mark { write: format!("c{CLIENT}-{}", shared.id()), slot: format!("c{CLIENT}"), shade };
            if let Ok(version) = write(shared, server, &key, Action::Patch, &mark()).await {
                break version;
            }
            match write(shared, server, &key, Action::Create, &mark()).await {
                Ok(version) => break version,
                Err(error) if Instant::now() > until => bail!("server {server} takes no writes: {error:#}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        last.push((key, version));
    }
    let revision = last.iter().map(|(_, version)| version.revision).max().unwrap_or_default();
    let until = Instant::now() + PATIENCE;
    let lacking = |watcher: &&Watcher| watcher.told.load(Ordering::Relaxed) < owed(&watcher.scope, &last);
    while watchers.iter().any(|watcher| lacking(&watcher)) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shared.recorder.record(&Record::Settled { at: shared.recorder.now(), revision });
    for server in 0..shared.target.servers() {
        for resource in Resource::ALL {
            catch_up(shared, server, resource, revision).await;
        }
    }
    Ok(())
}

/// Reads what a server shows with resourceVersion=0 until it is as new as the last write, or time is over.
async fn catch_up(shared: &Shared, server: usize, resource: Resource, revision: Revision) {
    let until = Instant::now() + PATIENCE;
    let scope = Scope { resource, namespace: None, selector: Selector::Everything };
    while Instant::now() < until {
        let call = shared.recorder.now();
        let path = format!("{}resourceVersion=0", objects::path(&scope));
        let asking = async { shared.target.connect(server).await?.get(ANSWER, &path).await };
        let outcome = outcome(&asking.await, listed);
        let shown = matches!(&outcome, Outcome::Done(listed) if listed.revision >= revision);
        shared.recorder.record(&Record::List(List {
            client: CLIENT,
            server,
            scope: scope.clone(),
            freshness: Freshness::Any,
            page: None,
            call,
            answer: shared.recorder.now(),
            outcome,
        }));
        if shown {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The last of the last writes that a scope sees.
fn owed(scope: &Scope, last: &[(Key, Version)]) -> Revision {
    let seen = last.iter().filter(|(key, version)| scope.covers(key) && scope.selects(&version.shade));
    seen.map(|(_, version)| version.revision).max().unwrap_or_default()
}

async fn write(shared: &Shared, server: usize, key: &Key, action: Action, mark: &Mark) -> Result<Version> {
    let mut connection = shared.target.connect(server).await?;
    let (method, path, media_type, body) = match action {
        Action::Create => {
            let path = objects::collection(key.resource, Some(&key.namespace));
            (Method::POST, path, JSON, objects::new(key, mark))
        }
        _ => (Method::PATCH, object_path(key), "application/merge-patch+json", objects::patch(mark)),
    };
    let call = shared.recorder.now();
    let answer = connection.ask(ANSWER, method, &path, Some(media_type), Some(&body)).await;
    let outcome = outcome(&answer, |body| version_of(body, None).map(Shown::Version));
    shared.recorder.record(&Record::Operation(Operation {
        client: CLIENT,
        server,
        action,
        key: key.clone(),
        write: mark.write.clone(),
        call,
        answer: shared.recorder.now(),
        outcome: outcome.clone(),
    }));
    match outcome {
        Outcome::Done(Shown::Version(version)) => Ok(version),
        other => bail!("{other:?}"),
    }
}
