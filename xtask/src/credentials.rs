//! The cluster's certificates, keys and kubeconfigs: kubeadm's files in kubeadm's places. What is there and good for
//! long enough is left alone; what nears its end, or names other addresses than the node has now, is issued again.

use crate::journal::{write_atomically, write_if_changed};
use crate::layout;
use crate::machine::Node;
use anyhow::{Context, Result};
use base64::Engine;
use pki::{Leaf, Pair};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A leaf certificate and where it lies, without its extension.
#[derive(Debug)]
struct Issue {
    file: &'static str,
    ca: &'static str,
    leaf: Leaf,
}

fn issues(node: &Node) -> Vec<Issue> {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let ip = node.ip.to_string();
    let apiserver = own(&[
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        &node.name,
        layout::KUBERNETES_SERVICE_IP,
        &ip,
        "127.0.0.1",
    ]);
    let etcd = own(&["localhost", &node.name, "127.0.0.1", "::1", &ip]);
    let issue = |file, ca, leaf| Issue { file, ca, leaf };
    let client = |file, cn: &str, orgs: &[&str]| issue(file, "ca", Leaf::client(cn, orgs));
    vec![
        issue("apiserver", "ca", Leaf::server("kube-apiserver", &apiserver)),
        client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"]),
        client("admin", "kubernetes-admin", &["system:masters"]),
        client("kubelet", &format!("system:node:{}", node.name), &["system:nodes"]),
        client("controller-manager", "system:kube-controller-manager", &[]),
        client("scheduler", "system:kube-scheduler", &[]),
        issue("etcd/server", "etcd/ca", Leaf::peer(&node.name, &etcd)),
        issue("etcd/peer", "etcd/ca", Leaf::peer(&node.name, &etcd)),
        issue("etcd/healthcheck-client", "etcd/ca", Leaf::client("kube-etcd-healthcheck-client", &[])),
        issue("apiserver-etcd-client", "etcd/ca", Leaf::client("kube-apiserver-etcd-client", &[])),
    ]
}

/// The kubeconfigs: file, user, and the certificate's file. The node's own parts reach the API server over loopback,
/// which stays when the node's address changes.
const KUBECONFIGS: [(&str, &str, &str); 4] = [
    ("admin.conf", "kubernetes-admin", "admin"),
    ("kubelet.conf", "default-auth", "kubelet"),
    ("controller-manager.conf", "system:kube-controller-manager", "controller-manager"),
    ("scheduler.conf", "system:kube-scheduler", "scheduler"),
];

/// Makes what is missing or no longer good; says how much that was.
pub(crate) fn provide(node: &Node) -> Result<String> {
    let made = provide_in(Path::new(layout::PKI), node, SystemTime::now())?;
    for (file, user, cert) in KUBECONFIGS {
        let server = if cert == "admin" {
            format!("https://{}:{}", node.ip, layout::APISERVER_PORT)
        } else {
            format!("https://127.0.0.1:{}", layout::APISERVER_PORT)
        };
        let text = kubeconfig(Path::new(layout::PKI), &server, user, cert)?;
        write_if_changed(&Path::new(layout::KUBERNETES).join(file), text.as_bytes(), 0o600)?;
    }
    Ok(if made == 0 { "as they are".to_owned() } else { format!("{made} issued") })
}

fn provide_in(dir: &Path, node: &Node, now: SystemTime) -> Result<usize> {
    let mut made = 0;
    for ca in ["ca", "etcd/ca"] {
        if read_pair(dir, ca)?.is_none() {
            let name = if ca == "ca" { "kubernetes" } else { "etcd-ca" };
            write_pair(dir, ca, &pki::new_ca(name, now)?)?;
            made += 1;
        }
    }
    if !dir.join("sa.key").is_file() || !dir.join("sa.pub").is_file() {
        let pair = pki::new_signing_key()?;
        write_atomically(&dir.join("sa.key"), pair.key.as_bytes(), 0o600)?;
        write_atomically(&dir.join("sa.pub"), pair.cert.as_bytes(), 0o600)?;
        made += 1;
    }
    for issue in issues(node) {
        let ca = read_pair(dir, issue.ca)?.with_context(|| format!("{} is missing", issue.ca))?;
        if read_pair(dir, issue.file)?.is_some_and(|pair| is_good(&pair, &ca, &issue.leaf, now)) {
            continue;
        }
        write_pair(dir, issue.file, &pki::new_leaf(&ca, &issue.leaf, now)?)?;
        made += 1;
    }
    Ok(made)
}

