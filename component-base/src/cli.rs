//! The life of a daemon's process: flags, logging, runtime, signals, drain, exit code.
//!
//! A daemon's `main` is one call of [`main`]. Answers to upstream's component-base/cli and apiserver's
//! SetupSignalHandler. Flags take pflag's syntax: `--flag value`, `--flag=value`, last one wins, `_` reads as `-`,
//! and **every `bool` field is a Go boolean**: `--leader-elect`, `--leader-elect=true`, `--leader-elect=false`.
//! Nothing has to be written on the field for that:
//!
//! ```
//! #[derive(Debug, clap::Args)]
//! struct Args {
//!     /// Start a leader election before the main loop.
//!     #[arg(long, default_value_t = true)]
//!     leader_elect: bool,
//!     /// How often to sync.
//!     #[arg(long, default_value = "30s", value_parser = component_base::cli::flag::duration)]
//!     sync_period: std::time::Duration,
//!     /// Comma-separated.
//!     #[arg(long, value_delimiter = ',')]
//!     etcd_servers: Vec<String>,
//! }
//! ```
//!
//! `-v`, `--v`, `--logging-format`, `--version` and `--help` are added to every daemon; do not declare them.

pub mod flag;
pub mod logging;
mod parse;

use std::{error::Error, future::Future, io::Write, process::ExitCode, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use crate::{Shutdown, error_chain::Chain, version};

/// Any error, as the functions given to [`main`] may return it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// How long a daemon may take to finish after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);

/// What [`main`] must know about a daemon beside its flags.
#[derive(Debug, Clone)]
pub struct Component {
    name: &'static str,
    about: &'static str,
    threads: Threads,
}

/// How many threads run the daemon's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// One thread for everything: least memory, for daemons that mostly wait.
    Current,
    /// A pool of this many workers.
    Workers(usize),
}

impl Component {
    /// A component with upstream's binary name, one thread.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, about: "", threads: Threads::Current }
    }

    /// What `--help` says first.
    #[must_use]
    pub const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// Runs the daemon's tasks on a pool of `workers` threads instead of one thread.
    #[must_use]
    pub const fn workers(mut self, workers: usize) -> Self {
        self.threads = Threads::Workers(workers);
        self
    }
}

impl From<&'static str> for Component {
    fn from(name: &'static str) -> Self {
        Self::new(name)
    }
}

/// Runs a daemon from its command line to its exit code.
///
/// `configure` turns parsed flags into a validated configuration (it may read files; it runs before the runtime
/// exists). `run` does the work until its [`Shutdown`] is cancelled by SIGTERM or SIGINT, then has five seconds to
/// finish; a second signal ends the process at once. Errors of both are printed as one line, exit code 1.
pub fn main<A, C, CE, RE, Fut>(
    component: impl Into<Component>,
    configure: impl FnOnce(A) -> Result<C, CE>,
    run: impl FnOnce(C, Shutdown) -> Fut,
) -> ExitCode
where
    A: clap::Args,
    CE: Into<BoxError>,
    RE: Into<BoxError>,
    Fut: Future<Output = Result<(), RE>>,
{
    let component = component.into();
    let (args, logging) = match parse::command_line::<A>(&component, std::env::args_os()) {
        Ok(parse::Outcome::Run(args, logging)) => (args, logging),
        Ok(parse::Outcome::Print(text)) => return print(&text),
        Err(message) => return fail(&message),
    };
    crate::tls::install_crypto_provider();
    logging::init(&logging);
    let config = match configure(args) {
        Ok(config) => config,
        Err(error) => return fail(&Chain(&*error.into()).to_string()),
    };
    let runtime = match runtime(component.threads) {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("start the async runtime: {error}")),
    };
    tracing::info!(component = component.name, version = version::VERSION, "starting");
    let outcome = runtime.block_on(Box::pin(supervise(config, run)));
    // What is still running holds nothing that must be finished: run() returned or had its time.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&Chain(&*error).to_string()),
    }
}

fn runtime(threads: Threads) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match threads {
        Threads::Current => tokio::runtime::Builder::new_current_thread(),
        Threads::Workers(count) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(count.max(1));
            builder
        }
    };
    // Blocking threads serve file reads and name look-ups; each holds a stack and an allocator arena while it lives.
    builder.enable_all().max_blocking_threads(16).thread_keep_alive(Duration::from_secs(1)).build()
}

async fn supervise<C, RE, Fut>(config: C, run: impl FnOnce(C, Shutdown) -> Fut) -> Result<(), BoxError>
where
    RE: Into<BoxError>,
    Fut: Future<Output = Result<(), RE>>,
{
    let shutdown = Shutdown::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut running = Box::pin(run(config, shutdown.clone()));
    let received = tokio::select! {
        outcome = &mut running => return outcome.map_err(Into::into),
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = received, "shutting down");
    shutdown.cancel();
    tokio::select! {
        outcome = &mut running => outcome.map_err(Into::into),
        () = tokio::time::sleep(DRAIN) => Err("shutdown took longer than 5s".into()),
        _ = terminate.recv() => Err("second signal, exiting at once".into()),
        _ = interrupt.recv() => Err("second signal, exiting at once".into()),
    }
}

fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(message: &str) -> ExitCode {
    // Nothing is left to tell when stderr itself is gone; the exit code still does.
    let _ = writeln!(std::io::stderr(), "Error: {}", message.replace('\n', " "));
    ExitCode::FAILURE
}
