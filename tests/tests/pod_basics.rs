//! What a pod's spec promises: environment, limits, restarts, init containers, probes.

use anyhow::{Result, ensure};
use harness::cluster::{Cluster, PATIENCE};
use harness::condition::eventually;

pub(crate) fn environment_and_limits(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("env")?;
    ns.create(&["configmap", "settings", "--from-literal=COLOR=blue", "--from-literal=SIZE=9"])?;
    ns.create(&["secret", "generic", "keys", "--from-literal=password=hunter2"])?;
    ns.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: box, labels: {tier: test}}
spec:
  restartPolicy: Never
  containers:
  - name: box
    image: keelson.local/busybox:stable
    command: [sh, -c]
    args:
    - |
      echo "plain=$PLAIN made=$MADE color=$COLOR password=$PASSWORD"
      echo "name=$POD_NAME ip=$POD_IP limit=$LIMIT"
      cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true
    resources: {limits: {memory: 48Mi, cpu: 200m}}
    envFrom: [{configMapRef: {name: settings}}]
    env:
    - {name: PLAIN, value: "1"}
    - {name: MADE, value: "$(PLAIN)-$(SIZE)"}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
    - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
"#,
    )?;
    eventually("the pod to succeed", PATIENCE, || {
        let pod = ns.json(&["get", "pod", "box"])?;
        Ok(if pod["status"]["phase"] == "Succeeded" { Ok(()) } else { Err(pod["status"].to_string()) })
    })?;
    let log = ns.kubectl(&["logs", "box"])?;
    ensure!(log.contains("plain=1 made=1-9 color=blue password=hunter2"), "{log}");
    ensure!(log.contains("name=box ip=10.244.") && log.contains("limit=50331648"), "{log}");
    ensure!(
        log.lines().any(|line| line.trim() == "50331648"),
        "the memory limit is not in the cgroup:\n{log}"
    );
    let pod = ns.json(&["get", "pod", "box"])?;
    ensure!(pod["status"]["qosClass"] == "Guaranteed", "{}", pod["status"]);
    ensure!(
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "Completed",
        "{}",
        pod["status"]
    );
    Ok(())
}

pub(crate) fn failing_container_backs_off(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("crash")?;
    ns.apply(
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "crasher"}, "spec": {"containers": [
            {"name": "crasher", "image": "keelson.local/busybox:stable", "command": ["sh", "-c", "exit 7"]}]}}"#,
    )?;
    eventually("CrashLoopBackOff", PATIENCE, || {
        let pod = ns.json(&["get", "pod", "crasher"])?;
        let status = &pod["status"]["containerStatuses"][0];
        let backing_off = status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            && status["lastState"]["terminated"]["exitCode"] == 7
            && status["restartCount"].as_i64().is_some_and(|count| count >= 1);
        Ok(if backing_off { Ok(()) } else { Err(pod["status"].to_string()) })
    })
}

pub(crate) fn init_containers_run_in_order(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("init")?;
    ns.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: staged}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - {name: one, image: "keelson.local/busybox:stable", command: [sh, -c, "echo one >> /shared/log"], volumeMounts: [{name: shared, mountPath: /shared}]}
  - {name: two, image: "keelson.local/busybox:stable", command: [sh, -c, "echo two >> /shared/log"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - {name: main, image: "keelson.local/busybox:stable", command: [sh, -c, "cat /shared/log; sleep 100000"], volumeMounts: [{name: shared, mountPath: /shared}]}
  volumes: [{name: shared, emptyDir: {}}]
"#,
    )?;
    eventually("the main container's log", PATIENCE, || {
        let said = ns.try_kubectl(&["logs", "staged", "-c", "main"], None)?;
        Ok(if said.stdout == "one\ntwo\n" { Ok(()) } else { Err(format!("{}{}", said.stdout, said.stderr)) })
    })?;
    let pod = ns.json(&["get", "pod", "staged"])?;
    let done =
        |i: usize| pod["status"]["initContainerStatuses"][i]["state"]["terminated"]["reason"] == "Completed";
    ensure!(done(0) && done(1), "{}", pod["status"]);
    Ok(())
}

pub(crate) fn liveness_probe_restarts(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("liveness")?;
    ns.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: sick}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: sick
    image: keelson.local/busybox:stable
    command: [sh, -c, "touch /tmp/well; sleep 100000"]
    livenessProbe: {exec: {command: [cat, /tmp/well]}, periodSeconds: 1, failureThreshold: 1}
"#,
    )?;
    eventually("the pod running", PATIENCE, || {
        let pod = ns.json(&["get", "pod", "sick"])?;
        let running = &pod["status"]["containerStatuses"][0]["state"]["running"];
        Ok(if running.is_null() { Err(pod["status"].to_string()) } else { Ok(()) })
    })?;
    ns.kubectl(&["exec", "sick", "--", "rm", "/tmp/well"])?;
    eventually("a restart", PATIENCE, || {
        let pod = ns.json(&["get", "pod", "sick"])?;
        let restarted =
            pod["status"]["containerStatuses"][0]["restartCount"].as_i64().is_some_and(|n| n >= 1);
        Ok(if restarted { Ok(()) } else { Err(pod["status"].to_string()) })
    })?;
    eventually("the event of the failed probe", PATIENCE, || {
        let events = ns.kubectl(&["get", "events"])?;
        Ok(if events.contains("Liveness probe failed") { Ok(()) } else { Err(events) })
    })
}
