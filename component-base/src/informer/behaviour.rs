//! What an informer promises, on each transport alike: our watch service, HTTP with initial events, HTTP with lists.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;

use super::*;

mod fake;
mod over_grpc;
mod over_http;

use fake::End;
pub(super) use fake::{Fake, Offers};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running informer and its changes.
struct Watched {
    informer: Informer<ConfigMap>,
    changes: Changes<ConfigMap>,
    shutdown: Shutdown,
}

/// Runs a test on each kind of server, one after the other.
async fn on_each(test: impl AsyncFn(Fake)) {
    for offers in [Offers::Grpc, Offers::WatchList, Offers::List] {
        // Shown when the test fails.
        eprintln!("{offers:?}");
        test(Fake::new(offers)).await;
    }
}

fn start(connection: impl Into<Connection>, selector: &str) -> Watched {
    let shutdown = Shutdown::new();
    let informer = InformerBuilder::new(connection).label_selector(selector).start(&shutdown);
    Watched { changes: informer.subscribe(), informer, shutdown }
}

async fn synced(connection: impl Into<Connection>, selector: &str) -> Watched {
    let mut watched = start(connection, selector);
    let waited = tokio::time::timeout(PATIENCE, watched.informer.wait_synced()).await;
    assert!(waited.expect("synced in time"));
    while watched.changes.try_recv().is_some() {}
    watched
}

fn value(map: &ConfigMap) -> &str {
    map.data.as_ref().unwrap()["value"].as_str()
}

impl Watched {
    /// The next change, such as `+a=1`, `a=1>2` or `-a=2`.
    async fn next(&mut self) -> String {
        let change = tokio::time::timeout(PATIENCE, self.changes.recv()).await;
        let change = change.expect("a change in time").expect("a running informer");
        let name = change.key().name;
        match change {
            Change::Added(new) => format!("+{name}={}", value(&new)),
            Change::Updated { old, new } => format!("{name}={}>{}", value(&old), value(&new)),
            Change::Deleted(old) => format!("-{name}={}", value(&old)),
        }
    }

    fn held(&self) -> BTreeMap<String, String> {
        let all = self.informer.store().list();
        all.iter().map(|map| (map.metadata.name.clone().unwrap(), value(map).to_owned())).collect()
    }
}

fn map<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

