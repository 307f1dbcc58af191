//! Records what etcd itself tells, from its first revision on, whatever happens to its members.
//!
//! One watch of everything goes on from member to member. Compaction never passes it ([`TruthWatch::seen`] is what may
//! be compacted), and each key's own count of versions shows that nothing was left out.

use crate::history::{Change, Key, Record, Recorder, Resource, Revision, version_of};
use anyhow::{Context as _, Result, bail, ensure};
use etcd_client::{Client, ConnectOptions, Event, EventType, GetOptions, WatchOptions, WatchStream};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long a member may take for anything; then the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the truth may take to be complete at the end.
const END_PATIENCE: Duration = Duration::from_secs(60);
/// A key of our own, written last.
const END: &str = "robustness/end";

/// See the module.
#[derive(Debug)]
pub(crate) struct TruthWatch {
    endpoints: Vec<String>,
    seen: Arc<AtomicI64>,
    task: JoinHandle<Result<Told>>,
}

/// What the watch knows of each key that exists: version and revision.
type Told = HashMap<String, (i64, Revision)>;

impl TruthWatch {
    pub(crate) fn start(endpoints: Vec<String>, recorder: Recorder) -> TruthWatch {
        let seen = Arc::new(AtomicI64::new(0));
        let task = tokio::spawn(follow(endpoints.clone(), recorder, Arc::clone(&seen)));
        TruthWatch { endpoints, seen, task }
    }

    /// Everything up to here is recorded.
    pub(crate) fn seen(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.seen)
    }

    /// Waits until all is recorded, and compares it with what etcd holds.
    pub(crate) async fn finish(self, recorder: &Recorder) -> Result<()> {
        let until = Instant::now() + END_PATIENCE;
        let mut last = None;
        for endpoint in self.endpoints.iter().cycle() {
            if self.task.is_finished() {
                break;
            }
            ensure!(Instant::now() < until, "etcd takes no last write: {last:?}");
            match tokio::time::timeout(PATIENCE, put_end(endpoint)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => last = Some(format!("{error:#}")),
                Err(_) => last = Some(format!("{endpoint} does not answer")),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let told =
            tokio::time::timeout(END_PATIENCE, self.task).await.context("the truth has no end")???;
        let mut held = None;
        for endpoint in &self.endpoints {
            if let Ok(Ok(found)) = tokio::time::timeout(PATIENCE, everything(endpoint)).await {
                held = Some(found);
                break;
            }
        }
        let held = held.context("no member of etcd answers")?;
        for resource in Resource::ALL {
            let prefix = format!("/registry/{}/", resource.plural());
            let of = |all: &Told| -> BTreeMap<String, (i64, Revision)> {
                let ours = all.iter().filter(|(key, _)| key.starts_with(&prefix));
                ours.map(|(key, value)| (key.clone(), *value)).collect()
            };
            ensure!(of(&told) == of(&held), "etcd told {:?} and holds {:?}", of(&told), of(&held));
        }
        recorder.record(&Record::TruthEnd { revision: self.seen.load(Ordering::SeqCst) });
        Ok(())
    }
}

async fn connect(endpoint: &str) -> Result<Client> {
    let options = ConnectOptions::new()
        .with_connect_timeout(Duration::from_secs(1))
        .with_keep_alive(Duration::from_secs(1), PATIENCE)
        .with_keep_alive_while_idle(true)
        .with_require_leader(true);
    Ok(Client::connect([endpoint], Some(options)).await?)
}

async fn put_end(endpoint: &str) -> Result<()> {
    connect(endpoint).await?.put(END, "", None).await?;
    Ok(())
}

async fn everything(endpoint: &str) -> Result<Told> {
    let found = connect(endpoint).await?.get("/registry/", Some(GetOptions::new().with_prefix())).await?;
    let told = found.kvs().iter().map(|kv| Ok((kv.key_str()?.to_owned(), (kv.version(), kv.mod_revision()))));
    told.collect::<Result<Told>>()
}

async fn follow(endpoints: Vec<String>, recorder: Recorder, seen: Arc<AtomicI64>) -> Result<Told> {
    let mut told = Told::new();
    for endpoint in endpoints.iter().cycle() {
        let opening = open(endpoint, seen.load(Ordering::SeqCst) + 1);
        if let Ok(Ok(mut stream)) = tokio::time::timeout(PATIENCE, opening).await {
            while let Ok(Ok(Some(response))) = tokio::time::timeout(PATIENCE, stream.message()).await {
                ensure!(response.compact_revision() == 0, "the truth was compacted away");
                if response.canceled() {
                    break;
                }
                for event in response.events() {
                    if record(event, &recorder, &mut told)? {
                        return Ok(told);
                    }
                }
                // Whole revisions only: etcd does not split one over two responses.
                if let Some(kv) = response.events().last().and_then(Event::kv) {
                    seen.store(kv.mod_revision(), Ordering::SeqCst);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("etcd has no members")
}

async fn open(endpoint: &str, from: Revision) -> Result<WatchStream> {
    let options = WatchOptions::new().with_all_keys().with_start_revision(from);
    Ok(connect(endpoint).await?.watch("", Some(options)).await?)
}

/// Records an event of objects of the traffic's kinds. Returns whether it was the last.
fn record(event: &Event, recorder: &Recorder, told: &mut Told) -> Result<bool> {
    let kv = event.kv().context("an event without a key")?;
    let (path, revision) = (kv.key_str()?.to_owned(), kv.mod_revision());
    let known = told.get(&path).map(|(version, _)| *version);
    let put = event.event_type() == EventType::Put;
    if put {
        ensure!(
            kv.version() == known.unwrap_or(0) + 1,
            "etcd's watch lost an event: {path} is version {} at {revision} after {known:?}",
            kv.version()
        );
        told.insert(path.clone(), (kv.version(), revision));
    } else {
        ensure!(
            known.is_some(),
            "etcd's watch lost an event: {path} is deleted at {revision} and was never there"
        );
        told.remove(&path);
    }
    if path == END {
        return Ok(true);
    }
    let Some(key) = key_of(&path) else { return Ok(false) };
    let object: Value = if put { serde_json::from_slice(kv.value())? } else { Value::Null };
    let slots = object["metadata"]["annotations"].as_object().into_iter().flatten();
    let slots = slots.filter(|(name, _)| name.starts_with('c') && name[1..].parse::<u32>().is_ok());
    recorder.record(&Record::Change(Change {
        at: recorder.now(),
        revision,
        key,
        slots: slots
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
        version: if put { version_of(&object, Some(revision)) } else { None },
    }));
    Ok(false)
}

/// `/registry/pods/default/a` as a place, for the traffic's kinds.
fn key_of(path: &str) -> Option<Key> {
    let (plural, rest) = path.strip_prefix("/registry/")?.split_once('/')?;
    let resource = Resource::ALL.into_iter().find(|resource| resource.plural() == plural)?;
    let (namespace, name) = rest.split_once('/')?;
    Some(Key { resource, namespace: namespace.to_owned(), name: name.to_owned() })
}
