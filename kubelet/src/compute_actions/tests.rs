//! Upstream's cases of `TestComputePodActions` and its siblings, by name.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::*;
use crate::runtime::SandboxStatus;

#[derive(Default)]
struct Verdicts {
    liveness: HashMap<String, bool>,
    startup: HashMap<String, bool>,
}

impl ProbeVerdicts for Verdicts {
    fn liveness(&self, id: &str) -> Option<bool> {
        self.liveness.get(id).copied()
    }
    fn startup(&self, id: &str) -> Option<bool> {
        self.startup.get(id).copied()
    }
}

struct Case {
    pod: Pod,
    status: RuntimePodStatus,
    verdicts: Verdicts,
}

fn container(name: &str) -> Container {
    Container { name: name.to_owned(), image: Some(format!("{name}-image")), ..Default::default() }
}

fn sandbox(id: &str, attempt: u32, state: SandboxState) -> SandboxStatus {
    SandboxStatus {
        id: id.to_owned(),
        attempt,
        state,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        ips: vec!["10.0.0.1".parse().unwrap()],
        host_network: false,
    }
}

fn running(container: &Container) -> RuntimeContainerStatus {
    RuntimeContainerStatus {
        id: format!("{}-id", container.name),
        name: container.name.clone(),
        sandbox_id: "sandbox".to_owned(),
        restart_count: 0,
        state: ContainerState::Running,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        started_at: Some(jiff::Timestamp::UNIX_EPOCH),
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: container.image.clone().unwrap_or_default(),
        image_id: String::new(),
        spec_hash: Some(spec_hash(container)),
        log_path: "/log".into(),
    }
}

/// Three regular containers foo1..foo3, running, in one ready sandbox.
fn base(policy: &str) -> Case {
    let containers: Vec<Container> = ["foo1", "foo2", "foo3"].into_iter().map(container).collect();
    let status = RuntimePodStatus {
        uid: "12345".to_owned(),
        sandboxes: vec![sandbox("sandbox", 0, SandboxState::Ready)],
        containers: containers.iter().map(running).collect(),
        ..Default::default()
    };
    let pod = Pod {
        metadata: ObjectMeta { uid: Some("12345".to_owned()), ..Default::default() },
        spec: Some(PodSpec { containers, restart_policy: Some(policy.to_owned()), ..Default::default() }),
        ..Default::default()
    };
    Case { pod, status, verdicts: Verdicts::default() }
}

/// [`base`] with init1..init3 done and no regular container yet.
fn base_init(policy: &str) -> Case {
    let mut case = base(policy);
    let init: Vec<Container> = ["init1", "init2", "init3"].into_iter().map(container).collect();
    case.status.containers = init.iter().rev().map(|c| exited(running(c), 0)).collect();
    case.pod.spec.as_mut().unwrap().init_containers = Some(init);
    case
}

/// [`base_init`] whose init containers are sidecars, all running.
fn base_sidecars(policy: &str) -> Case {
    let mut case = base(policy);
    let init: Vec<Container> = ["init1", "init2", "init3"]
        .into_iter()
        .map(|name| Container { restart_policy: Some("Always".to_owned()), ..container(name) })
        .collect();
    case.status.containers = init.iter().rev().map(running).collect();
    case.pod.spec.as_mut().unwrap().init_containers = Some(init);
    case
}

fn exited(status: RuntimeContainerStatus, exit_code: i32) -> RuntimeContainerStatus {
    RuntimeContainerStatus { state: ContainerState::Exited, exit_code, ..status }
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
    fn exit(mut self, name: &str, code: i32) -> Self {
        let status = self.status.containers.iter_mut().find(|c| c.name == name).unwrap();
        *status = exited(status.clone(), code);
        self
    }
    fn state(mut self, name: &str, state: ContainerState) -> Self {
        self.status.containers.iter_mut().find(|c| c.name == name).unwrap().state = state;
        self
    }
    fn exit_all(mut self, code: i32) -> Self {
        for status in &mut self.status.containers {
            *status = exited(status.clone(), code);
        }
        self
    }
    fn forget(mut self, names: &[&str]) -> Self {
        self.status.containers.retain(|c| !names.contains(&c.name.as_str()));
        self
    }
    fn sandbox_dead(mut self) -> Self {
        self.status.sandboxes[0].state = SandboxState::NotReady;
        self
    }
    fn decide(&self) -> PodActions {
        compute_actions(&self.pod, &self.status, &self.verdicts)
    }
}