async fn eventually<T: PartialEq + Debug>(what: &str, want: T, mut ask: impl FnMut() -> T) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = ask();
        if found == want {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: wanted {want:?}, last found {found:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_state_and_then_every_change() {
    on_each(async |fake| {
        fake.put("a", "yes", "1");
        fake.put("b", "yes", "1");
        let mut watched = synced(fake.client(), "").await;
        assert_eq!(watched.held(), map([("a", "1"), ("b", "1")]));
        fake.put("c", "yes", "1");
        fake.put("a", "yes", "2");
        assert_eq!([watched.next().await, watched.next().await], ["+c=1", "a=1>2"]);
        fake.delete("b");
        assert_eq!(watched.next().await, "-b=1");
        assert_eq!(watched.held(), map([("a", "2"), ("c", "1")]));
        let held = watched.informer.store().get(&ObjectKey::new("ns", "c")).unwrap();
        assert_eq!(held.metadata.resource_version.as_deref(), Some("103"));
    })
    .await;
}

#[tokio::test]
async fn an_empty_state_is_a_state() {
    on_each(async |fake| {
        let mut watched = synced(fake.client(), "on=yes").await;
        assert_eq!(watched.held(), map([]));
        fake.put("a", "yes", "1");
        assert_eq!(watched.next().await, "+a=1");
    })
    .await;
}

#[tokio::test]
async fn objects_come_and_go_with_the_selector() {
    on_each(async |fake| {
        fake.put("a", "no", "1");
        let mut watched = synced(fake.client(), "on=yes").await;
        fake.put("a", "yes", "2");
        assert_eq!(watched.next().await, "+a=2");
        fake.put("a", "yes", "3");
        assert_eq!(watched.next().await, "a=2>3");
        fake.put("a", "no", "4");
        assert_eq!(watched.next().await, "-a=3");
        fake.delete("a");
        fake.put("b", "yes", "1");
        assert_eq!(watched.next().await, "+b=1");
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_is_resumed_where_it_was() {
    on_each(async |fake| {
        fake.put("a", "yes", "1");
        let mut watched = synced(fake.client(), "").await;
        fake.put("a", "yes", "2");
        assert_eq!(watched.next().await, "a=1>2");
        for (round, end) in [End::Broken, End::Orderly].into_iter().enumerate() {
            fake.take_asked();
            fake.end(end);
            fake.put(&format!("away{round}"), "yes", "1");
            assert_eq!(watched.next().await, format!("+away{round}=1"));
            let mut asked = fake.take_asked();
            asked.retain(|asked| !asked.ends_with("stream"));
            // Of the last event's version everything is asked for again.
            assert_eq!(asked, [format!("watch {}", 101 + round)]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_bookmark_moves_the_place_to_resume_at() {
    on_each(async |fake| {
        fake.put("a", "yes", "1");
        let mut watched = synced(fake.client(), "").await;
        fake.put("a", "yes", "2");
        assert_eq!(watched.next().await, "a=1>2");
        fake.mark();
        eventually("a bookmark", 1, || fake.world.lock().bookmarks).await;
        fake.end(End::Broken);
        fake.put("a", "yes", "3");
        assert_eq!(watched.next().await, "a=2>3");
        assert_eq!(fake.take_asked().last().unwrap(), "watch 103");
    })
    .await;
}

#[tokio::test]
async fn a_version_that_is_gone_brings_the_whole_state_anew() {
    on_each(async |fake| {
        fake.put("a", "yes", "1");
        fake.put("b", "yes", "1");
        let mut watched = synced(fake.client(), "").await;
        fake.take_asked();
        fake.end(End::Broken);
        fake.delete("a");
        fake.put("b", "yes", "2");
        fake.put("c", "yes", "1");
        fake.compact();
        let mut told = [watched.next().await, watched.next().await, watched.next().await];
        told.sort();
        assert_eq!(told, ["+c=1", "-a=1", "b=1>2"]);
        let asked = fake.take_asked();
        assert!(asked.contains(&"watch 102".to_owned()), "{asked:?}");
        assert!(asked.iter().any(|asked| asked == "watch" || asked == "list"), "{asked:?}");
        fake.delete("c");
        assert_eq!(watched.next().await, "-c=1");
    })
    .await;
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_costs_itself_only() {
    on_each(async |fake| {
        fake.put("a", "yes", 1);
        fake.put("b", "yes", "1");
        let mut watched = synced(fake.client(), "").await;
        assert_eq!((watched.held(), watched.informer.malformed_objects()), (map([("b", "1")]), 1));
        fake.put("b", "yes", 2);
        fake.put("c", "yes", "1");
        assert_eq!(watched.next().await, "+c=1");
        assert_eq!(watched.informer.malformed_objects(), 2);
        fake.delete("b");
        assert_eq!(watched.next().await, "-b=1");
    })
    .await;
}

#[tokio::test]
async fn one_that_is_refused_or_dropped_leaves_the_others_alone() {
    on_each(async |fake| {
        fake.world.lock().forbidden = Some("on=secret".to_owned());
        let connection = Connection::new(fake.client());
        let mut first = synced(connection.clone(), "").await;
        let mut second = synced(connection.clone(), "on=yes").await;
        let refused = start(connection, "on=secret");
        eventually("a refusal", true, || fake.take_asked().contains(&"forbidden".to_owned())).await;
        assert!(!refused.informer.has_synced());
        fake.put("a", "yes", "1");
        assert_eq!((first.next().await, second.next().await), ("+a=1".to_owned(), "+a=1".to_owned()));

        let before = fake.open_watches();
        first.shutdown.cancel();
        eventually("the end of one watch", before - 1, || fake.open_watches()).await;
        fake.put("a", "yes", "2");
        assert_eq!(second.next().await, "a=1>2");
        assert_eq!(first.held(), map([("a", "1")]));

        // What was forbidden is asked for again.
        fake.world.lock().forbidden = None;
        assert!(tokio::time::timeout(PATIENCE, refused.informer.wait_synced()).await.unwrap());
        second.shutdown.cancel();
        refused.shutdown.cancel();
    })
    .await;
}

#[tokio::test]
async fn all_informers_share_one_stream() {
    let fake = Fake::new(Offers::Grpc);
    let connection = Connection::new(fake.client());
    let watched: Vec<Watched> = (0..10).map(|_| start(connection.clone(), "")).collect();
    for one in &watched {
        assert!(tokio::time::timeout(PATIENCE, one.informer.wait_synced()).await.unwrap());
    }
    let asked = fake.take_asked();
    assert_eq!(asked.iter().filter(|asked| *asked == "stream").count(), 1, "{asked:?}");
    // With the last informer and the connection, the stream goes, too.
    drop(connection);
    for one in &watched {
        one.shutdown.cancel();
    }
    drop(watched);
    eventually("the end of the stream", 0, || fake.open_watches()).await;
}

#[tokio::test]
async fn a_server_without_the_service_is_asked_once_until_its_connection_is_lost() {
    let fake = Fake::new(Offers::WatchList);
    let connection = Connection::new(fake.client());
    let mut one = synced(connection.clone(), "").await;
    let other = synced(connection, "on=yes").await;
    fake.end(End::Orderly);
    fake.put("a", "yes", "1");
    assert_eq!(one.next().await, "+a=1");
    eventually("the other informer", map([("a", "1")]), || other.held()).await;
    assert_eq!(fake.take_asked(), ["no stream", "watch", "watch", "watch 100", "watch 100"]);

    // Another server, which has it; then the old one again. No state is fetched anew.
    for (round, offers) in [Offers::Grpc, Offers::WatchList].into_iter().enumerate() {
        let name = format!("round{round}");
        fake.offer(offers);
        fake.end(End::Broken);
        fake.put(&name, "yes", "1");
        assert_eq!(one.next().await, format!("+{name}=1"));
        eventually("the other informer", true, || other.held().contains_key(&name)).await;
        let mut asked = fake.take_asked();
        let stream = if offers == Offers::Grpc { "stream" } else { "no stream" };
        assert_eq!(asked.remove(0), stream);
        let from = format!("watch {}", 100 + round);
        assert_eq!(asked, [from.as_str(), from.as_str()]);
    }
}
