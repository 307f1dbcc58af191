//! Volumes: emptyDir, hostPath, configMap, secret, downwardAPI and projected in one pod.

use anyhow::{Result, ensure};
use harness::cluster::{Cluster, PATIENCE};
use harness::condition::eventually;

pub(crate) fn every_kind(cluster: &Cluster) -> Result<()> {
    let ns = cluster.namespace("volumes")?;
    ns.create(&["configmap", "settings", "--from-literal=color=blue"])?;
    ns.create(&["secret", "generic", "keys", "--from-literal=password=hunter2"])?;
    ns.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: box, labels: {tier: test}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: box
    image: keelson.local/busybox:stable
    command: [sleep, "100000"]
    volumeMounts:
    - {name: empty, mountPath: /empty}
    - {name: host, mountPath: /host, readOnly: true}
    - {name: config, mountPath: /config}
    - {name: secret, mountPath: /secret}
    - {name: down, mountPath: /down}
    - {name: all, mountPath: /all}
    - {name: config, mountPath: /single, subPath: color}
  volumes:
  - {name: empty, emptyDir: {medium: Memory}}
  - {name: host, hostPath: {path: /etc, type: Directory}}
  - {name: config, configMap: {name: settings}}
  - {name: secret, secret: {secretName: keys, defaultMode: 0400}}
  - {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - name: all
    projected:
      sources:
      - {configMap: {name: settings}}
      - {secret: {name: keys, items: [{key: password, path: deep/password}]}}
      - {serviceAccountToken: {path: token}}
"#,
    )?;
    eventually("the pod ready", PATIENCE, || {
        Ok(if ns.ready_pods("tier=test")?.is_empty() {
            Err(ns.kubectl(&["describe", "pod", "box"])?)
        } else {
            Ok(())
        })
    })?;
    let sh = |script: &str| ns.kubectl(&["exec", "box", "--", "sh", "-c", script]);
    ensure!(sh("echo x > /empty/x && cat /empty/x && mount | grep -c ' /empty type tmpfs'")? == "x\n1\n");
    ensure!(sh("test -f /host/passwd && echo yes")? == "yes\n");
    ensure!(
        ns.try_kubectl(&["exec", "box", "--", "touch", "/host/x"], None)?.code != 0,
        "a read-only mount was written"
    );
    ensure!(sh("cat /config/color /single")? == "blueblue");
    ensure!(sh("cat /secret/password; stat -L -c ' %a' /secret/password")? == "hunter2 400\n");
    ensure!(sh("cat /down/labels")?.contains("tier=\"test\""));
    ensure!(sh("cat /all/color /all/deep/password")? == "bluehunter2");
    ensure!(sh("cat /all/token")?.split('.').count() == 3, "the token is no JWT");
    let account = sh("ls /var/run/secrets/kubernetes.io/serviceaccount")?;
    ensure!(account.split_whitespace().collect::<Vec<_>>() == ["ca.crt", "namespace", "token"], "{account}");
    // A changed ConfigMap reaches the running pod.
    ns.kubectl(&["patch", "configmap", "settings", "-p", r#"{"data": {"color": "green"}}"#])?;
    eventually("the new value in the volume", 2 * PATIENCE, || {
        let now = sh("cat /config/color")?;
        Ok(if now == "green" { Ok(()) } else { Err(now) })
    })
}