/// `kill`: names; sandbox: (kill_pod, create_sandbox, attempt).
#[track_caller]
fn check(
    name: &str,
    case: &Case,
    (kill_pod, create, attempt): (bool, bool, u32),
    init: &[usize],
    start: &[usize],
    kill: &[&str],
) {
    let got = case.decide();
    assert_eq!(
        (
            got.kill_pod,
            got.create_sandbox,
            got.attempt,
            got.init_containers_to_start.as_slice(),
            got.containers_to_start.as_slice(),
            got.containers_to_kill.iter().map(|k| k.name.as_str()).collect::<Vec<_>>().as_slice(),
        ),
        (kill_pod, create, attempt, init, start, kill),
        "{name}"
    );
}

const NOTHING: (bool, bool, u32) = (false, false, 0);

#[test]
fn regular_containers() {
    check("everything is good; do nothing", &base("Always"), NOTHING, &[], &[], &[]);
    check(
        "start pod sandbox and all containers for a new pod",
        &base("Always").with(|c| c.status = RuntimePodStatus::default()),
        (true, true, 0),
        &[],
        &[0, 1, 2],
        &[],
    );
    check(
        "restart exited containers if RestartPolicy == Always",
        &base("Always").exit("foo1", 0).exit("foo2", 111),
        NOTHING,
        &[],
        &[0, 1],
        &[],
    );
    check(
        "restart failed containers if RestartPolicy == OnFailure",
        &base("OnFailure").exit("foo1", 0).exit("foo2", 111),
        NOTHING,
        &[],
        &[1],
        &[],
    );
    check(
        "don't restart containers if RestartPolicy == Never",
        &base("Never").exit("foo1", 0).exit("foo2", 111),
        NOTHING,
        &[],
        &[],
        &[],
    );
    check(
        "all containers done and none to restart: kill the pod",
        &base("Never").exit_all(0),
        (true, false, 0),
        &[],
        &[],
        &[],
    );
    check(
        "Kill and recreate the container if the container is in unknown state",
        &base("Always").state("foo2", ContainerState::Unknown),
        NOTHING,
        &[],
        &[1],
        &["foo2"],
    );
    check(
        "Restart the container if the container is in created state",
        &base("Always").state("foo2", ContainerState::Created),
        NOTHING,
        &[],
        &[1],
        &[],
    );
    let changed = |policy| base(policy).with(|c| c.status.containers[1].spec_hash = Some("0".to_owned()));
    check(
        "Kill and recreate the container if the container's spec changed",
        &changed("Always"),
        NOTHING,
        &[],
        &[1],
        &["foo2"],
    );
    check("a changed spec restarts whatever the policy", &changed("Never"), NOTHING, &[], &[1], &["foo2"]);
}

#[test]
fn probes() {
    let failed = |policy, code: fn(&mut Verdicts)| base(policy).with(|c| code(&mut c.verdicts));
    let liveness = |v: &mut Verdicts| {
        v.liveness.insert("foo2-id".to_owned(), false);
    };
    let startup = |v: &mut Verdicts| {
        v.startup.insert("foo2-id".to_owned(), false);
    };
    check(
        "Kill and recreate the container if the liveness check has failed",
        &failed("Always", liveness),
        NOTHING,
        &[],
        &[1],
        &["foo2"],
    );
    check(
        "Kill and recreate the container if the startup check has failed",
        &failed("OnFailure", startup),
        NOTHING,
        &[],
        &[1],
        &["foo2"],
    );
    check(
        "a failed liveness check with Never only kills",
        &failed("Never", liveness),
        NOTHING,
        &[],
        &[],
        &["foo2"],
    );
    let message = failed("Always", liveness).decide().containers_to_kill[0].message.clone();
    assert_eq!(message, "Container foo2 failed liveness probe, will be restarted");
}

