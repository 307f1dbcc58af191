//! Registry credentials from docker's config files and the Secrets that hold such files. Upstream's concept:
//! `pkg/credentialprovider`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use proto::runtime_v1::AuthConfig;
use serde::Deserialize;

use super::reference::host_and_path;

/// One registry's entry.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct DockerConfigEntry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// Passwords stay out of logs.
impl std::fmt::Debug for DockerConfigEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerConfigEntry").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Entries by registry.
pub type DockerConfig = BTreeMap<String, DockerConfigEntry>;

/// A file or Secret that can't be read as credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Not JSON of the right shape.
    #[error("invalid docker config")]
    Json(#[source] serde_json::Error),
    /// A Secret of another type.
    #[error("secret has no registry credentials")]
    NotCredentials,
}

#[derive(Deserialize)]
struct DockerConfigFile {
    #[serde(default)]
    auths: DockerConfig,
}

/// Reads a `config.json` (`{"auths": …}`).
pub fn parse_config_json(bytes: &[u8]) -> Result<DockerConfig, CredentialError> {
    serde_json::from_slice::<DockerConfigFile>(bytes).map(|file| file.auths).map_err(CredentialError::Json)
}

/// Reads a Secret of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg.
pub fn from_secret(secret: &Secret) -> Result<DockerConfig, CredentialError> {
    let data =
        |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|value| value.0.as_slice());
    match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            parse_config_json(data(".dockerconfigjson").ok_or(CredentialError::NotCredentials)?)
        }
        Some("kubernetes.io/dockercfg") => {
            serde_json::from_slice(data(".dockercfg").ok_or(CredentialError::NotCredentials)?)
                .map_err(CredentialError::Json)
        }
        _ => Err(CredentialError::NotCredentials),
    }
}

/// All credentials that a pull may use.
#[derive(Debug, Default)]
pub struct Keyring(Vec<(String, DockerConfigEntry)>);

/// Host and path of a registry key: `https://index.docker.io/v1/` is Docker Hub however it is written.
fn normalise(key: &str) -> (String, String) {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = path.trim_matches('/');
    let path = if path == "v1" || path == "v2" { "" } else { path };
    let path = path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path);
    let host = if host == "index.docker.io" || host == "registry-1.docker.io" { "docker.io" } else { host };
    (host.to_owned(), path.to_owned())
}

/// Whether a host matches a pattern whose parts may hold `*`, part by part: `*.io` doesn't match `a.b.io`.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (patterns, hosts): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), host.split('.').collect());
    patterns.len() == hosts.len() && patterns.iter().zip(&hosts).all(|(pattern, part)| glob(pattern, part))
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            let Some(rest) = text.strip_prefix(before) else { return false };
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(after, &rest[at..]))
        }
    }
}

impl Keyring {
    /// Joins what several sources hold.
    #[must_use]
    pub fn new(configs: Vec<DockerConfig>) -> Self {
        Self(configs.into_iter().flatten().collect())
    }

    /// The credentials for an image, the most specific first.
    #[must_use]
    pub fn look_up(&self, image: &str) -> Vec<AuthConfig> {
        let (host, path) = host_and_path(image);
        let mut found: Vec<(usize, AuthConfig)> = self
            .0
            .iter()
            .filter_map(|(key, entry)| {
                let (key_host, key_path) = normalise(key);
                let below = key_path.is_empty()
                    || path == key_path
                    || path.strip_prefix(&key_path).is_some_and(|rest| rest.starts_with('/'));
                (below && host_matches(&key_host, &host)).then(|| (key_path.len(), auth(key, entry)))
            })
            .collect();
        found.sort_by_key(|(specific, _)| std::cmp::Reverse(*specific));
        found.into_iter().map(|(_, auth)| auth).collect()
    }
}

fn auth(key: &str, entry: &DockerConfigEntry) -> AuthConfig {
    let decoded = STANDARD.decode(&entry.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => (user.to_owned(), password.trim_end_matches('\0').to_owned()),
        None => (entry.username.clone(), entry.password.clone()),
    };
    AuthConfig {
        username,
        password,
        server_address: key.to_owned(),
        identity_token: entry.identitytoken.clone(),
        registry_token: entry.registrytoken.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn users(auths: serde_json::Value, image: &str) -> Vec<String> {
        let file = json!({"auths": auths}).to_string();
        let keyring = Keyring::new(vec![parse_config_json(file.as_bytes()).unwrap()]);
        keyring
            .look_up(image)
            .into_iter()
            .map(|auth| format!("{}:{}", auth.username, auth.password))
            .collect()
    }

    #[test]
    fn look_ups() {
        let user = |name: &str| json!({"username": name, "password": "p"});
        assert_eq!(users(json!({"quay.io": user("q")}), "quay.io/a/b:1"), ["q:p"]);
        assert_eq!(users(json!({"https://index.docker.io/v1/": user("hub")}), "busybox"), ["hub:p"]);
        assert!(users(json!({"quay.io": user("q")}), "busybox").is_empty());
        assert_eq!(
            users(json!({"quay.io": user("all"), "quay.io/a": user("a")}), "quay.io/a/b"),
            ["a:p", "all:p"]
        );
        assert_eq!(users(json!({"quay.io/a": user("a")}), "quay.io/ab/c"), Vec::<String>::new());
        assert_eq!(users(json!({"*.example.com": user("g")}), "reg.example.com/x"), ["g:p"]);
        assert!(users(json!({"*.example.com": user("g")}), "a.reg.example.com/x").is_empty());
        assert_eq!(users(json!({"quay.io": {"auth": "dTpwOng="}}), "quay.io/x"), ["u:p:x"]);
    }

    #[test]
    fn secrets_and_debug() {
        let secret = |kind: &str, key: &str, value: &str| -> Secret {
            serde_json::from_value(json!({"type": kind, "data": {key: STANDARD.encode(value)}})).unwrap()
        };
        let new = secret(
            "kubernetes.io/dockerconfigjson",
            ".dockerconfigjson",
            r#"{"auths":{"a.b":{"username":"u","password":"hunter2"}}}"#,
        );
        let config = from_secret(&new).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let old = secret("kubernetes.io/dockercfg", ".dockercfg", r#"{"a.b":{"username":"u"}}"#);
        assert_eq!(from_secret(&old).unwrap().len(), 1);
        assert!(from_secret(&secret("Opaque", "x", "{}")).is_err());
        assert!(from_secret(&secret("kubernetes.io/dockercfg", ".dockercfg", "nonsense")).is_err());
    }
}
