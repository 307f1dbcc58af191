//! A kube-apiserver of a test's own, and a kubeconfig that leads to it through the proxy.

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use component_base::client;
use harness::{apiserver::ApiServer, etcd::Etcd, process::find_built, proxy::Proxy};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::PostParams};

/// How long a condition may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Server {
    pub(crate) proxy: Proxy,
    kubeconfig: PathBuf,
    _dir: tempfile::TempDir,
    _apiserver: ApiServer,
    _etcd: Etcd,
}

impl Server {
    /// Starts everything and waits until the namespaces are there that tests use.
    pub(crate) async fn start() -> Result<Self> {
        let etcd = Etcd::start()?;
        let mut apiserver =
            ApiServer::start(&find_built("KEELSON_KUBE_APISERVER", "kube-apiserver")?, &etcd)?;
        let proxy = Proxy::start(apiserver.port).await?;
        let dir = tempfile::tempdir()?;
        let kubeconfig = kubeconfig(dir.path(), &apiserver, proxy.port())?;
        let client = client::load(Some(&kubeconfig), "test").await?;
        // The server makes these by itself, in its own time.
        for name in ["default", "kube-system"] {
            let namespaces = Api::<Namespace>::all(client.clone());
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(name.to_owned());
            let started = Instant::now();
            loop {
                apiserver.check_running()?;
                match namespaces.create(&PostParams::default(), &namespace).await {
                    Ok(_) => break,
                    Err(kube::Error::Api(status)) if status.code == 409 => break,
                    Err(error) if started.elapsed() > PATIENCE => bail!("apiserver is not ready: {error}"),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        }
        Ok(Self { proxy, kubeconfig, _dir: dir, _apiserver: apiserver, _etcd: etcd })
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> Result<Client> {
        Ok(client::load(Some(&self.kubeconfig), "test").await?)
    }

    /// A client whose connections go through `proxy`, which leads here.
    pub(crate) async fn client_through(&self, proxy: &Proxy) -> Result<Client> {
        let text = std::fs::read_to_string(&self.kubeconfig)?;
        let text = text.replace(&self.proxy.port().to_string(), &proxy.port().to_string());
        let path = self.kubeconfig.with_extension(proxy.port().to_string());
        std::fs::write(&path, text)?;
        Ok(client::load(Some(&path), "test").await?)
    }
}

/// Certificates by relative path, as an administrator might write it.
fn kubeconfig(dir: &Path, apiserver: &ApiServer, port: u16) -> Result<PathBuf> {
    std::fs::write(dir.join("ca.crt"), &apiserver.ca.cert)?;
    std::fs::write(dir.join("admin.crt"), &apiserver.admin.cert)?;
    std::fs::write(dir.join("admin.key"), &apiserver.admin.key)?;
    let path = dir.join("admin.conf");
    let text = format!(
        "apiVersion: v1
kind: Config
clusters:
- name: c
  cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: ca.crt}}
users:
- name: u
  user: {{client-certificate: admin.crt, client-key: admin.key}}
contexts:
- name: x
  context: {{cluster: c, user: u}}
current-context: x
"
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Asks until the answer is `want`, and fails with the last one.
pub(crate) async fn eventually<T: PartialEq + Debug>(what: &str, want: T, mut ask: impl AsyncFnMut() -> T) {
    let started = Instant::now();
    loop {
        let found = ask().await;
        if found == want {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: wanted {want:?}, last found {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