#[test]
fn sandboxes() {
    check(
        "Kill pod and recreate everything if the pod sandbox is dead, and RestartPolicy == Always",
        &base("Always").sandbox_dead(),
        (true, true, 1),
        &[],
        &[0, 1, 2],
        &[],
    );
    check(
        "Kill pod and recreate all containers (except for the succeeded one) if the pod sandbox is dead, and RestartPolicy == OnFailure",
        &base("OnFailure").sandbox_dead().exit("foo2", 0),
        (true, true, 1),
        &[],
        &[0, 2],
        &[],
    );
    check(
        "Kill pod and recreate all containers if the PodSandbox does not have an IP",
        &base("Always").with(|c| c.status.sandboxes[0].ips.clear()),
        (true, true, 1),
        &[],
        &[0, 1, 2],
        &[],
    );
    check(
        "Kill pod and recreate all containers if more than one sandbox is ready",
        &base("Always").with(|c| c.status.sandboxes.push(sandbox("old", 0, SandboxState::Ready))),
        (true, true, 1),
        &[],
        &[0, 1, 2],
        &[],
    );
    check(
        "Verify we do not create a pod sandbox if no ready sandbox for pod with RestartPolicy=Never and all containers exited",
        &base("Never").sandbox_dead().exit_all(0),
        (true, false, 1),
        &[],
        &[],
        &[],
    );
    check(
        "Verify we do not create a pod sandbox if no ready sandbox for pod with RestartPolicy=OnFailure and all containers succeeded",
        &base("OnFailure").sandbox_dead().exit_all(0),
        (true, false, 1),
        &[],
        &[],
        &[],
    );
    check(
        "Verify we create a pod sandbox if no ready sandbox for pod with RestartPolicy=Never and no containers have ever been created",
        &base("Never").sandbox_dead().with(|c| c.status.containers.clear()),
        (true, true, 1),
        &[],
        &[0, 1, 2],
        &[],
    );
}

#[test]
fn init_containers() {
    check(
        "initialization completed; start all containers",
        &base_init("Always"),
        NOTHING,
        &[],
        &[0, 1, 2],
        &[],
    );
    check(
        "no init containers have been started; start the first one",
        &base_init("Always").with(|c| c.status.containers.clear()),
        NOTHING,
        &[0],
        &[],
        &[],
    );
    check(
        "initialization in progress; do nothing",
        &base_init("Always").state("init3", ContainerState::Running),
        NOTHING,
        &[],
        &[],
        &[],
    );
    check(
        "the first init container is done; start the second",
        &base_init("Always").forget(&["init2", "init3"]),
        NOTHING,
        &[1],
        &[],
        &[],
    );
    check(
        "Kill pod and restart the first init container if the pod sandbox is dead",
        &base_init("Always").sandbox_dead(),
        (true, true, 1),
        &[0],
        &[],
        &[],
    );
    check(
        "initialization failed; restart the last init container if RestartPolicy == Always",
        &base_init("Always").exit("init3", 137),
        NOTHING,
        &[2],
        &[],
        &[],
    );
    check(
        "initialization failed; restart the last init container if RestartPolicy == OnFailure",
        &base_init("OnFailure").exit("init3", 137),
        NOTHING,
        &[2],
        &[],
        &[],
    );
    check(
        "initialization failed; kill pod if RestartPolicy == Never",
        &base_init("Never").exit("init3", 137),
        (true, false, 0),
        &[],
        &[],
        &[],
    );
    check(
        "init container state unknown; kill and recreate the last init container if RestartPolicy == Always",
        &base_init("Always").state("init3", ContainerState::Unknown),
        NOTHING,
        &[2],
        &[],
        &["init3"],
    );
    check(
        "init container state unknown; kill pod if RestartPolicy == Never",
        &base_init("Never").state("init3", ContainerState::Unknown),
        (true, false, 0),
        &[],
        &[],
        &[],
    );
}

