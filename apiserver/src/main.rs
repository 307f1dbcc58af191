//! kube-apiserver's process.
//!
//! By hand, with nothing but etcd (certificates as `docs/running-by-hand.md` says):
//!
//! ```text
//! kube-apiserver --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --cert-dir=/tmp/keelson \
//!     --client-ca-file=ca.crt --tls-cert-file=apiserver.crt --tls-private-key-file=apiserver.key
//! kubectl --server=https://127.0.0.1:6443 --certificate-authority=ca.crt \
//!     --client-certificate=admin.crt --client-key=admin.key get namespaces
//! ```

use std::process::ExitCode;

use component_base::cli::{self, Component};
use kube_apiserver::config::{Args, Config};

/// A quarter less CPU time for a write than with the C library's, for one MiB more at rest.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads that serve requests at most.
const MOST_WORKERS: usize = 8;

/// Half of the cores: the other half is etcd's and the callers', and a thread more than there are cores for costs each request
/// a fifth more, in waking threads and in caches that grow cold (docs/figures.md).
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, MOST_WORKERS))
}

fn main() -> ExitCode {
    let component = Component::new("kube-apiserver")
        .about("The Kubernetes API server: validates and stores objects, and serves them to everybody.")
        .workers(workers());
    cli::main(component, |args: Args| Config::new(args), kube_apiserver::run)
}
