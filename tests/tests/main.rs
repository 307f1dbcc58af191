//! The cluster tests: what a person does with kubectl, on the cluster that `cargo xtask test` brings up.
//!
//! Tests that run together each have a namespace; those that hurt the cluster run alone, after them.

mod bad_input;
mod daemons_heal;
mod deletion;
mod describe;
mod example_app;
mod get_output;
mod image_errors;
mod logs_and_exec;
mod pod_basics;
mod rollout;
mod scheduling;
mod services;
mod system_pods;
mod volumes;

use harness::suite::Suite;
use std::process::ExitCode;

fn main() -> ExitCode {
    Suite::new()
        .test("system_pods::look_as_in_any_tutorial", system_pods::look_as_in_any_tutorial)
        .test("system_pods::node_tells_about_itself", system_pods::node_tells_about_itself)
        .test("example_app::applies_serves_and_goes", example_app::applies_serves_and_goes)
        .test("get_output::every_form_of_get", get_output::every_form_of_get)
        .test("get_output::watch_shows_changes", get_output::watch_shows_changes)
        .test("describe::pod_and_node", describe::pod_and_node)
        .test("logs_and_exec::logs", logs_and_exec::logs)
        .test("logs_and_exec::exec", logs_and_exec::exec)
        .test("pod_basics::environment_and_limits", pod_basics::environment_and_limits)
        .test("pod_basics::failing_container_backs_off", pod_basics::failing_container_backs_off)
        .test("pod_basics::init_containers_run_in_order", pod_basics::init_containers_run_in_order)
        .test("pod_basics::liveness_probe_restarts", pod_basics::liveness_probe_restarts)
        .test("volumes::every_kind", volumes::every_kind)
        .test("rollout::scale_up_and_down", rollout::scale_up_and_down)
        .test("rollout::new_image_and_back", rollout::new_image_and_back)
        .test("services::cluster_ip_and_node_port_reach_all", services::cluster_ip_and_node_port_reach_all)
        .test("services::unready_pod_gets_no_traffic", services::unready_pod_gets_no_traffic)
        .test("services::service_without_pods_refuses", services::service_without_pods_refuses)
        .test("scheduling::pod_that_fits_nowhere_waits", scheduling::pod_that_fits_nowhere_waits)
        .test("image_errors::missing_image", image_errors::missing_image)
        .test("deletion::owners_take_their_own_along", deletion::owners_take_their_own_along)
        .test("deletion::namespace_goes_with_all_in_it", deletion::namespace_goes_with_all_in_it)
        .test("bad_input::is_refused_as_upstream_does", bad_input::is_refused_as_upstream_does)
        .test("bad_input::kubectl_validation", bad_input::kubectl_validation)
        .test("bad_input::stale_version_and_oversize", bad_input::stale_version_and_oversize)
        .alone("daemons_heal::kube_proxy", daemons_heal::kube_proxy)
        .alone("daemons_heal::kube_scheduler", daemons_heal::kube_scheduler)
        .alone("daemons_heal::kube_controller_manager", daemons_heal::kube_controller_manager)
        .alone("daemons_heal::pod_network", daemons_heal::pod_network)
        .alone("daemons_heal::kube_apiserver", daemons_heal::kube_apiserver)
        .alone("daemons_heal::etcd", daemons_heal::etcd)
        .alone("daemons_heal::kubelet", daemons_heal::kubelet)
        .alone("daemons_heal::containerd", daemons_heal::containerd)
        .run()
}
