//! The version every component reports: `--version`, `/version`, user agents and Node status all read it here.
//!
//! Answers to upstream's component-base/version. The Kubernetes part says which API we speak; the build metadata
//! after `+` says whose build it is.

use k8s_openapi::apimachinery::pkg::version::Info;

/// The version of this build.
pub const VERSION: &str = "v1.36.2+keelson.1";

/// The part of [`VERSION`] that user agents carry.
const RELEASE: &str = "v1.36.2";

const MAJOR: &str = "1";
const MINOR: &str = "36";

/// The body of `/version`.
///
/// `goVersion` and `compiler` are required fields of the API; they hold what built this binary.
#[must_use]
pub fn info() -> Info {
    Info {
        build_date: option_env!("KEELSON_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z").to_owned(),
        compiler: "rustc".to_owned(),
        emulation_major: Some(MAJOR.to_owned()),
        emulation_minor: Some(MINOR.to_owned()),
        git_commit: option_env!("KEELSON_GIT_COMMIT").unwrap_or_default().to_owned(),
        git_tree_state: option_env!("KEELSON_GIT_TREE_STATE").unwrap_or_default().to_owned(),
        git_version: VERSION.to_owned(),
        go_version: concat!("rust-edition-2024-msrv-", env!("CARGO_PKG_RUST_VERSION")).to_owned(),
        major: MAJOR.to_owned(),
        // Upstream supports emulating and interoperating with the minor before.
        min_compatibility_major: Some(MAJOR.to_owned()),
        min_compatibility_minor: Some("35".to_owned()),
        minor: MINOR.to_owned(),
        platform: platform(),
    }
}

/// The user agent of a component, in upstream's shape: `kube-scheduler/v1.36.2 (linux/amd64) keelson`.
#[must_use]
pub fn user_agent(component: &str) -> String {
    format!("{component}/{RELEASE} ({}) keelson", platform())
}

/// `os/arch` in Go's terms.
#[must_use]
pub fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, architecture())
}

/// The CPU architecture in Go's terms, as Node status and node labels carry it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_agrees_with_the_version_constant() {
        let info = info();
        assert_eq!(info.git_version, VERSION);
        assert!(VERSION.starts_with(&format!("v{}.{}.", info.major, info.minor)));
        assert!(VERSION.starts_with(RELEASE));
        assert_eq!(concat!("v", env!("CARGO_PKG_VERSION")), RELEASE, "the workspace version moves with it");
    }

    #[test]
    fn user_agent_has_upstreams_shape() {
        let agent = user_agent("kube-scheduler");
        assert!(agent.starts_with("kube-scheduler/v1.36.2 (linux/"), "{agent}");
        assert!(agent.ends_with(") keelson"), "{agent}");
    }
}
