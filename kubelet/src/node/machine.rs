//! Facts about this machine that don't change while it is up: `status.nodeInfo`.

use std::path::Path;

use k8s_openapi::api::core::v1::NodeSystemInfo;

/// The value of a file, trimmed; empty when it can't be read (containers and small boards lack some).
fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(path)).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn first_of(paths: &[&str]) -> String {
    paths.iter().map(|path| read(path)).find(|text| !text.is_empty()).unwrap_or_default()
}

/// `PRETTY_NAME` of os-release.
fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

/// Go's name of the architecture, as images and labels use it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The boot id, which tells a reboot.
pub(super) fn boot_id() -> String {
    read("/proc/sys/kernel/random/boot_id")
}

/// All of it. `runtime_version`: `containerd://1.6.20`.
pub(super) fn system_info(runtime_version: String) -> NodeSystemInfo {
    let machine_id = first_of(&["/etc/machine-id", "/var/lib/dbus/machine-id"]);
    let mut system_uuid = first_of(&["/sys/class/dmi/id/product_uuid", "/proc/device-tree/vm,uuid"]);
    if system_uuid.is_empty() {
        system_uuid.clone_from(&machine_id);
    }
    let os_release = first_of(&["/etc/os-release", "/usr/lib/os-release"]);
    NodeSystemInfo {
        machine_id,
        system_uuid,
        boot_id: boot_id(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        os_image: pretty_name(&os_release).unwrap_or_else(|| "Linux".to_owned()),
        container_runtime_version: runtime_version,
        kubelet_version: component_base::version::VERSION.to_owned(),
        kube_proxy_version: String::new(),
        operating_system: "linux".to_owned(),
        architecture: architecture().to_owned(),
        swap: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_os_image_is_the_pretty_name() {
        let text = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n";
        assert_eq!(pretty_name(text).as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(pretty_name("ID=x\n"), None);
    }
}