/// Whether a stored certificate still says what is wanted, for long enough, under an authority that is as it was.
fn is_good(pair: &Pair, ca: &Pair, leaf: &Leaf, now: SystemTime) -> bool {
    let (Ok(facts), Ok(authority)) = (pki::facts(&pair.cert), pki::facts(&ca.cert)) else { return false };
    !facts.needs_renewal(now)
        && facts.common_name == leaf.common_name
        && facts.sans == leaf.sans.iter().cloned().collect()
        && facts.not_before >= authority.not_before
}

fn read_pair(dir: &Path, file: &str) -> Result<Option<Pair>> {
    let read = |extension: &str| {
        let path = dir.join(format!("{file}.{extension}"));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    };
    Ok(read("crt")?.zip(read("key")?).map(|(cert, key)| Pair { cert, key }))
}

fn write_pair(dir: &Path, file: &str, pair: &Pair) -> Result<()> {
    // The key first: a certificate without its key would look complete after a crash.
    write_atomically(&dir.join(format!("{file}.key")), pair.key.as_bytes(), 0o600)?;
    write_atomically(&dir.join(format!("{file}.crt")), pair.cert.as_bytes(), 0o600)
}

fn kubeconfig(dir: &Path, server: &str, user: &str, cert: &str) -> Result<String> {
    let data = |file: String| -> Result<String> {
        let path = dir.join(file);
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
    };
    Ok(format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: kubernetes\n  cluster:\n    \
         certificate-authority-data: {ca}\n    server: {server}\nusers:\n- name: {user}\n  user:\n    \
         client-certificate-data: {cert}\n    client-key-data: {key}\ncontexts:\n- name: {user}@kubernetes\n  \
         context:\n    cluster: kubernetes\n    user: {user}\ncurrent-context: {user}@kubernetes\n",
        ca = data("ca.crt".to_owned())?,
        cert = data(format!("{cert}.crt"))?,
        key = data(format!("{cert}.key"))?,
    ))
}

/// Every certificate of the cluster, with the days it has left.
pub(crate) fn days_left(now: SystemTime) -> Vec<(PathBuf, std::result::Result<u64, pki::Error>)> {
    let dir = Path::new(layout::PKI);
    let mut found = Vec::new();
    for sub in [dir.to_owned(), dir.join("etcd")] {
        for path in std::fs::read_dir(sub).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "crt")
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                found.push((path, pki::facts(&text).map(|facts| facts.days_left(now))));
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn certificates_are_issued_once_and_again_when_needed() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node { name: "n1".into(), ip: [192, 0, 2, 2].into() };
        let now = SystemTime::now();
        assert_eq!(provide_in(dir.path(), &node, now).unwrap(), 13);
        assert_eq!(provide_in(dir.path(), &node, now).unwrap(), 0);
        let moved = Node { ip: [192, 0, 2, 3].into(), ..node.clone() };
        assert_eq!(provide_in(dir.path(), &moved, now).unwrap(), 3, "apiserver, etcd server and peer");
        let later = now + Duration::from_secs(300 * 24 * 3600);
        assert_eq!(provide_in(dir.path(), &moved, later).unwrap(), 10, "all leaves");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(dir.path().join("etcd/server.key")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        let text = kubeconfig(dir.path(), "https://127.0.0.1:6443", "u", "admin").unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(value["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
    }
}
