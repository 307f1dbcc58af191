//! etcd away: what may be stale is still answered, everything else fails in time and says so, and all goes on by itself
//! when etcd is back. And etcd back with an older state, restored from a backup: nothing of what is lost is told any more.

use http::Method;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use robustness::setup::{Setup, readyz};
use robustness::traffic::{Answer, NAMESPACES, Target};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// What a request asks for by `timeout=`.
const DEADLINE: Duration = Duration::from_secs(4);
/// How much later its answer may be here, on a loaded machine.
const SLACK: Duration = Duration::from_secs(4);
/// How long a condition may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An API server over etcd, a ConfigMap `a`, and a watch that has seen it.
struct World {
    setup: Setup,
    target: Target,
    watch: Watch,
}

#[test]
fn etcd_killed() {
    crate::alone(async {
        let mut world = World::start(3).await;
        world.members(|etcd, member| etcd.kill(member).unwrap());
        world.judge().await;
        world.members(|etcd, member| etcd.restart(member).unwrap());
        world.resumed().await;
    });
}

#[test]
fn etcd_silent() {
    crate::alone(async {
        let mut world = World::start(3).await;
        world.members(|etcd, member| etcd.pause(member).unwrap());
        world.judge().await;
        world.members(|etcd, member| etcd.resume(member).unwrap());
        world.resumed().await;
    });
}

