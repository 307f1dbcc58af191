//! Which resources the API server serves, by aggregated discovery: for controllers that act on every kind there is.

use kube::Client;
use kube::core::ApiResource;
use kube::core::discovery::v2::{APIGroupDiscovery, APIGroupDiscoveryList, APIVersionDiscovery};

/// A served resource in its group's preferred version (the first that serves it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Group, version, kind and plural.
    pub api: ApiResource,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<String>,
}

impl Resource {
    /// Whether a verb is served.
    pub fn supports(&self, verb: &str) -> bool {
        self.verbs.iter().any(|served| served == verb)
    }
}

/// What discovery found, and the groups of which it could not learn.
#[derive(Debug, Default)]
pub struct Discovered {
    /// Resources, each once.
    pub resources: Vec<Resource>,
    /// `group/version`s whose aggregated API server does not answer.
    pub stale: Vec<String>,
}

/// Why discovery failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    #[error("discover {path}")]
    Request { path: &'static str, source: Box<kube::Error> },
    #[error("the answer of /api lists no resources: aggregated discovery is not served")]
    Empty,
}

/// Asks for everything that is served.
pub async fn discover(client: &Client) -> Result<Discovered, DiscoveryError> {
    let request = |path| move |source| DiscoveryError::Request { path, source: Box::new(source) };
    let core = client.list_core_api_versions_aggregated().await.map_err(request("/api"))?;
    let groups = client.list_api_groups_aggregated().await.map_err(request("/apis"))?;
    let mut discovered = Discovered::default();
    collect(core, &mut discovered);
    if discovered.resources.is_empty() {
        return Err(DiscoveryError::Empty);
    }
    collect(groups, &mut discovered);
    Ok(discovered)
}

fn collect(list: APIGroupDiscoveryList, discovered: &mut Discovered) {
    for APIGroupDiscovery { metadata, versions } in list.items {
        let group = metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        for APIVersionDiscovery { version, resources, freshness } in versions {
            let version = version.unwrap_or_default();
            if freshness.as_deref() == Some("Stale") {
                discovered.stale.push(format!("{group}/{version}"));
            }
            for resource in resources {
                let plural = resource.resource.unwrap_or_default();
                let known = |other: &Resource| other.api.group == group && other.api.plural == plural;
                if discovered.resources.iter().any(known) {
                    continue;
                }
                let kind = resource.response_kind.unwrap_or_default();
                // A resource may answer with a kind of another group (scale, for one); its own address counts here.
                let api_version =
                    if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
                discovered.resources.push(Resource {
                    api: ApiResource {
                        group: group.clone(),
                        version: version.clone(),
                        api_version,
                        kind: kind.kind.unwrap_or_default(),
                        plural,
                    },
                    namespaced: resource.scope.as_deref() == Some("Namespaced"),
                    verbs: resource.verbs,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_resource_once_in_the_preferred_version() {
        let list = json!({"items": [
            {"metadata": {"name": "apps"}, "versions": [
                {"version": "v2", "freshness": "Current", "resources": [
                    {"resource": "widgets", "scope": "Cluster", "verbs": ["list"], "responseKind": {"kind": "Widget"}}]},
                {"version": "v1", "freshness": "Stale", "resources": [
                    {"resource": "widgets", "scope": "Cluster", "verbs": ["get"], "responseKind": {"kind": "Widget"}},
                    {"resource": "gadgets", "scope": "Namespaced", "verbs": ["delete"], "responseKind": {"kind": "Gadget"}}]},
            ]},
        ]});
        let mut discovered = Discovered::default();
        collect(serde_json::from_value(list).unwrap(), &mut discovered);
        let found: Vec<_> = discovered
            .resources
            .iter()
            .map(|r| (r.api.plural.as_str(), r.api.version.as_str(), r.namespaced))
            .collect();
        assert_eq!(found, [("widgets", "v2", false), ("gadgets", "v1", true)]);
        assert_eq!(discovered.resources[0].api.api_version, "apps/v2");
        assert!(discovered.resources[1].supports("delete") && !discovered.resources[1].supports("list"));
        assert_eq!(discovered.stale, ["apps/v1"]);
    }
}