#[test]
fn init_containers_in_a_dead_sandbox() {
    check(
        "Pod sandbox not ready, but RestartPolicy == Never and no visible init containers; create a new pod sandbox",
        &base_init("Never").sandbox_dead().with(|c| c.status.containers.clear()),
        (true, true, 1),
        &[0],
        &[],
        &[],
    );
    check(
        "Pod sandbox not ready, init container failed, and RestartPolicy == Never; kill pod only",
        &base_init("Never").sandbox_dead().exit("init3", 137),
        (true, false, 1),
        &[],
        &[],
        &[],
    );
    check(
        "Pod sandbox not ready, and RestartPolicy == OnFailure; create a new pod sandbox",
        &base_init("OnFailure").sandbox_dead().exit("init3", 0),
        (true, true, 1),
        &[0],
        &[],
        &[],
    );
}

#[test]
fn sidecars() {
    check("all sidecars up; start all containers", &base_sidecars("Always"), NOTHING, &[], &[0, 1, 2], &[]);
    check(
        "the first sidecar is up; start the second",
        &base_sidecars("Always").forget(&["init2", "init3"]),
        NOTHING,
        &[1],
        &[],
        &[],
    );
    check(
        "a sidecar that exited is restarted, even with Never",
        &base_sidecars("Never").exit("init3", 0),
        NOTHING,
        &[2],
        &[],
        &[],
    );
    let startup = |value: Option<bool>| {
        base_sidecars("Always").with(|c| {
            c.pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap()[2].startup_probe =
                Some(Default::default());
            c.verdicts.startup.extend(value.map(|v| ("init3-id".to_owned(), v)));
        })
    };
    check("a sidecar waits for its startup probe", &startup(None), NOTHING, &[], &[], &[]);
    check("a sidecar's startup probe succeeded", &startup(Some(true)), NOTHING, &[], &[0, 1, 2], &[]);
    check("a sidecar's startup probe failed", &startup(Some(false)), NOTHING, &[2], &[], &["init3"]);
    check(
        "an earlier sidecar that died while a later one starts is restarted first",
        &base_sidecars("Always").forget(&["init3"]).exit("init1", 1),
        NOTHING,
        &[0, 2],
        &[],
        &[],
    );
    let with_regular = |policy| {
        base_sidecars(policy).with(|c| {
            let regular: Vec<_> = c.pod.spec.as_ref().unwrap().containers.iter().map(running).collect();
            c.status.containers.extend(regular);
        })
    };
    check(
        "a sidecar that exits beside running containers is restarted",
        &with_regular("Never").exit("init2", 1),
        NOTHING,
        &[1],
        &[],
        &[],
    );
    check(
        "sidecars don't keep a pod alive whose containers are done",
        &with_regular("Never").exit("foo1", 0).exit("foo2", 0).exit("foo3", 1).exit("init1", 0),
        (true, false, 0),
        &[],
        &[],
        &[],
    );
}

#[test]
fn deleted_pods_start_nothing() {
    let case = base("Always").exit("foo1", 1).with(|c| {
        c.pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
    });
    check("no restart while terminating", &case, NOTHING, &[], &[], &[]);
}

#[test]
fn restart_rules_override_the_policy() {
    use k8s_openapi::api::core::v1::{ContainerRestartRule, ContainerRestartRuleOnExitCodes};
    let rules = |codes: Vec<i32>| {
        vec![ContainerRestartRule {
            action: "Restart".to_owned(),
            exit_codes: Some(ContainerRestartRuleOnExitCodes {
                operator: "In".to_owned(),
                values: Some(codes),
            }),
        }]
    };
    let case = |codes| {
        base("Never").exit("foo1", 42).with(|c| {
            let foo1 = &mut c.pod.spec.as_mut().unwrap().containers[0];
            foo1.restart_policy = Some("Never".to_owned());
            foo1.restart_policy_rules = Some(rules(codes));
        })
    };
    check("a rule that names the exit code restarts", &case(vec![42]), NOTHING, &[], &[0], &[]);
    check("a rule that names another code doesn't", &case(vec![1]), NOTHING, &[], &[], &[]);
}
