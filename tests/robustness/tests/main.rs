//! Component tests: real API servers over a real etcd, broken on purpose.
//!
//! The program under `KEELSON_KUBE_APISERVER` is used, or else the `kube-apiserver` that was built beside this test.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests themselves do")]

mod etcd_down;
mod short_run;

use std::path::PathBuf;

/// The kube-apiserver under test.
fn apiserver() -> PathBuf {
    harness::process::find_built("KEELSON_KUBE_APISERVER", "kube-apiserver").unwrap()
}

/// Two threads, as in CI; one test at a time has the machine for itself.
fn alone<T>(test: impl Future<Output = T>) -> T {
    static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _turn = TURN.lock();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test)
}
