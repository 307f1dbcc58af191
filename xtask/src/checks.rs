//! What can keep a cluster from coming up or running well. `up` starts with these checks, `doctor` prints them all.
//!
//! A check says what it found, and for what is wrong, the remedy. It changes nothing on the machine.

mod cgroups;
pub(crate) mod cluster;
mod host;
mod kernel;
pub(crate) mod leftovers;
mod ports;
mod storage;
mod versions;

use std::fmt::Display;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Ok,
    Warn,
    Fail,
}

/// The outcome of one check.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) level: Level,
    pub(crate) found: String,
    pub(crate) remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Display) -> Check {
        Check { name, level: Level::Ok, found: found.to_string(), remedy: String::new() }
    }

    fn warn(name: &'static str, found: impl Display, remedy: impl Display) -> Check {
        Check { name, level: Level::Warn, found: found.to_string(), remedy: remedy.to_string() }
    }

    fn fail(name: &'static str, found: impl Display, remedy: impl Display) -> Check {
        Check { name, level: Level::Fail, found: found.to_string(), remedy: remedy.to_string() }
    }
}

/// Everything about the machine, whether or not a cluster is up on it.
pub(crate) fn machine() -> Vec<Check> {
    let mut checks = host::identity();
    checks.extend(kernel::features());
    checks.extend(cgroups::controllers());
    checks.extend(ports::listeners());
    checks.extend(storage::disks());
    checks.extend(host::resources());
    checks.extend(host::neighbours());
    checks.extend(versions::programs());
    checks.extend(leftovers::before_up());
    checks
}

/// The checks of the machine that were not possible until the packages were there.
pub(crate) fn after_packages() -> Vec<Check> {
    let mut checks = kernel::features();
    checks.extend(versions::programs());
    checks
}
