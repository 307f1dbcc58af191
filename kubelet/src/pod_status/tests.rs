//! What users see in `kubectl get pods` and `describe`, case by case.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::runtime::{ContainerState, RuntimeContainerStatus, SandboxState, SandboxStatus};

struct Probes {
    started: bool,
    ready: bool,
}

impl Readiness for Probes {
    fn started(&self, _: &Pod, _: &str, _: &str) -> bool {
        self.started
    }
    fn ready(&self, _: &Pod, _: &str, _: &str) -> bool {
        self.ready
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

struct Case {
    pod: Pod,
    runtime: RuntimePodStatus,
    old: PodStatus,
    start_errors: HashMap<String, StartError>,
    probes: Probes,
    is_terminal: bool,
}

/// A pod of containers `a` (and init container `i` if asked for) with a ready sandbox and no container yet.
fn case(policy: &str, init: bool) -> Case {
    let container = |name: &str| Container {
        name: name.to_owned(),
        image: Some("image".to_owned()),
        ..Default::default()
    };
    Case {
        pod: Pod {
            metadata: ObjectMeta { generation: Some(3), ..Default::default() },
            spec: Some(PodSpec {
                containers: vec![container("a")],
                init_containers: init.then(|| vec![container("i")]),
                restart_policy: Some(policy.to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        },
        runtime: RuntimePodStatus {
            sandboxes: vec![SandboxStatus {
                id: "s".to_owned(),
                attempt: 0,
                state: SandboxState::Ready,
                created_at: at(5),
                ips: vec!["10.0.0.9".parse().unwrap()],
                host_network: false,
            }],
            ..Default::default()
        },
        old: PodStatus::default(),
        start_errors: HashMap::new(),
        probes: Probes { started: true, ready: true },
        is_terminal: false,
    }
}

impl Case {
    /// Adds an attempt of a container, newer than those before.
    fn run(mut self, name: &str, state: ContainerState, exit_code: i32) -> Self {
        let count = u32::try_from(self.runtime.containers.iter().filter(|c| c.name == name).count()).unwrap();
        self.runtime.containers.insert(
            0,
            RuntimeContainerStatus {
                id: format!("{name}{count}"),
                name: name.to_owned(),
                sandbox_id: "s".to_owned(),
                restart_count: count,
                state,
                created_at: at(6),
                started_at: Some(at(7)),
                finished_at: (state == ContainerState::Exited).then(|| at(8)),
                exit_code,
                reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
                message: String::new(),
                image: "image".to_owned(),
                image_id: "sha256:1".to_owned(),
                spec_hash: None,
                log_path: "/log".into(),
            },
        );
        self
    }

    fn error(mut self, name: &str, reason: &str) -> Self {
        let error = StartError { reason: reason.to_owned(), message: format!("{reason} message") };
        self.start_errors.insert(name.to_owned(), error);
        self
    }

    fn generate(&self) -> PodStatus {
        generate(&Inputs {
            pod: &self.pod,
            runtime: &self.runtime,
            old: &self.old,
            start_errors: &self.start_errors,
            readiness: &self.probes,
            host_ips: &["192.168.0.1".parse().unwrap()],
            runtime_name: "containerd",
            is_terminal: self.is_terminal,
            now: at(100),
        })
    }
}

fn state(status: &ContainerStatus) -> String {
    let describe = |state: &k8s_openapi::api::core::v1::ContainerState| {
        if state.running.is_some() {
            "running".to_owned()
        } else if let Some(waiting) = &state.waiting {
            format!("waiting:{}", waiting.reason.clone().unwrap_or_default())
        } else if let Some(ended) = &state.terminated {
            format!("exited:{}", ended.exit_code)
        } else {
            "none".to_owned()
        }
    };
    let now = status.state.as_ref().map_or_else(String::new, describe);
    let last =
        status.last_state.as_ref().map_or_else(String::new, |last| format!(" last={}", describe(last)));
    format!("{} {now}{last} ready={} restarts={}", status.name, status.ready, status.restart_count)
}

fn condition(status: &PodStatus, type_: &str) -> PodCondition {
    status.conditions.iter().flatten().find(|c| c.type_ == type_).cloned().expect("the kubelet sets it")
}

fn said(status: &PodStatus, type_: &str) -> String {
    let c = condition(status, type_);
    format!("{} {} {}", c.status, c.reason.unwrap_or_default(), c.message.unwrap_or_default())
        .trim()
        .to_owned()
}

#[track_caller]
fn check(what: &str, case: &Case, phase: &str, containers: &[&str]) {
    let status = case.generate();
    assert_eq!(status.phase.as_deref(), Some(phase), "{what}");
    let all: Vec<String> = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten()
        .map(state)
        .collect();
    assert_eq!(all, containers, "{what}");
}

use ContainerState::{Exited, Running};

#[test]
fn phases_and_container_states() {
    check(
        "before anything runs",
        &case("Always", false),
        "Pending",
        &["a waiting:ContainerCreating ready=false restarts=0"],
    );
    check(
        "initializing",
        &case("Always", true).run("i", Running, 0),
        "Pending",
        &["i running ready=false restarts=0", "a waiting:PodInitializing ready=false restarts=0"],
    );
    check(
        "initialized and running",
        &case("Always", true).run("i", Exited, 0).run("a", Running, 0),
        "Running",
        &["i exited:0 ready=true restarts=0", "a running ready=true restarts=0"],
    );
    check(
        "an init container that failed for good",
        &case("Never", true).run("i", Exited, 1),
        "Failed",
        &["i exited:1 ready=false restarts=0", "a waiting:PodInitializing ready=false restarts=0"],
    );
    check(
        "an init container that is retried",
        &case("Always", true).run("i", Exited, 1).error("i", "CrashLoopBackOff"),
        "Pending",
        &[
            "i waiting:CrashLoopBackOff last=exited:1 ready=false restarts=0",
            "a waiting:PodInitializing ready=false restarts=0",
        ],
    );
    check(
        "crash loop",
        &case("Always", false).run("a", Exited, 3).run("a", Exited, 4).error("a", "CrashLoopBackOff"),
        "Running",
        &["a waiting:CrashLoopBackOff last=exited:4 ready=false restarts=1"],
    );
    check(
        "restarted",
        &case("Always", false).run("a", Exited, 3).run("a", Running, 0),
        "Running",
        &["a running last=exited:3 ready=true restarts=1"],
    );
    check(
        "an image that can't be pulled",
        &case("Always", false).error("a", "ErrImagePull"),
        "Pending",
        &["a waiting:ErrImagePull ready=false restarts=0"],
    );
    check(
        "completed",
        &case("Never", false).run("a", Exited, 0),
        "Succeeded",
        &["a exited:0 ready=false restarts=0"],
    );
    check(
        "failed",
        &case("Never", false).run("a", Exited, 2),
        "Failed",
        &["a exited:2 ready=false restarts=0"],
    );
    check(
        "an old start error says nothing of a container that must not run again",
        &case("Never", false).run("a", Exited, 2).error("a", "CrashLoopBackOff"),
        "Failed",
        &["a exited:2 ready=false restarts=0"],
    );
}

#[test]
fn a_terminal_pod_is_never_running_again() {
    let mut ended = case("Always", false).run("a", Exited, 0);
    ended.is_terminal = true;
    assert_eq!(ended.generate().phase.as_deref(), Some("Succeeded"));
    let mut never_ran = case("Always", false);
    never_ran.is_terminal = true;
    assert_eq!(never_ran.generate().phase.as_deref(), Some("Failed"));
    let mut evicted = case("Always", false).run("a", Running, 0);
    evicted.old.phase = Some("Failed".to_owned());
    evicted.old.reason = Some("Evicted".to_owned());
    let status = evicted.generate();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
}

#[test]
fn a_container_that_the_runtime_lost_counts_as_a_restart() {
    let mut lost = case("Always", false).run("a", Running, 0);
    lost.old = lost.generate();
    lost.runtime.containers.clear();
    check("lost", &lost, "Running", &["a waiting:ContainerCreating last=exited:137 ready=false restarts=1"]);
    let status = lost.generate();
    let last = status.container_statuses.unwrap()[0].last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(last.reason.as_deref(), Some("ContainerStatusUnknown"));
}

#[test]
fn conditions_say_what_is_missing() {
    let running = case("Always", false).run("a", Running, 0);
    let status = running.generate();
    for type_ in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(said(&status, type_), "True", "{type_}");
        assert_eq!(condition(&status, type_).observed_generation, Some(3));
    }

    let mut unready = case("Always", false).run("a", Running, 0);
    unready.probes.ready = false;
    let status = unready.generate();
    assert_eq!(said(&status, "Ready"), "False ContainersNotReady containers with unready status: [a]");
    assert_eq!(
        said(&status, "ContainersReady"),
        "False ContainersNotReady containers with unready status: [a]"
    );
    assert_eq!(said(&status, "Initialized"), "True");

    let status = case("Always", true).run("i", Running, 0).generate();
    assert_eq!(
        said(&status, "Initialized"),
        "False ContainersNotInitialized containers with incomplete status: [i]"
    );

    let status = case("Never", false).run("a", Exited, 0).generate();
    assert_eq!(said(&status, "Ready"), "False PodCompleted");
    assert_eq!(said(&status, "Initialized"), "True PodCompleted");

    let mut no_sandbox = case("Always", false);
    no_sandbox.runtime.sandboxes.clear();
    assert_eq!(said(&no_sandbox.generate(), "PodReadyToStartContainers"), "False");

    let mut gated = case("Always", false).run("a", Running, 0);
    let gate = k8s_openapi::api::core::v1::PodReadinessGate { condition_type: "example.com/x".to_owned() };
    gated.pod.spec.as_mut().unwrap().readiness_gates = Some(vec![gate]);
    assert!(said(&gated.generate(), "Ready").starts_with("False ReadinessGatesNotReady"));
    gated.old.conditions = Some(vec![PodCondition {
        type_: "example.com/x".to_owned(),
        status: "True".to_owned(),
        ..Default::default()
    }]);
    let status = gated.generate();
    assert_eq!(said(&status, "Ready"), "True");
    assert_eq!(condition(&status, "example.com/x").status, "True", "others' conditions are kept");
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut case = case("Always", false).run("a", Running, 0);
    let mut first = case.generate();
    for condition in first.conditions.iter_mut().flatten() {
        condition.last_transition_time = Some(pod::time(at(50)));
    }
    case.old = first;
    case.probes.ready = false;
    let second = case.generate();
    assert_eq!(condition(&second, "Initialized").last_transition_time, Some(pod::time(at(50))));
    assert_eq!(condition(&second, "Ready").last_transition_time, Some(pod::time(at(100))));
}

#[test]
fn addresses_and_start_time() {
    let mut case = case("Always", false).run("a", Running, 0);
    let status = case.generate();
    assert_eq!(
        (status.pod_ip.as_deref(), status.host_ip.as_deref()),
        (Some("10.0.0.9"), Some("192.168.0.1"))
    );
    assert_eq!(status.start_time, Some(pod::time(at(5))), "the oldest sandbox");
    case.old = status;
    case.runtime.sandboxes[0].state = SandboxState::NotReady;
    assert_eq!(
        case.generate().pod_ip.as_deref(),
        Some("10.0.0.9"),
        "an address is kept when the sandbox is gone"
    );
    case.pod.spec.as_mut().unwrap().host_network = Some(true);
    assert_eq!(case.generate().pod_ip.as_deref(), Some("192.168.0.1"));
}
