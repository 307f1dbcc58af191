//! Structured logs on stderr, with klog's verbosity scale mapped to tracing's levels.
//!
//! `-v 0..2` is info, `3..4` debug, `5` and above trace; errors and warnings always show. Libraries under us stay
//! at warnings until `-v 8`, where klog starts to show whole requests. Text by default, `--logging-format=json`.

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::{
    Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// The logging flags that every daemon has.
#[derive(Debug, Clone, clap::Args)]
pub struct LoggingArgs {
    /// Number for the log level verbosity
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub v: u32,
    /// Sets the log format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub logging_format: Format,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Libraries whose own messages help only when a connection itself is looked into.
const LIBRARIES: [&str; 9] =
    ["hyper", "hyper_util", "hyper_rustls", "h2", "rustls", "tower", "tonic", "etcd_client", "mio"];

/// Installs the subscriber of this process; later calls (in tests) change nothing.
pub fn init(args: &LoggingArgs) {
    let filter = filter(args.v);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match args.logging_format {
        Format::Text => layer.boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    };
    // Fails only when a subscriber is already there, which then stays.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}

fn filter(v: u32) -> Targets {
    let level = match v {
        0..=2 => Level::INFO,
        3..=4 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let mut targets = Targets::new().with_default(level);
    if v < 8 {
        targets = targets.with_targets(LIBRARIES.map(|library| (library, Level::WARN)));
        // kube logs each failed request as an error of its own; whoever asked decides that here.
        targets = targets.with_target("kube_client", tracing::level_filters::LevelFilter::OFF);
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_follows_klogs_scale() {
        for (v, level, shown) in [
            (0, Level::INFO, true),
            (2, Level::DEBUG, false),
            (3, Level::DEBUG, true),
            (4, Level::TRACE, false),
            (5, Level::TRACE, true),
        ] {
            assert_eq!(filter(v).would_enable("kubelet::pleg", &level), shown, "-v {v}");
        }
        assert!(!filter(5).would_enable("h2::codec", &Level::DEBUG));
        assert!(filter(8).would_enable("h2::codec", &Level::DEBUG));
    }
}