#[test]
fn etcd_restored() {
    crate::alone(async {
        let mut world = World::start(1).await;
        let data = world.setup.etcd.lock().dir().unwrap().join("member0");
        let backup = data.with_file_name("backup");
        world.members(|etcd, member| etcd.kill(member).unwrap());
        copy(&data, &backup);
        world.members(|etcd, member| etcd.restart(member).unwrap());
        world.create("lost").await;
        world.watch.wait_for("\"lost\"").await;

        world.members(|etcd, member| etcd.kill(member).unwrap());
        std::fs::remove_dir_all(&data).unwrap();
        copy(&backup, &data);
        world.members(|etcd, member| etcd.restart(member).unwrap());
        let until = Instant::now() + PATIENCE;
        let mut right = 0;
        while right < 20 {
            // Consistent reads are right from the first answer on; those of the cache follow.
            let list = ask(&world.target, Method::GET, &config_maps(""), None).await;
            if let Ok(list) = list.as_ref().map(|list| list.text.as_str())
                && list.contains("\"kind\":\"ConfigMapList\"")
            {
                assert!(list.contains("\"name\":\"a\"") && !list.contains("\"name\":\"lost\""), "{list}");
                right += 1;
            }
            assert!(Instant::now() < until, "no list is answered: {list:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.watch.wait_for_end().await;
        world.watch = Watch::open(&world.target).await;
        world.watch.wait_for("\"a\"").await;
        assert!(!world.watch.text.lock().contains("\"name\":\"lost\""));
        world.resumed().await;
    });
}

/// Copies a directory that nobody writes to.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(done.success(), "cp of {} to {}", from.display(), to.display());
}

impl World {
    async fn start(members: usize) -> World {
        let setup = Setup::start(&crate::apiserver(), 1, members).await.unwrap();
        let target = setup.target().unwrap();
        let created = ask(&target, Method::POST, &config_maps(""), Some(&config_map("a"))).await.unwrap();
        assert_eq!(created.code, 201, "{}", created.text);
        let watch = Watch::open(&target).await;
        let world = World { setup, target, watch };
        world.watch.wait_for("\"a\"").await;
        world
    }

    fn members(&mut self, change: impl Fn(&mut harness::etcd::EtcdCluster, usize)) {
        let mut etcd = self.setup.etcd.lock();
        for member in 0..etcd.size() {
            change(&mut etcd, member);
        }
    }

    /// What holds while etcd is away.
    async fn judge(&self) {
        let patch = json!({"data": {"key": "other"}});
        let requests = [
            (Method::POST, config_maps("?"), Some(config_map("b"))),
            (Method::PATCH, config_maps("/a?"), Some(patch)),
            (Method::PUT, config_maps("/a?"), Some(config_map("a"))),
            (Method::DELETE, config_maps("/a?"), None),
            (Method::GET, config_maps("/a?"), None),
            (Method::GET, config_maps("?"), None),
            (Method::GET, config_maps("?limit=1&"), None),
        ];
        // Together, so that they wait together.
        let mut waiting = tokio::task::JoinSet::new();
        for (method, path, body) in requests {
            let mut connection = self.target.connect(0).await.unwrap();
            waiting.spawn(async move {
                let path = format!("{path}timeout={}s", DEADLINE.as_secs());
                let begun = Instant::now();
                let media_type = media_type(&method);
                let answer =
                    connection.ask(DEADLINE + SLACK, method.clone(), &path, media_type, body.as_ref()).await;
                (format!("{method} {path}"), answer, begun.elapsed())
            });
        }
        let mut problems = Vec::new();
        while let Some(ended) = waiting.join_next().await {
            let (what, answer, took) = ended.unwrap();
            match answer {
                Ok(answer) if clean_failure(&answer) => {}
                Ok(answer) => problems.push(format!("{what}: {} {}", answer.code, answer.text)),
                Err(error) => problems.push(format!("{what}: {error:#} after {took:?}")),
            }
        }
        for path in [config_maps("/a?resourceVersion=0"), config_maps("?resourceVersion=0")] {
            match ask(&self.target, Method::GET, &path, None).await {
                Ok(answer) if answer.code == 200 && answer.text.contains("\"name\":\"a\"") => {}
                Ok(answer) => problems.push(format!("GET {path}: {} {}", answer.code, answer.text)),
                Err(error) => problems.push(format!("GET {path}: {error:#}")),
            }
        }
        let ready = readyz(&self.target, 0).await.unwrap();
        if ready.code != 500 || !ready.text.contains("[-]etcd failed") {
            problems.push(format!("/readyz: {} {}", ready.code, ready.text));
        }
        if let Some(end) = self.watch.ended() {
            problems.push(format!("the watch ended: {end}"));
        }
        assert!(problems.is_empty(), "{problems:#?}");
    }

    /// Creates a ConfigMap as soon as writes work.
    async fn create(&self, name: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let created = ask(&self.target, Method::POST, &config_maps(""), Some(&config_map(name))).await;
            match created {
                Ok(answer) if answer.code == 201 => break,
                other => assert!(Instant::now() < until, "writes do not work again: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What holds again when etcd is back, with nobody's help.
    async fn resumed(&self) {
        self.setup.wait_ready(&self.target, 0).await.unwrap();
        self.create("c").await;
        for path in [config_maps("/c"), config_maps("/c?resourceVersion=0")] {
            let until = Instant::now() + PATIENCE;
            loop {
                let read = ask(&self.target, Method::GET, &path, None).await;
                match read {
                    Ok(answer) if answer.code == 200 => break,
                    other => assert!(Instant::now() < until, "{path} does not work again: {other:?}"),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        // The same watch, without a gap.
        self.watch.wait_for("\"c\"").await;
    }
}

/// A 5xx that is a Status.
fn clean_failure(answer: &Answer) -> bool {
    matches!(answer.code, 500 | 503 | 504)
        && answer.body["kind"] == "Status"
        && answer.body["status"] == "Failure"
        && answer.body["code"] == answer.code
}

fn config_maps(rest: &str) -> String {
    format!("/api/v1/namespaces/{}/configmaps{rest}", NAMESPACES[0])
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "value"}})
}

fn media_type(method: &Method) -> Option<&'static str> {
    match *method {
        Method::PATCH => Some("application/merge-patch+json"),
        Method::POST | Method::PUT => Some("application/json"),
        _ => None,
    }
}

async fn ask(target: &Target, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
    let media_type = media_type(&method);
    target.connect(0).await?.ask(Duration::from_secs(10), method, path, media_type, body).await
}

/// A watch, as text.
struct Watch {
    text: Arc<Mutex<String>>,
    reading: JoinHandle<String>,
}

impl Watch {
    async fn open(target: &Target) -> Watch {
        let mut connection = target.connect(0).await.unwrap();
        let path = config_maps("?watch=true&resourceVersion=0");
        let answer = connection.open(Method::GET, &path, None, Default::default()).await.unwrap();
        assert_eq!(answer.status(), 200);
        let text = Arc::new(Mutex::new(String::new()));
        let (into, mut body) = (Arc::clone(&text), answer.into_body());
        let reading = tokio::spawn(async move {
            // Requests end with their connection.
            let _connection = connection;
            loop {
                match body.frame().await {
                    Some(Ok(frame)) => {
                        let data = frame.into_data().unwrap_or_default();
                        into.lock().push_str(&String::from_utf8_lossy(&data));
                    }
                    Some(Err(error)) => return error.to_string(),
                    None => return "end of stream".to_owned(),
                }
            }
        });
        Watch { text, reading }
    }

    fn ended(&self) -> Option<String> {
        (self.reading.is_finished() || self.text.lock().contains("\"type\":\"ERROR\""))
            .then(|| self.text.lock().clone())
    }

    async fn wait_for_end(&self) {
        let until = Instant::now() + PATIENCE;
        while self.ended().is_none() {
            assert!(Instant::now() < until, "the watch goes on: {}", self.text.lock());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the object of this name was told.
    async fn wait_for(&self, name: &str) {
        let until = Instant::now() + PATIENCE;
        let wanted = format!("\"name\":{name}");
        while !self.text.lock().contains(&wanted) {
            assert!(self.ended().is_none(), "the watch ended: {}", self.text.lock());
            assert!(Instant::now() < until, "the watch does not tell of {name}: {}", self.text.lock());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
